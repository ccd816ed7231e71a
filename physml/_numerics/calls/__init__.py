"""Calls from users and calls of what users hand in: both checked, in the user's words."""

from physml._numerics.calls._annotations import Annotation as Annotation
from physml._numerics.calls._checked import checked as checked
from physml._numerics.calls._checked import require_fields as require_fields
from physml._numerics.calls._users import answer as answer
from physml._numerics.calls._users import ask as ask

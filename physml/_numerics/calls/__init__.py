"""Checks what users pass, calls the functions that they hand in, and words the messages."""

from physml._numerics.calls._checked import Dataclass as Dataclass
from physml._numerics.calls._checked import checked as checked
from physml._numerics.calls._checked import require_fields as require_fields
from physml._numerics.calls._checked import require_instance as require_instance
from physml._numerics.calls._components import check_components as check_components
from physml._numerics.calls._components import require_components as require_components
from physml._numerics.calls._identity import Identity as Identity
from physml._numerics.calls._identity import identity as identity
from physml._numerics.calls._text import listed as listed
from physml._numerics.calls._text import numbers_in as numbers_in
from physml._numerics.calls._text import shown as shown
from physml._numerics.calls._text import summary as summary
from physml._numerics.calls._traced import Trace as Trace
from physml._numerics.calls._traced import as_given as as_given
from physml._numerics.calls._traced import as_traced as as_traced
from physml._numerics.calls._traced import digest_of as digest_of
from physml._numerics.calls._traced import holding as holding
from physml._numerics.calls._traced import reads_traced as reads_traced
from physml._numerics.calls._traced import retraced as retraced
from physml._numerics.calls._traced import trace as trace
from physml._numerics.calls._traced import with_arrays as with_arrays
from physml._numerics.calls._users import answer as answer
from physml._numerics.calls._users import ask as ask
from physml._numerics.calls._users import takes as takes

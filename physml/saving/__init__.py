"""Save and load whatever a user keeps: it describes itself, it is checked, and holds no code."""

from physml.saving._file import why_damaged as why_damaged
from physml.saving._keeper import Keeper as Keeper
from physml.saving._replacing import replacing as replacing
from physml.saving._save import load as load
from physml.saving._save import save as save

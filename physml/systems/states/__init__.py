"""States as people write them: trees, complex numbers, higher derivatives, time backwards."""

from physml.systems.states._form import Form as Form
from physml.systems.states._form import Path as Path
from physml.systems.states._held import Held as Held
from physml.systems.states._higher_order import HigherOrder as HigherOrder
from physml.systems.states._higher_order import from_residual as from_residual
from physml.systems.states._higher_order import higher_order as higher_order
from physml.systems.states._higher_order import second_order as second_order
from physml.systems.states._reversed import Reversed as Reversed
from physml.systems.states._reversed import is_backwards as is_backwards
from physml.systems.states._structure import Structure as Structure
from physml.systems.states._structure import ravel_numbers as ravel_numbers
from physml.systems.states._structure import take_apart_state as take_apart_state

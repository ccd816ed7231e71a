"""What is solved: right-hand sides, and what is known about them."""

from physml.systems.base import System as System
from physml.systems.function import from_function as from_function
from physml.systems.lorenz import Lorenz as Lorenz

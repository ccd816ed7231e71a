"""Functions evaluated operation by operation: in double-double, or by real parts alone."""

from physml._numerics.interpreter._exact import in_double_double as in_double_double
from physml._numerics.interpreter._pairs import by_pairs as by_pairs

"""Functions evaluated operation by operation: in double-double, or by real parts alone."""

from physml._numerics.interpreter._exact import in_double_double as in_double_double
from physml._numerics.interpreter._loops import called_by as called_by
from physml._numerics.interpreter._loops import scan_counts as scan_counts
from physml._numerics.interpreter._origins import Made as Made
from physml._numerics.interpreter._origins import made_nan as made_nan
from physml._numerics.interpreter._pairs import by_pairs as by_pairs

"""How honest error estimates are."""

import numpy as np
from jaxtyping import ArrayLike, Float

from physml._types import Numbers


def error_factors(
    estimate: Numbers, error: Numbers, floor: ArrayLike = 1e-12
) -> Float[np.ndarray, " n"]:
    """The factors, 1 or more, by which estimates differ from the true errors.

    Their quantiles say how far an estimate can be trusted; `np.mean(factors < 3)` is the share of
    estimates within a factor 3.

    Args:
        estimate, error: arrays of one shape; their signs do not count.
        floor: a number or an array. Errors up to it are left out, because they are rounding, or are
            themselves not known well enough.

    Example:
        >>> experiment.error_factors([2e-6, 1e-6, 1.0], [1e-6, -4e-6, 1e-15]).round(6)
        array([2., 4.])
    """
    estimate, error = np.abs(np.asarray(estimate)), np.abs(np.asarray(error))
    known = error > floor
    ratio = estimate[known] / error[known]
    return np.maximum(ratio, 1 / ratio)

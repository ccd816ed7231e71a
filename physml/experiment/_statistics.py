"""How honest error estimates and intervals are."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float


def error_factors(estimate: Any, error: Any, floor: Any = 1e-12) -> Float[np.ndarray, " n"]:
    """The factors, 1 or more, by which estimates differ from the errors that they are of.

    Their quantiles say how far an estimate is to be trusted, `np.mean(factors < 3)` is the share of
    estimates within a factor 3.

    Args:
        estimate, error: arrays of one shape; their signs do not count.
        floor: errors up to this, an array or a number, are left out: they are rounding, of which no
            estimate knows the sign, or not known well enough.

    Example:
        >>> experiment.error_factors([2e-6, 1e-6, 1.0], [1e-6, -4e-6, 1e-15]).round(6)
        array([2., 4.])
    """
    estimate, error = np.abs(np.asarray(estimate)), np.abs(np.asarray(error))
    known = error > floor
    ratio = estimate[known] / error[known]
    return np.maximum(ratio, 1 / ratio)


def coverage(intervals: Mapping[str, Any], truth: Mapping[str, Any]) -> dict[str, float]:
    """By name, the share of intervals that hold the truth.

    Args:
        intervals: by name, the pair of low and high ends, arrays of one shape.
        truth: by name, the value that the intervals are for.

    Example:
        >>> experiment.coverage({"sigma": (np.zeros(2), np.array([0.5, 2.0]))}, {"sigma": 1.0})
        {'sigma': 0.5}
    """
    return {
        name: float(np.mean((low <= truth[name]) & (truth[name] <= high)))
        for name, (low, high) in intervals.items()
    }

"""What every way of fitting returns."""

from typing import Any

import equinox as eqx
import numpy as np

from physml.results import RESULTS


class Fit(eqx.Module):
    """A fitted model and how it came about."""

    model: Any
    history: dict[str, np.ndarray]  # by metric, a row per step; "step" numbers the rows
    result: RESULTS
    state: Any  # what `gradient` takes back as `state=` to go on; None from `least_squares`
    step: int  # steps made in all
    nonfinite_step: int | None  # the step (from 0) at which the loss was not finite
    seconds: float  # without compiling
    compile_seconds: float

"""What every way of fitting returns."""

from typing import Any

import equinox as eqx
import numpy as np


class RESULTS(eqx.Enumeration):
    """How a fit ended."""

    completed = "All steps were made, or the solver converged."
    early_stopped = "The validation loss stopped improving, or a callback asked to stop."
    nonfinite = "The loss became infinite or NaN; the last good model is returned."
    interrupted = "Ctrl-C: the model as it was then is returned."
    max_steps_reached = "The solver did not converge in the steps it was allowed."
    failed = "The solver could not make a step, for instance because a linear solve broke down."


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


def raise_if_interrupted(result: RESULTS) -> None:
    """For a script that would go on with a model as with a finished one.

    Raises:
        KeyboardInterrupt: the fit was interrupted.
    """
    if bool(result == RESULTS.interrupted):
        raise KeyboardInterrupt

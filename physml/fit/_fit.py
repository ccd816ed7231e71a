"""What every way of fitting returns."""

from typing import Generic, TypeVar

import equinox as eqx
import numpy as np
from jaxtyping import Int, PyTree

from physml.results import RESULTS, conclude

Model = TypeVar("Model")
AnyFit = TypeVar("AnyFit", bound="AbstractFit")


class AbstractFit(eqx.Module):
    """How a fit of one model or of many came about."""

    history: dict[str, np.ndarray]  # by metric, a row per step; "step" numbers the rows
    result: RESULTS
    step: int  # steps made in all
    seconds: float  # without compiling
    compile_seconds: float
    nonfinite_step: eqx.AbstractVar[int | Int[np.ndarray, " models"] | None]


class Fit(AbstractFit, Generic[Model]):
    """A fitted model and how it came about."""

    model: Model  # None from `loop`, which knows states only
    state: PyTree = None  # what `loop` left, or what `gradient` takes back as `state=` to go on
    nonfinite_step: int | None = None  # the step (from 0) at which the loss was not finite


def concluded(fitted: AnyFit, name: str) -> AnyFit:
    """Return a fit; warn, in the name of the user's function, if it failed or was interrupted."""
    bad = fitted.nonfinite_step
    details = f"Steps made: {fitted.step}."
    if isinstance(bad, np.ndarray):
        details += f" Models that diverged: {np.sum(bad >= 0)} of {bad.size}."
    elif bad is not None:
        details += f" The loss of step {bad} was not finite."
    return conclude(fitted, fitted.result, name, details, throw=False)

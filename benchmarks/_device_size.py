"""What the rows of `device.py` share: how much each does, how it is timed, and its error."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from physml import experiment


class Size(NamedTuple):
    """How much a row does: a CPU gets less, and a quick look the least."""

    quick: bool
    accelerator: bool

    def __call__(self, quick: Any, cpu: Any, accelerator: Any) -> Any:
        return quick if self.quick else accelerator if self.accelerator else cpu


Figures = dict[str, float]


def timed(compute: Callable[[], Any], repeats: int = 2) -> tuple[Any, Figures]:
    """The answer, and the seconds of the fastest call and of compiling."""
    answer, seconds, compiling = experiment.best_of(compute, repeats)
    return answer, {"seconds": seconds, "compile_seconds": compiling}


def relative(found: Any, truth: Any) -> float:
    """The relative error, root mean square over all that there is."""
    found, truth = np.asarray(found, float), np.asarray(truth, float)
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def steps_of(fitted: Any) -> Figures:
    """How fast a fit by gradient was."""
    return {
        "steps": fitted.step,
        "seconds": fitted.seconds,
        "compile_seconds": fitted.compile_seconds,
        "steps_per_second": fitted.step / fitted.seconds,
    }

"""Computations beside each other, so that one compiles while another runs."""

from collections.abc import Callable
from typing import Any

import numpy as np

from physml._numerics.devices import for_each_chunk


def beside(*computations: Callable[[], Any]) -> tuple[Any, ...]:
    """What each computation answers, all at once: each has a thread of its own.

    XLA compiles a program on one core, and runs many small ones on one core. While it does, another
    computation has the others. The answers are those that the computations give one after the
    other; but the seconds of each would hold waiting for the others, so time none of them.

    If some raise, so does this, once all have ended.

    Example:
        >>> experiment.beside(lambda: 1, lambda: 2)
        (1, 2)
    """
    answers: dict[int, Any] = {}

    def work(index: np.ndarray, rows: slice) -> None:
        answers[rows.start] = computations[rows.start]()

    for_each_chunk(work, len(computations), 1, max(1, len(computations)))
    return tuple(answers[i] for i in range(len(computations)))

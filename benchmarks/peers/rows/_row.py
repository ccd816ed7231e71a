"""What the rows have in common: each runs in the environment of its peer, with NumPy alone.

    python ROWS_OF_A_PEER.py TASK FOLDER LIMIT

The task's data are in FOLDER/data.npz. The answer goes to FOLDER/answer.npz, and what the row says
of itself (seconds, compile_seconds, setting, version) to FOLDER/said.json.
"""

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

CORES = os.cpu_count() or 1
Data = dict[str, np.ndarray]
Task = Callable[[Data, float], tuple[Any, dict[str, Any]]]
T = TypeVar("T")


def serve(tasks: Mapping[str, Task], package: str) -> None:
    """Run the task that the command line names, and write its answer."""
    name, folder, limit = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    with np.load(folder / "data.npz") as file:
        data = dict(file)
    answer, said = tasks[name](data, limit)
    np.savez(folder / "answer.npz", answer=np.asarray(answer, dtype=float))
    said["version"] = importlib.metadata.version(package)
    (folder / "said.json").write_text(json.dumps(said), encoding="utf-8")


def best_of(compute: Callable[[], T], times: int = 5, within: float = 5.0) -> tuple[T, dict]:
    """The answer of `compute`, and the shortest of some times; the first call compiles."""
    start = time.perf_counter()
    answer = compute()
    first = time.perf_counter() - start
    seconds: list[float] = []
    while not seconds or (len(seconds) < times and sum(seconds) < within):
        start = time.perf_counter()
        answer = compute()
        seconds.append(time.perf_counter() - start)
    best = min(seconds)
    return answer, {"seconds": best, "compile_seconds": max(0.0, first - best)}


def once(compute: Callable[[], T]) -> tuple[T, dict]:
    """The answer of a `compute` that takes long and compiles nothing, and its seconds."""
    start = time.perf_counter()
    answer = compute()
    return answer, {"seconds": time.perf_counter() - start}


def lorenz(t: Any, y: Any) -> list[Any]:
    """The right-hand side of the Lorenz system."""
    return [10.0 * (y[1] - y[0]), y[0] * (28.0 - y[2]) - y[1], y[0] * y[1] - 8.0 / 3.0 * y[2]]


def oscillator(t: Any, y: Any, cos: Callable[[Any], Any] = np.cos) -> list[Any]:
    """The right-hand side of the driven oscillator, x'' + 0.4 x' + x = cos(t / 2)."""
    return [y[1], cos(0.5 * t) - 0.4 * y[1] - y[0]]

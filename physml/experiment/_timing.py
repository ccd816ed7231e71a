"""How long a block or a call takes, and how much of that JAX spends compiling."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

_COMPILE_EVENTS = frozenset(
    f"/jax/core/compile/{phase}_duration"
    for phase in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)


class Timing:
    """The time since a block was entered; it stops when the block is left."""

    def __init__(self) -> None:
        self._begin, self._end = time.perf_counter(), math.nan
        self._spans: list[tuple[float, float]] = []

    @property
    def wall_seconds(self) -> float:
        """Seconds, compiling included."""
        return (time.perf_counter() if math.isnan(self._end) else self._end) - self._begin

    @property
    def compile_seconds(self) -> float:
        """Seconds in which JAX traced, lowered or compiled."""
        return _covered(self._spans)

    @property
    def seconds(self) -> float:
        """Seconds without compiling."""
        return self.wall_seconds - self.compile_seconds

    def _record(self, event: str, start_time: float, end_time: float, **_: Any) -> None:
        if event in _COMPILE_EVENTS:
            self._spans.append((start_time, end_time))


@contextlib.contextmanager
def timed() -> Iterator[Timing]:
    """Time a block, and the compiling in it.

    The block must wait for its results (`jax.block_until_ready`), or work that is still under way
    is not counted.
    """
    timing = Timing()
    jax.monitoring.register_event_time_span_listener(timing._record)
    try:
        yield timing
    finally:
        timing._end = time.perf_counter()
        jax.monitoring.unregister_event_time_span_listener(timing._record)


def best_of(compute: Callable[[], Any], repeats: int = 5) -> tuple[Any, float, float]:
    """Returns what `compute()` answers, the seconds of the fastest call, and those of compiling.

    One more call comes first: what it takes beyond the fastest counts as compiling. The fastest is
    taken because other processes can only add to the time.
    """
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        answer = jax.block_until_ready(compute())
        seconds.append(time.perf_counter() - start)
    best = min(seconds[1:])
    return answer, best, seconds[0] - best


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """The time covered by intervals that may lie inside each other, as nested traces do."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total

"""A row for each of several problems, beside a solver that is given a tolerance."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from physml.experiment import Run

QUICK_PROBLEMS, QUICK_TOLERANCE = 2, 1e-6

Problem = TypeVar("Problem")


class Beside(Protocol):
    """Options of such a benchmark."""

    @property
    def quick(self) -> bool: ...

    @property
    def tolerance(self) -> float: ...


def measure_each(
    run: Run,
    config: Beside,
    problems: Mapping[str, Problem],
    measure: Callable[[Run, str, Problem, float], None],
    columns: Mapping[str, str],
    title: str,
) -> list[dict[str, Any]]:
    """Measure each problem, or the first two with a loose tolerance if quick; print the table."""
    names = list(problems)[:QUICK_PROBLEMS] if config.quick else list(problems)
    for name in names:
        measure(run, name, problems[name], QUICK_TOLERANCE if config.quick else config.tolerance)
    rows = run.take_rows()
    run.table(rows, columns, title=title)
    run.metrics({
        "worst_error": max(row["error"] for row in rows),
        "slowest_seconds": max(row["seconds"] for row in rows),
    })  # fmt: skip
    return rows

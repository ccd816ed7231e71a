"""Show the runs that lie in a folder: their state and their first figures. Compare two of them.

Without options all runs below results/ are listed, the newest first. A run is complete, running,
interrupted, failed (with its error), or killed, where its process ended without a word; it is
unreadable where one of its files is damaged, which is named. With `--compare results/lorenz
results/lorenz_wide` the figures that differ stand side by side.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from physml import experiment

RECORDED = ("seed", "dtype", "device", "cpu_count", "cache", "date", "command", "compile_seconds")


@dataclass(frozen=True)
class Options:
    below: Path = Path("results")
    """Folder under which runs are looked for."""
    compare: tuple[Path, Path] | None = None
    """Two runs whose figures are shown side by side."""
    figures: int = 3
    """How many figures of each run are shown."""


def metrics_of(folder: Path) -> dict[str, Any]:
    """The figures of a run; those so far where it is not complete.

    Raises:
        ValueError: the file that holds them is damaged, or no run has written it.
    """
    for name in ("metrics.json", "metrics.json.unfinished"):
        path = folder / name
        if path.exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{path} is damaged: {error}") from error
            if not isinstance(found, dict) or any(map(is_nested, found.values())):
                raise ValueError(f"{path} must hold figures by name")
            return found
    return {}


def listed(below: Path, figures: int) -> list[dict[str, Any]]:
    """One row for each run below a folder, newest first, those that nobody can read at the end.

    Raises:
        ValueError: there is no such folder.
    """
    if not below.is_dir():
        raise ValueError(f"below must be a folder that is there, got {below}")
    rows = []
    for path in below.rglob("run.json"):
        try:
            row = row_of(path.parent, figures)
        except (ValueError, OSError) as error:  # one bad file hides no other run
            row = {"state": "unreadable", "started": "", "figures": str(error)}
        rows.append({"folder": str(path.parent.relative_to(below)), **row})
    return sorted(rows, key=lambda row: row["started"], reverse=True)


def row_of(folder: Path, figures: int) -> dict[str, Any]:
    """How a run ended, when it began, its time and first figures."""
    record, metrics = experiment.record_of(folder) or {}, metrics_of(folder)
    found = {key: x for key, x in metrics.items() if is_figure(key, x)}
    claims = {key: x for key, x in found.items() if not key.endswith("seconds")}
    shown = [f"{key} {x:.3g}" for key, x in list(claims.items())[:figures]]
    return {
        "state": str(record.get("state", "")),
        "started": str(record.get("started", "")),
        "wall_s": metrics.get("wall_s"),
        "figures": ", ".join(shown) or str(record.get("error", "")),
    }


def compared(first: Path, second: Path) -> list[dict[str, Any]]:
    """One row for each figure of two runs that differs between them.

    Raises:
        ValueError: one of the folders holds no figures.
    """
    one, two = metrics_of(first), metrics_of(second)
    for folder, metrics in ((first, one), (second, two)):
        if not metrics:
            raise ValueError(f"compare must name two runs that have figures, got {folder}")
    rows = []
    for key in one | two:
        a, b = one.get(key), two.get(key)
        if a != b:
            ratio = b / a if a and is_figure(key, a) and is_figure(key, b) else None
            rows.append({"figure": key, "first": a, "second": b, "ratio": ratio})
    return rows


def is_nested(value: Any) -> bool:
    """Whether a value is none that a run writes among its figures."""
    return isinstance(value, list | dict)


def is_figure(key: str, value: Any) -> bool:
    """Whether a metric is a number that the run found, and nothing about the run itself."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and key not in RECORDED and not key.startswith("versions.")


def main(options: Options) -> None:
    if options.compare is None:
        columns = ["folder", "state", "started", "wall_s", "figures"]
        rows = listed(options.below, options.figures)
        experiment.print_table(rows, dict(zip(columns, columns, strict=True)))
    else:
        columns = {key: key for key in ("figure", "first", "second", "ratio")}
        experiment.print_table(compared(*options.compare), columns)


if __name__ == "__main__":
    main(experiment.read_options(Options, __doc__))

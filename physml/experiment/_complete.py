"""A run that is complete: its figures can be recorded, and it need not be made again."""

from pathlib import Path
from typing import Any

from physml.experiment import _files as files
from physml.experiment._claim import record_of
from physml.experiment._parts import identity


def copy_metrics(folder: Path, record: Path) -> None:
    """Write the metrics of a run, sorted by their names, to the file that records them."""
    record.parent.mkdir(parents=True, exist_ok=True)
    metrics = files.read_json(folder / "metrics.json") or {}
    files.write_json(record, dict(sorted(metrics.items())))


def is_complete(config: Any) -> bool:
    """Whether the folder of a configuration holds a complete run of it, with all that it wrote."""
    try:
        said = record_of(config.out) or {}
    except ValueError:  # nobody can read it
        return False
    wrote = ["metrics.json", *said.get("files", ())]
    same = said.get("state") == "complete" and said.get("run") == identity(config)
    return same and all((config.out / name).exists() for name in wrote)

"""A run's folder: its configuration, metrics, table, figures and models, written whole or not.

Besides, how long things take (`Run.timed`, `best_of`), and how tables read (`format_table`).
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import numbers
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

_PACKAGES = ("physml", "jax", "jaxlib", "flax", "optax", "diffrax", "equinox", "numpy")
_COMPILE_EVENTS = frozenset(
    f"/jax/core/compile/{phase}_duration"
    for phase in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


@dataclasses.dataclass
class Timing:
    """Seconds that a block took without compiling, and seconds that JAX spent compiling in it."""

    seconds: float = math.nan
    compile_seconds: float = math.nan


class Run:
    """One run of an experiment and the folder that keeps it.

        with Run("results/lorenz", config) as run:
            ...
            run.figure("attractor", fig)           # figures/attractor.png
            run.history("mlp", fitted.history)     # history/mlp.npz
            run.save_model("mlp", stepper)         # models/mlp
            run.part("widths", compute)            # kept if the run is interrupted
            run.table(rows, columns)               # printed, and table.txt
            run.records(scores, columns)           # the same, of figures by name
            metrics = run.metrics({"vpt_mean": 20.1}, prefix="mlp")   # metrics.json

    Every file appears whole or not at all. Entering writes `config.json` and removes the metrics
    and table of an earlier run, so a folder that holds metrics holds those of its configuration.

    Args:
        out_dir: the folder, made if it is not there.
        config: a dataclass instance; its `seed`, and its `dtype` if it has one, go with the
            metrics.

    Raises:
        TypeError: if `config` is not a dataclass instance.
        ValueError: if `out_dir` is a file, or a name is not a plain file name.
    """

    def __init__(self, out_dir: str | os.PathLike[str], config: Any):
        if not dataclasses.is_dataclass(config) or isinstance(config, type):
            raise TypeError(f"config: expected a dataclass instance, got {config!r}")
        self.out_dir = Path(out_dir)
        if self.out_dir.exists() and not self.out_dir.is_dir():
            raise ValueError(f"out_dir: expected a folder, got the file {self.out_dir}")
        self.config = config
        self._metrics: dict[str, Any] = {}
        self._tables: list[str] = []
        self._spans: list[tuple[float, float]] = []

    def __enter__(self) -> "Run":
        self._started = time.perf_counter()
        jax.monitoring.register_event_time_span_listener(self._record_span)
        self.out_dir.mkdir(parents=True, exist_ok=True)
        for stale in ("metrics.json", "table.txt"):
            (self.out_dir / stale).unlink(missing_ok=True)
        config = dataclasses.asdict(self.config)
        _write_json(self.out_dir / "config.json", config)
        # Where the results go does not change them.
        self._identity = _jsonable({key: value for key, value in config.items() if key != "out"})
        if self._parts.exists() and _read_json(self._parts / "config.json") != self._identity:
            shutil.rmtree(self._parts)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if exc_info[0] is None and self._parts.exists():
            shutil.rmtree(self._parts)
        jax.monitoring.unregister_event_time_span_listener(self._record_span)

    def metrics(self, values: Mapping[str, Any], *, prefix: str | None = None) -> dict[str, Any]:
        """Add figures to `metrics.json` and return all that it holds.

        To the figures come `seed`, `dtype` (of a JAX float, unless the configuration names one),
        `device`, `cpu_count`, `versions.*`, `wall_s` (since the run was entered) and
        `compile_seconds` (time in which JAX traced, lowered or compiled). JSON has no NaN or
        infinity: they are written as the strings "nan", "inf" and "-inf", which `float` reads back.

        Args:
            values: dotted names to numbers, strings, booleans or None; 0-d arrays count as numbers.
            prefix: what stands before every name, and a dot.

        Raises:
            TypeError: if a name is not a string, or a value is nested or not a scalar.
            ValueError: if a name is one of those that the run itself records.
        """
        recorded = self._provenance()
        for key, value in values.items():
            if not isinstance(key, str):
                raise TypeError(f"metrics: expected names as strings, got {key!r}")
            key = key if prefix is None else f"{prefix}.{key}"
            if key in recorded:
                raise ValueError(f"metrics: {key!r} is recorded by the run itself")
            self._metrics[key] = _scalar(key, value)
        everything = self._metrics | recorded
        _write_json(self.out_dir / "metrics.json", everything)
        return everything

    @contextlib.contextmanager
    def timed(self) -> Iterator["Timing"]:
        """Time a block, the compiling in it apart; the numbers are there once the block is left.

        The block must wait for its results (`jax.block_until_ready`), or work that is still under
        way is not counted.
        """
        timing = Timing()
        before, begin = _covered(self._spans), time.perf_counter()
        try:
            yield timing
        finally:
            timing.compile_seconds = _covered(self._spans) - before
            timing.seconds = time.perf_counter() - begin - timing.compile_seconds

    def table(
        self, rows: Sequence[Sequence[Any]], columns: Sequence[str], *, title: str | None = None
    ) -> str:
        """Print rows under column names, append them to `table.txt`, and return the text."""
        text = format_table(rows, columns, title=title)
        self._tables.append(text)
        _write_text(self.out_dir / "table.txt", "\n\n".join(self._tables) + "\n")
        print(text, end="\n\n", flush=True)
        return text

    def records(
        self,
        records: Mapping[str, Mapping[str, Any]],
        columns: Mapping[str, str],
        *,
        heading: str = "",
        title: str | None = None,
    ) -> str:
        """Print figures by name as a `table`, a record a row.

        Args:
            records: by the row's name, its figures by key; a dash stands for one that is missing.
            columns: which figures are shown, the column's name by the figure's key.
            heading: the name of the column of names.
        """
        rows = [[name, *map(record.get, columns)] for name, record in records.items()]
        return self.table(rows, [heading, *columns.values()], title=title)

    def figure(self, name: str, fig: Figure, *, dpi: float = 160) -> Path:
        """Write a figure to `figures/NAME.png` and return the path."""
        path = self._path("figures", f"{_checked_name(name)}.png")
        _write(path, lambda temporary: fig.savefig(temporary, format="png", dpi=dpi))
        return path

    def history(self, name: str, history: Mapping[str, Any]) -> Path:
        """Write what a fit recorded, arrays by name, to `history/NAME.npz` and return the path."""
        path = self._path("history", f"{_checked_name(name)}.npz")
        _write(path, lambda temporary: _save_arrays(temporary, history))
        return path

    def save_model(self, name: str, model: Any) -> Path:
        """Write a model, any pytree, to `models/NAME`; `fit.checkpoint.load` reads it back."""
        path = self._path("models", _checked_name(name))
        from physml.fit import checkpoint  # Orbax is slow to import and not every run saves

        checkpoint.save(path, model)
        return path

    def part(
        self, name: str, compute: Callable[[Path], Mapping[str, Any]]
    ) -> dict[str, np.ndarray]:
        """A part of a long run: computed, or what an interrupted run of this configuration left.

        Parts are kept in `parts/NAME.npz` until the run is left without an error; a run of another
        configuration does away with them.

        Args:
            compute: `compute(path)` returns arrays by name. The path, `parts/NAME`, is for a
                checkpoint of its own, and goes when it is done.
        """
        path = self._path("parts", _checked_name(name))
        stored = path.with_name(f"{name}.npz")
        if not stored.exists():
            _write_json(self._parts / "config.json", self._identity)
            arrays = compute(path)
            _write(stored, lambda temporary: _save_arrays(temporary, arrays))
            if path.exists():
                shutil.rmtree(path)
        with np.load(stored) as file:
            return dict(file)

    @property
    def _parts(self) -> Path:
        return self.out_dir / "parts"

    def _path(self, folder: str, name: str) -> Path:
        (self.out_dir / folder).mkdir(exist_ok=True)
        return self.out_dir / folder / name

    def _record_span(self, event: str, start_time: float, end_time: float, **_: Any) -> None:
        if event in _COMPILE_EVENTS:
            self._spans.append((start_time, end_time))

    def _provenance(self) -> dict[str, Any]:
        device = jax.devices()[0]
        kind = device.device_kind
        versions = {f"versions.{name}": importlib.metadata.version(name) for name in _PACKAGES}
        return {
            "seed": getattr(self.config, "seed", None),
            "dtype": str(getattr(self.config, "dtype", jnp.zeros(()).dtype)),
            "device": kind if kind == device.platform else f"{device.platform} {kind}",
            "cpu_count": os.cpu_count(),
            "versions.python": platform.python_version(),
            "versions.platform": platform.platform(),
            **versions,
            "wall_s": round(time.perf_counter() - self._started, 3),
            "compile_seconds": round(_covered(self._spans), 3),
        }


def best_of(compute: Callable[[], Any], repeats: int = 5) -> tuple[Any, float, float]:
    """What `compute()` answers, the seconds of the best of several calls, and those of compiling.

    The first call is none of the several: what it takes beyond the best counts as compiling. The
    best, because another process can only add to the time.
    """
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        answer = jax.block_until_ready(compute())
        seconds.append(time.perf_counter() - start)
    best = min(seconds[1:])
    return answer, best, seconds[0] - best


def slug(label: str) -> str:
    """A label as a part of a file's or a metric's name: lower case, '_' between words.

    Example:
        >>> slug("batches, momentum 0.9")
        'batches_momentum_0.9'
    """
    return "_".join("".join(c if c.isalnum() or c in ".-" else " " for c in label).split()).lower()


def format_table(
    rows: Sequence[Sequence[Any]], columns: Sequence[str], *, title: str | None = None
) -> str:
    """Rows as aligned plain text: words to the left, numbers to the right, None as a dash.

    Raises:
        ValueError: if a row has not one cell for each column.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(
                f"rows: expected {len(columns)} cells for {list(columns)}, got {list(row)}"
            )
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    numeric = [not any(isinstance(row[i], str) for row in rows) for i in range(len(columns))]

    def line(words: Sequence[str]) -> str:
        aligned = (
            word.rjust(width) if right else word.ljust(width)
            for word, width, right in zip(words, widths, numeric, strict=True)
        )
        return "  ".join(aligned).rstrip()

    head = [title] if title else []
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([*head, line(columns), rule, *map(line, cells)])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str | bool | int):
        return str(value)
    number = float(value)
    if not math.isfinite(number) or number == 0 or 1e-2 <= abs(number) < 1e5:
        return f"{number:.4g}"
    return f"{number:.1e}"


def _scalar(key: str, value: Any) -> bool | int | float | str | None:
    if isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0:
        value = np.asarray(value).item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, numbers.Real):
        return float(value)
    what = "a nested mapping" if isinstance(value, Mapping) else f"{type(value).__name__} {value!r}"
    raise TypeError(f"metrics: expected a scalar for {key!r}, got {what}")


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """The time covered by intervals that may lie inside each other, as nested traces do."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"name: expected letters, digits, '_', '-' and '.', got {name!r}")
    return name


def _jsonable(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _jsonable(item) for key, item in value.items()}
        case list() | tuple():
            return [_jsonable(item) for item in value]
        case float() if not math.isfinite(value):
            return str(value)
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    _write_text(path, json.dumps(_jsonable(content), indent=2, allow_nan=False) + "\n")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    with path.open("wb") as file:  # given a name, NumPy would put .npz behind it
        np.savez(file, allow_pickle=False, **{name: np.asarray(a) for name, a in arrays.items()})


def _write_text(path: Path, text: str) -> None:
    _write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _write(path: Path, writer: Callable[[Path], Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        writer(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

"""A run's folder: its configuration, metrics, tables, figures and models, written whole or not."""

import contextlib
import dataclasses
import numbers
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from matplotlib.figure import Figure

from physml import saving
from physml._numerics.interrupt import ctrl_c, script
from physml._types import Numbers
from physml.experiment import _files as files
from physml.experiment._cache import compilation_cache_is_on
from physml.experiment._claim import Claim, now
from physml.experiment._command import command
from physml.experiment._complete import copy_metrics
from physml.experiment._parts import Parts, identity, versions
from physml.experiment._table import Columns, Rows, format_table, print_table
from physml.experiment._timing import Timing, timed

_COMPLETED = ("metrics.json", "table.txt")  # `NAME.unfinished` as long as the run goes on

P = ParamSpec("P")
T = TypeVar("T")


class Row:
    """The figures of one method, see `Run.row`."""

    def __init__(self, run: "Run", name: str, label: str):
        self.figures: dict[str, Any] = {}
        """What `metrics.json` is to hold, by key."""
        self.shown: dict[str, object] = {"name": label}
        """What the table may show and `metrics.json` does not hold, by key."""
        self._run, self._name, self._count = run, name or files.slug(label), 0

    def __setitem__(self, key: str, figure: object) -> None:
        self.figures[key] = figure

    def metrics(self, figures: Mapping[str, object]) -> None:
        """Add figures."""
        self.figures |= figures

    def time(self, compute: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `compute(*args, **kwargs)` answers, once its arrays are computed.

        Its `seconds` and `compile_seconds` become figures.
        """
        answer, times = _timed(compute, *args, **kwargs)
        self.metrics(times)
        return answer

    def part(self, compute: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `time`, and the answer is kept with its times as a part of the run, see `Run.part`."""
        name, self._count = self._next, self._count + 1
        answer, times = self._run.part(name, _timed, compute, *args, **kwargs)
        self.metrics(times)
        return answer

    @property
    def checkpoint(self) -> Path | None:
        """The folder for a checkpoint of the row's next part, see `Run.checkpoint`."""
        return self._run.checkpoint(self._next)

    @property
    def _next(self) -> str:
        return f"{self._name}.{self._count}" if self._count else self._name


def _timed(
    compute: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> tuple[T, dict[str, float]]:
    with timed() as timing:
        answer = jax.block_until_ready(compute(*args, **kwargs))
    return answer, {"seconds": timing.seconds, "compile_seconds": timing.compile_seconds}


class Run:
    """One run of an experiment and the folder that keeps it.

    For example::

        with Run("results/lorenz", config) as run:
            with run.row("mlp") as row:            # figures "mlp.eps1", "mlp.seconds", ...
                fitted = row.part(fit, network, data)
                row["eps1"] = error(fitted)
            run.table(run.take_rows(), {"name": "network", "eps1": "eps1", "seconds": "seconds"})
            run.figure("attractor", fig)           # figures/attractor.png and .pdf
            run.history("mlp", fitted.history)     # history/mlp.npz
            run.save_model("mlp", stepper)         # models/mlp
            swept = run.part("widths", sweep, data)  # kept if the run is interrupted
            metrics = run.metrics({"starts": 200})

    Every file appears whole or not at all. Entering writes `config.json` and removes the metrics,
    tables, figures, histories and models that an earlier run has written; other files stay.
    `metrics.json` and `table.txt` appear when the run is left without an exception; until then they
    are `metrics.json.unfinished` and `table.txt.unfinished`. So a folder that holds metrics holds
    all those of its configuration. Where the configuration names a file to `record` in, that file
    gets the finished metrics too, sorted by their names.

    Ctrl-C ends a run: what is under way ends at its next chunk, and KeyboardInterrupt is raised.
    What has been kept as a part stays in the folder. A run of the same configuration, seed and
    versions goes on from there if its configuration has `resume` set; without it, it begins anew,
    and so does one whose folder keeps no parts, such as that of a complete run.

    One run at a time has a folder. `run.json` says whose it is, since when, and how it ended:
    complete, interrupted or failed. `python -m physml runs` shows all that there are.

    Args:
        out_dir: the folder, made if it is not there.
        config: a dataclass instance; its `seed`, and its `dtype` if it has one, go with the
            metrics.

    Attributes:
        out_dir: the folder, absolute, so that a change of the working folder does not move it.

    Raises:
        TypeError: if `config` is not a dataclass instance.
        ValueError: if `out_dir` is a file, or a name is not a plain file name.
        ValueError: on entering, if what is to be resumed is another run; the folder stays as it is.
        RuntimeError: on entering, if another run has the folder.
        OSError: on entering, if the folder cannot be written.
    """

    timed = staticmethod(timed)

    def __init__(self, out_dir: str | os.PathLike[str], config: object):
        if not dataclasses.is_dataclass(config) or isinstance(config, type):
            raise TypeError(f"config must be a dataclass instance, got {config!r}")
        self._given, self.out_dir = Path(out_dir), Path(out_dir).absolute()
        if self.out_dir.exists() and not self.out_dir.is_dir():
            raise ValueError(f"out_dir must be a folder, got the file {self.out_dir}")
        self.config = config
        self._metrics: dict[str, object] = {}
        self._tables: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._asked: set[str] = set()  # names of parts

    def __enter__(self) -> "Run":
        config = dataclasses.asdict(self.config)
        resume, record = (getattr(self.config, name, None) for name in ("resume", "record"))
        self._record = None if record is None else record.absolute()
        run = identity(self.config)
        self._parts = Parts(self.out_dir / "parts", run)
        self._claim = Claim(self.out_dir, {"command": command(self.config), "run": run})
        with contextlib.ExitStack() as stack:
            try:
                self.out_dir.mkdir(parents=True, exist_ok=True)
                self._claim.take()
                stack.callback(self._claim.release)
                # A run that is refused changes nothing: neither what is kept nor what is said.
                resumed = bool(resume) and self._parts.found()
                self._claim.begin()
            except OSError as error:
                raise OSError(
                    f"out_dir must be a folder to write in, got {self._given}: {error}"
                ) from error
            stack.push(lambda kind, error, trace: self._claim.end(error))
            self._interrupted = stack.enter_context(script())
            if not resumed:
                self._parts.clear()
            stack.push(self._leave)
            for name in _COMPLETED:  # what an earlier run has left
                (self.out_dir / name).unlink(missing_ok=True)
                self._unfinished(name).unlink(missing_ok=True)
            self._claim.clear()
            files.write_json(self.out_dir / "config.json", config)
            self._date = now()
            self._timing: Timing = stack.enter_context(timed())
            self._open = stack.pop_all()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._open.__exit__(*exc_info)

    def _leave(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Complete the folder, or say what it keeps."""
        if error is None:
            self._end_if_interrupted()
            with ctrl_c():  # too late: all is done
                self._finish()
        elif words := self._parts.in_words():
            error.add_note(
                f"{self._given / 'parts'} keeps {words}: "
                "the same command with --resume goes on from there."
            )

    def _end_if_interrupted(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C came and Python dropped the exception."""
        if self._interrupted():
            raise KeyboardInterrupt

    def _finish(self) -> None:
        """Give metrics and table their names, which say that they are complete."""
        for name in _COMPLETED:
            if self._unfinished(name).exists():
                os.replace(self._unfinished(name), self.out_dir / name)
        if self._record is not None:
            copy_metrics(self.out_dir, self._record)
        self._parts.clear()

    def metrics(self, values: Mapping[str, object], *, prefix: str = "") -> dict[str, Any]:
        """Add figures to `metrics.json` and return all that it holds.

        The run adds `seed`, `dtype` (of a JAX float, unless the configuration names one), `device`,
        `cpu_count`, `versions.*`, `cache` (whether JAX reads the programs that earlier runs have
        compiled), `date` (when the run was entered, UTC), `command` (which repeats the run),
        `wall_s` (since the run was entered) and `compile_seconds` (the time in which JAX traced,
        lowered, and compiled programs or read compiled ones). JSON has no NaN or infinity:
        they are written as the strings "nan", "inf" and "-inf", which `float` reads back.

        Args:
            values: dotted names to numbers, strings, booleans or None; 0-d arrays count as numbers.
            prefix: what stands before every name, followed by a dot; nothing if it is empty.

        Raises:
            TypeError: if a name is not a string, or a value is nested or not a scalar.
            ValueError: if a name is one of those that the run itself records.
        """
        self._end_if_interrupted()
        recorded = self._provenance()
        for key, value in values.items():
            if not isinstance(key, str):
                raise TypeError(f"metrics must have strings as names, got {key!r}")
            key = f"{prefix}.{key}" if prefix else key
            if key in recorded:
                raise ValueError(f"metrics must not hold {key!r}: the run itself records it")
            self._metrics[key] = _scalar(key, value)
        everything = self._metrics | recorded
        files.write_json(self._unfinished("metrics.json"), everything)
        return everything

    @contextlib.contextmanager
    def row(self, name: str, label: str | None = None) -> Iterator[Row]:
        """One method of several: its figures as metrics, and as a row of a table.

        When the block is left, the figures that the row was given become metrics with the prefix
        `name`, and the row waits for `take_rows`. If the block raises, neither happens.

        Args:
            name: the prefix of its metrics; they have none if it is empty.
            label: its name in the table; `name` unless given.
        """
        row = Row(self, name, name if label is None else label)
        yield row
        self.metrics(row.figures, prefix=name)
        self._rows.append(row.shown | row.figures)

    def take_rows(self) -> list[dict[str, Any]]:
        """The rows since this was last called: figures by key, the label as "name"."""
        rows, self._rows = self._rows, []
        return rows

    def table(self, rows: Rows, columns: Columns, *, title: str | None = None) -> str:
        """Print rows by `print_table`, append them to `table.txt`, and return that text."""
        text = format_table(rows, columns, title=title)
        self._tables.append(text)
        files.write_text(self._unfinished("table.txt"), "\n\n".join(self._tables) + "\n")
        print_table(rows, columns, title=title)
        return text

    def figure(self, name: str, fig: Figure, *, dpi: float = 160) -> Path:
        """Write a figure to `figures/NAME.png` and, for print, `NAME.pdf`; return the first."""
        path, vector = (self._path("figures", name, suffix) for suffix in (".png", ".pdf"))
        files.write(path, lambda temporary: fig.savefig(temporary, format="png", dpi=dpi))
        undated: dict[str, Any] = {"format": "pdf", "metadata": {"CreationDate": None}}
        files.write(vector, lambda temporary: fig.savefig(temporary, dpi=dpi, **undated))
        return path

    def history(self, name: str, history: Mapping[str, Numbers]) -> Path:
        """Write what a fit recorded, arrays by name, to `history/NAME.npz` and return the path."""
        path = self._path("history", name, ".npz")
        files.write_arrays(path, history)
        return path

    def save_model(self, name: str, model: PyTree) -> Path:
        """Write a model, or anything else, to the folder `models/NAME`; `physml.load` opens it."""
        path = self._path("models", name)
        saving.save(path, model)
        return path

    def part(self, name: str, compute: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `compute(*args, **kwargs)` answers: a part of the run, kept when it is done.

        A run that is resumed loads the part instead of computing it; one that is damaged is
        computed again. Parts are kept in `parts/NAME` until the run is left without an error.

        Args:
            name: its name, which no other part of this run has.
            compute: answers what `physml.save` can keep and `physml.load` can open by itself.

        Raises:
            ValueError: another part has this name, or the part that is kept cannot be opened.

        Warns:
            UserWarning: the answer holds what cannot be kept, such as functions or classes of your
                own, or what was kept is damaged. A run that is resumed computes it again.
        """
        self._end_if_interrupted()
        if name in self._asked:
            raise ValueError(f"name must be that of no other part of this run, got {name!r}")
        self._asked.add(name)
        with contextlib.suppress(FileNotFoundError):
            return self._parts.load(name)
        answer = jax.block_until_ready(compute(*args, **kwargs))
        self._end_if_interrupted()  # the answer may be that of an interrupted fit
        try:
            self._parts.keep(name, answer, self._spent())
        except TypeError as error:  # what took long to compute is not lost for that
            warnings.warn(f"a resumed run computes this part again: {error}", stacklevel=2)
        return answer

    def checkpoint(self, name: str) -> Path | None:
        """The folder for a checkpoint of the part `name`, which goes when the part is done.

        For example `run.part("mlp", fit.gradient, ..., checkpoint=run.checkpoint("mlp"))`. One of
        several processes has none: they keep whole parts alone.
        """
        return self._parts.checkpoint(name) if jax.process_count() == 1 else None

    def _unfinished(self, name: str) -> Path:
        return self.out_dir / f"{name}.unfinished"

    def _path(self, folder: str, name: str, suffix: str = "") -> Path:
        path = self.out_dir / folder / f"{files.checked_name(name)}{suffix}"
        self._claim.note(path.relative_to(self.out_dir).as_posix())
        path.parent.mkdir(exist_ok=True)
        return path

    def _provenance(self) -> dict[str, object]:
        device = jax.devices()[0]
        kind = device.device_kind
        return {
            "seed": getattr(self.config, "seed", None),
            "dtype": str(getattr(self.config, "dtype", jnp.zeros(()).dtype)),
            "device": kind if kind == device.platform else f"{device.platform} {kind}",
            "cpu_count": os.cpu_count(),
            "versions.python": platform.python_version(),
            "versions.platform": platform.platform(),
            **versions(),
            "cache": compilation_cache_is_on(),
            "date": self._date,
            "command": command(self.config),
            **{name: round(seconds, 3) for name, seconds in self._spent().items()},
        }

    def _spent(self) -> dict[str, float]:
        """The seconds since the run was begun, those of earlier processes included."""
        before = self._parts.spent_before
        own = {"wall_s": self._timing.wall_seconds, "compile_seconds": self._timing.compile_seconds}
        return {name: before.get(name, 0.0) + seconds for name, seconds in own.items()}


def _scalar(key: str, value: object) -> bool | int | float | str | None:
    if isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0:
        value = np.asarray(value).item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, numbers.Real):
        return float(value)
    what = "a nested mapping" if isinstance(value, Mapping) else f"{type(value).__name__} {value!r}"
    raise TypeError(f"metrics must be scalars, got for {key!r} {what}")

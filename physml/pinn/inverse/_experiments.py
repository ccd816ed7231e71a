"""Experiments: what was observed of a solution, when, and under which conditions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from physml._numerics import checks
from physml._numerics.calls import checked, require_instance
from physml._types import Numbers
from physml.pinn.inverse._noise_arguments import AnyNoise, noise_parts
from physml.systems.states import Form

Observe = Sequence[int] | Callable[[Array], Array] | None
"""What is seen of a state: indices of components, a function from (dim,) to (obs,), or all."""

Start = Numbers | Callable[[dict[str, Array]], Array] | None
"""A state at the start, or a function from the values of the parameters to it."""


class Experiment(eqx.Module):
    """Observations of one solution, with its own start, times and conditions.

    What is None is what `identify` says for all experiments.

    Attributes:
        ts: times of the observations, shape (n,), which must not decrease: several observations
            may be of one time.
        ys: the observations, shape (n, obs); NaN where nothing was seen.
        t0: the time of the start, at most `ts[0]`, which is the default.
        y0: a guess of the state at `t0`, shape (dim,). A function of the parameters' values, a
            dict, to (dim,) says what the start is, and nothing of it is free.
        known_start: y0 is exact, not a guess.
        observe, noise: as for `identify`; a noise whose scale is not known has one of its own here.
        fixed: by name, values that hold in this experiment: parameters of the system, or keys of
            `args`; a number, an array, a `systems.Table` of a known input.
        seen: which of the observations exist, shape (n, obs). Unless given, those that are not
            NaN; to be given where `ys` are traced and have gaps.

    Example:
        >>> gaps = pinn.Experiment([0.0, 0.5, 0.5, 1.0], [[1.0], [0.6], [0.63], [np.nan]])
        >>> gaps.seen[:, 0].tolist()
        [True, True, True, False]
    """

    ts: Float[np.ndarray, " n"]
    ys: Float[Array, "n obs"]
    seen: Bool[np.ndarray | Array, "n obs"]
    t0: float | None
    y0: Start
    known_start: bool | None = eqx.field(static=True)
    observe: Observe
    noise: AnyNoise
    fixed: Mapping[str, PyTree]

    @checked
    def __init__(
        self,
        ts: Numbers,
        ys: Numbers,
        *,
        t0: float | None = None,
        y0: Start = None,
        known_start: bool | None = None,
        observe: Observe = None,
        noise: AnyNoise = None,
        fixed: Mapping[str, PyTree] | None = None,
        seen: Bool[np.ndarray | Array, "n obs"] | None = None,
    ):
        if not (checks.is_concrete(ts) and checks.is_concrete(t0)):
            raise ValueError("ts and t0 must not be traced: the windows are laid out by them")
        if np.ma.is_masked(ts):
            raise ValueError("ts must have no masked values, whose numbers mean nothing")
        # On the host wherever that is possible, also while something else is traced.
        self.ts, given = np.asarray(ts, float), ys
        _require_times(self.ts)
        ys = checks.floating_array("ys", ys, jnp.float64)
        if ys.ndim != 2 or ys.shape[0] != len(self.ts) or not ys.shape[1]:
            raise ValueError(
                f"ys must have shape ({len(self.ts)}, obs), a row a time, got {ys.shape}"
            )
        self.seen = _seen(given, seen)
        if checks.is_concrete(given):
            checks.require_finite("ys", np.where(self.seen, np.asarray(given), 0.0))
        self.ys = jnp.where(self.seen, ys, jnp.nan)
        if t0 is not None and not (np.isfinite(t0) and t0 <= self.ts[0] and t0 < self.ts[-1]):
            raise ValueError(
                f"ts must lie within the horizon that starts at t0 = {t0} and hold a later time, "
                f"got {self.ts[0]} to {self.ts[-1]}"
            )
        if not (y0 is None or callable(y0)):
            y0 = checks.floating_array("y0", y0, jnp.float64)
            checks.require_finite("y0", y0)
            if y0.ndim != 1 or not y0.size:
                raise ValueError(f"y0 must have shape (dim,), got {y0.shape}")
        if not (observe is None or callable(observe)):
            checks.require_not_empty(observe=observe)
            checks.require_count(0, **{f"observe[{i}]": x for i, x in enumerate(observe)})
        if noise is not None:
            noise_parts("noise", noise, ys, self.seen)
        self.t0, self.y0, self.known_start = t0, y0, known_start
        self.observe, self.noise, self.fixed = observe, noise, dict(fixed or {})

    @property
    def start_time(self) -> float:
        """The time of the start."""
        return float(self.ts[0] if self.t0 is None else self.t0)

    def completed(
        self, *, t0: float | None, y0: Start, known_start: bool, observe: Observe
    ) -> "Experiment":
        """The experiment, where it says nothing by what is said for all."""
        known, first = self.known_start, float(self.ts[0])
        t0 = first if t0 is None else t0
        return Experiment(
            self.ts,
            self.ys,
            t0=t0 if self.t0 is None else self.t0,
            y0=y0 if self.y0 is None else self.y0,
            known_start=known_start if known is None else known,
            observe=observe if self.observe is None else self.observe,
            noise=self.noise,
            fixed=self.fixed,
            seen=self.seen,
        )

    def seen_by(self, form: Form) -> "Experiment":
        """The experiment of vectors, where `observe` is a function of states in a user's form."""
        if form.structure is None or not callable(self.observe):
            return self
        observe = form.observer(self.observe)
        return eqx.tree_at(lambda x: x.observe, self, observe, is_leaf=lambda x: x is self.observe)


def as_experiments(ts: Numbers | Sequence[Experiment], ys: Numbers | None) -> list[Experiment]:
    """The experiments, of which times and observations are one."""
    several = isinstance(ts, Experiment) or (
        isinstance(ts, list | tuple) and any(isinstance(x, Experiment) for x in ts)
    )
    if not several:
        if ys is None:
            raise TypeError("ys must be the observations at ts, got None")
        return [Experiment(ts, ys)]
    if ys is not None:
        raise ValueError("ys must be None where ts are experiments, which hold their own")
    given: Any = ts
    every: Any = [ts] if isinstance(ts, Experiment) else list(given)
    require_instance(Experiment, **{f"ts[{i}]": x for i, x in enumerate(every)})
    return every


def _require_times(ts: Float[np.ndarray, " n"]) -> None:
    """Raise ValueError unless times are finite and do not decrease."""
    checks.require_increasing("ts", ts[:1])
    checks.require_finite("ts", ts)
    if ts.ndim != 1:
        raise ValueError(f"ts must have shape (n,), got shape {ts.shape}")
    steps = np.diff(ts)
    if (steps < 0).any():
        i = int(np.argmax(steps < 0))
        raise ValueError(f"ts must not decrease, got ts[{i}] = {ts[i]} then {ts[i + 1]}")


def _seen(ys: Numbers, seen: Array | np.ndarray | None) -> Bool[np.ndarray, "n obs"]:
    """Which observations exist, on the host."""
    shape = np.shape(ys)
    if seen is None:
        concrete = checks.is_concrete(ys)
        given = ~np.isnan(np.asarray(ys, float)) if concrete else np.ones(shape, bool)
    else:
        if not checks.is_concrete(seen):
            raise ValueError("seen must not be traced: the windows are laid out by it")
        given = np.asarray(seen)
        if given.dtype != bool or given.shape != shape:
            raise ValueError(
                f"seen must be booleans of the shape of ys, {shape}, got {given.dtype} of "
                f"shape {given.shape}"
            )
    if not given.any():
        raise ValueError("ys must hold observations, got only NaN, which stands for none")
    return given


@checked
def experiments_from_dataframe(
    frame: Any,
    *,
    time: str,
    columns: Sequence[str],
    experiment: str | None = None,
    **options: Any,
) -> list[Experiment]:
    """The experiments in a data frame of pandas, polars or another library, one observation a row.

    Rows need not be in the order of time. A cell that is missing (None, NaN, an empty text) was not
    seen. Text that is a number counts as one.

    Args:
        frame: the table, with `columns`, their names, and `to_numpy()`, an array.
        time: the name of the column of times.
        columns: the names of the columns of observations, in the order of `observe`.
        experiment: the name of the column that says to which experiment a row belongs. Without it
            the frame is one.
        options: of `Experiment`, for all of them.

    Raises:
        TypeError, ValueError: no data frame, or one without rows; a column that is missing or named
            twice; a cell that is neither a number nor missing, such as a date, True or "<0.1" (the
            message names its row, counted from 0, and column); a time or a label that is missing.

    Example:
        >>> import types
        >>> cells = np.array([["a", 1.0, None], ["a", 0.0, 2.0], ["b", 0.0, 3.0], ["b", 2.0, 1.0]])
        >>> frame = types.SimpleNamespace(columns=["run", "t", "x"], to_numpy=lambda: cells)
        >>> first, _ = pinn.experiments_from_dataframe(
        ...     frame, time="t", columns=["x"], experiment="run"
        ... )
        >>> first.ts.tolist(), first.ys.tolist()
        ([0.0, 1.0], [[2.0], [nan]])
    """
    if not (hasattr(frame, "columns") and callable(getattr(frame, "to_numpy", None))):
        raise TypeError(
            f"frame must be a data frame, with columns and to_numpy(), got {type(frame).__name__}"
        )
    header, cells = [str(name) for name in frame.columns], np.asarray(frame.to_numpy())
    if isinstance(columns, str):
        raise TypeError(f"columns must be a list or tuple of names, got {columns!r}")
    wanted = [time, *columns, *([] if experiment is None else [experiment])]
    if lost := [name for name in wanted if header.count(name) != 1]:
        raise ValueError(f"frame must have each of the columns {lost} once, got {header}")
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"time, columns and experiment must name different columns, got {wanted}")
    if not len(cells):
        raise ValueError("frame must have rows, got none")
    ts, *ys = (_numbers_of(name, cells[:, header.index(name)]) for name in (time, *columns))
    checks.require_finite(time, ts)
    labels = [""] * len(ts) if experiment is None else cells[:, header.index(experiment)].tolist()
    for row, label in enumerate(labels):
        if experiment is not None and _is_missing(label):
            raise ValueError(
                f"frame, row {row}, column {experiment!r} must say to which experiment the row "
                f"belongs, got {label!r}"
            )
    found = []
    for label in dict.fromkeys(labels):
        rows = np.flatnonzero([other == label for other in labels])
        rows = rows[np.argsort(ts[rows], kind="stable")]
        found.append(Experiment(ts[rows], np.stack(ys, axis=1)[rows], **options))
    return found


def _numbers_of(name: str, cells: np.ndarray) -> Float[np.ndarray, " n"]:
    """The cells of a column as numbers; NaN where one is missing."""
    values = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells.tolist()):
        if _is_missing(cell):
            continue
        try:
            if isinstance(cell, bool | np.bool_):
                raise TypeError
            values[row] = float(cell)
        except (TypeError, ValueError):
            raise ValueError(
                f"frame, row {row}, column {name!r} must be a number or missing, got {cell!r}: "
                "write numbers with a point and without their unit, count times from a start in "
                "one unit, and leave a cell empty where nothing was seen"
            ) from None
    return values


def _is_missing(cell: Any) -> bool:
    """Whether a cell holds nothing: None, an empty text, NaN and what pandas writes for it."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return True
    unequal = cell != cell  # as NaN and NaT are to themselves; pandas' NA does not say
    return bool(unequal) if isinstance(unequal, bool | np.bool_) else True

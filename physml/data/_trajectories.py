"""Trajectories as data: the record, its next-step pairs and windows, a random split."""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Int, PRNGKeyArray

from physml._numerics import checks
from physml._types import Numbers


class Pairs(NamedTuple):
    """States, the states one step later, and the times of the first ones."""

    inputs: Float[Array, "n dim"]
    targets: Float[Array, "n dim"]
    times: Float[Array, " n"]


class Windows(NamedTuple):
    """Stretches of consecutive states, and the time of each stretch's first row."""

    ys: Float[Array, "n length dim"]
    times: Float[Array, " n"]


class Trajectories(eqx.Module):
    """Trajectories of one system on one uniform grid of relative times.

    Trajectory i is `ys[i]`, at the times `t0s[i] + ts`. `trajectories[index]` selects
    trajectories by a slice or an integer array, `len(trajectories)` counts them.

    Attributes:
        ts: the grid, relative to each trajectory's start.
        ys: the states.
        t0s: each trajectory's start time, which a driven system depends on.
        names: the names of the state's components.
        system: the name of what made the data.

    Raises:
        ValueError: shapes that do not fit together, fewer than two times, or a grid that does
            not increase uniformly.
    """

    ts: Float[Array, " time"]
    ys: Float[Array, "num time dim"]
    t0s: Float[Array, " num"]
    names: tuple[str, ...] = eqx.field(static=True)
    system: str = eqx.field(static=True, default="")

    def __check_init__(self):
        num, time, dim = self.ys.shape
        if self.ts.shape[0] != time or time < 2 or num < 1 or dim < 1:
            raise ValueError(
                "ys must have shape (num, time, dim) with num >= 1, dim >= 1 and the "
                f"time >= 2 of ts, got ys {self.ys.shape} and ts {self.ts.shape}"
            )
        if self.t0s.shape != (num,):
            raise ValueError(f"t0s must have shape ({num},), got {self.t0s.shape}")
        if len(self.names) != dim:
            raise ValueError(f"names must have {dim} entries, got {self.names}")
        if checks.is_concrete(self.ts):
            checks.require_uniform("ts", np.asarray(self.ts))

    @property
    def dt(self) -> float:
        """The time step, the grid's span over its number of steps."""
        return float(self.ts[-1] - self.ts[0]) / (self.ts.shape[0] - 1)

    def __len__(self) -> int:
        return self.ys.shape[0]

    def __getitem__(self, index: slice | Int[Array | np.ndarray, " k"]) -> "Trajectories":
        return Trajectories(self.ts, self.ys[index], self.t0s[index], self.names, self.system)

    def pairs(self) -> Pairs:
        """The next-step pairs (y_j, y_{j+1}) of every trajectory; no pair joins two trajectories.

        num trajectories of m + 1 rows give num * m pairs, trajectory by trajectory, in order of
        time.
        """
        dim = self.ys.shape[2]
        return Pairs(
            self.ys[:, :-1].reshape(-1, dim),
            self.ys[:, 1:].reshape(-1, dim),
            (self.t0s[:, None] + self.ts[None, :-1]).reshape(-1),
        )

    def windows(self, length: int, stride: int = 1) -> Windows:
        """All stretches of `length` rows within a trajectory, one starting every `stride` rows.

        Raises:
            TypeError, ValueError: `length` is no integer from 1 to the number of rows, or `stride`
                is no integer of at least 1.
        """
        time = self.ys.shape[1]
        checks.require_count(length=length, stride=stride)
        if length > time:
            raise ValueError(f"length must be at most {time}, the number of rows, got {length}")
        return _windows(self, length, stride)


@eqx.filter_jit  # one program in place of a dozen small ones
def _windows(trajectories: Trajectories, length: int, stride: int) -> Windows:
    num, time, dim = trajectories.ys.shape
    first = np.arange(0, time - length + 1, stride)
    rows = first[:, None] + np.arange(length)[None, :]
    return Windows(
        trajectories.ys[:, rows].reshape(num * len(first), length, dim),
        (trajectories.t0s[:, None] + trajectories.ts[first][None, :]).reshape(-1),
    )


def split(
    trajectories: Trajectories, fractions: Sequence[float], key: PRNGKeyArray
) -> tuple[Trajectories, ...]:
    """A random partition by whole trajectories: no trajectory is in two parts.

    >>> trajectories = data.from_arrays([0.0, 0.1], np.zeros((10, 2, 3)))
    >>> train, valid, test = data.split(trajectories, (0.8, 0.1, 0.1), key)
    >>> len(train), len(valid), len(test)
    (8, 1, 1)

    Raises:
        ValueError: the fractions are not positive or do not add to one, or a part is empty.
    """
    num = len(trajectories)
    edges = np.rint(np.cumsum(checks.check_fractions(fractions)) * num).astype(int)
    sizes = np.diff(edges, prepend=0)
    if (sizes == 0).any():
        raise ValueError(
            f"fractions must leave no part of {num} trajectories empty, got {tuple(fractions)}, "
            f"which make parts of {tuple(sizes.tolist())}"
        )
    order = np.asarray(jax.random.permutation(key, num))
    return tuple(trajectories[part] for part in np.split(order, edges[:-1]))


def from_arrays(
    ts: Numbers,
    ys: Numbers,
    *,
    t0s: Numbers | None = None,
    names: Sequence[str] | None = None,
    system: str = "",
    dtype: DTypeLike | None = None,
) -> Trajectories:
    """A user's own trajectories, checked.

    >>> ts = np.linspace(0.0, 1.0, 11)
    >>> trajectories = data.from_arrays(ts, np.stack([np.sin(ts), np.cos(ts)], axis=1))
    >>> trajectories.ys.shape, trajectories.names
    ((1, 11, 2), ('y0', 'y1'))

    Args:
        ts: uniform times (time,). Without `t0s` they are the trajectories' own times.
        ys: states (num, time, dim), or (time, dim) for one trajectory.
        t0s: start times (num,); then `ts` is relative to them.
        names: names of the components; y0, y1, ... by default.
        dtype: a floating dtype; that of `ys` by default.

    Raises:
        ValueError: shapes that do not fit, times that do not increase uniformly, NaN or
            infinities (the first is named), float64 while JAX's x64 mode is off.
        TypeError: values that are not real numbers.
    """
    ys = checks.floating_array("ys", ys, dtype)
    ys = ys[None] if ys.ndim == 2 else ys
    if ys.ndim != 3 or ys.size == 0:
        raise ValueError(f"ys must have shape (num, time, dim) or (time, dim), got {ys.shape}")
    checks.require_finite("ys", ys)
    times = np.asarray(ts, float)
    checks.require_uniform("ts", times)
    starts = np.full(len(ys), times[0]) if t0s is None else np.asarray(t0s, float)
    checks.require_finite("t0s", starts)
    if ys.shape[:2] != (*starts.shape, *times.shape):
        raise ValueError(
            f"ts and t0s must have shapes ({ys.shape[1]},) and ({ys.shape[0]},) for ys of shape "
            f"{ys.shape}, got {times.shape} and {starts.shape}"
        )
    return Trajectories(
        jnp.asarray(times - times[0] if t0s is None else times, ys.dtype),
        ys,
        jnp.asarray(starts, ys.dtype),
        tuple(names) if names is not None else tuple(f"y{i}" for i in range(ys.shape[2])),
        system,
    )

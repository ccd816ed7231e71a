"""Trajectories as data: the record, its next-step pairs and windows, a random split."""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

from physml._numerics import checks
from physml._numerics.calls import checked, require_instance, summary
from physml._types import Numbers
from physml.data._arguments import (
    Index,
    checked_index,
    checked_names,
    checked_times,
    require_arrays,
)
from physml.data._noise import Noise, noise_levels, noise_of, smooth


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

    Trajectory i is `ys[i]`, at the times `t0s[i] + ts`. `len(trajectories)` counts them, and
    `trajectories[index]` selects some by a number, a slice, several numbers or a mask.

    >>> trajectories = data.from_arrays([0.0, 0.1], np.zeros((5, 2, 3)))
    >>> len(trajectories[-1]), len(trajectories[1:4]), len(trajectories[[0, 2]])
    (1, 3, 2)

    Attributes:
        ts: the grid, relative to each trajectory's start.
        ys: the states.
        t0s: each trajectory's start time, which a driven system depends on.
        names: the names of the state's components.
        system: the name of what made the data.

    Raises:
        TypeError: what should be arrays or a tuple of names is something else.
        ValueError: shapes that do not fit together, fewer than two times, a grid that does
            not increase uniformly, or a name given twice.
    """

    ts: Float[Array, " time"]
    ys: Float[Array, "num time dim"]
    t0s: Float[Array, " num"]
    names: tuple[str, ...] = eqx.field(static=True)
    system: str = eqx.field(static=True, default="")

    def __repr__(self) -> str:
        if not isinstance(self.ys, jax.Array):  # a tree of something else
            return super().__repr__()
        facts = {
            "ys": f"{self.ys.dtype} {self.ys.shape}: trajectories, times, components",
            "names": ", ".join(self.names),
            "dt": self.dt,
            "system": self.system or "not named",
        }
        return summary(f"Trajectories: {len(self)}", facts)

    def __check_init__(self):
        require_arrays(jnp.floating, ts=self.ts, ys=self.ys, t0s=self.t0s)
        if self.ys.ndim != 3 or self.ts.ndim != 1:
            raise ValueError(
                f"ys must have shape (num, time, dim) and ts (time,), got {self.ys.shape} and "
                f"{self.ts.shape}"
            )
        num, time, dim = self.ys.shape
        if self.ts.shape[0] != time or time < 2 or num < 1 or dim < 1:
            raise ValueError(
                "ys must have shape (num, time, dim) with num >= 1, dim >= 1 and the "
                f"time >= 2 of ts, got ys {self.ys.shape} and ts {self.ts.shape}"
            )
        if self.t0s.shape != (num,):
            raise ValueError(f"t0s must have shape ({num},), got {self.t0s.shape}")
        if not isinstance(self.names, tuple) or not isinstance(self.system, str):
            raise TypeError(
                f"names must be a tuple and system a string, got {self.names!r} and {self.system!r}"
            )
        if len(checked_names("names", self.names)) != dim:
            raise ValueError(f"names must have {dim} entries, got {self.names}")
        if checks.is_concrete(self.ts):
            checks.require_uniform("ts", np.asarray(self.ts))

    @property
    def dt(self) -> float:
        """The time step, the grid's span over its number of steps."""
        return float(self.ts[-1] - self.ts[0]) / (self.ts.shape[0] - 1)

    def __len__(self) -> int:
        return self.ys.shape[0]

    def __getitem__(self, index: Index) -> "Trajectories":
        """Some of the trajectories, also where it is one.

        Raises:
            TypeError: the index is no number, slice, numbers (k,) or mask (num,).
            IndexError: a number has no trajectory, or a mask has another length.
        """
        index = checked_index(index, len(self), "trajectories")
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
        checks.require_count(stride=stride)
        checks.require_count(1, (time, "the number of rows"), length=length)
        return _windows(self, length, stride)

    def noise(self) -> Float[np.ndarray, " dim"]:
        r"""The standard deviation of the white noise in each column; 0 where none is seen.

        Differences of order d of a resolved motion shrink with d, while those of white noise of
        standard deviation $\sigma$ have the mean square $\binom{2d}{d} \sigma^2$ (Rice, Ann.
        Statist. 12, 1984, for d = 1). Noise is seen where the last two of up to ten orders agree.
        Below a millionth of a column's spread, and below the rounding of its dtype, none is
        reported, nor above half of the spread, nor where the grid does not resolve the motion (a
        map's orbit, ten rows in the shortest period), which then cannot be told from noise.

        >>> ts = np.linspace(0.0, 10.0, 2001)
        >>> noise = 0.01 * np.random.default_rng(0).standard_normal(ts.shape)
        >>> ys = np.stack([np.sin(ts), np.cos(ts) + noise], axis=1)
        >>> data.from_arrays(ts, ys).noise().round(3)
        array([0.  , 0.01])

        Raises:
            ValueError: there are fewer than 12 rows, or NaN or infinities among them.
        """
        return noise_of(self.ys)

    @checked
    def smoothed(self, noise: Noise = "auto") -> "Trajectories":
        """The trajectories with as much noise removed as local polynomials remove.

        Each row becomes the value of the polynomial of degree 4 through the rows of a window
        around it (Savitzky and Golay, Anal. Chem. 36, 1964), up to the ends, where the outermost
        whole window serves. Each column has the window of the least expected error, by Mallows'
        estimate of it (Technometrics 15, 1973), which needs the noise and no truth. A column
        without noise stays as it is, to the last bit.

        Args:
            noise: the standard deviation of each column's noise, one for each column or one for
                all; by default `noise()` estimates it.

        Raises:
            TypeError, ValueError: there are fewer than 12 rows, or NaN or infinities among them;
                `noise` is neither "auto" nor numbers of at least 0, one or one a column.
        """
        levels = noise_levels(self.ys, noise)
        if not levels.any():
            return self
        ys, _ = smooth(self.ys, levels)
        return eqx.tree_at(lambda t: t.ys, self, jnp.asarray(ys))


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

    Args:
        trajectories: what is parted.
        fractions: the share of each part, which add to 1.
        key: a key such as `jax.random.key(0)`, which draws the order.

    Raises:
        TypeError: arguments of another kind.
        ValueError: the fractions are not positive or do not add to one, or a part is empty.
    """
    require_instance(Trajectories, trajectories=trajectories)
    checks.require_key(key=key)
    num = len(trajectories)
    edges = np.rint(np.cumsum(checks.check_fractions(fractions)) * num).astype(int)
    sizes = np.diff(edges, prepend=0)
    if (sizes == 0).any():
        raise ValueError(
            f"fractions must leave no part of {num} trajectories empty, got {fractions}, "
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
        system: the name of what made the data.
        dtype: a floating dtype; that of `ys` by default.

    Raises:
        TypeError: values that are not real numbers, names that are not strings.
        ValueError: shapes that do not fit, times that do not increase uniformly, NaN or
            infinities (the first is named), a name given twice, float64 while JAX's x64 mode is
            off, times too large for the dtype to tell steps apart.
    """
    require_instance(str, system=system)
    with np.errstate(over="ignore"):  # what overflows becomes infinite, which is refused below
        ys = checks.floating_array("ys", ys, dtype)
    ys = ys[None] if ys.ndim == 2 else ys
    if ys.ndim != 3 or ys.size == 0:
        raise ValueError(
            f"ys must have shape (num, time, dim) or (time, dim), not empty, got {ys.shape}"
        )
    checks.require_finite("ys", ys)
    times = checked_times("ts", ts)
    checks.require_uniform("ts", times)
    starts = np.full(len(ys), times[0]) if t0s is None else checked_times("t0s", t0s)
    if ys.shape[:2] != (*starts.shape, *times.shape):
        raise ValueError(
            f"ts and t0s must have shapes ({ys.shape[1]},) and ({ys.shape[0]},) for ys of shape "
            f"{ys.shape}, got {times.shape} and {starts.shape}"
        )
    grid = times - times[0] if t0s is None else times
    names = tuple(f"y{i}" for i in range(ys.shape[2])) if names is None else names
    return Trajectories(
        _kept("ts", grid, grid[1] - grid[0], ys.dtype),
        ys,
        _kept("t0s", starts, grid[1] - grid[0], ys.dtype),
        checked_names("names", names),
        system,
    )


def _kept(name: str, times: np.ndarray, dt: float, dtype: jnp.dtype) -> Array:
    """Times in the states' dtype, which must tell two steps apart."""
    rounded = jnp.asarray(times, dtype)
    if not (np.abs(np.asarray(rounded, float) - times) < dt / 2).all():
        raise ValueError(
            f"{name} must be far smaller for {dtype}, which rounds {np.abs(times).max()} by half a "
            f"step of {dt} or more: count the times from a later start, or use float64"
        )
    return rounded

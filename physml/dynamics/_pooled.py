"""The climate of any number of trajectories, taken from chunks of them and pooled."""

import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from physml._numerics.calls import checked
from physml._numerics.checks import floating_array, require_count, require_positive
from physml._numerics.devices import few_shapes, for_each_chunk, num_cores, on_host, on_one_cpu
from physml._types import Numbers
from physml.dynamics._climate import Cells, Climate, padded

_CHUNK = 256  # trajectories that a thread reduces at once, so that they stay in its cache
_MOST_MAXIMA = 10**6  # of a row
_WINDOW = 4000  # rows, of a power spectrum


@checked
def pool_climate(
    chunks: Iterable[Array | np.ndarray],
    dt: float,
    *,
    bounds: tuple[Numbers, Numbers],
    bins: int = 100,
    joint_bins: int = 30,
    segment: int | None = None,
    peak: int = -1,
    groups: int = 1,
) -> Climate:
    """The statistics of any number of trajectories, in a memory that does not grow with them.

    The chunks are asked for one after another, and each is let go before the next is made. They are
    dealt out to groups in turn, and the result has a row for each group, where `measure_climate`
    has one for each trajectory: counts of all its trajectories, the mean spectrum of those that did
    not diverge, and the maxima of the first ones, a million at most. So two pooled climates can be
    compared by `climate_distances`, and `climate_floor` splits the groups. There are no exponents.

    A chunk is reduced on the device that it lies on, or by all that share it; on a CPU, on all
    cores.

    Args:
        chunks: arrays (num, time, dim), such as a generator makes them, or parts of a file that is
            mapped into memory. All have as many rows.
        dt: the time between rows.
        bounds, bins, joint_bins, peak: as for `measure_climate`.
        segment: rows in a window of the power spectrum; by default all rows, up to 4000.
        groups: the rows of the result.

    Raises:
        ValueError: chunks of different shapes, fewer of them than groups, or what `measure_climate`
            refuses.

    Example:
        A million trajectories, a thousand at a time:

        >>> def chunks(num):
        ...     for i in range(num // 1000):
        ...         own, ts = jax.random.fold_in(key, i), 0.01 * np.arange(3)
        ...         yield reference.trajectories(systems.Lorenz(), own, 1000, ts).ys
        >>> bounds = ((-25.0, -30.0, 0.0), (25.0, 30.0, 52.0))
        >>> climate = dynamics.pool_climate(chunks(2000), 0.01, bounds=bounds)
        >>> int(climate.joint.sum())
        6000
    """
    require_positive(dt=dt)
    require_count(groups=groups)
    pools: list[_Pool] = []
    plan = None
    for number, ys in enumerate(_checked(chunks)):
        if plan is None:
            plan = _Plan.of(ys.shape[1:], dt, bounds, (bins, joint_bins), segment, peak)
        if len(pools) < groups:
            pools.append(_Pool(plan))
        pools[number % groups].add(ys)
    if plan is None or len(pools) < groups:
        raise ValueError(f"chunks must be at least as many as groups = {groups}, got {len(pools)}")
    return plan.climate(pools)


def _checked(chunks: Iterable[Array | np.ndarray]) -> Iterator[Array | np.ndarray]:
    """The chunks as arrays, if all have the rows and components of the first."""
    expected = None
    for ys in chunks:
        # A part of a mapped file is read here, and not earlier.
        ys = floating_array("each of chunks", np.asarray(ys) if isinstance(ys, np.memmap) else ys)
        if ys.ndim != 3 or ys.size == 0:
            raise ValueError(
                f"each of chunks must have shape (num, time, dim), not empty, got {ys.shape}"
            )
        expected = expected or ys.shape[1:]
        if ys.shape[1:] != expected:
            raise ValueError(f"each of chunks must have (time, dim) = {expected}, got {ys.shape}")
        yield ys


class _Plan(NamedTuple):
    """What is counted in every chunk."""

    cells: Cells
    rows: int
    dt: float
    segment: int
    peak: int

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        dt: float,
        bounds: tuple[Numbers, Numbers],
        bins: tuple[int, int],
        segment: int | None,
        peak: int,
    ) -> "_Plan":
        rows, dim = shape
        require_count(-dim, (dim - 1, "the last component"), peak=peak)
        segment = min(rows, _WINDOW) if segment is None else segment
        require_count(1, (rows, "the rows of a chunk"), segment=segment)
        return cls(Cells.of(bounds, dim, *bins), rows, dt, segment, peak)

    def climate(self, pools: "list[_Pool]") -> Climate:
        """One row for each pool."""
        low, high, bins, _ = self.cells
        kept = np.array([max(pool.num - pool.diverged, 1) for pool in pools])
        spectra = np.stack([pool.spectra for pool in pools]) / kept[:, None, None]
        return Climate(
            dt=self.dt,
            num_steps=self.rows,
            diverged=np.array([pool.diverged / pool.num for pool in pools]),
            counts=np.stack([pool.counts for pool in pools]),
            joint=np.stack([pool.joint for pool in pools]),
            edges=np.linspace(low, high, bins + 1, axis=1),
            frequencies=np.fft.rfftfreq(self.segment, self.dt),
            spectra=spectra,
            maxima=padded([np.concatenate(pool.maxima) for pool in pools]),
            rates=np.empty((len(pools), 0, 0)),
            dimension=0,
        )


class _Pool:
    """What has been counted so far in the chunks of one group."""

    def __init__(self, plan: _Plan):
        self.num, self.diverged = 0, 0
        self.counts, self.joint, self.spectra = 0, 0, 0.0
        self.maxima: list[np.ndarray] = [np.empty(0)]
        self._plan, self._room = plan, _MOST_MAXIMA

    def add(self, ys: Array | np.ndarray) -> None:
        """Count a chunk."""
        if on_one_cpu(ys):
            found, workers, held = {}, num_cores(), np.asarray(ys)

            def work(index: np.ndarray, rows: slice) -> None:
                used = np.arange(len(index)) < rows.stop - rows.start
                found[rows.start] = _host(self._plan, held[index], used)

            size = few_shapes(len(ys), _CHUNK, workers)
            for_each_chunk(work, len(ys), size, workers)
            parts = [found[first] for first in sorted(found)]
        else:
            parts = [_host(self._plan, ys, np.ones(len(ys), bool))]
        self.num += len(ys)
        for part in parts:
            self.diverged += int(part.diverged)
            self.counts = self.counts + part.counts.astype(np.int64)
            self.joint = self.joint + part.joint.astype(np.int64)
            self.spectra = self.spectra + part.spectra
            if self._room > 0:
                maxima = _one_after_another(np.asarray(part.tops))
                self.maxima.append(maxima[: self._room])
                self._room -= len(maxima)


class _Part(NamedTuple):
    """What a chunk, or a part of one, adds to its group."""

    diverged: Int[Array, ""]
    counts: Int[Array, "dim cells"]
    joint: Int[Array, " boxes"]
    spectra: Float[Array, "dim frequencies"]
    tops: Float[Array, "num inner"]  # the height of each maximum where it is; NaN elsewhere


def _host(plan: _Plan, ys: Array | np.ndarray, used: Bool[np.ndarray, " num"]) -> _Part:
    """What a chunk adds, computed where it lies and brought to the host."""
    (low, high, *bins), _, dt, segment, peak = plan
    part = _reduced(ys, used, (low, high), dt, tuple(bins), segment, peak)
    part = jax.tree.map(on_host, part)
    return part._replace(tops=part.tops[used])


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _reduced(
    ys: Float[Array, "num time dim"],
    used: Bool[Array, " num"],
    corners: tuple[Float[Array, " dim"], Float[Array, " dim"]],
    dt: Float[Array, ""],
    bins: tuple[int, int],
    segment: int,
    peak: int,
) -> _Part:
    low, high = (jnp.broadcast_to(corner.astype(ys.dtype), ys.shape) for corner in corners)
    share = (ys - low) / (high - low)
    near = (jnp.abs(share - 0.5) <= 1.5).all(axis=(1, 2))  # false for NaN
    kept = used & near
    few = min(ys.shape[-1], 3)
    size = bins[1] + 2
    powers = size ** jnp.arange(few, dtype=jnp.int32)[::-1]
    joint = _cells(share[..., :few], bins[1]) @ powers
    single = [_count(_cells(share[..., d], bins[0]), used, bins[0] + 2) for d in range(ys.shape[2])]
    # Where a trajectory has diverged, squares may overflow: zeros stand for its values.
    tame = jnp.where(kept[:, None, None], ys, 0.0)
    return _Part(
        jnp.sum(used & ~near),
        jnp.stack(single),
        _count(joint, used, size**few),
        _spectra(tame, dt, segment).sum(axis=0),
        _tops(jnp.where(kept[:, None], ys[..., peak], jnp.nan)),
    )


def _cells(share: Float[Array, "*shape"], bins: int) -> Int[Array, "*shape"]:
    """As `statistics.cells`, of values that are already in units of the box."""
    share = jnp.clip(jnp.where(jnp.isnan(share), jnp.inf, share), -1.0, 2.0)
    return jnp.clip(jnp.floor(share * bins), -1, bins).astype(jnp.int32) + 1


def _count(
    index: Int[Array, "num time"], used: Bool[Array, " num"], size: int
) -> Int[Array, " size"]:
    """How often each number below `size` comes in the rows that are used."""
    index = jnp.where(used[:, None], index, size)
    return jnp.zeros(size, jnp.int32).at[index.ravel()].add(1, mode="drop")


def _spectra(
    ys: Float[Array, "num time dim"], dt: Float[Array, ""], segment: int
) -> Float[Array, "num dim frequencies"]:
    """As `power_spectrum`, by the device."""
    starts = range(0, ys.shape[1] - segment + 1, segment - segment // 2)
    window = jnp.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(segment) / segment), ys.dtype)
    total = jnp.zeros((*ys.shape[::2], segment // 2 + 1), ys.dtype)
    for start in starts:
        piece = jnp.moveaxis(ys[:, start : start + segment], 1, 2)
        piece = piece - piece.mean(axis=2, keepdims=True)
        total += jnp.abs(jnp.fft.rfft(piece * jnp.broadcast_to(window, piece.shape))) ** 2
    # All but the mean and, of an even number, the highest frequency stand for their mirror images.
    double = np.full(segment // 2 + 1, 2.0)
    double[0] = 1.0
    double[-1] = 1.0 if segment % 2 == 0 else double[-1]
    weight = jnp.asarray(double, ys.dtype) * dt / (jnp.sum(window**2) * len(starts))
    return total * jnp.broadcast_to(weight, total.shape)


def _tops(series: Float[Array, "num time"]) -> Float[Array, "num inner"]:
    """The maxima as `maxima` finds them, where they are; NaN elsewhere."""
    before, here, after = series[:, :-2], series[:, 1:-1], series[:, 2:]
    top = here - (after - before) ** 2 / (8 * (after - 2 * here + before))
    return jnp.where((before < here) & (here >= after), top, jnp.nan)


def _one_after_another(tops: Float[np.ndarray, "num inner"]) -> Float[np.ndarray, " many"]:
    """The maxima of trajectory after trajectory, with a NaN behind each."""
    ends = np.full((len(tops), 1), np.inf)
    row = np.concatenate([tops, ends], axis=1).ravel()
    row = row[~np.isnan(row)]
    return np.where(np.isinf(row), np.nan, row)

"""The climate of a step map: the statistics of its long trajectories, for any starts."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray

from physml._numerics.calls import checked
from physml._numerics.checks import floating_array, require_count, require_finite, require_multiple
from physml._types import Numbers
from physml.dynamics import _statistics as statistics
from physml.dynamics._batch import flatten
from physml.dynamics._lyapunov import LyapunovSpectrum, advance, dimension_of, tangents
from physml.step_maps import StepMap

_MAX_CELLS = 10**6  # of a joint histogram


class Climate(eqx.Module):
    """Long-time statistics of several trajectories of one step map, for each trajectory.

    Its rows are trajectories, or groups of them where `pool_climate` has made it.

    `climate[index]` selects trajectories by a slice, an integer or a Boolean array.

    Attributes:
        dt: the time step.
        num_steps: the steps of each trajectory that are counted.
        diverged: which trajectories left the attractor: a component was not finite, or its distance
            from the bounds was larger than their width; the share that did where rows are groups.
        counts: how often each component was in each bin; the first and last are outside the bounds.
        joint: the same for the first three components (or fewer) together.
        edges: the edges of the bins.
        frequencies: in cycles per unit of time.
        spectra: the power spectral density of each component.
        maxima: the successive maxima of one component, padded with NaN.
        rates: growth rates, see `LyapunovSpectrum`.
        dimension: the number of state coordinates that were differentiated.
    """

    dt: float
    num_steps: int
    diverged: Bool[np.ndarray, " num"] | Float[np.ndarray, " num"]
    counts: Int[np.ndarray, "num dim cells"]
    joint: Int[np.ndarray, "num boxes"]
    edges: Float[np.ndarray, "dim edges"]
    frequencies: Float[np.ndarray, " frequencies"]
    spectra: Float[np.ndarray, "num dim frequencies"]
    maxima: Float[np.ndarray, "num most"]
    rates: Float[np.ndarray, "num stretches exponents"]
    dimension: int

    def __len__(self) -> int:
        return len(self.diverged)

    @checked
    def __getitem__(
        self, index: slice | Int[np.ndarray, " k"] | Bool[np.ndarray, " k"]
    ) -> "Climate":
        kept = ("diverged", "counts", "joint", "spectra", "maxima", "rates")
        return eqx.tree_at(
            lambda c: [getattr(c, name) for name in kept],
            self,
            [getattr(self, name)[index] for name in kept],
        )

    @property
    def survivors(self) -> "Climate":
        """The rows that hold trajectories that did not diverge."""
        return self[self.diverged < 1]

    @property
    def lyapunov(self) -> LyapunovSpectrum:
        """The Lyapunov spectrum of each trajectory."""
        return LyapunovSpectrum.of(jnp.asarray(self.rates), self.dimension)

    @property
    def return_map(self) -> Float[np.ndarray, "count 2"]:
        """Every maximum with the next of its trajectory."""
        pairs = np.stack([self.maxima[:, :-1], self.maxima[:, 1:]], axis=-1).reshape(-1, 2)
        return pairs[np.isfinite(pairs).all(axis=1)]


class Cells(NamedTuple):
    """The cells that states are counted in: of a box, cut into bins in each component."""

    low: Float[np.ndarray, " dim"]
    high: Float[np.ndarray, " dim"]
    bins: int
    joint_bins: int

    @classmethod
    def of(cls, bounds: tuple[Numbers, Numbers], dim: int, bins: int, joint_bins: int) -> "Cells":
        require_count(bins=bins, joint_bins=joint_bins)
        low, high = (np.asarray(floating_array("bounds", corner)) for corner in bounds)
        require_finite("bounds", np.stack([low, high]))
        if low.shape != (dim,) or high.shape != (dim,) or not (low < high).all():
            raise ValueError(f"bounds must be corners low < high of {dim} numbers, got {bounds}")
        if (joint_bins + 2) ** min(dim, 3) > _MAX_CELLS:
            raise ValueError(f"joint_bins must give at most {_MAX_CELLS} boxes, got {joint_bins}")
        return cls(low, high, bins, joint_bins)

    def far_outside(self, ys: Float[np.ndarray, "num time dim"]) -> Bool[np.ndarray, " num"]:
        """Which trajectories leave the box by more than its width, or are not finite."""
        middle, width = 0.5 * (self.low + self.high), self.high - self.low
        near = np.abs(ys - middle) <= 1.5 * width  # false for NaN
        return np.asarray(~near.all(axis=(1, 2)))

    def count(self, ys: Float[np.ndarray, "num time dim"]) -> tuple[np.ndarray, np.ndarray]:
        """How often each component is in each cell, and the first three together in each box."""
        few = slice(0, 3)
        return statistics.histogram(ys, self.low, self.high, self.bins), statistics.joint_histogram(
            ys[..., few], self.low[few], self.high[few], self.joint_bins
        )


@checked
def measure_climate(
    step_map: StepMap,
    history: Float[Array, "num time dim"],
    num_steps: int,
    *,
    bounds: tuple[Numbers, Numbers],
    bins: int = 100,
    joint_bins: int = 30,
    segment: int = 4000,
    peak: int = -1,
    exponents: int | None = None,
    every: int = 10,
    transient: int = 1000,
    chunk: int = 20_000,
    t0: ArrayLike = 0.0,
) -> Climate:
    """The statistics of several long trajectories of a step map, gathered while they are made.

    One pass makes the trajectories and pushes tangent vectors along them, as `lyapunov_spectrum`
    does. It holds no more than `chunk` rows of each trajectory at once.

    Args:
        step_map: the map: a surrogate, or the truth's own flow map.
        history: observations that start each trajectory, one row for a map without memory.
        num_steps: the steps counted, a multiple of `chunk` or less than it.
        bounds: corners (low, high), each (dim,), of a box that just holds the attractor. Climates
            that are to be compared share it.
        bins: of each component's histogram.
        joint_bins: of each component in the joint histogram.
        segment: rows in a window of the power spectrum (see `power_spectrum`).
        peak: the component whose maxima are gathered.
        exponents: how many Lyapunov exponents; by default as many as components.
        every: the steps between reorthonormalisations, see `lyapunov_spectrum`.
        transient: the first steps, which are not counted, a multiple of `every`.
        chunk: rows of each trajectory held at once, a multiple of `every`.
        t0: the time of each history's last row, a scalar or one for each.

    Raises:
        ValueError: the history is not finite or not (num, time, dim), the bounds do not fit it or
            are not low < high, or counts do not fit each other.
    """
    chunk = _check_counts(num_steps, min(chunk, num_steps), every, transient, segment)
    histories, t0s, batch = flatten(history, t0)
    if len(batch) != 1:
        raise ValueError(f"history must have shape (num, time, dim), got {np.shape(history)}")
    cells = Cells.of(bounds, histories.shape[-1], bins, joint_bins)
    dimension = dimension_of(step_map, histories[0], t0s[0])
    exponents = histories.shape[-1] if exponents is None else exponents
    require_count(1, (dimension, "the dimension of the state"), exponents=exponents)

    carry = tangents(step_map, histories, t0s, exponents)
    if transient:
        carry, *_ = advance(step_map, carry, transient // every, every)
    diverged, tail = np.zeros(len(histories), bool), np.empty((len(histories), 0))
    counts, joint, spectra, rates, tops = 0, 0, 0.0, [], []
    for _ in range(num_steps // chunk):
        carry, rows, growth = advance(step_map, carry, chunk // every, every)
        ys = np.asarray(rows)
        rates.append(np.asarray(growth))
        diverged |= cells.far_outside(ys)
        counts, joint = (a + b for a, b in zip((counts, joint), cells.count(ys), strict=True))
        # Where a trajectory has diverged, squares may overflow: NaN stands for its values.
        ys = np.where(diverged[:, None, None], np.nan, ys)
        frequencies, density = statistics.spectra_of(ys, step_map.dt, segment)
        spectra = spectra + density * (chunk / num_steps)
        series = np.concatenate([tail, ys[..., peak]], axis=1)
        tops.append([statistics.maxima_of(one) for one in series])
        tail = series[:, -2:]
    return Climate(
        dt=step_map.dt,
        num_steps=num_steps,
        diverged=diverged,
        counts=np.asarray(counts),
        joint=np.asarray(joint),
        edges=np.linspace(cells.low, cells.high, bins + 1, axis=1),
        frequencies=frequencies,
        spectra=np.asarray(spectra),
        maxima=padded([np.concatenate(each) for each in zip(*tops, strict=True)]),
        rates=np.concatenate(rates, axis=1),
        dimension=dimension,
    )


def _check_counts(num_steps: int, chunk: int, every: int, transient: int, segment: int) -> int:
    """The rows of a chunk, where all counts fit each other."""
    require_count(num_steps=num_steps, chunk=chunk, every=every)
    require_count(0, transient=transient)
    require_multiple("chunk", chunk, num_steps=num_steps)
    require_multiple("every", every, chunk=chunk, transient=transient)
    require_count(1, (chunk, "the rows of a chunk"), segment=segment)
    return chunk


def padded(rows: list[np.ndarray]) -> Float[np.ndarray, "num most"]:
    """Rows of different lengths as one array, padded with NaN."""
    most = max(map(len, rows))
    return np.stack([np.pad(row, (0, most - len(row)), constant_values=np.nan) for row in rows])


class Distances(NamedTuple):
    """How far a climate is from another; those of `climate_floor` have a leading axis of samples.

    Attributes:
        divergence: the Jensen-Shannon divergence of each component's histogram, in nats.
        joint: the same for the joint histogram.
        spectrum: the Hellinger distance of each component's normalised power spectrum.
        return_map: see `return_map_error`.
    """

    divergence: Float[np.ndarray, "*samples dim"]
    joint: Float[np.ndarray, "*samples"]
    spectrum: Float[np.ndarray, "*samples dim"]
    return_map: Float[np.ndarray, "*samples"]


@checked
def climate_distances(climate: Climate, truth: Climate) -> Distances:
    """How far the trajectories of one climate, all together, are from those of another.

    Trajectories that diverged count in the histograms, in cells of their own, and not in the
    spectra and maxima, so report the share that diverged beside the distances. Every distance is
    one between samples, so it is not zero for two samples of one truth: compare it with
    `climate_floor`.

    Raises:
        ValueError: the climates were not taken with the same bounds, bins, segments and time step.
    """
    if (climate.counts.shape[1:], climate.joint.shape[1:]) != (
        truth.counts.shape[1:],
        truth.joint.shape[1:],
    ) or not np.array_equal(climate.edges, truth.edges):
        raise ValueError("climate and truth must have the same bounds and bins")
    if not np.array_equal(climate.frequencies, truth.frequencies):
        raise ValueError("climate and truth must have the same segment and time step")
    kept, known = climate.survivors, truth.survivors
    pairs = kept.return_map
    nothing = len(kept) == 0 or len(pairs) == 0
    return Distances(
        statistics.jensen_shannon(climate.counts.sum(axis=0), truth.counts.sum(axis=0)),
        statistics.jensen_shannon(climate.joint.sum(axis=0), truth.joint.sum(axis=0)),
        statistics.hellinger(kept.spectra.sum(axis=0), known.spectra.sum(axis=0)),
        np.asarray(np.nan if nothing else statistics.return_map_error(pairs, known.return_map)),
    )


@checked
def climate_floor(truth: Climate, key: PRNGKeyArray, *, samples: int = 200) -> Distances:
    """Distances of the truth from itself, which are those of a perfect surrogate.

    The truth's independent trajectories are split at random into two halves, `samples` times, and
    the halves compared. This is the permutation distribution of the distances of two samples of
    one kind: a perfect surrogate with as many trajectories as a half, and as long, is below its
    95th percentile in nineteen of twenty comparisons with a half.

    Args:
        truth: twice as many trajectories as the comparison uses, from independent starts.
        key: a random key for the splits.
        samples: the number of splits.

    Raises:
        ValueError: the number of trajectories is odd or less than four.
    """
    num = len(truth)
    if num < 4 or num % 2:
        raise ValueError(f"truth must have an even number of trajectories, at least 4, got {num}")
    orders = jax.vmap(lambda k: jax.random.permutation(k, num))(jax.random.split(key, samples))
    found = [
        climate_distances(truth[order[: num // 2]], truth[order[num // 2 :]])
        for order in np.asarray(orders)
    ]
    return Distances(*(np.stack(values) for values in zip(*found, strict=True)))

"""Statistics of long trajectories, and distances between them, which are small for a good model.

Plain functions of NumPy arrays on the host: the trajectories are large and used once.
"""

import numpy as np
from jaxtyping import Float, Int

from physml._numerics.calls import checked
from physml._numerics.checks import (
    require_count,
    require_finite,
    require_not_empty,
    require_not_negative,
    require_positive,
)
from physml._types import Numbers

Values = Float[np.ndarray, "..."]


@checked
def kullback_leibler(p: Numbers, q: Numbers) -> Values:
    r"""$\sum_i p_i \log(p_i / q_i)$ in nats, the divergence of q from p along the last axis.

    For fine bins it tends to that of the densities. It is infinite if q is zero in a bin of p.

    Args:
        p: counts or weights (*batch, bins), not negative; each is normalised to sum to one. A
            distribution without any weight gives NaN.
        q: the same of the other distribution.

    Example:
        >>> round(float(dynamics.kullback_leibler([1, 1], [1, 3])), 4)
        0.1438

    Source: Kullback and Leibler, Ann. Math. Statist. 22 (1951) 79.
    """
    from scipy.special import rel_entr  # few need it, and `import physml` is to be fast

    return np.asarray(rel_entr(*_distributions(p, q)).sum(axis=-1))


@checked
def jensen_shannon(p: Numbers, q: Numbers) -> Values:
    r"""The Jensen-Shannon divergence in nats: how well a sample distinguishes two distributions.

    $\tfrac12 D(p\|m) + \tfrac12 D(q\|m)$ with $m = (p + q)/2$ and D that of `kullback_leibler`:
    it is symmetric, finite where bins are empty, and from 0 for equal distributions to log 2 for
    disjoint ones.

    Args:
        p, q: as for `kullback_leibler`.

    Source: Lin, IEEE Trans. Inform. Theory 37 (1991) 145.
    """
    p, q = _distributions(p, q)
    middle = 0.5 * (p + q)
    # SciPy has only its root, which is NaN where p and q are near and rounding makes it negative.
    return np.asarray(0.5 * (kullback_leibler(p, middle) + kullback_leibler(q, middle)))


@checked
def hellinger(p: Numbers, q: Numbers) -> Values:
    r"""The Hellinger distance $\sqrt{1 - \sum_i \sqrt{p_i q_i}}$ along the last axis, in [0, 1].

    Of normalised power spectra it is the usual distance between them.

    Args:
        p, q: as for `kullback_leibler`.

    Source: Mikhaeil, Monfared and Durstewitz, NeurIPS 2022 (arXiv 2110.07238), for the spectra.
    """
    p, q = _distributions(p, q)
    # 1 - sum(sqrt(p q)) = sum((sqrt p - sqrt q)^2) / 2 does not cancel for near spectra.
    return np.asarray(np.sqrt(0.5 * ((np.sqrt(p) - np.sqrt(q)) ** 2).sum(axis=-1)))


def _distributions(p: Numbers, q: Numbers) -> tuple[Values, Values]:
    """Both, normalised.

    Raises:
        ValueError: one has other bins than the other, or weights that are negative or not finite.
    """
    for name, weights in (("p", p), ("q", q)):
        require_not_empty(**{name: weights})
        require_not_negative(**{name: weights})
    if np.shape(p) != np.shape(q) and np.shape(p)[-1:] != np.shape(q)[-1:]:
        raise ValueError(f"q must have the bins of p, {np.shape(p)[-1:]}, got {np.shape(q)[-1:]}")
    return _normalised(p), _normalised(q)


def _normalised(weights: Numbers) -> Values:
    weights = np.asarray(weights, float)
    with np.errstate(invalid="ignore"):
        return weights / weights.sum(axis=-1, keepdims=True)


def cells(values: Numbers, low: Numbers, high: Numbers, bins: int) -> Int[np.ndarray, "..."]:
    """The cell that each value lies in: 1 to `bins`, of equal width from low to high, or outside.

    Cell 0 is below, `bins` + 1 above; NaN counts as above.

    Args:
        values: (*batch, dim).
        low, high: (dim,), or scalars.
        bins: how many.
    """
    share = (np.asarray(values) - low) / (np.asarray(high) - low)
    share = np.clip(np.where(np.isnan(share), np.inf, share), -1.0, 2.0)
    return np.clip(np.floor(share * bins), -1, bins).astype(np.int64) + 1


def histogram(
    ys: Float[np.ndarray, "num time dim"], low: Numbers, high: Numbers, bins: int
) -> Int[np.ndarray, "num dim cells"]:
    """How often each component of each trajectory lies in each of `bins` + 2 cells (see `cells`).

    Args:
        ys: trajectories.
        low, high: (dim,), the lower edge of the first bin and the upper edge of the last.
        bins: how many.
    """
    num, _, dim = ys.shape
    index = cells(ys, low, high, bins)
    offset = (bins + 2) * np.arange(num * dim).reshape(num, 1, dim)
    counts = np.bincount((index + offset).ravel(), minlength=num * dim * (bins + 2))
    return counts.reshape(num, dim, bins + 2)


def joint_histogram(
    ys: Float[np.ndarray, "num time dim"], low: Numbers, high: Numbers, bins: int
) -> Int[np.ndarray, "num cells"]:
    """How often each trajectory's state lies in each of the (`bins` + 2)^dim boxes.

    Args:
        ys: trajectories, of few components.
        low, high: (dim,), the edges as in `histogram`.
        bins: how many for each component.
    """
    num, _, dim = ys.shape
    size = (bins + 2) ** dim
    powers = (bins + 2) ** np.arange(dim)[::-1]
    index = cells(ys, low, high, bins) @ powers
    counts = np.bincount((index + size * np.arange(num)[:, None]).ravel(), minlength=num * size)
    return counts.reshape(num, size)


@checked
def power_spectrum(
    ys: Float[np.ndarray, "num time dim"], dt: float, segment: int
) -> tuple[Float[np.ndarray, " frequencies"], Float[np.ndarray, "num dim frequencies"]]:
    """The power spectral density of each component by Welch's method, and its frequencies.

    Hann windows of `segment` rows overlap by half, and each has its mean subtracted. The density is
    one-sided: its integral over frequency is the variance within a segment.

    Args:
        ys: trajectories, at least a segment long.
        dt: the time between rows; frequencies are in cycles per unit of it.
        segment: rows in a window.

    Source: Welch, IEEE Trans. Audio Electroacoust. 15 (1967) 70.
    """
    require_positive(dt=dt)
    require_finite("ys", ys)
    require_count(1, (ys.shape[1], "the rows of ys"), segment=segment)
    return spectra_of(ys, dt, segment)


def spectra_of(
    ys: Float[np.ndarray, "num time dim"], dt: float, segment: int
) -> tuple[Float[np.ndarray, " frequencies"], Float[np.ndarray, "num dim frequencies"]]:
    """As `power_spectrum`; the spectra of a trajectory with a NaN are NaN."""
    from scipy import signal  # takes a second to import, and few need it

    frequencies, density = signal.welch(ys, 1 / dt, nperseg=segment, axis=1)
    return frequencies, np.moveaxis(density, 1, 2)


@checked
def maxima(series: Float[np.ndarray, " time"]) -> Float[np.ndarray, " count"]:
    r"""The successive maxima of a sampled series, each the top of a parabola through three points.

    Where $y_{k-1} < y_k \ge y_{k+1}$ the top of the parabola through the three is
    $y_k - (y_{k+1} - y_{k-1})^2 / (8 (y_{k+1} - 2 y_k + y_{k-1}))$. Its error is of the fourth
    order in the time between rows.

    Args:
        series: samples at equal times.
    """
    require_finite("series", series)
    return maxima_of(series)


def maxima_of(series: Float[np.ndarray, " time"]) -> Float[np.ndarray, " count"]:
    """As `maxima`; next to a NaN there is no maximum."""
    before, here, after = series[:-2], series[1:-1], series[2:]
    top = (before < here) & (here >= after)
    before, here, after = before[top], here[top], after[top]
    return here - (after - before) ** 2 / (8 * (after - 2 * here + before))


@checked
def return_map_error(
    pairs: Float[np.ndarray, "count 2"], truth: Float[np.ndarray, "many 2"]
) -> float:
    r"""How far successive maxima lie from the truth's return map, in standard deviations.

    The root mean square of $z_{n+1} - F(z_n)$ over the standard deviation of the truth's z, where
    F is the piecewise linear function through the truth's pairs, constant beyond their range. It
    makes sense where the truth's pairs lie on a curve, as Lorenz's do up to a thickness of the
    order of exp(lambda_3 T) with T the time from maximum to maximum (Lorenz, J. Atmos. Sci. 20
    (1963) 139).

    Args:
        pairs: (z_n, z_{n+1}).
        truth: the same of the truth, many more than the map has features.
    """
    require_finite("pairs", pairs)
    require_finite("truth", truth)
    truth = truth[np.argsort(truth[:, 0])]
    expected = np.interp(pairs[:, 0], truth[:, 0], truth[:, 1])
    return float(np.sqrt(np.mean((pairs[:, 1] - expected) ** 2)) / truth[:, 0].std())

"""Noise in the rows of trajectories: how large it is, and what local polynomials remove of it."""

import math
from typing import Literal

import numpy as np
from jaxtyping import Array, Float

from physml._numerics.calls import checked
from physml._numerics.checks import require_finite, require_not_negative
from physml._types import Numbers

Noise = Literal["auto"] | Numbers
"""The standard deviation of each column's noise: one, one for each column, or "auto"."""

MAX_ORDER = 10
"""Differences of this order reduce a resolved motion to nothing: each order divides it by ten."""

STEADY = 0.9
"""White noise has the same estimate from each order of differences, which motion has not."""

RESOLVED = 1e-6
"""Noise below this share of a column's spread is not told from the rounding of a solver."""

LARGEST = 0.5
"""A column with more noise than this share of its spread holds no motion that could be learned."""

DEGREE = 4
LEAST_ROWS = 12
ENOUGH_ROWS = 200_000
"""From so many rows the noise is known to half a per cent; more would cost time alone."""


def noise_of(ys: Float[Array, "num time dim"]) -> Float[np.ndarray, " dim"]:
    """The standard deviation of white noise in each column; 0 where none is seen.

    The orbit of a map looks like noise too, and so does motion that the grid does not resolve: no
    window smooths it without harm, or the estimate is as large as the spread. Both count as none.
    """
    rows = np.asarray(ys[:: max(1, ys.shape[0] * ys.shape[1] // ENOUGH_ROWS)], float)
    _require_rows(rows)
    centred = rows - rows.mean(axis=(0, 1))
    spread = np.sqrt((centred**2).mean(axis=(0, 1)))
    estimates = []
    differences = centred
    for order in range(1, min(MAX_ORDER, rows.shape[1] // 3) + 1):
        differences = np.diff(differences, axis=1)
        square = (differences**2).mean(axis=(0, 1))
        estimates.append(np.sqrt(square / math.comb(2 * order, order)))
    last, before = estimates[-1], estimates[-2]
    # What motion is left shrinks from order to order; the noise does not.
    largest = np.abs(rows).max(axis=(0, 1))
    floor = np.maximum(RESOLVED * spread, 100 * float(np.finfo(np.asarray(ys).dtype).eps) * largest)
    seen = (last >= STEADY * before) & (last > floor)
    noise = np.minimum.reduce(estimates)
    noise = np.where(seen & (noise < LARGEST * spread), noise, 0.0)
    _, windows = smooth(rows, noise)
    return np.where(np.asarray(windows) > 1, noise, 0.0)


def smooth(
    ys: Float[Array | np.ndarray, "num time dim"], noise: Float[np.ndarray, " dim"]
) -> tuple[Float[np.ndarray, "num time dim"], tuple[int, ...]]:
    r"""The rows smoothed, and the window of each column (1 where nothing was removed).

    Each row is replaced by the value of the polynomial of degree 4 that fits the rows of a window
    around it best (Savitzky and Golay, Anal. Chem. 36, 1964); at the ends the polynomial of the
    outermost whole window is used. The window is that of the least expected error, which can be
    estimated without the truth (Mallows' $C_p$, Technometrics 15, 1973): the mean square of what
    is removed, plus $2 \sigma^2 h_0 - \sigma^2$ with $h_0$ the filter's weight of the row itself.
    """
    import scipy.signal  # takes a moment, and few need it

    rows = np.array(ys, float)
    _require_rows(rows)
    chosen = []
    for i, sigma in enumerate(noise):
        column, best, least, kept = rows[:, :, i], 1, sigma**2, rows[:, :, i]
        for window in _windows(rows.shape[1]) if sigma > 0 else ():
            filtered = scipy.signal.savgol_filter(column, window, DEGREE, axis=1)
            weight = scipy.signal.savgol_coeffs(window, DEGREE)[window // 2]
            risk = ((filtered - column) ** 2).mean() + (2 * weight - 1) * sigma**2
            if risk < least:
                best, least, kept = window, risk, filtered
        rows[:, :, i] = kept
        chosen.append(best)
    return rows.astype(np.asarray(ys).dtype), tuple(chosen)


@checked
def noise_levels(
    ys: Float[Array, "num time dim"], noise: Noise | None = None
) -> Float[np.ndarray, " dim"]:
    """The standard deviation of the white noise in each column of trajectories' rows.

    Args:
        ys: the rows.
        noise: what is known of it, one number or one a column; "auto" estimates it, as
            `Trajectories.noise` does; None does too, and says 0 where rows are too few to tell.

    Raises:
        ValueError: the noise is negative, not finite or of another shape; with "auto", there are
            fewer than 12 rows.
    """
    dim = ys.shape[-1]
    if noise is None and ys.shape[1] < LEAST_ROWS:
        return np.zeros(dim)
    if noise is None or isinstance(noise, str):
        return noise_of(ys)
    values = np.asarray(noise)
    if values.shape not in ((), (dim,)):
        raise ValueError(f"noise must be one number or {dim}, got shape {values.shape}")
    require_finite("noise", values)
    require_not_negative(noise=values)
    return np.broadcast_to(np.asarray(values, float), (dim,)).copy()


def _windows(time: int) -> list[int]:
    """Odd windows, each about a sixth longer than the one before, up to half of the rows."""
    lengths = 7 * 1.16 ** np.arange(40)
    return sorted({2 * int(x / 2) + 1 for x in lengths if x < time / 2})


def _require_rows(rows: np.ndarray) -> None:
    require_finite("ys", rows)
    if rows.shape[1] < LEAST_ROWS:
        raise ValueError(
            f"ys must have {LEAST_ROWS} rows in a trajectory or more to tell noise from motion, "
            f"got {rows.shape[1]}"
        )

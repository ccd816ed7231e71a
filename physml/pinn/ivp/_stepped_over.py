"""What wide windows have stepped over: pulses shorter than the gaps between an audit's points.

Where a solution is at rest its windows grow, to the whole interval if nothing disturbs it, and a
pulse of f may lie between the points at which they were judged. When the march has ended, f is
asked along the solution at many more times. Where it differs from the slope of the network, a
window's edge is put, and the march begins again: its own search then finds the ends of the pulse.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from physml._numerics.compiled import compiling, lower, once
from physml._numerics.quadrature import gauss, interpolation
from physml.pinn.collocation import Tables, Tolerance
from physml.pinn.ivp._audit import audit_points, depends_on_time, num_looked_at
from physml.pinn.ivp._march import InitialValueProblem, March
from physml.pinn.ivp._window import Window

# Times in the whole interval. A state seldom crosses something so narrow, and what depends on the
# state alone is smooth more often than not: there fewer have to do.
_TIMES, _TIMES_OF_STATES = 1 << 14, 1 << 11
_MOST_NUMBERS = 1 << 21  # components times times
_TOLERANCES = 100.0  # what a residual must change u by
_MEDIANS = 1000.0  # and how far it must stand out in its window, where rounding may be large
_MOST_EDGES = 64


def stepped_over(
    problem: InitialValueProblem, tables: Tables, tolerance: Tolerance, marched: March
) -> Float[np.ndarray, " times"]:
    """Times, one in each pulse of f that the march has not met.

    It looks at the windows in which its times lie closer than the points of their audits.
    """
    timed = depends_on_time(problem.rates, marched.t, marched.y)
    most = min(_TIMES if timed else _TIMES_OF_STATES, _MOST_NUMBERS // problem.y0.size)
    windows = jax.tree.map(np.asarray, _used(marched))
    numbers = most * windows.span / max(np.sum(windows.span), np.finfo(windows.span.dtype).tiny)
    wide = np.flatnonzero(numbers > num_looked_at(tables, timed))
    if not len(wide):
        return np.zeros(0)
    # Powers of two, so that few programs are compiled and windows share their tables.
    numbers = 1 << np.ceil(np.log2(np.maximum(numbers, 1.0))).astype(int)
    samples = {number: _samples(tables, int(number)) for number in np.unique(numbers[wide])}
    looks = [_look(windows, int(i), samples[numbers[i]]) for i in wide]
    times, states, slopes = (np.concatenate(x, axis=-1) for x in zip(*looks, strict=True))
    residual = np.abs(slopes - _rates(problem, times, states))
    size = np.maximum(np.asarray(marched.seen.size), np.max(np.abs(states), axis=1))
    allowed = float(tolerance.rtol) * size + (0.0 if tolerance.atol is None else tolerance.atol)
    found, ends = [], np.cumsum(numbers[wide])
    for i, end in zip(wide, ends, strict=True):
        some = slice(end - numbers[i], end)
        with np.errstate(divide="ignore", invalid="ignore"):
            change = windows.span[i] * residual[:, some] / np.reshape(allowed, (-1, 1))
        change = np.where(residual[:, some] > 0, change, 0.0)
        change = np.max(np.where(np.isnan(change), np.inf, change), axis=0)
        above = change > max(_TOLERANCES, _MEDIANS * np.median(change))
        found += _peaks(times[some], np.where(above, change, 0.0))
    return np.sort([time for _, time in sorted(found, reverse=True)[:_MOST_EDGES]])


def _used(marched: March) -> Window:
    """The windows that there are."""
    return jax.tree.map(lambda rows: rows[: int(marched.num_windows)], marched.windows)


class _Samples(NamedTuple):
    """Scaled times, increasing, and the basis functions and their slopes at them."""

    points: np.ndarray
    values: np.ndarray
    slopes: np.ndarray


def _samples(tables: Tables, number: int) -> _Samples:
    """The basis is nearly the polynomial through its values at the Gauss points."""
    points, matrix = _evenly(number, tables.points.shape[0])
    values, slopes = (np.asarray(x).T @ matrix.T for x in (tables.values, tables.slopes))
    return _Samples(points, values, slopes)


@functools.cache
def _evenly(number: int, num_points: int) -> tuple[np.ndarray, np.ndarray]:
    points = np.sort(audit_points(number + 2)[2:])
    return points, interpolation(gauss(num_points).points, points)


def _look(windows: Window, i: int, at: _Samples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times in a window, the network's values, and its slopes."""
    half, slope, coefficients = windows.span[i] / 2, windows.slope[i], windows.coefficients[i]
    states = half * (np.outer(slope, at.points + 1) + coefficients.T @ at.values)
    slopes = slope[:, None] + coefficients.T @ at.slopes
    return windows.start[i] + half * (at.points + 1), windows.y[i][:, None] + states, slopes


def _rates(problem: InitialValueProblem, times: np.ndarray, states: np.ndarray) -> np.ndarray:
    """f, in an array of a power of two of times, so that few shapes are compiled."""
    fill = (1 << (len(times) - 1).bit_length()) - len(times)
    times, states = np.pad(times, (0, fill), "edge"), np.pad(states, ((0, 0), (0, fill)), "edge")
    rates = once(_compile_rates, problem, times, states)(problem, times, states)
    return np.asarray(rates)[:, : len(rates[0]) - fill]


def _compile_rates(*args: object) -> Callable[..., Array]:
    return compiling(lower(_all_rates, *args), quickly=True)


def _all_rates(problem: InitialValueProblem, times: Array, states: Array) -> Array:
    return problem.rates(times, states)


def _peaks(times: np.ndarray, change: np.ndarray) -> list[tuple[float, float]]:
    """The largest change in each run of those that are not zero, and its time."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], change > 0, [False]]).astype(int)))
    peaks = [first + np.argmax(change[first:end]) for first, end in edges.reshape(-1, 2)]
    return [(float(change[peak]), float(times[peak])) for peak in peaks]

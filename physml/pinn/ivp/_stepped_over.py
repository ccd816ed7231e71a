"""What wide windows have stepped over: pulses shorter than the gaps between an audit's points.

Where a solution is at rest its windows grow, to the whole interval if nothing disturbs it, and a
pulse of f may lie between the points at which they were judged. When the march has ended, f is
asked along the solution at many more times. Where it differs from the slope of the network, a
window's edge is put, and the march begins again: its own search then finds the ends of the pulse.
"""

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Float, Int

from physml._numerics.compiled import compiling, lower, once
from physml._numerics.quadrature import gauss, interpolation
from physml.pinn.collocation import Tables, Tolerance
from physml.pinn.ivp._audit import audit_points, depends_on_time, num_looked_at
from physml.pinn.ivp._march import InitialValueProblem, March
from physml.pinn.ivp._window import Window

# Times in the whole interval. An f that depends on the state alone is mostly smooth, and a state
# seldom crosses something so narrow: there fewer times are enough.
_TIMES, _TIMES_OF_STATES = 1 << 13, 1 << 11
_MOST_NUMBERS = 1 << 21  # components times times
# A residual counts as a pulse if it changes u by so many tolerances, and by so many times the
# median of its window, where rounding may be large.
_TOLERANCES, _MEDIANS = 100.0, 1000.0
_MOST_EDGES = 64


def stepped_over(
    problem: InitialValueProblem, tables: Tables, tolerance: Tolerance, marched: March
) -> Float[np.ndarray, " times"]:
    """Times, one in each pulse of f that the march has not met.

    It looks at the windows in which its times lie twice as close as the points of their audits.
    """
    timed = once(_depends_on_time, problem, marched.t, marched.y)
    most = min(_TIMES if timed else _TIMES_OF_STATES, _MOST_NUMBERS // problem.y0.size)
    span = np.asarray(marched.windows.span)[: int(marched.num_windows)]
    numbers = most * span / max(np.sum(span), np.finfo(span.dtype).tiny)
    wide = np.flatnonzero(numbers > 2 * num_looked_at(tables, timed))
    if not len(wide):
        return np.zeros(0)
    # Powers of two, so that few programs are compiled and windows share their tables.
    numbers = 1 << np.rint(np.log2(numbers[wide])).astype(int)
    atol = 0.0 if tolerance.atol is None else np.asarray(tolerance.atol)
    found = []
    for number in np.unique(numbers):
        chosen = wide[numbers == number]
        times, states, slopes = _look(tables, marched.windows, chosen, int(number))
        residual = np.abs(slopes - _rates(problem, times, states))
        size = np.maximum(np.asarray(marched.seen.size), np.max(np.abs(states), axis=(0, 1)))
        allowed = float(tolerance.rtol) * size + atol
        with np.errstate(divide="ignore", invalid="ignore"):
            change = span[chosen, None, None] * residual / allowed
        change = np.max(np.where(residual == 0, 0.0, change), axis=-1)
        change = np.where(np.isnan(change), np.inf, change)
        medians = np.median(change, axis=1, keepdims=True)
        change = np.where(change > np.maximum(_TOLERANCES, _MEDIANS * medians), change, 0.0)
        found += _peaks(times.ravel(), change.ravel())
    return np.sort([time for _, time in sorted(found, reverse=True)[:_MOST_EDGES]])


def _depends_on_time(problem: InitialValueProblem, t: Array, y: Array) -> bool:
    return depends_on_time(problem.rates, t, y)


def _look(
    tables: Tables, windows: Window, chosen: Int[np.ndarray, " windows"], number: int
) -> tuple[
    Float[np.ndarray, "windows times"],
    Float[np.ndarray, "windows times dim"],
    Float[np.ndarray, "windows times dim"],
]:
    """Times in some windows, increasing, the networks' values at them, and their slopes.

    The basis is nearly the polynomial through its values at the Gauss points.
    """
    points, matrix = _evenly(number, tables.points.shape[0])
    values, slopes = (matrix @ np.asarray(x) for x in (tables.values, tables.slopes))
    names = "start", "span", "y", "slope", "coefficients"
    start, span, y, slope, terms = (np.asarray(getattr(windows, x))[chosen] for x in names)
    slope, half = slope[:, None], span[:, None] / 2
    moved = half[..., None] * (slope * (points + 1)[:, None] + values @ terms)
    return start[:, None] + half * (points + 1), y[:, None] + moved, slope + slopes @ terms


@functools.cache
def _evenly(number: int, num_points: int) -> tuple[np.ndarray, np.ndarray]:
    points = np.sort(audit_points(number + 2)[2:])
    return points, interpolation(gauss(num_points).points, points)


def _rates(problem: InitialValueProblem, times: np.ndarray, states: np.ndarray) -> np.ndarray:
    """f, in an array of a power of two of times, so that few shapes are compiled."""
    dim, count = states.shape[-1], times.size
    fill = (1 << (count - 1).bit_length()) - count
    dtype = problem.y0.dtype
    flat = np.pad(times.ravel(), (0, fill), "edge").astype(dtype)
    columns = np.pad(states.reshape(count, dim).T, ((0, 0), (0, fill)), "edge").astype(dtype)
    rates = once(_compile_rates, problem, flat, columns)(problem, flat, columns)
    return np.asarray(rates)[:, :count].T.reshape(states.shape)


def _compile_rates(*args: object) -> Callable[..., Array]:
    return compiling(lower(_all_rates, *args), quickly=True)


def _all_rates(problem: InitialValueProblem, times: Array, states: Array) -> Array:
    return problem.rates(times, states)


def _peaks(times: np.ndarray, change: np.ndarray) -> list[tuple[float, float]]:
    """The largest change in each run of those that are not zero, and its time."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], change > 0, [False]]).astype(int)))
    peaks = [first + np.argmax(change[first:end]) for first, end in edges.reshape(-1, 2)]
    return [(float(change[peak]), float(times[peak])) for peak in peaks]

"""Window after window: spans that follow the error, then the correction and its estimate."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from physml._numerics.interrupt import ctrl_c
from physml._numerics.quadrature import radau
from physml.pinn.collocation import Tolerance
from physml.pinn.constraints._equation import Equation
from physml.pinn.constraints._refined import Programs, Refined, known
from physml.pinn.constraints._window import Guess, Window
from physml.results import RESULTS

Array = np.ndarray

_MOST_GROWTH = 4.0
_SHRINKS = 0.3  # of a span whose window could not be solved
_CAUTION = 0.8
_FIRST_CHANGE = 0.1  # of a component in the first window
_FIRST_SHARE = 1e-2  # of the whole time, where no component changes at first
_LEAST_SHARE = 1e-10  # a component may be as small as rounding; a rejected span shrinks anyway
_SHORTEST = 16  # roundings of the time


class Settings(NamedTuple):
    """What a march is held to."""

    tolerance: Tolerance
    num_points: int
    first_span: float | None
    max_window: float
    max_steps: int
    max_windows: int


class Task(NamedTuple):
    """What is solved, and the programs for it."""

    equation: Equation
    programs: Programs


class Marched(NamedTuple):
    """The windows that were accepted, and why there are no more of them.

    Attributes:
        edges: of the windows.
        rates: the derivatives at the points of each window.
        errors: of each window, in units of the tolerance.
        rejected: how many windows were tried narrower.
        steps: Newton's, in all windows.
        result: how the march ended.
        state, slope: where it stopped, and the derivative there.
        spoilt: what tolerated errors of other components may make of each one.
    """

    edges: Float[Array, " edges"]
    rates: list[Float[Array, "dim points"]]
    errors: list[float]
    rejected: int
    steps: int
    result: RESULTS
    state: Float[Array, " dim"]
    slope: Float[Array, " dim"]
    spoilt: Float[Array, " dim"]


def march(
    task: Task, interval: tuple[float, float], y0: Array, dy0: Array, settings: Settings
) -> Marched:
    """Fit windows from t0 on until t1 is reached or a window cannot be solved."""
    dtype, num_points = y0.dtype, settings.num_points
    (t, t1), y, slope = interval, y0, dy0
    span = _first_span(t1 - t, y0, dy0, settings)
    edges, rates, errors, counts = [t], [], [], [0, 0]
    seen, last, result = np.abs(y0), None, RESULTS.successful
    spoilt = np.zeros_like(y0)
    with ctrl_c() as interrupted:
        while t < t1:
            if interrupted():
                result = RESULTS.interrupted
                break
            if len(rates) >= settings.max_windows:
                result = RESULTS.max_steps_reached
                break
            span = min(span, settings.max_window, t1 - t)
            if t1 - t < 1.2 * span:
                span = t1 - t  # no tiny window is left over
            end = t1 if span == t1 - t else float(np.asarray(t + span, dtype))
            if not end - t > _SHORTEST * np.finfo(dtype).eps * max(abs(t), abs(end)):
                result = RESULTS.window_failed
                break
            guesses = _guesses(y, slope, last, end - t, num_points)
            window = _fit(task, (t, end), y, guesses, seen, settings)
            counts[1] += int(window.steps)
            error = float(window.error)
            factor = _CAUTION * error ** (-1 / (num_points + 1)) if error > 0 else _MOST_GROWTH
            if not error <= 1:
                counts[0] += 1
                span = (end - t) * (max(factor, _SHRINKS / 2) if np.isfinite(error) else _SHRINKS)
                continue
            y, slope = np.asarray(window.values[:, -1]), np.asarray(window.rates[:, -1])
            seen = np.maximum(seen, np.max(np.abs(window.values), axis=1))
            spoilt = np.maximum(spoilt, window.spoilt)
            last = np.asarray(window.rates), end - t
            rates.append(last[0])
            errors.append(error)
            edges.append(end)
            span, t = (end - t) * min(max(factor, _SHRINKS), _MOST_GROWTH), end
    return Marched(
        np.asarray(edges, dtype), rates, errors, counts[0], counts[1], result, y, slope, spoilt
    )


def _first_span(whole: float, y0: Array, dy0: Array, settings: Settings) -> float:
    """A span in which components change by a part of themselves."""
    if settings.first_span is not None:
        return settings.first_span
    moves = (y0 != 0) & (dy0 != 0)
    shares = np.abs(y0[moves]) / np.abs(dy0[moves])
    soon = max(float(np.min(_FIRST_CHANGE * shares, initial=np.inf)), _LEAST_SHARE * whole)
    return min(_FIRST_SHARE * whole, soon)


def _guesses(
    y: Array, slope: Array, last: tuple[Array, float] | None, span: float, num_points: int
) -> list[Guess]:
    """The continued last window where that is not far, and a state that stays as it is."""
    points = radau(num_points).points
    flat = Guess(np.tile(y[:, None], num_points), np.tile(slope[:, None], num_points))
    if last is None:
        return [flat]
    rates, before = last
    legendre = np.polynomial.legendre
    terms = np.linalg.solve(legendre.legvander(points, num_points - 1), rates.T)
    kept = terms[:3]  # others grow like powers of the distance
    integrals = legendre.legint(kept, lbnd=1.0)
    s = 1 + (points + 1) * span / before
    continued = Guess(
        (y[:, None] + before / 2 * legendre.legval(s, integrals)).astype(y.dtype),
        legendre.legval(s, kept).astype(y.dtype),
    )
    return [continued, flat]


def _fit(
    task: Task,
    edges: tuple[float, float],
    y: Array,
    guesses: list[Guess],
    seen: Array,
    settings: Settings,
) -> Window:
    """The first fit that succeeds, from one guess after the other."""
    at = np.asarray(edges[0], y.dtype), np.asarray(edges[1], y.dtype)
    steps, most = 0, np.asarray(settings.max_steps, np.int32)
    for guess in guesses:
        found = task.programs.fit(task.equation, settings.tolerance, at, y, guess, seen, most)
        window = Window(*map(np.asarray, found))
        steps += int(window.steps)
        if np.isfinite(window.error):
            break
    return window._replace(steps=np.asarray(steps))  # pyright: ignore


class Corrected(NamedTuple):
    """The solution and its derivative at the points of all windows, and the error that remains."""

    values: Float[Array, "windows nodes dim"]
    rates: Float[Array, "windows points dim"]
    error: Float[Array, "windows more_nodes dim"]
    left_out: Float[Array, "windows dim"]


def correct(task: Task, y0: Array, marched: Marched) -> Corrected:
    """Solve the windows again, one after the other, and carry the error of that through them."""
    y, error = known(y0), np.zeros_like(y0)
    if not marched.rates:  # one window of no span, of which nothing is known
        nothing = np.zeros((1, 2, len(y0)), y0.dtype)
        return Corrected(nothing + y0, nothing[:, 1:], nothing, nothing[:, 0] + np.inf)
    found: list[Refined] = []
    for start, end, rates in zip(marched.edges, marched.edges[1:], marched.rates, strict=False):
        edges = np.asarray(start), np.asarray(end)
        window = task.programs.refine(task.equation, edges, y, rates, error)
        y, last = window.end, window.error[-1]
        # What is left out has the sign of the error, so that it adds up from window to window.
        error = last + np.where(last < 0, -window.left_out, window.left_out)
        found.append(window)
    return Corrected(*(np.stack([getattr(x, name) for x in found]) for name in Corrected._fields))

"""The march that trains a bundle: a layer for each window, as wide as the tolerance allows."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from physml._numerics.devices import ROWS, on_host, placed
from physml.pinn.collocation import Tables, Tolerance
from physml.pinn.family._box import InputField
from physml.pinn.family._layers import Cloud, Fitted, Layer, RandomUnits, fit_layer, random_units
from physml.results import RESULTS

_MOST_TRIED = 12  # spans of a window
# Of a unit over one standard deviation of its inputs. Gentle units are far better for a map as
# smooth as they are: at 0.5 the error of the flow of Lorenz over 0.1 is 30 times that at 0.2.
_SLOPES = (0.2, 0.5, 1.0)


class Task(NamedTuple):
    """What stays the same from window to window."""

    equation: InputField
    tables: Tables
    tolerance: Tolerance
    stops: np.ndarray  # the times that no window crosses; the last one is the end
    draws: np.random.Generator
    units: int
    mesh: Mesh | None  # the devices among which points of the box are divided

    def stop_after(self, t: float) -> float:
        """The next time that no window crosses."""
        return float(self.stops[np.searchsorted(self.stops, t, side="right")])


class Clouds(NamedTuple):
    """Inputs at the start of a window: those that are fitted, and fresh ones to judge by."""

    fitted: Float[np.ndarray, "points inputs"]
    fresh: Float[np.ndarray, "others inputs"]


class Course(NamedTuple):
    """Where the next window starts, and what the last one was like."""

    start: float
    span: float
    slope: float  # of its units
    met: np.ndarray  # the largest size that each component has had


class _Accepted(NamedTuple):
    """What the march keeps of a window that was accepted."""

    layer: Layer
    fitted: Fitted
    span: float
    slope: float  # of its units


class March(NamedTuple):
    """The layers of all windows, and whether the last one ends where it should."""

    layers: list[Layer]
    result: RESULTS
    stats: dict[str, np.ndarray]


def march(
    task: Task,
    clouds: Clouds,
    t0: float,
    first_span: float,
    max_windows: int,
    interrupted: Callable[[], bool],
) -> March:
    """Layer after layer, each as wide as the tolerance allows; and why it stopped."""
    layers, residuals, num_fits, dim = [], [], 0, task.equation.dim
    met = np.abs(clouds.fitted[:, :dim]).max(axis=0)
    edges, course = [t0], Course(t0, first_span, _SLOPES[0], met)
    result = RESULTS.successful
    while edges[-1] < task.stops[-1]:
        if interrupted():
            result = RESULTS.interrupted
            break
        if len(layers) == max_windows:
            result = RESULTS.max_steps_reached
            break
        accepted, tried = _widest(task, clouds, course)
        num_fits += tried
        if accepted is None:
            result = RESULTS.window_failed
            break
        layers.append(accepted.layer)
        residuals.append(float(accepted.fitted.error))
        fitted, fresh = (
            np.concatenate([ends, cloud[:, dim:]], axis=1)
            for ends, cloud in zip(
                (accepted.fitted.ends, accepted.fitted.fresh_ends), clouds, strict=True
            )
        )
        clouds = Clouds(fitted, fresh)
        stop = task.stop_after(course.start)
        whole = accepted.span == stop - course.start
        edges.append(stop if whole else course.start + accepted.span)
        met = np.maximum(course.met, accepted.fitted.size)
        course = Course(edges[-1], accepted.span, accepted.slope, met)
    stats = {
        "edges": np.array(edges),
        "residuals": np.array(residuals),
        "num_windows": np.array(len(layers)),
        "num_rejected": np.array(num_fits - len(layers)),
    }
    return March(layers, result, stats)


def _widest(task: Task, clouds: Clouds, course: Course) -> tuple[_Accepted | None, int]:
    """About the widest window that is accepted, if any is, and the number of those tried."""
    dtype, slope = task.tolerance.rtol.dtype, course.slope
    left = task.stop_after(course.start) - course.start
    resolution = 100 * float(jnp.finfo(dtype).eps)

    def fit(units: RandomUnits, span: float) -> Fitted:
        start, length = (jnp.asarray(x, dtype) for x in (course.start, span))
        fitted, fresh = (
            placed(Cloud(*(jnp.asarray(x, dtype) for x in pair)), task.mesh, ROWS)
            for pair in zip(clouds, (units.basis, units.fresh_basis), strict=True)
        )
        first = task.equation, task.tables, task.tolerance, start, length
        found = fit_layer(*first, fitted, fresh, jnp.asarray(course.met, dtype))
        return jax.tree.map(on_host, found)

    def even(span: float) -> float:
        """About this span, such that what is left is a whole number of windows."""
        return left / float(np.ceil(left / span * (1 - 1e-9)))

    def draw(slope: float) -> RandomUnits:
        return random_units(task.draws, task.units, slope, *clouds, resolution)

    span = even(course.span)
    units = draw(slope)
    if not fit(units, span).error <= 1:
        others = {other: draw(other) for other in _SLOPES if other != slope} | {slope: units}
        slope = min(others, key=lambda slope: float(fit(others[slope], span).error))
        units = others[slope]
    # Only the readout depends on the span.
    best, widest, tried = None, 0.0, set()
    span = course.span
    while even(span) not in tried and len(tried) < _MOST_TRIED:
        span = even(span)
        tried.add(span)
        fitted = fit(units, span)
        error = float(fitted.error)
        if error <= 1 and span > widest:
            best, widest = fitted, span
        if error <= 1 and (span == left or error > 0.1):
            break
        span *= float(np.clip(0.9 * max(error, 1e-9) ** (-1 / 8), 0.3, 2.0))
        if span <= 1.1 * widest:
            break
    if best is None:
        return None, len(tried)
    readout = np.einsum("uk,krd->urd", units.readout, best.coefficients)
    parts = course.start, widest, units.kernel, units.bias, readout
    layer = Layer(*(jnp.asarray(part, dtype) for part in parts))
    return _Accepted(layer, best, widest, slope), len(tried)

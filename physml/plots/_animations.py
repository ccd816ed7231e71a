"""Moving pictures: forecasts that part from the truth, a march of windows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from physml._numerics.calls import checked
from physml._numerics.checks import require_count, require_positive
from physml._types import Numbers
from physml.plots._common import (
    FAINT,
    SATURATED,
    TRUTH,
    Series,
    Trajectory,
    add_legend_above,
    bare_axes,
    check_lambda1,
    check_shape,
    colour_of,
    draw_semilogy,
    label_time,
)

_MOVE, _WINDOW = 50, 150  # milliseconds that a picture stays


@checked
def parting_forecasts(
    ts: Series,
    truth: Trajectory,
    forecasts: Mapping[str, Trajectory],
    *,
    plane: tuple[int, int] = (0, 2),
    names: Sequence[str] = ("x", "y", "z"),
    tail: float = 1.0,
    frames: int = 200,
    lambda1: float | None = None,
    threshold: float = 0.4,
) -> FuncAnimation:
    """The truth and forecasts on their way, and beside them the error of each so far.

    To the left the last stretch of each path moves over the whole truth, in the plane of two
    components. To the right the errors grow, as root mean squares over the components, each in
    units of its standard deviation along the truth.

    Save it as `animation.save("parting.gif", dpi=80)`; in a notebook, `animation.to_jshtml()`.

    Args:
        ts: (time,).
        truth: (time, dim).
        forecasts: each (time, dim).
        plane: the components to the left and up.
        names: of all components.
        tail: how much of each path is shown, in the units of `ts`.
        frames: pictures, evenly over the times; one for each time where there are fewer.
        lambda1: the leading Lyapunov exponent, for an axis in Lyapunov times.
        threshold: the error at which a forecast is said to have failed.

    Raises:
        ValueError: the shapes do not fit, there is not one name for each component, `plane` names
            other components, or the tail or the threshold is not positive.
    """
    require_positive(tail=tail, threshold=threshold)
    check_lambda1(lambda1)
    ts = check_shape("ts", ts, "time")
    require_count(frames=frames)
    truth = check_shape("truth", truth, ts.size, len(names))
    if not all(0 <= i < len(names) for i in plane):
        raise ValueError(f"plane must be two of the {len(names)} components, got {plane}")
    paths = {name: check_shape(name, y, *truth.shape) for name, y in forecasts.items()}
    spread = np.std(truth, axis=0)
    errors = [np.sqrt(np.mean(((y - truth) / spread) ** 2, axis=1)) for y in paths.values()]

    fig = Figure(figsize=(9.0, 4.2), layout="constrained")
    left, right = fig.subplots(1, 2, width_ratios=(1.0, 1.15))
    _hold_the_attractor(left, truth[:, plane], [names[i] for i in plane])
    heads = [_head(left, colour_of(i), name) for i, name in enumerate(("truth", *paths), start=-1)]
    curves = [draw_semilogy(bare_axes(right), ts, e, **_line(i)) for i, e in enumerate(errors)]
    right.axhline(threshold, color=TRUTH, linewidth=1, linestyle=":")
    right.set_ylim(top=min(right.get_ylim()[1], SATURATED))
    right.set_ylabel("error / standard deviation")
    label_time([right], ts, None, lambda1)
    add_legend_above(fig, left)
    trail = int(np.searchsorted(ts, ts[0] + tail))

    def draw(now: int) -> list[Any]:
        part = slice(max(0, now - trail), now + 1)
        for (line, dot), path in zip(heads, (truth, *paths.values()), strict=True):
            x, y = path[part, plane].T
            line.set_data(x, y)
            dot.set_data(x[-1:], y[-1:])
        for curve, error in zip(curves, errors, strict=True):
            curve.set_data(ts[: now + 1], error[: now + 1])
        return [*(artist for head in heads for artist in head), *curves]

    pictures = np.unique(np.linspace(0, ts.size - 1, frames).round().astype(int))
    return _animated(fig, draw, pictures.tolist(), _MOVE)


@checked
def marching_windows(
    ts: Series,
    states: Trajectory,
    edges: Numbers,
    *,
    names: Sequence[str],
    estimate: Trajectory,
    time_unit: str | None = None,
) -> FuncAnimation:
    """A solution by networks as it comes about, one window of time after another.

    Above the components, up to the window that was solved last, which is shaded; below the
    estimated error so far. The marks on the time axis are the edges of the windows.

    Save it as `animation.save("march.gif", dpi=80)`; in a notebook, `animation.to_jshtml()`.

    Args:
        ts: (time,).
        states: (time, dim), the solution.
        edges: (windows + 1,), increasing; `solution.stats["edges"]`.
        names: of the components.
        estimate: (time, dim), the estimated error.

    Raises:
        ValueError: the shapes do not fit, there is not one name for each component, or the edges
            do not increase.
    """
    ts = check_shape("ts", ts, "time")
    states = check_shape("states", states, ts.size, len(names))
    estimate = np.abs(check_shape("estimate", estimate, ts.size, len(names)))
    edges = check_shape("edges", np.asarray(edges, float), "edges")
    if edges.size < 2 or not np.all(np.diff(edges) > 0):
        raise ValueError(f"edges must be two or more, and increase, got {edges}")

    fig = Figure(figsize=(9.0, 4.6), layout="constrained")
    upper, lower = (bare_axes(ax) for ax in fig.subplots(2, 1, sharex=True))
    tops = [upper.plot(ts, states[:, i], label=name, **_line(i))[0] for i, name in enumerate(names)]
    bottoms = [draw_semilogy(lower, ts, estimate[:, i], **_line(i)) for i in range(len(names))]
    for ax, label in ((upper, "state"), (lower, "estimated error")):
        ax.set(ylabel=label, ylim=ax.get_ylim())  # holds what was found for the whole solution
    label_time([lower], ts, time_unit, None)
    add_legend_above(fig, upper)
    window = upper.axvspan(*edges[:2], color=FAINT, alpha=0.5, linewidth=0)
    marks = lower.vlines(
        [], 0, 0.06, color=TRUTH, linewidth=0.7, transform=lower.get_xaxis_transform()
    )

    def draw(now: int) -> list[Any]:
        done = ts <= edges[now + 1]
        for i, (top, bottom) in enumerate(zip(tops, bottoms, strict=True)):
            top.set_data(ts[done], states[done, i])
            bottom.set_data(ts[done], estimate[done, i])
        window.set_bounds(edges[now], 0.0, edges[now + 1] - edges[now], 1.0)
        marks.set_segments([[(edge, 0.0), (edge, 0.06)] for edge in edges[: now + 2]])
        return [*tops, *bottoms, window, marks]

    return _animated(fig, draw, range(edges.size - 1), _WINDOW)


def _animated(
    fig: Figure, draw: Callable[[int], list[Any]], pictures: Sequence[int], interval: int
) -> FuncAnimation:
    """The pictures one after another, the last one for a second and a half."""
    fig.draw_without_rendering()
    fig.set_layout_engine("none")  # found once, and not anew for each picture
    still = [pictures[-1]] * (1500 // interval)
    return FuncAnimation(fig, draw, [*pictures, *still], interval=interval, blit=False)


def _hold_the_attractor(ax: Axes, path: np.ndarray, names: Sequence[str]) -> None:
    """The whole path in grey, in a frame that does not change."""
    bare_axes(ax).plot(*path.T, color=FAINT, linewidth=0.3)
    margin = 0.05 * np.ptp(path, axis=0)
    (x0, y0), (x1, y1) = path.min(axis=0) - margin, path.max(axis=0) + margin
    ax.set(xlim=(x0, x1), ylim=(y0, y1), xlabel=names[0], ylabel=names[1])


def _head(ax: Axes, colour: str, name: str) -> tuple[Any, Any]:
    """A line for the last stretch of a path, and a dot where it is."""
    width = 3.2 if colour == TRUTH else 1.6  # to be seen under the forecasts that follow it
    (line,) = ax.plot([], [], color=colour, linewidth=width, label=name)
    (dot,) = ax.plot([], [], color=colour, marker="o", markersize=4 + width, linestyle="none")
    return line, dot


def _line(i: int) -> dict[str, Any]:
    return {"color": colour_of(i), "linewidth": 1.4}

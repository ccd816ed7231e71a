"""Figures of trajectories: truth, forecasts, solutions and their errors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from physml._numerics.calls import checked
from physml._numerics.checks import require_positive
from physml.plots._common import (
    FAINT,
    SATURATED,
    TRUTH,
    Series,
    Trajectory,
    add_legend,
    axis_label,
    bare_axes,
    check_lambda1,
    check_shape,
    colour_of,
    draw_semilogy,
    label_time,
    line_style,
    make_panels,
)


@checked
def attractor_3d(
    truth: Trajectory,
    forecasts: Mapping[str, Trajectory],
    *,
    names: Sequence[str] = ("x", "y", "z"),
    truth_name: str = "truth",
) -> Figure:
    """Trajectories in three dimensions, a panel each: the truth, then every forecast over it.

    Args:
        truth: (time, 3), in the system's own units.
        forecasts: each (time, 3), of any length: a forecast may leave the attractor early.

    Raises:
        ValueError: if an array is not (time, 3).
    """
    paths = {truth_name: truth, **forecasts}
    panels = {name: check_shape(name, path, "time", 3) for name, path in paths.items()}
    truth = panels[truth_name]
    fig = Figure(figsize=(4.0 * len(panels) + 0.4, 3.8))
    right = 1 - 0.4 / fig.get_figwidth()  # room for the label of the last panel's z
    fig.subplots_adjust(left=0.0, right=right, bottom=0.05, top=0.98, wspace=0.04)
    margin = 0.05 * np.ptp(truth, axis=0)
    lows, highs = truth.min(axis=0) - margin, truth.max(axis=0) + margin
    for i, (name, path) in enumerate(panels.items()):
        ax: Any = fig.add_subplot(1, len(panels), i + 1, projection="3d")
        title = name
        if i > 0:
            ax.plot(*truth.T, color=FAINT, linewidth=0.5, label=truth_name)
            title = f"{name} (grey: {truth_name})"
        # A forecast that has left the frame would be drawn across its neighbours.
        inside = np.all((path >= lows) & (path <= highs), axis=1, keepdims=True)
        shown = np.where(inside, path, np.nan)
        ax.plot(*shown.T, color=colour_of(i - 1), linewidth=0.7, label=name)
        ax.set(xlabel=names[0], ylabel=names[1], zlabel=names[2])
        ax.set(xlim=(lows[0], highs[0]), ylim=(lows[1], highs[1]), zlim=(lows[2], highs[2]))
        ax.set_title(title, y=1.0, fontsize=11)
        ax.view_init(elev=18, azim=-55)
        ax.set_box_aspect((1, 1, 0.9), zoom=0.98)
        for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
            axis.set_pane_color((1.0, 1.0, 1.0, 0.0))
            axis.set_major_locator(MaxNLocator(4))
    return fig


@checked
def forecast_series(
    ts: Series,
    truth: Series,
    forecasts: Mapping[str, Series],
    *,
    divergence: Mapping[str, float] | None = None,
    name: str = "x",
    unit: str | None = None,
    time_unit: str | None = None,
    lambda1: float | None = None,
) -> Figure:
    """One coordinate in time, a panel for each forecast, with the time at which it fails.

    Args:
        ts: (time,) times of every series.
        truth: (time,).
        forecasts: each (time,).
        divergence: for each name the valid prediction time, in the units of `ts`. A time at or
            past the end of `ts` is not marked.

    Raises:
        ValueError: if a series does not have the length of `ts`.
    """
    check_lambda1(lambda1)
    ts = check_shape("ts", ts, "time")
    truth = check_shape("truth", truth, ts.size)
    fig, axes = make_panels(len(forecasts), height=2.0)
    low, high = truth.min(), truth.max()
    pad = 0.18 * (high - low)
    for i, (label, values) in enumerate(forecasts.items()):
        ax, forecast = axes[i], check_shape(label, values, ts.size)
        ax.plot(ts, truth, color=TRUTH, linewidth=1.1, label="truth")
        ax.plot(ts, forecast, color=colour_of(i), linewidth=1.1, linestyle="--", label=label)
        ax.set(ylabel=axis_label(name, unit), ylim=(low - pad, high + pad))
        moment = (divergence or {}).get(label)
        if moment is not None and moment < ts[-1]:
            words = f"diverges at t = {moment:.1f}"
            if lambda1 is not None:
                words = f"diverges after {moment * lambda1:.1f}\nLyapunov times"
            ax.axvline(moment, color=colour_of(i), linewidth=1.4, label=words)
            ax.axvspan(moment, ts[-1], color=colour_of(i), alpha=0.07, linewidth=0)
        add_legend(ax)
    label_time(axes, ts, time_unit, lambda1)
    return fig


@checked
def error_growth(
    ts: Series,
    errors: Mapping[str, Series],
    *,
    lambda1: float | None = None,
    threshold: float | None = 0.4,
    time_unit: str | None = None,
) -> Figure:
    """The forecast error in time on a log scale, beside the slope exp(lambda1 t) of chaos.

    A small error grows like this slope on average. The slope starts at the smallest first error.

    Args:
        ts: (time,).
        errors: each (time,), in standard deviations of the attractor.
        threshold: where a forecast is said to have failed.

    Raises:
        ValueError: if a series does not have the length of `ts`.
    """
    if threshold is not None:
        require_positive(threshold=threshold)
    check_lambda1(lambda1)
    ts = check_shape("ts", ts, "time")
    fig, axes = make_panels(1, height=4.4)
    ax = axes[0]
    curves = {name: np.abs(check_shape(name, values, ts.size)) for name, values in errors.items()}
    for i, (name, error) in enumerate(curves.items()):
        draw_semilogy(ax, ts, error, linewidth=1.4, label=name, **line_style(i))
    if threshold is not None:
        ax.axhline(threshold, color=TRUTH, linewidth=1, linestyle=":", label=f"error {threshold}")
    starts = [error[error > 0][0] for error in curves.values() if np.any(error > 0)]
    if lambda1 is not None and starts:
        slope = min(starts) * np.exp(lambda1 * (ts - ts[0]))
        below = slope <= SATURATED
        label = r"$\propto \exp(\lambda_1 t)$"
        ax.plot(ts[below], slope[below], color=FAINT, linestyle="--", label=label)
    # Above a few standard deviations the size of an error means nothing, so the axis ends there.
    ax.set_ylim(top=min(ax.get_ylim()[1], SATURATED))
    ax.set_ylabel("error / standard deviation")
    add_legend(ax)
    label_time(axes, ts, time_unit, lambda1)
    return fig


@checked
def solution_error(
    ts: Series,
    truth: Trajectory,
    solution: Trajectory,
    *,
    names: Sequence[str],
    label: str = "PINN",
    estimate: Trajectory | None = None,
    time_unit: str | None = None,
    lambda1: float | None = None,
) -> Figure:
    """A solution over the truth, and below it the error of every component on a log scale.

    Args:
        ts: (time,).
        truth: (time, dim).
        solution: (time, dim).
        names: the names of the components, which also label the curves.
        estimate: (time, dim), the solution's own estimate of its error, drawn dotted.

    Raises:
        ValueError: if the shapes differ or there is not one name for each component.
    """
    check_lambda1(lambda1)
    ts = check_shape("ts", ts, "time")
    shape = ts.size, len(names)
    truth = check_shape("truth", truth, *shape)
    solution = check_shape("solution", solution, *shape)
    guess = None if estimate is None else check_shape("estimate", estimate, *shape)
    fig, axes = make_panels(2, height=2.6)
    for i, name in enumerate(names):
        axes[0].plot(ts, truth[:, i], color=FAINT, linewidth=3.0, label=None if i else "truth")
        axes[0].plot(
            ts, solution[:, i], color=colour_of(i), linewidth=1.0, label=f"{name}, {label}"
        )
        error = np.abs(solution[:, i] - truth[:, i])
        draw_semilogy(axes[1], ts, error, color=colour_of(i), linewidth=1.0, label=f"{name}, error")
        if guess is not None:
            style = dict(color=colour_of(i), linewidth=1.2, linestyle=":")
            draw_semilogy(axes[1], ts, np.abs(guess[:, i]), label=f"{name}, estimated", **style)
    axes[0].set_ylabel("state")
    axes[1].set_ylabel("absolute error")
    for ax in axes:
        add_legend(ax)
    label_time(axes, ts, time_unit, lambda1)
    return fig


@checked
def compare_solutions(
    ts: Series,
    truth: Series,
    solutions: Mapping[str, Series],
    *,
    name: str = "x",
    unit: str | None = None,
    truth_name: str = "exact",
    time_unit: str | None = None,
) -> Figure:
    """One coordinate by several methods over the truth, and the error of each on a log scale.

    Args:
        ts: (time,).
        truth: (time,), for instance the closed form.
        solutions: each (time,).

    Raises:
        ValueError: if a series does not have the length of `ts`.
    """
    ts = check_shape("ts", ts, "time")
    truth = check_shape("truth", truth, ts.size)
    fig, axes = make_panels(2, height=2.6)
    axes[0].plot(ts, truth, color=FAINT, linewidth=4.0, label=truth_name)
    for i, (label, values) in enumerate(solutions.items()):
        solution = check_shape(label, values, ts.size)
        axes[0].plot(ts, solution, label=label, **line_style(i))
        draw_semilogy(
            axes[1], ts, np.abs(solution - truth), color=colour_of(i), lw=1.0, label=label
        )
    axes[0].set_ylabel(axis_label(name, unit))
    axes[1].set_ylabel(axis_label(f"error of {name}", unit))
    add_legend(axes[0])  # the colours hold for both panels
    label_time(axes, ts, time_unit, None)
    return fig


@checked
def phase_portrait(
    trajectories: Mapping[str, Trajectory],
    *,
    truth: Trajectory | None = None,
    names: Sequence[str] = ("x", "v"),
    units: Sequence[str] | None = None,
) -> Figure:
    """Trajectories in the plane of two coordinates, each with a dot where it starts.

    Args:
        trajectories: each (time, 2).
        truth: (time, 2), drawn wide and grey below the others.

    Raises:
        ValueError: if an array is not (time, 2).
    """
    fig = Figure(figsize=(6.4, 4.6), layout="constrained")
    ax = bare_axes(fig.add_subplot())
    if truth is not None:
        path = check_shape("truth", truth, "time", 2)
        ax.plot(*path.T, color=FAINT, linewidth=4.0, label="truth")
    for i, (label, values) in enumerate(trajectories.items()):
        path = check_shape(label, values, "time", 2)
        ax.plot(*path.T, linewidth=1.4, label=label, **line_style(i))
        ax.plot(*path[0], color=colour_of(i), marker="o", markersize=5)
    first, second = units or (None, None)
    ax.set(xlabel=axis_label(names[0], first), ylabel=axis_label(names[1], second))
    add_legend(ax)
    return fig


@checked
def partial_sums(
    ts: Series,
    forcing: Series,
    sums: Mapping[str, Series],
    *,
    name: str = "F",
    unit: str | None = None,
    time_unit: str | None = None,
) -> Figure:
    """A periodic force and the partial sums of its Fourier series.

    Args:
        ts: (time,).
        forcing: (time,).
        sums: each (time,), from few terms to many.

    Raises:
        ValueError: if a series does not have the length of `ts`.
    """
    ts = check_shape("ts", ts, "time")
    forcing = check_shape("forcing", forcing, ts.size)
    fig, axes = make_panels(1, height=3.6)
    axes[0].plot(ts, forcing, color=TRUTH, linewidth=1.6, label="force")
    for i, (label, values) in enumerate(sums.items()):
        values = check_shape(label, values, ts.size)
        axes[0].plot(ts, values, color=colour_of(i), linewidth=1.1, label=label)
    axes[0].set_ylabel(axis_label(name, unit))
    add_legend(axes[0])
    label_time(axes, ts, time_unit, None)
    return fig

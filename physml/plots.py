"""Figures of a run: arrays in, a Matplotlib `Figure` out, with no pyplot state.

Colours are Okabe and Ito's, which colour-blind readers tell apart; truth is black, and the
names given keep their order and colour from figure to figure. With `lambda1`, the leading Lyapunov
exponent in inverse time units, a second axis counts Lyapunov times, t * lambda1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from physml.dynamics import Climate

Series = Float[Array | np.ndarray, " _time"]
Trajectory = Float[Array | np.ndarray, "_time _dim"]

_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_TRUTH = "#000000"
_FAINT = "#B0B0B0"
_SATURATED = 10.0  # standard deviations; two unrelated states are about 1.4 apart
_LOSS_STYLES: dict[str, dict[str, Any]] = {  # what a batch makes noisy stays in the background
    "train": {"linewidth": 0.8, "alpha": 0.6},
    "valid": {"linewidth": 2.0, "linestyle": "--"},
}
_DASHES = ("-", "--", "-.", ":")  # for lines that may lie on each other


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
        forecasts: each (time, 3); its own length, as a forecast may leave the attractor early.

    Raises:
        ValueError: if an array is not (time, 3).
    """
    truth = np.asarray(truth)
    panels = {truth_name: truth} | {name: np.asarray(path) for name, path in forecasts.items()}
    for name, path in panels.items():
        if path.ndim != 2 or path.shape[1] != 3:
            raise ValueError(f"{name}: expected an array of shape (time, 3), got {path.shape}")

    fig = Figure(figsize=(4.0 * len(panels), 3.8))
    fig.subplots_adjust(left=0.0, right=0.98, bottom=0.05, top=0.98, wspace=0.04)
    margin = 0.05 * np.ptp(truth, axis=0)
    lows, highs = truth.min(axis=0) - margin, truth.max(axis=0) + margin
    for i, (name, path) in enumerate(panels.items()):
        ax: Any = fig.add_subplot(1, len(panels), i + 1, projection="3d")
        title = name
        if i > 0:
            ax.plot(*truth.T, color=_FAINT, linewidth=0.5, label=truth_name)
            title = f"{name} (grey: {truth_name})"
        # A forecast that has left the frame would be drawn across its neighbours.
        inside = np.all((path >= lows) & (path <= highs), axis=1, keepdims=True)
        shown = np.where(inside, path, np.nan)
        ax.plot(*shown.T, color=_colour(i - 1), linewidth=0.7, label=name)
        ax.set(xlabel=names[0], ylabel=names[1], zlabel=names[2])
        ax.set(xlim=(lows[0], highs[0]), ylim=(lows[1], highs[1]), zlim=(lows[2], highs[2]))
        ax.set_title(title, y=1.0, fontsize=11)
        ax.view_init(elev=18, azim=-55)
        ax.set_box_aspect((1, 1, 0.9), zoom=0.98)
        for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
            axis.set_pane_color((1.0, 1.0, 1.0, 0.0))
            axis.set_major_locator(MaxNLocator(4))
    return fig


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
    """One coordinate in time, a panel a forecast, with the moment that it leaves the truth.

    Args:
        ts: (time,) times of every series.
        truth: (time,).
        forecasts: each (time,).
        divergence: for each name the time of divergence, in the units of `ts`: the valid
            prediction time. A time at or past the end of `ts` marks nothing.

    Raises:
        ValueError: if a series has not the length of `ts`.
    """
    ts = np.asarray(ts)
    truth = _series("truth", truth, ts)
    fig, axes = _panels(len(forecasts), height=2.0)
    low, high = truth.min(), truth.max()
    pad = 0.18 * (high - low)
    for i, (label, values) in enumerate(forecasts.items()):
        ax, forecast = axes[i], _series(label, values, ts)
        ax.plot(ts, truth, color=_TRUTH, linewidth=1.1, label="truth")
        ax.plot(ts, forecast, color=_colour(i), linewidth=1.1, linestyle="--", label=label)
        ax.set(ylabel=_labelled(name, unit), ylim=(low - pad, high + pad))
        moment = (divergence or {}).get(label)
        if moment is not None and moment < ts[-1]:
            time = f"t = {moment:.1f}" if lambda1 is None else f"{moment * lambda1:.1f} LT"
            ax.axvline(moment, color=_colour(i), linewidth=1.4, label=f"diverges at {time}")
            ax.axvspan(moment, ts[-1], color=_colour(i), alpha=0.07, linewidth=0)
        _legend(ax)
    _time_axis(axes, ts, time_unit, lambda1)
    return fig


def error_growth(
    ts: Series,
    errors: Mapping[str, Series],
    *,
    lambda1: float | None = None,
    threshold: float | None = 0.4,
    time_unit: str | None = None,
) -> Figure:
    """The forecast error in time on a log scale, beside the slope exp(lambda1 t) of chaos.

    The slope starts at the smallest first error: the pace at which, on average, an error grows.

    Args:
        ts: (time,).
        errors: each (time,), in standard deviations of the attractor.
        threshold: where a forecast is said to have failed.

    Raises:
        ValueError: if a series has not the length of `ts`.
    """
    ts = np.asarray(ts)
    fig, axes = _panels(1, height=4.4)
    ax = axes[0]
    curves = {name: np.abs(_series(name, values, ts)) for name, values in errors.items()}
    for i, (name, error) in enumerate(curves.items()):
        _semilogy(ax, ts, error, color=_colour(i), linewidth=1.4, label=name)
    if threshold is not None:
        ax.axhline(threshold, color=_TRUTH, linewidth=1, linestyle=":", label=f"error {threshold}")
    starts = [error[error > 0][0] for error in curves.values() if np.any(error > 0)]
    if lambda1 is not None and starts:
        slope = min(starts) * np.exp(lambda1 * (ts - ts[0]))
        below = slope <= _SATURATED
        label = r"$\propto \exp(\lambda_1 t)$"
        ax.plot(ts[below], slope[below], color=_FAINT, linestyle="--", label=label)
    # Past a few standard deviations the size of an error says nothing; a blow-up keeps the scale.
    ax.set_ylim(top=min(ax.get_ylim()[1], _SATURATED))
    ax.set_ylabel("error / standard deviation")
    _legend(ax)
    _time_axis(axes, ts, time_unit, lambda1)
    return fig


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
        names: the names of the components, which are also the labels.
        estimate: (time, dim), the solution's own estimate of its error, drawn dotted.

    Raises:
        ValueError: if the shapes differ or there is not one name for each component.
    """
    ts = np.asarray(ts)
    truth, solution = _paths("truth", truth, ts, names), _paths("solution", solution, ts, names)
    guess = None if estimate is None else _paths("estimate", estimate, ts, names)
    fig, axes = _panels(2, height=2.6)
    for i, name in enumerate(names):
        axes[0].plot(ts, truth[:, i], color=_FAINT, linewidth=3.0, label=None if i else "truth")
        axes[0].plot(ts, solution[:, i], color=_colour(i), linewidth=1.0, label=f"{name}, {label}")
        error = np.abs(solution[:, i] - truth[:, i])
        _semilogy(axes[1], ts, error, color=_colour(i), linewidth=1.0, label=f"{name}, error")
        if guess is not None:
            style = dict(color=_colour(i), linewidth=1.2, linestyle=":")
            _semilogy(axes[1], ts, np.abs(guess[:, i]), label=f"{name}, estimated", **style)
    axes[0].set_ylabel("state")
    axes[1].set_ylabel("absolute error")
    for ax in axes:
        _legend(ax)
    _time_axis(axes, ts, time_unit, lambda1)
    return fig


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
        ValueError: if a series has not the length of `ts`.
    """
    ts = np.asarray(ts)
    truth = _series("truth", truth, ts)
    fig, axes = _panels(2, height=2.6)
    axes[0].plot(ts, truth, color=_FAINT, linewidth=4.0, label=truth_name)
    for i, (label, values) in enumerate(solutions.items()):
        solution = _series(label, values, ts)
        axes[0].plot(ts, solution, color=_colour(i), linestyle=_DASHES[i % 4], label=label)
        _semilogy(axes[1], ts, np.abs(solution - truth), color=_colour(i), lw=1.0, label=label)
    axes[0].set_ylabel(_labelled(name, unit))
    axes[1].set_ylabel(_labelled(f"error of {name}", unit))
    _legend(axes[0])  # the colours hold for both panels
    _time_axis(axes, ts, time_unit, None)
    return fig


def loss_curves(
    histories: Mapping[str, Mapping[str, Any]], *, xlabel: str = "step", ylabel: str = "loss"
) -> Figure:
    """Losses against the step on a log scale: training solid, validation dashed.

    Args:
        histories: for each model what `fit.gradient` recorded: "loss" (n,) and, if they are there,
            its "step" (n,), otherwise 1..n, and "valid_loss" (m,) with its "valid_step" (m,).

    Raises:
        ValueError: if a model has no "loss", or a curve has not one value for each of its steps.
    """
    fig, axes = _panels(1, height=4.0)
    ax = axes[0]
    for i, (model, history) in enumerate(histories.items()):
        loss = np.asarray(history.get("loss", ()))
        steps = np.asarray(history.get("step", np.arange(1, loss.size + 1)))
        curves = {"train": (steps, loss)}
        if "valid_loss" in history:
            curves["valid"] = np.asarray(history["valid_step"]), np.asarray(history["valid_loss"])
        for name, (at, curve) in curves.items():
            if curve.ndim != 1 or curve.size == 0 or at.shape != curve.shape:
                raise ValueError(
                    f"histories: the {name} curve of {model!r} must have one value a step, "
                    f"got {curve.shape} for {at.shape}"
                )
            style = _LOSS_STYLES[name]
            _semilogy(ax, at, curve, color=_colour(i), label=f"{model}, {name}", **style)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.margins(x=0.01)
    _legend(ax)
    return fig


def heat_map(
    values: Float[Array | np.ndarray, "_rows _columns"],
    rows: Sequence[Any],
    columns: Sequence[Any],
    *,
    row_name: str,
    column_name: str,
    name: str,
    title: str | None = None,
) -> Figure:
    """A table of positive numbers as colours on a log scale, with the numbers in the cells.

    A cell that is not finite, where a fit has diverged, is hatched and says so.

    Args:
        values: (rows, columns); the first row is drawn at the bottom.
        rows, columns: what the rows and columns stand for, numbers or words.
        row_name, column_name: the labels of the axes.
        name: what the values are; the label of the colours.

    Raises:
        ValueError: if the shape is not that of the rows and columns, or a finite value is not
            positive.
    """
    values = np.asarray(values, float)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(
            f"values: expected the shape {(len(rows), len(columns))}, got {values.shape}"
        )
    finite = np.isfinite(values)
    if np.any(values[finite] <= 0):
        raise ValueError(f"values: expected positive numbers, got {values[finite].min()}")
    fig = Figure(figsize=(2.4 + 0.8 * len(columns), 1.5 + 0.55 * len(rows)), layout="constrained")
    ax = fig.add_subplot()
    shown = np.ma.masked_where(~finite, values)
    ends = (values[finite].min(), values[finite].max()) if finite.any() else (1.0, 10.0)
    norm = LogNorm(*ends)
    image = ax.imshow(shown, cmap="cividis", norm=norm, origin="lower", aspect="auto")
    ax.set_facecolor("#F0F0F0")
    for (i, j), value in np.ndenumerate(values):
        if not finite[i, j]:
            cell = Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch="///", edgecolor=_FAINT)
            ax.add_patch(cell)
        red, green, blue, _ = image.to_rgba(value) if finite[i, j] else (1.0, 1.0, 1.0, 1.0)
        bright = 0.3 * red + 0.6 * green + 0.1 * blue > 0.5
        text = f"{value:.1e}" if value < 0.1 or value >= 1000 else f"{value:.3g}"
        ax.text(
            j, i, text if finite[i, j] else "diverged",
            ha="center", va="center", fontsize=8, color="black" if bright else "white",
        )  # fmt: skip
    ax.set_xticks(range(len(columns)), [_tick(value) for value in columns])
    ax.set_yticks(range(len(rows)), [_tick(value) for value in rows])
    ax.set(xlabel=column_name, ylabel=row_name, title=title or "")
    ax.tick_params(length=0)
    fig.colorbar(image, label=name)
    return fig


def bands(
    curves: Mapping[str, tuple[Any, Any]],
    *,
    xlabel: str,
    ylabel: str,
    share: float = 0.8,
    title: str | None = None,
) -> Figure:
    """Repeated curves on a log scale: the median a line, the middle share of them a band.

    Args:
        curves: by name, the abscissae (n,) and the values (n, repeats), for instance the
            validation losses of several seeds; NaN where a repeat has ended.
        share: how much of the repeats the band holds.

    Raises:
        ValueError: if values have not one row for each abscissa.
    """
    fig, (ax,) = _panels(1, height=4.0)
    for i, (name, (x, values)) in enumerate(curves.items()):
        x, values = np.asarray(x), np.asarray(values, float)
        if values.ndim != 2 or x.shape != values.shape[:1]:
            raise ValueError(
                f"curves: {name!r} must have a row of values for each abscissa, got "
                f"{values.shape} for {x.shape}"
            )
        there = np.isfinite(values).any(axis=1)
        low, middle, high = np.nanquantile(
            values[there], (0.5 - share / 2, 0.5, 0.5 + share / 2), axis=1
        )
        style = dict(color=_colour(i), linestyle=_DASHES[i // len(_PALETTE) % len(_DASHES)])
        _semilogy(ax, x[there], middle, label=name, linewidth=1.6, **style)
        ax.fill_between(x[there], low, high, color=_colour(i), alpha=0.15, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title or "")
    ax.margins(x=0.01)
    _legend(ax)
    return fig


def parameter_scan(
    parameters: Series,
    values: Mapping[str, Any],
    *,
    xlabel: str,
    ylabel: str,
) -> Figure:
    """A figure of merit against a parameter, each repeat a dot and the median a line.

    The first, usually the truth, has rings, so that dots upon them can be told apart.

    Args:
        parameters: (n,).
        values: each (n, repeats).

    Raises:
        ValueError: if values have not one row for each parameter.
    """
    x = np.asarray(parameters)
    fig, (ax,) = _panels(1, height=4.0)
    for i, (name, repeats) in enumerate(values.items()):
        repeats = np.asarray(repeats)
        if repeats.ndim != 2 or x.shape != repeats.shape[:1]:
            raise ValueError(
                f"{name}: expected a row of values for each parameter, got {repeats.shape} "
                f"for {x.shape}"
            )
        colour = _colour(i - 1)
        ax.plot(
            np.repeat(x, repeats.shape[1]),
            repeats.ravel(),
            linestyle="none",
            marker="o",
            markersize=7 if i == 0 else 3.5,
            markerfacecolor="none" if i == 0 else colour,
            markeredgecolor=colour,
            markeredgewidth=0.8 if i == 0 else 0,
        )
        width = 2.4 if i == 0 else 1.2
        middle = np.median(repeats, axis=1)
        ax.plot(x, middle, color=colour, linewidth=width, linestyle=_DASHES[i % 4], label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    _legend(ax)
    return fig


def phase_portrait(
    trajectories: Mapping[str, Trajectory],
    *,
    names: Sequence[str] = ("x", "v"),
    units: Sequence[str] | None = None,
) -> Figure:
    """Trajectories in the plane of two coordinates, each with a dot where it starts.

    Args:
        trajectories: each (time, 2).

    Raises:
        ValueError: if an array is not (time, 2).
    """
    fig = Figure(figsize=(6.4, 4.6), layout="constrained")
    ax = _bare(fig.add_subplot())
    for i, (label, values) in enumerate(trajectories.items()):
        path = np.asarray(values)
        if path.ndim != 2 or path.shape[1] != 2:
            raise ValueError(f"{label}: expected an array of shape (time, 2), got {path.shape}")
        ax.plot(*path.T, color=_colour(i), linestyle=_DASHES[i % 4], linewidth=1.4, label=label)
        ax.plot(*path[0], color=_colour(i), marker="o", markersize=5)
    first, second = units or (None, None)
    ax.set(xlabel=_labelled(names[0], first), ylabel=_labelled(names[1], second))
    _legend(ax)
    return fig


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
        ValueError: if a series has not the length of `ts`.
    """
    ts = np.asarray(ts)
    forcing = _series("forcing", forcing, ts)
    fig, axes = _panels(1, height=3.6)
    axes[0].plot(ts, forcing, color=_TRUTH, linewidth=1.6, label="force")
    for i, (label, values) in enumerate(sums.items()):
        axes[0].plot(ts, _series(label, values, ts), color=_colour(i), linewidth=1.1, label=label)
    axes[0].set_ylabel(_labelled(name, unit))
    _legend(axes[0])
    _time_axis(axes, ts, time_unit, None)
    return fig


def climate(
    truth: Climate, climates: Mapping[str, Climate], *, names: Sequence[str] = ("x", "y", "z")
) -> Figure:
    """Long-time statistics beside the truth's: histograms, power spectra and the return map.

    A column for each component, densities above and spectra below, and a last one with the map
    from each maximum to the next, the truth's above and everyone's differences from it below.
    Trajectories that diverged are left out, with a word in the legend.

    Args:
        truth: `dynamics.measure_climate` of the truth.
        climates: the same of others, with the same bounds and segment.
        names: of the components.

    Raises:
        ValueError: if there is not one name for each component.
    """
    dim = truth.edges.shape[0]
    if len(names) != dim:
        raise ValueError(f"names must have {dim} entries, got {tuple(names)}")
    fig = Figure(figsize=(3.3 * (dim + 1), 6.6), layout="constrained")
    panels = fig.subplots(2, dim + 1)
    for ax in panels.flat:
        _bare(ax)
    exact = truth.survivors
    shown = np.flatnonzero(_mean_spectrum(exact).max(axis=0) > 1e-11)[-1]
    for i, (label, whole) in enumerate({"truth": truth, **climates}.items()):
        found = whole.survivors
        if not len(found):
            continue
        lost = int(whole.diverged.sum())
        style: dict[str, Any] = {
            "color": _TRUTH if i == 0 else _colour(i - 1),
            "linewidth": 2.6 if i == 0 else 1.2,
            "linestyle": "-" if i == 0 else _DASHES[i % 4],
            "label": label if lost == 0 else f"{label} ({lost} of {len(whole)} diverged)",
        }
        spectra = _mean_spectrum(found)
        counts = found.counts.sum(axis=0)
        for d in range(dim):
            width = np.diff(truth.edges[d])
            density = counts[d, 1:-1] / counts[d].sum() / width
            panels[0, d].plot(truth.edges[d, :-1] + width / 2, density, **style)
            _semilogy(panels[1, d], truth.frequencies[1:shown], spectra[d, 1:shown], **style)
        pairs = found.return_map[: 4000 if i == 0 else 1500]
        dots = dict(color=style["color"], linestyle="none", marker="o", markeredgewidth=0)
        panels[0, dim].plot(*pairs.T, **dots, markersize=4 if i == 0 else 1.6)
        if i > 0:
            curve = exact.return_map[np.argsort(exact.return_map[:, 0])]
            off = np.abs(pairs[:, 1] - np.interp(pairs[:, 0], *curve.T))
            _semilogy(panels[1, dim], pairs[:, 0], off, **dots, markersize=2.5)
    for d, name in enumerate(names):
        panels[0, d].set(
            xlabel=name, ylabel="probability density" if d == 0 else "", ylim=(0, None)
        )
        panels[1, d].set(
            xlabel=f"frequency of {name}", ylabel="power spectral density" if d == 0 else ""
        )
    panels[0, dim].set(xlabel="maximum", ylabel="next maximum")
    panels[1, dim].set(xlabel="maximum", ylabel="distance from the truth's map")
    fig.legend(
        *panels[0, 0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=6,
        frameon=False,
    )
    return fig


def _mean_spectrum(climate: Climate) -> np.ndarray:
    """Of all trajectories, each component's as a share of its power."""
    spectra = climate.spectra.mean(axis=0)
    return spectra / (spectra.sum(axis=-1, keepdims=True) * climate.frequencies[1])


def _colour(i: int) -> str:
    return _TRUTH if i < 0 else _PALETTE[i % len(_PALETTE)]


def _tick(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def _series(name: str, values: Any, ts: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    if ts.ndim != 1 or values.shape != ts.shape:
        raise ValueError(f"{name}: expected the shape of ts, {ts.shape}, got {values.shape}")
    return values


def _paths(name: str, values: Any, ts: np.ndarray, names: Sequence[str]) -> np.ndarray:
    values, expected = np.asarray(values), (*ts.shape, len(names))
    if values.shape != expected:
        raise ValueError(f"{name}: expected the shape {expected}, got {values.shape}")
    return values


def _labelled(name: str, unit: str | None) -> str:
    return name if unit is None else f"{name} [{unit}]"


def _panels(count: int, *, height: float) -> tuple[Figure, list[Axes]]:
    """A column of panels over one time axis, with room to the right for the legends."""
    fig = Figure(figsize=(9.0, height * count + 0.8), layout="constrained")
    axes = fig.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    return fig, [_bare(ax) for ax in axes]


def _bare(ax: Axes) -> Axes:
    ax.grid(color="#E4E4E4", linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def _legend(ax: Axes) -> None:
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, frameon=False)


def _time_axis(
    axes: Sequence[Axes], ts: np.ndarray, unit: str | None, lambda1: float | None
) -> None:
    axes[-1].set_xlabel(_labelled("t", unit))
    axes[-1].set_xlim(ts[0], ts[-1])
    if lambda1 is not None:
        to_lyapunov = (lambda t: t * lambda1, lambda n: n / lambda1)
        top = axes[0].secondary_xaxis("top", functions=to_lyapunov, zorder=3)
        top.set_xlabel("Lyapunov times")


def _semilogy(ax: Axes, x: np.ndarray, y: np.ndarray, **style: Any) -> None:
    ax.plot(x, y, **style)
    if np.any(y > 0):  # a method may be exact; zeros leave gaps, not spikes
        ax.set_yscale("log", nonpositive="mask")

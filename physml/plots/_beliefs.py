"""Figures of beliefs: marginal distributions, predictions with bands."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from physml._numerics.calls import checked
from physml.plots._common import (
    PALETTE,
    TRUTH,
    Series,
    add_legend,
    add_legend_above,
    bare_axes,
    check_shape,
    colour_of,
    label_time,
    make_panels,
)

_COLUMNS = 4


@checked
def marginals(
    names: Sequence[str], draws: Mapping[str, Float[Array | np.ndarray, "_draws _unknowns"]]
) -> Figure:
    """The distribution of each unknown by several methods, as outlines of histograms.

    Args:
        names: of the unknowns.
        draws: by the method's name, a column for each unknown.

    Raises:
        ValueError: draws do not have a column for each name.
    """
    rows = -(-len(names) // _COLUMNS)
    fig = Figure(figsize=(3.0 * _COLUMNS, 2.6 * rows + 0.4), layout="constrained")
    axes = [bare_axes(ax) for ax in np.ravel(fig.subplots(rows, _COLUMNS, squeeze=False))]
    arrays = {name: check_shape(name, x, "draws", len(names)) for name, x in draws.items()}
    for i, (ax, name) in enumerate(zip(axes, names, strict=False)):
        ends = [np.quantile(x[:, i], (0.001, 0.999)) for x in arrays.values()]
        bins = np.linspace(min(low for low, _ in ends), max(high for _, high in ends), 50)
        for j, (method, x) in enumerate(arrays.items()):
            ax.hist(
                x[:, i], bins, density=True, histtype="step", color=colour_of(j), label=method,
                linewidth=1.4,
            )  # fmt: skip
        ax.set_xlabel(name)
        ax.set_yticks([])
        ax.locator_params(axis="x", nbins=4)
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    add_legend_above(fig, axes[0])
    return fig


@checked
def predictive(
    ts: Series,
    data: Mapping[str, Series],
    times: Series,
    draws: Mapping[str, Float[Array | np.ndarray, "_draws _times"]],
    *,
    time_unit: str | None = None,
) -> Figure:
    """Observations, and the median and central bands of 50 % and 95 % of what is predicted.

    Args:
        ts: the times of the observations, (n,).
        data: by the component's name, (n,).
        times: finer times, (m,).
        draws: by name, a row for each draw, (draws, m).

    Raises:
        ValueError: an array does not have the shape of its times.
    """
    ts, times = check_shape("ts", ts, "n"), check_shape("times", times, "m")
    fig, axes = make_panels(len(data), height=2.4)
    for i, (ax, (name, values)) in enumerate(zip(axes, data.items(), strict=True)):
        rows = check_shape(f"draws {name}", draws[name], "draws", times.size)
        low, lower, middle, upper, high = np.quantile(rows, (0.025, 0.25, 0.5, 0.75, 0.975), axis=0)
        ax.fill_between(times, low, high, color=PALETTE[i], alpha=0.2, label="95 %", linewidth=0)
        ax.fill_between(times, lower, upper, color=PALETTE[i], alpha=0.4, label="50 %", linewidth=0)
        ax.plot(times, middle, color=PALETTE[i], linewidth=1.2, label="median")
        dots = check_shape(f"data {name}", values, ts.size)
        ax.plot(ts, dots, ".", color=TRUTH, markersize=6, label="data")
        ax.set_ylabel(name)
        add_legend(ax)
    label_time(axes, times, time_unit, None)
    axes[-1].locator_params(axis="x", integer=True)
    return fig


@checked
def belief_bands(
    x: Series,
    y: Series,
    grid: Series,
    truth: Series,
    bands: Mapping[str, tuple[Series, Series]],
    *,
    xlabel: str = "x",
    ylabel: str = "y",
) -> Figure:
    """A curve learned from noisy points by several methods, a panel each, with 95 % bands.

    Args:
        x, y: the points, (n,).
        grid, truth: the curve, (m,).
        bands: by the method's name, mean and standard deviation on the grid, (m,) each.

    Raises:
        ValueError: an array does not have the shape of its grid.
    """
    grid, truth = check_shape("grid", grid, "m"), check_shape("truth", truth, np.size(grid))
    shape = -(-len(bands) // 2), min(len(bands), 2)
    fig = Figure(figsize=(4.0 * shape[1], 2.8 * shape[0]), layout="constrained")
    axes = fig.subplots(*shape, sharex=True, sharey=True, squeeze=False)
    for i, (ax, (name, columns)) in enumerate(zip(np.ravel(axes), bands.items(), strict=False)):
        mean, sd = (check_shape(name, column, grid.size) for column in columns)
        bare_axes(ax)
        away = 1.96 * sd
        pale = {"color": colour_of(i), "alpha": 0.3, "linewidth": 0}
        ax.plot(grid, mean, color=colour_of(i), linewidth=1.4, label="mean")
        ax.fill_between(grid, mean - away, mean + away, label="95 %", **pale)
        ax.plot(grid, truth, color=TRUTH, linewidth=1.0, linestyle="--", label="truth")
        ax.plot(x, y, ".", color=TRUTH, markersize=3, label="data")
        ax.set_title(name, fontsize=10)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        ax.label_outer()
    for ax in np.ravel(axes)[len(bands) :]:
        ax.set_visible(False)
    add_legend_above(fig, np.ravel(axes)[0])
    return fig

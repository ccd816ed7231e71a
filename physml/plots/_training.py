"""Figures of fits: loss curves, bands over seeds, heat maps of settings."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Array, Float
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from physml._numerics.calls import checked
from physml._types import Numbers
from physml.plots._common import (
    FAINT,
    LOSS_STYLES,
    PALETTE,
    Curves,
    add_legend,
    bare_axes,
    check_columns,
    check_shape,
    colour_of,
    draw_semilogy,
    line_style,
    make_panels,
    write_cell,
)

_FEW = 12  # points of a curve that are worth a marker each


@checked
def loss_curves(
    histories: Mapping[str, Mapping[str, Numbers]], *, xlabel: str = "step", ylabel: str = "loss"
) -> Figure:
    """Losses against the step on a log scale: training solid, validation dashed.

    Where no model has a validation loss, the legend has the names of the models alone.

    Args:
        histories: for each model what `fit.gradient` recorded: "loss" (n,) and, if they are there,
            its "step" (n,), else 1..n, and "valid_loss" (m,) with its "valid_step" (m,).

    Raises:
        ValueError: if a model has no "loss", or a curve does not have one value for each step.
    """
    fig, axes = make_panels(1, height=4.0)
    ax = axes[0]
    validated = any("valid_loss" in history for history in histories.values())
    for i, (model, history) in enumerate(histories.items()):
        loss = np.asarray(history.get("loss", ()))
        steps = np.asarray(history.get("step", np.arange(1, loss.size + 1)))
        curves = {"training": (steps, loss)}
        if "valid_loss" in history:
            at, values = np.asarray(history["valid_step"]), np.asarray(history["valid_loss"])
            curves["validation"] = at, values
        for name, (at, curve) in curves.items():
            check_shape(f"{name} curve of {model!r}", curve, at.size)
            if not curve.size:
                raise ValueError(f"{name} curve of {model!r} must have values, got none")
            label = f"{model}, {name}" if validated else model
            draw_semilogy(ax, at, curve, color=colour_of(i), label=label, **LOSS_STYLES[name])
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.margins(x=0.01)
    add_legend(ax)
    return fig


@checked
def convergence(curves: Curves, *, ylabel: str = "loss", title: str | None = None) -> Figure:
    """How fast methods converge: a value against steps and against seconds, all on log scales.

    Args:
        curves: for each method the steps from 1 on (n,), the seconds (n,) and the values (n,);
            of noisy values the smallest so far.

    Raises:
        ValueError: if a curve does not have one value for each of its steps and seconds.
    """
    fig = Figure(figsize=(11.0, 4.4), layout="constrained")
    axes = [bare_axes(ax) for ax in fig.subplots(1, 2, sharey=True)]
    for i, (name, columns) in enumerate(curves.items()):
        *abscissae, values = check_columns(name, columns)
        for ax, x in zip(axes, abscissae, strict=True):
            draw_semilogy(ax, x, values, linewidth=1.6, label=name, **line_style(i))
            ax.set_xscale("log")
    axes[0].set(xlabel="step", ylabel=ylabel)
    axes[1].set(xlabel="seconds, without compiling")
    add_legend(axes[1])
    fig.suptitle(title or "")
    return fig


@checked
def work_precision(
    methods: Mapping[str, Sequence[tuple[float, float]]], *, title: str | None = None
) -> Figure:
    """Error against seconds of each method at several settings, on log scales.

    Args:
        methods: for each method its (seconds, error) pairs, all positive.

    Raises:
        ValueError: if a method has no pair, or one that is not positive.
    """
    fig, (ax,) = make_panels(1, height=4.0)
    for i, (name, pairs) in enumerate(methods.items()):
        points = np.asarray(pairs, float).reshape(-1, 2)
        if not (points.size and np.all(points > 0)):
            raise ValueError(f"{name} must have positive (seconds, error), got {pairs}")
        ax.plot(*points.T, marker="o", label=name, **line_style(i))
    ax.set(xscale="log", yscale="log", title=title or "")
    ax.set(xlabel="seconds, without compiling", ylabel="relative L2 error")
    add_legend(ax)
    return fig


@checked
def heat_map(
    values: Float[Array | np.ndarray, "_rows _columns"],
    rows: Sequence[str | int | float | np.number | Array],
    columns: Sequence[str | int | float | np.number | Array],
    *,
    row_name: str,
    column_name: str,
    name: str,
    log: bool = True,
    chosen: tuple[int, int] | None = None,
    title: str | None = None,
) -> Figure:
    """A table of numbers as colours, with the numbers in the cells.

    A cell that is not finite, where a fit diverged, is hatched and marked "diverged".

    Args:
        values: (rows, columns); the first row is drawn at the bottom.
        rows, columns: what the rows and columns stand for, numbers or words.
        row_name, column_name: the labels of the axes.
        name: what the values are; the label of the colours.
        log: colours on a log scale, for positive numbers, or on a linear one.
        chosen: the row and column of a cell that gets a frame.

    Raises:
        ValueError: if the shape is not that of the rows and columns, or a finite value is not
            positive on a log scale.
    """
    values = check_shape("values", np.asarray(values, float), len(rows), len(columns))
    finite = np.isfinite(values)
    if log and np.any(values[finite] <= 0):
        raise ValueError(f"values must be positive on a log scale, got {values[finite].min()}")
    fig = Figure(figsize=(2.4 + 0.8 * len(columns), 1.5 + 0.55 * len(rows)), layout="constrained")
    ax = fig.add_subplot()
    shown = np.ma.masked_where(~finite, values)
    ends = (values[finite].min(), values[finite].max()) if finite.any() else (1.0, 10.0)
    if log and ends[0] == ends[1]:  # all values are the same: a scale needs two ends
        ends = ends[0] / 2, 2 * ends[1]
    norm = LogNorm(*ends) if log else Normalize(*ends)
    image = ax.imshow(shown, cmap="cividis", norm=norm, origin="lower", aspect="auto")
    ax.set_facecolor("#F0F0F0")
    for (i, j), value in np.ndenumerate(values):
        if finite[i, j]:
            plain = value == 0 or 0.1 <= abs(value) < 1000
            text = f"{value:.3g}" if plain else f"{value:.1e}"
            write_cell(ax, i, j, text, image.to_rgba(values[i, j]), size=8)
        else:
            cell = Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch="///", edgecolor=FAINT)
            ax.add_patch(cell)
            write_cell(ax, i, j, "diverged", (1.0, 1.0, 1.0), size=8)
    if chosen is not None:
        row, column = chosen
        frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, linewidth=3, zorder=3)
        frame.set(edgecolor=PALETTE[1], clip_on=False)
        ax.add_patch(frame)
    for axis, entries in ((ax.xaxis, columns), (ax.yaxis, rows)):
        words = [entry if isinstance(entry, str) else f"{entry:.3g}" for entry in entries]
        axis.set_ticks(range(len(words)), words)
    ax.set(xlabel=column_name, ylabel=row_name, title=title or "")
    ax.tick_params(length=0)
    fig.colorbar(image, label=name)
    return fig


@checked
def bands(
    curves: Mapping[str, tuple[Numbers, Numbers]],
    *,
    xlabel: str,
    ylabel: str,
    share: float = 0.8,
    title: str | None = None,
) -> Figure:
    """Repeated curves on a log scale: a line for the median, a band for the middle repeats.

    Args:
        curves: by name, the abscissae (n,) and the values (n, repeats), for instance the
            validation losses of several seeds; NaN where a repeat has ended.
        share: the share of the repeats that the band holds.

    Raises:
        ValueError: if an array does not have one row for each abscissa.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be more than 0 and at most 1, got {share}")
    fig, (ax,) = make_panels(1, height=4.0)
    for i, (name, (x, values)) in enumerate(curves.items()):
        x = check_shape(f"abscissae of {name}", x, "n")
        values = check_shape(name, np.asarray(values, float), x.size, "repeats")
        there = np.isfinite(values).any(axis=1)
        low, middle, high = np.nanquantile(
            values[there], (0.5 - share / 2, 0.5, 0.5 + share / 2), axis=1
        )
        few = {"marker": "o", "markersize": 5} if x.size <= _FEW else {}
        draw_semilogy(ax, x[there], middle, label=name, linewidth=1.6, **line_style(i), **few)
        if few and np.all(x == np.round(x)):  # sizes and counts have nothing between
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.fill_between(x[there], low, high, color=colour_of(i), alpha=0.15, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title or "")
    ax.margins(x=0.01)
    add_legend(ax)
    return fig

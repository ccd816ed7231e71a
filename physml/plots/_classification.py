"""Figures of how well images are classified."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Array, Integer
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from physml._numerics.calls import checked
from physml.plots._common import (
    TRUTH,
    Curves,
    add_legend,
    bare_axes,
    check_columns,
    check_shape,
    colour_of,
    line_style,
    make_panels,
    write_cell,
)


@checked
def confusion_matrix(
    counts: Integer[Array | np.ndarray, "classes classes"],
    names: Sequence[str],
    *,
    title: str | None = None,
) -> Figure:
    """How often each class was predicted as each, right answers in blue and mistakes in orange.

    The blue shows the share of the class that is right, which the right axis prints (the recall).
    The orange shows a mistake's share of the class, relative to the largest such share, so that
    rare mistakes are seen too.

    Args:
        counts: (classes, classes), rows the true and columns the predicted classes.
        names: of the classes.

    Raises:
        ValueError: if there is not a row and a column for each name, or a count is negative.
    """
    table = check_shape("counts", counts, len(names), len(names))
    if np.any(table < 0):
        raise ValueError(f"counts must not be negative, got {table.min()}")
    whole = table.sum(axis=1, keepdims=True)
    shares = table / np.maximum(whole, 1)
    right = np.eye(len(names), dtype=bool)
    mistakes = np.where(right, 0.0, shares)
    mistakes = mistakes / max(mistakes.max(), np.finfo(float).tiny)
    blues, oranges = (matplotlib.colormaps[name] for name in ("Blues", "Oranges"))
    colours = np.where(right[..., None], blues(0.15 + 0.75 * shares), oranges(0.75 * mistakes))
    colours[~right & (table == 0)] = 1.0
    side = 1.6 + 0.52 * len(names)
    fig = Figure(figsize=(side + 0.8, side), layout="constrained")
    ax = fig.add_subplot()
    ax.imshow(colours)
    for (i, j), count in np.ndenumerate(table):
        if count:
            write_cell(ax, i, j, str(count), colours[i, j], size=9)
    ticks = np.arange(len(names))
    slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(ticks, names, **(slanted if max(map(len, names)) > 2 else {}))
    ax.set_yticks(ticks, names)
    recall = ax.secondary_yaxis("right")
    recall.set_yticks(
        ticks, [f"{x:.1%}" if n else "-" for x, n in zip(shares[right], whole, strict=True)]
    )
    recall.set_ylabel("recall")
    for each in (ax, recall):
        each.tick_params(length=0)
        each.spines[:].set_visible(False)
    edges = ticks[1:] - 0.5
    ax.hlines(edges, -0.5, len(names) - 0.5, color="#E4E4E4", linewidth=0.6)
    ax.vlines(edges, -0.5, len(names) - 0.5, color="#E4E4E4", linewidth=0.6)
    ax.set(xlabel="predicted", ylabel="true", title=title or "")
    return fig


@checked
def accuracy_curves(curves: Curves, *, title: str | None = None) -> Figure:
    """Accuracy against the epoch: training thin, validation dashed.

    Args:
        curves: for each model the epochs (n,), and after each the share of right answers in
            training (n,) and validation (n,).

    Raises:
        ValueError: if a curve does not have one value for each epoch.
    """
    fig, (ax,) = make_panels(1, height=4.0)
    for i, (model, columns) in enumerate(curves.items()):
        epochs, train, valid = check_columns(model, columns)
        thin = {"color": colour_of(i), "linewidth": 1.1, "alpha": 0.7}
        dashed = {"color": colour_of(i), "linewidth": 2.0, "linestyle": "--"}
        ax.plot(epochs, train, label=f"{model}, training", **thin)
        ax.plot(epochs, valid, label=f"{model}, validation", **dashed)
    ax.set(xlabel="epoch", ylabel="accuracy", title=title or "")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.margins(x=0.01)
    add_legend(ax)
    return fig


@checked
def reliability(curves: Curves, *, title: str | None = None) -> Figure:
    r"""The share of right answers against the confidence, and how many answers have it.

    On the diagonal the confidence is right; below it, too large. The legend has the expected
    calibration error, $\sum_b (n_b / n)\,|\mathrm{accuracy}_b - \mathrm{confidence}_b|$ over the
    bins b (Guo et al., arXiv 1706.04599, equation 3).

    Args:
        curves: for each model, by bins of the confidence in the class predicted: its mean (bins,),
            the share of right answers (bins,) and the number of answers (bins,). Empty bins are
            not drawn.

    Raises:
        ValueError: if the three differ in length, or no bin has an answer.
    """
    fig = Figure(figsize=(6.6, 6.4), layout="constrained")
    upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bare_axes(upper).plot((0, 1), (0, 1), color=TRUTH, linewidth=0.8, linestyle=":")
    bare_axes(lower)
    for i, (model, columns) in enumerate(curves.items()):
        confidence, accuracy, counts = check_columns(model, columns)
        there = counts > 0
        if not there.any():
            raise ValueError(f"{model} must have answers in some bin, got none")
        x, y, shares = confidence[there], accuracy[there], counts[there] / counts.sum()
        style = {**line_style(i), "marker": "o", "markersize": 5}
        error = np.sum(shares * np.abs(y - x))
        upper.plot(x, y, label=f"{model}, calibration error {error:.2g}", linewidth=1.6, **style)
        lower.plot(x, shares, linewidth=1.0, **style)
    percent = PercentFormatter(1.0)
    upper.set(ylabel="right answers", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=title or "")
    upper.yaxis.set_major_formatter(percent)
    upper.legend(loc="upper left", frameon=False)
    lower.set(xlabel="confidence", ylabel="share of\nthe answers", yscale="log")
    lower.xaxis.set_major_formatter(percent)
    return fig

"""Figures of random functions: their means and bands."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from physml._numerics.calls import checked
from physml.plots._common import (
    FAINT,
    TRUTH,
    Series,
    add_legend,
    bare_axes,
    check_shape,
    colour_of,
    line_style,
    make_panels,
)

_INSIDE = 1.959964  # standard deviations of a band that holds 95 %


@checked
def function_bands(
    ts: Series,
    functions: Mapping[str, tuple[Series, Series]],
    *,
    truth: Series | None = None,
    data: tuple[Series, Series] | None = None,
    name: str = "x",
    xlabel: str = "t",
) -> Figure:
    """Means of functions with their 95 % bands, and the truth and the data they come from.

    Args:
        ts: (n,), where the functions are shown.
        functions: by name, the mean and the standard deviation, each (n,).
        truth: (n,).
        data: where the function was observed and the values there, each (m,).
        name: of the values.
        xlabel: of the abscissae.

    Raises:
        ValueError: if a series does not have the length of its abscissae.
    """
    ts = check_shape("ts", ts, "n")
    fig, (ax,) = make_panels(1, height=3.8)
    bare_axes(ax)
    if data is not None:
        at = check_shape("abscissae of data", data[0], "m")
        values = check_shape("data", data[1], at.size)
        ax.plot(at, values, "o", color=FAINT, markersize=3.5, label="data")
    if truth is not None:
        ax.plot(ts, check_shape("truth", truth, ts.size), color=TRUTH, lw=2.0, label="truth")
    for i, (label, (mean, sd)) in enumerate(functions.items()):
        mean, sd = check_shape(label, mean, ts.size), check_shape(f"{label}'s sd", sd, ts.size)
        ax.plot(ts, mean, linewidth=1.4, label=f"{label}, 95 %", **line_style(i))
        low, high = (np.asarray(mean) + side * _INSIDE * np.asarray(sd) for side in (-1, 1))
        ax.fill_between(ts, low, high, color=colour_of(i), alpha=0.18, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=name)
    ax.margins(x=0.01)
    add_legend(ax)
    return fig

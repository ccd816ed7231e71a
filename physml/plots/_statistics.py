"""Figures of long times: the climate of step maps, exponents over a parameter."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from physml._numerics.calls import checked
from physml._numerics.checks import require_count, require_not_empty
from physml._types import Numbers
from physml.dynamics import Climate
from physml.plots._common import (
    DASHES,
    TRUTH,
    Series,
    add_legend,
    add_legend_above,
    bare_axes,
    check_shape,
    colour_of,
    draw_semilogy,
    make_panels,
)


@checked
def climate(
    truth: Climate, climates: Mapping[str, Climate], *, names: Sequence[str] = ("x", "y", "z")
) -> Figure:
    """Long-time statistics beside the truth's: histograms, power spectra and the return map.

    Each component has a column, its density above and its spectrum below. The last column has the
    map from each maximum to the next above, and the differences from the truth's map below.
    Trajectories that diverged are left out; the legend says how many.

    Args:
        truth: `dynamics.measure_climate` of the truth.
        climates: the same of step maps, with the same bounds and segment.
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
        bare_axes(ax)
    exact = truth.survivors
    shown = np.flatnonzero(_mean_spectrum(exact).max(axis=0) > 1e-11)[-1]
    for i, (label, whole) in enumerate({"truth": truth, **climates}.items()):
        found = whole.survivors
        if not len(found):
            continue
        lost = whole.diverged.sum()
        style: dict[str, Any] = {
            "color": TRUTH if i == 0 else colour_of(i - 1),
            "linewidth": 2.6 if i == 0 else 1.2,
            "linestyle": "-" if i == 0 else DASHES[i % 4],
            "label": label if lost == 0 else f"{label} ({lost:.3g} of {len(whole)} diverged)",
        }
        spectra = _mean_spectrum(found)
        counts = found.counts.sum(axis=0)
        for d in range(dim):
            width = np.diff(truth.edges[d])
            density = counts[d, 1:-1] / counts[d].sum() / width
            panels[0, d].plot(truth.edges[d, :-1] + width / 2, density, **style)
            draw_semilogy(panels[1, d], truth.frequencies[1:shown], spectra[d, 1:shown], **style)
        pairs = found.return_map[: 4000 if i == 0 else 1500]
        dots = dict(color=style["color"], linestyle="none", marker="o", markeredgewidth=0)
        panels[0, dim].plot(*pairs.T, **dots, markersize=4 if i == 0 else 1.6)
        if i > 0:
            curve = exact.return_map[np.argsort(exact.return_map[:, 0])]
            off = np.abs(pairs[:, 1] - np.interp(pairs[:, 0], *curve.T))
            draw_semilogy(panels[1, dim], pairs[:, 0], off, **dots, markersize=2.5)
    for d, name in enumerate(names):
        panels[0, d].set(
            xlabel=name, ylabel="probability density" if d == 0 else "", ylim=(0, None)
        )
        panels[1, d].set(
            xlabel=f"frequency of {name}", ylabel="power spectral density" if d == 0 else ""
        )
    panels[0, dim].set(xlabel="maximum", ylabel="next maximum")
    panels[1, dim].set(xlabel="maximum", ylabel="distance from the truth's map")
    add_legend_above(fig, panels[0, 0])
    return fig


@checked
def windows(
    ts: Series,
    samples: Mapping[str, Float[np.ndarray, "_num time dim"]],
    *,
    names: Sequence[str] = ("x", "y", "z"),
    bins: int = 50,
    shown: int = 12,
) -> Figure:
    """Samples of short trajectories: the first ones above, the density of all states below.

    Each component has a column. The first sample is taken for the truth; its bounds give the bins.

    Args:
        ts: (time,).
        samples: each (num, time, dim).
        names: of the components.
        bins: of each density.
        shown: trajectories of each sample that are drawn.

    Raises:
        ValueError: if an array does not have a row for each time and a column for each name, there
            is no sample, or a count is below one.
    """
    require_not_empty(samples=list(samples))
    require_count(bins=bins, shown=shown)
    dim, truth = len(names), next(iter(samples.values()))
    fig = Figure(figsize=(3.3 * dim, 2.2 * (len(samples) + 1)), layout="constrained")
    panels = fig.subplots(len(samples) + 1, dim, squeeze=False)
    for i, (label, ys) in enumerate(samples.items()):
        ys = check_shape(label, ys, "num", len(ts), dim)
        style: dict[str, Any] = {"color": TRUTH if i == 0 else colour_of(i - 1)}
        for d, name in enumerate(names):
            low, high = truth[..., d].min(), truth[..., d].max()
            curves, density = bare_axes(panels[i, d]), bare_axes(panels[-1, d])
            curves.plot(ts, ys[:shown, :, d].T, linewidth=0.9, **style)
            curves.set(ylabel=name, ylim=(low, high))
            curves.set_title(label if d == 0 else "", loc="left", fontsize=10)
            counts, edges = np.histogram(ys[..., d], bins, (low, high))
            middle, width = 0.5 * (edges[1:] + edges[:-1]), edges[1] - edges[0]
            heights = counts / (ys[..., d].size * width)
            dash = "-" if i == 0 else DASHES[i % 4]
            density.plot(middle, heights, linestyle=dash, linewidth=1.6, label=label, **style)
            density.set(xlabel=name, ylabel="probability density" if d == 0 else "")
    for ax in panels[-2]:
        ax.set_xlabel("time")
    add_legend_above(fig, panels[-1, 0])
    return fig


def _mean_spectrum(climate: Climate) -> np.ndarray:
    """Each component's mean spectrum over the trajectories, as a share of its power."""
    spectra = climate.spectra.mean(axis=0)
    return spectra / (spectra.sum(axis=-1, keepdims=True) * climate.frequencies[1])


@checked
def parameter_scan(
    parameters: Series, values: Mapping[str, Numbers], *, xlabel: str, ylabel: str
) -> Figure:
    """A figure of merit against a parameter, each repeat a dot and the median a line.

    The first, usually the truth, is drawn in rings, so that dots on top of them are seen.

    Args:
        parameters: (n,).
        values: each (n, repeats).

    Raises:
        ValueError: if an array does not have one row for each parameter.
    """
    x = check_shape("parameters", parameters, "n")
    fig, (ax,) = make_panels(1, height=4.0)
    for i, (name, repeats) in enumerate(values.items()):
        repeats = check_shape(name, repeats, x.size, "repeats")
        colour = colour_of(i - 1)
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
        ax.plot(x, middle, color=colour, linewidth=width, linestyle=DASHES[i % 4], label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    add_legend(ax)
    return fig

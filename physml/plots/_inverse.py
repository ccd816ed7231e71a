"""Figures of inverse problems: data and fit, likelihood profiles, intervals."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from physml._numerics.calls import checked
from physml._numerics.checks import require_positive
from physml._types import Numbers
from physml.plots._common import (
    FAINT,
    PALETTE,
    TRUTH,
    Series,
    add_legend,
    add_legend_above,
    axis_label,
    bare_axes,
    check_columns,
    check_shape,
    label_time,
    make_panels,
)

_MANY = 100  # observations that stand close


@checked
def fit_to_data(
    ts: Series,
    data: Mapping[str, Series],
    times: Series,
    fit: Mapping[str, Series],
    truth: Mapping[str, Series] | None = None,
    *,
    unit: str | None = None,
) -> Figure:
    """Observations as dots and the fitted solution as a line, a panel for each component.

    Args:
        ts: the times of the observations, (n,).
        data: by the component's name, (n,); a component that was not observed is left out.
        times: finer times, (m,).
        fit, truth: by name, (m,).

    Raises:
        ValueError: if an array does not have the shape of its times.
    """
    ts, times = check_shape("ts", ts, "n"), check_shape("times", times, "m")
    fig, axes = make_panels(len(fit), height=2.0)
    size = 4 if ts.size > _MANY else 9  # of a dot, in points
    for ax, (name, values) in zip(axes, fit.items(), strict=True):
        if name in data:
            dots = check_shape(f"data {name}", data[name], ts.size)
            ax.plot(ts, dots, ".", color=FAINT, markersize=size, label="data")
        if truth is not None:
            line = check_shape(f"truth {name}", truth[name], times.size)
            ax.plot(times, line, color=TRUTH, linewidth=2.2, label="truth")
        line = check_shape(f"fit {name}", values, times.size)
        ax.plot(times, line, color=PALETTE[1], linewidth=1.2, linestyle="--", label="fit")
        ax.set_ylabel(name)
        add_legend(ax)
    label_time(axes, times, unit, None)
    axes[-1].locator_params(axis="x", steps=[1, 2, 5, 10])  # years have no halves
    return fig


@checked
def likelihood_profiles(
    profiles: Mapping[str, tuple[Numbers, Numbers]],
    estimates: Mapping[str, tuple[float, float]],
    truth: Mapping[str, float],
    *,
    level: float = 3.841,
) -> Figure:
    """The deviance against each parameter, beside the parabola of its standard deviation.

    Args:
        profiles: by the parameter's name, values and deviances, (n,) each.
        estimates: by name, the best value and its standard deviation.
        truth: by name, the true value.
        level: the deviance at the ends of the confidence interval; that of 95 % unless given.

    Raises:
        ValueError: if values and deviances differ in shape, or the level is not positive.
    """
    require_positive(level=level)
    fig, axes = _row(len(profiles))
    for ax, (name, (values, deviance)) in zip(axes, profiles.items(), strict=True):
        values, deviance = check_columns(f"profile {name}", (values, deviance))
        best, sd = estimates[name]
        fine = np.linspace(values[0], values[-1], 200)
        ax.axhline(level, color=FAINT, linewidth=1.2, label="95 %")
        ax.axvline(truth[name], color=TRUTH, linewidth=1.2, linestyle=":", label="truth")
        ax.plot(fine, ((fine - best) / sd) ** 2, color=PALETTE[0], label="parabola")
        ax.plot(values, deviance, "o", color=PALETTE[1], markersize=4, label="profile")
        ax.set_xlabel(name)
        ax.locator_params(axis="x", nbins=5)
    axes[0].set_ylabel("deviance  $-2\\,\\log L/L_{max}$")
    add_legend_above(fig, axes[0])
    return fig


@checked
def intervals(
    ranges: Mapping[str, tuple[Numbers, Numbers]],
    truth: Mapping[str, float],
    *,
    unit: str | None = None,
) -> Figure:
    """Confidence intervals from repeated data, sorted; those that miss the truth stand out.

    Args:
        ranges: by the parameter's name, low and high ends, (repeats,) each.
        truth: by name, the true value.

    Raises:
        ValueError: if low and high ends differ in shape.
    """
    fig, axes = _row(len(ranges))
    for ax, (name, (low, high)) in zip(axes, ranges.items(), strict=True):
        low, high = check_columns(f"interval {name}", (low, high))
        order = np.argsort(low + high)
        low, high = low[order], high[order]
        rank = np.arange(len(low))
        missed = (low > truth[name]) | (high < truth[name])
        for chosen, colour, label in (
            (~missed, PALETTE[5], "covers the truth"),
            (missed, PALETTE[1], "misses it"),
        ):
            ax.vlines(
                rank[chosen], low[chosen], high[chosen], color=colour, label=label, linewidth=0.8
            )
        ax.axhline(truth[name], color=TRUTH, linewidth=1.2, label="truth")
        ax.set_ylabel(axis_label(name, unit))
        ax.set_xlabel(f"repeat, sorted ({100 * np.mean(~missed):.1f} % cover)")
    add_legend_above(fig, axes[0])
    return fig


@checked
def recovered_term(
    x: Series, truth: Series, terms: Mapping[str, Series], *, xlabel: str, ylabel: str
) -> Figure:
    """A term of an equation as it was found (dots), the true term, and below the difference.

    Args:
        x: what the term depends on, (n,), in any order.
        truth: (n,).
        terms: each (n,).

    Raises:
        ValueError: if an array does not have the shape of x.
    """
    x = check_shape("x", x, "n")
    order = np.argsort(x)
    truth = check_shape("truth", truth, x.size)
    fig, (top, bottom) = make_panels(2, height=2.8)
    top.plot(x[order], truth[order], color=TRUTH, linewidth=2.0, label="truth")
    for i, (name, values) in enumerate(terms.items()):
        style: Any = dict(color=PALETTE[i], linestyle="none", marker="o", markersize=2.5)
        values = check_shape(name, values, x.size)
        top.plot(x, values, label=name, **style)
        bottom.plot(x, values - truth, label=name, **style)
    top.set_ylabel(ylabel)
    bottom.set_ylabel("difference from the truth")
    bottom.set_xlabel(xlabel)
    add_legend(top)
    return fig


def _row(count: int) -> tuple[Figure, list[Axes]]:
    fig = Figure(figsize=(3.6 * count, 3.6), layout="constrained")
    axes = fig.subplots(1, count, squeeze=False)[0]
    return fig, [bare_axes(ax) for ax in axes]

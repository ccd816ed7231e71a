"""Figures of Fourier series: the sizes of the harmonics, and what they do to an oscillator."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from physml._numerics.calls import checked
from physml.plots._common import (
    Series,
    add_legend,
    check_shape,
    colour_of,
    draw_semilogy,
    make_panels,
)

_MARKERS = "os^Dv*"


@checked
def spectra(harmonics: Series, sizes: Mapping[str, Series]) -> Figure:
    """The sizes of the Fourier coefficients of waves, on logarithmic axes.

    A wave that jumps has coefficients that fall as 1/n, one with kinks as 1/n².

    Args:
        harmonics: (harmonics,), the numbers n.
        sizes: each (harmonics,), the root of a_n² + b_n²; zeros are left out.

    Raises:
        ValueError: if a series does not have the length of `harmonics`.
    """
    harmonics = check_shape("harmonics", harmonics, "harmonics")
    fig, axes = make_panels(1, height=3.8)
    ax = axes[0]
    for i, (name, values) in enumerate(sizes.items()):
        values = check_shape(name, values, harmonics.size)
        shown = values > 1e-12 * values.max()
        style = {"color": colour_of(i), "marker": _MARKERS[i % len(_MARKERS)], "markersize": 4}
        draw_semilogy(ax, harmonics[shown], values[shown], lw=0.8, label=name, **style)
    _plain_log_axis(ax)
    ax.set(xlabel="harmonic n", ylabel="size of the coefficient")
    add_legend(ax)
    return fig


@checked
def resonance_curves(frequencies: Series, curves: Mapping[str, Series]) -> Figure:
    """The steady motion of an oscillator against the frequency of its force, logarithmic axes.

    Args:
        frequencies: (frequencies,), angular, in units of the natural frequency.
        curves: each (frequencies,), the root-mean-square displacement under a force.

    Raises:
        ValueError: if a series does not have the length of `frequencies`.
    """
    frequencies = check_shape("frequencies", frequencies, "frequencies")
    fig, axes = make_panels(1, height=3.8)
    ax = axes[0]
    for i, (name, values) in enumerate(curves.items()):
        values = check_shape(name, values, frequencies.size)
        draw_semilogy(ax, frequencies, values, color=colour_of(i), lw=1.2, label=name)
    _plain_log_axis(ax)
    ax.set(xlabel="frequency of the force / natural frequency", ylabel="rms of x")
    ax.set_xlim(frequencies[0], frequencies[-1])
    add_legend(ax)
    return fig


def _plain_log_axis(ax: Axes) -> None:
    """A logarithmic x axis with numbers such as 0.2 and 10 for labels."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())

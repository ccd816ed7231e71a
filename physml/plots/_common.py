"""What all figures share: colours, panels, axes, checks of shapes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from physml._numerics.checks import require_finite
from physml._types import Numbers

Curves = Mapping[str, tuple[Numbers, Numbers, Numbers]]
Series = Float[Array | np.ndarray, " _time"]
Trajectory = Float[Array | np.ndarray, "_time _dim"]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
TRUTH = "#000000"
FAINT = "#B0B0B0"
SATURATED = 10.0  # standard deviations; two unrelated states are about 1.4 apart
LOSS_STYLES: dict[str, dict[str, Any]] = {  # training losses are noisy: thin and pale
    "training": {"linewidth": 0.8, "alpha": 0.6},
    "validation": {"linewidth": 2.0, "linestyle": "--"},
}
DASHES = ("-", "--", "-.", ":")  # for lines that may lie on each other


def colour_of(i: int) -> str:
    return TRUTH if i < 0 else PALETTE[i % len(PALETTE)]


def line_style(i: int) -> dict[str, Any]:
    """Colour and dashes of curve i; of 24 curves no two have the same.

    Neighbours differ in both, so that a print without colours tells them apart.
    """
    repeats = i // math.lcm(len(PALETTE), len(DASHES))
    return {"color": colour_of(i), "linestyle": DASHES[(i + repeats) % len(DASHES)]}


def check_shape(name: str, values: Numbers, *axes: int | str) -> np.ndarray:
    """Values as an array; ValueError unless it has these axes (a word stands for any length)."""
    array = np.asarray(values)
    fits = [isinstance(n, str) or n == m for n, m in zip(axes, array.shape, strict=False)]
    if array.ndim != len(axes) or not all(fits):
        expected = f"({', '.join(map(str, axes))}{',' * (len(axes) == 1)})"
        raise ValueError(f"{name} must have shape {expected}, got {array.shape}")
    return array


def check_columns(name: str, columns: Sequence[Numbers]) -> list[np.ndarray]:
    """Columns of a curve as arrays of floats; ValueError unless all are as long as the first."""
    arrays = [np.asarray(column, float) for column in columns]
    return [check_shape(f"every column of {name}", array, arrays[0].size) for array in arrays]


def check_lambda1(lambda1: float | None) -> None:
    """Raise ValueError unless a Lyapunov exponent, where it is given, is finite."""
    if lambda1 is not None:
        require_finite("lambda1", lambda1)


def axis_label(name: str, unit: str | None) -> str:
    return name if unit is None else f"{name} [{unit}]"


def make_panels(count: int, *, height: float) -> tuple[Figure, list[Axes]]:
    """A column of panels over one time axis, with room to the right for the legends."""
    fig = Figure(figsize=(9.0, height * count + 0.8), layout="constrained")
    axes = fig.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    return fig, [bare_axes(ax) for ax in axes]


def bare_axes(ax: Axes) -> Axes:
    ax.grid(color="#E4E4E4", linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def add_legend(ax: Axes) -> None:
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, frameon=False)


def label_time(
    axes: Sequence[Axes], ts: np.ndarray, unit: str | None, lambda1: float | None
) -> None:
    axes[-1].set_xlabel(axis_label("t", unit))
    axes[-1].set_xlim(ts[0], ts[-1])
    if lambda1 is not None:
        to_lyapunov = (lambda t: t * lambda1, lambda n: n / lambda1)
        top = axes[0].secondary_xaxis("top", functions=to_lyapunov, zorder=3)
        top.set_xlabel("Lyapunov times")


def add_legend_above(fig: Figure, ax: Axes) -> None:
    handles = ax.get_legend_handles_labels()
    fig.legend(*handles, loc="outside upper center", ncols=6, frameon=False)


def write_cell(
    ax: Axes, row: int, column: int, text: str, background: Iterable[float], size: int
) -> None:
    """A word in a cell of a table, black or white, whichever the cell's colour shows better."""
    red, green, blue, *_ = background
    colour = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "white"
    ax.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def draw_semilogy(ax: Axes, x: np.ndarray, y: np.ndarray, **style: Any) -> Line2D:
    (line,) = ax.plot(x, y, **style)
    if np.any(y > 0):  # a method may be exact; zeros leave gaps, not spikes
        ax.set_yscale("log", nonpositive="mask")
    return line

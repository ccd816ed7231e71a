"""What all figures share: colours, panels, axes, and checks of what comes in."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Series = Float[Array | np.ndarray, " _time"]
Trajectory = Float[Array | np.ndarray, "_time _dim"]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
TRUTH = "#000000"
FAINT = "#B0B0B0"
SATURATED = 10.0  # standard deviations; two unrelated states are about 1.4 apart
LOSS_STYLES: dict[str, dict[str, Any]] = {  # what a batch makes noisy stays in the background
    "train": {"linewidth": 0.8, "alpha": 0.6},
    "valid": {"linewidth": 2.0, "linestyle": "--"},
}
DASHES = ("-", "--", "-.", ":")  # for lines that may lie on each other


def colour_of(i: int) -> str:
    return TRUTH if i < 0 else PALETTE[i % len(PALETTE)]


def tick_text(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def check_series(name: str, values: Any, ts: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    if ts.ndim != 1 or values.shape != ts.shape:
        raise ValueError(f"{name}: expected the shape of ts, {ts.shape}, got {values.shape}")
    return values


def check_paths(name: str, values: Any, ts: np.ndarray, names: Sequence[str]) -> np.ndarray:
    values, expected = np.asarray(values), (*ts.shape, len(names))
    if values.shape != expected:
        raise ValueError(f"{name}: expected the shape {expected}, got {values.shape}")
    return values


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


def draw_semilogy(ax: Axes, x: np.ndarray, y: np.ndarray, **style: Any) -> None:
    ax.plot(x, y, **style)
    if np.any(y > 0):  # a method may be exact; zeros leave gaps, not spikes
        ax.set_yscale("log", nonpositive="mask")

"""Figures of fields over two coordinates."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from physml._numerics.calls import checked
from physml.plots._common import Series, axis_label, check_shape

_FLOOR = 1e-17  # the smallest error that is drawn


@checked
def field_and_error(
    horizontal: Series,
    vertical: Series,
    values: Float[Array | np.ndarray, "horizontal vertical"],
    error: Float[Array | np.ndarray, "horizontal vertical"],
    *,
    names: tuple[str, str] = ("t", "x"),
    units: tuple[str | None, str | None] = (None, None),
    value_name: str = "u",
) -> Figure:
    """A field in colour, such as a solution over time and space, and beside it its error.

    Args:
        horizontal, vertical: increasing grids, (n,) and (m,).
        values: the field on them, (n, m).
        error: its error, (n, m); the logarithm of its magnitude is shown.
        names, units: of the two coordinates.
        value_name: of the field.

    Raises:
        ValueError: if an array does not have the shape of the grids.
    """
    horizontal, vertical = np.asarray(horizontal), np.asarray(vertical)
    grid = horizontal.size, vertical.size
    values = check_shape("values", values, *grid)
    magnitude = np.maximum(np.abs(check_shape("error", error, *grid)), _FLOOR)
    size = float(np.max(np.abs(values)))
    digits = np.log10(magnitude)
    top = float(np.ceil(digits.max()))
    limits = {"cmap": "viridis", "vmax": top, "vmin": top - 6}
    panels: tuple[tuple[str, np.ndarray, dict[str, Any]], ...] = (
        (value_name, values, {"cmap": "RdBu_r", "vmin": -size, "vmax": size}),
        (f"log10 |error of {value_name}|", digits, limits),
    )
    fig = Figure(figsize=(10.0, 3.6), layout="constrained")
    for ax, (label, shown, style) in zip(fig.subplots(1, 2), panels, strict=True):
        mesh = ax.pcolormesh(
            horizontal, vertical, shown.T, shading="gouraud", rasterized=True, **style
        )
        ax.set_xlabel(axis_label(names[0], units[0]))
        ax.set_ylabel(axis_label(names[1], units[1]))
        fig.colorbar(mesh, ax=ax, label=label)
    return fig

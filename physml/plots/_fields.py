"""Figures of fields over two coordinates."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from physml.plots._common import Series, axis_label

_FLOOR = 1e-17  # below what is drawn of an error


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
    for name, array in (("values", values), ("error", error)):
        if np.shape(array) != (horizontal.size, vertical.size):
            raise ValueError(
                f"{name}: expected the shape {(horizontal.size, vertical.size)}, "
                f"got {np.shape(array)}"
            )
    values, magnitude = np.asarray(values), np.maximum(np.abs(np.asarray(error)), _FLOOR)
    size = float(np.max(np.abs(values)))
    digits = np.log10(magnitude)
    top = float(np.ceil(digits.max()))
    panels: tuple[tuple[str, np.ndarray, dict[str, Any]], ...] = (
        (value_name, values, {"cmap": "RdBu_r", "vmin": -size, "vmax": size}),
        (
            f"log10 |error of {value_name}|",
            digits,
            {"cmap": "viridis", "vmax": top, "vmin": top - 6},
        ),
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

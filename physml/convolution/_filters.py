"""Filters made by hand, as in signal and image processing: smoothing and edges.

The filters of edges are for `cross_correlate`. `convolve` mirrors them, which changes the sign of
all but the Laplacian.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from physml._numerics.calls import checked
from physml._numerics.checks import floating_array, require_positive
from physml.convolution._sizes import lengths


def _integers(*rows: tuple[int, ...]) -> np.ndarray:
    """A read-only kernel; it takes the dtype of the image that it is applied to."""
    kernel = np.array(rows)
    kernel.flags.writeable = False
    return kernel


EDGE_BELOW = _integers((-1, -1), (1, 1))
"""Large where the image is brighter below: the lecture's detector of horizontal edges."""

SOBEL_ROWS = _integers((-1, -2, -1), (0, 0, 0), (1, 2, 1))
"""Eight times the slope down the rows, smoothed along them; large at horizontal edges."""

SOBEL_COLUMNS = SOBEL_ROWS.T
"""Eight times the slope along the columns, smoothed down them; large at vertical edges."""

LAPLACIAN = _integers((0, 1, 0), (1, -4, 1), (0, 1, 0))
"""The sum of both second differences; it changes its sign at edges of every direction."""


@checked
def box_filter(shape: Sequence[int], dtype: DTypeLike | None = None) -> Float[Array, "*shape"]:
    """The plain average over a window, a smoothing kernel: equal entries whose sum is one.

    Args:
        shape: the kernel's; `(3,)` for a signal, `(3, 3)` for an image.
        dtype: JAX's default float unless given.

    Raises:
        TypeError, ValueError: a length is no integer of at least one, or the dtype is not floating
            or needs JAX's x64 mode.
    """
    shape = lengths("shape", shape)
    return _filter(np.full(shape, 1 / math.prod(shape)), dtype)


@checked
def gaussian_filter(
    shape: Sequence[int], sigma: float, dtype: DTypeLike | None = None
) -> Float[Array, "*shape"]:
    r"""A Gaussian smoothing kernel, $K \propto e^{-|r|^2 / 2 \sigma^2}$, whose sum is one.

    Args:
        shape: the kernel's; about $6 \sigma$ along each axis hold nearly all of it.
        sigma: the standard deviation, in pixels.
        dtype: JAX's default float unless given.

    Raises:
        TypeError, ValueError: as `box_filter`, or sigma is not positive and finite.
    """
    shape = lengths("shape", shape)
    require_positive(sigma=sigma)
    grid = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    r2 = np.sum(np.square(grid), axis=0)
    kernel = np.exp((r2.min() - r2) / (2 * sigma**2))
    return _filter(kernel / kernel.sum(), dtype)


def _filter(kernel: np.ndarray, dtype: DTypeLike | None) -> Array:
    return floating_array("kernel", kernel, jnp.result_type(float) if dtype is None else dtype)

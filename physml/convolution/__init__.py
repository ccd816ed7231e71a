r"""The mathematics behind a convolutional network, as small functions of one signal or image.

What a network calls a convolution is a cross-correlation: it slides the kernel unchanged. A
convolution slides the mirrored kernel, which makes it commutative. Both are here, for any number of
axes, with pooling, filters made by hand, the matrix, the inverse, and the arithmetic of the sizes.

These functions are for reading, checking and small arrays. They copy every window, so they need
memory for the number of entries of the output times that of the kernel.
"""

from physml.convolution._filters import (
    EDGE_BELOW,
    LAPLACIAN,
    SOBEL_COLUMNS,
    SOBEL_ROWS,
    box_filter,
    gaussian_filter,
)
from physml.convolution._linear import (
    convolution_matrix,
    deconvolve,
    polynomial_product,
    polynomial_product_operations,
)
from physml.convolution._sizes import (
    convolution_parameters,
    dense_parameters,
    output_shape,
    receptive_field,
)
from physml.convolution._sliding import average_pool, convolve, cross_correlate, max_pool

__all__ = [
    "EDGE_BELOW",
    "LAPLACIAN",
    "SOBEL_COLUMNS",
    "SOBEL_ROWS",
    "average_pool",
    "box_filter",
    "convolution_matrix",
    "convolution_parameters",
    "convolve",
    "cross_correlate",
    "deconvolve",
    "dense_parameters",
    "gaussian_filter",
    "max_pool",
    "output_shape",
    "polynomial_product",
    "polynomial_product_operations",
    "receptive_field",
]

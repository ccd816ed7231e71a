r"""The mathematics behind a convolutional network, as small functions of one signal or image.

What a network calls a convolution is a cross-correlation: it slides the kernel unchanged. A
convolution slides the mirrored kernel, which makes it commutative. Both are here, for any number of
axes, with pooling, filters made by hand, the matrix, the inverse, and the arithmetic of the sizes.

These functions are for reading, checking and small arrays. They copy every window, so they need
memory for the number of entries of the output times that of the kernel.
"""

from physml.convolution._filters import EDGE_BELOW as EDGE_BELOW
from physml.convolution._filters import LAPLACIAN as LAPLACIAN
from physml.convolution._filters import SOBEL_COLUMNS as SOBEL_COLUMNS
from physml.convolution._filters import SOBEL_ROWS as SOBEL_ROWS
from physml.convolution._filters import box_filter as box_filter
from physml.convolution._filters import gaussian_filter as gaussian_filter
from physml.convolution._linear import convolution_matrix as convolution_matrix
from physml.convolution._linear import deconvolve as deconvolve
from physml.convolution._linear import polynomial_product as polynomial_product
from physml.convolution._linear import (
    polynomial_product_operations as polynomial_product_operations,
)
from physml.convolution._sizes import convolution_parameters as convolution_parameters
from physml.convolution._sizes import dense_parameters as dense_parameters
from physml.convolution._sizes import output_shape as output_shape
from physml.convolution._sizes import receptive_field as receptive_field
from physml.convolution._sliding import average_pool as average_pool
from physml.convolution._sliding import convolve as convolve
from physml.convolution._sliding import cross_correlate as cross_correlate
from physml.convolution._sliding import max_pool as max_pool

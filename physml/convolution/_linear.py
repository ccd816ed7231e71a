"""Convolution as linear algebra: its matrix, its inverse, and products of polynomials."""

import functools
from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from physml._numerics.calls import checked
from physml._numerics.checks import floating_array, is_concrete, require_count, require_one_of
from physml.convolution._sizes import lengths, output_shape
from physml.convolution._sliding import same_axes


@checked
def convolution_matrix(
    kernel: Real[ArrayLike, "*window"], shape: Sequence[int]
) -> Float[Array, "outputs inputs"]:
    r"""The matrix $T$ of the full convolution, $\mathrm{vec}(x * K) = T \, \mathrm{vec}(x)$.

    In one dimension $T_{ij} = K_{i - j}$, a Toeplitz matrix: constant along its diagonals. In two
    dimensions such matrices are its blocks. Nearly all entries are zero, so use the matrix for
    linear algebra and `convolve` for convolving.

    >>> convolution.convolution_matrix([1, 2], (3,)).tolist()
    [[1.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 2.0]]

    Args:
        kernel: $K$, of length k along an axis.
        shape: that of $x$, of length n along an axis; the output's is n + k - 1.

    Raises:
        TypeError: the kernel holds no real numbers, or a length is no integer.
        ValueError: a length is below one, or there are not as many as the kernel has axes.
    """
    kernel = floating_array("kernel", kernel)
    shape = lengths("shape", shape)
    if kernel.ndim != len(shape) or kernel.size == 0:
        raise ValueError(
            f"kernel must have entries and as many axes as shape {shape}, got shape {kernel.shape}"
        )
    return _convolution_matrix(kernel, shape)


@checked
def deconvolve(
    y: Real[ArrayLike, "*shape"], kernel: Real[ArrayLike, "*window"]
) -> Float[Array, "*inputs"]:
    r"""The inverse of the full convolution: the $x$ whose $x * K$ is nearest to $y$.

    $$x = \arg\min_x |T x - y|^2,$$

    with $T$ the `convolution_matrix`, by a QR factorisation. A kernel that is not zero has exactly
    one solution, which gives back $x$ from $y = x * K$. A kernel that removes high frequencies
    amplifies noise in y. The work grows with the cube of the number of unknowns, so use it for
    signals of up to a thousand points or images of up to thirty pixels a side.

    What deep learning calls a deconvolution, the transposed convolution of `nnx.ConvTranspose`, is
    not the inverse but the transpose, $T^T y$ for the full convolution (`jax.linear_transpose`).

    Args:
        y: the full convolution, of length n + k - 1 along an axis.
        kernel: $K$, of length k along an axis.

    Returns:
        $x$, of length n along an axis.

    Raises:
        TypeError: an argument holds no real numbers.
        ValueError: `y` and `kernel` differ in their number of axes, `y` is smaller than the kernel,
            or the kernel is zero.
    """
    y, kernel = same_axes(y=y, kernel=kernel)
    if any(k > n for k, n in zip(kernel.shape, y.shape, strict=True)):
        raise ValueError(
            f"y must be at least as long as the kernel along every axis, "
            f"got shapes {y.shape} and {kernel.shape}"
        )
    if is_concrete(kernel) and not np.any(kernel):
        raise ValueError("kernel must have an entry that is not zero, got zeros alone")
    return _deconvolve(y, kernel)


Method = Literal["direct", "toeplitz", "fft"]
"""How to multiply polynomials."""


@checked
def polynomial_product(
    alpha: Real[ArrayLike, " m"], beta: Real[ArrayLike, " n"], method: Method = "direct"
) -> Float[Array, " m+n-1"]:
    r"""The coefficients of the product of two polynomials, the convolution of theirs.

    $$\delta_l = \sum_{i + j = l} \alpha_i \beta_j = (\alpha * \beta)_l$$

    "direct" adds up these products, "toeplitz" multiplies the matrix of $\alpha$
    (`convolution_matrix`) by the vector $\beta$, and "fft" multiplies the discrete Fourier
    transforms, $\delta = F^{-1} (F\alpha \cdot F\beta)$, padded with zeros to a power of two so
    that nothing wraps around. `polynomial_product_operations` counts the cost of each. The rounding
    errors of "fft" are equally large in all coefficients; those of the other two are relative to
    the terms of each coefficient.

    >>> convolution.polynomial_product([1, 2], [1, 3]).tolist()  # (1 + 2x) (1 + 3x)
    [1.0, 5.0, 6.0]

    Args:
        alpha: $\alpha_0, \alpha_1, \ldots$, the constant term first.
        beta: $\beta_0, \beta_1, \ldots$ likewise.
        method: "direct", "toeplitz" or "fft".

    Raises:
        TypeError: an argument holds no real numbers.
        ValueError: an argument has not one axis or no entries, or the method is unknown.
    """
    require_one_of(get_args(Method), method=method)
    alpha, beta = same_axes(alpha=alpha, beta=beta)
    if alpha.ndim != 1:
        raise ValueError(f"alpha must have shape (m,), got shape {alpha.shape}")
    return _polynomial_product(alpha, beta, method)


@checked
def polynomial_product_operations(m: int, n: int) -> dict[Method, int]:
    r"""The floating-point operations by which each method multiplies m and n coefficients.

    - direct: $m n$ products and $(m - 1)(n - 1)$ additions.
    - toeplitz: $(m + n - 1)(2 n - 1)$, many of them with the zeros of the matrix. This count alone
      depends on which polynomial makes the matrix; it is smaller if the longer one does. Without
      the zeros the count is that of "direct".
    - fft: three complex transforms of $5 N \log_2 N$ operations and $6 N$ for the product, N the
      smallest power of two from $m + n - 1$ on. For m = n this is less than "direct" first at 128,
      and always above 283. Transforms of real numbers, as in `polynomial_product`, need about
      half. The factor 1 / N of the inverse transform is not counted.

    Args:
        m: the number of coefficients of the first polynomial, which makes the matrix.
        n: the number of coefficients of the second polynomial.

    Raises:
        TypeError, ValueError: a number is no integer of at least one.

    Source: the radix-2 transform of Cooley and Tukey, Math. Comp. 19 (1965): 10 real operations to
    each of $(N / 2) \log_2 N$ butterflies.
    """
    require_count(m=m, n=n)
    m, n = int(m), int(n)
    total = m + n - 1
    size = _power_of_two(total)
    return {
        "direct": m * n + (m - 1) * (n - 1),
        "toeplitz": total * (2 * n - 1),
        "fft": 3 * 5 * size * (size.bit_length() - 1) + 6 * size,
    }


@functools.partial(jax.jit, static_argnums=1)
def _convolution_matrix(kernel: Array, shape: tuple[int, ...]) -> Array:
    full = tuple(n + k - 1 for n, k in zip(shape, kernel.shape, strict=True))
    # The column of an input holds the kernel, shifted to where the input is.
    inputs = jnp.stack([n.ravel() for n in np.indices(shape)], axis=-1)
    empty = jnp.zeros(full, kernel.dtype)
    columns = jax.vmap(lambda at: jax.lax.dynamic_update_slice(empty, kernel, tuple(at)))(inputs)
    return columns.reshape(len(inputs), -1).T


@jax.jit
def _deconvolve(y: Array, kernel: Array) -> Array:
    shape = output_shape(y.shape, kernel.shape)  # n from n + k - 1 and k
    q, r = jnp.linalg.qr(_convolution_matrix(kernel, shape))
    projected = jnp.matmul(q.T, y.ravel(), precision="highest")
    return jax.scipy.linalg.solve_triangular(r, projected).reshape(shape)


@functools.partial(jax.jit, static_argnums=2)
def _polynomial_product(alpha: Array, beta: Array, method: Method) -> Array:
    m, n = len(alpha), len(beta)
    if method == "direct":
        power = np.add.outer(np.arange(m), np.arange(n))
        return jnp.zeros(m + n - 1, alpha.dtype).at[power].add(jnp.outer(alpha, beta))
    if method == "toeplitz":
        return jnp.matmul(_convolution_matrix(alpha, beta.shape), beta, precision="highest")
    size = _power_of_two(m + n - 1)
    transforms = jnp.fft.rfft(alpha, size) * jnp.fft.rfft(beta, size)
    return jnp.fft.irfft(transforms, size)[: m + n - 1]


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()

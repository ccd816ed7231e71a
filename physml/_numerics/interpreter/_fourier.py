"""Discrete Fourier transforms in double-double, as products with their matrices."""

import functools
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import FftType

from physml._numerics import double_double as dd
from physml._numerics.double_double import DoubleDouble

_PI = Decimal("3.14159265358979323846264338327950288419716939937510582")


class Complex(NamedTuple):
    """A complex array in double-double."""

    re: DoubleDouble
    im: DoubleDouble


def transform(
    x: DoubleDouble | Complex, fft_type: FftType, fft_lengths: tuple[int, ...]
) -> DoubleDouble | Complex:
    """`lax.fft` of the last axes: exact in all digits but the last, at the cost of n^2."""
    num = len(fft_lengths)
    axes = dict(zip(range(-num, 0), fft_lengths, strict=True))
    if isinstance(x, DoubleDouble):
        x = Complex(x, jax.tree.map(jnp.zeros_like, x))
    backwards = fft_type in (FftType.IFFT, FftType.IRFFT)
    if fft_type == FftType.RFFT:
        x = _along(x, -1, _matrix(axes.pop(-1), half=True, backwards=False, like=x.re.hi))
    last = axes.pop(-1) if fft_type == FftType.IRFFT else None
    for axis, length in axes.items():
        x = _along(x, axis, _matrix(length, half=False, backwards=backwards, like=x.re.hi))
    if last is None:
        return x
    return _along(x, -1, _matrix(last, half=True, backwards=True, like=x.re.hi)).re


def _along(x: Complex, axis: int, matrix: Complex) -> Complex:
    """The product with a matrix along an axis."""

    def product(part: DoubleDouble, factor: DoubleDouble) -> DoubleDouble:
        moved = jax.tree.map(lambda array: jnp.moveaxis(array, axis, -1), part)
        shape = moved.hi.shape
        rows = jax.tree.map(lambda array: array.reshape(-1, shape[-1]), moved)
        found = dd.matmul(rows, factor)
        return jax.tree.map(
            lambda array: jnp.moveaxis(array.reshape(*shape[:-1], -1), -1, axis), found
        )

    re = dd.add(product(x.re, matrix.re), dd.neg(product(x.im, matrix.im)))
    im = dd.add(product(x.re, matrix.im), product(x.im, matrix.re))
    return Complex(re, im)


def _matrix(length: int, *, half: bool, backwards: bool, like: jax.Array) -> Complex:
    """The transform's matrix, from the rows of values to the columns of coefficients, or back.

    With `half` only the coefficients up to half of the length are there; on the way back the others
    are their conjugates.
    """
    cos, sin = (dd.rational(np.array(x, object), like.dtype) for x in _circle(length))
    count = length // 2 + 1 if half else length
    rows, columns = (count, length) if backwards else (length, count)
    places = np.outer(np.arange(rows), np.arange(columns)) % length
    re, im = (jax.tree.map(lambda part: part[places], x) for x in (cos, sin))
    if not backwards:
        return Complex(re, dd.neg(im))
    twice = np.full(rows, 1 + half)
    twice[0] = 1
    if length % 2 == 0 and half:
        twice[-1] = 1
    share = dd.rational(np.array([Fraction(int(x), length) for x in twice], object), like.dtype)
    share = jax.tree.map(lambda part: jnp.broadcast_to(part[:, None], places.shape), share)
    return Complex(dd.mul(re, share), dd.mul(im, share))


@functools.lru_cache(maxsize=8)
def _circle(length: int) -> tuple[list[Fraction], list[Fraction]]:
    """Cosines and sines of whole parts of a turn."""
    points = []
    with localcontext(prec=50):
        for k in range(length):
            angle = 2 * _PI * k / length
            sums, term = [Decimal(1), Decimal(0)], Decimal(1)
            for n in range(1, 60):
                term = term * angle / n
                sums[n % 2] += -term if n % 4 in (2, 3) else term
            points.append([Fraction(x) for x in sums])
    cos, sin = zip(*points, strict=True)
    return list(cos), list(sin)

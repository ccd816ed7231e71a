r"""Double-double arithmetic: a number as the unevaluated sum of two float64, some 31 digits.

$x = x_{hi} + x_{lo}$ with $|x_{lo}| \le \tfrac12 \mathrm{ulp}(x_{hi})$. Arrays of any shape, in any
JAX transformation but differentiation. Two float32 make some 13 digits; bounds are for float64.

A compiler may contract $a b + c$ to a fused multiply-add (XLA does so for a product that is used
once, on a CPU too), and it may do so in one place where a value is used and not in another. The
rounding error that textbooks compute for a product would then belong to another value. This module
fixes a product by clearing its last bit, an operation on integers that stops contraction, and
splits its factors by clearing bits. Only products that are exact, or too small for their rounding
to matter, can still be contracted. A compiler also replaces $(3 + x) - 3$ by x, whatever the
rounding, so constants are hidden from it.

Sources: T. J. Dekker, Numer. Math. 18 (1971) 224; Y. Hida, X. S. Li, D. H. Bailey, Algorithms for
quad-double precision floating point arithmetic, 15th IEEE Symposium on Computer Arithmetic (2001).
"""

import functools
import itertools
import math
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from physml._numerics.units import max_of

_PI = Fraction("3.14159265358979323846264338327950288419716939937510582")
_LN2 = Fraction("0.69314718055994530941723212145817656807550013436025525")
_TERMS = 27  # of a Taylor series in |x| < 0.8: what is left out is below 2^-105


class DoubleDouble(NamedTuple):
    """The sum of an array of floats and a much smaller one of the same shape and dtype."""

    hi: Float[Array, "*shape"]
    lo: Float[Array, "*shape"]


def exact(x: Float[Array, "*shape"]) -> DoubleDouble:
    """An array of floats as a double-double; the compiler does not see a constant (see above)."""
    return DoubleDouble(jax.lax.optimization_barrier(x), jnp.zeros_like(x))


def two_sum(a: Array, b: Array) -> DoubleDouble:
    """a + b without error (Knuth). Neither may be an expression that ends in a product."""
    s = a + b
    b_virtual = s - a
    return DoubleDouble(s, (a - (s - b_virtual)) + (b - b_virtual))


def fast_two_sum(a: Array, b: Array) -> DoubleDouble:
    """a + b without error where |a| >= |b| or a = 0 (Dekker)."""
    s = a + b
    return DoubleDouble(s, b - (s - a))


def _chop(x: Array, bits: int) -> Array:
    """x with its last bits cleared."""
    integer = jnp.int64 if x.dtype == jnp.float64 else jnp.int32
    whole = jax.lax.bitcast_convert_type(x, integer)
    return jax.lax.bitcast_convert_type(whole & jnp.asarray(-(1 << bits), integer), x.dtype)


def split(x: Array) -> tuple[Array, Array]:
    """x as the exact sum of its leading 26 bits (of float32: 12) and the rest, at most 27 (12)."""
    head = _chop(x, 27 if x.dtype == jnp.float64 else 12)
    return head, x - head


def product_of_split(a: tuple[Array, Array], b: tuple[Array, Array]) -> DoubleDouble:
    """a b to a relative 2^-103, from factors that are already split; hi has 52 bits."""
    (ah, al), (bh, bl) = a, b
    p = _chop((ah + al) * (bh + bl), 1)
    # Every partial sum is exact but the last, whatever is contracted.
    return DoubleDouble(p, ((ah * bh - p) + ah * bl + al * bh) + al * bl)


def two_prod(a: Array, b: Array) -> DoubleDouble:
    """a b to a relative 2^-103, if neither a b nor its last digits overflow or underflow."""
    return product_of_split(split(a), split(b))


def add(a: DoubleDouble, b: DoubleDouble) -> DoubleDouble:
    """a + b to within 2^-104 (|a| + |b|)."""
    s, e = two_sum(a.hi, b.hi)
    return fast_two_sum(s, e + (a.lo + b.lo))


def mul(a: DoubleDouble, b: DoubleDouble) -> DoubleDouble:
    """a b to a relative 2^-101."""
    p, e = two_prod(a.hi, b.hi)
    return fast_two_sum(p, e + (a.hi * b.lo + a.lo * b.hi))


def div(a: DoubleDouble, b: DoubleDouble) -> DoubleDouble:
    """a / b to a relative 2^-100: two digits of a long division."""
    first = a.hi / b.hi
    product = mul(b, exact(first))
    rest = add(a, DoubleDouble(-product.hi, -product.lo))
    return fast_two_sum(first, rest.hi / b.hi)


def rational(values: Fraction | np.ndarray, dtype: DTypeLike) -> DoubleDouble:
    """Fractions, one or an array of them, in a floating dtype."""
    hi = np.vectorize(float)(np.asarray(values)).astype(dtype)
    rest = np.asarray(values) - np.vectorize(lambda x: Fraction(float(x)), otypes="O")(hi)
    lo = np.vectorize(float)(rest).astype(dtype)
    return DoubleDouble(*jax.lax.optimization_barrier((jnp.asarray(hi), jnp.asarray(lo))))


def neg(a: DoubleDouble) -> DoubleDouble:
    """-a."""
    return DoubleDouble(-a.hi, -a.lo)


def where(condition: Array, a: DoubleDouble, b: DoubleDouble) -> DoubleDouble:
    """a where the condition holds, else b."""
    return DoubleDouble(*(jnp.where(condition, x, y) for x, y in zip(a, b, strict=True)))


def dot(a: DoubleDouble, b: DoubleDouble) -> DoubleDouble:
    """The sum of a b over the first axis; the others are broadcast."""
    shape = jnp.broadcast_shapes(a.hi.shape[1:], b.hi.shape[1:])

    def add_product(
        so_far: DoubleDouble, factors: tuple[DoubleDouble, DoubleDouble]
    ) -> tuple[DoubleDouble, None]:
        x, y = jax.tree.map(lambda part: jnp.broadcast_to(part, shape), factors)
        return add(so_far, mul(x, y)), None

    return jax.lax.scan(add_product, exact(jnp.zeros(shape, a.hi.dtype)), (a, b))[0]


def matmul(a: DoubleDouble, b: DoubleDouble, *, digits: float = 1.65) -> DoubleDouble:
    """The product of two matrices, to some 2^-85 of the largest entries of each row and column.

    Each factor is cut into slices of so few bits that the platform's own matrix multiplication of
    two of them is exact, and so is the sum of all products of one order of magnitude.

    Args:
        a, b: the factors.
        digits: those of the result in units of a float's; fewer cost less.

    Source: K. Ozaki, T. Ogita, S. Oishi, S. M. Rump, Error-free transformations of matrix
    multiplication by using fast routines of matrix multiplication, Numer. Algorithms 59 (2012) 95.
    """
    (rows, length), columns = a.hi.shape, b.hi.shape[1]
    held = jnp.finfo(a.hi.dtype).nmant + 1
    num, bits = next(
        (num, bits)
        for num in itertools.count(2)
        if (bits := (held - 1 - (num * length - 1).bit_length()) // 2) * num >= digits * held
    )
    left = _slices(a, 1, bits, num).reshape(num * rows, length)
    right = jnp.moveaxis(_slices(b, 0, bits, num), 0, 1).reshape(length, num * columns)
    with jax.default_matmul_precision("highest"):
        products = (left @ right).reshape(num, rows, num, columns)
    orders = [
        functools.reduce(jnp.add, [products[k, :, n - k] for k in range(n + 1)]) for n in range(num)
    ]
    total = exact(orders[-1])
    for order in reversed(orders[:-1]):  # from the smallest
        total = add(total, exact(order))
    return total


def exactly_summable(x: DoubleDouble, count: int) -> Float[Array, "num rows columns"]:
    """Arrays that add up to the rows of x; sums of up to `count` numbers of one are exact."""
    digits = jnp.finfo(x.hi.dtype).nmant + 1
    bits = max(digits - 1 - count.bit_length(), 1)
    return _slices(x, 1, bits, -(-2 * digits // bits))


def _slices(x: DoubleDouble, axis: int, bits: int, num: int) -> Float[Array, "num *shape"]:
    """Arrays that add up to x, each of whole multiples of a smaller power of two than the last."""
    digits = jnp.finfo(x.hi.dtype).nmant + 1
    at_once = digits // bits
    largest = max_of(jnp.abs(x.hi), axis=axis, keepdims=True)
    unit = _chop(largest, digits - 1)  # the power of two below it
    smallest = float(jnp.finfo(x.hi.dtype).tiny) * 2.0 ** (bits * num)  # of which all slices exist
    unit, slices = 2 * jnp.maximum(unit, smallest), []
    for first in range(0, num, at_once):
        count = min(at_once, num - first)
        steps = np.asarray(0.5 ** (bits * np.arange(1, count + 1)), x.hi.dtype)
        units = unit[None] * steps.reshape(-1, 1, 1)
        rounded = jnp.round(x.hi[None] / units) * units
        slices += [rounded[:1], rounded[1:] - rounded[:-1]]
        unit, x = units[-1], fast_two_sum(x.hi - rounded[-1], x.lo)
    return jnp.concatenate(slices)


def sqrt(a: DoubleDouble) -> DoubleDouble:
    """The root of a by Newton's step from the root in floats."""
    root = jnp.sqrt(a.hi)
    rest = add(a, neg(two_prod(root, root)))
    return fast_two_sum(root, jnp.where(root > 0, rest.hi / (2 * root), 0.0))


def exp(a: DoubleDouble) -> DoubleDouble:
    r"""The exponential of a as $2^k e^r$ with $|r| \le \tfrac12 \ln 2$, by Taylor's series."""
    a = where(jnp.abs(a.hi) < 1500, a, exact(jnp.clip(a.hi, -1500, 1500)))  # zero or infinite
    power = jnp.round(a.hi / math.log(2))
    r = add(a, neg(mul(exact(power), _full(_LN2, power))))
    (result,) = _series(r, [[Fraction(1, math.factorial(n)) for n in range(_TERMS)]])
    # In two halves: 2^k itself may be out of range.
    half = jnp.floor(power / 2).astype(jnp.int32)
    rest = power.astype(jnp.int32) - half
    one = jnp.ones_like(power)
    return DoubleDouble(*(x * jnp.ldexp(one, half) * jnp.ldexp(one, rest) for x in result))


def log(a: DoubleDouble) -> DoubleDouble:
    """The logarithm of a by Newton's step from the logarithm in floats."""
    first = jnp.log(a.hi)
    ratio = mul(a, exp(exact(-first)))
    rest = add(ratio, exact(-jnp.ones_like(first))).hi
    return fast_two_sum(first, jnp.where(jnp.isfinite(first), rest - rest**2 / 2, 0.0))


def sin_cos(a: DoubleDouble) -> tuple[DoubleDouble, DoubleDouble]:
    r"""sin a and cos a by Taylor's series after a reduction to $|r| \le \pi / 4$, for |a| < 1e9."""
    turns = jnp.round(a.hi / (math.pi / 2))
    r = add(a, neg(mul(exact(turns), _full(_PI / 2, turns))))
    inverse = [Fraction((-1) ** (n // 2), math.factorial(n)) for n in range(_TERMS + 1)]
    cos, sin = _series(mul(r, r), [inverse[0::2], inverse[1::2]])
    sin = mul(sin, r)
    quarter = jnp.mod(turns, 4.0)
    swapped = jnp.mod(quarter, 2.0) == 1
    sin, cos = where(swapped, cos, sin), where(swapped, sin, cos)
    sin = where(quarter >= 2, neg(sin), sin)
    return sin, where((quarter == 1) | (quarter == 2), neg(cos), cos)


def atan2(y: DoubleDouble, x: DoubleDouble) -> DoubleDouble:
    """The angle of (x, y) by Newton's step from the angle in floats."""
    first = jnp.arctan2(y.hi, x.hi)
    sin, cos = sin_cos(exact(first))
    across = add(mul(y, cos), neg(mul(x, sin)))
    along = add(mul(x, cos), mul(y, sin))
    step = across.hi / jnp.where(along.hi == 0, 1.0, along.hi)
    return fast_two_sum(first, jnp.where(along.hi == 0, 0.0, step))


def _full(value: Fraction, like: Array) -> DoubleDouble:
    return DoubleDouble(*(jnp.full_like(like, x) for x in rational(value, like.dtype)))


def _series(r: DoubleDouble, coefficients: list[list[Fraction]]) -> list[DoubleDouble]:
    """Power series in r by Horner's rule, in one loop for all."""
    num, shape = len(coefficients), (len(coefficients), *r.hi.shape)
    r = DoubleDouble(*(jnp.broadcast_to(x, shape) for x in r))
    columns = rational(np.array(coefficients).T[::-1], r.hi.dtype)

    def step(sums: DoubleDouble, column: DoubleDouble) -> tuple[DoubleDouble, None]:
        terms = (x.reshape(num, *(1,) * (len(shape) - 1)) for x in column)
        return add(mul(sums, r), DoubleDouble(*(jnp.broadcast_to(x, shape) for x in terms))), None

    sums, _ = jax.lax.scan(step, exact(jnp.zeros_like(r.hi)), columns)
    return [DoubleDouble(hi, lo) for hi, lo in zip(*sums, strict=True)]

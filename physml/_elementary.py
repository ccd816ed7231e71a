"""Square root, exponential, logarithm and the trigonometric functions in double-double."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from physml._double_double import DoubleDouble, add, div, exact, fast_two_sum, mul, two_prod

_PI = Fraction("3.14159265358979323846264338327950288419716939937510582")
_LN2 = Fraction("0.69314718055994530941723212145817656807550013436025525")
_TERMS = 27  # of a Taylor series in |x| < 0.8: what is left out is below 2^-105


def constant(values: Fraction | list[Fraction], like: jax.Array) -> DoubleDouble:
    """Rational numbers, in the dtype of an array."""
    hi = np.vectorize(float)(np.asarray(values)).astype(like.dtype)
    rest = np.asarray(values) - np.vectorize(lambda x: Fraction(float(x)), otypes="O")(hi)
    lo = np.vectorize(float)(rest).astype(like.dtype)
    return DoubleDouble(jnp.asarray(hi), jnp.asarray(lo))


def negative(a: DoubleDouble) -> DoubleDouble:
    """-a."""
    return DoubleDouble(-a.hi, -a.lo)


def where(condition: jax.Array, a: DoubleDouble, b: DoubleDouble) -> DoubleDouble:
    """a where the condition holds, else b."""
    return DoubleDouble(*(jnp.where(condition, x, y) for x, y in zip(a, b, strict=True)))


def sqrt(a: DoubleDouble) -> DoubleDouble:
    """Newton's step from the root in floats."""
    root = jnp.sqrt(a.hi)
    rest = add(a, negative(two_prod(root, root)))
    return fast_two_sum(root, jnp.where(root > 0, rest.hi / (2 * root), 0.0))


def exp(a: DoubleDouble) -> DoubleDouble:
    r"""$2^k e^r$ with $|r| \le \tfrac12 \ln 2$, by Taylor's series."""
    power = jnp.round(a.hi / math.log(2))
    r = add(a, negative(mul(exact(power), _broadcast(_LN2, power))))
    (result,) = _series(r, [[Fraction(1, math.factorial(n)) for n in range(_TERMS)]])
    # In two halves: 2^k itself may be out of range.
    half = jnp.floor(power / 2).astype(jnp.int32)
    rest = power.astype(jnp.int32) - half
    one = jnp.ones_like(power)
    return DoubleDouble(
        *(x * jnp.ldexp(one, half) * jnp.ldexp(one, rest) for x in result),
    )


def log(a: DoubleDouble) -> DoubleDouble:
    """Newton's step from the logarithm in floats."""
    first = jnp.log(a.hi)
    ratio = mul(a, exp(exact(-first)))
    rest = add(ratio, exact(-jnp.ones_like(first))).hi
    return fast_two_sum(first, rest - rest**2 / 2)


def sin_cos(a: DoubleDouble) -> tuple[DoubleDouble, DoubleDouble]:
    r"""Both, by Taylor's series after a reduction to $|r| \le \pi / 4$; for |a| up to 1e9 or so."""
    turns = jnp.round(a.hi / (math.pi / 2))
    r = add(a, negative(mul(exact(turns), _broadcast(_PI / 2, turns))))
    inverse = [Fraction((-1) ** (n // 2), math.factorial(n)) for n in range(_TERMS + 1)]
    cos, sin = _series(mul(r, r), [inverse[0::2], inverse[1::2]])
    sin = mul(sin, r)
    quarter = jnp.mod(turns, 4.0)
    swapped = jnp.mod(quarter, 2.0) == 1
    sin, cos = where(swapped, cos, sin), where(swapped, sin, cos)
    sin = where(quarter >= 2, negative(sin), sin)
    return sin, where((quarter == 1) | (quarter == 2), negative(cos), cos)


def atan2(y: DoubleDouble, x: DoubleDouble) -> DoubleDouble:
    """Newton's step from the angle in floats."""
    first = jnp.arctan2(y.hi, x.hi)
    sin, cos = sin_cos(exact(first))
    across = add(mul(y, cos), negative(mul(x, sin)))
    along = add(mul(x, cos), mul(y, sin))
    return fast_two_sum(first, across.hi / along.hi)


def _broadcast(value: Fraction, like: jax.Array) -> DoubleDouble:
    return DoubleDouble(*(jnp.full_like(like, x) for x in constant(value, like)))


def _series(r: DoubleDouble, coefficients: list[list[Fraction]]) -> list[DoubleDouble]:
    """Power series in r by Horner's rule."""
    rows = [constant(row[::-1], r.hi) for row in coefficients]
    start = [DoubleDouble(jnp.zeros_like(r.hi), jnp.zeros_like(r.hi)) for _ in rows]

    def step(sums, terms):
        return [
            add(mul(total, r), DoubleDouble(*(jnp.broadcast_to(x, r.hi.shape) for x in term)))
            for total, term in zip(sums, terms, strict=True)
        ], None

    return jax.lax.scan(step, start, rows)[0]

r"""Double-double arithmetic: a number as the unevaluated sum of two float64, some 31 digits.

Of two float32 it makes some 13; the bounds below are for float64. $x = x_{hi} + x_{lo}$ with $|x_{lo}| \le \tfrac12 \mathrm{ulp}(x_{hi})$. Arrays of any shape, in any
JAX transformation.

A compiler may contract $a b + c$ to a fused multiply-add (XLA does for a product that is used once,
on a CPU too), and it may do so in one place where a value is used and not in another: the
textbook's error of a product would then be that of a number nobody has. So a product is pinned by
clearing its last bit, an operation on integers that no contraction passes, and its factors are
split by clearing bits. All that is left to contract are products that are exact, or too small for
their rounding to count.

Sources: T. J. Dekker, Numer. Math. 18 (1971) 224; Y. Hida, X. S. Li, D. H. Bailey, Algorithms for
quad-double precision floating point arithmetic, 15th IEEE Symposium on Computer Arithmetic (2001).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class DoubleDouble(NamedTuple):
    """The sum of an array of floats and a much smaller one of the same shape and dtype."""

    hi: Float[Array, "*shape"]
    lo: Float[Array, "*shape"]


def exact(x: Float[Array, "*shape"]) -> DoubleDouble:
    """An array of floats as it is."""
    return DoubleDouble(x, jnp.zeros_like(x))


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
    """a b up to 2^-103 of it, from factors that are already split; hi has 52 bits."""
    (ah, al), (bh, bl) = a, b
    p = _chop((ah + al) * (bh + bl), 1)
    # Every partial sum is exact but the last, whatever is contracted.
    return DoubleDouble(p, ((ah * bh - p) + ah * bl + al * bh) + al * bl)


def two_prod(a: Array, b: Array) -> DoubleDouble:
    """a b up to 2^-103 of it, where neither that nor its last digits overflow or underflow."""
    return product_of_split(split(a), split(b))


def add(a: DoubleDouble, b: DoubleDouble) -> DoubleDouble:
    """a + b up to 2^-104 of |a| + |b|."""
    s, e = two_sum(a.hi, b.hi)
    return fast_two_sum(s, e + (a.lo + b.lo))


def mul(a: DoubleDouble, b: DoubleDouble) -> DoubleDouble:
    """a b up to 2^-101 of it."""
    p, e = two_prod(a.hi, b.hi)
    return fast_two_sum(p, e + (a.hi * b.lo + a.lo * b.hi))


def div(a: DoubleDouble, b: DoubleDouble) -> DoubleDouble:
    """a / b up to 2^-100 of it: two digits of a long division."""
    first = a.hi / b.hi
    product = mul(b, exact(first))
    rest = add(a, DoubleDouble(-product.hi, -product.lo))
    return fast_two_sum(first, rest.hi / b.hi)

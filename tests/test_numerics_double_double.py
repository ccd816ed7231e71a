"""Double-double arithmetic against exact rational arithmetic, compiled as it is used."""

import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml._numerics import double_double as dd
from physml._numerics.double_double import DoubleDouble

pytestmark = pytest.mark.usefixtures("as_compiled_for_users")
NUM = 2000


def numbers(seed):
    """Double-doubles of many sizes and both signs, some of them with awkward bits."""
    random = np.random.default_rng(seed)
    hi = random.normal(size=NUM) * 10.0 ** random.integers(-8, 8, NUM)
    hi[:4] = 1.0, 1 + 2.0**-52, 2 - 2.0**-52, 134217729.0
    lo = hi * 2.0**-54 * random.uniform(-1, 1, NUM)
    return DoubleDouble(jnp.asarray(hi), jnp.asarray(lo))


def rationals(x):
    parts = x if isinstance(x, tuple) else (x,)
    return [sum(Fraction(float(v)) for v in values) for values in zip(*parts, strict=True)]


def worst(found, expected, scale):
    pairs = zip(rationals(found), expected, scale, strict=True)
    return float(max(abs(a - b) / abs(c) for a, b, c in pairs if c))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_sum_of_two_floats_is_exact(seed):
    a, b = numbers(seed).hi, numbers(seed + 10).hi
    exact = [x + y for x, y in zip(rationals(a), rationals(b), strict=True)]
    assert rationals(jax.jit(dd.two_sum)(a, b)) == exact
    large, small = jnp.where(abs(a) > abs(b), a, b), jnp.where(abs(a) > abs(b), b, a)
    assert rationals(jax.jit(dd.fast_two_sum)(large, small)) == exact


def test_a_product_of_two_floats_is_good_to_its_last_digit_and_a_short_one_exact():
    a, b = numbers(0).hi, numbers(1).hi
    exact = [x * y for x, y in zip(rationals(a), rationals(b), strict=True)]
    assert worst(jax.jit(dd.two_prod)(a, b), exact, exact) < 2.0**-103
    short = jnp.asarray(np.asarray(a, np.float32), jnp.float64)
    exact = [x * y for x, y in zip(rationals(short), rationals(short), strict=True)]
    assert rationals(jax.jit(dd.two_prod)(short, short)) == exact


def test_a_product_is_the_same_number_in_every_program():
    # Asked for alone, the error leaves the product with one use, where XLA contracts it.
    a, b = numbers(0).hi, numbers(1).hi
    hi, lo = jax.jit(lambda a, b: dd.two_prod(a, b).hi)(a, b), jax.jit(dd.two_prod)(a, b).lo
    np.testing.assert_array_equal(jax.jit(lambda a, b: dd.two_prod(a, b).lo)(a, b), lo)
    exact = [x * y for x, y in zip(rationals(a), rationals(b), strict=True)]
    assert worst((hi, lo), exact, exact) < 2.0**-103


def test_sums_products_and_quotients():
    a, b = numbers(2), numbers(3)
    pairs = list(zip(rationals(a), rationals(b), strict=True))
    size = [abs(p) + abs(q) for p, q in pairs]
    product, quotient = [p * q for p, q in pairs], [p / q for p, q in pairs]
    assert worst(jax.jit(dd.add)(a, b), [p + q for p, q in pairs], size) < 2.0**-104
    assert worst(jax.jit(dd.mul)(a, b), product, product) < 2.0**-101
    assert worst(jax.jit(dd.div)(a, b), quotient, quotient) < 2.0**-100


def test_one_program_of_many_operations_keeps_the_digits():
    # Where a compiler may fuse and contract: inlined, fused, in a loop, vmapped.
    a, b, c, d = (numbers(seed) for seed in range(4))

    def expression(a, b, c, d):
        return dd.add(dd.mul(dd.add(a, b), dd.mul(c, d)), dd.mul(a, dd.div(b, c)))

    def looped(*args):
        zero = jax.tree.map(jnp.zeros_like, args[0])
        return jax.lax.fori_loop(0, 3, lambda _, total: dd.add(total, expression(*args)), zero)

    rows = list(zip(*(rationals(x) for x in (a, b, c, d)), strict=True))
    exact = [(p + q) * (r * s) + p * (q / r) for p, q, r, s in rows]
    size = [(abs(p) + abs(q)) * abs(r * s) + abs(p * q / r) for p, q, r, s in rows]
    for function in (jax.jit(expression), jax.jit(jax.vmap(expression))):
        assert worst(function(a, b, c, d), exact, size) < 2.0**-98
    assert worst(jax.jit(looped)(a, b, c, d), [3 * e for e in exact], size) < 2.0**-96


def test_the_result_is_rounded_to_its_leading_part():
    total = jax.jit(lambda a, b: dd.mul(dd.add(a, b), a))(numbers(4), numbers(5))
    np.testing.assert_array_equal(total.hi + total.lo, total.hi)


def test_matrix_product():
    a, b = (jax.tree.map(lambda x: x[:60], numbers(seed)) for seed in (6, 7))
    a = jax.tree.map(lambda x: x.reshape(4, 15), a)
    b = jax.tree.map(lambda x: x.reshape(15, 4), b)
    product = jax.jit(jax.vmap(dd.matmul))(*jax.tree.map(lambda x: x[None], (a, b)))
    flat = functools.partial(jax.tree.map, jnp.ravel)
    left, right = (np.array(rationals(flat(x))).reshape(x.hi.shape) for x in (a, b))
    size = np.abs(left).max(axis=1)[:, None] * np.abs(right).max(axis=0)
    assert worst(flat(product), list((left @ right).ravel()), list(size.ravel())) < 2.0**-85

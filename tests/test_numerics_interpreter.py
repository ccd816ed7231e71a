"""Functions in double-double against exact and decimal arithmetic."""

from decimal import Decimal, localcontext
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml._numerics.double_double import DoubleDouble, exact
from physml._numerics.interpreter import by_pairs, in_double_double

pytestmark = pytest.mark.usefixtures("as_compiled_for_users")


def rationals(x: DoubleDouble) -> list[Fraction]:
    pairs = zip(np.ravel(x.hi), np.ravel(x.lo), strict=True)
    return [Fraction(float(hi)) + Fraction(float(lo)) for hi, lo in pairs]


def sine(x: Decimal) -> Decimal:
    total, term, n = Decimal(0), x, 1
    while abs(term) > Decimal("1e-60"):
        total, term, n = total + term, -term * x * x / ((n + 1) * (n + 2)), n + 2
    return total


HALF_PI = Decimal("1.57079632679489661923132169163975144209858469968755291")
DECIMALS = {
    "exp": (jnp.exp, Decimal.exp),
    "log": (jnp.log, Decimal.ln),
    "sqrt": (jnp.sqrt, Decimal.sqrt),
    "sin": (jnp.sin, sine),
    "cos": (jnp.cos, lambda x: sine(HALF_PI - x)),
    "tanh": (jnp.tanh, lambda x: (1 - (-2 * x).exp()) / (1 + (-2 * x).exp())),
    "power": (lambda x: x**1.75, lambda x: (x.ln() * Decimal("1.75")).exp()),
    "arctan": (lambda x: jnp.tan(jnp.arctan(x)), lambda x: x),
    "fourth": (lambda x: (3.0 - x) ** -4 + 1.0 / x, lambda x: 1 / (3 - x) ** 4 + 1 / x),
    "sinh": (lambda x: jnp.sinh(x) + jnp.expm1(x), lambda x: (3 * x.exp() - (-x).exp()) / 2 - 1),
}


@pytest.mark.parametrize("name", DECIMALS)
def test_operations_that_round(name):
    function, expected = DECIMALS[name]
    x = jnp.asarray(np.random.default_rng(0).uniform(0.1, 20.0, 20))
    found = rationals(jax.jit(in_double_double(function))(exact(x)))
    with localcontext(prec=60):
        for value, start in zip(found, x, strict=True):
            truth = expected(Decimal(float(start)))
            value = Decimal(value.numerator) / Decimal(value.denominator)
            assert abs(value - truth) < Decimal("1e-29") * max(1, abs(truth))


def test_powers_have_the_sign_and_the_edges_of_floats():
    x = jnp.array([-2.0, 0.0, 3.0])
    for power in (2.0, 3.0, jnp.asarray(3), -1.0, 1.5):
        found = jax.jit(in_double_double(lambda x, n=power: jnp.power(x, n)))(exact(x))
        np.testing.assert_allclose(found.hi, jnp.power(x, jnp.asarray(power, x.dtype)), rtol=1e-15)
    angle = jax.jit(in_double_double(lambda y: jnp.arctan2(y, 0.0 * y)))(exact(x))
    np.testing.assert_allclose(angle.hi, jnp.arctan2(x, 0.0 * x))
    assert jax.jit(in_double_double(jnp.log))(exact(jnp.zeros(1))).hi == -jnp.inf


OVERFLOWING = {
    "exp": jnp.exp,
    "a step by exp": lambda x: 1.0 / (1.0 + jnp.exp(-x)),
    "logistic": jax.nn.sigmoid,
    "sinh": jnp.sinh,
    "a sum": lambda x: jnp.sum(jnp.exp(x)) - 1.0,
    "tanh": lambda x: jnp.tanh(jnp.exp(x)) / jnp.exp(x),
}


@pytest.mark.parametrize("name", OVERFLOWING)
def test_what_overflows_is_what_it_is_in_floats(name):
    function, x = OVERFLOWING[name], jnp.array([-1e3, 0.0, 1e3, -jnp.inf, jnp.inf])
    found = jax.jit(in_double_double(function))(exact(x))
    np.testing.assert_allclose(found.hi, function(x), rtol=1e-15)
    assert np.all(np.asarray(found.lo)[~np.isfinite(found.hi)] == 0)


@pytest.mark.parametrize("name", ["abs", "sqrt", "sign", "log"])
def test_pairs_hide_neither_nan_nor_infinity(name):
    def parts(re, im):
        z = getattr(jnp, name)(jax.lax.complex(re, im))
        return jnp.stack([jnp.real(z), jnp.imag(z)])

    re, im = jnp.array([jnp.nan, 1.0, jnp.inf, 3.0]), jnp.array([0.0, jnp.nan, 1.0, -4.0])
    np.testing.assert_allclose(by_pairs(parts)(re, im), parts(re, im), rtol=1e-15)


def test_a_complex_operation_without_a_rule_is_that_of_floats():
    def part(x):
        return jnp.imag(jnp.arctan(jax.lax.complex(x, x - 0.5)))

    x = jnp.array([0.3, 1.7])
    found = jax.jit(in_double_double(part))(exact(x))
    np.testing.assert_allclose(found.hi, part(x), rtol=1e-14)


def test_zero_has_no_negative_complex_power():
    def power(x, exponent):
        return jnp.real(jax.lax.complex(x, 0.0) ** exponent)

    for exponent, value in ((0j, 1.0), (1.5 + 0j, 0.0), (-1.5 + 0j, np.nan), (1j, np.nan)):
        found = by_pairs(lambda x, n=exponent: power(x, n))(0.0)
        np.testing.assert_array_equal(found, value)


def test_a_scalar_has_many_powers():
    def polynomial(x):
        return jnp.sum(x ** jnp.arange(1.0, 4.0))

    x = jnp.array([0.5, 2.0, -3.0])
    found = jax.vmap(in_double_double(polynomial))(exact(x))
    np.testing.assert_allclose(found.hi, x + x**2 + x**3, rtol=1e-15)


def test_products_and_sums_of_matrices():
    a, x = (jnp.asarray(y) for y in np.random.default_rng(1).normal(size=(2, 5, 5)))
    product = in_double_double(lambda x: jnp.einsum("ij,kj->ik", a, x).sum(0))
    found = rationals(jax.jit(product)(exact(x)))
    rows = [[Fraction(float(v)) for v in row] for row in np.asarray(x)]
    sums = [sum(Fraction(float(v)) for v in column) for column in np.asarray(a).T]
    for value, row in zip(found, rows, strict=True):
        assert abs(value - sum(s * v for s, v in zip(sums, row, strict=True))) < 1e-29


def test_what_does_not_round_loses_nothing_and_what_has_no_rule_a_rounding():
    x = DoubleDouble(jnp.array([1.0, -2.0, 3.0]), jnp.array([1e-17, 2e-17, -3e-17]))

    def shuffled(x):
        return jnp.where(x > 0, jnp.roll(x, 1), jnp.maximum(-x, 0.5))[::-1]

    found = jax.jit(in_double_double(shuffled))(x)
    assert rationals(found) == [rationals(x)[1], -rationals(x)[1], rationals(x)[2]]

    hi, lo = jax.jit(in_double_double(jax.scipy.special.erf))(x)
    value, change = jax.jvp(jax.scipy.special.erf, (x.hi,), (x.lo,))
    np.testing.assert_allclose(hi, value, rtol=1e-15)
    np.testing.assert_allclose((hi - value) + lo, change, rtol=1e-6)


def joined(x):
    return jax.lax.complex(*jnp.split(x, 2))


def parts(z):
    return jnp.concatenate([z.real, z.imag])


REPEATED = jnp.array([0, 0, 2])
# What gives z back, if each operation is right to all digits.
IDENTITIES = {
    "square root": lambda z: jnp.sqrt(z) ** 2,
    "reciprocal root": lambda z: 1.0 / jax.lax.rsqrt(z) ** 2,
    "power": lambda z: (z ** (0.5 + 0.5j)) ** (1.0 - 1.0j),
    "exponential": lambda z: jnp.exp(jnp.log(z)),
    "near one": lambda z: jnp.log1p(jnp.expm1(z)),
    "tangents": lambda z: z + jnp.tan(z) * jnp.cos(z) - jnp.sin(z),
    "hyperbolic": lambda z: z + jnp.tanh(z) * jnp.cosh(z) - jnp.sinh(z),
    "logistic": lambda z: -jnp.log(1.0 / jax.lax.logistic(z) - 1.0),
    "sign": lambda z: jnp.sign(z) * jnp.abs(z).astype(complex),
    "transform": lambda z: jnp.fft.ifft(jnp.fft.fft(z)),
    "in a plane": lambda z: jnp.fft.ifft2(jnp.fft.fft2(z.reshape(3, 2))).ravel(),
    "of real numbers": lambda z: jax.lax.complex(jnp.fft.irfft(jnp.fft.rfft(z.real)), z.imag),
    "split": lambda z: jnp.concatenate(jnp.split(z, 3)),
    "scan": lambda z: jax.lax.scan(lambda c, x: (c + x, (c + x) - c), 0j * z[0], z)[1],
    "while": lambda z: jax.lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * (1 + 2j) / (1 + 2j)), (0, z)
    )[1],
    "while, each its own turns": lambda z: (
        jax.vmap(lambda z: jax.lax.while_loop(lambda c: jnp.abs(c) < 100, lambda c: 2 * c, z))(z)
        / (2.0 ** jnp.ceil(jnp.log2(100 / jnp.abs(z)))).astype(complex)
    ),
    "cond": lambda z: jax.lax.cond(z[0].real > 0, lambda x: x / 3 * 3, lambda x: 2 * x, z),
    "scatter": lambda z: z.at[REPEATED].add(1e5 * z[:3]).at[REPEATED].add(-1e5 * z[:3]),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_complex_numbers_and_loops_in_all_digits(name):
    def function(x):
        return parts(IDENTITIES[name](joined(x)))

    x = jnp.asarray(np.random.default_rng(2).uniform(0.2, 1.2, 12))
    lo = 1e-17 * x[::-1]  # digits that a float would lose
    found = rationals(jax.jit(in_double_double(function))(DoubleDouble(x, lo)))
    for value, truth in zip(found, rationals(DoubleDouble(x, lo)), strict=True):
        assert abs(value - truth) < 2e-24


def test_products_with_nothing():
    """A right-hand side may have parts without components."""
    x = jnp.arange(1.0, 4.0)
    found = in_double_double(lambda x: jnp.append(jnp.zeros((0, 3)) @ x, x))(exact(x))
    np.testing.assert_array_equal(found.hi, x)
    np.testing.assert_array_equal(
        in_double_double(lambda x: x + jnp.zeros((3, 0)) @ x[:0])(exact(x)).hi, x
    )


def test_a_transform_against_its_sum():
    x = jnp.asarray(np.random.default_rng(3).normal(size=4))
    exact_in = [Fraction(float(v)) for v in x]
    found = jax.jit(in_double_double(lambda x: parts(jnp.fft.rfft(x))))(exact(x))
    a, b, c, d = exact_in
    truth = [a + b + c + d, a - c, a - b + c - d, 0, d - b, 0]
    for value, expected in zip(rationals(found), truth, strict=True):
        assert abs(value - expected) < 1e-24


def test_float32():
    x = jnp.linspace(0.1, 3.0, 20, dtype=jnp.float32)
    found = jax.jit(in_double_double(lambda x: jnp.sin(x) * x + 8.0 / 3.0))(exact(x))
    assert found.hi.dtype == jnp.float32
    wide = np.asarray(x, np.float64)
    truth = np.sin(wide) * wide + np.float64(np.float32(8.0 / 3.0))
    total = np.asarray(found.hi, np.float64) + np.asarray(found.lo, np.float64)
    np.testing.assert_allclose(total, truth, rtol=1e-13)

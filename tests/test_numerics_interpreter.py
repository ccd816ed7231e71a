"""Functions in double-double against exact and decimal arithmetic."""

from decimal import Decimal, localcontext
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml._numerics.double_double import DoubleDouble, exact
from physml._numerics.interpreter import in_double_double

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

    def looped(x):
        return jax.lax.scan(lambda y, _: (jax.scipy.special.erf(y), None), x, length=2)[0]

    hi, lo = jax.jit(in_double_double(looped))(x)
    value, change = jax.jvp(looped, (x.hi,), (x.lo,))
    np.testing.assert_allclose(hi, value, rtol=1e-15)
    np.testing.assert_allclose((hi - value) + lo, change, rtol=1e-6)


def test_float32():
    x = jnp.linspace(0.1, 3.0, 20, dtype=jnp.float32)
    found = jax.jit(in_double_double(lambda x: jnp.sin(x) * x + 8.0 / 3.0))(exact(x))
    assert found.hi.dtype == jnp.float32
    wide = np.asarray(x, np.float64)
    truth = np.sin(wide) * wide + np.float64(np.float32(8.0 / 3.0))
    total = np.asarray(found.hi, np.float64) + np.asarray(found.lo, np.float64)
    np.testing.assert_allclose(total, truth, rtol=1e-13)

"""Noise models against scipy.stats: densities, draws, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import refusals

from physml import bayes

VALUES = np.abs(np.random.default_rng(0).normal(3.0, 1.0, (40, 2))) + 0.1
SCALE = np.tile([0.3, 1.2], (40, 1))
CASES = {
    "normal": (bayes.NormalNoise(), lambda v, s: scipy.stats.norm(v, s)),
    "lognormal": (bayes.LogNormalNoise(), lambda v, s: scipy.stats.lognorm(s, scale=v)),
    "student": (bayes.StudentNoise(3.5), lambda v, s: scipy.stats.t(3.5, v, s)),
}


@pytest.mark.parametrize("name", CASES)
def test_density_and_draws_are_those_of_scipy(name):
    noise, scipys = CASES[name]
    law = scipys(VALUES, SCALE)
    ys = law.rvs(random_state=1)
    log = noise.log_density(jnp.asarray(VALUES), jnp.asarray(ys), jnp.asarray(SCALE))
    np.testing.assert_allclose(log, law.logpdf(ys), rtol=1e-12, atol=1e-12)
    ranks = law.cdf(noise.sample(jax.random.key(0), jnp.asarray(VALUES), jnp.asarray(SCALE)))
    assert scipy.stats.kstest(ranks.ravel(), "uniform").pvalue > 0.01
    many = np.random.default_rng(2).uniform(size=(4000, 2))
    values = jnp.full((4000, 2), 3.0)
    guess = noise.guess(values, jnp.asarray(scipys(3.0, np.array([0.3, 1.2])).ppf(many)))
    np.testing.assert_allclose(guess, [0.3, 1.2], rtol=0.2)


def test_counts_are_those_of_scipy():
    noise, values = bayes.PoissonNoise(), jnp.asarray(VALUES)
    ys = scipy.stats.poisson(VALUES).rvs(random_state=1).astype(float)
    log = noise.log_density(values, jnp.asarray(ys), values)
    np.testing.assert_allclose(log, scipy.stats.poisson(VALUES).logpmf(ys), rtol=1e-12)
    mean = noise.sample(jax.random.key(0), jnp.full((4000, 2), 3.0), values).mean()
    assert abs(mean - 3.0) < 4 * np.sqrt(3.0 / 8000)
    some = jnp.array([[0.0, 0.0, -1.0]])
    of_nothing = noise.log_density(some, jnp.array([[0.0, 1.0, 0.0]]), some)
    np.testing.assert_array_equal(of_nothing, [[0.0, -np.inf, -np.inf]])


def test_an_impossible_value_has_no_density():
    one = jnp.ones((1, 1))
    assert bayes.LogNormalNoise().log_density(-one, one, one)[0, 0] == -jnp.inf
    slope = jax.grad(lambda v: bayes.LogNormalNoise().log_density(v, one, one)[0, 0])(-one)
    assert np.isfinite(slope).all()


@refusals(
    (lambda: bayes.NormalNoise(-1.0), "scale must be positive"),
    (lambda: bayes.StudentNoise(0.0), "degrees must be positive"),
    (lambda: bayes.LogNormalNoise("x"), "scale must be", TypeError),
    (lambda: bayes.LogNormalNoise().check(jnp.zeros((2, 1))), "ys must be positive"),
    (lambda: bayes.PoissonNoise().check(jnp.full((2, 1), 0.5)), "ys must be counts"),
)
@pytest.mark.usefixtures("as_a_user")
def test_bad_noise_is_refused(case):
    case()

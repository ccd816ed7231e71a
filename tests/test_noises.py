"""Noise models against scipy.stats: densities, draws, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import refusals

from physml import noises

VALUES = np.abs(np.random.default_rng(0).normal(3.0, 1.0, (40, 2))) + 0.1
SCALE = np.tile([0.3, 1.2], (40, 1))
CASES = {
    "normal": (noises.NormalNoise(), lambda v, s: scipy.stats.norm(v, s)),
    "lognormal": (noises.LogNormalNoise(), lambda v, s: scipy.stats.lognorm(s, scale=v)),
    "student": (noises.StudentNoise(3.5), lambda v, s: scipy.stats.t(3.5, v, s)),
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
    np.testing.assert_allclose(guess, [0.3, 1.2], rtol=0.05)


def test_counts_are_those_of_scipy():
    noise, values = noises.PoissonNoise(), jnp.asarray(VALUES)
    ys = scipy.stats.poisson(VALUES).rvs(random_state=1).astype(float)
    log = noise.log_density(values, jnp.asarray(ys), values)
    np.testing.assert_allclose(log, scipy.stats.poisson(VALUES).logpmf(ys), rtol=1e-12)
    mean = noise.sample(jax.random.key(0), jnp.full((4000, 2), 3.0), values).mean()
    assert abs(mean - 3.0) < 4 * np.sqrt(3.0 / 8000)
    some = jnp.array([[0.0, 0.0, -1.0]])
    of_nothing = noise.log_density(some, jnp.array([[0.0, 1.0, 0.0]]), some)
    np.testing.assert_array_equal(of_nothing, [[0.0, -np.inf, -np.inf]])


EVERY = {name: noise for name, (noise, _) in CASES.items()} | {"counts": noises.PoissonNoise()}


@pytest.mark.parametrize("name", EVERY)
def test_least_squares_take_the_score_and_its_information(name):
    """The cost is -2 log density up to a constant, r has mean 0 and variance 1 over the draws."""
    noise, values, scale = EVERY[name], jnp.full((60_000, 1), 4.0), jnp.full((60_000, 1), 0.3)
    ys = noise.sample(jax.random.key(3), values, scale)
    white = noise.whiten(values, ys, scale)
    assert abs(white.r.mean()) < 0.02 and abs((white.r**2).mean() - 1) < 0.03
    some = tuple(x[:50] for x in (values, ys, scale))
    score = jax.grad(lambda v: jnp.sum(noise.log_density(v, *some[1:])))(some[0])
    slope = jax.grad(lambda v: jnp.sum(noise.whiten(v, *some[1:]).cost))(some[0])
    np.testing.assert_allclose(slope, -2 * score, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(2 * (white.r * white.slope)[:50], slope, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("noise", [noises.LogNormalNoise(), noises.PoissonNoise()])
def test_the_cost_goes_on_where_no_value_is_possible(noise):
    """Once differentiable where the parabola begins, and it leads back."""
    ys, scale = jnp.full((5, 1), 2.0), jnp.full((5, 1), 0.1)
    least = 1e-3 * (2.0 if noise.has_scale else 1.0)
    values = jnp.array([[-3.0], [0.0], [0.5 * least], [least * (1 - 1e-9)], [least * (1 + 1e-9)]])
    white = noise.whiten(values, ys, scale)
    assert np.all(np.isfinite(white.cost)) and np.all(np.diff(white.cost[:, 0]) < 0)
    np.testing.assert_allclose(white.r[3] * white.slope[3], white.r[4] * white.slope[4], rtol=1e-6)
    slope = jax.grad(lambda v: jnp.sum(noise.whiten(v, ys, scale).cost))(values)
    np.testing.assert_allclose(slope, 2 * white.r * white.slope, rtol=1e-6)


def test_what_was_not_seen_does_not_count():
    ys = jnp.array([[1.1], [jnp.nan], [0.8]])
    seen = noises.StudentNoise().guess(jnp.ones((2, 1)), ys[jnp.array([0, 2])])
    np.testing.assert_allclose(noises.StudentNoise().guess(jnp.ones((3, 1)), ys), seen)
    noises.PoissonNoise().check(jnp.array([[1.0], [jnp.nan]]))


def test_an_impossible_value_has_no_density():
    one = jnp.ones((1, 1))
    assert noises.LogNormalNoise().log_density(-one, one, one)[0, 0] == -jnp.inf
    slope = jax.grad(lambda v: noises.LogNormalNoise().log_density(v, one, one)[0, 0])(-one)
    assert np.isfinite(slope).all()


@refusals(
    (lambda: noises.NormalNoise(-1.0), "scale must be positive"),
    (lambda: noises.StudentNoise(0.0), "degrees must be positive"),
    (lambda: noises.LogNormalNoise("x"), "scale must be", TypeError),
    (lambda: noises.LogNormalNoise().check(jnp.zeros((2, 1))), "ys must be positive"),
    (lambda: noises.PoissonNoise().check(jnp.full((2, 1), 0.5)), "ys must be counts"),
)
@pytest.mark.usefixtures("as_a_user")
def test_bad_noise_is_refused(case):
    case()

"""Leaving one out against ArviZ and against closed forms."""

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from helpers import refusals

from physml import bayes, pinn
from physml.bayes._comparison import pareto_smoothed
from physml.systems import from_function

KEY = jax.random.key(0)
TIMES = np.linspace(0.0, 2.0, 15)
YS = (1.0 + 0.5 * TIMES + 0.1 * np.random.default_rng(0).normal(size=15))[:, None]


@pytest.mark.parametrize("shape", [-0.3, 0.2, 0.6])
def test_tails_are_those_of_scipy(shape):
    """k of ratios whose tail is a Pareto distribution of known shape."""
    law = scipy.stats.genpareto(shape)
    ratios = law.rvs(size=(20000, 40), random_state=0)
    weights, k = pareto_smoothed(np.log(ratios))
    np.testing.assert_allclose(np.mean(k), shape, atol=0.04)
    np.testing.assert_allclose(jnp.sum(jnp.exp(weights), axis=0), 1.0, rtol=1e-10)


def straight(v=0.4):
    return from_function(lambda t, y, args: args["v"] * jnp.ones_like(y), 1, args={"v": v})


def constant(v=0.4):
    return from_function(lambda t, y, args: 0.0 * args["v"] * y, 1, args={"v": v})


@pytest.fixture(scope="module")
def beliefs():
    priors = {"v": dist.Normal(0.0, 2.0), "y0": dist.Normal(0.0, 2.0)}

    def belief(system, **options):
        found = pinn.identify(
            system, TIMES, YS, free=("v",), noise=0.1, num_windows=3, throw=False, **options
        )
        return bayes.posterior(found, key=KEY, priors=priors, num_chains=2)

    with pytest.warns(UserWarning, match="pinn.identify"):
        flat = belief(constant())
    return {"straight": belief(straight()), "constant": flat}


@pytest.mark.slow
def test_leaving_one_out_is_what_gaussian_algebra_gives(beliefs):
    design = np.stack([TIMES, np.ones_like(TIMES)], axis=1)
    covariance = 0.01 * np.eye(15) + 4.0 * design @ design.T
    exact = []
    for i in range(15):  # the mean and variance of one observation, given the others
        rest = np.arange(15) != i
        row = np.linalg.solve(covariance[rest][:, rest], covariance[i, rest])
        mean, variance = row @ YS[rest, 0], covariance[i, i] - row @ covariance[i, rest]
        exact.append(scipy.stats.norm(mean, np.sqrt(variance)).logpdf(YS[i, 0]))
    found = bayes.leave_one_out(beliefs["straight"])
    np.testing.assert_allclose(found.pointwise[:, 0], exact, atol=0.05)
    assert np.all(found.pareto_k < 0.7) and 1.0 < found.num_effective < 3.0
    by_arviz = arviz.loo(beliefs["straight"].to_arviz(), pointwise=True)
    elpd = by_arviz.elpd_loo if hasattr(by_arviz, "elpd_loo") else by_arviz.elpd
    np.testing.assert_allclose(found.elpd, elpd, atol=0.02)
    np.testing.assert_allclose(found.pareto_k.ravel(), np.ravel(by_arviz.pareto_k), atol=0.05)
    rows = bayes.compare(beliefs)
    assert [row.name for row in rows] == ["straight", "constant"]
    assert rows[0].behind == 0 and rows[1].behind > 3 * rows[1].behind_error
    law = scipy.stats.multivariate_normal(np.zeros(15), covariance)
    np.testing.assert_allclose(rows[0].log_evidence, law.logpdf(YS[:, 0]), rtol=1e-6)


@refusals(
    (lambda: bayes.compare({}), "beliefs must not be empty"),
    (lambda: pareto_smoothed(np.ones((10, 1))), "log_ratios must hold at least 25"),
)
@pytest.mark.usefixtures("as_a_user")
def test_bad_comparisons_are_refused(case):
    case()

"""Posteriors against closed forms and quadrature; the sampler's diagnostics against ArviZ."""

import signal

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.diagnostics
import numpyro.distributions as dist
import pytest
import scipy.stats
from helpers import assert_same_leaves, refusals

from physml import bayes, noises, pinn
from physml.results import RESULTS
from physml.systems import from_function

KEY = jax.random.key(0)
TIMES = np.linspace(0.0, 3.0, 12)
SD = 0.05


def drift(velocity=0.0):
    """x' = v: the solution is linear in v and the start."""
    return from_function(lambda t, y, args: args["v"] * jnp.ones_like(y), 1, args={"v": velocity})


def decay(rate=1.0):
    return from_function(lambda t, y, args: -args["k"] * y, 1, args={"k": rate})


def identified(system, clean, unit=1.0, second=1.0, sd=SD, **options):
    noise = np.random.default_rng(3).normal(0.0, SD, TIMES.shape)
    ys = unit * (clean(TIMES) + noise)[:, None]
    noise = None if sd is None else unit * sd
    return pinn.identify(system, second * TIMES, ys, noise=noise, num_windows=3, **options)


@pytest.fixture(scope="module")
def line():
    return identified(drift(), lambda t: 1.0 + 0.5 * t, free=("v",))


@pytest.fixture(scope="module")
def exponential():
    return identified(decay(), lambda t: np.exp(-1.3 * t), free=("k",), bounds={"k": (0.0, np.inf)})


PRIORS = {"v": dist.Normal(0.3, 0.4), "y0": dist.Normal(0.8, 0.3)}


def exact_line(found):
    """Mean, covariance and log evidence of the linear problem, by Gaussian algebra."""
    design = np.stack([TIMES, np.ones_like(TIMES)], axis=1)
    mean, prior = np.array([0.3, 0.8]), np.diag([0.4**2, 0.3**2])
    ys = np.asarray(found.problem.ys)[:, 0]
    covariance = np.linalg.inv(np.linalg.inv(prior) + design.T @ design / SD**2)
    posterior = covariance @ (np.linalg.solve(prior, mean) + design.T @ ys / SD**2)
    law = scipy.stats.multivariate_normal(
        design @ mean, SD**2 * np.eye(len(TIMES)) + design @ prior @ design.T
    )
    return posterior, covariance, law.logpdf(ys)


def test_laplace_of_a_linear_problem_is_exact(line):
    mean, covariance, evidence = exact_line(line)
    belief = bayes.posterior(line, key=KEY, method="laplace", priors=PRIORS, num_draws=2000)
    assert belief.result == RESULTS.successful
    np.testing.assert_allclose(belief.mode.q, mean, rtol=1e-8)
    np.testing.assert_allclose(belief.mode.half @ belief.mode.half.T, covariance, rtol=1e-8)
    np.testing.assert_allclose(belief.log_evidence, evidence, rtol=1e-8)
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose([belief.sd["v"], belief.sd["y0"][0]], sd, rtol=0.05)
    low, high = belief.intervals(0.9)["v"]
    np.testing.assert_allclose([low, high], mean[0] + sd[0] * np.array([-1.645, 1.645]), rtol=0.01)


def test_flat_priors_give_what_was_identified(line):
    belief = bayes.posterior(line, key=KEY, method="laplace", num_draws=10)
    np.testing.assert_allclose(belief.mode.q, [line.values["v"], line.y0[0]], rtol=1e-6)
    np.testing.assert_allclose(belief.mode.half @ belief.mode.half.T, line.covariance, rtol=1e-5)
    assert np.isnan(belief.log_evidence)


def quadrature(found, prior):
    """Moments of rate and start of the decay, by a sum over a fine grid."""
    k, y = np.meshgrid(np.linspace(0.8, 1.9, 400), np.linspace(0.7, 1.3, 400), indexing="ij")
    ys = np.asarray(found.problem.ys)[:, 0]
    r = (ys - y[..., None] * np.exp(-k[..., None] * TIMES)) / SD
    log = -0.5 * np.sum(r**2, axis=-1) + prior(k)
    weight = np.exp(log - log.max())
    moments = [np.sum(weight * x) / weight.sum() for x in (k, y, k**2, y**2)]
    return np.array(moments[:2]), np.sqrt(np.array(moments[2:]) - np.array(moments[:2]) ** 2)


@pytest.mark.slow
def test_nuts_on_a_decay_is_what_quadrature_gives(exponential):
    prior = scipy.stats.norm(1.0, 0.1).logpdf
    mean, sd = quadrature(exponential, prior)
    belief = bayes.posterior(exponential, key=KEY, priors={"k": dist.Normal(1.0, 0.1)})
    assert belief.result == RESULTS.successful
    found = np.array([belief.mean["k"], belief.mean["y0"][0]])
    error = np.array([belief.mean_error["k"], belief.mean_error["y0"][0]])
    assert np.all(error < 0.03 * sd) and np.all(np.abs(found - mean) < 4 * error)
    np.testing.assert_allclose([belief.sd["k"], belief.sd["y0"][0]], sd, rtol=0.06)
    assert belief.ess["k"] > 1000 and belief.rhat["k"] < 1.01
    seen = belief.predict(TIMES, key=KEY, num=500)[..., 0]
    assert np.all(np.abs(seen.mean(axis=0) - mean[1] * np.exp(-mean[0] * TIMES)) < 0.2 * SD)
    noisy = belief.predict(TIMES, key=KEY, num=500, noisy=True)[..., 0]
    np.testing.assert_allclose(noisy.std(axis=0), np.hypot(seen.std(axis=0), SD), rtol=0.15)
    record = belief.to_arviz()
    np.testing.assert_array_equal(record["posterior"]["k"].values, belief.draws["k"])
    assert record["log_likelihood"]["y"].shape == (4, 1000, 12, 1)


@pytest.mark.slow
def test_chains_that_are_cut_go_on_to_the_same_bits(exponential, tmp_path, monkeypatch):
    def cut_at(step):
        return lambda report: report.step == step and signal.raise_signal(signal.SIGINT)

    options = {"priors": {"k": dist.Normal(1.0, 0.1)}, "num_chains": 2}
    options |= {"num_draws": 500, "num_warmup": 100}
    kept = {"checkpoint": tmp_path / "chains"}
    whole = bayes.posterior(exponential, key=KEY, **options)
    monkeypatch.setattr("physml.fit._loop.CHUNK_SECONDS", 0.0)  # a step
    with pytest.raises(KeyboardInterrupt):  # before there are draws
        bayes.posterior(exponential, key=KEY, progress=cut_at(70), **kept, **options)
    with pytest.warns(UserWarning, match="Ctrl-C"):
        part = bayes.posterior(exponential, key=KEY, progress=cut_at(170), **kept, **options)
    assert part.result == RESULTS.interrupted
    np.testing.assert_array_equal(part.draws["k"], whole.draws["k"][:, :70])
    resumed = bayes.posterior(exponential, key=KEY, **kept, **options)
    assert_same_leaves(resumed, whole)
    with pytest.raises(ValueError, match="checkpoint must be of this very fit"):
        bayes.posterior(exponential, key=jax.random.key(1), **kept, **options)


@pytest.mark.slow
def test_an_unknown_noise_is_found_with_its_uncertainty():
    """A known mean would give the inverse gamma distribution; the start is all that is unknown."""
    found = identified(drift(), lambda t: 1.0 + 0.0 * t, sd=None, free=("v",), prior={"v": 1e-9})
    belief = bayes.posterior(found, key=KEY, num_chains=2)
    n = TIMES.size
    ys = np.asarray(found.problem.ys)[:, 0]
    square = np.sum((ys - ys.mean()) ** 2)  # variance: inverse gamma((n - 1)/2, square/2)
    expected = scipy.stats.invgamma((n - 1) / 2, scale=square / 2)
    variance = np.asarray(belief.draws["noise"] ** 2).ravel()
    for level in (0.1, 0.5, 0.9):
        assert abs(np.mean(variance < expected.ppf(level)) - level) < 0.04


@pytest.mark.slow
@pytest.mark.parametrize(("unit", "second"), [(1e12, 1e-9), (1e-15, 1e6)])
def test_other_units_give_the_same_posterior(exponential, unit, second):
    options = {"free": ("k",), "bounds": {"k": (0.0, np.inf)}}
    found = identified(decay(1.0 / second), lambda t: np.exp(-1.3 * t), unit, second, **options)
    one, other = (
        bayes.posterior(x, key=KEY, method="laplace", noise=noises.StudentNoise(), substeps=4)
        for x in (exponential, found)
    )
    values, others = (x.model.constrain(x.mode.q) for x in (one, other))
    np.testing.assert_allclose(others["k"] * second, values["k"], rtol=1e-7)
    np.testing.assert_allclose(others["y0"] / unit, values["y0"], rtol=1e-7)
    np.testing.assert_allclose(others["noise"] / unit, values["noise"], rtol=1e-6)
    sizes = np.array([1.0, unit, 1.0])  # q holds the logarithms of rate and noise
    covariance, expected = (x.mode.half @ x.mode.half.T for x in (other, one))
    np.testing.assert_allclose(covariance / np.outer(sizes, sizes), expected, rtol=1e-5, atol=1e-12)


def test_diagnostics_are_those_of_numpyro_and_arviz():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(3, 500))
    slow = np.zeros((3, 500))
    for i in range(1, 500):
        slow[:, i] = 0.9 * slow[:, i - 1] + noise[:, i]
    for x in (noise, slow, slow + np.array([[0.0], [1.0], [5.0]])):
        rhat = numpyro.diagnostics.split_gelman_rubin(x)
        np.testing.assert_allclose(bayes.split_rhat(x), rhat, rtol=1e-10)
        np.testing.assert_allclose(
            bayes.effective_sample_size(x), arviz.ess(x, method="mean"), rtol=0.03
        )


def test_coverage_of_what_is_known():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=4000)
    mean = truth + rng.normal(size=4000)
    law = scipy.stats.norm
    levels = (0.3, 0.9)
    right = bayes.coverage_of_normals(mean, np.ones(4000), truth, levels)
    assert np.all(np.abs(right.shares - levels) < 3.5 * right.errors)
    small = bayes.coverage_of_normals(mean, 0.5 * np.ones(4000), truth, levels)
    expected = [2 * law.cdf(0.5 * law.ppf(0.5 + x / 2)) - 1 for x in levels]
    assert np.all(np.abs(small.shares - expected) < 3.5 * small.errors)
    draws = mean + rng.normal(size=(999, 4000))
    by_draws = bayes.coverage_of_draws(draws, truth, levels)
    assert np.all(np.abs(by_draws.shares - right.shares) < 0.01)
    assert right.at(0.9) == right.shares[1]


@refusals(
    ({"priors": {"w": dist.Normal()}}, "priors must name unknowns"),
    ({"priors": {"k": 3.0}}, "priors must hold distributions", TypeError),
    ({"priors": {"k": dist.Uniform(1.0, 2.0)}}, "priors must allow all values"),
    ({"noise": noises.PoissonNoise()}, "ys must be counts"),
    ({"method": "gibbs"}, "method must be one of"),
    ({"num_draws": 2}, "num_draws must be"),
    ({"substeps": 0}, "substeps must be"),
    ({"noise": "normal"}, "noise must be", TypeError),
)
@pytest.mark.usefixtures("as_a_user")
def test_bad_calls_are_refused(case, exponential):
    bayes.posterior(exponential, key=KEY, **case)


@pytest.mark.slow
def test_a_posterior_without_a_mode_is_said():
    """Nothing depends on k where the state is zero."""
    ys = 1e-6 * np.random.default_rng(0).normal(size=(12, 1))
    with pytest.warns(UserWarning, match="pinn.identify"):
        found = pinn.identify(decay(), TIMES, ys, free=("k",), noise=1e-6, num_windows=3)
    with pytest.warns(UserWarning, match="bayes.posterior"):
        belief = bayes.posterior(found, key=KEY, method="laplace", num_draws=10, throw=False)
    assert belief.result != RESULTS.successful

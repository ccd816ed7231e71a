"""Networks' beliefs against scikit-learn, Gaussian algebra and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx
from helpers import refusals

from physml import bayes, nn

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
FEATURES = jnp.asarray(RNG.normal(size=(40, 6)) * np.array([1.0, 2.0, 0.5, 1.0, 1.0, 3.0]))
TARGETS = FEATURES @ jnp.asarray(RNG.normal(size=(6, 2))) + 0.3 * RNG.normal(size=(40, 2))


def test_precisions_and_predictions_are_those_of_scikit_learn():
    from sklearn.linear_model import BayesianRidge

    belief = bayes.linear(FEATURES, TARGETS)
    found, rows = belief.predict(FEATURES), np.asarray(FEATURES)
    for i in range(2):
        options = {"alpha_1": 0.0, "alpha_2": 0.0, "lambda_1": 0.0, "lambda_2": 0.0}
        model = BayesianRidge(max_iter=5000, tol=1e-13, fit_intercept=False, **options)
        model.fit(rows, np.asarray(TARGETS[:, i]))
        np.testing.assert_allclose(belief.noise_precision[i], model.alpha_, rtol=1e-7)
        np.testing.assert_allclose(belief.prior_precision[i], model.lambda_, rtol=1e-7)
        np.testing.assert_allclose(belief.weights[:, i], model.coef_, rtol=1e-7)
        mean, sd = model.predict(rows, return_std=True)
        np.testing.assert_allclose(found.mean[:, i], mean, rtol=1e-7)
        np.testing.assert_allclose(found.total[:, i], sd, rtol=1e-7)


@pytest.mark.parametrize(("rows", "rtol"), [(40, 1e-8), (4, 1e-6)])  # 4 rows leave no noise
def test_evidence_is_the_probability_of_the_data(rows, rtol):
    belief = bayes.linear(FEATURES[:rows], TARGETS[:rows])
    for i in range(2):
        f, beta = np.asarray(FEATURES[:rows]), belief.noise_precision[i]
        covariance = np.eye(rows) / beta + f @ f.T / belief.prior_precision[i]
        law = scipy.stats.multivariate_normal(np.zeros(rows), covariance)
        expected = law.logpdf(np.asarray(TARGETS[:rows, i]))
        np.testing.assert_allclose(belief.log_evidence[i], expected, rtol=rtol)


def test_a_precision_that_is_not_the_likeliest_has_less_evidence():
    belief = bayes.linear(FEATURES, TARGETS[:, :1])
    f = np.asarray(FEATURES)

    def evidence(alpha, beta):
        covariance = np.eye(40) / beta + f @ f.T / alpha
        law = scipy.stats.multivariate_normal(np.zeros(40), covariance)
        return law.logpdf(np.asarray(TARGETS[:, 0]))

    alpha, beta = float(belief.prior_precision[0]), float(belief.noise_precision[0])
    best = evidence(alpha, beta)
    for factor in (0.9, 1.1):
        assert evidence(factor * alpha, beta) < best and evidence(alpha, factor * beta) < best


def test_units_of_the_targets_scale_the_answer():
    one, other = bayes.linear(FEATURES, TARGETS), bayes.linear(FEATURES, 1e12 * TARGETS)
    np.testing.assert_allclose(1e-12 * other.weights, one.weights, rtol=1e-9)
    np.testing.assert_allclose(1e24 * other.noise_precision, one.noise_precision, rtol=1e-9)


def points(n=40):
    x = jnp.linspace(-1.0, 1.0, n)[:, None]
    return x, jnp.sin(3.0 * x) + 0.1 * jax.random.normal(KEY, x.shape)


def test_last_layer_is_linear_regression_on_features():
    x, y = points()
    network = nn.MLP.frozen(x, 8, 1, scale=1.0, rngs=nnx.Rngs(0))
    features = jnp.concatenate([network.features(x), jnp.ones_like(x)], axis=1)
    found, expected = bayes.last_layer(network, x, y).predict(x), bayes.linear(features, y)
    for a, b in zip(found, expected.predict(features), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    far = bayes.last_layer(network, x, y).predict(jnp.asarray([[0.0], [3.0]]))
    assert far.sd[1, 0] > 3 * far.sd[0, 0]


def test_laplace_of_a_linear_network_is_linear_regression():
    x, y = points()
    network = nn.MLP(1, (), 1, dtype=jnp.float64, rngs=nnx.Rngs(0))
    found = bayes.laplace_network(network, x, y).predict(x)
    expected = bayes.linear(jnp.concatenate([x, jnp.ones_like(x)], axis=1), y)
    for a, b in zip(
        found, expected.predict(jnp.concatenate([x, jnp.ones_like(x)], 1)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-7)


@pytest.mark.slow
def test_draws_of_a_linear_network_are_what_regression_says():
    x, y = points()
    network = nn.MLP(1, (), 1, dtype=jnp.float64, rngs=nnx.Rngs(0))
    sampled = bayes.sample_network(network, x, y, key=KEY, num_draws=1000)
    assert sampled.rhat < 1.01 and sampled.num_divergent == 0 and sampled.ess > 500
    found, expected = sampled.predict(x), bayes.laplace_network(network, x, y).predict(x)
    assert np.all(np.abs(found.mean - expected.mean) < 5 * expected.sd / np.sqrt(sampled.ess))
    np.testing.assert_allclose(found.sd, expected.sd, rtol=0.1)


def test_an_ensemble_is_the_mean_of_its_members():
    def build(key):
        return nn.MLP(1, (4,), 1, dtype=jnp.float64, rngs=nnx.Rngs(key))

    keys = jax.random.split(KEY, 5)
    x = points(7)[0]
    found = bayes.ensemble(nnx.vmap(build)(keys), x)
    each = np.stack([build(key)(x) for key in keys])
    np.testing.assert_allclose(found.mean, each.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.sd, each.std(axis=0, ddof=1), rtol=1e-12)


@refusals(
    ((jnp.full((3, 2), jnp.nan), jnp.ones((3, 1))), "features must"),
    ((jnp.ones((3, 2)), jnp.full((3, 1), jnp.inf)), "targets must"),
    ((jnp.ones((3, 2)), jnp.ones((4, 1))), "targets must have shape"),
)
@pytest.mark.usefixtures("as_a_user")
def test_bad_rows_are_refused(case):
    bayes.linear(*case)

"""Oracles: scikit-learn's classifier, Rasmussen and Williams' algorithms in NumPy, quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusals
from scipy import integrate, special
from sklearn.gaussian_process import GaussianProcessClassifier, kernels

from physml import bayes
from physml.bayes.gaussian_processes._kernels import gram
from physml.bayes.gaussian_processes._laplace import averaged_sigmoid, laplace
from physml.results import RESULTS

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, NEW = RNG.uniform(-2.0, 2.0, (60, 2)), RNG.uniform(-3.0, 3.0, (9, 2))
HIDDEN = np.sin(2.0 * X[:, 0]) + X[:, 1]
TWO = (HIDDEN + 0.7 * RNG.logistic(size=60) > 0).astype(int)
THREE = np.digitize(HIDDEN + 0.5 * RNG.normal(size=60), [-0.7, 0.7])


def approximation(parameters):
    """Laplace's for the two classes, given the logarithms of variance and scale."""
    (variance, scale), x = jnp.exp(parameters), jnp.asarray(X)
    return laplace(gram(variance * bayes.RBF(scale), x, x), jnp.asarray(2.0 * TWO - 1.0))


@pytest.mark.parametrize("scale", [0.7, 2.0])
@pytest.mark.parametrize("variance", [0.5, 4.0, 1e4])
def test_laplace_is_as_scikit_learns(variance, scale):
    kernel = kernels.ConstantKernel(variance) * kernels.RBF(scale)
    peer = GaussianProcessClassifier(kernel, optimizer=None).fit(X, TWO)
    value, slope = peer.log_marginal_likelihood(peer.kernel_.theta, eval_gradient=True)
    at = jnp.log(jnp.asarray([variance, scale]))
    mode = approximation(at)
    np.testing.assert_allclose(mode.log_likelihood, value, rtol=1e-8)
    np.testing.assert_allclose(mode.slope, TWO - peer.base_estimator_.pi_, atol=1e-10)
    ours = jax.grad(lambda at: approximation(at).log_likelihood)(at)
    np.testing.assert_allclose(ours, slope, rtol=1e-7)


def test_the_fit_is_as_good_as_scikit_learns():
    x = (X - X.mean(axis=0)) / X.std(axis=0)
    peer = GaussianProcessClassifier(1.0 * kernels.RBF(1.0)).fit(x, TWO)
    fitted = bayes.fit_gaussian_classifier(1.0 * bayes.RBF(), X, TWO, KEY, restarts=1)
    assert fitted.result == RESULTS.successful
    wanted = peer.log_marginal_likelihood_value_
    np.testing.assert_allclose(fitted.model.log_likelihood[0], wanted, rtol=1e-6)
    np.testing.assert_allclose(fitted.log_likelihoods.max(), wanted, rtol=1e-6)
    scale = fitted.model.kernel.second.scale[0]
    np.testing.assert_allclose(scale, peer.kernel_.k2.length_scale, rtol=1e-3)
    # Its average of the logistic function is an approximation by five error functions.
    at = (NEW - X.mean(axis=0)) / X.std(axis=0)
    np.testing.assert_allclose(fitted.model(NEW), peer.predict_proba(at), atol=2e-3)


@pytest.mark.slow
def test_three_classes_are_each_against_the_rest():
    options = {"fixed": ("scale",), "standardise": False, "restarts": 0}
    fitted = bayes.fit_gaussian_classifier(1.0 * bayes.RBF(1.5), X, THREE, KEY, **options)
    each = np.stack(
        [
            probability(np.asarray(fitted.model.kernel.first.variance)[i], THREE == i)
            for i in range(3)
        ]
    )
    np.testing.assert_allclose(fitted.model(NEW).T, each / each.sum(axis=0), rtol=1e-6)


def probability(variance, of_class):
    """Rasmussen and Williams' algorithms 3.1 and 3.2 with plain inverses, and quadrature."""
    t = of_class.astype(float)

    def kernel(a, b):
        return variance * np.exp(-0.5 * np.sum((a[:, None] - b[None]) ** 2, axis=-1) / 1.5**2)

    covariance, f = kernel(X, X), np.zeros(60)
    for _ in range(30):
        p = special.expit(f)
        w = p * (1 - p)
        f = np.linalg.solve(np.eye(60) + covariance * w[None], covariance @ (w * f + t - p))
    across = kernel(NEW, X)
    left = across @ np.linalg.inv(covariance + np.diag(1 / w))
    means, sds = across @ (t - p), np.sqrt(variance - np.sum(left * across, axis=1))
    return np.array([averaged(mean, sd) for mean, sd in zip(means, sds, strict=True)])


def averaged(mean, sd):
    def integrand(z):
        return special.expit(mean + sd * z) * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)

    return integrate.quad(integrand, -12.0, 12.0, epsabs=1e-12, points=[-mean / max(sd, 1e-3)])[0]


def test_the_average_of_the_logistic_function():
    cases = [(0.3, 0.0), (-2.0, 1.0), (1.0, 5.0), (-3.0, 10.0), (4.0, 30.0)]
    found = averaged_sigmoid(*(jnp.asarray(column) for column in zip(*cases, strict=True)))
    wanted = [averaged(*case) for case in cases]
    np.testing.assert_allclose(found[:4], wanted[:4], atol=1e-8)
    np.testing.assert_allclose(found[4], wanted[4], atol=1e-5)


def test_far_from_the_data_nothing_is_known():
    model = bayes.fit_gaussian_classifier(1.0 * bayes.RBF(), X[:, 0], TWO, KEY, restarts=0).model
    np.testing.assert_allclose(model(np.asarray([100.0])), [[0.5, 0.5]], atol=1e-12)
    assert model(jnp.zeros(3)).shape == (3, 2)


def test_rows_of_the_search():
    options = {"restarts": 0, "search_rows": 40}
    fitted = bayes.fit_gaussian_classifier(1.0 * bayes.RBF(), X, TWO, KEY, **options)
    assert fitted.model.x.shape == (60, 2)
    assert fitted.log_likelihoods[0, 0] > fitted.model.log_likelihood[0]  # that of fewer rows


def test_classes_that_nothing_mixes_are_as_scikit_learns():
    x = (X[:, :1] - X[:, 0].mean()) / X[:, 0].std()
    peer = GaussianProcessClassifier(1.0 * kernels.RBF(1.0)).fit(x, X[:, 0] > 0)
    fitted = bayes.fit_gaussian_classifier(
        1.0 * bayes.RBF(), X[:, 0], (X[:, 0] > 0).astype(int), KEY, restarts=0
    )
    wanted = peer.log_marginal_likelihood_value_
    np.testing.assert_allclose(fitted.model.log_likelihood[0], wanted, rtol=1e-3)


@refusals(
    ({"labels": TWO[:-1]}, "labels must have 60 rows, as x has, got 59"),
    ({"labels": 0 * TWO}, "labels must be 0, 1, .* got 0 to 0"),
    ({"labels": TWO - 1}, "labels must be 0, 1, .* got -1 to 0"),
    ({"labels": 2 * TWO}, "labels must hold every class from 0 to 2, got none of 1"),
    ({"x": X * np.nan}, "x must be finite"),
    ({"x": X[:, :, None]}, "x must have shape"),
    ({"kernel": bayes.RBF([1.0, 1.0, 1.0])}, "kernel must"),
    ({"fixed": ("scale",)}, "fixed must leave something to fit"),
    ({"search_rows": 61}, "search_rows must"),
    ({"restarts": -1}, "restarts must"),
)
def test_refusals(case):
    arguments = {"kernel": bayes.RBF(), "x": X, "labels": TWO, "key": KEY} | case
    bayes.fit_gaussian_classifier(**arguments)


def test_refusals_of_points():
    model = bayes.fit_gaussian_classifier(bayes.RBF(), X, TWO, KEY, restarts=0).model
    with pytest.raises(ValueError, match="x must have shape"):
        model(NEW[:, 0])

"""The likelihood of a Gaussian process: against scikit-learn, and timed beside tinygp."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tinygp
from sklearn.gaussian_process import GaussianProcessRegressor, kernels

from physml import bayes, experiment
from physml.experiment import Run


def likelihoods(run: Run, seed: int) -> None:
    """The log marginal likelihood against scikit-learn's, and the time it takes beside tinygp."""
    rng = np.random.default_rng(seed)
    x, y = jnp.asarray(rng.normal(size=(1000, 3))), jnp.asarray(rng.normal(size=(1000, 1)))
    ts = jnp.sort(jnp.asarray(rng.uniform(0.0, 1e4, (100_000, 1))), axis=0)
    quick = bayes.Quasiseparable()

    def exact(scale, x, y):
        return bayes.Exact().log_likelihood(2.0 * bayes.RBF(scale), jnp.full(len(x), 0.01), x, y)

    def by_tinygp(scale, x, y):
        kernel = 2.0 * tinygp.kernels.ExpSquared(scale)
        return tinygp.GaussianProcess(kernel, x, diag=jnp.asarray(0.01)).log_probability(y[:, 0])

    def series(scale, x, y):
        return quick.log_likelihood(bayes.Matern(2.5, scale), jnp.full(len(x), 0.01), x, y)

    ways = {
        "exact": (jax.value_and_grad(exact), x, y),
        "tinygp": (jax.value_and_grad(by_tinygp), x, y),
        "quasiseparable": (series, ts, jnp.sin(ts)),
    }
    rows = []
    for name, (way, *points) in ways.items():
        program = partial(jax.jit(way), jnp.asarray(1.5), *points)
        seconds = experiment.best_of(lambda program=program: jax.block_until_ready(program()))[1]
        run.metrics({f"{name}.seconds": seconds})
        rows.append([name, len(points[0]), seconds])
    run.table(rows, ["likelihood", "points", "seconds"], title="The quickest of five, float64")
    options: dict[str, Any] = {"alpha": 0.01, "optimizer": None}
    peer: Any = GaussianProcessRegressor(2.0 * kernels.RBF(1.5), **options).fit(x, y)
    error = abs(float(exact(1.5, x, y)) / peer.log_marginal_likelihood_value_ - 1.0)
    run.metrics({"likelihood_error": error})

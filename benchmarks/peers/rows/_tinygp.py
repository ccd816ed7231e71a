"""tinygp's row: the likelihood maximised by BFGS of SciPy over JAX's gradients."""

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np
import scipy.optimize
from _row import best_of, serve
from tinygp import GaussianProcess, kernels


def process(data, limit):
    x, at, mean = jnp.asarray(data["x"]), jnp.asarray(data["at"]), data["y"].mean()
    size = data["y"].std()
    y = jnp.asarray((data["y"] - mean) / size)

    def build(logs):
        kernel = jnp.exp(logs[0]) * kernels.ExpSquared(jnp.exp(logs[1]))
        return GaussianProcess(kernel, x, diag=jnp.exp(logs[2]))

    descend = jax.jit(jax.value_and_grad(lambda logs: -build(logs).log_probability(y)))

    @jax.jit
    def predict(logs):
        found = build(logs).condition(y, at).gp
        return found.mean, found.variance

    def fit():
        found = scipy.optimize.minimize(descend, np.zeros(3), jac=True, method="L-BFGS-B")
        return np.stack([np.asarray(each) for each in predict(jnp.asarray(found.x))])

    (middle, variance), times = best_of(fit, times=1)
    answer = np.stack([mean + size * middle, size**2 * variance])
    said = "ExpSquared, L-BFGS-B of SciPy on the jitted likelihood from one start"
    return answer, times | {"setting": said}


if __name__ == "__main__":
    serve({"process": process}, "tinygp")

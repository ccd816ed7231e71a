"""numpyro's rows: the model as one writes it with `odeint`, by the No-U-Turn sampler."""

import jax

jax.config.update("jax_enable_x64", True)

import time

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from _row import serve
from jax.experimental.ode import odeint
from numpyro.infer import MCMC, NUTS, init_to_value


def sample(model, start, draws):
    """Draws of a chain, and its seconds, compiling included."""
    kernel = NUTS(model, dense_mass=True, init_strategy=init_to_value(values=start))
    chain = MCMC(kernel, num_warmup=draws, num_samples=draws, progress_bar=False)
    begin = time.perf_counter()
    chain.run(jax.random.key(0))
    found = {name: np.asarray(each) for name, each in chain.get_samples().items()}
    return found, {"seconds": time.perf_counter() - begin}


def inverse(data, limit):
    ts, ys, guess = jnp.asarray(data["ts"]), jnp.asarray(data["ys"]), data["guess"]

    def rates(y, t, p):
        return jnp.stack(
            [p[0] * (y[1] - y[0]), y[0] * (p[1] - y[2]) - y[1], y[0] * y[1] - p[2] * y[2]]
        )

    def model():
        p = numpyro.sample("p", dist.LogNormal(jnp.log(guess[:3]), 0.5))
        y0 = numpyro.sample("y0", dist.Normal(ys[0], 1.0))
        noise = numpyro.sample("noise", dist.LogNormal(0.0, 1.0))
        y = odeint(rates, y0, ts, p, rtol=1e-6, atol=1e-6, mxstep=2000)
        numpyro.sample("y", dist.Normal(y, noise), obs=ys)

    start = {"p": jnp.asarray(guess[:3]), "y0": ys[0], "noise": jnp.asarray(1.0)}
    found, times = sample(model, start, 200)
    said = "NUTS through odeint from the guess, 200 + 200 draws, posterior mean, with compiling"
    return found["p"].mean(axis=0), times | {"setting": said}


def pelts(data, limit):
    ts, ys = jnp.asarray(data["ts"]), jnp.asarray(data["ys"])

    def rates(z, t, p):
        return jnp.stack([(p[0] - p[1] * z[1]) * z[0], (p[3] * z[0] - p[2]) * z[1]])

    means, widths = np.array([1.0, 0.05, 1.0, 0.05]), np.array([0.5, 0.05, 0.5, 0.05])

    def model():
        p = numpyro.sample("p", dist.TruncatedNormal(means, widths, low=0.0))
        start = numpyro.sample("start", dist.LogNormal(np.log(10.0), 1.0).expand([2]))
        noise = numpyro.sample("noise", dist.LogNormal(-1.0, 1.0).expand([2]))
        z = odeint(rates, start, ts, p, rtol=1e-6, atol=1e-5, mxstep=1000)
        numpyro.sample("y", dist.LogNormal(jnp.log(z), noise), obs=ys)

    start = {"p": jnp.asarray(data["guess"]), "start": ys[0], "noise": jnp.full(2, 0.3)}
    found, times = sample(model, start, 500)
    said = "NUTS through odeint, 500 + 500 draws, the published priors, posterior mean,"
    return found["p"].mean(axis=0), times | {"setting": f"{said} with compiling"}


if __name__ == "__main__":
    serve({"inverse": inverse, "pelts": pelts}, "numpyro")

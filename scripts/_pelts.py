"""The pelts of Hudson's Bay: the data, what is believed beforehand, the published posterior.

They are read from `lynx_hare/lynx_hare.csv` in the folder that PHYSML_DATA names, or in
`~/.cache/physml`. The model is that of Stan's case study of predators and prey.
"""

import os
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.experimental.ode import odeint
from numpyro.infer import MCMC, NUTS

from physml import pinn, systems

NAMES = ("alpha", "beta", "gamma", "delta")
COLUMNS = (*NAMES, "hares in 1900", "lynxes in 1900", "noise of hares", "noise of lynxes")
MEANS = np.array([0.5469, 0.02775, 0.8001, 0.02409, 34.035, 5.936, 0.2481, 0.2510])
"""Posterior means of posteriordb's `hudson_lynx_hare-lotka_volterra`, 10 chains, 10,000 draws."""

ERRORS = 1e-3 * MEANS
"""Their Monte Carlo errors."""

PRIORS = {
    "alpha": dist.TruncatedNormal(1.0, 0.5, low=0.0),
    "beta": dist.TruncatedNormal(0.05, 0.05, low=0.0),
    "gamma": dist.TruncatedNormal(1.0, 0.5, low=0.0),
    "delta": dist.TruncatedNormal(0.05, 0.05, low=0.0),
    "y0": dist.LogNormal(np.log(10.0), 1.0),
    "noise": dist.LogNormal(-1.0, 1.0),
}
PRIOR_OF_LIMIT = {"kappa": dist.LogNormal(np.log(0.003), 1.0)}
"""The limit is some 300 thousand pelts, within a factor of three."""


def read() -> tuple[np.ndarray, np.ndarray] | None:
    """Years since 1900, and hares and lynxes in thousands, (21, 2); None where the file is not."""
    root = Path(os.environ.get("PHYSML_DATA") or Path.home() / ".cache" / "physml")
    path = root / "lynx_hare" / "lynx_hare.csv"
    if not path.is_file():
        return None
    rows = np.genfromtxt(path, delimiter=",", skip_header=1)
    return rows[:, 0] - rows[0, 0], rows[:, 1:]


def columns(draws: dict[str, jax.Array]) -> np.ndarray:
    """Draws as (chains, draws, 8), in the order of `COLUMNS`."""
    single = [draws[name][..., None] for name in NAMES]
    return np.concatenate([*single, draws["y0"], draws["noise"]], axis=-1)


def lotka_volterra() -> systems.System:
    """The equation, with a guess of its parameters."""
    return systems.LotkaVolterra(alpha=0.7, beta=0.04, delta=0.02, gamma=0.6)


def with_limit() -> systems.System:
    """The same with hares that grow to 1 / kappa where no lynxes are."""

    def rates(t, z, args):
        u, v = z
        growth = args["alpha"] * (1.0 - args["kappa"] * u) - args["beta"] * v
        return jnp.stack([growth * u, (-args["gamma"] + args["delta"] * u) * v])

    guess = {"alpha": 0.7, "beta": 0.04, "gamma": 0.6, "delta": 0.02, "kappa": 0.001}
    return systems.from_function(rates, 2, args=guess)


def identify(system: systems.System, ts: np.ndarray, ys: np.ndarray) -> pinn.Identified:
    """Where the sampler starts: weighted least squares, from a guess."""
    names = NAMES if isinstance(system, systems.LotkaVolterra) else (*NAMES, "kappa")
    bounds = {name: (0.0, np.inf) for name in names}
    with warnings.catch_warnings():
        # Least squares find that the residuals have a memory, and kappa may be as good as zero.
        warnings.filterwarnings("ignore", "pinn.identify: The (residuals|data)")
        return pinn.identify(system, ts, ys, free=names, noise=0.25 * ys, bounds=bounds)


def plain(ts: np.ndarray, ys: np.ndarray, key: jax.Array, num_draws: int) -> dict[str, jax.Array]:
    """Draws by the model as one writes it in numpyro, with `odeint`, started from its priors."""

    def rates(z, t, theta):
        u, v = z
        return jnp.stack([(theta[0] - theta[1] * v) * u, (-theta[2] + theta[3] * u) * v])

    def model():
        theta = jnp.stack([numpyro.sample(name, PRIORS[name]) for name in NAMES])
        start = numpyro.sample("y0", PRIORS["y0"].expand([2]))
        noise = numpyro.sample("noise", PRIORS["noise"].expand([2]))
        z = odeint(rates, start, jnp.asarray(ts), theta, rtol=1e-6, atol=1e-5, mxstep=1000)
        numpyro.sample("y", dist.LogNormal(jnp.log(z), noise), obs=ys)

    kernel = NUTS(model, dense_mass=True)
    chain = MCMC(kernel, num_warmup=num_draws, num_samples=num_draws, progress_bar=False)
    chain.run(key)
    return chain.get_samples(group_by_chain=True)

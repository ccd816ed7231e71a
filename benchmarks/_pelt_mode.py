"""The mode of the published posterior of the pelts: by SciPy, and by `pinn.identify`.

The density is that of the rates, and of the logarithms of the start and of the noise's scales.
"""

import jax.numpy as jnp
import numpy as np
import scipy.integrate
import scipy.optimize

from physml import noises, pinn, systems

MEANS = {"alpha": 1.0, "beta": 0.05, "gamma": 1.0, "delta": 0.05}
WIDTHS = {"alpha": 0.5, "beta": 0.05, "gamma": 0.5, "delta": 0.05}
START = (np.log(10.0), 1.0)  # mean and width of the prior of the start's logarithm
SCALE = (-1.0, 1.0)


def mode_by_scipy(ts: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rates and the start's logarithms at the mode, and the scales of the noise there."""
    first = np.array([0.55, 0.028, 0.8, 0.024, np.log(33.0), np.log(6.0), -1.4, -1.4])
    means, widths = (np.array(list(x.values())) for x in (MEANS, WIDTHS))

    def cost(x):
        alpha, beta, gamma, delta = x[:4]

        def rates(t, z):
            return [(alpha - beta * z[1]) * z[0], (-gamma + delta * z[0]) * z[1]]

        span = (ts[0], ts[-1])
        z = scipy.integrate.solve_ivp(
            rates, span, np.exp(x[4:6]), "DOP853", ts, rtol=1e-11, atol=1e-11
        ).y.T
        r = (np.log(ys) - np.log(np.maximum(z, 1e-9))) * np.exp(-x[6:])
        priors = [(x[:4] - means) / widths, (x[4:6] - START[0]) / START[1]]
        priors.append((x[6:] - SCALE[0]) / SCALE[1])
        return (
            0.5 * np.sum(r**2)
            + len(ts) * np.sum(x[6:])
            + 0.5 * sum(np.sum(prior**2) for prior in priors)
        )

    units = np.array([*first[:4], 1.0, 1.0, 1.0, 1.0])
    best = scipy.optimize.minimize(lambda u: cost(u * units), first / units, method="BFGS")
    return best.x[:6] * units[:6], np.exp(best.x[6:])


def identified_at_mode(ts: np.ndarray, ys: np.ndarray, scales: np.ndarray) -> pinn.Identified:
    """The same with given scales of the noise, from the means of the priors."""
    logs = {"log_hares": START[0], "log_lynxes": START[0]}
    guess = systems.LotkaVolterra(**MEANS)
    return pinn.identify(
        guess,
        ts,
        ys,
        free=(*MEANS, *logs),
        args=logs,
        y0=lambda p: jnp.exp(jnp.stack([p["log_hares"], p["log_lynxes"]])),
        noise=noises.LogNormalNoise(scales),
        prior=WIDTHS | dict.fromkeys(logs, START[1]),
    )

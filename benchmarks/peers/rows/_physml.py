"""This package's own rows, in a process of their own like those of its peers."""

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np
from _row import best_of, serve
from flax import nnx

from physml import (
    bayes,
    data,
    dynamics,
    experiment,
    nn,
    noises,
    pinn,
    reference,
    surrogate,
    systems,
)

LORENZ = systems.Lorenz()


def timed(compute):
    """The answer of one call, its seconds without compiling, and those of compiling."""
    with experiment.Run.timed() as timing:
        answer = jax.block_until_ready(compute())
    return answer, {"seconds": timing.seconds, "compile_seconds": timing.compile_seconds}


def solve(system):
    def task(given, limit):
        ts, y0 = given["ts"], jnp.asarray(given["y0"])
        answer, times = best_of(lambda: np.asarray(pinn.solve(system, y0, t1=ts[-1])(ts)))
        return answer, times | {"setting": "pinn.solve(system, y0, t1), its defaults"}

    return task


def many(given, limit):
    starts, ts = jnp.asarray(given["starts"]), given["ts"]
    answer, times = best_of(
        lambda: np.asarray(reference.trajectories_from(LORENZ, starts, ts).ys), times=3
    )
    return answer, times | {"setting": "reference.trajectories_from, its defaults"}


def forecast(symmetry):
    def task(given, limit):
        train = data.from_arrays(given["train_ts"], given["train"])

        def fit():
            inputs = surrogate.network_inputs(train)
            network = nn.MLP.frozen(inputs, 300, 3, scale=0.06, rngs=nnx.Rngs(0))
            options = {"symmetry": LORENZ.symmetry} if symmetry else {}
            return surrogate.fit_readout(network, train, refinements=0, **options).step_map

        step_map, times = timed(fit)
        answer = dynamics.rollout(step_map, given["history"], int(given["steps"]))
        said = "MLP with 300 frozen tanh units, readout by least squares"
        said += ", the equations' symmetry built in" if symmetry else ", no symmetry"
        return np.asarray(answer), times | {"setting": said}

    return task


def inverse(given, limit):
    names = ("sigma", "rho", "beta")
    guess = systems.Lorenz(*given["guess"][:3])
    found, times = timed(
        lambda: pinn.identify(
            guess, given["ts"], given["ys"], free=names, y0=given["guess"][3:],
            bounds={name: (0.0, np.inf) for name in names},
        )
    )  # fmt: skip
    answer = [float(found.values[name]) for name in names]
    return answer, times | {"setting": "pinn.identify, noise unknown, intervals with it"}


def pelts(given, limit):
    names = ("alpha", "beta", "gamma", "delta")
    guess = systems.LotkaVolterra(**dict(zip(names, given["guess"], strict=True)))
    found, times = timed(
        lambda: pinn.identify(
            guess, given["ts"], given["ys"], free=names, noise=noises.LogNormalNoise(),
            bounds={name: (0.0, np.inf) for name in names},
        )
    )  # fmt: skip
    answer = [float(found.values[name]) for name in names]
    return answer, times | {"setting": "pinn.identify with lognormal noise of unknown scale"}


def process(given, limit):
    def fit():
        return bayes.fit_gaussian_process(
            1.0 * bayes.RBF(), given["x"], given["y"][:, None], jax.random.key(0), restarts=0
        )

    found, times = timed(fit)
    mean, variance = found.model(given["at"]), found.model.variance(given["at"])
    answer = np.stack([np.ravel(mean), np.ravel(variance)])
    said = "fit_gaussian_process, RBF, noise found, one start"
    return answer, times | {"setting": said}


def burgers(given, limit):
    viscosity = float(given["viscosity"])

    def residual(u, x, t):
        return u.t(x, t) + u(x, t) * u.x(x, t) - viscosity * u.xx(x, t)

    ends = {("x", end): lambda u, x, t: u(x, t) for end in (-1.0, 1.0)}
    start = {("t", 0.0): lambda u, x, t: u(x, t) + jnp.sin(jnp.pi * x)}
    domain = {"x": (-1.0, 1.0), "t": (0.0, 1.0)}
    solution, times = timed(lambda: pinn.pde(residual, domain, start | ends))
    return np.asarray(solution(given["x"], given["t"])), times | {
        "setting": "pinn.pde, its defaults"
    }


TASKS = {
    "oscillator": solve(systems.DrivenOscillator()), "lorenz": solve(LORENZ), "many": many,
    "forecast": forecast(True), "forecast_plain": forecast(False), "inverse": inverse,
    "pelts": pelts, "process": process, "burgers": burgers,
}  # fmt: skip

if __name__ == "__main__":
    serve(TASKS, "physml")

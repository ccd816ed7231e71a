"""One surrogate of the Lorenz system for all rho, beside the truth at many values of rho."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from _problems import LORENZ, PRECISE

from physml import data, dynamics, plots, reference, surrogate
from physml.experiment import Run


def scan_rho(run: Run, step_map: surrogate.Stepper, key: jax.Array, quick: bool) -> None:
    """The surrogate of all rho beside the truth, at values of rho from end to end of its range.

    Below rho = 24.06 only the two fixed points attract, though chaos may last for long before it
    ends there. From 24.06 to 24.74 both the fixed points and the chaotic attractor attract, above
    24.74 the chaotic attractor alone.
    """
    num, rhos = (2, np.array([21.5, 28.5, 34.5])) if quick else (6, np.arange(20.5, 35.0))
    steps, span = (500, 500) if quick else (3500, 6000)
    low, high = np.array(LORENZ.box)
    starts = np.array(jax.random.uniform(key, (len(rhos), num, 4))) * (high - low) + low
    starts[..., 3] = rhos[:, None]
    solved = partial(reference.trajectories_from, LORENZ)
    burn_in = run.part("rho.burn_in", solved, starts.reshape(-1, 4), 0.1 * np.arange(2001))
    ts = step_map.dt * np.arange(steps + 1)
    truth = run.part("rho.truth", solved, burn_in.ys[:, -1], ts, rtol=PRECISE)
    scale = data.Standardiser.fit(truth.ys).std
    horizon = run.part("rho.horizon", reference.agreement_horizon, LORENZ, truth, scale=scale)
    score = partial(dynamics.forecast_skill, scale=scale, horizon=horizon)
    skill = run.part("rho.skill", score, step_map, truth.ys)
    exponents = {}
    flow = reference.FlowMap(system=LORENZ, dt=step_map.dt)
    for name, one in {"truth": flow, "surrogate": step_map}.items():
        spectrum = partial(dynamics.lyapunov_spectrum, every=10)
        found = run.part(f"rho.exponents_{name}", spectrum, one, truth.ys[:, :1], span).exponents
        # One exponent is zero, that of rho itself; what is wanted is the largest of the others.
        own = jnp.argmin(jnp.abs(found), axis=1)
        exponents[name] = jnp.where(own == 0, found[:, 1], found[:, 0]).reshape(-1, num)
    times = {"truth's horizon": horizon, "surrogate": skill.times}
    times = {name: values.reshape(-1, num) for name, values in times.items()}
    for i, rho in enumerate(rhos):
        medians = {f"lambda1_{name}": np.median(values[i]) for name, values in exponents.items()}
        medians["vpt"] = np.median(times["surrogate"][i])
        run.metrics(medians, prefix=f"rho_{rho}")
    for name, values, label in (
        ("rho_exponents", exponents, "leading Lyapunov exponent [1 / time unit]"),
        ("rho_times", times, "valid prediction time [time units]"),
    ):
        run.figure(name, plots.parameter_scan(rhos, values, xlabel=r"$\rho$", ylabel=label))

"""Next-step surrogates of other systems, all by one loop and one call.

The systems are Rössler, Thomas (a user's own function), Lorenz-96 with eight sites, the Lorenz
system for all rho from 20 to 35 at once, the Duffing oscillator, the driven oscillator over 20,000
steps in both precisions, and predators and prey from a user's own data file. Each map is an MLP
with a frozen hidden layer and a readout by least squares. Of the system it is told only what the
system declares (its symmetry, the period of its drive). It is tested on starts, phases and
parameters that it has never seen.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
from _problems import Problem, problems
from _rho_scan import scan_rho
from flax import nnx

from physml import data, dynamics, experiment, nn, plots, reference, surrogate
from physml.experiment import TIMES, Run

COLUMNS = {
    "name": "system", "dtype": "dtype", "dim": "dim", "pairs": "pairs", "units": "units",
    "eps1": "eps1", "vpt_mean": "valid mean", "vpt_p5": "5 %", "censored": "censored",
    "lambda1": "lambda1", "lambda1_truth": "truth's", "steps": "steps", "max_err": "max error",
    "median_err": "median", **TIMES,
}  # fmt: skip


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the experiment."""

    out: Path = Path("results/other_systems")


def main(config: Config) -> dict[str, object]:
    """Run the experiment, write its folder, and return its metrics."""
    with Run(config.out, config) as run:
        key, fit_key, scan_key = jax.random.split(jax.random.key(config.seed), 3)
        models = {
            problem.name: learn(run, problem, fit_key, config.quick)
            for problem in problems(run.out_dir, key, config.quick)
        }
        run.table(
            run.take_rows(),
            COLUMNS,
            title="Next-step maps by one call, on starts, phases and parameters never seen;\n"
            "valid times in the system's own Lyapunov times, the error of any component",
        )
        run.save_model("maps", models)
        scan_rho(run, models["lorenz_rho"], scan_key, config.quick)
        return run.metrics({})


def learn(run: Run, problem: Problem, key: jax.Array, quick: bool) -> surrogate.Stepper:
    """Fit a map to a problem and test it."""
    train, test, system = problem.train, problem.test, problem.system
    units = problem.units // 3 if quick else problem.units
    scale, unit, horizon = data.Standardiser.fit(test.ys).std, 1.0, None
    with run.row(problem.name) as row:
        step_map = row.part(fit, problem, units, key)
        row["dtype"], row["dim"], row["units"] = str(test.ys.dtype), len(test.names), units
        row["pairs"], row["steps"] = len(train) * (train.ts.size - 1), test.ts.size - 1
        row["starts"] = len(test)
        if problem.chaotic:
            starts, steps = test.ys[:, -1:], test.ts.size // 10 * 10
            exponents = {}
            flow = reference.FlowMap(system=system, dt=step_map.dt)
            for name, one in {"lambda1": step_map, "lambda1_truth": flow}.items():
                spectrum = run.part(
                    f"{problem.name}.{name}", dynamics.lyapunov_spectrum, one, starts, steps,
                    num=1, every=10,
                )  # fmt: skip
                exponents[name] = float(spectrum.exponents.mean())
            row.metrics(exponents)
            unit = 1 / exponents["lambda1_truth"]
            part = f"{problem.name}.horizon"
            horizon = run.part(part, reference.agreement_horizon, system, test, scale=scale)
        options = {"scale": scale, "horizon": horizon, "t0": test.t0s}
        score = partial(dynamics.forecast_skill, **options)
        skill = run.part(f"{problem.name}.skill", score, step_map, test.ys)
        row["eps1"] = skill.eps1
        if problem.chaotic:
            row.metrics(skill.summary(unit))
        else:
            errors = jnp.abs(skill.predicted - test.ys).max(axis=(1, 2))
            row["max_err"], row["median_err"] = errors.max(), jnp.median(errors)
    draw(run, problem, skill, step_map.dt, 1 / unit)
    return step_map


def fit(problem: Problem, units: int, key: jax.Array) -> surrogate.Stepper:
    """The one call."""
    train, system = problem.train, problem.system
    symmetry, period = getattr(system, "symmetry", None), getattr(system, "period", None)
    inputs = surrogate.network_inputs(train, period=period)
    unit: dict[str, Any] = {"activation": nn.fourier, "centres": "mean", "rngs": nnx.Rngs(key)}
    network = nn.MLP.frozen(inputs, units, len(train.names), scale=problem.scale, **unit)
    return surrogate.fit_readout(network, train, symmetry=symmetry, period=period).step_map


def draw(run: Run, problem: Problem, skill: dynamics.Skill, dt: float, lambda1: float) -> None:
    """The first component of the first forecast beside the truth."""
    truth, found, name = problem.test.ys[0, :, 0], skill.predicted[0, :, 0], problem.test.names[0]
    paths, ts = {"surrogate": found}, dt * np.arange(len(truth))
    if problem.chaotic:
        divergence = {"surrogate": float(skill.times[0])}
        figure = plots.forecast_series(
            ts, truth, paths, divergence=divergence, name=name, lambda1=lambda1
        )
    else:
        last, paths = slice(-500, None), {"surrogate": found[-500:]}
        figure = plots.compare_solutions(
            ts[last], truth[last], paths, name=name, truth_name="truth"
        )
    run.figure(problem.name, figure)


if __name__ == "__main__":
    experiment.cli(main, Config)

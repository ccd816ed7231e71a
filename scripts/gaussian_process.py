"""Gaussian processes: noisy motion, an unknown force, a next-step map, digits.

A process is fitted to noisy points of the driven oscillator, over and over: its 95 % bands have to
hold the true motion in 95 % of all cases. The likelihood is compared with scikit-learn's and timed
beside tinygp's, also for a series of 100,000 points. From noisy positions alone the equation gives
the force; with ten forces, its damping and frequency. A next-step map of the Lorenz system learns
from 1000 rows, and says how far its forecast is to be trusted. Last, the digits, as a baseline.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
from _digit_regression import classify_digits
from _likelihoods import likelihoods

from physml import bayes, data, dynamics, experiment, plots, reference, systems
from physml.experiment import TIMES, Run

OSCILLATOR, START = systems.DrivenOscillator(), np.array([1.0, 0.0])
LORENZ, DT = systems.Lorenz(), 0.01
INSIDE = 1.959964  # standard deviations of a 95 % band


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the experiment."""

    out: Path = Path("results/gaussian_process")
    draws: int = 100
    """Draws of the noise over which the bands are checked (20 if quick)."""
    rows: int = 1000
    """Rows that the next-step map learns from (300 if quick)."""


def main(config: Config) -> dict[str, object]:
    """Run the experiment, write its folder, and return its metrics."""
    with Run(config.out, config) as run:
        keys = jax.random.split(jax.random.key(config.seed), 5)
        bands(run, config, keys[0])
        likelihoods(run, config.seed)
        force(run, keys[1])
        next_step_map(run, config, keys[2:4])
        classify_digits(run, keys[4], config.quick)
        return run.metrics({})


def bands(run: Run, config: Config, key: jax.Array) -> None:
    """The share of the true motion that lies in 95 % bands around 40 noisy points."""
    draws, at = (20 if config.quick else config.draws), np.linspace(0.0, 20.0, 201)
    rng = np.random.default_rng(config.seed)
    ts = np.sort(rng.uniform(0.0, 20.0, 40))
    ys = np.asarray(OSCILLATOR.exact(ts, START))[:, :1] + 0.1 * rng.normal(size=(40, draws))
    truth = np.asarray(OSCILLATOR.exact(at, START))[:, :1]
    with run.row("oscillator") as row:  # each draw is an output with parameters of its own
        model = row.part(bayes.fit_gaussian_process, bayes.RBF(), ts, ys, key, restarts=1).model
        mean, sd = model(at), jnp.sqrt(model.variance(at))
        row["coverage"] = jnp.mean(jnp.abs(mean - truth) < INSIDE * sd)
        row["rms_error"] = jnp.sqrt(jnp.mean((mean - truth) ** 2))
        row["noise_mean"] = model.noise.mean()
    columns = {"name": "motion", "coverage": "in 95 % bands", "rms_error": "rms error"}
    title = f"40 points of the oscillator with noise 0.1, {draws} draws"
    run.table(run.take_rows(), columns | {"noise_mean": "noise found"} | TIMES, title=title)
    first = {"process": (mean[:, 0], sd[:, 0])}
    figure = plots.function_bands(at, first, truth=truth[:, 0], data=(ts, ys[:, 0]))
    run.figure("bands", figure)


def force(run: Run, key: jax.Array) -> None:
    """The force from noisy positions, and the oscillator's parameters from a few forces too."""
    rng, at = np.random.default_rng(1), np.linspace(0.5, 19.5, 191)
    ts, some = np.sort(rng.uniform(0.0, 20.0, 60)), np.linspace(0.0, 20.0, 10)
    truth, known = np.cos(at / 2), {"gamma": 0.2, "omega0": 1.0}
    xs = np.asarray(OSCILLATOR.exact(ts, START))[:, 0] + 0.02 * rng.normal(size=60)
    forces = np.cos(some / 2) + 0.02 * rng.normal(size=10)
    fit = partial(bayes.fit_linear_equation, operator, ts, xs, key, restarts=0)
    guess = {"parameters": {"gamma": 0.4, "omega0": 1.5}, "force_ts": some, "forces": forces}
    cases, found = {"positions": {"parameters": known}, "both": guess}, {}
    words = {"positions": "from positions", "both": "from positions, ten forces"}
    for name, options in cases.items():
        with run.row(f"force_{name}", words[name]) as row:
            fitted = row.part(fit, **options)
            mean, variance = fitted.force(at)
            deviation = jnp.sqrt(variance)
            found[words[name]] = mean, deviation
            row["max_err"] = jnp.abs(mean - truth).max()
            row["coverage"] = jnp.mean(jnp.abs(mean - truth) < INSIDE * deviation)
            for parameter, sd in fitted.standard_deviations.items():
                row[parameter], row[f"{parameter}_sd"] = fitted.parameters[parameter], sd
    columns = {"name": "observed", "max_err": "max |F error|", "coverage": "in 95 % bands"}
    columns |= {"gamma": "gamma", "gamma_sd": "+-", "omega0": "omega0", "omega0_sd": "+- "}
    title = "The force cos(t / 2) from 60 positions with noise 0.02; gamma = 0.2, omega0 = 1"
    run.table(run.take_rows(), columns | TIMES, title=title)
    run.figure("force", plots.function_bands(at, found, truth=truth, name="force"))


def operator(parameters):
    """The coefficients of x, x' and x''."""
    return parameters["omega0"] ** 2, 2.0 * parameters["gamma"], 1.0


def next_step_map(run: Run, config: Config, keys: jax.Array) -> None:
    """A next-step map of the Lorenz system from 1000 of its rows."""
    num, steps, shown = (10, 1000, 500) if config.quick else (50, 2600, 1600)
    rows, search = (300, 150) if config.quick else (config.rows, 300)
    train = reference.trajectories(LORENZ, keys[0], 100, DT * np.arange(801))
    starts = reference.attractor_starts(LORENZ, keys[1], num)
    test = reference.trajectories_from(LORENZ, starts, DT * np.arange(steps + 1))
    scale = data.Standardiser.fit(test.ys).std
    options = {"rows": rows, "noise": 0.0, "search_rows": search, "restarts": 0}
    with run.row("lorenz") as row:
        fit = partial(bayes.fit_stepper, 1.0 * bayes.RBF(np.full(3, 3.0)))
        step_map = row.part(fit, train, keys[1], **options).step_map
        skill = dynamics.forecast_skill(step_map, test.ys, scale=scale, history=1)
        row.metrics(skill.summary(1 / LORENZ.lambda1))
        # How far the forecast from the first start is off, and how far it says it is.
        mean, covariance = bayes.forecast_moments(step_map, test.ys[0, 0], shown)
        sd = jnp.sqrt(jnp.diagonal(covariance, axis1=1, axis2=2))
        error = jnp.abs(mean - test.ys[0, : shown + 1])
        row["coverage"] = jnp.mean((error <= INSIDE * sd)[sd < 0.1 * scale])
    columns = {"name": "map", "eps1": "eps1", "vpt_mean": "mean", "vpt_median": "median"}
    columns |= {"vpt_p5": "5 %", "coverage": "in 95 % bands"} | TIMES
    title = f"Valid prediction time in Lyapunov times from {num} starts, {rows} rows, float64"
    run.table(run.take_rows(), columns, title=title)
    errors = {"error": error[1:] / scale, "standard deviation": sd[1:] / scale}
    sizes = {name: jnp.sqrt(jnp.mean(x**2, axis=1)) for name, x in errors.items()}
    times = DT * np.arange(1, shown + 1)
    run.figure("forecast", plots.error_growth(times, sizes, lambda1=LORENZ.lambda1))


if __name__ == "__main__":
    experiment.cli(main, Config)

"""Gaussian processes: noisy motion, an unknown force, a next-step map that knows its error, digits.

A process with a smooth kernel is fitted to noisy points of the driven oscillator, over and over: its
95 % bands have to hold the true motion in 95 % of all cases. The likelihood is compared with that of
scikit-learn and timed beside tinygp's, and a series of 100,000 points is done by quasiseparable
matrices. From noisy positions alone the equation gives the force; with a few forces, its damping and
frequency. A next-step map of the Lorenz system learns from 1000 rows. Last, the digits as a baseline
of the networks.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np

from physml import bayes, data, dynamics, experiment, plots, reference, systems
from physml.experiment import TIMES, Run

OSCILLATOR, START = systems.DrivenOscillator(), jnp.asarray([1.0, 0.0])
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
        likelihoods(run, config)
        force(run, keys[1])
        next_step_map(run, config, keys[2:4])
        digits(run, config, keys[4])
        return run.metrics({})


def bands(run: Run, config: Config, key: jax.Array) -> None:
    """The share of the true motion that lies in 95 % bands around 40 noisy points."""
    draws, at = (20 if config.quick else config.draws), np.linspace(0.0, 20.0, 201)
    rng = np.random.default_rng(config.seed)
    ts = np.sort(rng.uniform(0.0, 20.0, 40))
    ys = np.asarray(OSCILLATOR.exact(ts, START))[:, :1] + 0.1 * rng.normal(size=(40, draws))
    with run.row("oscillator") as row:  # each draw is an output with parameters of its own
        model = row.time(bayes.fit_gaussian_process, bayes.RBF(), ts, ys, key, restarts=1).model
        truth = np.asarray(OSCILLATOR.exact(at, START))[:, 0]
        mean, sd = model(at), jnp.sqrt(model.variance(at))
        row["coverage"] = jnp.mean(jnp.abs(mean - truth[:, None]) < INSIDE * sd)
        row["rms_error"] = jnp.sqrt(jnp.mean((mean - truth[:, None]) ** 2))
        row["noise_mean"] = model.noise.mean()
    columns = {"name": "motion", "coverage": "in 95 % bands", "rms_error": "rms error", **TIMES}
    run.table(run.take_rows(), columns, title=f"40 noisy points (0.1), {draws} draws")
    shown = {"process": (mean[:, 0], sd[:, 0])}
    run.figure("bands", plots.function_bands(at, shown, truth=truth, data=(ts, ys[:, 0])))


def likelihoods(run: Run, config: Config) -> None:
    """The log marginal likelihood against scikit-learn's, and the time it takes beside tinygp."""
    import tinygp
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels

    rng = np.random.default_rng(config.seed)
    x, y = jnp.asarray(rng.normal(size=(1000, 3))), jnp.asarray(rng.normal(size=1000))
    ts, noise = jnp.sort(jnp.asarray(rng.uniform(0.0, 1e4, 100_000))), jnp.full(1000, 0.01)
    series = jnp.sin(ts) + 0.1 * jnp.asarray(rng.normal(size=ts.shape))

    def exact(scale: jax.Array) -> jax.Array:
        return bayes.Exact().log_likelihood(2.0 * bayes.RBF(scale), noise, x, y[:, None])

    def by_tinygp(scale: jax.Array) -> jax.Array:
        kernel = 2.0 * tinygp.kernels.ExpSquared(scale)
        return tinygp.GaussianProcess(kernel, x, diag=noise).log_probability(y)

    def of_series(scale: jax.Array) -> jax.Array:
        kernel, solver = bayes.Matern(1.5, scale), bayes.Quasiseparable()
        return solver.log_likelihood(kernel, jnp.full(ts.shape, 0.01), ts[:, None], series[:, None])

    ways = {"exact": jax.value_and_grad(exact), "tinygp": jax.value_and_grad(by_tinygp)}
    rows, values = [], {}
    for name, way in (ways | {"quasiseparable": of_series}).items():
        way = partial(jax.jit(way), jnp.asarray(1.5))
        values[name], seconds, _ = experiment.best_of(lambda: jax.block_until_ready(way()))  # noqa: B023
        run.metrics({f"{name}.seconds": seconds})
        rows.append([name, 100_000 if name == "quasiseparable" else 1000, seconds])
    run.table(rows, ["likelihood", "points", "seconds"], title="The quickest of five, float64")
    peer = GaussianProcessRegressor(2.0 * kernels.RBF(1.5), alpha=0.01, optimizer=None).fit(x, y)
    error = abs(float(values["exact"][0]) / peer.log_marginal_likelihood_value_ - 1.0)
    run.metrics({"likelihood_error": error})


def force(run: Run, key: jax.Array) -> None:
    """The force from noisy positions, and the oscillator's parameters from a few forces too."""
    rng, at = np.random.default_rng(1), np.linspace(0.5, 19.5, 191)
    ts, some = np.sort(rng.uniform(0.0, 20.0, 60)), np.linspace(0.0, 20.0, 10)
    xs = np.asarray(OSCILLATOR.exact(ts, START))[:, 0] + 0.02 * rng.normal(size=60)
    forces = np.cos(0.5 * some) + 0.02 * rng.normal(size=10)
    fit = partial(bayes.fit_linear_equation, operator, ts, xs, key)
    known = {"gamma": 0.2, "omega0": 1.0}
    with run.row("positions") as row:
        mean, variance = row.time(fit, parameters=known).force(at)
        row["force_max_err"] = jnp.abs(mean - np.cos(0.5 * at)).max()
        row["force_coverage"] = jnp.mean(jnp.abs(mean - np.cos(0.5 * at)) < INSIDE * variance**0.5)
    bands = {"from positions": (mean, variance**0.5)}
    with run.row("both", "positions and 10 forces") as row:
        guess = {"gamma": 0.4, "omega0": 1.5}
        fitted = row.time(fit, parameters=guess, force_ts=some, forces=forces)
        mean, variance = fitted.force(at)
        row["force_max_err"] = jnp.abs(mean - np.cos(0.5 * at)).max()
        row["force_coverage"] = jnp.mean(jnp.abs(mean - np.cos(0.5 * at)) < INSIDE * variance**0.5)
        for name, truth in known.items():
            row[f"{name}_err"] = abs(fitted.parameters[name] - truth)
            row[f"{name}_sd"] = fitted.standard_deviations[name]
    columns = {"name": "observed", "force_max_err": "max |F error|", "force_coverage": "in bands"}
    columns |= {"gamma_err": "gamma error", "gamma_sd": "+-", "omega0_err": "omega0 error"}
    run.table(run.take_rows(), columns | TIMES, title="The force of x'' + 2 gamma x' + omega0^2 x")
    bands["and 10 forces"] = (mean, variance**0.5)
    run.figure("force", plots.function_bands(at, bands, truth=np.cos(0.5 * at), name="F"))


def operator(p: dict[str, jax.Array]) -> tuple:
    """The coefficients of x, x' and x''."""
    return p["omega0"] ** 2, 2.0 * p["gamma"], 1.0


def next_step_map(run: Run, config: Config, keys: jax.Array) -> None:
    """A next-step map of the Lorenz system from 1000 of its rows."""
    rows, num = (300, 10) if config.quick else (config.rows, 50)
    train = reference.trajectories(LORENZ, keys[0], 100, DT * np.arange(801))
    starts = reference.attractor_starts(LORENZ, keys[1], num)
    test = reference.trajectories_from(
        LORENZ, starts, DT * np.arange(1001 if config.quick else 2601)
    )
    scale = data.Standardiser.fit(test.ys).std
    kernel = 1.0 * bayes.RBF([3.0, 3.0, 3.0])
    with run.row("lorenz") as row:
        options = {"rows": rows, "noise": 0.0, "search_rows": 300, "restarts": 0}
        step_map = row.time(bayes.fit_stepper, kernel, train, keys[1], **options).step_map
        skill = dynamics.forecast_skill(step_map, test.ys, scale=scale, history=1)
        row.metrics(skill.summary(1 / LORENZ.lambda1))
    columns = {"name": "map", "eps1": "eps1", "vpt_mean": "mean", "vpt_median": "median", **TIMES}
    run.table(run.take_rows(), columns, title=f"Lyapunov times from {num} starts, {rows} rows")


def digits(run: Run, config: Config, key: jax.Array) -> None:
    """Digits by regression on their classes: the likeliest to be the largest is taken."""
    train, test = data.digits().split((0.8, 0.2), key)
    x, y = (np.asarray(part.images, float).reshape(len(part), -1) for part in (train, test))
    kept = 400 if config.quick else len(x)
    classes = np.eye(10)[np.asarray(train.labels)]
    with run.row("digits") as row:
        options = {"shared": True, "search_rows": 400, "restarts": 0, "standardise": False}
        fit = partial(bayes.fit_gaussian_process, 1.0 * bayes.RBF(20.0), **options)
        model = row.time(fit, x[:kept], classes[:kept] - 0.1, key).model
        row["test_acc"] = np.mean(np.argmax(model(y), axis=1) == np.asarray(test.labels))
    run.table(run.take_rows(), {"name": "images", "test_acc": "accuracy", **TIMES}, title="Digits")


if __name__ == "__main__":
    experiment.cli(main, Config)

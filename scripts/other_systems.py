"""Next-step surrogates of other systems, all by one loop and one call.

Rossler, Thomas (a user's own function), Lorenz-96 with eight sites, the Lorenz system for all rho
from 20 to 35 at once, the Duffing oscillator, the driven oscillator over 20,000 steps in both
precisions, and predators and prey from a user's own data file. Each map is an MLP with a frozen
hidden layer and a readout by least squares, told only what the system declares of itself (its
symmetry, the period of its drive), and is tested on starts, phases and parameters never seen.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx

from physml import data, dynamics, nn, plots, reference, surrogate, systems
from physml.experiment import Run

PRECISE = 1e-14  # relative tolerance of a step of the truth
RANGE = (20.0, 35.0)  # of rho
LORENZ = systems.with_parameters(systems.Lorenz(), rho=RANGE)


@dataclass(frozen=True)
class Config:
    """Options of the experiment."""

    out: Path = Path("results/other_systems")
    """Folder for the table, metrics, figures and models."""
    seed: int = 0
    """Seed of everything drawn at random."""
    quick: bool = False
    """Fewer systems, units, data and forecasts: a look, most of it compiling."""


def main(config: Config) -> dict[str, Any]:
    """Run the experiment, write its folder, and return its metrics."""
    with Run(config.out, config) as run:
        key, fit_key, scan_key = jax.random.split(jax.random.key(config.seed), 3)
        scores, models = {}, {}
        for problem in problems(run, key, config.quick):
            name = problem.name
            models[name], scores[name] = learn(run, problem, fit_key, config.quick)
        run.records(
            scores,
            COLUMNS,
            heading="system",
            title="Next-step maps by one call, on starts, phases and parameters never seen;\n"
            "valid times in the system's own Lyapunov times, the error of any component",
        )
        run.save_model("maps", models)
        scan(run, models["lorenz_rho"], scan_key, config.quick)
        return run.metrics({})


@dataclass(frozen=True)
class Problem:
    """What a surrogate is fitted to and tested on, and what is known of it beforehand."""

    name: str
    system: Any  # a systems.System; None where all there is are data
    train: data.Trajectories
    test: data.Trajectories
    units: int
    scale: float  # the slope of a hidden unit over a standard deviation of the data
    chaotic: bool = False


def problems(run: Run, key: jax.Array, quick: bool) -> Iterator[Problem]:
    """All that is learnt, each with its data."""
    num, share, fewer = (4, 0.2, 4) if quick else (20, 1.0, 1)
    train_key, test_key = jax.random.split(key)

    def chaotic(
        name: str,
        system: systems.System,
        dt: float,
        shape: tuple[int, int],
        span: float,
        box: Any = None,
        **options: Any,
    ) -> Problem:
        """Trajectories from the system's box to fit, and from its attractor to test."""
        ts = dt * np.arange(shape[1] + 1)
        train = reference.trajectories(system, train_key, shape[0] // fewer, ts)
        starts = reference.attractor_starts(system, test_key, num, burn_in=50.0, dt=dt, box=box)
        steps = round(share * span / dt)
        test = reference.trajectories_from(system, starts, dt * np.arange(steps + 1), rtol=PRECISE)
        return Problem(name, system, train, test, chaotic=True, **options)

    # At phases that float32 holds too, so that both precisions learn the same.
    driven = partial(reference.driven_trajectories, rtol=PRECISE, phase_dtype=jnp.float32)

    yield chaotic("rossler", systems.Rossler(), 0.05, (100, 800), 450.0, units=500, scale=0.2)
    box = ((-15.0, -15.0, -15.0, 25.0), (15.0, 15.0, 15.0, 35.0))  # chaos alone attracts here
    yield chaotic("lorenz_rho", LORENZ, 0.01, (200, 500), 35.0, box, units=500, scale=0.1)
    if not quick:
        ring = systems.Lorenz96(8)
        yield chaotic("thomas", thomas(), 0.05, (100, 800), 800.0, units=600, scale=1.0)
        yield chaotic("lorenz96", ring, 0.01, (200, 400), 20.0, units=1000, scale=0.05)

    system, dt = systems.Duffing(), 0.02
    wide = ((-2.3, -2.3), (2.3, 2.3))  # a map is best well inside of its data
    train = driven(system, train_key, 800 // fewer, dt * np.arange(101), box=wide)
    test = driven(system, test_key, num, dt * np.arange(round(2000 * share) + 1))
    yield Problem("duffing", system, train, test, units=600, scale=0.1)

    system, dt = systems.DrivenOscillator(), 0.05
    train = driven(system, train_key, 200 // fewer, dt * np.arange(401))
    starts = driven(system, test_key, num, dt * np.arange(2))
    ts = dt * np.arange(round(20_000 * share) + 1)
    exact = jax.vmap(lambda y0, t0: system.exact(t0 + ts, y0, t0))
    ys = exact(starts.ys[:, 0], starts.t0s)
    test = data.from_arrays(ts, ys, t0s=starts.t0s, names=system.state_names)
    yield Problem("driven", system, train, test, units=200, scale=0.01)
    train, test = jax.tree.map(lambda x: x.astype(jnp.float32), (train, test))
    yield Problem("driven32", system, train, test, units=200, scale=0.01)

    path = measurements(run, key)
    train, test = data.split(data.from_csv(path, trajectory="field"), (0.8, 0.2), key)
    yield Problem("file", None, train, test, units=400, scale=0.2)


def thomas() -> systems.System:
    """Thomas's cyclically symmetric attractor (Int. J. Bifurcation Chaos 9, 1999), b = 0.18."""

    def vector_field(t: Any, y: jax.Array, b: Any) -> jax.Array:
        return jnp.sin(jnp.roll(y, -1)) - b * y

    box = ((-3.0, -3.0, -3.0), (3.0, 3.0, 3.0))
    return systems.from_function(
        vector_field, 3, args=0.18, box=box, state_names=("x", "y", "z"), symmetry=-np.eye(3)
    )


def measurements(run: Run, key: jax.Array) -> Path:
    """A table such as a user may have: prey and predators of 50 fields, observed without noise."""
    system = systems.LotkaVolterra()
    observed = reference.trajectories(system, key, 50, 0.05 * np.arange(601), rtol=PRECISE)
    path = run.out_dir / "fields.csv"
    data.to_csv(path, observed, trajectory="field")
    return path


COLUMNS = {
    "dtype": "dtype",
    "dim": "dim",
    "pairs": "pairs",
    "units": "units",
    "eps1": "eps1",
    "vpt_mean": "valid mean",
    "vpt_p5": "5 %",
    "censored": "censored",
    "lambda1": "lambda1",
    "lambda1_truth": "truth's",
    "steps": "steps",
    "max_err": "max error",
    "median_err": "median",
    "seconds": "seconds",
    "compile_seconds": "compiling",
}


def learn(
    run: Run, problem: Problem, key: jax.Array, quick: bool
) -> tuple[surrogate.Stepper, dict[str, Any]]:
    """Fit a map to a problem and test it: its figures."""
    train, test, system = problem.train, problem.test, problem.system
    symmetry, period = getattr(system, "symmetry", None), getattr(system, "period", None)
    units = problem.units // 3 if quick else problem.units
    with run.timed() as timing:
        network = nn.MLP.frozen(
            surrogate.network_inputs(train, period=period),
            units,
            len(train.names),
            scale=problem.scale,
            activation=nn.fourier,
            centres="mean",
            rngs=nnx.Rngs(key),
        )
        step_map = surrogate.fit_readout(network, train, symmetry=symmetry, period=period).step_map
        jax.block_until_ready(step_map)
    figures: dict[str, Any] = {
        "dtype": str(test.ys.dtype),
        "dim": len(test.names),
        "pairs": len(train) * (train.ts.size - 1),
        "units": units,
        "steps": test.ts.size - 1,
        "seconds": timing.seconds,
        "compile_seconds": timing.compile_seconds,
    }
    scale, unit, horizon = data.Standardizer.fit(test.ys).std, 1.0, None
    if problem.chaotic:
        starts, steps = test.ys[:, -1:], test.ts.size // 10 * 10
        flow = reference.FlowMap(system=system, dt=step_map.dt)
        for name, one in {"lambda1": step_map, "lambda1_truth": flow}.items():
            spectrum = dynamics.lyapunov_spectrum(one, starts, steps, num=1, every=10)
            figures[name] = float(spectrum.exponents.mean())
        unit = 1 / figures["lambda1_truth"]
        horizon = reference.agreement_horizon(system, test, scale=scale)
    skill = dynamics.forecast_skill(step_map, test.ys, scale=scale, horizon=horizon, t0=test.t0s)
    figures["eps1"] = skill.eps1
    if problem.chaotic:
        figures |= skill.summary(unit)
    else:
        errors = jnp.abs(skill.predicted - test.ys).max(axis=(1, 2))
        figures |= {"max_err": errors.max(), "median_err": jnp.median(errors)}
    run.metrics(figures, prefix=problem.name)
    ts, truth, found = step_map.dt * np.arange(test.ts.size), test.ys[0], skill.predicted[0]
    if problem.chaotic:
        figure = plots.forecast_series(
            ts,
            truth[:, 0],
            {"surrogate": found[:, 0]},
            divergence={"surrogate": float(skill.times[0])},
            name=test.names[0],
            lambda1=1 / unit,
        )
    else:
        last = slice(-500, None)
        figure = plots.compare_solutions(
            ts[last],
            truth[last, 0],
            {"surrogate": found[last, 0]},
            name=test.names[0],
            truth_name="truth",
        )
    run.figure(problem.name, figure)
    return step_map, figures


def scan(run: Run, step_map: surrogate.Stepper, key: jax.Array, quick: bool) -> None:
    """The surrogate of all rho beside the truth, at values of rho from end to end of its range.

    Below rho = 24.06 only the two fixed points attract, though chaos may last for long before it
    ends there; up to 24.74 they do so beside the chaotic attractor, and from there on it alone.
    """
    num, rhos = (2, np.array([21.5, 28.5, 34.5])) if quick else (6, np.arange(20.5, 35.0))
    steps, span = (1000, 1000) if quick else (3500, 6000)
    low, high = np.array(LORENZ.box)
    starts = np.array(jax.random.uniform(key, (len(rhos), num, 4))) * (high - low) + low
    starts[..., 3] = rhos[:, None]
    burn_in = reference.trajectories_from(LORENZ, starts.reshape(-1, 4), 0.1 * np.arange(2001))
    ts = step_map.dt * np.arange(steps + 1)
    truth = reference.trajectories_from(LORENZ, burn_in.ys[:, -1], ts, rtol=PRECISE)
    scale = data.Standardizer.fit(truth.ys).std
    horizon = reference.agreement_horizon(LORENZ, truth, scale=scale)
    skill = dynamics.forecast_skill(step_map, truth.ys, scale=scale, horizon=horizon)
    exponents = {}
    for name, one in {
        "truth": reference.FlowMap(system=LORENZ, dt=step_map.dt),
        "surrogate": step_map,
    }.items():
        found = dynamics.lyapunov_spectrum(one, truth.ys[:, :1], span, every=10).exponents
        # One exponent is rho's own, the zero; take it out and the largest of the others is left.
        own = jnp.argmin(jnp.abs(found), axis=1)
        exponents[name] = jnp.where(own == 0, found[:, 1], found[:, 0]).reshape(-1, num)
    times = {
        "truth's horizon": horizon.reshape(-1, num),
        "surrogate": skill.times.reshape(-1, num),
    }
    for i, rho in enumerate(rhos):
        medians = {f"lambda1_{name}": np.median(values[i]) for name, values in exponents.items()}
        medians["vpt"] = np.median(times["surrogate"][i])
        run.metrics(medians, prefix=f"rho_{rho}")
    for name, values, label in (
        ("rho_exponents", exponents, "leading Lyapunov exponent"),
        ("rho_times", times, "valid prediction time"),
    ):
        run.figure(name, plots.parameter_scan(rhos, values, xlabel="rho", ylabel=label))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

"""Lorenz from truth to forecast: four networks that step the equations, one that solves them.

The lecture's data are made accurately: 100 starts uniform in [-15, 15]^3, dt 0.01, t to 8, which
makes 80,000 next-step pairs. An MLP and a recurrent network learn the next step from these data
alone, each in two ways. Either all parameters are trained by gradient, and the readout is then
refitted by least squares; or the hidden part is frozen, and least squares fits the readout alone.
The networks forecast from starts on the attractor that they have never seen. A PINN solves the
equations from (1, 1, 1) without data.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import numpy as np
from _lorenz_networks import LORENZ, WORDS, surrogates

from physml import data, dynamics, experiment, pinn, plots, reference, surrogate
from physml.experiment import TIMES, Run

DT = 0.01
HISTORY = 101  # true rows before each forecast; a recurrent network is warmed up on them
START = np.ones(3)  # of the PINN
LAMBDA1 = LORENZ.lambda1  # 1 / LAMBDA1 is a Lyapunov time
COLUMNS = {
    "name": "network", "eps1": "eps1", "vpt_mean": "mean", "vpt_median": "median", "vpt_p5": "5 %",
    "censored": "censored", "vpt_mean_before_refit": "mean before refit",
    "lambda1": "lambda1", "lambda1_se": "+-", **TIMES,
}  # fmt: skip


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the experiment."""

    out: Path = Path("results/lorenz")
    starts: int = 200
    """Starts on the attractor that forecasts are scored on (20 if quick)."""


def main(config: Config) -> dict[str, Any]:
    """Run the experiment, write its folder, and return its metrics."""
    num, steps = (20, 2600) if config.quick else (config.starts, 3000)
    data_key, test_key, *keys = jax.random.split(jax.random.key(config.seed), 6)
    with Run(config.out, config) as run:
        train, test, exact = experiment.beside(
            partial(reference.trajectories, LORENZ, data_key, 100, DT * np.arange(801)),
            partial(attractor_truth, test_key, num, DT * np.arange(HISTORY + steps)),
            partial(reference.extended_trajectories, LORENZ, START[None], DT * np.arange(2001)),
        )
        fits = surrogates(run, train, keys, config.quick)
        forecast(run, fits, *test)
        solve(run, exact.ys[0])
        return run.metrics({})


def attractor_truth(
    key: jax.Array, num: int, ts: np.ndarray
) -> tuple[data.Trajectories, jax.Array, jax.Array]:
    """Trajectories on the attractor, their standard deviations, and how long to trust each."""
    starts = reference.attractor_starts(LORENZ, key, num)
    test = reference.trajectories_from(LORENZ, starts, ts)
    scale = data.Standardiser.fit(test.ys).std
    return test, scale, reference.agreement_horizon(LORENZ, test, scale=scale)


def forecast(
    run: Run,
    fits: dict[str, Callable[[], surrogate.StepperFit]],
    test: data.Trajectories,
    scale: jax.Array,
    horizon: jax.Array,
) -> None:
    """Fit the surrogates, and score them on trajectories that they have never seen."""
    num, horizon = len(test), horizon - DT * (HISTORY - 1)
    run.metrics({"starts": num, "truth.horizon": LAMBDA1 * horizon.mean()})
    score = partial(dynamics.forecast_skill, scale=scale, history=HISTORY, horizon=horizon)
    # The largest exponent along ten trajectories, each 30 time units long.
    spectrum = partial(
        dynamics.lyapunov_spectrum, history=test.ys[:10, :HISTORY], num_steps=3000, num=1
    )

    models, skills, losses = {}, {}, {}
    for name, fit in fits.items():
        words = WORDS[name]
        with run.row(name, words) as row:
            fitted = row.part(fit)
            models[name] = step_map = fitted.step_map
            scores = [partial(score, step_map, test.ys), partial(spectrum, step_map)]
            if fitted.training is not None:
                scores.append(partial(score, fitted.before_refit, test.ys[:, : HISTORY + 1000]))
                losses[words] = fitted.training.history
            skill, found, *before = run.part(f"{name}.scores", experiment.beside, *scores)
            skills[words] = skill
            row.metrics(skill.summary(1 / LAMBDA1))
            for each in before:
                row["vpt_mean_before_refit"] = each.summary(1 / LAMBDA1)["vpt_mean"]
            exponents = np.asarray(found.exponents[:, 0])
            row["lambda1"] = exponents.mean()
            row["lambda1_se"] = exponents.std(ddof=1) / len(exponents) ** 0.5
    title = f"Valid prediction time in Lyapunov times from {num} starts, float64"
    run.table(run.take_rows(), COLUMNS, title=title)
    run.save_model("surrogates", models)
    draw(run, test.ys[0, HISTORY - 1 :], skills)
    run.figure("losses", plots.loss_curves(losses))


def draw(run: Run, truth: jax.Array, skills: dict[str, dynamics.Skill]) -> None:
    """The figures of the first start's forecasts, and of the errors of all."""
    ts = DT * np.arange(len(truth))
    paths = {name: skill.predicted[0] for name, skill in skills.items()}
    shown = {name: paths[name] for name in (WORDS["mlp_frozen"], WORDS["gru_trained"])}
    run.figure("attractor", plots.attractor_3d(truth, shown))
    first = {name: path[:, 0] for name, path in paths.items()}
    times = {name: float(skill.times[0]) for name, skill in skills.items()}
    figure = plots.forecast_series(ts, truth[:, 0], first, divergence=times, lambda1=LAMBDA1)
    run.figure("forecasts", figure)
    errors = {name: skill.errors for name, skill in skills.items()}
    run.figure("error_growth", plots.error_growth(ts, errors, lambda1=LAMBDA1))


def solve(run: Run, truth: jax.Array) -> None:
    """Solve the equations by a PINN, and compare it with a truth made in double-double."""
    ts, ends = DT * np.arange(len(truth)), (5, 10, 15, 20)
    with run.row("pinn", "PINN") as row:
        solution = row.part(pinn.solve, LORENZ, START, t1=20.0)
        ys = solution(ts)
        errors = dynamics.relative_l2_until(ys, truth, DT, ends)
        row.metrics({f"rel_l2_t{end}": error for end, error in errors.items()})
    columns = {"name": "network"} | {f"rel_l2_t{end}": f"t = {end}" for end in ends} | TIMES
    title = "Relative L2 error on [0, t] from (1, 1, 1), worst component, float64"
    run.table(run.take_rows(), columns, title=title)
    names = LORENZ.state_names
    run.figure("pinn", plots.solution_error(ts, truth, ys, names=names, lambda1=LAMBDA1))


if __name__ == "__main__":
    experiment.cli(main, Config)

"""Lorenz from truth to forecast: four networks that step the equations, one that solves them.

The lecture's data are made accurately: 100 starts uniform in [-15, 15]^3, dt 0.01, t to 8, which
makes 80,000 next-step pairs. An MLP and a recurrent network learn the next step from these data
alone, each in two ways. Either all parameters are trained by gradient, and the readout is then
refitted by least squares; or the hidden part is frozen, and least squares fits the readout alone.
The networks forecast from starts on the attractor that they have never seen. A PINN solves the
equations from (1, 1, 1) without data.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
from _lorenz_networks import LORENZ, WORDS, surrogates

from physml import data, dynamics, experiment, pinn, plots, reference
from physml.experiment import TIMES, Run

DT = 0.01
HISTORY = 101  # true rows before each forecast; a recurrent network is warmed up on them
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
    with Run(config.out, config) as run:
        forecast(run, config)
        solve(run)
        return run.metrics({})


def forecast(run: Run, config: Config) -> None:
    """Fit the surrogates, and score them on starts of their own."""
    num, steps = (20, 2600) if config.quick else (config.starts, 3000)
    data_key, test_key, *keys = jax.random.split(jax.random.key(config.seed), 6)
    train = reference.trajectories(LORENZ, data_key, 100, DT * np.arange(801))
    starts = reference.attractor_starts(LORENZ, test_key, num)
    test = reference.trajectories_from(LORENZ, starts, DT * np.arange(HISTORY + steps))
    scale = data.Standardiser.fit(test.ys).std
    horizon = reference.agreement_horizon(LORENZ, test, scale=scale) - DT * (HISTORY - 1)
    run.metrics({"starts": num, "truth.horizon": LAMBDA1 * horizon.mean()})
    score = partial(dynamics.forecast_skill, scale=scale, history=HISTORY, horizon=horizon)

    models, skills, losses = {}, {}, {}
    for name, fit in surrogates(run, train, keys, config.quick):
        words = WORDS[name]
        with run.row(name, words) as row:
            fitted = row.part(fit)
            models[name] = step_map = fitted.step_map
            skills[words] = run.part(f"{name}.skill", score, step_map, test.ys)
            row.metrics(skills[words].summary(1 / LAMBDA1))
            if fitted.training is not None:
                before = score(fitted.before_refit, test.ys[:, : HISTORY + 1000]).summary(
                    1 / LAMBDA1
                )
                row["vpt_mean_before_refit"] = before["vpt_mean"]
                losses[words] = fitted.training.history
            # The largest exponent along ten trajectories, each 30 time units long.
            spectrum = partial(dynamics.lyapunov_spectrum, num=1)
            found = run.part(f"{name}.lambda1", spectrum, step_map, test.ys[:10, :HISTORY], 3000)
            exponents = np.asarray(found.exponents[:, 0])
            row["lambda1"] = exponents.mean()
            row["lambda1_se"] = exponents.std(ddof=1) / len(exponents) ** 0.5
    title = f"Valid prediction time in Lyapunov times from {num} starts, float64"
    run.table(run.take_rows(), COLUMNS, title=title)
    run.save_model("surrogates", models)
    draw(run, DT * np.arange(steps + 1), test.ys[0, HISTORY - 1 :], skills)
    run.figure("losses", plots.loss_curves(losses))


def draw(run: Run, ts: np.ndarray, truth: jax.Array, skills: dict[str, dynamics.Skill]) -> None:
    """The figures of the first start's forecasts, and of the errors of all."""
    paths = {name: skill.predicted[0] for name, skill in skills.items()}
    shown = {name: paths[name] for name in (WORDS["mlp_frozen"], WORDS["gru_trained"])}
    run.figure("attractor", plots.attractor_3d(truth, shown))
    first = {name: path[:, 0] for name, path in paths.items()}
    times = {name: float(skill.times[0]) for name, skill in skills.items()}
    figure = plots.forecast_series(ts, truth[:, 0], first, divergence=times, lambda1=LAMBDA1)
    run.figure("forecasts", figure)
    errors = {name: skill.errors for name, skill in skills.items()}
    run.figure("error_growth", plots.error_growth(ts, errors, lambda1=LAMBDA1))


def solve(run: Run) -> None:
    """Solve the equations by a PINN, and compare it with a truth made in double-double."""
    y0, ts, ends = jnp.ones(3), DT * np.arange(2001), (5, 10, 15, 20)
    truth = reference.extended_trajectories(LORENZ, y0[None], ts).ys[0]
    with run.row("pinn", "PINN") as row:
        solution = row.part(pinn.solve, LORENZ, y0, t1=20.0)
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

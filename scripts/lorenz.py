"""Lorenz from truth to forecast: four networks that step the equations, one that solves them.

The lecture's data, made accurately: 100 starts uniform in [-15, 15]^3, dt 0.01, t to 8, which is
80,000 next-step pairs. An MLP and a recurrent network learn the next step from them alone, each
twice: trained in all its parameters by gradient (then its readout by least squares), and with a
frozen hidden part and a readout by least squares. They forecast from starts on the attractor that
they have never seen. A PINN solves the equations from (1, 1, 1) without data.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx

from physml import data, dynamics, nn, pinn, plots, reference, surrogate, systems
from physml.experiment import Run

DT = 0.01
HISTORY = 101  # true rows before each forecast; a recurrent network is warmed up on them
LORENZ = systems.Lorenz()
LAMBDA1 = LORENZ.lambda1  # 1 / LAMBDA1 is a Lyapunov time


@dataclass(frozen=True)
class Config:
    """Options of the experiment."""

    out: Path = Path("results/lorenz")
    """Folder for the table, metrics, figures and models."""
    seed: int = 0
    """Seed of everything drawn at random."""
    quick: bool = False
    """Smaller networks, shorter training, fewer starts: a look, most of it compiling."""
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
    scale = data.Standardizer.fit(test.ys).std
    horizon = reference.agreement_horizon(LORENZ, test, scale=scale) - DT * (HISTORY - 1)
    run.metrics({"starts": num, "truth.horizon": LAMBDA1 * horizon.mean()})

    def score(step_map: surrogate.Stepper, rows: int | None = None) -> dynamics.Skill:
        truth = test.ys[:, :rows]
        return dynamics.forecast_skill(
            step_map, truth, scale=scale, history=HISTORY, horizon=horizon
        )

    scores, models, skills, losses = {}, {}, {}, {}
    for name, fit in surrogates(train, keys, config.quick):
        with run.timed() as timing:
            fitted = jax.block_until_ready(fit())
        step_map, training = fitted.step_map, fitted.training
        models[name], skills[name] = step_map, (skill := score(step_map))
        figures: dict[str, Any] = skill.summary(1 / LAMBDA1)
        if training is not None:
            before = score(fitted.before_refit, rows=HISTORY + 1000).summary(1 / LAMBDA1)
            figures["vpt_mean_before_refit"] = before["vpt_mean"]
            losses[name] = training.history
        exponents = leading_exponents(step_map, test.ys[:10, :HISTORY])
        figures["lambda1"] = exponents.mean()
        figures["lambda1_se"] = exponents.std(ddof=1) / len(exponents) ** 0.5
        figures["seconds"], figures["compile_seconds"] = timing.seconds, timing.compile_seconds
        run.metrics(figures, prefix=name)
        scores[name] = figures
    title = f"Valid prediction time in Lyapunov times from {num} starts, float64"
    run.records(scores, COLUMNS, heading="network", title=title)
    run.save_model("surrogates", models)
    draw(run, DT * np.arange(steps + 1), test.ys[0, HISTORY - 1 :], skills, losses)


COLUMNS = {
    "eps1": "eps1",
    "vpt_mean": "mean",
    "vpt_median": "median",
    "vpt_p5": "5 %",
    "censored": "censored",
    "vpt_mean_before_refit": "mean before refit",
    "lambda1": "lambda1",
    "lambda1_se": "+-",
    "seconds": "seconds",
    "compile_seconds": "compiling",
}


def surrogates(
    train: data.Trajectories, keys: list[jax.Array], quick: bool
) -> Iterator[tuple[str, Callable[[], surrogate.StepperFit]]]:
    """What is fitted, by name."""
    inputs, symmetry = surrogate.network_inputs(train), LORENZ.symmetry
    rngs = [nnx.Rngs(key) for key in keys]

    def trained(network: surrogate.Network, steps: int, **options: Any) -> surrogate.StepperFit:
        steps = steps // 8 if quick else steps
        rate = optax.warmup_cosine_decay_schedule(0.0, 1e-2, steps // 20, steps)
        adam = optax.adamw(rate, weight_decay=1.0, mask=nn.hidden_kernels)
        return surrogate.fit(
            network,
            train,
            optimizer=adam,
            steps=steps,
            key=keys[0],
            symmetry=symmetry,
            refinements=0,
            **options,
        )

    single = jnp.float32  # what training runs in; the readout is refitted in float64
    mlp = nn.MLP(3, (256,), 3, dtype=single, rngs=rngs[0])
    yield "mlp_trained", lambda: trained(mlp, 1000, batch_size=512, progress=True)
    mlp = nn.MLP.frozen(inputs, 300, 3, scale=0.06, rngs=rngs[1])
    yield "mlp_frozen", lambda: surrogate.fit_readout(mlp, train, symmetry=symmetry, refinements=0)
    gru = nn.RNN("gru", 3, 64, 3, dtype=single, rngs=rngs[2])
    yield (
        "gru_trained",
        lambda: trained(gru, 800, batch_size=64, length=8, warmup=50, progress=True),
    )
    rnn = nn.RNN.frozen(
        "simple",
        inputs,
        200,
        3,
        scale=0.2,
        centres="mean",
        spectral_radius=0.1,
        activation=nn.fourier,
        rngs=rngs[3],
    )
    yield (
        "rnn_frozen",
        lambda: surrogate.fit_readout(rnn, train, symmetry=symmetry, warmup=50, refinements=0),
    )


def leading_exponents(step_map: surrogate.Stepper, history: jax.Array) -> np.ndarray:
    """The largest Lyapunov exponent along each of several trajectories, 30 time units long."""
    return np.asarray(dynamics.lyapunov_spectrum(step_map, history, 3000, num=1).exponents[:, 0])


def draw(
    run: Run,
    ts: np.ndarray,
    truth: jax.Array,
    skills: dict[str, dynamics.Skill],
    losses: dict[str, Any],
) -> None:
    """The figures of the first start's forecasts, of all errors and of the training."""
    paths = {name: skill.predicted[0] for name, skill in skills.items()}
    shown = {name: paths[name] for name in ("mlp_frozen", "gru_trained")}
    run.figure("attractor", plots.attractor_3d(truth, shown))
    run.figure(
        "forecasts",
        plots.forecast_series(
            ts,
            truth[:, 0],
            {name: path[:, 0] for name, path in paths.items()},
            divergence={name: float(skill.times[0]) for name, skill in skills.items()},
            lambda1=LAMBDA1,
        ),
    )
    errors = {name: skill.errors for name, skill in skills.items()}
    run.figure("error_growth", plots.error_growth(ts, errors, lambda1=LAMBDA1))
    run.figure("losses", plots.loss_curves(losses))


def solve(run: Run) -> None:
    """Solve the equations by a PINN, and compare it with a truth made in double-double."""
    y0, ts = jnp.ones(3), DT * np.arange(2001)
    truth = reference.extended_trajectories(LORENZ, y0[None], ts).ys[0]
    with run.timed() as timing:
        solution = jax.block_until_ready(pinn.solve(LORENZ, y0, t1=20.0))
    ys = solution(ts)
    errors = dynamics.relative_l2_until(ys, truth, DT, (5, 10, 15, 20))
    seconds = [timing.seconds, timing.compile_seconds]
    run.table(
        [["PINN", *errors.values(), *seconds]],
        ["network", *(f"t = {end}" for end in errors), "seconds", "compiling"],
        title="Relative L2 error on [0, t] from (1, 1, 1), worst component, float64",
    )
    run.metrics({f"pinn.rel_l2_t{end}": error for end, error in errors.items()})
    run.metrics({"pinn.seconds": seconds[0], "pinn.compile_seconds": seconds[1]})
    names = LORENZ.state_names
    run.figure("pinn", plots.solution_error(ts, truth, ys, names=names, lambda1=LAMBDA1))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

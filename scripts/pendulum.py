"""A pendulum with friction, as a beginning for your own equation: solve, trust, identify, forecast.

Networks solve the equation, and the error that they report is compared with the one that they have.
Gravity and friction are then found from noisy angles alone, with intervals and a verdict. Last, a
network learns from trajectories how a state becomes the next one, and forecasts from other starts.

`python -m physml new NAME` writes this script as NAME.py. The lines to change first are those above
`main`: the equation, its parameters, its start and its units of time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # equations want float64; before anything is computed

import jax.numpy as jnp
import numpy as np
from flax import nnx

from physml import data, dynamics, experiment, nn, pinn, plots, reference, surrogate, systems
from physml.experiment import TIMES, Run
from physml.results import RESULTS


def equation(t: Any, y: Any, args: Any) -> Any:
    """The right-hand side, dy/dt: what the state y is at time t decides how it changes.

    Write it with `jnp`, not with `np`, and without `if` on values: see `jnp.where`. An equation of
    second order has the speed as a second component, as here.
    """
    angle, speed = y
    return jnp.array([speed, -args["gravity"] * jnp.sin(angle) - args["friction"] * speed])


NAMES: tuple[str, ...] = ("angle", "speed")  # of the components of y
TRUE = {"gravity": 1.0, "friction": 0.1}  # the parameters; any names, and arrays too
GUESS = {"gravity": 1.5, "friction": 0.3}  # where the search for them begins: half off is near
START = np.array([2.0, 0.0])  # y at t = 0
T1 = 20.0  # the end, in the equation's unit of time
DT = 0.05  # the step that a network learns: a small part of the fastest swing
BOX = ((-2.0, -1.0), (2.0, 1.0))  # low and high corner of the starts that it learns from
SYSTEM = systems.from_function(equation, dim=2, args=TRUE, state_names=NAMES, box=BOX)


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the experiment. Each of yours gets a line of help in the same way."""

    out: Path = Path("results/pendulum")
    noise: float = 0.05
    """Standard deviation of the noise on the observed angles."""


def main(config: Config) -> dict[str, Any]:
    """Run the experiment, write its folder, and return its metrics."""
    noise_key, *keys = jax.random.split(jax.random.key(config.seed), 4)
    with Run(config.out, config) as run:
        solve(run)
        identify(run, config.noise * jax.random.normal(noise_key, (100,)))
        forecast(run, *keys, num=20 if config.quick else 100)
        return run.metrics({"noise": config.noise})


def solve(run: Run) -> None:
    """Solve the equation by networks, and see whether their own estimate of the error holds."""
    ts = np.linspace(0.0, T1, 501)
    truth = reference.solve(SYSTEM, START, ts).ys  # by an integrator, which shares nothing with it
    with run.row("pinn", "networks") as row:
        solution = row.time(pinn.solve, SYSTEM, START, T1)  # solution(t), for any t up to T1
        estimate = solution.error_estimate(ts)  # needs no truth: it comes from the equation
        # Below about 1e-14 both are rounding, and the integrator errs as much.
        row["max_err"] = jnp.abs(solution(ts) - truth).max()
        row["estimated_max_err"] = estimate.max()
        # Until when six digits are right. `censored`: they still were at the end.
        row["valid_until"], row["censored"] = solution.valid_until(1e-6)
        row["verdict"] = RESULTS[solution.result]  # what is not good also warns, or raises
    columns = {
        "name": "solved by", "max_err": "largest error", "estimated_max_err": "as estimated",
        "valid_until": "six digits until", "verdict": "verdict", **TIMES,
    }  # fmt: skip
    run.table(run.take_rows(), columns, title=f"A pendulum with friction to t = {T1:g}, float64")
    figure = plots.solution_error(ts, truth, solution(ts), names=NAMES, estimate=estimate)
    run.figure("solution", figure)


def identify(run: Run, noise: jax.Array) -> None:
    """Find the parameters from noisy observations of the first component."""
    # Your own observations come here: increasing times (n,), values (n, observed components).
    ts = np.linspace(0.0, 10.0, len(noise))
    seen = reference.solve(SYSTEM, START, ts).ys[:, :1] + noise[:, None]
    unknown = systems.from_function(equation, dim=2, args=GUESS, state_names=NAMES)
    guess = np.array([float(seen[0, 0]), 0.0])  # of the start, as the speed is not observed
    names = tuple(TRUE)
    found = pinn.identify(unknown, ts, seen, free=names, observe=[0], y0=guess)
    intervals = found.intervals()  # 95 %; `found.result` says whether to believe them
    for name in names:
        with run.row(name) as row:
            row.metrics({"true": TRUE[name], "found": found.values[name], "sd": found.sd[name]})
            row["low"], row["high"] = intervals[name]
    run.metrics({"identified": RESULTS[found.result]})
    title = f"Parameters from {len(ts)} noisy angles, with 95 % intervals. {RESULTS[found.result]}"
    columns = {"name": "parameter"} | {key: key for key in ("true", "found", "sd", "low", "high")}
    run.table(run.take_rows(), columns, title=title)
    fine = np.linspace(0.0, 10.0, 501)
    fit = dict(zip(NAMES, found.solution(fine).T, strict=True))
    run.figure("fit", plots.fit_to_data(ts, {NAMES[0]: seen[:, 0]}, fine, fit))


def forecast(
    run: Run, network_key: jax.Array, train_key: jax.Array, test_key: jax.Array, num: int
) -> None:
    """Learn the step from t to t + DT from trajectories, and forecast others by it."""
    # Your own data come here: `data.from_csv`, `data.from_dataframe` or `data.from_arrays`.
    train = reference.trajectories(SYSTEM, train_key, num, DT * np.arange(201))
    test = reference.trajectories(SYSTEM, test_key, 20, DT * np.arange(401))
    # Its hidden units are drawn once; least squares then finds the last layer in a moment.
    inputs = surrogate.network_inputs(train)
    network = nn.MLP.frozen(inputs, 300, len(NAMES), rngs=nnx.Rngs(network_key))
    with run.row("step_map", "step map") as row:
        step_map = row.part(surrogate.fit_readout, network, train).step_map
        scale = data.Standardiser.fit(test.ys).std
        skill = dynamics.forecast_skill(step_map, test.ys, scale=scale)
        row["eps1"] = skill.eps1  # the error of one step, relative to the spread of the states
        row["max_err"] = jnp.abs(skill.predicted - test.ys).max()
    columns = {"name": "forecast by", "eps1": "one-step error", "max_err": "largest error"} | TIMES
    run.table(run.take_rows(), columns, title=f"Forecasts over {DT * 400:g} time units")
    run.save_model("step_map", step_map)  # physml.load opens it
    paths = {"step map": skill.predicted[0, :, 0]}
    figure = plots.compare_solutions(
        test.ts, test.ys[0, :, 0], paths, name=NAMES[0], truth_name="truth"
    )
    run.figure("forecast", figure)


if __name__ == "__main__":
    experiment.cli(main, Config)

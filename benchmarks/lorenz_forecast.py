"""How long forecasts of the Lorenz system hold: surrogates beside baselines and perfect maps.

    python benchmarks/lorenz_forecast.py [--out DIR] [--seed N] [--quick]

Each seed draws the lecture's training data anew, 100 starts uniform in [-15, 15]^3, dt 0.01, t to
8, and the surrogate's random numbers. All forecast from the same starts, which none has seen: set A
has 1000 on the attractor, for all seeds, set B 1000 in the box of the training starts, for the
first; what has a memory sees 100 true steps first. The truth is a Taylor series in double-double
and good for all of the 45 time units. Times are in Lyapunov times, 1 / 0.9056 time units, until the
error first passes a threshold in standard deviations of the attractor; intervals are 95 % bootstrap
intervals of the mean at 0.4 over seeds and starts. The whole takes hours on two cores; the same
command after an interruption goes on where it was.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import baselines
import jax.numpy as jnp
import numpy as np
import recipes
import tyro
from matplotlib.figure import Figure

from physml import dynamics, plots, reference, systems
from physml.data import Trajectories
from physml.experiment import Run
from physml.step_maps import StepMap

DT = 0.01
STEPS = 4500  # of a forecast
VALID_STEPS = 2300  # of the trajectories that recipes are tuned on
HISTORY = 101  # true rows that a map with a memory sees before it
THRESHOLDS = (0.1, 0.3, 0.4, 0.5)
LORENZ = systems.Lorenz()
LAMBDA1 = LORENZ.lambda1  # 1 / LAMBDA1 is a Lyapunov time


@dataclass(frozen=True)
class Config:
    """Options of the benchmark."""

    out: Path = Path("results/lorenz_forecast")
    """Folder for the tables, metrics and figures."""
    seed: int = 0
    """Seed of the first training data and network, and of the test starts."""
    quick: bool = False
    """The surrogates and the best polynomial only, one seed, 100 starts of set A."""
    rows: tuple[str, ...] = ()
    """Rows by name; all unless given."""


@dataclass(frozen=True)
class Row:
    """A line of the table, or several: how its step maps are made, and what they need."""

    name: str
    make: Callable[[Trajectories, Trajectories, int], StepMap | Mapping[str, StepMap]]
    quick: dict[str, Any] | None = None  # options of a quick run; None if it is left out of one
    history: int = 1
    dtype: str = "float64"
    fitted: bool = True  # to data
    seeds: int = 5


def polynomial_row(degree: int, symmetric: bool) -> Row:
    signs = tuple(np.diag(np.asarray(LORENZ.symmetry))) if symmetric else None
    # The best is the one that surrogates are to beat.
    quick = {} if degree == 10 and symmetric else None
    return Row(
        f"poly{degree}" if symmetric else f"poly{degree}_plain",
        lambda train, valid, seed: baselines.polynomial(train, degree, signs=signs),
        quick=quick,
    )


def perfect(order: int) -> StepMap:
    return reference.TaylorFlow.create(LORENZ, DT, order=order)


ROWS = (
    Row("mlp", recipes.mlp, quick={}),
    Row("mlp_stage1", functools.partial(recipes.mlp, refinements=0)),
    Row("mlp_tanh", recipes.mlp_tanh),
    Row("rnn", recipes.rnn, quick={}, history=HISTORY),
    Row("rnn_cold", recipes.rnn, seeds=1),
    Row("mlp_trained", recipes.mlp_trained, quick={"quick": True}),
    Row("gru_trained", recipes.gru_trained, quick={"quick": True}, history=HISTORY),
    Row("mlp32", recipes.mlp32, quick={}, dtype="float32"),
    Row("hybrids", recipes.hybrids),
    Row("few", recipes.few),
    Row("persistence", lambda *_: baselines.Persistence(dt=DT), fitted=False, seeds=1),
    Row("linear", lambda train, valid, seed: baselines.polynomial(train, 1)),
    *(polynomial_row(degree, False) for degree in range(2, 11)),
    *(polynomial_row(degree, True) for degree in range(2, 13)),
    *(
        Row(
            f"ngrc{order}",
            lambda train, valid, seed, order=order: baselines.next_generation(train, valid, order),
            history=HISTORY,
        )
        for order in (2, 3)
    ),
    Row("esn", baselines.echo_state, history=HISTORY),
    Row("rk4", lambda *_: reference.RungeKutta4(system=LORENZ, dt=DT), fitted=False, seeds=1),
    Row(
        "perfect32",
        lambda *_: baselines.Single(inner=perfect(12), dt=DT),
        dtype="float32",
        fitted=False,
        seeds=1,
    ),
    Row("perfect", lambda *_: perfect(20), fitted=False, seeds=1),
)


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    rows = [row for row in ROWS if row.quick is not None or not config.quick]
    if config.rows:
        rows = [row for row in ROWS if row.name in config.rows]
    starts, seeds = (100, 1) if config.quick else (1000, 5)
    with Run(config.out, config) as run:
        problem = Problem.make(config.seed, starts, seeds, config.quick)
        check_truth(run, problem, 10 if config.quick else 100)
        scores = {}
        for row in rows:
            for name, score in measure(run, row, problem, config.quick).items():
                scores[name] = score
                record(run, name, score)
        for key, title in problem.titles.items():
            lines = [line(name, score, key) for name, score in scores.items()]
            run.table(lines, ["", *COLUMNS], title=title)
        figures(run, scores)
        return run.metrics({})


@dataclass(frozen=True)
class Problem:
    """The data: training trajectories by seed, validation, and the test sets A and B."""

    seed: int
    trains: list[Trajectories]
    valid: Trajectories
    tests: dict[str, Trajectories]
    scale: jax.Array

    @classmethod
    def make(cls, seed: int, starts: int, seeds: int, quick: bool) -> "Problem":
        """Draw the starts, each set by a key of its own, and integrate them."""
        test_key, box_key, valid_key = jax.random.split(jax.random.key(1000 + seed), 3)

        def box(key, num):
            return jax.random.uniform(key, (num, 3), minval=-15.0, maxval=15.0)

        def solve(starts, steps):
            return reference.extended_trajectories(LORENZ, starts, DT * np.arange(steps + 1))

        length = HISTORY - 1 + STEPS
        tests = {"a": solve(reference.attractor_starts(LORENZ, test_key, starts), length)}
        if not quick:
            tests["b"] = solve(box(box_key, starts), length)
        return cls(
            seed=seed,
            trains=[solve(box(jax.random.key(seed + i), 100), 800) for i in range(seeds)],
            valid=solve(reference.attractor_starts(LORENZ, valid_key, 24), VALID_STEPS),
            tests=tests,
            scale=tests["a"].ys.reshape(-1, 3).std(axis=0),
        )

    @property
    def titles(self) -> dict[str, str]:
        """What stands over the tables."""
        num = len(self.tests["a"])
        unit = f"Valid prediction time in Lyapunov times, {num} starts"
        titles = {
            "a": f"A. {unit} on the attractor",
            "b": f"B. {unit} in the box",
        }
        return {key: titles[key] for key in self.tests}


def check_truth(run: Run, problem: Problem, num: int) -> None:
    """How far the truth agrees with a better one, on some trajectories of each set."""
    for key, test in problem.tests.items():
        horizon = reference.extended_horizon(LORENZ, test[:num], scale=problem.scale)
        run.metrics({f"truth.horizon_{key}": LAMBDA1 * horizon.min(), "truth.checked": num})


@dataclass
class Score:
    """A map's figures on both sets, over its seeds."""

    row: Row
    skills: dict[str, list[dynamics.Skill]] = field(default_factory=lambda: {"a": [], "b": []})
    seconds: list[float] = field(default_factory=list)
    compile_seconds: float = 0.0
    parameters: int = 0
    exponents: np.ndarray | None = None

    def summary(self, key: str) -> dict[str, float]:
        """The figures of all seeds and starts together."""
        skills = self.skills[key]
        together = jax.tree.map(lambda *x: jnp.concatenate([jnp.atleast_1d(a) for a in x]), *skills)
        together = together._replace(eps1=jnp.sqrt(jnp.mean(together.eps1**2)))
        figures = together.summary(1 / LAMBDA1)
        times = LAMBDA1 * np.stack([skill.times for skill in skills])
        low, high = dynamics.bootstrap(times, np.random.default_rng(0))
        return figures | {"vpt_low": low, "vpt_high": high}


def measure(run: Run, row: Row, problem: Problem, quick: bool) -> dict[str, Score]:
    """The scores of a row's maps, over the seeds."""
    scores: dict[str, Score] = {}
    for i in range(min(row.seeds, len(problem.trains))):
        found = run.part(f"{row.name}.{i}", lambda _, i=i: scored(run, row, problem, i, quick))
        for name in found["names"]:
            score = scores.setdefault(name, Score(row))
            score.seconds.append(float(found["seconds"]))
            score.compile_seconds += float(found["compile_seconds"])
            for key in problem.tests:
                leaves = [found.get(f"{name}.{key}.{k}") for k in range(SKILL.num_leaves)]
                if leaves[0] is not None:
                    score.skills[key].append(jax.tree.unflatten(SKILL, leaves))
            if i == 0:
                score.parameters = int(found[f"{name}.parameters"])
                score.exponents = found.get(f"{name}.exponents")
    return scores


def scored(run: Run, row: Row, problem: Problem, i: int, quick: bool) -> dict[str, Any]:
    """Make a row's maps for one seed and forecast set A with them: arrays by name.

    Set B, and maps that only show how the row's own came about, take the first seed.
    """
    make = functools.partial(row.make, **(row.quick or {} if quick else {}))
    with run.timed() as timing:
        made = make(problem.trains[i], problem.valid, problem.seed + i)
        made = jax.block_until_ready(made if isinstance(made, Mapping) else {row.name: made})
    if i > 0 and row.name in made:
        made = {row.name: made[row.name]}
    found: dict[str, Any] = {
        "names": list(made),
        "seconds": timing.seconds,
        "compile_seconds": timing.compile_seconds,
    }
    for name, step_map in made.items():
        for key, test in problem.tests.items():
            if i == 0 or key == "a":
                leaves = jax.tree.leaves(forecast(step_map, row, test, problem.scale))
                found |= {f"{name}.{key}.{k}": leaf for k, leaf in enumerate(leaves)}
        if i == 0:
            arrays = [x for x in jax.tree.leaves(step_map) if hasattr(x, "size")]
            found[f"{name}.parameters"] = sum(x.size for x in arrays) if row.fitted else 0
        if i == 0 and name == "mlp":
            history = problem.tests["a"].ys[:20, : row.history]
            spectrum = dynamics.lyapunov_spectrum(step_map, history, 10_000)
            found[f"{name}.exponents"] = spectrum.exponents.mean(axis=0)
    return found


def forecast(step_map: StepMap, row: Row, test: Trajectories, scale: jax.Array) -> dynamics.Skill:
    """The skill on a test set, without the paths: a hundred megabytes that nobody reads."""
    skill = dynamics.forecast_skill(
        step_map,
        test.ys[:, : row.history + STEPS],
        scale=scale,
        history=row.history,
        thresholds=THRESHOLDS,
    )
    return skill._replace(predicted=jnp.zeros((0, 1, 3)))


_ANY: Any = 0
_AT = dict.fromkeys(THRESHOLDS, dynamics.ValidTime(_ANY, _ANY))
SKILL = jax.tree.structure(dynamics.Skill(_ANY, _ANY, _ANY, _ANY, _ANY, _AT, _ANY))


COLUMNS = (
    "dtype", "seeds", "warm-up", "eps1", "at 0.1", "at 0.3", "at 0.4", "at 0.5", "95 %", "median",
    "5 %", "diverged", "censored", "parameters", "fit s",
)  # fmt: skip


def line(name: str, score: Score, key: str) -> list[Any]:
    """A map's cells in the table of one test set."""
    figures, row = score.summary(key), score.row
    return [
        name,
        row.dtype,
        len(score.skills[key]),
        row.history - 1,
        figures["eps1"],
        *(figures[f"vpt_mean_at_{threshold:g}"] for threshold in THRESHOLDS),
        f"{figures['vpt_low']:.2f} .. {figures['vpt_high']:.2f}",
        figures["vpt_median"],
        figures["vpt_p5"],
        figures["diverged"],
        figures["censored"],
        score.parameters,
        float(np.mean(score.seconds)),
    ]


def record(run: Run, name: str, score: Score) -> None:
    """A map's metrics: those of set A under its own name, those of set B under `box`."""
    figures: dict[str, Any] = {
        "seeds": len(score.seconds),
        "dtype": score.row.dtype,
        "parameters": score.parameters,
        "seconds": float(np.mean(score.seconds)),
        "compile_seconds": score.compile_seconds,
    }
    figures |= score.summary("a")
    if score.skills["b"]:
        figures |= {f"box.{key}": value for key, value in score.summary("b").items()}
    run.metrics(figures, prefix=name)
    if score.exponents is not None:
        run.metrics({f"lambda{k + 1}": value for k, value in enumerate(score.exponents)})
    print(f"{name:18}{figures['vpt_mean']:8.2f} LT{figures['seconds']:9.1f} s", flush=True)


def figures(run: Run, scores: dict[str, Score]) -> None:
    """How errors grow for the main rows, and the valid times of all."""
    main_rows = [row.name for row in ROWS if row.quick is not None] + ["esn", "perfect"]
    errors = {
        name: np.median([skill.errors for skill in scores[name].skills["a"]], axis=0)
        for name in main_rows
        if name in scores
    }
    if errors:
        ts = DT * np.arange(STEPS + 1)
        run.history("error_growth", {"ts": ts, **errors})
        run.figure("error_growth", plots.error_growth(ts, errors, lambda1=LAMBDA1))
    run.figure("valid_times", bars({name: score.summary("a") for name, score in scores.items()}))


def bars(summaries: dict[str, dict[str, float]]) -> Figure:
    """Mean valid prediction times with their intervals, a bar each, the longest on top."""
    names = sorted(summaries, key=lambda name: summaries[name]["vpt_mean"])
    mean, low, high = (
        np.array([summaries[name][key] for name in names])
        for key in ("vpt_mean", "vpt_low", "vpt_high")
    )
    fig = Figure(figsize=(8.0, 1.0 + 0.28 * len(names)), layout="constrained")
    ax = fig.add_subplot()
    ax.barh(names, mean, color="#56B4E9", height=0.7)
    ax.hlines(names, low, high, color="#000000", lw=1.2)
    for at, (value, end) in enumerate(zip(mean, high, strict=True)):
        ax.text(end + 0.3, at, f"{value:.1f}", va="center", fontsize=8)
    ax.set(xlabel="valid prediction time [Lyapunov times], threshold 0.4, on the attractor")
    ax.margins(x=0.08, y=0.01)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return fig


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

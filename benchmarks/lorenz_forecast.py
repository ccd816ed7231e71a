"""How long forecasts of the Lorenz system hold: surrogates, baselines and perfect maps.

    python benchmarks/lorenz_forecast.py [--out DIR] [--seed N] [--quick] [--rows NAME ...]

Each seed draws the lecture's training data (100 starts uniform in [-15, 15]^3, dt 0.01, t to 8) and
the surrogate's random numbers. All maps forecast from the same starts, which no map has seen: set A
has 1000 starts on the attractor, for all seeds, set B 1000 starts in the box of the training data,
for the first seed. A map with a memory sees 100 true steps first. The truth is a Taylor series in
double-double, accurate for all of the 45 time units. Valid prediction times are in Lyapunov times,
1 / 0.9056 time units, and end where the error first passes a threshold in standard deviations of
the attractor; intervals are 95 % bootstrap intervals of the mean at 0.4 over seeds and starts. The
whole takes hours on two cores; after an interruption --resume continues the run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
from _lorenz import DT, HISTORY, LAMBDA1, LORENZ
from _recipes import RECIPES, WORDS, Recipe
from matplotlib.figure import Figure

from physml import dynamics, experiment, plots, reference
from physml.data import Trajectories
from physml.experiment import Run

STEPS = 4500  # of a forecast
VALID_STEPS = 2300  # of the trajectories that recipes are tuned on
THRESHOLDS = (0.1, 0.3, 0.4, 0.5)
COLUMNS = {
    "name": "", "dtype": "dtype", "seeds": "seeds", "warm_up": "warm-up", "eps1": "eps1",
    **{f"vpt_mean_at_{threshold:g}": f"at {threshold:g}" for threshold in THRESHOLDS},
    "interval": "95 %", "vpt_median": "median", "vpt_p5": "5 %", "diverged": "diverged",
    "censored": "censored", "parameters": "parameters", "seconds": "fit s",
}  # fmt: skip


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/lorenz_forecast")
    quick: bool = False
    """The surrogates and the best polynomial only, one seed, 100 starts of set A."""
    rows: tuple[str, ...] = ()
    """Rows by name; all unless given."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    recipes = [recipe for recipe in RECIPES if recipe.quick is not None or not config.quick]
    if config.rows:
        recipes = [recipe for recipe in RECIPES if recipe.name in config.rows]
    starts, seeds = (100, 1) if config.quick else (1000, 5)
    with Run(config.out, config) as run:
        problem = Problem.make(config.seed, starts, seeds, config.quick)
        check_truth(run, problem, 10 if config.quick else 100)
        scores: dict[str, Score] = {}
        for recipe in recipes:
            scores |= measure(run, recipe, problem, config.quick)
        for key, test in problem.tests.items():
            for name, score in scores.items():
                record(run, name, score, key)
            unit = f"Valid prediction time in Lyapunov times, {len(test)} starts"
            place = {"a": "on the attractor", "b": "in the box"}[key]
            run.table(run.take_rows(), COLUMNS, title=f"{key.upper()}. {unit} {place}")
        figures(run, scores)
        return run.metrics({"starts": starts})


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
        """Draw each set of starts by a key of its own, and integrate them."""
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


def check_truth(run: Run, problem: Problem, num: int) -> None:
    """How long the truth agrees with a more accurate one, on some trajectories of each set."""
    for key, test in problem.tests.items():
        horizon = reference.extended_horizon(LORENZ, test[:num], scale=problem.scale)
        run.metrics({f"truth.horizon_{key}": LAMBDA1 * horizon.min(), "truth.checked": num})


@dataclass
class Score:
    """The figures of a map on both sets, over its seeds."""

    recipe: Recipe
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
        times = LAMBDA1 * np.stack([skill.times for skill in skills])
        low, high = dynamics.bootstrap(times, np.random.default_rng(0))
        return together.summary(1 / LAMBDA1) | {"vpt_low": low, "vpt_high": high}


def measure(run: Run, recipe: Recipe, problem: Problem, quick: bool) -> dict[str, Score]:
    """The scores of a recipe's maps, over the seeds."""
    scores: dict[str, Score] = {}
    for i in range(min(recipe.seeds, len(problem.trains))):
        found = run.part(f"{recipe.name}.{i}", scored, run, recipe, problem, i, quick)
        for name in found["names"]:
            score = scores.setdefault(name, Score(recipe))
            score.seconds.append(float(found["seconds"]))
            score.compile_seconds += float(found["compile_seconds"])
            for key in problem.tests:
                leaves = [found.get(f"{name}.{key}.{k}") for k in range(SKILL.num_leaves)]
                if leaves[0] is not None:
                    score.skills[key].append(jax.tree.unflatten(SKILL, leaves))
            if i == 0:
                score.parameters = int(found[f"{name}.parameters"])
                score.exponents = found.get(f"{name}.exponents")
    for name, score in scores.items():
        mean, seconds = score.summary("a")["vpt_mean"], np.mean(score.seconds)
        print(f"{name:18}{mean:8.2f} LT{seconds:9.1f} s", flush=True)
    return scores


def scored(run: Run, recipe: Recipe, problem: Problem, i: int, quick: bool) -> dict[str, Any]:
    """Make the maps of a recipe for one seed, and forecast with them: arrays by name.

    The first seed alone forecasts set B, and keeps the maps of the recipe's other rows.
    """
    make = partial(recipe.make, **(recipe.quick or {} if quick else {}))
    with run.timed() as timing:
        made = make(problem.trains[i], problem.valid, problem.seed + i)
        made = jax.block_until_ready(made if isinstance(made, Mapping) else {recipe.name: made})
    if i > 0 and recipe.name in made:
        made = {recipe.name: made[recipe.name]}
    times = {"seconds": timing.seconds, "compile_seconds": timing.compile_seconds}
    found: dict[str, Any] = {"names": list(made), **times}
    for name, step_map in made.items():
        for key, test in problem.tests.items():
            if i == 0 or key == "a":
                skill = dynamics.forecast_skill(
                    step_map, test.ys[:, : recipe.history + STEPS], scale=problem.scale,
                    history=recipe.history, thresholds=THRESHOLDS,
                )  # fmt: skip
                # The forecasts themselves are a hundred megabytes that nobody reads.
                leaves = jax.tree.leaves(skill._replace(predicted=jnp.zeros((0, 1, 3))))
                found |= {f"{name}.{key}.{k}": leaf for k, leaf in enumerate(leaves)}
        if i == 0:
            arrays = [x for x in jax.tree.leaves(step_map) if hasattr(x, "size")]
            found[f"{name}.parameters"] = sum(x.size for x in arrays) if recipe.fitted else 0
        if i == 0 and name == "mlp":
            history = problem.tests["a"].ys[:20, : recipe.history]
            spectrum = dynamics.lyapunov_spectrum(step_map, history, 10_000)
            found[f"{name}.exponents"] = spectrum.exponents.mean(axis=0)
    return found


_ANY: Any = 0
_AT = dict.fromkeys(THRESHOLDS, dynamics.ValidTime(_ANY, _ANY))
SKILL = jax.tree.structure(dynamics.Skill(_ANY, _ANY, _ANY, _ANY, _ANY, _AT, _ANY))


def record(run: Run, name: str, score: Score, key: str) -> None:
    """A map's row and metrics: those of set A under its own name, those of set B under `box`."""
    costs = {"parameters": score.parameters, "seconds": float(np.mean(score.seconds))}
    costs |= {"dtype": score.recipe.dtype, "seeds": len(score.skills[key])}
    with run.row(name if key == "a" else f"{name}.box", name) as row:
        row.metrics(figures := score.summary(key))
        if key == "a":
            row.metrics(costs | {"compile_seconds": score.compile_seconds})
        interval = f"{figures['vpt_low']:.2f} .. {figures['vpt_high']:.2f}"
        row.shown |= costs | {"warm_up": score.recipe.history - 1, "interval": interval}
    if key == "a" and score.exponents is not None:
        run.metrics({f"lambda{k + 1}": value for k, value in enumerate(score.exponents)})


def figures(run: Run, scores: dict[str, Score]) -> None:
    """How errors grow for the main rows, and the valid times of all rows."""
    main_rows = [recipe.name for recipe in RECIPES if recipe.quick is not None]
    errors = {
        name: np.median([skill.errors for skill in scores[name].skills["a"]], axis=0)
        for name in (*main_rows, "esn", "perfect")
        if name in scores
    }
    if errors:
        ts = DT * np.arange(STEPS + 1)
        run.history("error_growth", {"ts": ts, **errors})
        named = {WORDS[name]: error for name, error in errors.items()}
        run.figure("error_growth", plots.error_growth(ts, named, lambda1=LAMBDA1))
    summaries = {WORDS[name]: score.summary("a") for name, score in scores.items()}
    run.figure("valid_times", bars(summaries))


def bars(summaries: dict[str, dict[str, float]]) -> Figure:
    """A bar for each mean valid prediction time, with its interval, the longest on top."""
    names = sorted(summaries, key=lambda name: summaries[name]["vpt_mean"])
    keys = ("vpt_mean", "vpt_low", "vpt_high")
    mean, low, high = (np.array([summaries[name][key] for name in names]) for key in keys)
    fig = Figure(figsize=(8.0, 1.0 + 0.28 * len(names)), layout="constrained")
    ax = fig.add_subplot()
    ax.barh(names, mean, color="#56B4E9", height=0.7)
    ax.hlines(names, low, high, color="#000000", lw=1.2)
    for at, (value, end) in enumerate(zip(mean, high, strict=True)):
        ax.text(end + 0.3, at, f"{value:.1f}", va="center", fontsize=8)
    ax.set(xlabel="valid prediction time [Lyapunov times], threshold 0.4, on the attractor")
    ax.margins(x=0.08, y=0.01)
    ax.spines[["top", "right"]].set_visible(False)
    return fig


if __name__ == "__main__":
    experiment.cli(main, Config)

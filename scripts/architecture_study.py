"""What makes a next-step network good: the lecture's study, for Lorenz and the driven oscillator.

Width and depth, activation, regularisation (L2, L1, dropout, input noise), learning-rate schedule
and optimizer of an MLP that learns y(t + dt) - y(t) from y(t), and the vanishing gradient of deep
sigmoid networks. Fits of one shape run as one program over seeds and hyper-parameters. Each is
scored on trajectories that it has not seen, by its one-step error and by its forecast, as training
left it and with its last layer refitted by least squares. The same command after an interruption
goes on where it was.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # data and scores; networks are trained in float32

import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx

from physml import data, nn, plots, reference, surrogate, systems
from physml.experiment import Run, slug
from physml.results import raise_if_interrupted


@dataclass(frozen=True)
class Config:
    """Options of the experiment."""

    out: Path = Path("results/architecture_study")
    """Folder for the tables, metrics and figures."""
    seed: int = 0
    """Seed of everything drawn at random."""
    quick: bool = False
    """A few short fits: a look, most of it compiling."""
    problems: tuple[str, ...] = ("lorenz", "oscillator")
    """What to study (Lorenz only if quick)."""
    steps: int = 3000
    """Steps of each fit by batches of 64 (200 if quick)."""
    seeds: int = 3
    """Fits of each setting that differ in their first weights (2 if quick)."""


@dataclass(frozen=True)
class Problem:
    """What is learned, and how a map is judged."""

    name: str
    rows: dict[str, tuple[jax.Array, jax.Array]]  # of the parts: network inputs, targets; float64
    stepper: surrogate.Stepper  # holds the normalisation; its network is a placeholder
    truth: data.Trajectories  # what forecasts are scored on
    scale: jax.Array  # the standard deviation of each component
    lambda1: float | None  # of a chaotic system; 1 / lambda1 is a Lyapunov time

    @property
    def forecast(self) -> str:
        """What the forecast's score is."""
        return "max |x error|" if self.lambda1 is None else "valid time [LT]"

    def pairs(self, part: str, num: int | None = None) -> tuple[jax.Array, jax.Array]:
        """Rows to train on, float32."""
        first, second = (x[:num].astype(jnp.float32) for x in self.rows[part])
        return first, second

    def scores(self, networks: nn.MLP) -> dict[str, np.ndarray]:
        """Of every network, as it is and with its last layer refitted, in float64."""
        rows, targets = (x[::4] for x in self.rows["train"])
        scores = {}
        for suffix, each in (
            ("", networks),
            ("_refit", surrogate.refit_many(networks, rows, targets)),
        ):
            found = surrogate.score_many(self.stepper, each, self.truth, scale=self.scale)
            if self.lambda1 is None:
                forecast = jnp.median(found.worst[..., 0], axis=1)
            else:
                forecast = self.lambda1 * found.times.mean(axis=1)
            scores |= {f"eps1{suffix}": found.eps1, f"forecast{suffix}": forecast}
        return {name: np.asarray(values) for name, values in scores.items()}


def lorenz(key: jax.Array) -> Problem:
    """The lecture's 100 trajectories to learn from; starts on the attractor to be judged on."""
    system, (train_key, other_key) = systems.Lorenz(), jax.random.split(key)
    train = reference.trajectories(system, train_key, 100, 0.01 * np.arange(801))
    starts = reference.attractor_starts(system, other_key, 40)
    others = reference.trajectories_from(system, starts, 0.01 * np.arange(1001))
    return prepared("lorenz", train, others, lambda1=system.lambda1)


def oscillator(key: jax.Array) -> Problem:
    """Starts in [-2, 2]^2 at any phase of the drive, over 20 time units."""
    system: Any = systems.DrivenOscillator()
    box = ((-2.0, -2.0), (2.0, 2.0))
    whole = reference.driven_trajectories(system, key, 240, 0.05 * np.arange(401), box=box)
    return prepared("oscillator", whole[:200], whole[200:], period=float(system.period))


PROBLEMS = {"lorenz": lorenz, "oscillator": oscillator}


def prepared(
    name: str,
    train: data.Trajectories,
    others: data.Trajectories,
    *,
    lambda1: float | None = None,
    period: float | None = None,
) -> Problem:
    dim = train.ys.shape[-1]
    network = nn.MLP(dim if period is None else dim + 2, (1,), dim, rngs=nnx.Rngs(0))
    stepper = surrogate.Stepper.create(network, train, period=period)
    rows = {}
    for part, trajectories in {"train": train, "valid": others[:20]}.items():
        inputs, targets = stepper.pairs(trajectories)
        order = np.random.default_rng(0).permutation(len(inputs))
        rows[part] = inputs[order], targets[order]
    scale = data.Standardizer.fit(others.ys).std
    return Problem(name, rows, stepper, others[20:], scale, lambda1)


@dataclass(frozen=True)
class Setting:
    """A fit's hyper-parameters that share a compiled program."""

    rate: float = 1e-2
    schedule: str = "cosine"
    l2: float = 0.0
    l1: float = 0.0
    noise: float = 0.0
    seed: int = 0


SCHEDULES = ("constant", "exponential", "cosine", "warm-up, cosine", "one-cycle")


@cache
def schedule_tables(steps: int) -> dict[str, np.ndarray]:
    """The learning rate of every step, the largest 1."""
    schedules: tuple[optax.Schedule, ...] = (
        optax.constant_schedule(1.0),
        optax.exponential_decay(1.0, steps, 1e-3),
        optax.cosine_decay_schedule(1.0, steps),
        optax.warmup_cosine_decay_schedule(0.0, 1.0, steps // 10 + 1, steps + 1),
        optax.cosine_onecycle_schedule(steps, 1.0),
    )
    tables = jax.jit(lambda n: [jax.vmap(f)(n) for f in schedules])(jnp.arange(steps))
    return dict(zip(SCHEDULES, map(np.asarray, tables), strict=True))


def stacked(settings: list[Setting], steps: int, key: jax.Array) -> dict[str, jax.Array]:
    """Settings as arrays; a schedule becomes the table of its values."""
    tables = schedule_tables(steps)
    columns = {
        name: [getattr(setting, name) for setting in settings] for name in ("l2", "l1", "noise")
    }
    columns["rates"] = [setting.rate * tables[setting.schedule] for setting in settings]
    arrays = {name: jnp.asarray(np.array(x, np.float32)) for name, x in columns.items()}
    return arrays | {"key": jnp.stack([jax.random.fold_in(key, s.seed) for s in settings])}


Optimizer = Callable[[Callable[[Any], Any]], optax.GradientTransformation]
OPTIMIZERS: dict[str, tuple[Optimizer, bool, tuple[float, ...]]] = {  # in batches?, rates
    "gradient descent": (optax.sgd, False, (0.1, 0.3, 1.0)),
    "momentum": (partial(optax.sgd, momentum=0.9), False, (0.03, 0.1, 0.3)),
    "batches": (optax.sgd, True, (0.03, 0.1, 0.3)),
    "batches, momentum": (partial(optax.sgd, momentum=0.9), True, (0.01, 0.03, 0.1)),
    "RMSprop": (optax.rmsprop, True, (3e-4, 1e-3, 3e-3)),
    "Adam": (optax.adam, True, (1e-3, 3e-3, 1e-2)),
    "Muon": (optax.contrib.muon, True, (1e-3, 3e-3, 1e-2)),
    "L-BFGS": (lambda rate: optax.lbfgs(), False, (1.0,)),
}


def adam(setting: Any) -> optax.GradientTransformation:
    return optax.adam(lambda count: setting["rates"][count])


SCORES = ("eps1", "forecast", "eps1_refit", "forecast_refit")
Found = tuple[list[Setting], dict[str, np.ndarray]]  # what was fitted, and what came of it


class Study:
    """One problem's sweeps and their scores."""

    def __init__(self, run: Run, problem: Problem, config: Config):
        self.run, self.problem, self.config = run, problem, config
        self.quick = config.quick
        self.steps = 200 if config.quick else config.steps
        self.rates = (3e-3, 1e-2) if config.quick else (1e-3, 3e-3, 1e-2, 3e-2)
        self.seeds = range(2 if config.quick else config.seeds)
        self.key = jax.random.key(config.seed)

    def settings(self, **grids: Iterable[Any]) -> list[Setting]:
        """Every combination, seeds last."""
        combinations = itertools.product(*grids.values(), self.seeds)
        return [
            Setting(**dict(zip((*grids, "seed"), values, strict=True))) for values in combinations
        ]

    def sweep(
        self,
        name: str,
        settings: list[Setting],
        *,
        hidden: tuple[int, ...] = (32, 32),
        activation: str = "tanh",
        dropout: float = 0.0,
        optimizer: Callable[[Any], optax.GradientTransformation] = adam,
        rows: int | None = None,
        batch_size: int | None = 64,
        steps: int | None = None,
        validations: int = 20,
    ) -> dict[str, np.ndarray]:
        """Fit every setting of one shape, and score what comes out."""
        num_steps = steps or self.steps

        def compute(path: Path) -> dict[str, Any]:
            swept = surrogate.fit_many(
                self.problem.pairs("train", rows),
                self.problem.pairs("valid"),
                settings=stacked(settings, num_steps, self.key),
                hidden=hidden,
                activation=activation,
                dropout=dropout,
                optimizer=optimizer,
                steps=num_steps,
                batch_size=batch_size,
                key=self.key,
                valid_every=max(1, num_steps // validations),
                checkpoint=path,
            )
            raise_if_interrupted(swept.result)
            scores = self.problem.scores(swept.models.network)
            lost = np.where(swept.diverged, np.nan, 1.0)
            return {
                **{name: values * lost for name, values in scores.items()},
                "curves": swept.history["valid_loss"],
                "at": swept.history["valid_step"],
                "seconds": swept.seconds,
                "compile_seconds": swept.compile_seconds,
            }

        return self.run.part(f"{self.problem.name}.{name}", compute)

    def by_setting(self, values: np.ndarray) -> np.ndarray:
        """The median over seeds, NaN where one has diverged."""
        return np.median(values.reshape(-1, len(self.seeds)), axis=1)

    def report(self, group: str, rows: dict[str, Found]) -> dict[str, dict[str, float]]:
        """A table, learning curves and metrics, each row at its best rate.

        That is the one whose worst seed has the least validation loss.
        """
        name, num = self.problem.name, len(self.seeds)
        table, curves, scores = [], {}, {}
        for label, (settings, result) in rows.items():
            losses = np.nan_to_num(result["curves"].min(axis=0), nan=np.inf).reshape(-1, num)
            chosen = int(losses.max(axis=1).argmin())
            own = slice(chosen * num, (chosen + 1) * num)
            curves[label] = result["at"] / result["at"][-1], result["curves"][:, own]
            scores[label] = {key: self.by_setting(result[key])[chosen] for key in SCORES}
            scores[label]["rate"] = settings[chosen * num].rate
            scores[label]["diverged"] = np.isnan(result["eps1"]).mean()
            table.append([label, *scores[label].values()])
            self.run.metrics(scores[label], prefix=f"{name}.{group}.{slug(label)}")
        forecast = self.problem.forecast
        self.run.table(
            table,
            [group, "eps1", forecast, "eps1, refit", f"{forecast}, refit", "rate", "diverged"],
            title=f"{name}: {group}, medians of {num} seeds at the best rate",
        )
        figure = plots.bands(
            curves, xlabel="share of the training", ylabel="validation loss", share=1.0,
            title=f"{name}: {group}",
        )  # fmt: skip
        self.run.figure(f"{name}_{group}", figure)
        return scores

    def heat_map(
        self, name: str, eps1: np.ndarray, rows: Any, columns: Any, row_name: str, column_name: str
    ) -> None:
        figure = plots.heat_map(
            eps1, rows, columns, row_name=row_name, column_name=column_name,
            name="one-step error", title=self.problem.name,
        )  # fmt: skip
        self.run.figure(f"{self.problem.name}_{name}", figure)


def gradient_norms(problem: Problem, depth: int, activation: str, keys: jax.Array) -> np.ndarray:
    """The norm of the loss's gradient in each layer's matrix at the start: (layers, keys)."""
    x, y = problem.pairs("train", 1024)

    @jax.jit
    @jax.vmap
    def norms(key: jax.Array) -> jax.Array:
        network = nn.MLP(
            x.shape[1], (32,) * depth, y.shape[1], activation=activation, dtype=x.dtype,
            rngs=nnx.Rngs(key),
        )  # fmt: skip
        grads = nnx.grad(lambda network: jnp.mean((network(x) - y) ** 2))(network)
        layers = [*(grads["hidden"][i] for i in range(depth)), grads["readout"]]
        return jnp.stack([jnp.linalg.norm(layer["kernel"][...]) for layer in layers])

    return np.asarray(norms(keys)).T


def shapes(study: Study) -> None:
    """Width, depth and activation: a program for each."""
    adams = study.settings(rate=study.rates)
    widths, depths = ((8, 32), (2,)) if study.quick else ((8, 16, 32, 64), (1, 2, 4))
    results = {
        (width, depth): study.sweep(f"shape_{width}x{depth}", adams, hidden=(width,) * depth)
        for width in widths
        for depth in depths
    }
    scores = study.report("shape", {f"{w} x {d}": (adams, r) for (w, d), r in results.items()})
    eps1 = np.array([[scores[f"{w} x {d}"]["eps1"] for d in depths] for w in widths])
    study.heat_map("width_depth", eps1, widths, depths, "width", "hidden layers")

    activations = ("relu",) if study.quick else ("sigmoid", "relu", "gelu", "sin")
    others = {name: (adams, study.sweep(name, adams, activation=name)) for name in activations}
    study.report("activation", {"tanh": (adams, results[32, 2]), **others})


def hyper_parameters(study: Study) -> None:
    """Learning rate, schedule and regularisation: one program, and one more for dropout."""
    etas = (3e-3, 1e-2) if study.quick else (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1)
    strengths = (1e-4,) if study.quick else (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
    schedules = {s: study.settings(rate=study.rates, schedule=(s,)) for s in SCHEDULES}
    penalties = {
        "none": study.settings(),
        **{f"L2 {x:g}": study.settings(l2=(x,)) for x in strengths[-3:]},
        **{f"L1 {x:g}": study.settings(l1=(x,)) for x in strengths[-3:]},
        **{f"noise {x:g}": study.settings(noise=(x,)) for x in (0.01, 0.1)},
    }
    grid = {"grid": study.settings(rate=etas, l2=(0.0, *strengths))}
    blocks = {**grid, **schedules, **penalties}
    together = study.sweep("settings", [setting for block in blocks.values() for setting in block])
    found: dict[str, Found] = {}
    first = 0
    for name, block in blocks.items():
        part = slice(first, first := first + len(block))
        own = {key: together[key][..., part] for key in (*SCORES, "curves")}
        found[name] = block, {**own, "at": together["at"]}
    study.report("schedule", {name: found[name] for name in schedules})
    dropped = study.sweep("dropout", study.settings(), dropout=0.1)
    held = {name: found[name] for name in penalties}
    study.report("regularisation", {**held, "dropout 0.1": (study.settings(), dropped)})
    eps1 = study.by_setting(found["grid"][1]["eps1"]).reshape(len(etas), -1)
    study.heat_map("rate_l2", eps1, etas, (0.0, *strengths), "learning rate", "L2 strength")


def optimizers(study: Study) -> None:
    """As many passes over 2048 pairs for each, so that full-batch methods can be had."""
    names = ("batches, momentum", "Adam") if study.quick else tuple(OPTIMIZERS)
    passes = 3 if study.quick else 100
    found: dict[str, Found] = {}
    for name in names:
        make, batches, rates = OPTIMIZERS[name]
        settings = study.settings(rate=rates, schedule=("constant",))
        found[name] = settings, study.sweep(
            slug(name), settings, rows=2048, batch_size=32 if batches else None,
            steps=passes * (64 if batches else 1),
            optimizer=lambda s, make=make: make(lambda count: s["rates"][count]),
        )  # fmt: skip
    study.report("optimizer", found)


def vanishing_gradients(study: Study) -> None:
    """The gradient in every layer of deep networks before training."""
    keys = jax.random.split(study.key, 5)
    norms = {}
    for activation, depth in itertools.product(("sigmoid", "tanh", "relu"), (4, 16)):
        found = gradient_norms(study.problem, depth, activation, keys)
        norms[f"{activation}, {depth} layers"] = np.arange(1, depth + 2), found
        first_to_last = np.median(found[0] / found[-2])
        study.run.metrics({f"{study.problem.name}.gradient.{activation}_{depth}": first_to_last})
    figure = plots.bands(
        norms, xlabel="layer", ylabel="gradient norm before training", share=1.0,
        title=study.problem.name,
    )  # fmt: skip
    study.run.figure(f"{study.problem.name}_gradients", figure)


def main(config: Config) -> dict[str, Any]:
    """Run the experiment, write its folder, and return its metrics."""
    with Run(config.out, config) as run:
        key = jax.random.key(config.seed)
        for name in config.problems[: 1 if config.quick else None]:
            study = Study(run, PROBLEMS[name](key), config)
            shapes(study)
            hyper_parameters(study)
            optimizers(study)
            vanishing_gradients(study)
        return run.metrics({})


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

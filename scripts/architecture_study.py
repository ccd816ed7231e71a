"""What makes a next-step network good: the lecture's study, for Lorenz and the driven oscillator.

The study varies width and depth, activation, regularisation (L2, L1, dropout, input noise),
learning-rate schedule and optimizer of an MLP that learns y(t + dt) - y(t) from y(t), and shows the
vanishing gradient of deep sigmoid networks. Fits of one shape run as one program over seeds and
hyper-parameters. Each network is scored on trajectories that it has not seen, by its one-step error
and by its forecast, as training left it and with its last layer refitted by least squares. After
an interruption, --resume goes on where it stopped.
"""

import itertools
from collections.abc import Callable
from functools import partial

import jax

jax.config.update("jax_enable_x64", True)  # data and scores; networks are trained in float32

import numpy as np
import optax
from _study import SCORES, Found, Study, StudyConfig
from _study_settings import SCHEDULES
from _study_subjects import SUBJECTS

from physml import experiment, plots
from physml.experiment import Run, slug

ACTIVATIONS = {"relu": "ReLU", "gelu": "GELU"}  # in words; the others are words
Optimizer = Callable[[optax.Schedule], optax.GradientTransformation]
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


def shapes(study: Study) -> None:
    """Units in a layer, depth and activation: a program for each."""
    adams = study.settings(rate=study.rates)
    widths, depths = ((8, 32), (2,)) if study.quick else ((8, 16, 32, 64), (1, 2, 4))
    results = {
        (width, depth): study.sweep(f"shape_{width}x{depth}", adams, hidden=(width,) * depth)
        for width in widths
        for depth in depths
    }
    eps1 = study.report("shape", {f"{w} x {d}": (adams, r) for (w, d), r in results.items()})
    axes = {"rows": widths, "columns": depths, "row_name": "units", "column_name": "hidden layers"}
    study.heat_map("width_depth", np.reshape(eps1, (len(widths), len(depths))), **axes)

    activations = ("relu",) if study.quick else ("sigmoid", "relu", "gelu", "sin")
    others = {
        ACTIVATIONS.get(name, name): (adams, study.sweep(name, adams, activation=name))
        for name in activations
    }
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
    axes = {"rows": etas, "columns": (0.0, *strengths)}
    names = {"row_name": "learning rate", "column_name": "L2 strength"}
    study.heat_map("rate_l2", eps1, **axes, **names)


def optimizers(study: Study) -> None:
    """Optimizers with equally many passes over 2048 pairs, few enough for full-batch methods."""
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
        found = study.subject.gradient_norms(depth, activation, keys)
        label = f"{ACTIVATIONS.get(activation, activation)}, {depth} layers"
        norms[label] = np.arange(1, depth + 2), found
        first_to_last = np.median(found[0] / found[-2])
        study.run.metrics({f"{study.subject.name}.gradient.{activation}_{depth}": first_to_last})
    figure = plots.bands(
        norms, xlabel="layer", ylabel="gradient norm before training", share=1.0,
        title=study.subject.name.capitalize(),
    )  # fmt: skip
    study.run.figure(f"{study.subject.name}_gradients", figure)


def main(config: StudyConfig) -> dict[str, object]:
    """Run the experiment, write its folder, and return its metrics."""
    with Run(config.out, config) as run:
        key = jax.random.key(config.seed)
        for name in config.problems[: 1 if config.quick else None]:
            study = Study(run, SUBJECTS[name](key), config)
            shapes(study)
            hyper_parameters(study)
            optimizers(study)
            vanishing_gradients(study)
        return run.metrics({})


if __name__ == "__main__":
    experiment.cli(main, StudyConfig)

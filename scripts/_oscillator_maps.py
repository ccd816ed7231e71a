"""Next-step maps of the driven and the Duffing oscillator, with a frozen hidden part."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from physml import data, dynamics, nn, plots, reference, surrogate, systems
from physml.experiment import TIMES, Run

DT = 0.05
STEPS = 400  # in 20 time units
WARMUP = 31  # true rows that a recurrent network sees before a forecast
WORDS = {
    "linear": "driven, linear map",
    "mlp": "driven, MLP",
    "gru": "driven, GRU",
    "duffing_linear": "Duffing, linear map",
    "duffing_mlp": "Duffing, MLP",
}


def compare_maps(run: Run, seed: int, quick: bool) -> None:
    """Maps learned from many starts and phases, rolled out from starts and phases never seen."""
    keys = jax.random.split(jax.random.key(seed), 4)
    units = 300 if quick else 600
    problems: dict[str, Any] = {"driven": systems.DrivenOscillator(), "duffing": systems.Duffing()}
    # Starts in [-2, 2]^2 at any phase of the drive: 200 to fit, 50 to test.
    ts, box = DT * np.arange(STEPS + WARMUP), ((-2.0, -2.0), (2.0, 2.0))
    draw = partial(reference.driven_trajectories, key=keys[0], num=250, ts=ts, box=box)
    parts = {name: data.split(draw(x), (0.8, 0.2), keys[1]) for name, x in problems.items()}
    gru: dict[str, Any] = {"scale": 0.005, "spectral_radius": 0.3}
    fits: dict[str, tuple[str, Callable]] = {
        "linear": ("driven", lambda x, rngs: nn.MLP(4, (), 2, rngs=rngs)),
        "mlp": ("driven", lambda x, rngs: nn.MLP.frozen(x, 200, 2, scale=0.01, rngs=rngs)),
        "gru": ("driven", lambda x, rngs: nn.RNN.frozen("gru", x, 60, 2, **gru, rngs=rngs)),
        "duffing_linear": ("duffing", lambda x, rngs: nn.MLP(4, (), 2, rngs=rngs)),
        "duffing_mlp": (
            "duffing",
            lambda x, rngs: nn.MLP.frozen(x, units, 2, scale=0.03, rngs=rngs),
        ),
    }

    models, portraits, true_path = {}, {}, None
    for name, (problem, make) in fits.items():
        train, test = parts[problem]
        period = float(problems[problem].period)
        warmup = WARMUP - 1 if name == "gru" else 0
        start, truth = test.t0s + (WARMUP - 1) * DT, test.ys[:, WARMUP - 1 :]
        with run.row(name, WORDS[name]) as row:
            models[name] = row.part(learn, make, train, keys[2], period=period, warmup=warmup)
            ys = dynamics.rollout(models[name], test.ys[:, :WARMUP], STEPS, t0=start)
            worst = jnp.abs(ys - truth)[..., 0].max(axis=1)
            row["max_err"], row["median_err"] = worst.max(), jnp.median(worst)
        if problem == "duffing":
            true_path, portraits[WORDS[name].removeprefix("Duffing, ")] = truth[0], ys[0]
    run.save_model("maps", models)
    run.table(
        run.take_rows(),
        {"name": "map", "max_err": "max |x error|", "median_err": "median", **TIMES},
        title="Next-step maps, hidden part frozen and readout by least squares,\n"
        "over 20 time units from 50 starts and phases never seen, float64",
    )
    run.figure("duffing", plots.phase_portrait(portraits, truth=true_path))


def learn(
    make: Callable, train: data.Trajectories, key: jax.Array, **options: Any
) -> surrogate.Stepper:
    # Numbers that maps drew from one stream would depend on which of them a resumed run loads.
    network = make(surrogate.network_inputs(train, period=options["period"]), nnx.Rngs(key))
    return surrogate.fit_readout(network, train, **options).step_map

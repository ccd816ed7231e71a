"""How a recurrent network is trained through time into a next-step map of the Lorenz system.

`stages` returns the step map of every stage by name:

- untrained: the network as it was drawn;
- untrained_refit: its readout fitted by least squares, which shows what training adds;
- adam: all weights trained by back-propagation through windows of 8 true steps;
- refit: the trained network with its readout fitted by least squares;
- refit_cold: the same fit, with the first rows of each trajectory, where the memory is still empty.

The refit is good if training leaves smooth features and the map is stable when it feeds itself.
Therefore the weights are drawn small, the gates are drawn such that memories fade (the windows are
too short to teach it), decay keeps the hidden matrices small, and the readout learns faster than
the hidden layer.
"""

import jax
import jax.numpy as jnp
import optax
from _lorenz import LORENZ
from flax import nnx

from physml import nn, surrogate
from physml.data import Trajectories
from physml.nn import Cell

LENGTH = 8  # steps of a window
WARMUP = 50  # rows until the memory has filled and the trajectory has reached the attractor
SYMMETRY = LORENZ.symmetry
KEEP_BIAS = {"simple": 0.0, "gru": -2.0, "lstm": -3.0}


def stages(
    cell: Cell, train: Trajectories, valid: Trajectories, seed: int, quick: bool
) -> dict[str, surrogate.Stepper]:
    """The step map of every stage, see the module."""
    fitted, drawn = trained(cell, train, valid, seed, quick), network(cell, seed, quick)
    untrained = surrogate.fit_readout(drawn, train, symmetry=SYMMETRY, warmup=WARMUP)
    cold = surrogate.fit_readout(fitted.before_refit.network, train, symmetry=SYMMETRY)
    return {
        "untrained": untrained.before_refit,
        "untrained_refit": untrained.step_map,
        "adam": fitted.before_refit,
        "refit": fitted.step_map,
        "refit_cold": cold.step_map,
    }


def network(cell: Cell, seed: int, quick: bool) -> nn.RNN:
    """The network as it is drawn; training runs in float32, readouts are fitted in float64."""
    draw = nnx.initializers
    return nn.RNN(
        cell, 3, 128 if quick else 192, 3, kernel_init=draw.normal(0.1),
        recurrent_init=draw.orthogonal(0.1), bias_init=draw.normal(0.2), keep_bias=KEEP_BIAS[cell],
        dtype=jnp.float32, rngs=nnx.Rngs(jax.random.fold_in(jax.random.key(seed), 0)),
    )  # fmt: skip


def trained(
    cell: Cell, train: Trajectories, valid: Trajectories, seed: int, quick: bool
) -> surrogate.StepperFit:
    """Train the network through time, then fit its readout."""
    steps = 400 if quick else 1000
    return surrogate.fit(
        network(cell, seed, quick), train, valid, optimizer=optimizer(steps), steps=steps,
        batch_size=64, length=LENGTH, symmetry=SYMMETRY, warmup=WARMUP,
        key=jax.random.fold_in(jax.random.key(seed), 1),
    )  # fmt: skip


def optimizer(steps: int) -> optax.GradientTransformation:
    """Adam with a high rate for the readout, and with a low rate and decay for the hidden layer."""

    def rate(peak: float) -> optax.Schedule:
        return optax.warmup_cosine_decay_schedule(0.0, peak, steps // 20, steps)

    def label(path: tuple[jax.tree_util.KeyEntry, ...], _: jax.Array) -> str:
        return "readout" if "readout" in jax.tree_util.keystr(path) else "hidden"

    return optax.partition(
        {
            "readout": optax.adam(rate(1e-2)),
            "hidden": optax.adamw(rate(3e-4), weight_decay=10.0, mask=nn.hidden_kernels),
        },
        lambda params: jax.tree_util.tree_map_with_path(label, params),
    )

"""How a recurrent network is trained through time into a next-step map of the Lorenz system.

`stages` takes a cell, trajectories to learn from and to validate on, a seed and whether to be
quick, and returns the step map of every stage, by name:

- untrained: the network as it was drawn;
- untrained_refit: its readout fitted by least squares, so that what training adds can be seen;
- adam: all weights by back-propagation through windows of 8 true steps;
- refit: the readout of that fitted by least squares;
- refit_cold: the same, the first rows of each trajectory included, where the memory is still empty.

What matters for the refit is how smooth the features are that training leaves behind, and whether
the map is stable when it feeds itself. The weights are therefore drawn small, the gates such that
memories fade (windows are short, and nothing else says how a long memory should fade), decay keeps
the hidden matrices small, and the readout learns faster than what is below it.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from physml import nn, surrogate, systems
from physml.data import Trajectories
from physml.nn import Cell
from physml.step_maps import StepMap

LENGTH = 8  # steps that are back-propagated through
WARMUP = 50  # rows in which a memory has filled, and a start has come to the attractor
SYMMETRY = systems.Lorenz().symmetry
KEEP_BIAS = {"simple": 0.0, "gru": -2.0, "lstm": -3.0}


def stages(
    cell: Cell, train: Trajectories, valid: Trajectories, seed: int, quick: bool
) -> dict[str, StepMap]:
    """The step map of every stage, see the module."""
    network = recurrent(cell, seed, quick)
    fitted = trained(cell, train, valid, seed, quick)
    untrained = surrogate.fit_readout(network, train, symmetry=SYMMETRY, warmup=WARMUP)
    cold = surrogate.fit_readout(fitted.before_refit.network, train, symmetry=SYMMETRY)
    return {
        "untrained": untrained.before_refit,
        "untrained_refit": untrained.step_map,
        "adam": fitted.before_refit,
        "refit": fitted.step_map,
        "refit_cold": cold.step_map,
    }


def recurrent(cell: Cell, seed: int, quick: bool) -> nn.RNN:
    """The network as it is drawn; training runs in float32, readouts are fitted in float64."""
    return nn.RNN(
        cell,
        3,
        128 if quick else 192,
        3,
        kernel_init=nnx.initializers.normal(0.1),
        recurrent_init=nnx.initializers.orthogonal(0.1),
        bias_init=nnx.initializers.normal(0.2),
        keep_bias=KEEP_BIAS[cell],
        dtype=jnp.float32,
        rngs=nnx.Rngs(jax.random.fold_in(jax.random.key(seed), 0)),
    )


def trained(
    cell: Cell, train: Trajectories, valid: Trajectories, seed: int, quick: bool
) -> surrogate.StepperFit:
    """The network trained through time, and its readout fitted after."""
    steps = 400 if quick else 1000
    return surrogate.fit(
        recurrent(cell, seed, quick),
        train,
        valid,
        optimizer=optimizer(steps),
        steps=steps,
        batch_size=64,
        length=LENGTH,
        symmetry=SYMMETRY,
        warmup=WARMUP,
        key=jax.random.fold_in(jax.random.key(seed), 1),
    )


def optimizer(steps: int) -> optax.GradientTransformation:
    """Adam at a high rate for the readout, and at a low one with decay for what is below it."""

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

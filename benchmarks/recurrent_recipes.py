"""How a recurrent network is trained through time into a next-step map of the Lorenz system.

Each recipe takes trajectories to learn from and to validate on, a seed and whether to be quick, and
returns the step map of every stage, by name:

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

from typing import Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from physml import nn, surrogate, systems
from physml._types import StepMap
from physml.data import Trajectories

WINDOW = 8  # steps that are back-propagated through
WARMUP = 50  # rows in which a memory has filled, and a start has come to the attractor
SYMMETRY = systems.Lorenz().symmetry


def simple_trained(
    train: Trajectories, valid: Trajectories, seed: int, quick: bool
) -> dict[str, StepMap]:
    """An Elman network, see the module."""
    return _stages("simple", 0.0, train, valid, seed, quick)


def gru_trained(
    train: Trajectories, valid: Trajectories, seed: int, quick: bool
) -> dict[str, StepMap]:
    """A gated recurrent unit, see the module."""
    return _stages("gru", -2.0, train, valid, seed, quick)


def lstm_trained(
    train: Trajectories, valid: Trajectories, seed: int, quick: bool
) -> dict[str, StepMap]:
    """A long short-term memory, see the module."""
    return _stages("lstm", -3.0, train, valid, seed, quick)


def _stages(
    cell: Literal["simple", "gru", "lstm"],
    keep_bias: float,
    train: Trajectories,
    valid: Trajectories,
    seed: int,
    quick: bool,
) -> dict[str, StepMap]:
    width, steps = (128, 400) if quick else (192, 1000)
    net_key, order_key = jax.random.split(jax.random.key(seed))
    net = nn.RNN(
        cell,
        train.ys.shape[-1],
        width,
        train.ys.shape[-1],
        kernel_init=nnx.initializers.normal(0.1),
        recurrent_init=nnx.initializers.orthogonal(0.1),
        bias_init=nnx.initializers.normal(0.2),
        keep_bias=keep_bias,
        dtype=jnp.float32,  # what training runs in; readouts are fitted in float64
        rngs=nnx.Rngs(net_key),
    )
    fitted = surrogate.fit(
        net,
        train,
        valid,
        optimizer=optimizer(steps),
        steps=steps,
        batch_size=64,
        window=WINDOW,
        symmetry=SYMMETRY,
        warmup=WARMUP,
        key=order_key,
    )
    return {
        "untrained": surrogate.Stepper.create(net, train, symmetry=SYMMETRY),
        "untrained_refit": surrogate.fit_readout(net, train, symmetry=SYMMETRY, warmup=WARMUP),
        "adam": fitted.trained,
        "refit": fitted.step_map,
        "refit_cold": surrogate.fit_readout(fitted.trained.net, train, symmetry=SYMMETRY),
    }


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

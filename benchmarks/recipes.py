"""How each surrogate of the forecast benchmark is made: one function a row of its table.

Every recipe takes training trajectories, validation trajectories and a seed, and returns a step
map. None sees the equation; what is chosen is chosen on validation.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from baselines import Single
from flax import nnx

from physml import nn, surrogate, systems
from physml._types import StepMap
from physml.data import Trajectories
from physml.surrogate.stepper import cast

SYMMETRY = systems.Lorenz().symmetry


def mlp(train: Trajectories, valid: Trajectories, seed: int) -> StepMap:
    """A frozen hidden layer made for the data, its readout by least squares."""
    net = nn.MLP.frozen(surrogate.network_inputs(train), 300, 3, scale=0.06, rngs=nnx.Rngs(seed))
    return surrogate.fit_readout(net, train, symmetry=SYMMETRY)


def mlp32(train: Trajectories, valid: Trajectories, seed: int) -> StepMap:
    """The same in float32, from the data to the forecast."""
    train = cast(train, jnp.float32)
    net = nn.MLP.frozen(surrogate.network_inputs(train), 300, 3, scale=0.25, rngs=nnx.Rngs(seed))
    return Single(inner=surrogate.fit_readout(net, train, symmetry=SYMMETRY), dt=train.dt)


def rnn(train: Trajectories, valid: Trajectories, seed: int) -> StepMap:
    """A frozen recurrent layer, its readout by least squares."""
    net = nn.RNN.frozen(
        "simple",
        surrogate.network_inputs(train),
        200,
        3,
        scale=0.05,
        spectral_radius=0.3,
        rngs=nnx.Rngs(seed),
    )
    return surrogate.fit_readout(net, train, symmetry=SYMMETRY, warmup=50, rcond=1e-14)


def mlp_trained(
    train: Trajectories, valid: Trajectories, seed: int, *, steps: int = 1000
) -> StepMap:
    """All parameters by Adam in float32, then the readout by least squares in float64."""
    net = nn.MLP(3, (256,), 3, dtype=jnp.float32, rngs=nnx.Rngs(seed))
    return _trained(net, train, seed, steps, batch_size=512)


def gru_trained(
    train: Trajectories, valid: Trajectories, seed: int, *, steps: int = 800
) -> StepMap:
    """All parameters by Adam through stretches of 8 steps, then the readout by least squares."""
    net = nn.RNN("gru", 3, 64, 3, dtype=jnp.float32, rngs=nnx.Rngs(seed))
    return _trained(net, train, seed, steps, batch_size=64, window=8, warmup=50)


def _trained(
    net: nnx.Module, train: Trajectories, seed: int, steps: int, **options: Any
) -> StepMap:
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-2, steps // 20, steps)
    fitted = surrogate.fit(
        net,
        train,
        optimizer=optax.adamw(rate, weight_decay=1.0, mask=nn.hidden_kernels),
        steps=steps,
        key=jax.random.key(seed),
        symmetry=SYMMETRY,
        **options,
    )
    return fitted.step_map

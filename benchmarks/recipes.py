"""How each surrogate of the forecast benchmark is made: one function a row, or a few, of its table.

Every recipe takes training trajectories, validation trajectories and a seed, and returns a step
map, or several by the name of their row. None but the hybrids and `few` sees the equation, and no
step but the hybrids' evaluates it.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
import recurrent_recipes
from baselines import Single
from flax import nnx

from physml import nn, surrogate, systems
from physml.data import Trajectories, from_arrays
from physml.step_maps import StepMap
from physml.surrogate._rows import cast

LORENZ = systems.Lorenz()
SYMMETRY = LORENZ.symmetry


def frozen(train: Trajectories, seed: int, width: int = 600, scale: float = 0.25) -> nn.MLP:
    """An MLP with a frozen hidden layer of Fourier features, made for the data."""
    return nn.MLP.frozen(
        surrogate.network_inputs(train),
        width,
        3,
        scale=scale,
        centres="mean",
        activation=nn.fourier,
        rngs=nnx.Rngs(seed),
    )


def refit(network: surrogate.Network, train: Trajectories, **options: Any) -> surrogate.Stepper:
    """The step map of a network whose readout is fitted by least squares."""
    return surrogate.fit_readout(network, train, symmetry=SYMMETRY, **options).step_map


def mlp(train: Trajectories, valid: Trajectories, seed: int, *, refinements: int = 1) -> StepMap:
    """Readout by least squares, then by least squares on what that left."""
    return refit(frozen(train, seed), train, rcond=1e-16, refinements=refinements)


def mlp_tanh(train: Trajectories, valid: Trajectories, seed: int) -> StepMap:
    """Frozen tanh units that bend where the data are."""
    network = nn.MLP.frozen(
        surrogate.network_inputs(train), 300, 3, scale=0.06, rngs=nnx.Rngs(seed)
    )
    return refit(network, train)


def mlp32(train: Trajectories, valid: Trajectories, seed: int) -> StepMap:
    """As `mlp`, in float32 from the data to the forecast; fewer digits need fewer units."""
    train = cast(train, jnp.float32)
    network = frozen(train, seed, 200, 0.5)
    return Single(inner=refit(network, train, rcond=6e-8, refinements=2), dt=train.dt)


def rnn(train: Trajectories, valid: Trajectories, seed: int) -> StepMap:
    """A frozen recurrent layer (an echo state network), its readout by least squares."""
    network = nn.RNN.frozen(
        "simple",
        surrogate.network_inputs(train),
        400,
        3,
        scale=0.2,
        centres="mean",
        spectral_radius=0.1,
        activation=nn.fourier,
        rngs=nnx.Rngs(seed),
    )
    return refit(network, train, warmup=50, rcond=1e-16)


def hybrids(train: Trajectories, valid: Trajectories, seed: int) -> Mapping[str, StepMap]:
    """A Runge-Kutta step of the equation, wrong in rho or right, and an MLP for what it leaves."""
    network = frozen(train, seed, 300)

    def fit(rho: float) -> StepMap:
        known = systems.Lorenz(rho=rho)
        return refit(network, train, known=known, rcond=1e-16)

    return {"hybrid_wrong_rho": fit(25.0), "hybrid": fit(28.0)}


def few(train: Trajectories, valid: Trajectories, seed: int) -> Mapping[str, StepMap]:
    """From 200 pairs, two of each trajectory: without and with the Jacobians of the equation."""
    train = from_arrays(train.ts[:3], train.ys[:, 100:103])
    network = frozen(train, seed, 200)
    return {
        "mlp_200_pairs": refit(network, train),
        "mlp_200_jacobians": refit(network, train, field=LORENZ),
    }


def mlp_trained(
    train: Trajectories, valid: Trajectories, seed: int, *, quick: bool = False
) -> Mapping[str, StepMap]:
    """All parameters by Adam with decay, then by L-BFGS, both in float32; readouts in float64."""
    steps = 200 if quick else 1000
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-2, steps // 20, steps)
    adam = surrogate.fit(
        nn.MLP(3, (256,), 3, dtype=jnp.float32, rngs=nnx.Rngs(seed)),
        train,
        optimizer=optax.adamw(rate, weight_decay=1.0, mask=nn.hidden_kernels),
        steps=steps,
        batch_size=512,
        key=jax.random.key(seed),
        symmetry=SYMMETRY,
    )
    if quick:
        return {"mlp_trained": adam.step_map}
    part = train[:20]
    lbfgs = surrogate.fit(
        cast(adam.before_refit.network, jnp.float32),
        part,
        optimizer=optax.lbfgs(),
        steps=100,
        batch_size=part.ys.shape[0] * (part.ys.shape[1] - 1),
        key=jax.random.key(seed),
        symmetry=SYMMETRY,
        refit=False,
    )
    return {
        "mlp_trained": adam.step_map,
        "mlp_adam": adam.before_refit,
        "mlp_lbfgs": lbfgs.step_map,
        "mlp_lbfgs_refit": refit(lbfgs.step_map.network, train),
    }


def gru_trained(
    train: Trajectories, valid: Trajectories, seed: int, *, quick: bool = False
) -> Mapping[str, StepMap]:
    """All parameters by back-propagation through time, then the readout."""
    fitted = recurrent_recipes.trained("gru", train, valid, seed, quick)
    if quick:
        return {"gru_trained": fitted.step_map}
    return {"gru_trained": fitted.step_map, "gru_adam": fitted.before_refit}

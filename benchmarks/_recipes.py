"""How each row of the forecast benchmark is made: surrogates, baselines and perfect maps.

Every recipe takes training trajectories, validation trajectories and a seed, and returns a step
map, or several by the names of their rows. Of the surrogates only the hybrids and `few` see the
equation, and only the hybrids evaluate it in a step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import _baselines as baselines
import _recurrent as recurrent
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _lorenz import DT, HISTORY, LORENZ
from flax import nnx

from physml import nn, reference, surrogate, systems
from physml.data import Trajectories, from_arrays
from physml.step_maps import StepMap
from physml.surrogate._rows import cast

SYMMETRY = LORENZ.symmetry


def frozen(train: Trajectories, seed: int, units: int = 600, scale: float = 0.25) -> nn.MLP:
    """An MLP with a frozen hidden layer of Fourier features, drawn for the data."""
    options: dict[str, Any] = {"scale": scale, "centres": "mean", "activation": nn.fourier}
    inputs = surrogate.network_inputs(train)
    return nn.MLP.frozen(inputs, units, 3, rngs=nnx.Rngs(seed), **options)


def refit(network: surrogate.Network, train: Trajectories, **options: Any) -> surrogate.Stepper:
    """The step map of a network whose readout is fitted by least squares."""
    return surrogate.fit_readout(network, train, symmetry=SYMMETRY, **options).step_map


def mlp(train: Trajectories, valid: Trajectories, seed: int, *, refinements: int = 1) -> StepMap:
    """A readout by least squares, and a second one for the residual of the first."""
    return refit(frozen(train, seed), train, rcond=1e-16, refinements=refinements)


def mlp_tanh(train: Trajectories, valid: Trajectories, seed: int) -> StepMap:
    """Frozen tanh units whose steep parts lie among the data."""
    inputs = surrogate.network_inputs(train)
    return refit(nn.MLP.frozen(inputs, 300, 3, scale=0.06, rngs=nnx.Rngs(seed)), train)


def single(step_map: StepMap) -> StepMap:
    """The map evaluated in float32."""
    return baselines.Single(inner=step_map, dt=step_map.dt)


def mlp32(train: Trajectories, valid: Trajectories, seed: int) -> StepMap:
    """As `mlp`, in float32 from the data to the forecast; fewer digits need fewer units."""
    train = cast(train, jnp.float32)
    network = frozen(train, seed, 200, 0.5)
    return single(refit(network, train, rcond=6e-8, refinements=2))


def rnn(train: Trajectories, valid: Trajectories, seed: int) -> StepMap:
    """A frozen recurrent layer (an echo state network), its readout by least squares."""
    network = nn.RNN.frozen(
        "simple", surrogate.network_inputs(train), 400, 3, scale=0.2, centres="mean",
        spectral_radius=0.1, activation=nn.fourier, rngs=nnx.Rngs(seed),
    )  # fmt: skip
    return refit(network, train, warmup=50, rcond=1e-16)


def hybrids(train: Trajectories, valid: Trajectories, seed: int) -> Mapping[str, StepMap]:
    """A Runge-Kutta step of the equation (rho wrong or right) and an MLP for its residual."""
    network = frozen(train, seed, 300)
    return {
        name: refit(network, train, known=systems.Lorenz(rho=rho), rcond=1e-16)
        for name, rho in (("hybrid_wrong_rho", 25.0), ("hybrid", 28.0))
    }


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
    """All parameters by Adam with weight decay, then by L-BFGS in float32; readouts in float64."""
    steps = 200 if quick else 1000
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-2, steps // 20, steps)
    options: dict[str, Any] = {"key": jax.random.key(seed), "symmetry": SYMMETRY}
    adam = surrogate.fit(
        nn.MLP(3, (256,), 3, dtype=jnp.float32, rngs=nnx.Rngs(seed)), train, steps=steps,
        optimizer=optax.adamw(rate, weight_decay=1.0, mask=nn.hidden_kernels), batch_size=512,
        **options,
    )  # fmt: skip
    if quick:
        return {"mlp_trained": adam.step_map}
    part = train[:20]
    lbfgs = surrogate.fit(
        cast(adam.before_refit.network, jnp.float32), part, optimizer=optax.lbfgs(), steps=100,
        batch_size=part.ys.shape[0] * (part.ys.shape[1] - 1), refit=False, **options,
    )  # fmt: skip
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
    fitted = recurrent.trained("gru", train, valid, seed, quick)
    if quick:
        return {"gru_trained": fitted.step_map}
    return {"gru_trained": fitted.step_map, "gru_adam": fitted.before_refit}


@dataclass(frozen=True)
class Recipe:
    """How the step maps of a row, or of several rows, are made, and what they need."""

    name: str
    make: Callable[[Trajectories, Trajectories, int], StepMap | Mapping[str, StepMap]]
    quick: dict[str, Any] | None = None  # options of a quick run, which leaves out None
    history: int = 1
    dtype: str = "float64"
    fitted: bool = True  # to data
    seeds: int = 5


WORDS = {
    "mlp": "MLP, frozen",
    "mlp_stage1": "MLP, frozen, fitted once",
    "mlp_tanh": "MLP, frozen, tanh",
    "rnn": "RNN, frozen",
    "rnn_cold": "RNN, frozen, without warm-up",
    "mlp_trained": "MLP, trained",
    "mlp_adam": "MLP, trained, not refitted",
    "mlp_lbfgs": "MLP, trained by L-BFGS, not refitted",
    "mlp_lbfgs_refit": "MLP, trained by L-BFGS",
    "gru_trained": "GRU, trained",
    "gru_adam": "GRU, trained, not refitted",
    "mlp32": "MLP, frozen, float32",
    "hybrid": "Runge-Kutta step and MLP",
    "hybrid_wrong_rho": "Runge-Kutta step of a wrong equation and MLP",
    "mlp_200_pairs": "MLP, frozen, 200 pairs",
    "mlp_200_jacobians": "MLP, frozen, 200 pairs and Jacobians",
    "persistence": "no change",
    "linear": "linear map",
    "esn": "echo state network",
    "rk4": "Runge-Kutta step of the equation",
    "perfect32": "exact step, float32",
    "perfect": "exact step",
} | {
    name: words
    for n in range(2, 13)
    for name, words in (
        (f"poly{n}", f"polynomials to degree {n}, symmetric"),
        (f"poly{n}_plain", f"polynomials to degree {n}"),
        (f"ngrc{n}", f"next-generation reservoir of order {n}"),
    )
}
"""What a figure calls a row."""


def polynomial(degree: int, symmetric: bool) -> Recipe:
    """Polynomials up to a degree; the quick run takes the best of them alone."""
    signs = tuple(np.diag(np.asarray(SYMMETRY))) if symmetric else None
    return Recipe(
        f"poly{degree}" if symmetric else f"poly{degree}_plain",
        lambda train, valid, seed: baselines.polynomial(train, degree, signs=signs),
        quick={} if degree == 10 and symmetric else None,
    )


def reservoir(order: int) -> Recipe:
    """Next-generation reservoirs of an order."""
    return Recipe(
        f"ngrc{order}",
        lambda train, valid, seed: baselines.next_generation(train, valid, order),
        history=HISTORY,
    )


def perfect(name: str, make: Callable[[], StepMap], dtype: str = "float64") -> Recipe:
    """A map that is not fitted, and so is the same for all seeds."""
    return Recipe(name, lambda *_: make(), dtype=dtype, fitted=False, seeds=1)


def taylor(order: int) -> StepMap:
    """The exact flow by a Taylor series."""
    return reference.TaylorFlow.create(LORENZ, DT, order=order)


RECIPES = (
    Recipe("mlp", mlp, quick={}),
    Recipe("mlp_stage1", partial(mlp, refinements=0)),
    Recipe("mlp_tanh", mlp_tanh),
    Recipe("rnn", rnn, quick={}, history=HISTORY),
    Recipe("rnn_cold", rnn, seeds=1),
    Recipe("mlp_trained", mlp_trained, quick={"quick": True}),
    Recipe("gru_trained", gru_trained, quick={"quick": True}, history=HISTORY),
    Recipe("mlp32", mlp32, quick={}, dtype="float32"),
    Recipe("hybrids", hybrids),
    Recipe("few", few),
    perfect("persistence", lambda: baselines.Persistence(dt=DT)),
    Recipe("linear", lambda train, valid, seed: baselines.polynomial(train, 1)),
    *(polynomial(degree, symmetric=False) for degree in range(2, 11)),
    *(polynomial(degree, symmetric=True) for degree in range(2, 13)),
    *(reservoir(order) for order in (2, 3)),
    Recipe("esn", baselines.echo_state, history=HISTORY),
    perfect("rk4", lambda: reference.RungeKutta4(system=LORENZ, dt=DT)),
    perfect("perfect32", lambda: single(taylor(12)), dtype="float32"),
    perfect("perfect", lambda: taylor(20)),
)

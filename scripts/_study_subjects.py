"""What the networks of the architecture study learn, and how they are judged."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from physml import data, nn, reference, surrogate, systems


@dataclass(frozen=True)
class Subject:
    """What is learned, and how a step map is judged."""

    name: str
    rows: dict[str, tuple[jax.Array, jax.Array]]  # of the parts: network inputs, targets; float64
    stepper: surrogate.Stepper  # holds the normalisation; its network is a placeholder
    truth: data.Trajectories  # what forecasts are scored on
    scale: jax.Array  # the standard deviation of each component
    lambda1: float | None  # of a chaotic system; 1 / lambda1 is a Lyapunov time

    @property
    def forecast(self) -> str:
        """What the score of a forecast means."""
        return "max |x error|" if self.lambda1 is None else "valid time [Lyapunov times]"

    def pairs(self, part: str, num: int | None = None) -> tuple[jax.Array, jax.Array]:
        """Rows to train on, float32."""
        first, second = (x[:num].astype(jnp.float32) for x in self.rows[part])
        return first, second

    def scores(self, networks: nn.MLP) -> dict[str, np.ndarray]:
        """The scores of every network, as it is and with its last layer refitted, in float64."""
        rows, targets = (x[::4] for x in self.rows["train"])
        refitted = surrogate.refit_many(networks, rows, targets)
        scores = {}
        for suffix, each in (("", networks), ("_refit", refitted)):
            found = surrogate.score_many(self.stepper, each, self.truth, scale=self.scale)
            if self.lambda1 is None:
                forecast = jnp.median(found.worst[..., 0], axis=1)
            else:
                forecast = self.lambda1 * found.times.mean(axis=1)
            scores |= {f"eps1{suffix}": found.eps1, f"forecast{suffix}": forecast}
        return {name: np.asarray(values) for name, values in scores.items()}

    def gradient_norms(self, depth: int, activation: str, keys: jax.Array) -> np.ndarray:
        """The norm of the loss's gradient in each layer's matrix at the start: (layers, keys)."""
        x, y = self.pairs("train", 1024)

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


def lorenz(key: jax.Array) -> Subject:
    """The lecture's 100 trajectories to learn from; starts on the attractor to be judged on."""
    system, (train_key, other_key) = systems.Lorenz(), jax.random.split(key)
    train = reference.trajectories(system, train_key, 100, 0.01 * np.arange(801))
    starts = reference.attractor_starts(system, other_key, 40)
    others = reference.trajectories_from(system, starts, 0.01 * np.arange(1001))
    return prepared("lorenz", train, others, lambda1=system.lambda1)


def oscillator(key: jax.Array) -> Subject:
    """Starts in [-2, 2]^2 at any phase of the drive, over 20 time units."""
    system: Any = systems.DrivenOscillator()
    box = ((-2.0, -2.0), (2.0, 2.0))
    whole = reference.driven_trajectories(system, key, 240, 0.05 * np.arange(401), box=box)
    return prepared("oscillator", whole[:200], whole[200:], period=float(system.period))


SUBJECTS = {"lorenz": lorenz, "oscillator": oscillator}


def prepared(
    name: str,
    train: data.Trajectories,
    others: data.Trajectories,
    *,
    lambda1: float | None = None,
    period: float | None = None,
) -> Subject:
    """Rows in a fixed random order, and the trajectories that maps are judged on."""
    dim = train.ys.shape[-1]
    network = nn.MLP(dim if period is None else dim + 2, (1,), dim, rngs=nnx.Rngs(0))
    stepper = surrogate.Stepper.create(network, train, period=period)
    rows = {}
    for part, trajectories in {"train": train, "valid": others[:20]}.items():
        inputs, targets = stepper.pairs(trajectories)
        order = np.random.default_rng(0).permutation(len(inputs))
        rows[part] = inputs[order], targets[order]
    scale = data.Standardiser.fit(others.ys).std
    return Subject(name, rows, stepper, others[20:], scale, lambda1)

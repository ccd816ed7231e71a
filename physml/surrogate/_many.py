"""Many networks of one shape at once: their training, their readouts and their scores."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from physml import dynamics, nn
from physml import fit as fitting
from physml.data import Trajectories
from physml.surrogate._stepper import Stepper, cast

Rows = tuple[Float[Array, "_rows inputs"], Float[Array, "_rows outputs"]]
"""What a network learns from: its inputs and its targets, such as `Stepper.pairs` gives."""


class Regularised(eqx.Module):
    r"""A network and how it is held back: what `fit_many` trains.

    The loss is the mean square error with noisy inputs, and the norms of the kernels $W_l$,

    $$\langle (N(x + \sigma \xi) - y)^2 \rangle + \lambda_2 \sum_l \lVert W_l \rVert^2
    + \lambda_1 \sum_{l,ij} |W_{l,ij}|, \qquad \xi \sim \mathcal N(0, 1).$$

    Attributes:
        network: N, with dropout or without.
        l2: $\lambda_2$.
        l1: $\lambda_1$.
        noise: $\sigma$, in the units of the inputs.
    """

    network: nn.MLP
    l2: Float[Array, ""]
    l1: Float[Array, ""]
    noise: Float[Array, ""]

    def loss(self, rows: Rows, key: PRNGKeyArray) -> Float[Array, ""]:
        """What is minimised."""
        x, y = rows
        x = x + self.noise * jax.random.normal(key, x.shape, x.dtype)
        kernels = self.l2 * nn.square_norm(self.network) + self.l1 * nn.absolute_norm(self.network)
        return jnp.mean((self.network(x) - y) ** 2) + kernels


def _train_loss(model: Regularised, rows: Rows, key: Any) -> tuple[Array, dict[str, Array]]:
    return model.loss(rows, key), {}


def _valid_loss(model: Regularised, rows: Rows, key: Any) -> tuple[Array, dict[str, Array]]:
    x, y = rows
    return jnp.mean((model.network(x) - y) ** 2), {}


def fit_many(
    train: Rows,
    valid: Rows,
    *,
    settings: Mapping[str, Array],
    hidden: tuple[int, ...],
    activation: str = "tanh",
    dropout: float = 0.0,
    optimizer: Callable[[Any], optax.GradientTransformation],
    key: PRNGKeyArray,
    **options: Any,
) -> fitting.Sweep:
    """Train many MLPs of one shape, each with weights and a setting of its own, in one program.

    Each is the best on the validation rows, where it is judged without what holds it back.

    Args:
        train: the rows to learn from; the networks take their dtype.
        valid: the rows that each validation uses.
        settings: arrays of one leading length, the number of networks: "key", for the first
            weights; "l2", "l1" and "noise", see `Regularised`; and what `optimizer` asks for.
        hidden: the widths of the hidden layers.
        activation: of all networks.
        dropout: of all networks.
        optimizer: `optimizer(setting)`, as for `fit.sweep`.
        key: for the batches, dropout and noise.
        options: `steps`, `batch_size`, `valid_every`, `checkpoint`, ... of `fit.sweep`.

    Returns:
        The sweep; `models.network` are the networks, dropout switched off, for `refit_many` and
        `score_many`.

    Raises:
        ValueError: as `nn.MLP` and `fit.sweep`.
    """
    sizes, dtype = (train[0].shape[1], train[1].shape[1]), train[0].dtype

    def build(setting: Any) -> Regularised:
        network = nn.MLP(
            sizes[0], hidden, sizes[1], activation=activation, dropout=dropout, dtype=dtype,
            rngs=nnx.Rngs(setting["key"]),
        )  # fmt: skip
        return Regularised(network, setting["l2"], setting["l1"], setting["noise"])

    swept = fitting.sweep(
        _train_loss,
        build,
        train,
        settings=dict(settings),
        optimizer=optimizer,
        key=key,
        valid=valid,
        valid_loss=_valid_loss,
        **options,
    )
    swept.models.network.eval()
    return swept


class Scores(NamedTuple):
    """How well each of many networks forecasts.

    Attributes:
        eps1: the one-step error relative to the spread, see `dynamics.one_step_error`.
        times: the valid prediction time of each forecast, in the units of `dt`.
        worst: the largest absolute error of each forecast, by component.
    """

    eps1: Float[Array, " models"]
    times: Float[Array, "models num"]
    worst: Float[Array, "models num dim"]


@eqx.filter_jit
def refit_many(
    networks: nn.MLP, inputs: Float[Array, "rows inputs"], targets: Float[Array, "rows outputs"]
) -> nn.MLP:
    """The networks with their readouts fitted by least squares on the same rows, by QR and SVD.

    One network's readout is fitted to more digits by `fit_readout`, which takes care of rounding
    and never holds all features; this is for comparing many.

    Args:
        networks: a network whose arrays have a leading axis of models.
        inputs, targets: such as `Stepper.pairs` gives; the networks take their dtype.
    """

    def refitted(network: Any) -> nn.MLP:
        features = jnp.pad(network.features(inputs), ((0, 0), (0, 1)), constant_values=1.0)
        num = features.shape[1]
        triangle = jnp.linalg.qr(jnp.concatenate([features, targets], axis=1), mode="r")
        weights = jnp.linalg.lstsq(triangle[:, :num], triangle[:, num:])[0]
        network.readout.kernel[...], network.readout.bias[...] = weights[:-1], weights[-1]
        return network

    return jax.lax.map(refitted, cast(networks, inputs.dtype))


@eqx.filter_jit
def score_many(
    stepper: Stepper, networks: nn.MLP, truth: Trajectories, *, scale: Float[Array, " dim"]
) -> Scores:
    """Forecast the true trajectories with every network, and score the forecasts.

    Args:
        stepper: a step map around one of the networks, or one of their shape.
        networks: a network whose arrays have a leading axis of models.
        truth: trajectories that no network has seen.
        scale: the standard deviation of each component on the attractor.
    """
    t0s, num_steps = truth.t0s + truth.ts[0], truth.ys.shape[1] - 1

    def scored(network: nn.MLP) -> Scores:
        step_map = eqx.tree_at(lambda s: s.network, stepper, network)
        ys = dynamics.rollout(step_map, truth.ys[:, :1], num_steps, t0=t0s)
        return Scores(
            dynamics.one_step_error(step_map, truth.ys, scale=scale, t0=t0s),
            dynamics.valid_prediction_time(ys, truth.ys, step_map.dt, scale=scale).times,
            jnp.abs(ys - truth.ys).max(axis=1),
        )

    return jax.lax.map(scored, cast(networks, truth.ys.dtype))

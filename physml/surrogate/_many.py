"""Many networks of one shape at once: their training, their readouts and their scores."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Scalar

from physml import dynamics, nn
from physml import fit as fitting
from physml._numerics.calls import checked
from physml._numerics.checks import check_scale
from physml._numerics.units import max_of
from physml.data import Trajectories
from physml.surrogate._rows import cast
from physml.surrogate._stepper import Stepper

Rows = tuple[Float[Array, "_rows inputs"], Float[Array, "_rows outputs"]]
"""What a network learns from: inputs and targets, such as `Stepper.pairs` gives."""


def regularised_loss(
    model: nn.Regularised, rows: Rows, key: PRNGKeyArray | None
) -> tuple[Scalar, dict[str, Array]]:
    """The mean square error with noisy inputs, plus the penalties."""
    x, y = rows
    errors = model(model.disturbed(x, key)) - y
    return jnp.mean(errors**2) + model.penalty(), {}


def _valid_loss(
    model: nn.Regularised, rows: Rows, key: PRNGKeyArray | None
) -> tuple[Scalar, dict[str, Array]]:
    x, y = rows
    return jnp.mean((model(x) - y) ** 2), {}


@checked
def fit_many(
    train: Rows,
    valid: Rows,
    *,
    settings: Mapping[str, Array],
    hidden: tuple[int, ...],
    activation: str = "tanh",
    dropout: float = 0.0,
    optimizer: Callable[[PyTree], optax.GradientTransformation],
    key: PRNGKeyArray,
    **options: Any,
) -> fitting.Sweep:
    """Train many MLPs of one shape, each with weights and a setting of its own, in one program.

    Of each network the sweep keeps the weights with the smallest error on the validation rows,
    computed without dropout, noise and penalties.

    Args:
        train: the rows to learn from; the networks take their dtype.
        valid: the rows that each validation uses.
        settings: arrays of one leading length, the number of networks: "key", for the first
            weights; "l2", "l1" and "noise", see `nn.Regularised`; and what `optimizer` asks for.
        hidden: the units of each hidden layer.
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

    def build(setting: PyTree) -> nn.Regularised:
        network = nn.MLP(
            sizes[0], hidden, sizes[1], activation=activation, dropout=dropout, dtype=dtype,
            rngs=nnx.Rngs(setting["key"]),
        )  # fmt: skip
        return nn.Regularised(network, setting["l2"], setting["l1"], setting["noise"])

    swept = fitting.sweep(
        regularised_loss,
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


@checked
@eqx.filter_jit
def refit_many(
    networks: nn.MLP, inputs: Float[Array, "rows inputs"], targets: Float[Array, "rows outputs"]
) -> nn.MLP:
    """The networks with their readouts fitted by least squares on the same rows, by QR and SVD.

    This is for comparing many networks. `fit_readout` fits one network's readout to more digits,
    with care about rounding, and never holds all features.

    Args:
        networks: a network whose arrays have a leading axis of models.
        inputs, targets: such as `Stepper.pairs` gives; the networks take their dtype.
    """

    def refitted(network: nn.MLP) -> nn.MLP:
        features = jnp.pad(network.features(inputs), ((0, 0), (0, 1)), constant_values=1.0)
        num = features.shape[1]
        triangle = jnp.linalg.qr(jnp.concatenate([features, targets], axis=1), mode="r")
        weights = jnp.linalg.lstsq(triangle[:, :num], triangle[:, num:])[0]
        network.readout.kernel[...] = weights[:-1]
        network.readout.bias[...] = weights[-1]  # pyright: ignore[reportOptionalSubscript]
        return network

    return jax.lax.map(refitted, cast(networks, inputs.dtype))


@checked
def score_many(
    stepper: Stepper, networks: nn.MLP, truth: Trajectories, *, scale: Float[Array, " dim"]
) -> Scores:
    """Forecast the true trajectories with every network, and score the forecasts.

    Args:
        stepper: a step map whose network the others take the place of, of any units and depth.
        networks: a network whose arrays have a leading axis of models.
        truth: trajectories that no network has seen.
        scale: the standard deviation of each component on the attractor.

    Raises:
        ValueError: the networks have no axis of models, or `scale` is not dim positive numbers.
    """
    shapes = [x.shape for x in jax.tree.leaves(eqx.filter(networks, eqx.is_array))]
    if networks.readout.kernel.ndim != 3 or len({shape[0] for shape in shapes}) != 1:
        raise ValueError(
            f"networks must have a leading axis of models in every array, got shapes {shapes}: "
            "surrogate.fit_many(...).models are such networks"
        )
    return _scored(stepper, networks, truth, check_scale(scale, truth.ys.shape[2]))


@eqx.filter_jit
def _scored(
    stepper: Stepper, networks: nn.MLP, truth: Trajectories, scale: Float[Array, " dim"]
) -> Scores:
    t0s, num_steps = truth.t0s + truth.ts[0], truth.ys.shape[1] - 1

    def scored(network: nn.MLP) -> Scores:
        step_map = eqx.tree_at(lambda s: s.network, stepper, network)
        ys = dynamics.rollout(step_map, truth.ys[:, :1], num_steps, t0=t0s)
        return Scores(
            dynamics.one_step_error(step_map, truth.ys, scale=scale, t0=t0s),
            dynamics.valid_prediction_time(ys, truth.ys, step_map.dt, scale=scale).times,
            max_of(jnp.abs(ys - truth.ys), axis=1),
        )

    return jax.lax.map(scored, cast(networks, truth.ys.dtype))

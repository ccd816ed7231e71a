"""Many networks of one shape at once, such as a sweep leaves: their readouts and their scores."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from physml import dynamics, nn
from physml.data import Trajectories
from physml.surrogate.stepper import Stepper, cast


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
    nets: nn.MLP, inputs: Float[Array, "rows inputs"], targets: Float[Array, "rows outputs"]
) -> nn.MLP:
    """The networks with their readouts fitted by least squares on the same rows, by QR and SVD.

    One network's readout is fitted to more digits by `fit_readout`, which takes care of rounding
    and never holds all features; this is for comparing many.

    Args:
        nets: a network whose arrays have a leading axis of models.
        inputs, targets: such as `Stepper.pairs` gives; the networks take their dtype.
    """

    def refitted(net: Any) -> nn.MLP:
        features = jnp.pad(net.features(inputs), ((0, 0), (0, 1)), constant_values=1.0)
        num = features.shape[1]
        triangle = jnp.linalg.qr(jnp.concatenate([features, targets], axis=1), mode="r")
        weights = jnp.linalg.lstsq(triangle[:, :num], triangle[:, num:])[0]
        net.readout.kernel[...], net.readout.bias[...] = weights[:-1], weights[-1]
        return net

    return jax.lax.map(refitted, cast(nets, inputs.dtype))


@eqx.filter_jit
def score_many(
    stepper: Stepper, nets: nn.MLP, truth: Trajectories, *, scale: Float[Array, " dim"]
) -> Scores:
    """Forecast the true trajectories with every network, and score the forecasts.

    Args:
        stepper: a step map around one of the networks, or one of their shape.
        nets: a network whose arrays have a leading axis of models.
        truth: trajectories that no network has seen.
        scale: the standard deviation of each component on the attractor.
    """
    t0s, num_steps = truth.t0s + truth.ts[0], truth.ys.shape[1] - 1

    def scored(net: nn.MLP) -> Scores:
        step_map = eqx.tree_at(lambda s: s.net, stepper, net)
        ys = dynamics.rollout(step_map, truth.ys[:, :1], num_steps, t0=t0s)
        return Scores(
            dynamics.one_step_error(step_map, truth.ys, scale=scale, t0=t0s),
            dynamics.valid_prediction_time(ys, truth.ys, step_map.dt, scale=scale).times,
            jnp.abs(ys - truth.ys).max(axis=1),
        )

    return jax.lax.map(scored, cast(nets, truth.ys.dtype))

"""Gaussian processes as next-step maps, and the uncertainty of their forecasts."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from physml._numerics.calls import checked
from physml._numerics.checks import require_count, require_key
from physml.bayes._fitting import GaussianProcessFit, fit_gaussian_process
from physml.bayes._gaussian_process import GaussianProcess
from physml.bayes._kernels import AnyKernel
from physml.bayes._solvers import far_apart
from physml.data import Trajectories
from physml.step_maps import StepMap


class GaussianStepper(StepMap):
    r"""A Gaussian process as a step map of an autonomous system: $y_{k+1} = y_k + \mu(y_k)$.

    $\mu$ is the mean of the process for the increment over a step. Its variance at $y_k$ says how
    far the step is to be trusted.

    Attributes:
        process: for the increments.
        dt: the time step.
    """

    process: GaussianProcess
    dt: float = eqx.field(static=True)

    def init(self, history: Float[Array, "time dim"], t0: ArrayLike) -> Float[Array, " dim"]:
        return history[-1]

    def step(self, state: Float[Array, " dim"]) -> Float[Array, " dim"]:
        return state + self.process(state[None])[0]

    def observe(self, state: Float[Array, " dim"]) -> Float[Array, " dim"]:
        return state


class StepperFit(eqx.Module):
    """A fitted step map, and how its process was fitted."""

    step_map: GaussianStepper
    fit: GaussianProcessFit


@checked
def fit_stepper(
    kernel: AnyKernel,
    train: Trajectories,
    key: PRNGKeyArray,
    *,
    rows: int = 1000,
    **options: Any,
) -> StepperFit:
    """A Gaussian process as a next-step map, from rows of trajectories.

    Of all steps of the data `rows` are kept, so that their states lie far apart: each one is that
    whose standardised state is farthest from those kept before. The process learns the increments
    after them.

    Args:
        kernel: of the increments' process, such as `bayes.RBF([1.0] * dim)`.
        train: trajectories of an autonomous system; their time step is the map's.
        key: for the starts of the search.
        rows: how many steps are kept, at most.
        options: further arguments of `fit_gaussian_process`, such as `search_rows`.

    Raises:
        TypeError, ValueError, RuntimeError: as `fit_gaussian_process`.
    """
    require_count(2, rows=rows)
    require_key(key=key)
    dim = train.ys.shape[-1]
    states = train.ys[:, :-1].reshape(-1, dim)
    increments = (train.ys[:, 1:] - train.ys[:, :-1]).reshape(-1, dim)
    spread = jnp.std(states, axis=0)
    kept = far_apart(states / jnp.where(spread > 0, spread, 1.0)[None], min(rows, len(states)))
    fitted = fit_gaussian_process(kernel, states[kept], increments[kept], key, **options)
    return StepperFit(GaussianStepper(fitted.model, train.dt), fitted)

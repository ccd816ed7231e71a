"""Gaussian processes as next-step maps, and the uncertainty of their forecasts."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from physml._numerics.calls import checked
from physml._numerics.checks import require_count, require_finite, require_key
from physml.bayes.gaussian_processes._fitting import GaussianProcessFit, fit_gaussian_process
from physml.bayes.gaussian_processes._gaussian_process import GaussianProcess
from physml.bayes.gaussian_processes._kernels import AnyKernel
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

    The process learns the increments after `rows` steps of the data, drawn at random.

    Args:
        kernel: of the increments' process, such as `bayes.RBF([1.0] * dim)`.
        train: trajectories of an autonomous system; their time step is the map's.
        key: for the rows and for the starts of the search.
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
    rows_key, key = jax.random.split(key)
    kept = jax.random.permutation(rows_key, len(states))[:rows]
    fitted = fit_gaussian_process(kernel, states[kept], increments[kept], key, **options)
    return StepperFit(GaussianStepper(process=fitted.model, dt=train.dt), fitted)


@checked
def forecast_samples(
    step_map: GaussianStepper,
    start: Float[Array, " dim"],
    num_steps: int,
    key: PRNGKeyArray,
    num: int = 100,
) -> Float[Array, "num steps dim"]:
    """Forecasts whose increments are drawn at every step from the process; row 0 is the start.

    Each step's error is drawn anew, as if the map were noisy. The errors of a map that is learned
    are alike at states that are near to each other, so that the spread of these forecasts is too
    small where steps are short; `forecast_moments` takes that into account.
    """
    require_count(num_steps=num_steps, num=num)
    require_key(key=key)
    _check_start(step_map, start)
    return _drawn(step_map, start, num_steps, key, num)


@checked
def forecast_moments(
    step_map: GaussianStepper, start: Float[Array, " dim"], num_steps: int
) -> tuple[Float[Array, "steps dim"], Float[Array, "steps dim dim"]]:
    r"""A forecast with the covariance of its error, by linearisation; row 0 is the start.

    The error follows $e_{k+1} = (1 + \mu'(m_k)) e_k + w_k$ along the forecast m, where the w are
    the errors of the process at $m_0, m_1, \dots$ with their joint covariance: one unknown function
    is behind all steps, and neighbouring errors are nearly the same. It holds while the error is
    small compared with the attractor.

    Args:
        step_map: from `fit_stepper`.
        start: the state at row 0, which is known.
        num_steps: steps of the forecast, a few thousand at most.

    Raises:
        ValueError: the start has another dimension, or is not finite.
    """
    require_count(num_steps=num_steps)
    _check_start(step_map, start)
    return _moments(step_map, start, num_steps)


def _check_start(step_map: GaussianStepper, start: Array) -> None:
    dim = step_map.process.inputs.mean.shape[0]
    if start.shape != (dim,):
        raise ValueError(f"start must have shape ({dim},), got shape {start.shape}")
    require_finite("start", start)


@eqx.filter_jit
def _drawn(
    step_map: GaussianStepper, start: Array, num_steps: int, key: PRNGKeyArray, num: int
) -> Array:
    process = step_map.process

    def step(states: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
        sd = jnp.sqrt(process.variance(states))
        following = states + process(states) + sd * jax.random.normal(key, sd.shape, sd.dtype)
        return following, following

    states = jnp.broadcast_to(start, (num, *start.shape))
    _, path = jax.lax.scan(step, states, jax.random.split(key, num_steps))
    return jnp.moveaxis(jnp.concatenate([states[None], path]), 0, 1)


@eqx.filter_jit
def _moments(step_map: GaussianStepper, start: Array, num_steps: int) -> tuple[Array, Array]:
    process, dim = step_map.process, start.shape[0]

    def forward(state: Array, _: None) -> tuple[Array, Array]:
        following = step_map.step(state)
        return following, following

    _, path = jax.lax.scan(forward, start, length=num_steps)
    path = jnp.concatenate([start[None], path])
    slopes = jnp.eye(dim, dtype=path.dtype)[None] + process.derivative(path[:-1])
    # The errors of one output are its row of the root times independent normal numbers.
    roots = process.covariance_roots(path[:-1])  # (dim, steps, steps)
    each = jnp.eye(dim, dtype=path.dtype)

    def carry_on(error: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
        slope, root = given  # (dim, dim), (dim, steps)
        error = jnp.einsum("ij,jkn->ikn", slope, error) + each[:, :, None] * root[:, None]
        return error, jnp.einsum("ikn,jkn->ij", error, error)

    nothing = jnp.zeros((dim, dim, num_steps), path.dtype)
    _, covariances = jax.lax.scan(carry_on, nothing, (slopes, jnp.moveaxis(roots, 0, 1)))
    return path, jnp.concatenate([jnp.zeros((1, dim, dim), path.dtype), covariances])

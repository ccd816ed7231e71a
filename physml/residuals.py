"""What is zero where a model is right: residuals shared by all who fit."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from physml._types import Residual, StepMap
from physml.systems import System


def equation(system: System, args: Any = None) -> Residual:
    r"""The residual of a differential equation: $du/dt - f(t, u)$ at given times.

    It returns `residual(model, times, key=None)`, of shape (times, dim): the model is a function
    of a scalar t that answers u(t), of shape (dim,), and is differentiated in t (forward mode);
    `times` has shape (times,).

    Args:
        system: the right-hand side f.
        args: passed on to it.

    Example:
        >>> residuals.equation(system)(solution, jnp.linspace(0.0, 1.0, 101))
    """

    def residual(
        model: Any, times: Float[Array, " times"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "times dim"]:
        def at(t: Array) -> tuple[Array, Array]:
            return jax.jvp(model, (t,), (jnp.ones_like(t),))

        values, slopes = jax.vmap(at)(times)
        return slopes - system(times, values.T, args).T

    return residual


def step(
    model: Any, batch: Any, key: PRNGKeyArray | None = None
) -> Float[Array, "windows steps dim"]:
    r"""The residual of single steps: $(\Delta(y_k) - (y_{k+1} - y_k)) / s$ along each window.

    Every step starts from the true row, so that a window of length two is a next-step pair and a
    longer one is what a recurrent model needs to fill its memory (teacher forcing).

    Args:
        model: predicts `increments(ys, t0)`, one for each row, and holds their spread `scale`.
        batch: `data.Windows`, or anything with `ys` (windows, steps + 1, dim) and `times`
            (windows,) of their first rows.
        key: not used.
    """
    predicted = jax.vmap(model.increments)(batch.ys[:, :-1], batch.times)
    difference = predicted - (batch.ys[:, 1:] - batch.ys[:, :-1])
    return difference / jnp.broadcast_to(model.scale, difference.shape)


def rollout(
    model: Any, batch: Any, key: PRNGKeyArray | None = None
) -> Float[Array, "windows steps dim"]:
    r"""The residual of a forecast: $(\hat y_k - y_k) / s$, each window started from its first row.

    The model is fed its own predictions, and the gradient goes through all of them.

    Args:
        model: a `StepMap` that holds the increments' spread `scale`.
        batch: as for `step`.
        key: not used.
    """
    step_map: StepMap = model

    def forecast(ys: Array, t0: Array) -> Array:
        def advance(state: Any, _: None) -> tuple[Any, Array]:
            state = step_map.step(state)
            return state, step_map.observe(state)

        return jax.lax.scan(advance, step_map.init(ys[:1], t0), length=ys.shape[0] - 1)[1]

    difference = jax.vmap(forecast)(batch.ys, batch.times) - batch.ys[:, 1:]
    return difference / jnp.broadcast_to(model.scale, difference.shape)

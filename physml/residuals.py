"""Residuals that every fit shares: arrays that are zero where a model is right."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from physml._numerics.calls import checked
from physml._numerics.checks import require_not_negative, require_positive
from physml._types import Residual
from physml.step_maps import MapState, StepMap
from physml.systems import System


@checked
def equation(system: System, args: PyTree = None) -> Residual:
    r"""The residual of a differential equation: $du/dt - f(t, u)$ at given times.

    It returns `residual(model, times, key=None)`, of shape (times, dim). The model is a function
    from a scalar t to u(t), of shape (dim,), which JAX differentiates in forward mode; `times` has
    shape (times,).

    Args:
        system: the right-hand side f.
        args: passed on to `system`.

    Example:
        The decay e^-t does not solve y' = -2 y: at t = 0 it is off by 1.

        >>> decay = systems.from_function(lambda t, y, rate: -rate * y, 1)
        >>> residual = residuals.equation(decay, args=2.0)
        >>> residual(lambda t: jnp.exp(-t)[None], jnp.zeros(1)).tolist()
        [[1.0]]
    """

    def residual(
        model: PyTree, times: Float[Array, " times"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "times dim"]:
        def at(t: Array) -> tuple[Array, Array]:
            return jax.jvp(model, (t,), (jnp.ones_like(t),))

        values, slopes = jax.vmap(at)(times)
        return slopes - system(times, values.T, args).T

    return residual


@checked
def step(
    model: PyTree, batch: PyTree, key: PRNGKeyArray | None = None
) -> Float[Array, "windows steps dim"]:
    r"""The residual of single steps: $(\Delta(y_k) - (y_{k+1} - y_k)) / s$ along each window.

    Every step starts from the true row (teacher forcing). A window of two rows is a next-step
    pair; a longer one lets a recurrent model fill its memory.

    Args:
        model: predicts `increments(ys, t0)`, one for each row, and holds their spread s as `scale`.
        batch: `data.Windows`, or anything with `ys` (windows, steps + 1, dim) and `times`
            (windows,) of their first rows.
        key: not used.
    """
    predicted = jax.vmap(model.increments)(batch.ys[:, :-1], batch.times)
    difference = predicted - (batch.ys[:, 1:] - batch.ys[:, :-1])
    return difference / jnp.broadcast_to(model.scale, difference.shape)


@checked
def rollout(
    model: PyTree, batch: PyTree, key: PRNGKeyArray | None = None
) -> Float[Array, "windows steps dim"]:
    r"""The residual of a forecast: $(\hat y_k - y_k) / s$, each window started from its first row.

    Every step starts from the model's own prediction, and the gradient goes through all steps.

    Args:
        model: a `StepMap` that holds the increments' spread s as `scale`.
        batch: as for `step`.
        key: not used.
    """
    step_map: StepMap = model

    def forecast(ys: Array, t0: Array) -> Array:
        def advance(state: MapState, _: None) -> tuple[MapState, Array]:
            state = step_map.step(state)
            return state, step_map.observe(state)

        return jax.lax.scan(advance, step_map.init(ys[:1], t0), length=ys.shape[0] - 1)[1]

    difference = jax.vmap(forecast)(batch.ys, batch.times) - batch.ys[:, 1:]
    return difference / jnp.broadcast_to(model.scale, difference.shape)


@checked
def defects(
    step_map: StepMap, batch: PyTree, scale: Float[Array, " dim"] | float = 1.0
) -> Float[Array, "windows steps dim"]:
    r"""How far windows are from what a step map does: $(\Phi(y_k) - y_{k+1}) / s$.

    Here the map is right, such as `reference.FlowMap`, and the windows are to be judged: generated
    ones, for instance. Each step starts from the window's own row.

    Args:
        step_map: the map $\Phi$, without memory.
        batch: as for `step`.
        scale: s, the unit of the differences.
    """
    require_positive(scale=scale)
    ys = batch.ys

    def stepped(ys: Array, t0: Array) -> Array:
        times = t0 + step_map.dt * jnp.arange(len(ys) - 1).astype(ys.dtype)

        def following(y: Array, t: Array) -> Array:
            return step_map.observe(step_map.step(step_map.init(y[None], t)))

        return jax.vmap(following)(ys[:-1], times)

    difference = jax.vmap(stepped)(ys, batch.times) - ys[:, 1:]
    return difference / jnp.broadcast_to(jnp.asarray(scale, ys.dtype), difference.shape)


@checked
def noisy(residual: Residual, std: Float[Array, " dim"]) -> Residual:
    r"""A residual whose models start from disturbed rows: noise injection for steps and rollouts.

    Every row of a window but the last gets independent normal noise, drawn anew from the key of
    each call. A step from $y_k + \eta_k$ then has to reach $y_{k+1}$, which trains the map to
    return to the data. In windows of more than two rows the rows in between are also targets; their
    noise adds variance and no bias. Without a key, as in validation, nothing is disturbed.

    Args:
        residual: `step`, `rollout`, or any residual of `batch.ys` (windows, steps + 1, dim).
        std: the noise's standard deviation for each component, in the units of the data.

    Sources: Sanchez-Gonzalez et al., ICML 2020 (arXiv 2002.09405), section 4.3; Bishop, Neural
    Computation 7 (1995) 108, who shows that the noise penalises the derivative of the map.
    """

    require_not_negative(std=std)

    def disturbed(model: PyTree, batch: PyTree, key: PRNGKeyArray | None = None) -> PyTree:
        if key is None:
            return residual(model, batch, key)
        own, rest = jax.random.split(key)
        shape = (batch.ys.shape[0], batch.ys.shape[1] - 1, batch.ys.shape[2])
        spread = jnp.broadcast_to(jnp.asarray(std, batch.ys.dtype), shape)
        noise = spread * jax.random.normal(own, shape, batch.ys.dtype)
        ys = batch.ys.at[:, :-1].add(noise)
        return residual(model, batch._replace(ys=ys), rest)

    return disturbed

"""The units in which a network sees an equation, found by a coarse look at it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import checked
from physml._numerics.checks import (
    check_interval,
    is_concrete,
    require_finite,
    require_positive,
)
from physml._numerics.compiled import watched
from physml._numerics.units import max_of, powers_of_two, rounding
from physml.systems import System

_ERROR = 0.1  # of a step of the probe, relative to what the state has been so far
_MAX_STEPS = 2000


class Scales(eqx.Module):
    """The units of time, a number, and of the state, a number or one for each component.

    For states that are no vectors, those of `train` may be a tree like a state.
    """

    time: float | Array
    state: PyTree

    def checked(self, like: Float[Array, " dim"]) -> "Scales":
        """As arrays of the shape and dtype of a state.

        Raises:
            ValueError: one is not positive and finite, or has another shape.
        """
        values = {}
        for name, shape in (("time", ()), ("state", like.shape)):
            value = np.asarray(getattr(self, name), like.dtype)
            if value.shape not in ((), shape):
                raise ValueError(f"scales.{name} must have shape {shape}, got {value.shape}")
            require_positive(**{f"scales.{name}": value})
            values[name] = jnp.asarray(np.broadcast_to(value, shape))
        return Scales(**values)


@checked
def find_scales(
    system: System,
    y0: Float[Array, " dim"],
    t0: Float[Array, ""],
    t1: Float[Array, ""],
    args: PyTree = None,
) -> Scales:
    r"""The units in which a solution is of size one and changes in a time of one.

    A probe crosses [t0, t1] by the linearly implicit Euler method, with steps as long as an error
    of a tenth allows. With $y_k$ its components and $\langle \cdot \rangle$ means over time, the
    unit of each is half of its range, and the unit of time is given by

    $$\tau^{-2} = \frac 1d \sum_k \frac{\langle \dot y_k^2 \rangle}
    {\langle (y_k - \langle y_k \rangle)^2 \rangle},$$

    so that $\tau = 1 / \omega$ for oscillations of angular frequency $\omega$. The probe is
    accurate to ten per cent at best; only its range and pace are used. A component that does not
    move has its own size as unit; one that is zero but for rounding, that of the terms that cancel
    in it, or one if there are none.

    Raises:
        ValueError: `y0` is not finite, or t1 is not later than t0.
    """
    require_finite("y0", y0)
    if is_concrete(t0) and is_concrete(t1):
        check_interval(float(t0), float(t1))
    return _probed(system, y0, t0, t1, args)


@watched
@eqx.filter_jit
def _probed(
    system: System,
    y0: Float[Array, " dim"],
    t0: Float[Array, ""],
    t1: Float[Array, ""],
    args: PyTree,
) -> Scales:
    dim, dtype = y0.shape[0], y0.dtype
    eye = jnp.eye(dim, dtype=dtype)

    def euler(t: Array, y: Array, h: Array, size: Array) -> Array:
        slope, tangent = jax.linearize(lambda y: system(t + h, y, args), y)
        jacobian = jax.vmap(tangent)(eye).T
        units = powers_of_two(size, jnp.abs(h) * (jnp.abs(jacobian) @ size))
        jacobian = jacobian * units[None] / units[:, None]
        return y + units * jnp.linalg.solve(eye - h * jacobian, h * slope / units)

    def advance(carry: PyTree) -> tuple:
        t, y, h, low, high, moments, count = carry
        h = jnp.minimum(h, t1 - t)
        size = jnp.maximum(high - low, jnp.maximum(jnp.abs(low), jnp.abs(high)))
        coarse, middle = euler(t, y, h, size), euler(t, y, h / 2, size)
        new = euler(t + h / 2, middle, h / 2, size)
        error = jnp.abs(new - coarse) / jnp.where(size > 0, size, 1.0)
        error = max_of(jnp.where(size > 0, error, 0.0)) / _ERROR
        error = jnp.where(jnp.isnan(error), jnp.inf, error)
        accept = error <= 1
        # Integrals over the step, along a straight line between its two ends.
        mean, change = (y + new) / 2, new - y
        gains = jnp.stack([h * mean, h * (mean**2 + change**2 / 12), change**2 / h])
        factor = jnp.clip(0.9 / jnp.sqrt(jnp.maximum(error, 1e-10)), 0.2, 3.0)
        values = (t + h, new, jnp.minimum(low, new), jnp.maximum(high, new), moments + gains)
        t, y, low, high, moments = jax.tree.map(
            lambda new, old: jnp.where(accept, new, old), values, (t, y, low, high, moments)
        )
        return t, y, h * factor, low, high, moments, count + 1

    zero = jnp.zeros((3, dim), dtype)
    start = (t0, y0, (t1 - t0) / 100, y0, y0, zero, jnp.zeros((), jnp.int32))
    t, _, _, low, high, moments, _ = jax.lax.while_loop(
        lambda c: (c[0] < t1) & (c[-1] < _MAX_STEPS), advance, start
    )
    elapsed = jnp.where(t > t0, t - t0, 1.0)
    mean, square, pace = moments / elapsed
    variance = square - mean**2
    size = jnp.maximum(jnp.abs(low), jnp.abs(high))
    looks = 8
    times = t0 + (t1 - t0) * jnp.asarray(np.linspace(0.0, 1.0, looks), dtype)
    # Not all at the same state, where a rounding may happen to be nothing.
    typical = size[:, None] * jnp.asarray(np.linspace(0.9, 1.0, looks), dtype)[None]
    noise = (t1 - t0) * rounding(lambda t, y: system(t, y, args), times, typical)
    moves = (high - low > noise) & (variance > 0)
    rate = jnp.where(moves, pace / jnp.where(moves, variance, 1.0), 0.0)
    num_moving = jnp.maximum(jnp.sum(moves), 1).astype(dtype)
    rate = jnp.sqrt(jnp.sum(rate) / num_moving)
    # A longer unit would leave the network's input almost constant.
    time = 1 / jnp.maximum(rate, 2 / (t1 - t0))
    size = jnp.where(jnp.abs(y0) > noise, jnp.abs(y0), noise / jnp.finfo(dtype).eps)
    size = jnp.where(size > 0, size, 1.0)
    return Scales(time, jnp.where(moves, (high - low) / 2, size))

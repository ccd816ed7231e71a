"""The method of a reference solution: Diffrax's, with errors in units of the components' own."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from physml._numerics.units import in_units, max_of, rounding, seen_on_the_way
from physml.systems import System

_LOOKS = 8  # at the right-hand side, to see what rounding leaves of it


class StopAtRoundoff(diffrax.AbstractAdaptiveStepSizeController):
    """A controller that gives up where it rejects a step of a few ulps of the time."""

    controller: diffrax.ClipStepSizeController

    def __init__(self, controller):
        self.controller = controller

    @property
    def rtol(self):
        return self.controller.rtol

    @property
    def atol(self):
        return self.controller.atol

    @property
    def norm(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.controller.norm

    def wrap(self, direction):
        return StopAtRoundoff(self.controller.wrap(direction))

    def init(self, *args):
        return self.controller.init(*args)

    def adapt_step_size(self, t0, t1, *args):
        keep, next_t0, next_t1, made_jump, state, result = self.controller.adapt_step_size(
            t0, t1, *args
        )
        shortest = 4 * jnp.finfo(t0.dtype).eps * jnp.maximum(jnp.abs(t0), jnp.abs(t1))
        stuck = ~keep & ~(t1 - t0 > shortest)  # also where t1 is NaN
        result = diffrax.RESULTS.where(
            stuck & diffrax.is_okay(result), diffrax.RESULTS.dt_min_reached, result
        )
        return keep, next_t0, next_t1, made_jump, state, result


class _OwnSizes(diffrax.AbstractAdaptiveStepSizeController):
    """A controller of errors relative to what each component has been so far, in its own unit.

    The memory fades from step to step, so that a component that has become small is followed. What
    rounding leaves of the right-hand side bounds the tolerance from below; after a step that was
    rejected it is looked at where the step began and where it led to.
    """

    controller: diffrax.PIDController
    method: "Method"

    def __init__(self, method):
        self.controller = diffrax.PIDController(rtol=method.rtol, atol=0.0)
        self.method = method

    @property
    def rtol(self):
        return self.controller.rtol

    @property
    def atol(self):  # of the implicit solver's equations
        return 0.0 if self.method.floor is None else self.method.floor

    @property
    def norm(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.controller.norm

    def wrap(self, direction):
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        dt0 = self.method.first_step(jnp.asarray(t0), jnp.asarray(t1), y0)
        size = jnp.abs(y0)
        first, state = self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)
        return first, (state, jax.lax.stop_gradient(size), jnp.zeros_like(size))

    def adapt_step_size(self, t0, t1, y0, y1, args, y_error, error_order, state):
        inner, met, noise = state
        size = jnp.maximum(met, jnp.where(jnp.isfinite(y1), jnp.abs(y1), 0.0))
        unit = jnp.maximum(self.rtol * size, (t1 - t0) * noise)
        error = self.rtol * in_units(jnp.abs(y_error), unit, jnp.inf)
        one = jnp.ones_like(size)
        keep, *following, inner, result = self.controller.adapt_step_size(
            t0, t1, one, one, args, error, error_order, inner
        )

        def look() -> Array:
            # At a start of zeros nothing is rounded.
            y = jax.lax.stop_gradient(seen_on_the_way(y0, y1, y_error, _LOOKS))
            return rounding(self.method.rates, jnp.full(_LOOKS, t0, y0.dtype), y)

        noise = jax.lax.cond(keep, lambda: noise, look)
        state = jnp.where(keep, 0.9 * size, met), noise
        return keep, *following, (inner, *jax.lax.stop_gradient(state)), result


class Method(eqx.Module):
    """An equation, and the method and tolerances that it is solved with."""

    system: System
    args: PyTree
    jumps: Float[Array, " jumps"] | None
    rtol: Float[Array, ""]
    atol: Float[Array, "*dim"] | None
    stiff: bool = eqx.field(static=True)
    floor: Float[Array, "*dim"] | None = None  # `atol` of the implicit solver's equations

    def rates(self, t: Float[Array, "*batch"], y: Float[Array, "dim *batch"]) -> Array:
        """f(t, y)."""
        return self.system(t, y, self.args)

    def first_step(self, t0: Array, t1: Array, y0: Float[Array, " dim"]) -> Float[Array, ""]:
        """A hundredth of the time in which some component changes by its own size."""
        size, slope = jnp.abs(y0), jnp.abs(self.rates(t0, y0))
        rate = max_of(in_units(slope, size, 0.0))
        rate = jnp.maximum(jnp.where(jnp.isfinite(rate), rate, 0.0), 1 / (t1 - t0))
        return jax.lax.stop_gradient(0.01 / rate)

    def started(self, t0: Array, t1: Array, y0: Float[Array, " dim"]) -> "Method":
        """With the floor in place: a component that starts at zero gets what a step gives it."""
        floor = self.atol
        if floor is None and self.stiff:
            jacobian = jnp.abs(jax.jacfwd(lambda y: self.rates(t0, y))(y0))
            step, slope = self.first_step(t0, t1, y0), jnp.abs(self.rates(t0, y0))

            def size_after(time: Array) -> Array:  # also where the start is zeros
                return jnp.abs(y0) + time * (slope + time * (jacobian @ slope))

            floor = self.rtol * jnp.maximum(jnp.abs(y0), step * (jacobian @ size_after(step)))
            time = 1 / jnp.maximum(_pace(jacobian), 1 / (t1 - t0))
            shares = jnp.linspace(0.5, 1.0, _LOOKS, dtype=y0.dtype)
            looked = size_after(time)[:, None] * shares[None]
            noise = rounding(self.rates, jnp.full(_LOOKS, t0, y0.dtype), looked)
            floor = jnp.maximum(floor, time * noise)
            floor = jax.lax.stop_gradient(jnp.maximum(floor, jnp.finfo(y0.dtype).tiny))
        return eqx.tree_at(lambda m: m.floor, self, floor, is_leaf=lambda x: x is None)

    @property
    def controller(self) -> diffrax.AbstractAdaptiveStepSizeController:
        if self.atol is None:
            return _OwnSizes(self)
        return diffrax.PIDController(rtol=self.rtol, atol=self.atol)

    @property
    def solver(self) -> diffrax.AbstractAdaptiveSolver:
        return diffrax.Kvaerno5() if self.stiff else diffrax.Dopri8()


def _pace(jacobian: Float[Array, "dim dim"]) -> Float[Array, ""]:
    """About the spectral radius of a matrix of absolute values, whatever the components' units."""
    largest = max_of(jacobian)
    largest = jnp.where(largest > 0, largest, 1.0)
    return largest * jnp.trace(jnp.linalg.matrix_power(jacobian / largest, 8)) ** (1 / 8)

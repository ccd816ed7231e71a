"""The flow of an equation as a step map: the perfect one that learned maps are held against."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from physml.step_maps import StepMap
from physml.systems import System


class FlowMap(StepMap):
    r"""The map $y(t) \mapsto y(t + \Delta t)$ by steps of Dormand and Prince's order 8.

    The state is the coordinates, the number of steps taken and the start time: a driven system
    sees $t_0 + n \Delta t$, not a sum of rounded steps.

    Attributes:
        system: the right-hand side, which must not jump.
        dt: the time step.
        substeps: equal steps of the solver in one `dt`. For the Lorenz system and dt = 0.01 one
            makes an error of at most 5e-10 in the transients, two 2e-12, three round-off.
        args: passed on to the right-hand side.

    Raises:
        ValueError: `dt` is not positive, `substeps` < 1, or the system jumps.
    """

    system: System
    dt: float
    substeps: int = eqx.field(static=True, default=3)
    args: Any = None

    def __check_init__(self):
        if not self.dt > 0:
            raise ValueError(f"dt must be positive, got {self.dt}")
        if self.substeps < 1:
            raise ValueError(f"substeps must be at least 1, got {self.substeps}")
        if not isinstance(self.system, System):
            raise TypeError(f"system must be a System, got {type(self.system).__name__}")
        span = 1e3 * self.dt if self.system.period is None else self.system.period
        if not self.system.autonomous and len(self.system.jump_times(0.0, float(span))):
            raise ValueError("a FlowMap cannot stop at jumps: use reference.solve or trajectories")

    def init(self, history: Float[Array, "time dim"], t0: Any) -> tuple[Array, Int[Array, ""], Any]:
        y = history[-1]
        return y, jnp.zeros((), jnp.int32), jnp.asarray(t0, y.dtype)

    def step(self, state: tuple) -> tuple:
        y, count, t0 = state
        # Bounded, so that the step can be differentiated forwards (Lyapunov spectra) and backwards.
        solver, term = diffrax.Dopri8(scan_kind="bounded"), diffrax.ODETerm(self.system)
        h = jnp.asarray(self.dt, y.dtype) / self.substeps
        t = t0 + count.astype(y.dtype) * self.dt
        fsal = solver.init(term, t, t + h, y, self.args)

        def substep(carry, k):
            y, fsal = carry
            start = t + k.astype(y.dtype) * h
            made_jump = jnp.asarray(False)
            y, _, _, fsal, _ = solver.step(term, start, start + h, y, self.args, fsal, made_jump)
            return (y, fsal), None

        (y, _), _ = jax.lax.scan(substep, (y, fsal), jnp.arange(self.substeps))
        return y, count + 1, t0

    def observe(self, state: tuple) -> Float[Array, " dim"]:
        return state[0]


class RungeKutta4(StepMap):
    r"""One step of the classical method of order four: what most published data are made with.

    As in `FlowMap` a driven system sees $t_0 + n \Delta t$.

    Attributes:
        system: the right-hand side.
        dt: the time step.
    """

    system: System
    dt: float = eqx.field(static=True)

    def init(self, history: Float[Array, "time dim"], t0: Any) -> tuple[Array, Int[Array, ""], Any]:
        y = history[-1]
        return y, jnp.zeros((), jnp.int32), jnp.asarray(t0, y.dtype)

    def step(self, state: tuple) -> tuple:
        y, count, t0 = state
        t = t0 + count.astype(y.dtype) * self.dt
        return y + runge_kutta(self.system, t, y, self.dt), count + 1, t0

    def observe(self, state: tuple) -> Float[Array, " dim"]:
        return state[0]


def runge_kutta(
    system: System, t: Float[Array, "*batch"], y: Float[Array, "dim *batch"], dt: float
) -> Float[Array, "dim *batch"]:
    """The increment of one step of the classical Runge-Kutta method of order four."""
    k1 = system(t, y)
    k2 = system(t + 0.5 * dt, y + 0.5 * dt * k1)
    k3 = system(t + 0.5 * dt, y + 0.5 * dt * k2)
    k4 = system(t + dt, y + dt * k3)
    return dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

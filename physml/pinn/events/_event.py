"""What an event is, and what it does to a state and to the error of that state."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import answer, ask, require_fields
from physml._numerics.checks import require_one_of
from physml.systems import System
from physml.systems.states import Form


@dataclass(frozen=True)
class Event:
    """Something that happens where a function of the time and the state passes through zero.

    Without a restart, and unless it is terminal, an event is recorded, and the solution goes on.

    For example, a ball that loses a tenth of its speed on the floor, y = (height, speed)::

        pinn.Event(lambda t, y, args: y[0], restart=lambda t, y, args: y * jnp.array([0.0, -0.9]))

    Args:
        root: `root(t, y, args)`, a scalar that changes its sign where the event happens; JAX traces
            it, and it should have a derivative there. Where it becomes NaN no event happens, unless
            it comes close to zero before.
        restart: `restart(t, y, args)`, the state from which the solution goes on, written as y is.
        terminal: whether the solution ends at the event.
        direction: 1 where only a root that grows through zero counts, -1 where only one that falls
            does, 0 where both do.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, or `direction` none of the three.
    """

    root: Callable[..., object]
    restart: Callable[..., object] | None = None
    terminal: bool = False
    direction: int = 0

    def __post_init__(self) -> None:
        require_fields(self)
        require_one_of((-1, 0, 1), direction=self.direction)

    @property
    def stops(self) -> bool:
        """Whether the solution cannot go on as if nothing had happened."""
        return self.terminal or self.restart is not None

    def seen_by(self, form: Form) -> "Event":
        """The event of the solvers' times and states, for functions of the user's."""
        if form == Form():
            return self
        restart = None if self.restart is None else form.writer("restart", self.restart)
        return replace(self, root=form.reader("root", self.root), restart=restart)

    def counts(self, rising: bool) -> bool:
        """Whether a root that passes zero in this direction is this event."""
        return self.direction == 0 or (self.direction > 0) == rising


def value(event: Event, t: Array, y: Array, args: PyTree) -> Float[Array, ""]:
    """The function whose roots are the event."""
    found = ask("root", "root(t, y, args)", event.root, t, y, args)
    return answer("root", "a number that passes through zero", found, (), y.dtype)


def restarted(event: Event, t: Array, y: Array, args: PyTree) -> Float[Array, " dim"]:
    """The state from which the solution goes on after the event."""
    if event.restart is None:
        return y
    found = ask("restart", "restart(t, y, args)", event.restart, t, y, args)
    return answer("restart", "a state", found, y.shape, y.dtype)


class Crossing(NamedTuple):
    """A state after an event, and what becomes of small errors of the state before it.

    Attributes:
        after: the state, at the same time.
        errors: the matrix that takes an error from before the event to after it.
        delays: by how much an error of each component delays the event.
        rounding: how far the time may be off because g is rounded.
        jolt: what a delay of 1 changes in the state after.
    """

    after: Float[Array, " dim"]
    errors: Float[Array, "dim dim"]
    delays: Float[Array, " dim"]
    rounding: Float[Array, ""]
    jolt: Float[Array, " dim"]


@eqx.filter_jit
def cross(
    event: Event, system: System, t: Float[Array, ""], y: Float[Array, " dim"], args: PyTree
) -> Crossing:
    r"""Pass from the state y before an event to the state after it.

    An error e delays the event by $\tau = -g_y e / (g_t + g_y f)$. So the state after it changes by
    $R_y (e + f \tau) + (R_t - f_+) \tau$, where R is the restart, f the right-hand side before the
    event and $f_+$ the one after it. The root itself is a fraction of a rounding away from t, which
    many events would add up to a phase: the state goes there by f, and back by $f_+$.

    Source: M. di Bernardo, C. J. Budd, A. R. Champneys, P. Kowalczyk, Piecewise-smooth Dynamical
    Systems (Springer 2008), section 2.5, for the saltation matrix.
    """
    g_t, g_y = jax.grad(lambda t, y: value(event, t, y, args), argnums=(0, 1))(t, y)
    r_t, r_y = jax.jacfwd(lambda t, y: restarted(event, t, y, args), argnums=(0, 1))(t, y)
    rate = system(t, y, args)
    speed, eps = g_t + g_y @ rate, jnp.finfo(y.dtype).eps
    delays = -g_y / speed
    rest = jnp.nan_to_num(-value(event, t, y, args) / speed)
    rest = jnp.clip(rest, -4 * eps * jnp.abs(t), 4 * eps * jnp.abs(t))
    after = restarted(event, t, y + rest * rate, args)
    after_rate = system(t, after, args)
    jolt = r_y @ rate + r_t - after_rate
    rounding = eps * (jnp.abs(g_y) @ jnp.abs(y)) / jnp.abs(speed)
    errors = r_y + jnp.outer(jolt, delays)
    return Crossing(after - rest * after_rate, errors, delays, rounding, jolt)


@eqx.filter_jit
def signs(
    events: tuple[Event, ...],
    system: System,
    t: Float[Array, ""],
    y: Float[Array, " dim"],
    args: PyTree,
    touched: Float[Array, " events"],
) -> Float[Array, " events"]:
    """The sign of each event's function right after t, where its value at t is zero; else 0.

    That of an event that has just happened, for which `touched` is 1, is zero but for rounding.
    """
    rate, eps = system(t, y, args), jnp.finfo(y.dtype).eps

    def sign(event: Event, touched: Array) -> Array:
        g_t, g_y = jax.grad(lambda t, y: value(event, t, y, args), argnums=(0, 1))(t, y)
        slope = g_t + g_y @ rate
        noise = 64 * eps * (jnp.abs(g_y) @ jnp.abs(y) + jnp.abs(t * slope))
        none = jnp.abs(value(event, t, y, args)) <= touched * noise
        return jnp.where(none, jnp.sign(slope), 0.0)

    return jnp.stack([sign(event, touched[i]) for i, event in enumerate(events)])

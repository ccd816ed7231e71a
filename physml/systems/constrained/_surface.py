"""Motion that stays where numbers keep their values."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import answer, ask, checked
from physml._numerics.checks import floating_array, require_count, require_finite
from physml._numerics.parts import as_pytree
from physml._types import Numbers
from physml.systems._base import System
from physml.systems._problem import flatten_problem
from physml.systems.constrained._base import ImplicitSystem
from physml.systems.states import Structure


class _Invariant(eqx.Module):
    """y' = f(t, y) + G^T m' and g(t, y) = g(t0, y0); m is appended to the state."""

    system: System
    invariants: Callable
    values: Float[Array, " held"]
    structure: Structure = eqx.field(static=True)

    def at(self, t: Array, y: Array, args: PyTree) -> Array:
        def held(t: Array, y: Array) -> Array:
            form, state = "invariants(t, y, args)", self.structure.unravel(y)
            found = ask("invariants", form, self.invariants, t, state, args)
            return jnp.atleast_1d(answer("invariants", "numbers", found, None, y.dtype))

        return self.structure.in_real_numbers(held)(t, y)

    def __call__(self, t: Array, y: Array, dy: Array, args: PyTree) -> Array:
        state, rates = y[: self.system.dim], dy[: self.system.dim]
        found, pull = jax.vjp(lambda y: self.at(t, y, args), state)
        (normal,) = pull(dy[self.system.dim :])
        motion = rates - self.system(t, state, args) - normal
        return jnp.concatenate([motion, found - self.values.astype(y.dtype)])


@checked
def with_invariants(
    system: System | Callable[..., Any],
    invariants: Callable[..., Numbers],
    y0: PyTree,
    *,
    t0: float = 0.0,
    args: PyTree = None,
) -> ImplicitSystem:
    r"""A system whose invariants are held at their values in the start.

    The equations are $y' = f(t, y) + G^T m'$ and $g(t, y) = g(t_0, y_0)$, with the derivatives G of
    g in y. If f keeps g, then m stays zero and y is the solution of y' = f(t, y): the multipliers m
    take up what errors would do to g. If f does not keep g, the motion is forced onto the surface,
    and m says how strongly. m is appended to the state, and a solution leaves it out: its
    largest values are `solution.stats["multipliers"]`. As the derivative of m stands in the
    equations, their index is 1.

    Args:
        system: an ordinary differential equation, a right-hand side as for `from_function`.
        invariants: `g(t, y, args)`, one number or several that do not depend on each other.
        y0, t0: the start, whose values of g are held. It need not be a vector, see `pinn.solve`;
            f and g see states like it.
        args: the last argument of both functions where the caller gives none.

    Raises:
        TypeError: the invariants are no numbers.
        ValueError: y0 has the wrong shape or is not finite.

    Source: C. W. Gear, Maintaining solution invariants in the numerical solution of ODEs, SIAM J.
    Sci. Stat. Comput. 7 (1986) 734.

    Example:
        >>> spring = systems.from_function(lambda t, y, args: [y[1], -y[0]], dim=2)
        >>> held = systems.with_invariants(spring, lambda t, y, args: y @ y, [1.0, 0.0])
        >>> held.state_names
        ('y0', 'y1', 'm0')
    """
    system, state, form, args = flatten_problem(system, y0, args, t0=t0)
    structure = Structure.of(state) if form.structure is None else form.structure
    nothing = _Invariant(system, as_pytree(invariants), jnp.zeros(0, state.dtype), structure)
    values = nothing.at(jnp.asarray(t0, state.dtype), state, args)
    require_finite("invariants", values)
    if values.ndim != 1:
        raise ValueError(f"invariants must have shape (held,), got {values.shape}")
    names = (*system.state_names, *(f"m{i}" for i in range(len(values))))
    equations = _Invariant(system, nothing.invariants, values, structure)
    held = len(values)
    return ImplicitSystem(equations, args, len(names), names, held, held, form.structure)


class _Motion(eqx.Module):
    """q' = v - G^T m', M v' = force - G^T l', 0 = g and 0 = dg/dt."""

    force: Callable
    constraint: Callable
    mass: Callable | Array | None
    num_coordinates: int = eqx.field(static=True)

    def at(self, t: Array, q: Array, args: PyTree) -> Array:
        found = ask("constraint", "constraint(t, q, args)", self.constraint, t, q, args)
        return jnp.atleast_1d(answer("constraint", "numbers", found, None, q.dtype))

    def __call__(self, t: Array, y: Array, dy: Array, args: PyTree) -> Array:
        n, k = self.num_coordinates, (y.size - 2 * self.num_coordinates) // 2
        q, v = y[:n], y[n : 2 * n]
        missed, moved = jax.jvp(lambda t, q: self.at(t, q, args), (t, q), (jnp.ones_like(t), v))
        _, pull = jax.vjp(lambda q: self.at(t, q, args), q)
        (reaction,), (normal,) = pull(dy[2 * n : 2 * n + k]), pull(dy[2 * n + k :])
        force = ask("force", "force(t, q, v, args)", self.force, t, q, v, args)
        force = answer("force", "a force", force, q.shape, y.dtype)
        mass = self.mass
        if callable(mass):
            mass = answer(
                "mass", "a matrix", ask("mass", "mass(t, q, args)", mass, t, q, args), (n, n)
            )
        inertia = dy[n : 2 * n] if mass is None else mass.astype(y.dtype) @ dy[n : 2 * n]
        parts = dy[:n] - v + normal, inertia - force + reaction, missed, moved
        return jnp.concatenate(parts)


@checked
def constrained_motion(
    force: Callable[..., Numbers],
    constraint: Callable[..., Numbers],
    num_coordinates: int,
    *,
    mass: Numbers | Callable[..., Numbers] | None = None,
    args: PyTree = None,
) -> ImplicitSystem:
    r"""A mechanical system that moves on a surface: $M q'' = F - G^T \lambda$ with $g(t, q) = 0$.

    As it stands that is of index 3. This system holds the positions and the velocities on the
    surface (Gear, Gupta, Leimkuhler), with multipliers of both,

    $$q' = v - G^T m', \quad M v' = F - G^T l', \quad 0 = g(t, q), \quad 0 = dg/dt,$$

    and as their derivatives stand in the equations, the index is 1. The state is (q, v, l, m). The
    reaction force of the constraint is $-G^T \lambda$ with $\lambda = l'$, so
    `solution.derivative(t)` has it. m stays zero, and a solution leaves it out.

    Args:
        force: `F(t, q, v, args)`, a number for each coordinate.
        constraint: `g(t, q, args)`, one number or several.
        num_coordinates: the number of coordinates.
        mass: M, a matrix or a function `mass(t, q, args)` that returns one; the identity unless
            given.
        args: the last argument of all functions where the caller gives none.

    Raises:
        TypeError: a function cannot be called, or the mass does not hold numbers.
        ValueError: the mass is not a finite matrix of the right shape.

    Source: C. W. Gear, B. Leimkuhler, G. K. Gupta, Automatic integration of Euler-Lagrange
    equations with constraints, J. Comput. Appl. Math. 12 (1985) 77; C. W. Gear,
    Differential-algebraic equation index transformations, SIAM J. Sci. Stat. Comput. 9 (1988) 39.

    Example:
        >>> pendulum = systems.constrained_motion(
        ...     lambda t, q, v, args: [0.0, -9.81], lambda t, q, args: q @ q - 1.0, 2
        ... )
        >>> pendulum.state_names
        ('q0', 'q1', 'v0', 'v1', 'l0', 'm0')
    """
    require_count(num_coordinates=num_coordinates)
    n = num_coordinates
    if mass is not None and not callable(mass):
        mass = floating_array("mass", mass)
        require_finite("mass", mass)
        if mass.shape != (n, n):
            raise ValueError(f"mass must have shape ({n}, {n}), got {mass.shape}")
    own = as_pytree(mass) if callable(mass) else mass
    equations = _Motion(as_pytree(force), as_pytree(constraint), own, n)
    zero = jnp.zeros(n)
    found = jax.eval_shape(lambda q: equations.at(jnp.zeros(()), q, args), zero)
    k = found.size
    parts = (("q", n), ("v", n), ("l", k), ("m", k))
    names = tuple(f"{name}{i}" for name, count in parts for i in range(count))
    return ImplicitSystem(equations, args, len(names), names, 2 * k, k)

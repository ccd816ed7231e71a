"""Implicit equations and mass matrices."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from physml._numerics.calls import answer, ask, checked
from physml._numerics.checks import floating_array, require_finite
from physml._numerics.parts import as_pytree
from physml._types import Numbers
from physml.systems._base import System
from physml.systems.constrained._base import ImplicitSystem, implicit_system


@checked
def implicit(
    equations: Callable[[Array, Array, Array, PyTree], Numbers],
    dim: int,
    *,
    state_names: Sequence[str] | None = None,
    args: PyTree = None,
) -> ImplicitSystem:
    """A system of equations F(t, y, y') = 0, differential or algebraic.

    Args:
        equations: `F(t, y, dy, args)` of one state `y` and its derivative `dy`, both of shape
            (dim,); it returns `dim` numbers, zero where the equations hold.
        dim: the number of components and of equations.
        state_names: their names; by default `y0, y1, ...`.
        args: any pytree, the last argument of F where the caller gives none.

    Raises:
        TypeError: F cannot be called.
        ValueError: there is not one name for each component.

    Example:
        >>> circle = systems.implicit(lambda t, y, dy, args: dy**2 + y**2 - 1.0, dim=1)
    """
    return implicit_system(equations, dim, state_names, args)


class _Mass(eqx.Module):
    """The equations M y' - f."""

    f: Callable
    mass: Callable | Array

    def __call__(self, t: Array, y: Array, dy: Array, args: PyTree) -> Array:
        rates = answer("f", "dy/dt", ask("f", "f(t, y, args)", self.f, t, y, args), y.shape)
        mass = self.mass
        if not isinstance(mass, jax.Array):
            mass = ask("mass", "mass(t, y, args)", mass, t, y, args)
        shape = (y.size, y.size)
        return answer("mass", "a matrix", mass, shape, y.dtype) @ dy - rates


@checked
def with_mass(
    f: Callable[..., Numbers],
    mass: Numbers | Callable[..., Numbers],
    dim: int | None = None,
    *,
    state_names: Sequence[str] | None = None,
    args: PyTree = None,
) -> ImplicitSystem:
    r"""A system with a mass matrix, $M(t, y)\, y' = f(t, y)$; M may be singular.

    Args:
        f: `f(t, y, args)` returns `dim` numbers; a `System` will do.
        mass: M, of shape (dim, dim), or a function `mass(t, y, args)` that returns it.
        dim: the number of components; needed only where neither `f` nor `mass` says it.
        state_names: their names; by default the system's own, or `y0, y1, ...`.
        args: any pytree, the last argument of both functions where the caller gives none.

    Raises:
        TypeError: a function cannot be called, or the mass does not hold numbers.
        ValueError: the mass is not a finite square matrix, or `dim` is missing or contradicts it.

    Example:
        One differential equation, x' = -x + z, and one algebraic, 0 = x - 2 z:

        >>> mixed = systems.with_mass(
        ...     lambda t, y, args: [-y[0] + y[1], y[0] - 2 * y[1]], [[1.0, 0.0], [0.0, 0.0]]
        ... )
    """
    known = [dim] if dim is not None else []
    if isinstance(f, System):
        known.append(f.dim)
        state_names = f.state_names if state_names is None else state_names
    if not callable(mass):
        mass = floating_array("mass", mass)
        require_finite("mass", mass)
        if mass.ndim != 2 or mass.shape[0] != mass.shape[1]:
            raise ValueError(f"mass must be a square matrix, got shape {mass.shape}")
        known.append(len(mass))
    if len(set(known)) != 1:
        raise ValueError(f"dim must be one number, given by f, mass or dim, got {known}")
    own = as_pytree(mass) if callable(mass) else mass
    return implicit_system(_Mass(as_pytree(f), own), known[0], state_names, args)

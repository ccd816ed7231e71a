"""Implicit equations and mass matrices."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import answer, ask, checked
from physml._numerics.checks import floating_array, require_finite
from physml._numerics.parts import as_pytree
from physml._types import Numbers
from physml.systems._base import System
from physml.systems._function import from_function
from physml.systems.constrained._base import ImplicitSystem, implicit_system
from physml.systems.states import Form, Structure, ravel_numbers, take_apart_state


class _Written(eqx.Module):
    """A user's F of states that are no vectors, as one of vectors."""

    equations: Callable
    structure: Structure = eqx.field(static=True)

    def __call__(self, t: Array, y: Array, dy: Array, args: PyTree) -> Float[Array, " equations"]:
        def missed(t: Array, y: Array, dy: Array) -> Array:
            form, states = "F(t, y, dy, args)", map(self.structure.unravel, (y, dy))
            found = ask("F", form, self.equations, t, *states, args)
            return ravel_numbers("F", f"{self.structure.dim} numbers", found)

        return self.structure.in_real_numbers(missed)(t, y, dy)


@checked
def implicit(
    equations: Callable[[Array, Any, Any, PyTree], Any],
    dim: int | None = None,
    *,
    like: PyTree = None,
    state_names: Sequence[str] | None = None,
    args: PyTree = None,
) -> ImplicitSystem:
    """A system of equations F(t, y, y') = 0, differential or algebraic.

    Args:
        equations: `F(t, y, dy, args)` of one state `y` and its derivative `dy`, both of shape
            (dim,); it returns `dim` numbers, zero where the equations hold.
        dim: the number of components and of equations.
        like: in place of `dim`, an example of a state that is no vector: a dict, a tuple, a named
            tuple, an array of any shape, complex numbers, nested in any way. F sees such states and
            derivatives, and returns a tree of as many numbers; a complex one is two equations.
        state_names: their names; by default `y0, y1, ...`, or those that `like` has.
        args: any pytree, the last argument of F where the caller gives none.

    Raises:
        TypeError: F cannot be called; neither or both of `dim` and `like` are given.
        ValueError: there is not one name for each component; `like` holds no numbers.

    Example:
        >>> circle = systems.implicit(lambda t, y, dy, args: dy**2 + y**2 - 1.0, dim=1)
    """
    if (dim is None) == (like is None):
        raise TypeError("dim must be given, or like in its place, got neither or both")
    if like is None:
        assert dim is not None
        return implicit_system(as_pytree(equations), dim, state_names, args)
    structure, _ = take_apart_state("like", like)
    written = equations if structure.is_vector else _Written(as_pytree(equations), structure)
    return implicit_system(written, structure.dim, state_names, args, structure)


class _Mass(eqx.Module):
    """The equations M y' - f."""

    f: Callable
    mass: Callable | Array
    structure: Structure = eqx.field(static=True)

    def __call__(self, t: Array, y: Array, dy: Array, args: PyTree) -> Array:
        rates = answer("f", "dy/dt", ask("f", "f(t, y, args)", self.f, t, y, args), y.shape)
        if isinstance(self.mass, jax.Array):
            return self.mass.astype(y.dtype) @ dy - rates
        function, form, shape = self.mass, Form(self.structure), (y.size, y.size)

        def mass(t: Array, y: Array) -> Array:
            found = ask("mass", "mass(t, y, args)", function, t, form.state(y), args)
            return answer("mass", "a matrix", found, shape, y.dtype)

        return self.structure.in_real_numbers(mass)(t, y) @ dy - rates


@checked
def with_mass(
    f: Callable[..., Any],
    mass: PyTree | Callable[..., Numbers],
    dim: int | None = None,
    *,
    like: PyTree = None,
    state_names: Sequence[str] | None = None,
    args: PyTree = None,
) -> ImplicitSystem:
    r"""A system with a mass matrix, $M(t, y)\, y' = f(t, y)$; M may be singular.

    Args:
        f: `f(t, y, args)` returns `dim` numbers; a `System` will do.
        mass: M, of shape (dim, dim), or a function `mass(t, y, args)` that returns it. Of states
            that are no vectors the order of rows and columns is that of `state_names`, and a
            diagonal M may be a tree of numbers like the state.
        dim: the number of components; needed only where nothing else says it.
        like: an example of a state, where this is no vector, as for `implicit`; `f` sees such
            states and returns dy/dt in the same structure.
        state_names: their names; by default the system's own, or `y0, y1, ...`.
        args: any pytree, the last argument of both functions where the caller gives none.

    Raises:
        TypeError: a function cannot be called, or the mass does not hold numbers.
        ValueError: the mass is not a finite square matrix, nor a tree like the states, or `dim`
            is missing or contradicts it.

    Example:
        One differential equation, x' = -x + z, and one algebraic, 0 = x - 2 z:

        >>> mixed = systems.with_mass(
        ...     lambda t, y, args: [-y[0] + y[1], y[0] - 2 * y[1]], [[1.0, 0.0], [0.0, 0.0]]
        ... )
    """
    known, structure = [dim] if dim is not None else [], None
    if isinstance(f, System):
        if like is not None:
            raise ValueError("like must be None where f is a System, which knows its states")
    elif like is not None:
        f = from_function(f, like=like)
    if isinstance(f, System):
        known.append(f.dim)
        state_names = f.state_names if state_names is None else state_names
        structure = getattr(f, "structure", None)
    if not callable(mass):
        mass = matrix = _matrix(mass, structure)
        known.append(len(matrix))
    if len(set(known)) != 1:
        raise ValueError(f"dim must be one number, given by f, mass, dim or like, got {known}")
    (size,) = set(known)
    of = Structure.of(np.zeros(size)) if structure is None else structure
    equations = _Mass(as_pytree(f), as_pytree(mass) if callable(mass) else mass, of)
    return implicit_system(equations, size, state_names, args, structure)


def _matrix(mass: PyTree, structure: Structure | None) -> Float[Array, "dim dim"]:
    """A mass as a matrix, whose diagonal may come as a tree like the states."""
    if structure is not None:
        bare = isinstance(mass, list) or jax.tree_util.all_leaves([mass])
        if not bare or floating_array("mass", mass).shape != (structure.dim, structure.dim):
            diagonal = structure.spread("mass", mass, of="like")
            mass = jnp.diag(jnp.broadcast_to(diagonal, structure.dim))
    matrix = floating_array("mass", mass)
    require_finite("mass", matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"mass must be a square matrix, got shape {matrix.shape}")
    return matrix

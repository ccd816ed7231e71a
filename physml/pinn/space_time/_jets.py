"""Functions of named coordinates, and the derivatives that a residual needs at a point."""

import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from physml._numerics.calls import as_traced, ask, check_components

_MOST_DERIVATIVES = 4

Derivative = tuple[int, ...]
"""How often the function is differentiated in each coordinate: (2, 0) is u_xx of u(x, t)."""

PointResidual = Callable[..., Array | tuple[Array, ...]]
"""`residual(u, *point)`: an array (or a tuple of them) that is zero where u solves the equation."""


class Field:
    r"""A function of named scalar coordinates with its partial derivatives by JAX.

    With the coordinates "xt", `u(x, t)` is the value, `u.t(x, t)` is $\partial_t u$ and
    `u.xx(x, t)` is $\partial_x^2 u$; each is a function that can be differentiated further.
    """

    def __init__(self, coordinates: str, function: Callable[..., Array]):
        self._coordinates = coordinates
        self._function = function

    def __call__(self, *point: ArrayLike) -> Array:
        return self._function(*point)

    def __getattr__(self, letters: str) -> Callable[..., Array]:
        if letters.startswith("_") or not set(letters) <= set(self._coordinates):
            raise AttributeError(
                f"a derivative must be named by coordinates out of {self._coordinates!r}, got "
                f"u.{letters}"
            )
        function = self._function
        for letter in letters:
            function = jax.jacfwd(function, self._coordinates.index(letter))
        return function


def taylor(
    coordinates: str,
    derivatives: tuple[Derivative, ...],
    jet: Float[Array, "derivatives *components"],
    point: Float[Array, " dim"],
) -> Field:
    """The Taylor polynomial that has the given derivatives at a point; all others are zero.

    A local residual has the same value for it as for the function with these derivatives.
    """
    # Few operations, whatever the number of terms: they are differentiated many times.
    orders = np.array(derivatives).T

    def function(*at: ArrayLike) -> Array:
        factor = jnp.ones(len(derivatives), point.dtype)
        for x, origin, order in zip(at, point, orders, strict=True):
            powers = [jnp.ones((), point.dtype)]
            for n in range(1, int(order.max()) + 1):
                powers.append(powers[-1] * (jnp.asarray(x, point.dtype) - origin) / n)
            factor = factor * jnp.stack(powers)[order]
        return jnp.tensordot(factor, jet, 1)

    return Field(coordinates, function)


def stacked(values: PyTree) -> Float[Array, " rows"]:
    """What a residual returned, an array or a tuple of arrays, as one row of numbers."""
    return jnp.concatenate([jnp.ravel(value) for value in jax.tree.leaves(values)])


def derivatives_in(
    name: str, residual: PointResidual, coordinates: str, components: int | None, points: np.ndarray
) -> tuple[PointResidual, tuple[Derivative, ...], int]:
    """The residual as traced, the derivatives of u that it depends on, and the number of its rows.

    They are found by differentiating the residual in all of them, at the given points and an
    arbitrary u.

    Raises:
        TypeError: the residual returns something else than arrays.
        ValueError: it returns no values or values that are not finite, or they depend on no
            derivative, or on one of an order above four.
    """
    orders = itertools.product(range(_MOST_DERIVATIVES + 2), repeat=len(coordinates))
    every = tuple(d for d in orders if sum(d) <= _MOST_DERIVATIVES + 1)
    shape = (len(every),) if components is None else (len(every), components)
    jets = np.linspace(0.5, 1.5, len(points) * math.prod(shape)).reshape(len(points), *shape)
    dtype = jnp.zeros(()).dtype

    def rows(jet: Array, point: Array) -> Array:
        u = taylor(coordinates, every, jet, point)
        values = ask(name, f"{name}(u, {', '.join(coordinates)})", residual, u, *point)
        for leaf in jax.tree.leaves(values, is_leaf=lambda leaf: leaf is None):
            if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.complexfloating):
                raise TypeError(f"{name} must return real numbers, got {leaf.dtype}")
            if not isinstance(leaf, jax.Array):
                raise TypeError(
                    f"{name} must return a JAX array, or a tuple of them, got {leaf!r}, "
                    "which does not depend on u"
                )
        return stacked(values)

    arguments = jnp.asarray(jets, dtype), jnp.asarray(points, dtype)
    first = [a[0] for a in arguments]
    num_rows = jax.eval_shape(rows, *first).size
    traced = check_components(name, rows, u=first[0], point=first[1])
    if num_rows == 0:
        raise ValueError(f"{name} must return at least one number for each point, got none")
    values, slopes = jax.jit(jax.vmap(lambda *a: (rows(*a), jax.jacfwd(rows)(*a))))(*arguments)
    if not (np.isfinite(values).all() and np.isfinite(slopes).all()):
        where = ", ".join(f"{c} = {x:.3g}" for c, x in zip(coordinates, points[0], strict=True))
        raise ValueError(f"{name} must be finite for a smooth u, got other values near {where}")
    used = np.any(np.asarray(slopes).reshape(len(points), num_rows, len(every), -1), axis=(0, 1, 3))
    chosen = tuple(d for d, depends in zip(every, used, strict=True) if depends)
    if not chosen:
        raise ValueError(f"{name} must depend on u, got values that do not")
    if (most := max(map(sum, chosen))) > _MOST_DERIVATIVES:
        raise ValueError(f"{name} must have derivatives of at most order 4, got order {most}")
    return as_traced(residual, traced), chosen, num_rows

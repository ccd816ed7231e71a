"""Kernels: how alike the values of a random function are at two points."""

import abc
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, DTypeLike, Float, PyTree

from physml._numerics.checks import floating_array, require_one_of, require_positive

Point = Float[Array, " inputs"]
Parameter = float | Float[Array | np.ndarray, "..."]
"""One positive number; of a scale or a period also one for each input."""


@runtime_checkable
class AnyKernel(Protocol):
    """What a Gaussian process takes as its kernel: those of this room and those of tinygp.

    It is a pytree whose floating leaves are its parameters.
    """

    def evaluate(self, x: Point, y: Point, /) -> Array:
        """The covariance of the values at two points, each an array (inputs,)."""
        ...


def _parameter(default: float) -> Any:
    """A field of a kernel; a list of numbers becomes an array."""
    return eqx.field(default=default, converter=_from_list)


def _from_list(value: object) -> object:
    try:
        return np.asarray(value, float) if isinstance(value, Sequence) else value
    except (TypeError, ValueError):
        return value  # which the check of the fields refuses


class Kernel(eqx.Module):
    """A kernel whose parameters are positive; `+` and `*` join kernels, also with a number.

    `kernel(x, y)` is the matrix of covariances of two sets of points. Unlike tinygp's, these
    kernels have all the derivatives at coincident points that the random function has, and a scale
    for each input; tinygp's are accepted wherever these are.

    Raises:
        TypeError: a parameter is no number and no array of numbers.
        ValueError: a parameter is not positive and finite, or has more than one axis.
    """

    def __check_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata.get("static", False) or isinstance(value, AnyKernel):
                continue
            if isinstance(value, bool | complex | np.complexfloating):
                raise TypeError(f"{field.name} must be a positive number, got {value!r}")
            value = floating_array(field.name, value)
            require_positive(**{field.name: value})
            if value.ndim > 1 or 0 in value.shape:
                raise ValueError(
                    f"{field.name} must be a number or one for each input, got shape {value.shape}"
                )

    @abc.abstractmethod
    def evaluate(self, x: Point, y: Point, /) -> Float[Array, ""]:
        """The covariance of the values at two points."""

    def __call__(
        self, xs: Float[Array, "rows inputs"], ys: Float[Array, "columns inputs"]
    ) -> Float[Array, "rows columns"]:
        return gram(self, xs, ys)

    def __add__(self, other: Any) -> "Sum":
        return Sum(self, other if isinstance(other, AnyKernel) else Constant(other))

    def __mul__(self, other: Any) -> "Product":
        return Product(self, other if isinstance(other, AnyKernel) else Constant(other))

    def __radd__(self, other: Any) -> "Sum":
        return Sum(Constant(other), self)

    def __rmul__(self, other: Any) -> "Product":
        return Product(Constant(other), self)


class Sum(Kernel):
    """The covariance of the sum of two independent functions."""

    first: AnyKernel
    second: AnyKernel

    def evaluate(self, x: Point, y: Point, /) -> Float[Array, ""]:
        return self.first.evaluate(x, y) + self.second.evaluate(x, y)


class Product(Kernel):
    """The product of two kernels; with a number, that number is the variance's factor."""

    first: AnyKernel
    second: AnyKernel

    def evaluate(self, x: Point, y: Point, /) -> Float[Array, ""]:
        return self.first.evaluate(x, y) * self.second.evaluate(x, y)


class Constant(Kernel):
    """A function that is one random number everywhere."""

    variance: Parameter = _parameter(1.0)

    def evaluate(self, x: Point, y: Point, /) -> Float[Array, ""]:
        return jnp.asarray(self.variance, x.dtype)


class Linear(Kernel):
    r"""Random linear functions through zero, $k(x, y) = \sum_i x_i y_i / \ell_i^2$."""

    scale: Parameter = _parameter(1.0)

    def evaluate(self, x: Point, y: Point, /) -> Float[Array, ""]:
        return jnp.sum((x / self.scale) * (y / self.scale))


class RBF(Kernel):
    r"""Smooth functions, $k = \exp(-r^2 / 2)$ with $r^2 = \sum_i (x_i - y_i)^2 / \ell_i^2$.

    A scale for each input makes it the kernel of automatic relevance determination.

    Source: C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning (2006),
    eq. 4.9.
    """

    scale: Parameter = _parameter(1.0)

    def evaluate(self, x: Point, y: Point, /) -> Float[Array, ""]:
        return jnp.exp(-0.5 * _square(x, y, self.scale))


class Matern(Kernel):
    r"""Functions with a few derivatives: of order $\nu$ = 1/2, 3/2, 5/2 or 7/2.

    $k = p(a) e^{-a}$ with $a = \sqrt{2\nu}\, r$ and r as for `RBF`; p is 1, $1 + a$,
    $1 + a + a^2/3$ or $1 + a + 2a^2/5 + a^3/15$. The functions have $\nu - 1/2$ derivatives.

    Source: Rasmussen and Williams, eqs. 4.16 and 4.17.
    """

    order: float = eqx.field(default=2.5, static=True)
    scale: Parameter = _parameter(1.0)

    def __check_init__(self) -> None:
        require_one_of(_ORDERS, order=self.order)

    def evaluate(self, x: Point, y: Point, /) -> Float[Array, ""]:
        return _matern(_ORDERS.index(self.order), 2 * self.order, _square(x, y, self.scale))


class RationalQuadratic(Kernel):
    r"""A mixture of scales, $k = (1 + r^2 / 2\alpha)^{-\alpha}$ with r as for `RBF`.

    Source: Rasmussen and Williams, eq. 4.19.
    """

    scale: Parameter = _parameter(1.0)
    alpha: Parameter = _parameter(1.0)

    def evaluate(self, x: Point, y: Point, /) -> Float[Array, ""]:
        base = 1.0 + _square(x, y, self.scale) / (2.0 * self.alpha)
        return jnp.exp(-self.alpha * jnp.log(base))


class Periodic(Kernel):
    r"""Periodic functions, $k = \exp(-2 \sum_i \sin^2(\pi (x_i - y_i) / \tau_i) / \ell_i^2)$.

    Source: Rasmussen and Williams, eq. 4.31.
    """

    period: Parameter = _parameter(1.0)
    scale: Parameter = _parameter(1.0)

    def evaluate(self, x: Point, y: Point, /) -> Float[Array, ""]:
        sines = jnp.sin(jnp.pi * ((x - y) / self.period)) / self.scale
        return jnp.exp(-2.0 * jnp.sum(sines**2))


def as_arrays(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """A kernel with its floating leaves, numbers or arrays, as arrays of a dtype."""

    def leaf(value: ArrayLike) -> ArrayLike:
        floating = isinstance(value, float) or jnp.issubdtype(jnp.result_type(value), jnp.floating)
        return jnp.asarray(value, dtype) if floating else value

    return jax.tree.map(leaf, tree)


def stacked(tree: PyTree, num: int) -> PyTree:
    """A tree with `num` copies of each of its leaves along a new first axis."""
    return jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf)[None], num, axis=0), tree)


def require_points(kernel: AnyKernel, xs: Array) -> None:
    """Raise ValueError unless the kernel gives one number for two of the points."""
    inputs = xs.shape[1]
    try:
        found = jax.eval_shape(as_arrays(kernel, xs.dtype).evaluate, xs[0], xs[0])
    except (TypeError, ValueError) as error:
        raise ValueError(f"kernel must take points of {inputs} inputs, got {error}") from error
    if getattr(found, "shape", None) != ():
        raise ValueError(f"kernel must give one number for two points of {inputs} inputs")


def gram(kernel: AnyKernel, xs: Array, ys: Array) -> Float[Array, "rows columns"]:
    """The covariances of the values at all pairs of points, xs (rows, inputs) and ys."""
    return jax.vmap(lambda x: jax.vmap(lambda y: kernel.evaluate(x, y))(ys))(xs)


def variances(kernel: AnyKernel, xs: Array) -> Float[Array, " rows"]:
    """The variances of the values at all points."""
    return jax.vmap(lambda x: kernel.evaluate(x, x))(xs)


def _square(x: Point, y: Point, scale: Parameter) -> Float[Array, ""]:
    return jnp.sum(((x - y) / scale) ** 2)


_ORDERS = (0.5, 1.5, 2.5, 3.5)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _matern(n: int, twice: float, square: Array) -> Array:
    """p(a) exp(-a) at a = sqrt(2 nu r^2), with p that of the order n + 1/2."""
    a = jnp.sqrt(twice * square)
    polynomials = (1.0, 1.0 + a, 1.0 + a + a**2 / 3.0, 1.0 + a + 0.4 * a**2 + a**3 / 15.0)
    return polynomials[n] * jnp.exp(-a)


@_matern.defjvp
def _(n: int, twice: float, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # As a function of r^2 the derivative is the kernel of the order below. To differentiate the
    # root would give NaN at r = 0, where the derivatives are needed.
    (square,), (change,) = primals, tangents
    if n:
        slope = -twice / (4 * n - 2) * _matern(n - 1, twice, square)
    else:  # it has none at r = 0, where zero is the mean of both sides
        a = jnp.sqrt(twice * jnp.where(square > 0, square, 1.0))
        slope = jnp.where(square > 0, -twice / (2.0 * a) * jnp.exp(-a), 0.0)
    return _matern(n, twice, square), slope * change

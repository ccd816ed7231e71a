r"""An equation on one window in integral form, and linearised about a trajectory.

The nodes of a window are its start, its Gauss points and its end. With W the integrals of the
points' Lagrange polynomials and h the window's span, a trajectory with the values $u_i$ at the
nodes has the defect

$$r_i = u_0 + \tfrac h2 \sum_j W_{ij} f(t_j, u_j) - u_i,$$

and the correction c to be added to u fulfils, to first order,

$$c_i = c_0 + r_i + \tfrac h2 \sum_j W_{ij} f_y(t_j, u_j)\, c_j.$$

The integral form sees what u does between two points, however quickly.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physml._numerics import double_double as dd
from physml._numerics.interpreter import in_double_double
from physml._numerics.quadrature import Quadrature, gauss
from physml._numerics.units import max_of, powers_of_two

VectorField = Callable[[Array, Float[Array, "dim *batch"]], Float[Array, "dim *batch"]]
"""f(t, y), of one time or a time for each member of a trailing batch."""


class Nodes(NamedTuple):
    """The nodes of a window.

    Attributes:
        times: the times of the Gauss points.
        half: half of the window's span.
        integrals: W, from the start to the points and, in the last row, to the end.
    """

    times: Float[Array, " points"]
    half: Float[Array, ""]
    integrals: Float[Array, "nodes points"]


class ExactNodes(NamedTuple):
    """`Nodes` in double-double."""

    times: dd.DoubleDouble
    half: dd.DoubleDouble
    integrals: dd.DoubleDouble

    @property
    def leading(self) -> Nodes:
        """The same in floats."""
        return Nodes(self.times.hi, self.half.hi, self.integrals.hi)


def nodes_in(start: Array, span: Array, num_points: int) -> Nodes:
    """The nodes of a window in floats."""
    rule, half = gauss(num_points), span / 2
    times = start + half * (jnp.asarray(rule.points, half.dtype) + 1)
    return Nodes(times, half, jnp.asarray(rule.integrals.astype(float), half.dtype))


def exact_nodes_in(
    start: Array, end: Array, num_points: int, rule_of: Callable[[int], Quadrature] = gauss
) -> ExactNodes:
    """The nodes of a window in double-double, at the points of a quadrature."""
    rule, dtype, shape = rule_of(num_points), start.dtype, (num_points,)
    points = dd.rational(np.array([Fraction(float(x)) + 1 for x in rule.points]), dtype)
    half = jax.tree.map(lambda x: 0.5 * x, dd.two_sum(end, -start))
    times = dd.add(_spread(dd.exact(start), shape), dd.mul(_spread(half, shape), points))
    return ExactNodes(times, half, dd.rational(rule.integrals, dtype))


def defect(
    field: VectorField, nodes: Nodes, values: Float[Array, "dim all_nodes"]
) -> Float[Array, "dim nodes"]:
    """r at the Gauss points and at the end, of values at the start, the points and the end."""
    rates = field(nodes.times, values[:, 1:-1])
    return values[:, :1] + nodes.half * (rates @ nodes.integrals.T) - values[:, 1:]


def exact_defect(
    field: VectorField, nodes: ExactNodes, values: dd.DoubleDouble
) -> tuple[Float[Array, "dim nodes"], Float[Array, "dim points"]]:
    """`defect` in double-double, because in floats that of a good network is only rounding.

    The rates, which it is computed from, are returned too.
    """
    first, rest = jax.tree.map(lambda x: x[:, :1], values), jax.tree.map(lambda x: x[:, 1:], values)
    rates = in_double_double(field)(nodes.times, jax.tree.map(lambda x: x[:, :-1], rest))
    integrals = jax.tree.map(jnp.transpose, nodes.integrals)
    change = dd.mul(_spread(nodes.half, rest.hi.shape), dd.matmul(rates, integrals))
    return dd.add(dd.add(_spread(first, rest.hi.shape), change), dd.neg(rest)).hi, rates.hi


class Linearised(NamedTuple):
    """The linear equation $c_i = known_i + \\tfrac h2 \\sum_j W_{ij} f_y(t_j, u_j)\\, c_j$."""

    half: Float[Array, ""]
    integrals: Float[Array, "nodes points"]
    jacobian: Float[Array, "dim dim points"]
    rates: Float[Array, "dim points"]  # f(t, u)
    size: Float[Array, " dim"]  # of u
    terms: Float[Array, " dim"]  # of f_y u: their absolute values added up

    @property
    def units(self) -> Float[Array, " dim"]:
        """Powers of two near the size of each component."""
        return powers_of_two(self.size, 2 * self.half * self.terms)

    def change(
        self, c: Float[Array, "dim points"], integrals: Float[Array, "rows points"]
    ) -> Float[Array, "dim rows"]:
        """The sum on the right, for some rows of W."""
        return jnp.sum(self.half * self.jacobian * c[None], axis=1) @ integrals.T

    def solve(
        self, known: Float[Array, "dim nodes *columns"]
    ) -> Float[Array, "dim nodes *columns"]:
        """c at the Gauss points and at the end, by LU."""
        dim, _, num_points = self.jacobian.shape
        units = self.units
        jacobian = units[None, :, None] * self.jacobian / units[:, None, None]
        matrix = self.half * jnp.einsum("pq,ijq->ipjq", self.integrals[:-1], jacobian)
        matrix = matrix.reshape(dim * num_points, dim * num_points)
        identity = jnp.eye(dim * num_points, dtype=known.dtype)
        units = units.reshape(dim, *[1] * (known.ndim - 1))
        right = (known[:, :-1] / units).reshape(dim * num_points, -1)
        inside = jnp.linalg.solve(identity - matrix, right)
        inside = units * inside.reshape(dim, num_points, *known.shape[2:])
        rates = jnp.einsum("ijq,jq...->iq...", self.jacobian, inside)
        last = known[:, -1] + self.half * jnp.einsum("q,iq...->i...", self.integrals[-1], rates)
        return jnp.concatenate([inside, last[:, None]], axis=1)


def linearise(
    field: VectorField, nodes: Nodes, values: Float[Array, "dim all_nodes"]
) -> Linearised:
    """The equation linearised about values at the start, the Gauss points and the end."""
    u = values[:, 1:-1]
    rates, tangent = jax.linearize(lambda u: field(nodes.times, u), u)
    directions = jnp.broadcast_to(jnp.eye(len(u), dtype=u.dtype)[:, :, None], (len(u), *u.shape))
    jacobian, size = jax.vmap(tangent, out_axes=1)(directions), max_of(jnp.abs(values), axis=1)
    terms = max_of(jnp.abs(jacobian), axis=2) @ size
    return Linearised(nodes.half, nodes.integrals, jacobian, rates, size, terms)


def _spread(x: dd.DoubleDouble, shape: tuple[int, ...]) -> dd.DoubleDouble:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, shape), x)

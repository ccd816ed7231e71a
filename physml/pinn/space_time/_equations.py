"""Residuals on the elements of one slab of space and time, linearised in the coefficients."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from physml._numerics.compiled import watched
from physml._numerics.units import ROUNDINGS, max_of
from physml.pinn.space_time._elements import AxisTable
from physml.pinn.space_time._jets import Derivative, PointResidual, stacked, taylor

T = TypeVar("T")


class SlabEquation(eqx.Module):
    """A residual at points of the slab, on every element."""

    residual: PointResidual = eqx.field(static=True)
    coordinates: str = eqx.field(static=True)
    components: int | None = eqx.field(static=True)
    derivatives: tuple[Derivative, ...] = eqx.field(static=True)
    # Where each derivative is found: that of a later block of components, in a system of first
    # order in time.
    sources: tuple[tuple[Derivative, int], ...] = eqx.field(static=True)
    axis: int = eqx.field(static=True)  # the coordinate that is cut into elements
    along: AxisTable  # of that coordinate
    across: tuple[AxisTable, ...]  # of the others, in their order

    def at(self, jet: Float[Array, "derivatives components"], point: Float[Array, " dim"]) -> Array:
        """The residual's rows, from the derivatives of u at a point."""
        jet = jet[:, 0] if self.components is None else jet
        u = taylor(self.coordinates, self.derivatives, jet, point)
        return stacked(self.residual(u, *point))


class SlabEquations(NamedTuple):
    """All equations that the solution of a slab has to fulfil."""

    inside: tuple[SlabEquation, ...]  # on every element
    left: tuple[SlabEquation, ...]  # at the first edge
    right: tuple[SlabEquation, ...]  # at the last
    order: int  # neighbours share their value and the derivatives below this order
    periodic: bool  # the first edge is the last


class Box(NamedTuple):
    """Where the slab lies; edges past `count` fill the buffer, and no element starts there."""

    count: Int[Array, ""]  # of elements
    edges: Float[Array, " edges"]
    lows: Float[Array, " others"]  # of the other axes
    spans: Float[Array, " others"]
    units: Float[Array, " unknowns"]  # in which the coefficients of each unknown are measured


class Rows(NamedTuple):
    """A linearised residual, each row divided by the size of its slope in the coefficients."""

    residual: Float[Array, " rows"]  # in the units of the unknowns
    slope: Float[Array, "rows components free along"]
    rounding: Float[Array, " rows"]  # of the residual
    doubt: Float[Array, " rows"]  # how much a possible error of u changes the residual


@watched
@eqx.filter_jit
def defects(
    equations: tuple[SlabEquation, ...],
    box: Box,
    coefficients: Float[Array, "elements across along components"],
    free: Int[Array, " free"],
) -> Float[Array, "equations elements"]:
    """The largest residual of each equation on each element, in the units of the unknowns.

    A residual is divided by the size of its slope in the coefficients of the (orthonormal) basis.
    The quotient is about the least change of u that removes the residual. What rounding leaves of
    it is taken off, because no u removes that.
    """

    def worst(index: Array) -> Array:
        rows = [linearise(e, box, index, coefficients, coefficients, free) for e in equations]
        left = (jnp.abs(r.residual) - ROUNDINGS * r.rounding for r in rows)
        return jnp.stack([jnp.maximum(max_of(x), 0.0) for x in left])

    with jax.default_matmul_precision("highest"):
        return each_element(worst, box).T


def linearise(
    equation: SlabEquation,
    box: Box,
    index: Int[Array, ""],
    coefficients: Float[Array, "elements across along components"],
    doubt: Float[Array, "elements across along components"],
    free: Int[Array, " free"],
) -> Rows:
    """A residual about the present u, at the equation's points of one element."""

    def both(jet: Array, point: Array) -> tuple[Array, Array]:
        def twice(jet: Array) -> tuple[Array, Array]:
            rows = equation.at(jet, point)
            return rows, rows

        slope, rows = jax.jacfwd(twice, has_aux=True)(jet)
        return rows, slope

    low, length = box.edges[index], box.edges[index + 1] - box.edges[index]
    both_u = jnp.stack([coefficients[index], doubt[index]])
    both_u = both_u * jnp.broadcast_to(box.units, both_u.shape)
    coefficients = coefficients[index]
    num = equation.components or 1
    factors, jets = [], []
    for derivative, block in equation.sources:
        own = derivative[equation.axis]
        others = derivative[: equation.axis] + derivative[equation.axis + 1 :]
        along = (2 / length) ** own * equation.along.values[own]
        across = jnp.ones((1, 1), coefficients.dtype)
        for order, table, span in zip(others, equation.across, box.spans, strict=True):
            across = jnp.kron(across, table.values[order] * (2 / span) ** order)
        factors.append((across[:, free], along))
        part = both_u[..., block * num : (block + 1) * num]
        jets.append(jnp.einsum("nq,uqpc,mp->unmc", across, part, along))

    points = _points(equation, box, low, length)
    jet, doubts = jnp.stack(jets, axis=-2)
    values, slopes = jax.vmap(jax.vmap(both))(jet, points)
    terms = slopes.reshape(*values.shape, *jet.shape[2:])
    doubts = jnp.sum(terms * doubts[:, :, None], axis=(3, 4))
    rounding = jnp.sum(jnp.abs(terms * jet[:, :, None]), axis=(3, 4)) * jnp.finfo(jet.dtype).eps
    num_blocks = coefficients.shape[-1] // num
    blocks: list[list[Array]] = [[] for _ in range(num_blocks)]
    for k, (across, along) in enumerate(factors):
        block = equation.sources[k][1]
        of_u = slopes[..., k, :]
        unit = box.units[block * num : (block + 1) * num]
        of_u = of_u * jnp.broadcast_to(unit, of_u.shape)
        blocks[block].append(jnp.einsum("nmrc,nq,mp->nmrcqp", of_u, across, along))
    shape = (*slopes.shape[:3], num, free.size, coefficients.shape[1])
    empty = jnp.zeros(shape, coefficients.dtype)
    slope = jnp.concatenate([sum(parts, empty) for parts in blocks], axis=3)

    size = jnp.sqrt(jnp.sum(slope**2, axis=(-3, -2, -1)))
    weights = jnp.ones((1,), size.dtype)
    for table in equation.across:
        weights = jnp.kron(weights, table.weights)
    weights = jnp.sqrt(weights[:, None] * equation.along.weights[None])[..., None] / size
    slope = slope * weights[..., None, None, None]
    flat = ((x * weights).ravel() for x in (rounding, doubts))
    return Rows((values * weights).ravel(), slope.reshape(-1, *slope.shape[3:]), *flat)


def _points(
    equation: SlabEquation, box: Box, low: Array, length: Array
) -> Float[Array, "across along dim"]:
    """The coordinates of an element's points."""
    along = low + (equation.along.points + 1) * length / 2
    grids = [
        low + (table.points + 1) * span / 2
        for table, low, span in zip(equation.across, box.lows, box.spans, strict=True)
    ]
    across = [grid.ravel() for grid in jnp.meshgrid(*grids, indexing="ij")]
    shape = math.prod(grid.size for grid in grids), along.size
    columns = [jnp.broadcast_to(x[:, None], shape) for x in across]
    columns.insert(equation.axis, jnp.broadcast_to(along[None], shape))
    return jnp.stack(columns, axis=-1)


def each_element(function: Callable[[Array], T], box: Box) -> T:
    """The function's values for all elements; zero where the buffer holds no element."""
    zero = jnp.zeros((), box.count.dtype)
    size = box.edges.size - 1
    empty = jax.tree.map(
        lambda x: jnp.zeros((size, *x.shape), x.dtype), jax.eval_shape(function, zero)
    )

    def body(index: Array, rows: T) -> T:
        return jax.tree.map(lambda all, x: all.at[index].set(x), rows, function(index))

    return jax.lax.fori_loop(zero, box.count, body, empty)

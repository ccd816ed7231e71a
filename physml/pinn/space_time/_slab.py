"""One slab of space and time: networks on elements side by side, fitted to a residual."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from physml.pinn.space_time._jets import Derivative, PointResidual, stacked, taylor


class Table(eqx.Module):
    """The functions of one axis at some points: derivatives in the scaled coordinate s."""

    points: Float[Array, " points"]  # s
    weights: Float[Array, " points"]  # of quadrature
    values: Float[Array, "derivatives points functions"]


class Equation(eqx.Module):
    """A residual at points of the slab, on every element."""

    residual: PointResidual = eqx.field(static=True)
    coordinates: str = eqx.field(static=True)
    components: int | None = eqx.field(static=True)
    derivatives: tuple[Derivative, ...] = eqx.field(static=True)
    # Where each derivative is found: that of a later block of components, in a system of first
    # order in time.
    sources: tuple[tuple[Derivative, int], ...] = eqx.field(static=True)
    axis: int = eqx.field(static=True)  # the coordinate that is cut into elements
    along: Table  # of that coordinate
    across: tuple[Table, ...]  # of the others, in their order

    def at(self, jet: Float[Array, "derivatives components"], point: Float[Array, " dim"]) -> Array:
        """The residual's rows, from the derivatives of u at a point."""
        jet = jet[:, 0] if self.components is None else jet
        u = taylor(self.coordinates, self.derivatives, jet, point)
        return stacked(self.residual(u, *point))


class System(NamedTuple):
    """All that the solution of a slab is asked to fulfil."""

    inside: tuple[Equation, ...]  # on every element
    left: tuple[Equation, ...]  # at the first edge
    right: tuple[Equation, ...]  # at the last
    order: int = 1  # of the derivatives in which neighbours agree, and zero
    periodic: bool = False  # the first edge is the last


class Box(NamedTuple):
    """Where the slab lies; the last edges may be missing, their elements are left alone."""

    count: Int[Array, ""]  # of elements
    edges: Float[Array, " edges"]
    lows: Float[Array, " others"]  # of the other axes
    spans: Float[Array, " others"]


class Fit(NamedTuple):
    """The coefficients found for a slab."""

    coefficients: Float[Array, "elements across along components"]
    converged: Bool[Array, ""]
    num_iterations: Int[Array, ""]


class Rows(NamedTuple):
    """A linearised residual, each row divided by the size of its slope in the coefficients."""

    residual: Float[Array, " rows"]  # in units of u
    slope: Float[Array, "rows components free along"]


@eqx.filter_jit
def fit(
    system: System,
    box: Box,
    start: Float[Array, "elements across along components"],
    free: Int[Array, " free"],
    max_steps: int,
) -> Fit:
    r"""Find the coefficients that make all residuals vanish, by Gauss-Newton.

    On each element u is a tensor product of the functions of all axes. Neighbours share their
    value and the derivatives below the order m at the edge, so that u is $C^{m-1}$ whatever the
    coefficients. The least-squares problem for a correction is condensed as finite elements are:
    an orthogonal triangulation of each element's rows leaves some that hold edge unknowns alone
    (their number is twice that of one edge), a chain of small ones leaves those of the two ends,
    and substitution leads back. No product of a matrix with its transpose is formed.

    Args:
        system: the residuals.
        box: where.
        start: the first guess.
        free: which functions across are sought; `start` gives the rest.
        max_steps: after so many steps it has not converged.
    """

    def correct(state: tuple) -> tuple:
        coefficients, last, _, count = state
        change = _gauss_newton_step(system, box, coefficients, free)
        size = jnp.max(jnp.abs(change)) / jnp.max(jnp.abs(coefficients)).clip(tiny)
        return coefficients.at[:, free].add(change), size, last, count + 1

    def unfinished(state: tuple) -> Array:
        _, size, last, count = state
        stalled = (size > 0.5 * last) & (count > 2) & (size < 1e-6)
        return (count < max_steps) & (size > accuracy) & ~stalled

    tiny = jnp.finfo(start.dtype).tiny
    accuracy = 1e3 * float(jnp.finfo(start.dtype).eps)
    infinite = jnp.asarray(jnp.inf, start.dtype)
    with jax.default_matmul_precision("highest"):
        state = (start, infinite, infinite, jnp.asarray(0))
        coefficients, size, _, count = jax.lax.while_loop(unfinished, correct, state)
    return Fit(coefficients, size < accuracy**0.5, count)


@eqx.filter_jit
def defects(
    equations: tuple[Equation, ...],
    box: Box,
    coefficients: Float[Array, "elements across along components"],
    free: Int[Array, " free"],
) -> Float[Array, "equations elements"]:
    """The largest residual of each equation on each element, in units of u.

    A residual is divided by the size of its slope in the coefficients of the (orthonormal) basis:
    it is about the least change of u that removes it.
    """

    def worst(index: Array) -> Array:
        rows = [linearise(e, box, index, coefficients, free) for e in equations]
        return jnp.stack([jnp.max(jnp.abs(r.residual)) for r in rows])

    with jax.default_matmul_precision("highest"):
        return _each_element(worst, box).T


def linearise(
    equation: Equation,
    box: Box,
    index: Int[Array, ""],
    coefficients: Float[Array, "elements across along components"],
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
        part = coefficients[..., block * num : (block + 1) * num]
        jets.append(jnp.einsum("nq,qpc,mp->nmc", across, part, along))

    points = _points(equation, box, low, length)
    values, slopes = jax.vmap(jax.vmap(both))(jnp.stack(jets, axis=-2), points)
    num_blocks = coefficients.shape[-1] // num
    blocks: list[Any] = [[] for _ in range(num_blocks)]
    for k, (across, along) in enumerate(factors):
        part = jnp.einsum("nmrc,nq,mp->nmrcqp", slopes[..., k, :], across, along)
        blocks[equation.sources[k][1]].append(part)
    shape = (*slopes.shape[:3], num, free.size, coefficients.shape[1])
    empty = jnp.zeros(shape, coefficients.dtype)
    slope = jnp.concatenate([sum(parts, empty) for parts in blocks], axis=3)

    size = jnp.sqrt(jnp.sum(slope**2, axis=(-3, -2, -1)))
    weights = jnp.ones((1,), size.dtype)
    for table in equation.across:
        weights = jnp.kron(weights, table.weights)
    weights = jnp.sqrt(weights[:, None] * equation.along.weights[None])[..., None] / size
    slope = slope * weights[..., None, None, None]
    return Rows((values * weights).ravel(), slope.reshape(-1, *slope.shape[3:]))


def _points(
    equation: Equation, box: Box, low: Array, length: Array
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


def _each_element(function: Callable[[Array], Any], box: Box) -> Any:
    """The function's values for all elements; zero where there is none."""
    zero = jnp.zeros((), box.count.dtype)
    size = box.edges.size - 1
    empty = jax.tree.map(
        lambda x: jnp.zeros((size, *x.shape), x.dtype), jax.eval_shape(function, zero)
    )

    def body(index: Array, rows: Any) -> Any:
        return jax.tree.map(lambda all, x: all.at[index].set(x), rows, function(index))

    return jax.lax.fori_loop(zero, box.count, body, empty)


def _gauss_newton_step(
    system: System, box: Box, coefficients: Array, free: Array
) -> Float[Array, "elements free along components"]:
    order = system.order
    num_bubbles = coefficients.shape[2] - 2 * order
    edge = coefficients.shape[3] * free.size * order
    inner = coefficients.shape[3] * free.size * num_bubbles
    span = box.edges[box.count] - box.edges[0]

    def scales(index: Array) -> Array:
        # Edge unknowns are derivatives in units of the whole domain, the same on both sides.
        ratio = (box.edges[index + 1] - box.edges[index]) / span
        return jnp.stack([ratio**i for i in range(order)])

    def columns(equations: tuple[Equation, ...], index: Array) -> Array:
        """The rows of some equations: unknowns inside, at the left edge, at the right; residual."""
        parts = []
        for equation in equations:
            rows = linearise(equation, box, index, coefficients, free)
            split = jnp.split(rows.slope, [num_bubbles, num_bubbles + order], axis=-1)
            split = [split[0], *(_scaled(side, scales(index)) for side in split[1:])]
            flat = [part.reshape(rows.residual.size, -1) for part in split]
            parts.append(jnp.concatenate([*flat, -rows.residual[:, None]], axis=1))
        none = jnp.zeros((0, inner + 2 * edge + 1), coefficients.dtype)
        return jnp.concatenate([none, *parts])

    def condense(index: Array) -> tuple[Array, Array]:
        triangle = _triangle(columns(system.inside, index), inner + 2 * edge)
        return triangle[:inner], triangle[inner:, inner:]

    last = box.count - 1
    triangles, condensed = _each_element(condense, box)
    first, final = columns(system.left, jnp.zeros_like(last)), columns(system.right, last)
    ends = jnp.concatenate([first[:, inner:], final[:, inner:]])
    edges = _chain(condensed, ends, box.count, system.periodic)  # (elements + 1, edge)

    def shaped(x: Array) -> Array:
        return x.reshape(coefficients.shape[3], free.size, -1)

    def substitute(index: Array) -> Array:
        left, right = edges[index], edges[index + 1]
        triangle = triangles[index]
        known = triangle[:, -1] - triangle[:, inner:-1] @ jnp.concatenate([left, right])
        bubbles = jax.scipy.linalg.solve_triangular(triangle[:, :inner], known)
        states = [_scaled(shaped(x), scales(index)) for x in (left, right)]
        return jnp.moveaxis(jnp.concatenate([shaped(bubbles), *states], axis=-1), 0, -1)

    return _each_element(substitute, box)


def _scaled(array: Float[Array, "*rows columns"], factors: Float[Array, " columns"]) -> Array:
    return array * jnp.broadcast_to(factors, array.shape)


def _triangle(matrix: Float[Array, "rows columns"], size: int) -> Array:
    """The first `size` rows of R in matrix = Q R; zeros where the matrix has fewer."""
    triangle = jnp.linalg.qr(matrix, mode="r")[:size]
    return jnp.pad(triangle, [(0, size - triangle.shape[0]), (0, 0)])


def _chain(
    condensed: Float[Array, "elements rows columns"],
    ends: Float[Array, "conditions columns"],
    count: Int[Array, ""],
    periodic: bool,
) -> Float[Array, "elements+1 edge"]:
    """Least squares in the unknowns of all edges; each block of rows holds those of two.

    Eliminated one after another but for the first and the last, whose few rows are solved with
    the conditions at the ends by a singular value decomposition.
    """
    size = condensed.shape[2] // 2

    def eliminate(index: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        # The carry holds the first edge, the present one and the right-hand side.
        carry, kept = state
        first, here, known = jnp.split(carry, [size, 2 * size], axis=1)
        upper = jnp.concatenate([here, first, jnp.zeros_like(first), known], axis=1)
        here, after, known = jnp.split(condensed[index], [size, 2 * size], axis=1)
        lower = jnp.concatenate([here, jnp.zeros_like(after), after, known], axis=1)
        triangle = _triangle(jnp.concatenate([upper, lower]), 3 * size)
        return triangle[size:, size:], kept.at[index].set(triangle[:size])

    one = jnp.ones_like(count)
    kept = jnp.zeros((len(condensed), size, 3 * size + 1), condensed.dtype)
    carry, kept = jax.lax.fori_loop(one, count, eliminate, (condensed[0], kept))
    # The conditions' own columns are the first edge's and the last one's.
    rows = jnp.concatenate([carry, ends])
    matrix, known = rows[:, :-1], rows[:, -1]
    if periodic:
        matrix = matrix[:, :size] + matrix[:, size:]
    norms = jnp.linalg.norm(matrix, axis=0)
    norms = jnp.where(norms > 0, norms, 1.0)
    solution = jnp.linalg.lstsq(_scaled(matrix, 1 / norms), known)[0] / norms
    first, final = (solution, solution) if periodic else jnp.split(solution, 2)

    def substitute(step: Array, edges: Array) -> Array:
        index = count - step
        rows = kept[index]
        known = rows[:, -1] - rows[:, size : 2 * size] @ first
        known = known - rows[:, 2 * size : -1] @ edges[index + 1]
        return edges.at[index].set(jax.scipy.linalg.solve_triangular(rows[:, :size], known))

    edges = jnp.zeros((len(condensed) + 1, size), condensed.dtype)
    edges = edges.at[0].set(first).at[count].set(final)
    return jax.lax.fori_loop(one, count, substitute, edges)

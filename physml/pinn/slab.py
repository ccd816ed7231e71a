"""One slab of space and time: networks on elements side by side, fitted to a residual."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from physml.pinn.jets import Derivative, PointResidual, stacked, taylor


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
    axis: int = eqx.field(static=True)  # the coordinate that is cut into elements
    along: Table  # of that coordinate
    across: tuple[Table, ...]  # of the others, in their order

    def at(self, jet: Float[Array, "derivatives components"], point: Float[Array, " dim"]) -> Array:
        """The residual's rows, from the derivatives of u at a point."""
        jet = jet[:, 0] if self.components is None else jet
        u = taylor(self.coordinates, self.derivatives, jet, point)
        return stacked(self.residual(u, *point))


class Box(NamedTuple):
    """Where the slab lies."""

    edges: Float[Array, " elements+1"]
    lows: Float[Array, " others"]  # of the other axes
    widths: Float[Array, " others"]


class Fit(NamedTuple):
    """The coefficients found for a slab, and what its residual says of them."""

    coefficients: Float[Array, "elements across along components"]
    scale: Float[Array, ""]  # max |u| at the points
    converged: Bool[Array, ""]
    num_iterations: Int[Array, ""]


class Rows(NamedTuple):
    """A linearised residual, each row divided by the size of its slope in the coefficients."""

    residual: Float[Array, "elements rows"]  # in units of u
    slope: Float[Array, "elements rows components free along"]


@eqx.filter_jit
def fit(
    equations: tuple[Equation, ...],
    left: tuple[Equation, ...],
    right: tuple[Equation, ...],
    box: Box,
    start: Float[Array, "elements across along components"],
    free: Int[Array, " free"],
    order: int,
    periodic: bool,
    max_iterations: int,
) -> Fit:
    r"""Find the coefficients that make all residuals vanish, by Gauss-Newton.

    On each element u is a tensor product of the functions of all axes. Neighbours share their
    value and the derivatives below the order m at the edge, so that u is $C^{m-1}$ whatever the
    coefficients. A least-squares problem for the corrections is condensed as finite elements are:
    an orthogonal triangulation of each element's rows leaves some that hold edge unknowns alone
    (their number is twice that of one edge), a chain of small ones leaves those of the two ends,
    and substitution leads back. No product of a matrix with its transpose is formed.

    Args:
        equations: the residuals on all elements.
        left, right: the conditions at the first and the last edge.
        start: the first guess.
        free: which functions across are sought; `start` gives the rest.
        order: m.
        periodic: the first edge is the last.
    """

    def correct(state: tuple) -> tuple:
        coefficients, last, _, count = state
        change = _gauss_newton_step(
            equations, left, right, box, coefficients, free, order, periodic
        )
        size = jnp.max(jnp.abs(change)) / jnp.max(jnp.abs(coefficients + 0.0)).clip(tiny)
        return coefficients.at[:, free].add(change), size, last, count + 1

    def unfinished(state: tuple) -> Array:
        _, size, last, count = state
        stalled = (size > 0.5 * last) & (count > 2) & (size < 1e-6)
        return (count < max_iterations) & (size > accuracy) & ~stalled

    dim = len(equations[0].coordinates)
    tiny = jnp.finfo(start.dtype).tiny
    accuracy = 1e3 * float(jnp.finfo(start.dtype).eps)
    infinite = jnp.asarray(jnp.inf, start.dtype)
    with jax.default_matmul_precision("highest"):
        state = (start, infinite, infinite, jnp.asarray(0))
        coefficients, size, _, count = jax.lax.while_loop(unfinished, correct, state)
        scale = jnp.max(jnp.abs(_jets(equations[0], box, coefficients, ((0,) * dim,))[1]))
    return Fit(coefficients, scale, size < accuracy**0.5, count)


@eqx.filter_jit
def defects(
    equations: tuple[Equation, ...],
    box: Box,
    coefficients: Float[Array, "elements across along components"],
    free: Int[Array, " free"],
) -> Float[Array, " elements"]:
    """The largest residual of each element, in units of u.

    A residual is divided by the size of its slope in the coefficients of the (orthonormal) basis:
    it is about the least change of u that removes it.
    """
    with jax.default_matmul_precision("highest"):
        rows = [linearise(e, box, coefficients, free).residual for e in equations]
    return jnp.max(jnp.abs(jnp.concatenate(rows, axis=1)), axis=1)


def linearise(
    equation: Equation,
    box: Box,
    coefficients: Float[Array, "elements across along components"],
    free: Int[Array, " free"],
) -> Rows:
    """A residual about the present u, at the equation's points of every element."""

    def both(jet: Array, point: Array) -> tuple[Array, Array]:
        return equation.at(jet, point), jax.jacfwd(equation.at)(jet, point)

    factors, jets = _jets(equation, box, coefficients, equation.derivatives)
    values, slopes = jax.vmap(jax.vmap(jax.vmap(both)))(jets, _points(equation, box))
    parts = [
        jnp.einsum("enmrc,nq,emp->enmrcqp", slopes[..., k, :], across[:, free], along)
        for k, (across, along) in enumerate(factors)
    ]
    slope = sum(parts[1:], parts[0])
    size = jnp.sqrt(jnp.sum(slope**2, axis=(-3, -2, -1)))
    weights = jnp.ones((1,), size.dtype)
    for table in equation.across:
        weights = jnp.kron(weights, table.weights)
    weights = jnp.sqrt(weights[:, None, None] * equation.along.weights[:, None]) / size
    shape = values.shape[0], math.prod(values.shape[1:])
    slope = (slope * weights[..., None, None, None]).reshape(*shape, *slope.shape[4:])
    return Rows((values * weights).reshape(shape), slope)


def _points(equation: Equation, box: Box) -> Float[Array, "elements across along dim"]:
    """The coordinates of all points."""
    starts, lengths = box.edges[:-1, None], jnp.diff(box.edges)[:, None]
    along = starts + (equation.along.points + 1) * lengths / 2
    grids = [
        low + (table.points + 1) * width / 2
        for table, low, width in zip(equation.across, box.lows, box.widths, strict=True)
    ]
    across = [grid.ravel() for grid in jnp.meshgrid(*grids, indexing="ij")]
    shape = along.shape[0], math.prod(grid.size for grid in grids), along.shape[1]
    columns = [jnp.broadcast_to(x[:, None], shape) for x in across]
    columns.insert(equation.axis, jnp.broadcast_to(along[:, None], shape))
    return jnp.stack(columns, axis=-1)


def _jets(
    equation: Equation, box: Box, coefficients: Array, derivatives: tuple[Derivative, ...]
) -> tuple[list[tuple[Array, Array]], Float[Array, "elements across along derivatives components"]]:
    """Derivatives of u at all points, and of the functions across and along that make it up."""
    lengths = jnp.diff(box.edges)
    factors = []
    for derivative in derivatives:
        own = derivative[equation.axis]
        others = derivative[: equation.axis] + derivative[equation.axis + 1 :]
        along = ((2 / lengths) ** own)[:, None, None] * equation.along.values[own]
        across = jnp.ones((1, 1), coefficients.dtype)
        for order, table, width in zip(others, equation.across, box.widths, strict=True):
            across = jnp.kron(across, table.values[order] * (2 / width) ** order)
        factors.append((across, along))
    jets = [jnp.einsum("nq,eqpc,emp->enmc", a, coefficients, b) for a, b in factors]
    return factors, jnp.stack(jets, axis=-2)


def _gauss_newton_step(
    equations, left, right, box, coefficients, free, order, periodic
) -> Float[Array, "elements free along components"]:
    num_functions = coefficients.shape[2]
    num_bubbles = num_functions - 2 * order
    lengths = jnp.diff(box.edges)
    # Edge unknowns are derivatives in units of the whole domain, the same on both sides.
    scales = (lengths / jnp.sum(lengths))[:, None] ** jnp.arange(order)

    def split(rows: Rows, scales: Array) -> tuple[Array, Array, Array, Array]:
        bubbles, first, second = jnp.split(
            rows.slope, [num_bubbles, num_bubbles + order], axis=-1
        )
        shape = rows.residual.shape
        edge = scales[:, None, None, None]
        return (
            bubbles.reshape(*shape, -1),
            (first * edge).reshape(*shape, -1),
            (second * edge).reshape(*shape, -1),
            -rows.residual[..., None],
        )

    def linearised(equation: Equation) -> Rows:
        return linearise(equation, box, coefficients, free)

    parts = [split(linearised(e), scales) for e in equations]
    matrix = jnp.concatenate([jnp.concatenate(part, axis=-1) for part in parts], axis=1)
    inner, edge = parts[0][0].shape[-1], parts[0][1].shape[-1]
    triangles = _triangle(matrix, inner + 2 * edge)
    condensed = triangles[:, inner:, inner:]  # (elements, 2 edge, 2 edge + 1)

    ends = [split(Rows(*(x[:1] for x in linearised(e))), scales[:1]) for e in left]
    ends = [jnp.concatenate([f, 0 * s, r], axis=-1)[0] for _, f, s, r in ends]
    others = [split(Rows(*(x[-1:] for x in linearised(e))), scales[-1:]) for e in right]
    ends += [jnp.concatenate([0 * f, s, r], axis=-1)[0] for _, f, s, r in others]
    edges = _chain(condensed, ends, periodic)  # (elements + 1, edge)

    both = jnp.concatenate([edges[:-1], edges[1:]], axis=1)[..., None]
    known = triangles[:, :inner, -1:] - triangles[:, :inner, inner:-1] @ both
    bubbles = jax.scipy.linalg.solve_triangular(triangles[:, :inner, :inner], known)

    def shaped(x: Array) -> Array:
        return x.reshape(x.shape[0], coefficients.shape[3], free.size, -1)

    states = [shaped(x) * scales[:, None, None] for x in (edges[:-1], edges[1:])]
    change = jnp.concatenate([shaped(bubbles[..., 0]), *states], axis=-1)
    return jnp.moveaxis(change, 1, -1)


def _triangle(matrix: Float[Array, "*batch rows columns"], size: int) -> Array:
    """The first `size` rows of R in matrix = Q R; zeros where the matrix has fewer."""
    triangle = jnp.linalg.qr(matrix, mode="r")[..., :size, :]
    missing = size - triangle.shape[-2]
    return jnp.pad(triangle, [(0, 0)] * (matrix.ndim - 2) + [(0, missing), (0, 0)])


def _chain(
    condensed: Float[Array, "elements rows columns"], ends: list[Array], periodic: bool
) -> Float[Array, "elements+1 edge"]:
    """Least squares in the unknowns of all edges; each block of rows holds those of two.

    Eliminated one after another but for the first and the last, whose few rows are solved with
    the conditions at the ends by a singular value decomposition.
    """
    size = condensed.shape[2] // 2

    def eliminate(carry: Array, rows: Array) -> tuple[Array, Array]:
        # The carry holds the first edge, the present one and the right-hand side.
        first, here, known = jnp.split(carry, [size, 2 * size], axis=1)
        upper = jnp.concatenate([here, first, jnp.zeros_like(first), known], axis=1)
        here, after, known = jnp.split(rows, [size, 2 * size], axis=1)
        lower = jnp.concatenate([here, jnp.zeros_like(after), after, known], axis=1)
        triangle = _triangle(jnp.concatenate([upper, lower]), 3 * size)
        return triangle[size:, size:], triangle[:size]

    carry, kept = jax.lax.scan(eliminate, condensed[0], condensed[1:])
    last = jnp.concatenate([carry, *ends])
    matrix, known = last[:, :-1], last[:, -1]
    if periodic:
        matrix = matrix[:, :size] + matrix[:, size:]
    norms = jnp.linalg.norm(matrix, axis=0)
    norms = jnp.where(norms > 0, norms, 1.0)
    solution = jnp.linalg.lstsq(matrix / norms, known)[0] / norms
    first, final = (solution, solution) if periodic else jnp.split(solution, 2)

    def substitute(after: Array, rows: Array) -> tuple[Array, Array]:
        known = rows[:, -1] - rows[:, size : 2 * size] @ first - rows[:, 2 * size : -1] @ after
        here = jax.scipy.linalg.solve_triangular(rows[:, :size], known)
        return here, here

    _, middle = jax.lax.scan(substitute, final, kept, reverse=True)
    return jnp.concatenate([first[None], middle, final[None]])

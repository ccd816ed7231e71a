"""One slab of space and time: networks on elements side by side, fitted to residuals."""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from physml._numerics.compiled import watched
from physml._numerics.units import max_of
from physml.pinn.space_time._equations import (
    Box,
    SlabEquation,
    SlabEquations,
    each_element,
    linearise,
)


class FittedSlab(NamedTuple):
    """The coefficients found for a slab."""

    coefficients: Float[Array, "elements across along components"]
    doubt: Float[Array, "elements across along components"]  # their possible error, to first order
    converged: Bool[Array, ""]
    num_iterations: Int[Array, ""]


@watched
@eqx.filter_jit
def fit_slab(
    equations: SlabEquations,
    box: Box,
    start: Float[Array, "elements across along components"],
    doubt: Float[Array, "elements across along components"],
    noise: Float[Array, " elements"],
    free: Int[Array, " free"],
    max_steps: Int[Array, ""],
) -> FittedSlab:
    r"""Find the coefficients that make all residuals vanish, by Gauss-Newton.

    On each element u is a tensor product of the functions of all axes. Neighbours share their
    value and the derivatives below the order m at the edge, so that u is $C^{m-1}$ whatever the
    coefficients. The least-squares problem for a correction is condensed as finite elements are:
    an orthogonal triangulation of each element's rows leaves a few rows with edge unknowns alone,
    a chain of small triangulations leaves the unknowns of the two ends, and substitution gives
    all others. No product of a matrix with its transpose is formed.

    The same triangulation carries a doubt through the slab: it solves the linearised equations for
    an error of `start` and for residuals of random signs, as large as rounding and `noise`.

    The iteration ends where the next change, about the square of the last, is below rounding.

    Args:
        equations: the residuals.
        box: where the slab lies.
        start: the first guess.
        doubt: the possible error of the coefficients that `start` gives and that are not sought.
        noise: the size of the residuals that remain, in the box's units, as all coefficients are.
        free: which functions across are sought; `start` gives the rest.
        max_steps: the number of steps after which the iteration has not converged.
    """

    def correct(state: tuple) -> tuple:
        coefficients, _, last, _, count = state
        change, carried = _gauss_newton_step(equations, box, coefficients, (doubt, noise), free)
        size = max_of(jnp.abs(change)) / max_of(jnp.abs(coefficients)).clip(tiny)
        doubted = doubt.at[:, free].add(carried)
        return coefficients.at[:, free].add(change), doubted, size, last, count + 1

    def unfinished(state: tuple) -> Array:
        *_, size, last, count = state
        stalled = (size > 0.5 * last) & (count > 2) & (size < 1e-6)
        return (count < max_steps) & (size > 0.01 * accuracy) & ~stalled

    tiny = jnp.finfo(start.dtype).tiny
    accuracy = (1e3 * float(jnp.finfo(start.dtype).eps)) ** 0.5
    infinite = jnp.asarray(jnp.inf, start.dtype)
    with jax.default_matmul_precision("highest"):
        state = (start, doubt, infinite, infinite, jnp.asarray(0))
        coefficients, doubt, size, _, count = jax.lax.while_loop(unfinished, correct, state)
    return FittedSlab(coefficients, doubt, size < accuracy, count)


def _gauss_newton_step(
    equations: SlabEquations,
    box: Box,
    coefficients: Array,
    doubts: tuple[Array, Array],
    free: Array,
) -> Float[Array, "2 elements free along components"]:
    """The change of the coefficients that solves the linearised least-squares problem.

    Beside it comes the change that errors of the other coefficients and of the residual would make.
    """
    doubt, noise = doubts
    order = equations.order
    num_bubbles = coefficients.shape[2] - 2 * order
    edge = coefficients.shape[3] * free.size * order
    inner = coefficients.shape[3] * free.size * num_bubbles
    span = box.edges[box.count] - box.edges[0]

    def scales(index: Array) -> Array:
        # Edge unknowns are derivatives in units of the whole domain, the same on both sides.
        ratio = (box.edges[index + 1] - box.edges[index]) / span
        return jnp.stack([ratio**i for i in range(order)])

    def columns(some: tuple[SlabEquation, ...], index: Array) -> Array:
        """Rows of equations: unknowns inside, at the left edge, at the right; right-hand sides."""
        parts = []
        for equation in some:
            rows = linearise(equation, box, index, coefficients, doubt, free)
            signs = jnp.asarray(_signs(rows.residual.size), coefficients.dtype)
            random = (rows.rounding + noise[index]) * jnp.roll(signs, 7 * index)
            split = jnp.split(rows.slope, [num_bubbles, num_bubbles + order], axis=-1)
            split = [split[0], *(_scaled(side, scales(index)) for side in split[1:])]
            flat = [part.reshape(rows.residual.size, -1) for part in split]
            known = -jnp.stack([rows.residual, rows.doubt + random], axis=1)
            parts.append(jnp.concatenate([*flat, known], axis=1))
        none = jnp.zeros((0, inner + 2 * edge + 2), coefficients.dtype)
        return jnp.concatenate([none, *parts])

    def condense(index: Array) -> tuple[Array, Array]:
        triangle = _triangle(columns(equations.inside, index), inner + 2 * edge)
        return triangle[:inner], triangle[inner:, inner:]

    last = box.count - 1
    triangles, condensed = each_element(condense, box)
    first, final = columns(equations.left, jnp.zeros_like(last)), columns(equations.right, last)
    ends = jnp.concatenate([first[:, inner:], final[:, inner:]])
    edges = _chain(condensed, ends, box.count, equations.periodic)  # (elements + 1, edge, 2)

    def shaped(x: Array) -> Array:
        return x.T.reshape(2, coefficients.shape[3], free.size, -1)

    def substitute(index: Array) -> Array:
        left, right = edges[index], edges[index + 1]
        triangle = triangles[index]
        known = triangle[:, -2:] - triangle[:, inner:-2] @ jnp.concatenate([left, right])
        bubbles = jax.scipy.linalg.solve_triangular(triangle[:, :inner], known)
        states = [_scaled(shaped(x), scales(index)) for x in (left, right)]
        return jnp.moveaxis(jnp.concatenate([shaped(bubbles), *states], axis=-1), 1, -1)

    return jnp.moveaxis(each_element(substitute, box), 1, 0)


@functools.cache
def _signs(num: int) -> np.ndarray:
    """Random numbers of both signs, with a mean square of 1; always the same."""
    return np.random.default_rng(0).choice([-1.0, 1.0], num)


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
) -> Float[Array, "elements+1 edge known"]:
    """Least squares in the unknowns of all edges; each block of rows holds those of two edges.

    The inner edges are eliminated one after another. The few rows that remain, of the first and
    the last edge, are solved with the conditions at the ends by a singular value decomposition.
    """
    size, num_known = (condensed.shape[2] - 2) // 2, 2

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
    kept = jnp.zeros((len(condensed), size, 3 * size + num_known), condensed.dtype)
    carry, kept = jax.lax.fori_loop(one, count, eliminate, (condensed[0], kept))
    # The conditions have the columns of the first edge and of the last.
    rows = jnp.concatenate([carry, ends])
    matrix, known = rows[:, :-num_known], rows[:, -num_known:]
    if periodic:
        matrix = matrix[:, :size] + matrix[:, size:]
    norms = jnp.linalg.norm(matrix, axis=0)
    norms = jnp.where(norms > 0, norms, 1.0)
    solution = jnp.linalg.lstsq(_scaled(matrix, 1 / norms), known)[0] / norms[:, None]
    first, final = (solution, solution) if periodic else jnp.split(solution, 2)

    def substitute(step: Array, edges: Array) -> Array:
        index = count - step
        rows = kept[index]
        known = rows[:, -num_known:] - rows[:, size : 2 * size] @ first
        known = known - rows[:, 2 * size : -num_known] @ edges[index + 1]
        return edges.at[index].set(jax.scipy.linalg.solve_triangular(rows[:, :size], known))

    edges = jnp.zeros((len(condensed) + 1, size, num_known), condensed.dtype)
    edges = edges.at[0].set(first).at[count].set(final)
    return jax.lax.fori_loop(one, count, substitute, edges)

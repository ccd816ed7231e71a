"""The Jacobian of a system of many components: dense, or in blocks along its diagonal."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int

from physml._numerics.compiled import constant
from physml._numerics.units import max_of

_LEAST_BLOCK = 16  # smaller ones cost as much
_FEWEST_BLOCKS = 6  # with fewer, dense matrices cost as much

Tangent = Callable[[Float[Array, " dim"]], Float[Array, " dim"]]


class Band(NamedTuple):
    """An order of the components in which only neighbouring blocks depend on each other.

    Attributes:
        order: the components in this order; `dim` stands for none, to fill the last block.
        places: the place of each component in it.
        size: an array of the length of a block.
    """

    order: Int[Array, " places"]
    places: Int[Array, " dim"]
    size: Float[Array, " block"]


class Blocks(NamedTuple):
    """A Jacobian in blocks: how each block depends on the one before, on itself and on the next.

    The components are in the order of `band`.
    """

    before: Float[Array, "blocks block block"]
    own: Float[Array, "blocks block block"]
    after: Float[Array, "blocks block block"]
    band: Band


class DenseFactors(NamedTuple):
    """The LU factors of $1 - h \\mu J$ for each mu."""

    lu: Inexact[Array, "mus dim dim"]
    permutation: Int[Array, "mus dim"]


class BlockFactors(NamedTuple):
    """The factors of $1 - h \\mu J$ for each mu, by elimination of blocks.

    Attributes:
        inverses: of the blocks on the diagonal, after elimination.
        scaled: $h \\mu$.
        jacobian: J.
    """

    inverses: Inexact[Array, "mus blocks block block"]
    scaled: Inexact[Array, " mus"]
    jacobian: Blocks


def find_band(pattern: Bool[np.ndarray, "dim dim"]) -> Band | None:
    """The order by reverse Cuthill-McKee; None where dense matrices are as good.

    Args:
        pattern: which component's rate depends on which component.
    """
    from scipy.sparse import csr_array  # here, because they take time to load
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    dim = len(pattern)
    either = pattern | pattern.T
    order = reverse_cuthill_mckee(csr_array(either), symmetric_mode=True)
    places = np.argsort(order)
    rows, columns = np.nonzero(either)
    width = int(np.max(np.abs(places[rows] - places[columns]), initial=0))
    block = max(width, _LEAST_BLOCK)
    if block * _FEWEST_BLOCKS > dim:
        return None
    filled = np.concatenate([order, np.full(-dim % block, dim)])
    return Band(constant(filled, np.int32), constant(places, np.int32), constant(np.zeros(block)))


def jacobian_of(tangent: Tangent, units: Float[Array, " dim"], band: Band | None) -> Array | Blocks:
    """The matrix of a linear function of states, each component in its unit."""
    dim = len(units)

    def weighted(direction: Array) -> Array:
        return tangent(units * direction) / units

    if band is None:
        return jax.vmap(weighted, out_axes=1)(jnp.eye(dim, dtype=units.dtype))
    block = len(band.size)
    # Columns three blocks apart share no row: they are found at once.
    colours = jnp.arange(len(band.order)) % (3 * block)
    seeds = (jnp.arange(3 * block)[:, None] == colours[band.places][None]).astype(units.dtype)
    products = jax.vmap(weighted, out_axes=1)(seeds)  # (component, colour)
    products = jnp.take(products, band.order, axis=0, mode="fill", fill_value=0.0)
    products = products.reshape(-1, block, 3, block)
    index = jnp.arange(len(products))
    parts = [products[index, :, (index + shift) % 3] for shift in (-1, 0, 1)]
    # The first block has none before it, the last none after it: their colours belong to others.
    before, own, after = parts
    return Blocks(before.at[0].set(0.0), own, after.at[-1].set(0.0), band)


def largest_real_part(jacobian: Array | Blocks) -> Float[Array, ""]:
    """A bound of the real parts of the eigenvalues, by Gershgorin's circles of rows and columns."""
    if isinstance(jacobian, Blocks):
        before, own, after = (jnp.abs(x) for x in jacobian[:3])
        diagonal = jnp.diagonal(jacobian.own, axis1=1, axis2=2)
        rows = (before + own + after).sum(2)
        columns = own.sum(1)
        columns = columns.at[:-1].add(before.sum(1)[1:]).at[1:].add(after.sum(1)[:-1])
    else:
        diagonal, sizes = jnp.diagonal(jacobian), jnp.abs(jacobian)
        rows, columns = sizes.sum(1), sizes.sum(0)
    own = diagonal - jnp.abs(diagonal)
    return jnp.minimum(max_of(own + rows), max_of(own + columns))


def factorise(
    jacobian: Array | Blocks, scaled: Inexact[Array, " mus"]
) -> DenseFactors | BlockFactors:
    """The factors of $1 - h \\mu J$ for each $h \\mu$ of `scaled`."""
    if not isinstance(jacobian, Blocks):
        identity = jnp.eye(len(jacobian), dtype=scaled.dtype)[None]
        jacobians = jacobian.astype(scaled.dtype)[None]
        lu, _, permutation = jax.lax.linalg.lu(identity - scaled[:, None, None] * jacobians)
        return DenseFactors(lu, permutation)
    block = len(jacobian.band.size)
    identity = jnp.eye(block, dtype=scaled.dtype)[None]
    factors = scaled[:, None, None]

    def eliminate(last: tuple, parts: tuple) -> tuple[tuple, Array]:
        inverse_before, after_before = last
        before, own, after = (x.astype(scaled.dtype)[None] for x in parts)
        coupling = factors**2 * (before @ inverse_before @ after_before)
        inverse = jnp.linalg.inv(identity - factors * own - coupling)
        return (inverse, after), inverse

    start = jnp.zeros((len(scaled), block, block), scaled.dtype), jnp.zeros_like(identity)
    _, inverses = jax.lax.scan(eliminate, start, jacobian[:3])
    return BlockFactors(jnp.moveaxis(inverses, 0, 1), scaled, jacobian)


def solver(factors: DenseFactors | BlockFactors) -> tuple[tuple, Callable[..., Array]]:
    """Per-mu arrays with a leading axis, and the function of one mu's arrays and a right side."""
    if isinstance(factors, DenseFactors):
        return tuple(factors), _solve_dense
    return (factors.inverses, factors.scaled), functools.partial(_solve_blocks, factors.jacobian)


def resolve(
    jacobian: Array | Blocks, h: Float[Array, ""], known: Float[Array, "many dim points"]
) -> Float[Array, "many dim points"]:
    """$(1 - h J)^{-1}$ times each state."""
    arrays, solve_one = solver(factorise(jacobian, h[None]))
    one = functools.partial(solve_one, jax.tree.map(lambda x: x[0], arrays))
    return jax.vmap(jax.vmap(one, 1, 1))(known)


def _solve_dense(arrays: tuple, known: Inexact[Array, " dim"]) -> Inexact[Array, " dim"]:
    lu, permutation = arrays
    triangular = functools.partial(jax.lax.linalg.triangular_solve, lu, left_side=True)
    half_way = triangular(known[permutation][:, None], lower=True, unit_diagonal=True)
    return triangular(half_way, lower=False)[:, 0]


def _solve_blocks(
    jacobian: Blocks, arrays: tuple, known: Inexact[Array, " dim"]
) -> Inexact[Array, " dim"]:
    inverses, scaled = arrays
    band = jacobian.band
    known = jnp.take(known, band.order, mode="fill", fill_value=0.0).reshape(len(inverses), -1)
    parts = jacobian.before, jacobian.after
    before, after = (scaled * part.astype(scaled.dtype) for part in parts)

    def down(last: Array, step: tuple) -> tuple[Array, Array]:
        known, inverse, before = step
        new = inverse @ (known + before @ last)
        return new, new

    def up(next: Array, step: tuple) -> tuple[Array, Array]:
        half_way, inverse, after = step
        new = half_way + inverse @ (after @ next)
        return new, new

    zero = jnp.zeros_like(known[0])
    _, half_way = jax.lax.scan(down, zero, (known, inverses, before))
    _, solution = jax.lax.scan(up, zero, (half_way, inverses, after), reverse=True)
    return solution.ravel()[band.places]

"""Linear least squares in the last layer: blocked QR, then an SVD of the triangle."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PyTree

from physml._numerics.blas import single_threaded_blas
from physml._numerics.calls import answer, as_traced, ask, checked, trace
from physml._numerics.checks import require_count, require_finite
from physml._numerics.compiled import compiled
from physml._numerics.parts import as_arrays


class Readout(eqx.Module):
    """The weights of a linear readout and how well they are determined."""

    weights: Float[Array, "features outputs"]
    rank: Int[Array, ""]  # singular values that were kept
    singular_values: Float[Array, " features"]  # of the features, descending
    residual_norm: Float[Array, " outputs"]  # 2-norm of features @ weights - targets


@checked
def readout(
    features: Float[Array | np.ndarray, "_ features"] | Callable[..., Array],
    targets: Float[Array | np.ndarray, "_ outputs"],
    *,
    inputs: PyTree = None,
    rcond: float | None = None,
    block_size: int | None = None,
    equilibrate: bool = False,
    refinements: int = 0,
) -> Readout:
    r"""The weights of least norm among those that minimise $\|F W - T\|$.

    The rows of (F, T) are reduced block by block to one triangle by Householder QR (TSQR),

    $$(F, T) = Q \begin{pmatrix} R & Q_1^T T \\ 0 & \rho \end{pmatrix},$$

    whose blocks' triangles are merged in pairs. Then W = pinv(R) Q_1^T T by an SVD of R, without
    the singular values below `rcond` times the largest. Q is never formed, and no more than a block
    and a few triangles are held at a time. Neither step squares the condition number, as the normal
    equations would. `equilibrate` brings columns of different size to norm one first; the weights
    are then those of least norm for these columns.

    Each refinement does the same with the remaining targets T - F W, and adds the weights it finds.
    Smooth features have singular values down to rounding; the solution's own rounding error then
    exceeds that of the targets by one or two digits, and one refinement brings it back.

    Args:
        features: the matrix F, or a function that maps a block of `inputs`, rows first, to its rows
            of F. The function may be a pytree or a bound method of one (`network.features`), whose
            arrays are then traced.
        targets: T, a column for each output; in the dtype of the features.
        inputs: pytree of arrays of the same number of rows, if `features` is a function.
        rcond: relative size of the smallest singular value that is kept; by default the number of
            features times the dtype's epsilon.
        block_size: rows taken at once; by default 8 times the number of features and outputs, where
            the work is an eighth more than that of one large QR.
        equilibrate: whether the columns of R are scaled to norm one before the SVD.
        refinements: how often the fit is repeated on its residual; each costs as much again.

    Raises:
        ValueError: if rows differ in number, there are none, `rcond` is not in [0, 1),
            `refinements` is negative, features are not a matrix, `inputs` are missing or given
            without a function, dtypes differ or are float64 while x64 is off, or features or
            targets are not finite.

    References:
        Golub and Van Loan, Matrix Computations (4th ed., 2013), section 5.3.8 on refinement;
        Demmel, Grigori, Hoemmen and Langou, Communication-optimal parallel and sequential QR and
        LU factorizations, SIAM J. Sci. Comput. 34 (2012).
    """
    if callable(features) == (inputs is None):
        raise ValueError(
            "inputs must be given if features are a function, and only then, got "
            f"{type(inputs).__name__}"
        )
    if callable(features):
        inputs = as_arrays("inputs", inputs)
        traced, _ = trace(Partial(_rows, features), jax.tree.map(lambda x: x[:1], inputs))
        function = as_traced(features, traced)
    else:
        function, inputs = _identity, as_arrays("features", features)
    targets = as_arrays("targets", targets)
    require_finite("targets", targets)
    lengths = sorted({x.shape[0] if x.ndim else 0 for x in [targets, *jax.tree.leaves(inputs)]})
    if len(lengths) != 1 or lengths[0] == 0:
        raise ValueError(f"targets and features must have one number of rows, got {lengths}")
    if rcond is not None and not 0 <= rcond < 1:
        raise ValueError(f"rcond must be at least 0 and less than 1, got {rcond}")
    if block_size is not None:
        require_count(block_size=block_size)
    require_count(0, refinements=refinements)
    arguments = (function, inputs, targets, block_size, rcond, equilibrate, refinements)
    program, _ = compiled(_readout, *arguments)
    with single_threaded_blas():
        fitted = jax.block_until_ready(program(*arguments))
    if not np.isfinite(fitted.singular_values).all():
        raise ValueError("features must be finite, got some that are infinite or NaN")
    return fitted


def _rows(function: Callable[..., object], block: PyTree) -> Array:
    rows = ask("features", "features(inputs)", function, block)
    return answer("features", "a matrix", rows)


def _readout(
    function: Callable[..., Array],
    inputs: PyTree,
    targets: Float[Array, "rows outputs"],
    block_size: int | None,
    rcond: float | None,
    equilibrate: bool,
    refinements: int,
) -> Readout:
    num_rows, num_outputs = targets.shape

    once = jax.jit(functools.partial(_rows, function))  # one trace for the shape and the loop
    row = jax.eval_shape(once, jax.tree.map(lambda x: x[:1], inputs))
    floating = jnp.issubdtype(targets.dtype, jnp.floating)
    if row.ndim != 2 or row.dtype != targets.dtype or not floating:
        raise ValueError(
            f"features must be a matrix of the targets' floating dtype, {targets.dtype}, got "
            f"{row.dtype} with {row.ndim} axes"
        )
    num_features = row.shape[1]
    columns = num_features + num_outputs
    size = min(8 * columns if block_size is None else block_size, num_rows)

    def solve(weights: Array) -> Readout:
        """The fit to what `weights` leave, added to them."""
        triangle = _reduced(once, inputs, targets, weights, size)
        return _solved(triangle, weights, rcond, equilibrate)

    first = jax.eval_shape(solve, jax.ShapeDtypeStruct((num_features, num_outputs), targets.dtype))
    empty = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), first)
    return jax.lax.fori_loop(0, 1 + refinements, lambda _, fitted: solve(fitted.weights), empty)


def _reduced(
    features: Callable[..., Array], inputs: PyTree, targets: Array, weights: Array, size: int
) -> Float[Array, "columns columns"]:
    """The triangle of (F, T - F W), from blocks of `size` rows."""
    num_rows, columns = targets.shape[0], sum(weights.shape)
    num_blocks = -(-num_rows // size)
    levels = num_blocks.bit_length()

    def absorb(i: Int[Array, ""], stack: Array) -> Array:
        # The last block starts early enough to be whole; rows seen before are set to zero.
        start = jnp.minimum(i * size, num_rows - size)
        x, t = jax.tree.map(
            lambda a: jax.lax.dynamic_slice_in_dim(a, start, size), (inputs, targets)
        )
        rows = features(x)
        new = (start + jnp.arange(size, dtype=start.dtype) >= i * size)[:, None]
        block = jnp.where(new, jnp.concatenate([rows, t - rows @ weights], axis=1), 0)

        # As in a binary counter, two triangles of equally many blocks are merged into one:
        # rounding errors grow with the number of levels, not with the number of blocks.
        def occupied(state: PyTree) -> Array:
            return (i >> state[0]) & 1 == 1

        def merge(state: PyTree) -> tuple[Array, Array]:
            level, triangle = state
            return level + 1, _triangle(jnp.concatenate([stack[level], triangle]))

        level, triangle = jax.lax.while_loop(occupied, merge, (0 * i, _triangle(block)))
        below = jnp.arange(levels, dtype=level.dtype)[:, None, None] < level
        return jnp.where(below, 0, stack).at[level].set(triangle)

    stack = jnp.zeros((levels, columns, columns), targets.dtype)
    stack = jax.lax.fori_loop(0, num_blocks, absorb, stack)
    return _triangle(stack.reshape(-1, columns))


def _solved(
    triangle: Float[Array, "columns columns"],
    weights: Float[Array, "features outputs"],
    rcond: float | None,
    equilibrate: bool,
) -> Readout:
    """Solve the least squares that a triangle stands for, and add the solution to the weights."""
    num_features = weights.shape[0]
    left, right = triangle[:num_features, :num_features], triangle[:, num_features:]
    norms = jnp.linalg.norm(left, axis=0) if equilibrate else jnp.ones_like(left[0])
    norms = jnp.where(norms > 0, norms, 1)
    u, s, vt = jnp.linalg.svd(left / norms[None, :])
    cutoff = (num_features * jnp.finfo(s.dtype).eps if rcond is None else rcond) * s[0]
    kept = (s > cutoff)[:, None]
    projected = u.T @ right[:num_features]
    found = vt.T @ jnp.where(kept, projected / jnp.where(kept, s[:, None], 1), 0)
    missed = jnp.concatenate([jnp.where(kept, 0, projected), right[num_features:]])
    return Readout(
        weights=weights + found / norms[:, None],
        rank=jnp.sum(kept),
        singular_values=s,
        residual_norm=jnp.linalg.norm(missed, axis=0),
    )


def _triangle(rows: Array) -> Array:
    """The (columns, columns) triangle of a QR decomposition, also where there are fewer rows."""
    triangle = jnp.linalg.qr(rows, mode="r")
    return jnp.pad(triangle, ((0, rows.shape[1] - triangle.shape[0]), (0, 0)))


def _identity(block: Array) -> Array:
    return block

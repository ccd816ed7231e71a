"""The weighted mean square of a residual: a loss for gradients, scaled blocks for Gauss-Newton."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PRNGKeyArray, PyTree, Scalar

from physml._numerics.calls import ask, checked
from physml._types import Loss, Residual

Weights = Mapping[str, int | float | Array]


@checked
def mean_square(residual: Residual, weights: Weights | None = None) -> Loss:
    r"""The weighted mean square of a residual, as a loss.

    $$L = \sum_b \frac{1}{n_b} \sum_i w_{b,i}\, r_{b,i}^2$$

    over the blocks b of the residual: the entries of the dict it returns, or the one array. A block
    that is itself a pytree counts as all its $n_b$ entries together.

    Args:
        residual: `residual(model, batch, key) -> blocks`, zero where the model is right.
        weights: for each block by name a number, or an array of the block's shape that weighs each
            entry; not negative. A block without a weight has weight 1.

    Returns:
        A loss `(model, batch, key) -> (value, aux)`. If the residual names its blocks, aux holds
        the unweighted mean square of each.

    Raises:
        ValueError: when called, if `weights` names a block that the residual does not have, or the
            residual returns an empty block.
    """
    return _MeanSquare(residual, dict(weights or {}))


class _MeanSquare(eqx.Module):
    residual: Residual
    weights: dict[str, int | float | Array]

    def __call__(
        self, model: PyTree, batch: PyTree, key: PRNGKeyArray | None
    ) -> tuple[Scalar, dict[str, Array]]:
        residual = ask_residual(self.residual, model, batch, key)
        blocks = _blocks(residual, self.weights)
        terms = [_mean_square(block, weight) for block, weight in blocks.values()]
        aux = {name: _mean_square(block, 1.0) for name, (block, _) in blocks.items()}
        return sum(terms[1:], terms[0]), aux if isinstance(residual, dict) else {}


def ask_residual(
    residual: Residual, model: PyTree, batch: PyTree, key: PRNGKeyArray | None
) -> PyTree[Array]:
    """The blocks that a user's residual answers.

    Raises:
        TypeError: it answers something else than real arrays; or as `calls.ask`.
    """
    found = ask("residual", "residual(model, batch, key)", residual, model, batch, key)
    for leaf in jax.tree.leaves(found, is_leaf=lambda leaf: leaf is None):
        if not (hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)):
            got = getattr(leaf, "dtype", type(leaf).__name__)
            raise TypeError(
                f"residual must return an array of real numbers, or a dict of them, got {got}"
            )
    return found


def scaled(residual: PyTree[Array], weights: Weights) -> list[PyTree[Array]]:
    r"""The blocks of a residual, scaled so that their sum of squares is their `mean_square`.

    $$\tilde r_{b,i} = r_{b,i} \sqrt{w_{b,i} / n_b}$$

    `least_squares` gives them to its solver, so that it minimises what gradient descent minimises.

    Raises:
        ValueError: as `mean_square`.
    """

    def scale(block: PyTree[Array], weight: ArrayLike) -> PyTree[Array]:
        factor = jnp.sqrt(weight / _size(block))
        return jax.tree.map(lambda leaf: factor * leaf, block)

    return [scale(block, weight) for block, weight in _blocks(residual, weights).values()]


def _blocks(
    residual: PyTree[Array], weights: Weights
) -> dict[str, tuple[PyTree[Array], ArrayLike]]:
    blocks = residual if isinstance(residual, dict) else {"residual": residual}
    unknown = sorted(set(weights) - set(blocks))
    if unknown:
        raise ValueError(
            f"weights must name blocks of the residual, {sorted(blocks)}, got {unknown}"
        )
    empty = [name for name, block in blocks.items() if _size(block) == 0]
    if empty or not blocks:
        raise ValueError(f"residual must return numbers, got none in {empty or 'any block'}")
    return {name: (block, weights.get(name, 1.0)) for name, block in blocks.items()}


def _mean_square(block: PyTree[Array], weight: ArrayLike) -> Scalar:
    sums = [jnp.sum(weight * jnp.square(leaf)) for leaf in jax.tree.leaves(block)]
    return sum(sums[1:], sums[0]) / _size(block)


def _size(block: PyTree[Array]) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(block))

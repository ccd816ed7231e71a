"""What holds for the weights of every architecture: their dtype, their norms, penalties, modes."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray, PyTree, Scalar

from physml._numerics.calls import checked, require_fields
from physml._numerics.checks import require_not_negative


def find_dtype(dtype: DTypeLike | None) -> jnp.dtype:
    """The dtype of a network's weights; None means JAX's default float (float64 under x64).

    Raises:
        ValueError: the dtype is no floating dtype, or float64 is asked for while x64 is off.
    """
    found = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    if not jnp.issubdtype(found, jnp.floating):
        raise ValueError(f"dtype must be a floating dtype, got {found}")
    if jax.dtypes.canonicalize_dtype(found) != found:
        raise ValueError(
            f"dtype must be float32 while x64 is off, got {found}: "
            'call jax.config.update("jax_enable_x64", True) first'
        )
    return found


@checked
def hidden_kernels(params: PyTree) -> PyTree:
    """Which parameters weight decay is to keep small: every matrix except the readout's.

    A mask for `optax.adamw(..., mask=nn.hidden_kernels)`. Small hidden weights make smooth
    features, and for smooth maps these are what a readout fitted afterwards needs.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.ndim > 1 and "readout" not in jax.tree_util.keystr(path), params
    )


@checked
def square_norm(model: PyTree) -> Scalar:
    r"""The sum of the squares of all the weights of a network, without biases and the like.

    $$\sum_l \lVert W_l \rVert^2$$

    over the trained matrices and filters. A loss plus lambda times this is L2 regularisation as
    Keras's `kernel_regularizer` has it in every layer; half its gradient is what weight decay
    subtracts.
    """
    return _over_kernels(jnp.square, model)


@checked
def absolute_norm(model: PyTree) -> Scalar:
    r"""The sum of the absolute values of all the weights of a network, those of `square_norm`.

    $$\sum_l \sum_{ij} |W_{l,ij}|$$

    A loss plus lambda times this is L1 regularisation, which makes weights vanish.
    """
    return _over_kernels(jnp.abs, model)


def _over_kernels(size: Callable[[Array], Array], model: PyTree) -> Scalar:
    kernels = [leaf for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)) if leaf.ndim > 1]
    return sum((jnp.sum(size(kernel)) for kernel in kernels[1:]), jnp.sum(size(kernels[0])))


class Regularised(eqx.Module):
    r"""A network and how strongly it is regularised; the strengths are not trained.

    A training loss L of such a model becomes, with kernels $W_l$,

    $$L(x + \sigma \xi) + \lambda_2 \sum_l \lVert W_l \rVert^2 + \lambda_1 \sum_{l,ij} |W_{l,ij}|,
    \qquad \xi \sim \mathcal N(0, 1).$$

    >>> model = nn.Regularised(nn.MLP(3, (), 1, rngs=nnx.Rngs(0)), l2=0.5)
    >>> bool(model.penalty() == 0.5 * nn.square_norm(model))
    True

    Attributes:
        network: an `nnx.Module`; calling the model calls it.
        l2: $\lambda_2$.
        l1: $\lambda_1$.
        noise: $\sigma$, in the units of the inputs.
    """

    network: Callable[..., PyTree]  # whatever network type the caller's loss needs
    l2: Float[Array, ""] | float = 0.0
    l1: Float[Array, ""] | float = 0.0
    noise: Float[Array, ""] | float = 0.0

    def __check_init__(self):
        require_fields(self)
        require_not_negative(l2=self.l2, l1=self.l1, noise=self.noise)

    def __call__(self, x: Array) -> Array:
        return self.network(x)

    def penalty(self) -> Scalar | float:
        """What is added to the loss; a strength that is the number 0 costs nothing."""
        terms = [(self.l2, square_norm), (self.l1, absolute_norm)]
        acting = (strength * norm(self.network) for strength, norm in terms if _acts(strength))
        return sum(acting, 0.0)

    def disturbed(self, x: Array, key: PRNGKeyArray | None) -> Array:
        """The inputs with noise; the key may be None if `noise` is the number 0."""
        if not _acts(self.noise):
            return x
        if key is None:
            raise ValueError("key must be given if noise is not 0, got None")
        return x + self.noise * jax.random.normal(key, x.shape, x.dtype)


def _acts(strength: Array | float) -> bool:
    return not (isinstance(strength, float | int) and strength == 0)


@checked
def set_evaluation(model: PyTree) -> None:
    """Switch off dropout, and let batch normalisation use its running statistics, in place.

    Args:
        model: a module, or a pytree that holds some.
    """
    for _, node in nnx.iter_graph(model):
        if isinstance(node, nnx.Module):
            node.eval()

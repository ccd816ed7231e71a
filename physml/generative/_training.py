"""Training an autoencoder by gradient descent, and its last layer by least squares."""

import os

import equinox as eqx
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from physml import fit as fitting
from physml._numerics.calls import checked
from physml.generative._codec import Codec, Network, Rows, cast, checked_rows
from physml.generative._variational import negative_bound
from physml.nn import Variational
from physml.results import RESULTS


class CodecFit(eqx.Module):
    """A trained code and how it came about.

    Attributes:
        codec: the result.
        before_refit: the code before least squares fitted its readout.
        training: what `fit.gradient` returned: the history, the result, the seconds.
    """

    codec: Codec
    before_refit: Codec
    training: fitting.Fit

    @property
    def result(self) -> RESULTS:
        """How the training ended. After `interrupted` the readout was not refitted."""
        return self.training.result


@checked
def fit_autoencoder(
    network: Network,
    train: Rows,
    valid: Rows | None = None,
    *,
    optimizer: optax.GradientTransformation,
    key: PRNGKeyArray,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = 256,
    refit: bool = True,
    patience: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | fitting.Callback = False,
) -> CodecFit:
    """Train an autoencoder by gradient descent, then fit its last layer by least squares.

    An `nn.Autoencoder` learns to give its input back, with the mean square error as its loss. An
    `nn.Variational` learns the evidence bound (see `evidence_bound`), and its last layer stays as
    it was trained, since the bound does not ask for the least error.

    The training runs in the dtype of the network's weights, everything else in that of the data.

    Args:
        network: the autoencoder. It is not changed.
        train: the data to learn from.
        valid: data for early stopping; the best network on them is kept.
        optimizer: any optax transformation.
        key: for the order of the batches and the noise.
        steps: optimizer steps.
        epochs: passes over the data; give either these or the steps.
        batch_size: rows a step; all of them if None.
        refit: whether to fit the readout of an `nn.Autoencoder` by least squares at the end.
        patience: validations without improvement before training stops.
        checkpoint: a folder from which the same call goes on, see `fit.gradient`.
        progress: True for a progress bar, or a callback.

    Raises:
        TypeError, ValueError: as `Codec.create` and `fit.gradient`.
    """
    start = Codec.create(network, train)
    rows = start.normalised(checked_rows("train", train))
    dtype = network.readout.kernel[...].dtype
    held_out = None if valid is None else start.normalised(checked_rows("valid", valid))
    training = fitting.gradient(
        negative_bound if isinstance(network, Variational) else _RECONSTRUCTION,
        network,
        rows.astype(dtype),
        optimizer=optimizer,
        steps=steps,
        epochs=epochs,
        batch_size=None if batch_size is None else min(batch_size, len(rows)),
        key=key,
        valid=None if held_out is None else held_out.astype(dtype),
        patience=patience,
        checkpoint=checkpoint,
        progress=progress,
    )
    trained = eqx.tree_at(lambda c: c.network, start, cast(training.model, rows.dtype))
    interrupted = bool(training.result == RESULTS.interrupted)
    wanted = refit and not isinstance(network, Variational) and not interrupted
    return CodecFit(refitted(trained, rows) if wanted else trained, trained, training)


def _difference(network: Network, x: Array, key: PRNGKeyArray | None) -> Array:
    """What is lost of rows of data."""
    return network.decode(network.encode(x)) - x


_RECONSTRUCTION = fitting.mean_square(_difference)  # made once, so that it is compiled once


def refitted(codec: Codec, rows: Float[Array, "rows *row"], rcond: float | None = None) -> Codec:
    """The codec with its readout fitted by least squares to normalised rows."""
    network = nnx.clone(codec.network)
    readout = network.readout
    # For images, every pixel is a row of the least squares.
    targets = rows.reshape(-1, readout.out_features)
    features = _features(network, rows).reshape(-1, readout.in_features)
    features = jnp.pad(features, ((0, 0), (0, 1)), constant_values=1.0)
    weights = fitting.readout(features, targets, rcond=rcond, equilibrate=True).weights
    readout.kernel[...] = weights[:-1]
    readout.bias[...] = weights[-1]  # pyright: ignore[reportOptionalSubscript]
    return eqx.tree_at(lambda c: c.network, codec, network)


@eqx.filter_jit
def _features(network: Network, rows: Array) -> Array:
    return network.features(rows)

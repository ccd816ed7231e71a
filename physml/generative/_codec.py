"""A network as a code for data: the normalisation, the encoder and the decoder."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from physml._numerics.calls import checked, summary
from physml._numerics.checks import floating_array, require_count, require_finite
from physml._numerics.units import max_of
from physml.nn import Autoencoder, Variational

Network = Autoencoder | Variational
"""What can be a code."""

Rows = Float[Array | np.ndarray, "_rows *row"]
"""Data: rows of numbers, images, or anything else of one shape, along the first axis."""


class Codec(eqx.Module):
    r"""A code for data: $z = E((x - m)/s)$, and back, $\hat x = m + s\, D(z)$.

    m is the data's mean and s, one number, their root-mean-square distance from it, so that the
    data's unit changes nothing.

    Attributes:
        network: an `nn.Autoencoder` or `nn.Variational`.
        mean: m, of the shape of a row of the data.
        scale: s.
    """

    network: Network
    mean: Float[Array, "*row"]
    scale: Float[Array, ""]

    def __repr__(self) -> str:
        facts = {
            "network": type(self.network).__name__,
            "a row": " x ".join(map(str, self.mean.shape)),
            "scale": self.scale,
        }
        return summary("Codec", facts)

    @classmethod
    @checked
    def create(cls, network: Network, train: Rows) -> "Codec":
        """A code by a network as it is, with the normalisation of the training data.

        Raises:
            TypeError: the network is no autoencoder.
            ValueError: the data have fewer than two rows, are not finite or do not vary, or the
                network does not take or give such rows.
        """
        train = checked_rows("train", train)
        mean, scale = normalisation(train)
        if not scale > 0:
            raise ValueError("train must have rows that differ, got rows that are all the same")
        codec = cls(cast(network, train.dtype), mean, scale)
        try:
            found = jax.eval_shape(codec, train[:1]).shape[1:]
        except (TypeError, ValueError) as error:
            raise ValueError(f"network must take rows of shape {mean.shape}: {error}") from error
        if found != mean.shape:
            raise ValueError(f"network must give rows of shape {mean.shape}, got {found}")
        return codec

    def normalised(self, x: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        """(x - m) / s: what the network sees of data.

        Raises:
            ValueError: the last axes are not those of a row of the training data.
        """
        x = self.check(x)
        return (x - jnp.broadcast_to(self.mean, x.shape)) / self.scale

    @checked
    def encode(self, x: Float[Array | np.ndarray, "..."]) -> Float[Array, "*batch latent"]:
        """The latent numbers of data.

        Raises:
            ValueError: the last axes are not those of a row of the training data.
        """
        return self.network.encode(self.normalised(x))

    @checked
    def decode(self, z: Float[Array | np.ndarray, "*batch latent"]) -> Float[Array, "..."]:
        """The data that latent numbers stand for."""
        x = self.scale * self.network.decode(floating_array("z", z))
        return x + jnp.broadcast_to(self.mean, x.shape)

    def __call__(self, x: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        """The data as they come back: `decode(encode(x))`."""
        return self.decode(self.encode(x))

    @checked
    def errors(self, x: Rows) -> Float[Array, " rows"]:
        r"""The root-mean-square error of each row, $\|\hat x - x\| / \sqrt{n}$, in the data's unit.

        Raises:
            ValueError: the rows have another shape than those of the training data, or are not
                finite.
        """
        return _errors(self, self.check(checked_rows("x", x, least=1)))

    @checked
    def relative_error(self, x: Rows) -> Float[Array, ""]:
        r"""$\|\hat X - X\| / \|X - m\|$ over all rows: 1 for a code that always gives the mean.

        Raises:
            ValueError: as `errors`.
        """
        x = self.check(checked_rows("x", x, least=1))
        spread = jnp.linalg.norm(self.normalised(x).reshape(-1)) / x.size**0.5
        return jnp.linalg.norm(_errors(self, x) / self.scale) / len(x) ** 0.5 / spread

    def check(self, x: Array | np.ndarray) -> Array:
        x, row = floating_array("x", x), self.mean.shape
        if x.shape[x.ndim - len(row) :] != row:
            raise ValueError(f"x must have rows of shape {row}, got shape {x.shape}")
        return x


@eqx.filter_jit
def _errors(codec: Codec, x: Array) -> Array:
    difference = (codec.network.decode(codec.encode(x)) - codec.normalised(x)).reshape(len(x), -1)
    return codec.scale * jnp.sqrt(jnp.mean(difference**2, axis=1))


@jax.jit
def normalisation(train: Array) -> tuple[Array, Array]:
    """The mean, and the root-mean-square distance from it, of numbers of any size."""
    _, exponent = jnp.frexp(max_of(jnp.abs(train)))
    train = jnp.ldexp(train, -exponent)
    mean = train.mean(axis=0)
    scale = jnp.sqrt(jnp.mean((train - mean[None]) ** 2))
    scale = jnp.where(scale > 8 * jnp.finfo(train.dtype).eps * max_of(jnp.abs(mean)), scale, 0)
    return jnp.ldexp(mean, exponent), jnp.ldexp(scale, exponent)


def checked_rows(name: str, rows: Array | np.ndarray, least: int = 2) -> Array:
    """Data as a floating array of `least` rows or more, finite.

    Raises:
        ValueError: there are fewer rows, or they are not finite.
    """
    rows = floating_array(name, rows)
    if rows.ndim < 2 or len(rows) < least:
        raise ValueError(f"{name} must have {least} rows or more, got shape {rows.shape}")
    require_finite(name, rows)
    return rows


@eqx.filter_jit
def cast(tree, dtype):
    """The tree with its floating arrays in another dtype."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating) else x, tree
    )


@checked
def principal_components(train: Rows, latent: int) -> Codec:
    r"""The linear code of least error: the projection on the data's principal components.

    With the singular value decomposition $(X - m)/s = U \Sigma V^\top$ the encoder is the first
    `latent` columns of V, and the decoder their transpose. No linear autoencoder has a smaller
    error (Bourlard and Kamp, Biological Cybernetics 59, 1988), and one that is trained to the end
    has the same subspace.

    Args:
        train: the data, flattened to rows of numbers.
        latent: how many components, at most as many as the data have numbers in a row.

    Raises:
        ValueError: as `Codec.create`; the rows are no rows of numbers, or there are fewer
            components than `latent`.
    """
    train = checked_rows("train", train)
    if train.ndim != 2:
        raise ValueError(f"train must have shape (rows, size), got {train.shape}")
    require_count(1, (min(train.shape), "the smaller axis of train"), latent=latent)
    size = train.shape[1]
    network = Autoencoder.dense(size, (), latent, dtype=train.dtype, rngs=nnx.Rngs(0))
    codec = Codec.create(network, train)
    directions, _ = components(codec.normalised(train))
    network = codec.network
    assert isinstance(network, Autoencoder)
    network.encoder.readout.kernel[...] = directions[:, :latent]
    network.decoder.readout.kernel[...] = directions[:, :latent].T
    return codec


def components(rows: Float[Array, "rows size"]) -> tuple[Array, Array]:
    """Returns (directions, deviations): principal directions as columns, and the spread along each.

    A QR decomposition first makes the matrix small, however many rows there are.
    """
    triangle = np.linalg.qr(np.asarray(rows), mode="r")
    _, sizes, directions = np.linalg.svd(triangle, full_matrices=False)
    return jnp.asarray(directions.T), jnp.asarray(sizes / len(rows) ** 0.5)

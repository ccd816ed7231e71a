"""Autoencoders: networks that pass data through a few latent numbers."""

from collections.abc import Sequence
from itertools import pairwise

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from physml._numerics.calls import checked
from physml._numerics.checks import require_count, require_multiple
from physml._types import FeatureNetwork
from physml.nn._activations import Activation, find_activation
from physml.nn._cnn import CNN
from physml.nn._conv import Conv
from physml.nn._layers import Filters
from physml.nn._mlp import MLP
from physml.nn._weights import find_dtype


class Autoencoder(nnx.Module):
    r"""An encoder E and a decoder D: $x \mapsto D(E(x))$, through `latent` numbers.

    The encoder and the decoder are networks whose last layer is linear, such as `nn.MLP`, `nn.CNN`
    and `nn.ImageDecoder`. Square matrices without an activation may stand between them: they add
    nothing that the encoder could not do, but gradient descent with weight decay on a product of
    matrices prefers a product of low rank, so that the latent covariance shows how many numbers the
    data need (Zeng, De Jesús, Fox, Graham, arXiv 2305.01090).

    >>> network = nn.Autoencoder.dense(64, (32,), 8, rngs=nnx.Rngs(0))
    >>> network.encode(jnp.zeros((5, 64))).shape, network(jnp.zeros((5, 64))).shape
    ((5, 8), (5, 64))
    """

    @checked
    def __init__(
        self,
        encoder: FeatureNetwork,
        decoder: FeatureNetwork,
        *,
        linear_layers: int = 0,
        rngs: nnx.Rngs | None = None,
    ):
        """
        Args:
            encoder: from data to latent numbers.
            decoder: from latent numbers to data.
            linear_layers: how many square matrices stand between them.
            rngs: the random numbers of these matrices.

        Raises:
            TypeError: a network without `features` and a `readout`.
            ValueError: a negative number of layers, or layers without random numbers.
        """
        require_count(0, linear_layers=linear_layers)
        self.encoder, self.decoder = encoder, decoder
        latent, dtype = encoder.readout.out_features, encoder.readout.kernel[...].dtype
        if linear_layers and rngs is None:
            raise ValueError("rngs must be given for linear layers, got None")
        self.linear = nnx.List(
            nnx.Linear(latent, latent, use_bias=False, param_dtype=dtype, rngs=rngs or nnx.Rngs(0))
            for _ in range(linear_layers)
        )

    @classmethod
    @checked
    def dense(
        cls,
        size: int,
        hidden: Sequence[int],
        latent: int,
        *,
        linear_layers: int = 0,
        activation: str | Activation = "tanh",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> "Autoencoder":
        """Two perceptrons, the decoder the mirror image of the encoder.

        Args:
            size: the numbers in a row of data.
            hidden: the units of the encoder's hidden layers; none for a linear autoencoder, which
                finds the subspace of the principal components.
            latent: the latent numbers.
            linear_layers, activation, dtype, rngs: as for the constructor and `nn.MLP`.

        Raises:
            ValueError: as `nn.MLP` and the constructor.
        """
        encoder = MLP(size, hidden, latent, activation=activation, dtype=dtype, rngs=rngs)
        decoder = MLP(
            latent, tuple(hidden)[::-1], size, activation=activation, dtype=dtype, rngs=rngs
        )
        return cls(encoder, decoder, linear_layers=linear_layers, rngs=rngs)

    @classmethod
    @checked
    def convolutional(
        cls,
        in_shape: tuple[int, int, int],
        filters: Sequence[int],
        latent: int,
        *,
        activation: str | Activation = "elu",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> "Autoencoder":
        """Filters of 3 x 3, each with stride 2, and an `ImageDecoder` that mirrors them.

        Args:
            in_shape: (height, width, channels) of an image; height and width can be halved as
                often as there are layers.
            filters: of each layer of the encoder, first to last.
            latent: the latent numbers.
            activation, dtype, rngs: as for `nn.CNN`.

        Raises:
            ValueError: as `nn.CNN` and `nn.ImageDecoder`.
        """
        layers = [Filters(count, stride=2, padding="SAME") for count in filters]
        encoder = CNN(in_shape, layers, latent, activation=activation, dtype=dtype, rngs=rngs)
        decoder = ImageDecoder(
            latent, in_shape, tuple(filters)[::-1], activation=activation, dtype=dtype, rngs=rngs
        )
        return cls(encoder, decoder)

    @property
    def readout(self) -> nnx.Linear:
        """The decoder's last layer."""
        return self.decoder.readout

    @property
    def latent(self) -> int:
        """How many latent numbers there are."""
        return self.encoder.readout.out_features

    @checked
    def encode(self, x: Float[Array, "..."]) -> Float[Array, "*batch latent"]:
        """The latent numbers of data."""
        z = self.encoder.readout(self.encoder.features(x))
        for layer in self.linear:
            z = layer(z)
        return z

    @checked
    def decode(self, z: Float[Array, "*batch latent"]) -> Float[Array, "..."]:
        """The data that latent numbers stand for."""
        return self.readout(self.decoder.features(z))

    def features(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The readout's inputs for data."""
        return self.decoder.features(self.encode(x))

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return self.decode(self.encode(x))


class Variational(nnx.Module):
    r"""An autoencoder with a distribution of latent numbers for every row of data.

    The model of data is $z \sim \mathcal N(0, 1)$, $x \sim \mathcal N(D(z), \sigma^2)$, with one
    trained $\sigma$; the encoder gives the normal distribution of independent numbers that stands
    for $p(z|x)$. `generative.evidence_bound` is what it is trained on. `encode` gives the mean.

    >>> network = nn.Variational(nn.Autoencoder.dense(64, (32,), 8, rngs=nnx.Rngs(0)),
    ...                          rngs=nnx.Rngs(1))
    >>> mean, log_variance = network.distribution(jnp.zeros((5, 64)))
    >>> mean.shape, log_variance.shape
    ((5, 8), (5, 8))

    Source: D. Kingma, M. Welling, "Auto-encoding variational Bayes", ICLR 2014, arXiv 1312.6114.
    """

    @checked
    def __init__(self, network: Autoencoder, *, rngs: nnx.Rngs):
        """
        Args:
            network: the autoencoder; a second readout of its encoder gives the log variances.
            rngs: the random numbers of that readout.
        """
        self.network = network
        last = network.encoder.readout
        dtype = last.kernel[...].dtype
        self.log_variance = nnx.Linear(
            last.in_features, network.latent, kernel_init=nnx.initializers.zeros_init(),
            bias_init=nnx.initializers.constant(-4.0), param_dtype=dtype, rngs=rngs,
        )  # fmt: skip
        self.log_noise = nnx.Param(jnp.full((), -2.0, dtype))  # log sigma^2

    @property
    def readout(self) -> nnx.Linear:
        """The decoder's last layer."""
        return self.network.readout

    @property
    def latent(self) -> int:
        """How many latent numbers there are."""
        return self.network.latent

    @checked
    def distribution(
        self, x: Float[Array, "..."]
    ) -> tuple[Float[Array, "*batch latent"], Float[Array, "*batch latent"]]:
        """Returns (mean, log variance) of the latent numbers of data."""
        return self.encode(x), self.log_variance(self.network.encoder.features(x))

    def encode(self, x: Float[Array, "..."]) -> Float[Array, "*batch latent"]:
        """The mean of the latent numbers of data."""
        return self.network.encode(x)

    def decode(self, z: Float[Array, "*batch latent"]) -> Float[Array, "..."]:
        """The mean of the data that latent numbers stand for."""
        return self.network.decode(z)

    def features(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The readout's inputs for data."""
        return self.network.features(x)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return self.network(x)


class ImageDecoder(nnx.Module):
    """From a row of numbers to an image: a dense layer, then filters between doublings of pixels.

    The dense layer makes a small image; before each layer of filters of 3 x 3, every pixel becomes
    2 x 2 (nearest neighbours, which leaves no chequered pattern as strided transposed filters do).
    The readout is one linear map of the maps at each pixel.

    >>> decoder = nn.ImageDecoder(8, (28, 28, 1), (32, 16), rngs=nnx.Rngs(0))
    >>> decoder(jnp.zeros((5, 8))).shape
    (5, 28, 28, 1)
    """

    @checked
    def __init__(
        self,
        in_features: int,
        out_shape: tuple[int, int, int],
        filters: Sequence[int],
        *,
        activation: str | Activation = "elu",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        """
        Args:
            in_features: the number of inputs.
            out_shape: (height, width, channels) of the images.
            filters: of each layer, first to last.
            activation, dtype, rngs: as for `nn.CNN`.

        Raises:
            ValueError: a size below one, no filters, or a height or width that cannot be halved
                once for each layer.
        """
        height, width, channels = out_shape
        require_count(in_features=in_features, height=height, width=width, channels=channels)
        require_count(**{f"filters[{index}]": count for index, count in enumerate(filters)})
        if not filters:
            raise ValueError(f"filters must have a layer or more, got {filters}")
        factor = 2 ** len(filters)
        require_multiple("2 ** len(filters)", factor, height=height, width=width)
        dtype = find_dtype(dtype)
        self.activation = find_activation(activation)
        self.small = (height // factor, width // factor, filters[0])
        sizes = [filters[0], *filters]
        count = self.small[0] * self.small[1] * self.small[2]
        self.dense = nnx.Linear(in_features, count, param_dtype=dtype, rngs=rngs)
        self.layers = nnx.List(
            Conv(m, n, 3, padding="SAME", dtype=dtype, rngs=rngs) for m, n in pairwise(sizes)
        )
        self.readout = nnx.Linear(filters[-1], channels, param_dtype=dtype, rngs=rngs)

    @checked
    def features(
        self, x: Float[Array, "*batch inputs"]
    ) -> Float[Array, "*batch rows columns maps"]:
        """The last layer's maps: the readout's input."""
        x = self.activation(self.dense(x))
        x = x.reshape(*x.shape[:-1], *self.small)
        for layer in self.layers:
            x = jnp.repeat(jnp.repeat(x, 2, axis=-3), 2, axis=-2)
            x = self.activation(layer(x))
        return x

    @checked
    def __call__(
        self, x: Float[Array, "*batch inputs"]
    ) -> Float[Array, "*batch height width channels"]:
        return self.readout(self.features(x))

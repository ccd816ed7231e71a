"""The variational autoencoder: its bound of the evidence, samples and paths between data."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from physml._numerics.calls import checked, require_instance
from physml._numerics.checks import require_count, require_finite
from physml.generative._codec import Codec, Rows, checked_rows
from physml.nn import Variational


def bound(
    network: Variational, x: Float[Array, "rows *row"], key: PRNGKeyArray
) -> Float[Array, " rows"]:
    """The evidence bound of each normalised row, with one draw of its latent numbers."""
    mean, log_variance = network.distribution(x)
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    found = network.decode(mean + jnp.exp(0.5 * log_variance) * noise)
    squares = jnp.sum((found - x).reshape(len(x), -1) ** 2, axis=1)
    log_noise, size = network.log_noise[...], found.size // len(x)
    likelihood = -0.5 * (squares * jnp.exp(-log_noise) + size * (math.log(2 * math.pi) + log_noise))
    divergence = 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance, axis=1)
    return likelihood - divergence


def negative_bound(
    network: Variational, x: Array, key: PRNGKeyArray | None
) -> tuple[Scalar, dict[str, Array]]:
    """The loss of a variational autoencoder: minus the mean bound, per number of a row."""
    assert key is not None
    return -jnp.mean(bound(network, x, key)) * (len(x) / x.size), {}


@checked
def evidence_bound(
    codec: Codec, x: Rows, key: PRNGKeyArray, *, samples: int = 1
) -> Float[Array, " rows"]:
    r"""An estimate of a lower bound of $\log p(x)$ for each row, in nats and the data's unit.

    $$\mathrm E_{z \sim q(z|x)} \log \mathcal N(x;\, D(z), \sigma^2)
      - \mathrm{KL}(q(z|x)\, \|\, \mathcal N(0, 1)) \le \log p(x)$$

    For a linear decoder the best bound is $\log p(x)$ itself, the likelihood of probabilistic
    principal components (Lucas, Tucker, Grosse, Norouzi, arXiv 1911.02469).

    Args:
        codec: a trained `nn.Variational`.
        x: data.
        key: for the latent numbers that are drawn.
        samples: draws for each row, whose mean is taken.

    Raises:
        TypeError: the codec's network is not variational.
        ValueError: as `Codec.errors`, or fewer than one sample.
    """
    require_instance(Variational, **{"codec.network": codec.network})
    network = codec.network
    assert isinstance(network, Variational)
    require_count(samples=samples)
    x = codec.normalised(checked_rows("x", x, least=1))
    size = x.size // len(x)
    return _mean_bound(network, x, jax.random.split(key, samples)) - size * jnp.log(codec.scale)


@eqx.filter_jit
def _mean_bound(network: Variational, x: Array, keys: Array) -> Array:
    return jax.lax.map(lambda key: bound(network, x, key), keys).mean(axis=0)


@checked
def sample(codec: Codec, num: int, key: PRNGKeyArray) -> Float[Array, "num *row"]:
    """New data: the decoder's means for latent numbers drawn from the standard normal distribution.

    Raises:
        TypeError: the codec's network is not variational: only such a network's latent numbers have
            a known distribution.
        ValueError: fewer than one sample.
    """
    require_instance(Variational, **{"codec.network": codec.network})
    require_count(num=num)
    z = jax.random.normal(key, (num, codec.network.latent), codec.mean.dtype)
    return codec.decode(z)


@checked
def interpolate(
    codec: Codec,
    start: Float[Array | np.ndarray, "*row"],
    end: Float[Array | np.ndarray, "*row"],
    num: int,
) -> Float[Array, "num *row"]:
    """A path from one row of data to another that is straight in the latent numbers.

    Args:
        codec: a trained autoencoder.
        start, end: two rows of data.
        num: rows of the path, with those of the ends as they come back.

    Raises:
        ValueError: the ends are no rows of such data, or there are fewer than two rows.
    """
    require_count(2, num=num)
    require_finite("start", start)
    require_finite("end", end)
    first, last = codec.encode(start), codec.encode(end)
    share = jnp.linspace(0.0, 1.0, num, dtype=first.dtype)[:, None]
    return codec.decode((1 - share) * first[None] + share * last[None])

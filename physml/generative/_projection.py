"""An autoencoder to the digits of float64: a trained projection, and a decoder by least squares."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray, PyTree

from physml import fit as fitting
from physml._numerics.calls import checked
from physml._numerics.checks import require_count, require_positive
from physml.generative._codec import Codec, Rows, checked_rows, components
from physml.generative._separable import distant_rows, unexplained
from physml.nn import MLP, Autoencoder

_NARROW, _SCALE = 40, 0.01  # the units with which it is found, and their slope
_STARTS = 4  # from which it is sought
_ROWS = 400  # from which the projection is learned
_COVER = 2000  # that cover the data's extent, for the decoder
_MOST = 6000  # more for the decoder, as they come
# The decoders that are tried: the scale of their features, the share of their singular values that
# is left out, and whether the features are as curved along each direction as the data are.
_DECODERS = (
    (0.01, 1e-15, True),
    (0.03, 1e-15, True),
    (0.1, 1e-15, True),
    (0.1, 1e-6, False),
    (0.5, 1e-6, False),
)


class ProjectionFit(eqx.Module):
    """A code by a projection and how it came about.

    Attributes:
        codec: the result.
        valid_errors: the relative errors on the rows that were held out, one for each start; the
            code is that of the least.
        training: how its projection was found: the history, the result, the seconds.
    """

    codec: Codec
    valid_errors: tuple[float, ...]
    training: fitting.Fit


@checked
def fit_projection(
    train: Rows,
    latent: int,
    *,
    key: PRNGKeyArray,
    units: int = 300,
    narrow: int = _NARROW,
    scale: float = _SCALE,
    restarts: int = 3,
    max_steps: int = 500,
) -> ProjectionFit:
    r"""Fit an autoencoder whose encoder is linear and whose decoder is not, to many digits.

    Gradient descent on an autoencoder leaves a relative error of 1e-3 or so. Here the encoder is a
    projection W of the data on `latent` numbers of unit covariance, found by Levenberg and
    Marquardt's method from several starts,

    $$\min_W \min_C \|\phi(Y W)\, C - Y\|^2,$$

    with Y the data in their principal components and $\phi$ a few frozen random units. The best
    weights C follow every W (variable projection), so that only W is sought. The units are so flat
    that few of them give little but polynomials of low degree; W then has to find latent numbers
    in which the data are simple. The decoder that stays has more units, and its readout is fitted
    by SVD. Its scale is chosen among several by the error on every fifth row, which is held out.
    Its units are as curved along each direction as the data are: where a latent number is one more
    than the data need, they depend on it about linearly, and the decoder is nearly as accurate as
    with one number less.

    The encoder keeps the data apart only if they are a graph over some plane. Where they are not,
    or are noisy, `fit_autoencoder` does better, with hidden layers in the encoder.

    Args:
        train: the data, as rows of numbers. float64 is where it pays.
        latent: the latent numbers.
        key: for the frozen units and the starts.
        units: of the decoder.
        narrow: the units with which the projection is found.
        scale: the slope of these over one standard deviation of a latent number.
        restarts: how often it is looked for, from other starts by other units.
        max_steps: evaluations of Levenberg and Marquardt's method, at most.

    Raises:
        ValueError: the data are no finite rows of numbers that differ, a count is below one, or the
            data have fewer independent directions than `latent`.

    Source: G. Golub, V. Pereyra, Inverse Problems 19 (2003) R1, on variable projection.
    """
    rows = checked_rows("train", train, least=10)
    if rows.ndim != 2:
        raise ValueError(f"train must have shape (rows, size), got {rows.shape}")
    require_count(units=units, narrow=narrow)
    require_count(restarts=restarts, max_steps=max_steps)
    require_positive(scale=scale)
    projected = Projected.of(rows)
    require_count(1, (projected.white.shape[1], "the directions of the data"), latent=latent)
    fits = []
    for one in jax.random.split(key, restarts):
        start_key, narrow_key, units_key = jax.random.split(one, 3)
        flat = FlatUnits.drawn(narrow_key, latent, rows.dtype, units=narrow, scale=scale)
        found = projected.sought(flat, latent, start_key, max_steps)
        weights = jnp.linalg.qr(found.model)[0]
        shift = jnp.zeros(latent, rows.dtype)
        fits.append((*projected.decoded(weights, shift, flat, units, units_key), found))
    codec, _, training = min(fits, key=lambda fit: fit[1])
    return ProjectionFit(codec, tuple(error for _, error, _ in fits), training)


class Projected(NamedTuple):
    """Data in their principal components, and the codes that start from a projection of these.

    Attributes:
        mean, scale: of the data, as in `Codec`.
        white: (rows, components), of unit covariance.
        directions: (size, components), orthonormal.
        deviations: the spread along each.
        cover: the numbers of rows that cover the data's extent, in the order of `distant_rows`.
    """

    mean: Array
    scale: Array
    white: np.ndarray
    directions: Array
    deviations: Array
    cover: np.ndarray

    @classmethod
    def of(cls, rows: Float[Array, "rows size"]) -> "Projected":
        """The data's components that are more than rounding."""
        size, dtype = rows.shape[1], rows.dtype
        linear = Autoencoder.dense(size, (), 1, dtype=dtype, rngs=nnx.Rngs(0))
        codec = Codec.create(linear, rows)
        normalised = codec.normalised(rows)
        directions, deviations = components(normalised)
        least = size * float(jnp.finfo(dtype).eps) * 10
        count = int(np.sum(np.asarray(deviations) > least * float(deviations[0])))
        directions, deviations = directions[:, :count], deviations[:count]
        white = np.asarray(normalised) @ np.asarray(directions) / np.asarray(deviations)
        cover = distant_rows(white, _COVER)
        return cls(codec.mean, codec.scale, white, directions, deviations, cover)

    def sought(
        self, residual: Callable[..., Array], latent: int, key: PRNGKeyArray, max_steps: int
    ) -> fitting.Fit:
        """The projection with the least residual on rows that cover the data, from several starts.

        Every other start is near the principal components, the rest are random. For some data there
        are minima that are no good ones near the former, for some near a few of the latter.
        """
        white = jnp.asarray(self.white[self.cover[:_ROWS]])
        deviations = self.deviations / jnp.linalg.norm(self.deviations)
        method = optx.LevenbergMarquardt(rtol=1e-12, atol=1e-16)
        batch = (white, white * deviations[None])
        nearest = jnp.eye(white.shape[1], latent, dtype=self.scale.dtype)
        fits = []
        for n, one in enumerate(jax.random.split(key, _STARTS)):
            start = jax.random.normal(one, nearest.shape, nearest.dtype)
            start = start if n % 2 else nearest + 0.1 * start
            with warnings.catch_warnings():
                # With too few latent numbers the search need not settle; its result says so.
                warnings.simplefilter("ignore")
                options: dict[str, Any] = {"method": method, "max_steps": max_steps}
                fits.append(fitting.least_squares(residual, start, batch, **options))
        return min(fits, key=lambda fit: float(fit.history["loss"][-1]))

    def decoded(
        self,
        weights: Float[Array, "components latent"],
        shift: Float[Array, " latent"],
        flat: "FlatUnits",
        units: int,
        key: PRNGKeyArray,
    ) -> tuple[Codec, float]:
        """The code z = white @ weights + shift with the best of several decoders, and its error.

        The flat units say how curved the data are along each direction of the latent numbers.
        """
        strided = np.arange(0, len(self.white), max(1, len(self.white) // _MOST))
        held_out = strided[4::5]
        known = np.setdiff1d(np.union1d(strided, self.cover), held_out)
        states = self.white * np.asarray(self.deviations)
        # The units are drawn in the principal directions of the curvature, and for rows that lie
        # evenly over the data's extent: so they are flat over all of it, also where a latent number
        # is seldom large.
        plane, triangle = np.linalg.qr(np.asarray(weights))
        several = self.cover[:_ROWS]
        curvatures, axes = flat.curvature(self.white[several] @ plane, states[several])
        extent = jnp.asarray(self.white[self.cover] @ plane @ axes)
        turn = jnp.asarray(np.linalg.solve(triangle, axes))
        latents = jnp.asarray(self.white @ np.asarray(weights)) + shift[None]
        best: tuple[float, Any] = (np.inf, None)
        least = float(jnp.finfo(shift.dtype).eps)
        for scale, rcond, adapted in _DECODERS:
            outputs = self.directions.shape[0]
            # The second derivative of a unit is as the square of its slope. Linear parts need some
            # slope too: one that makes them no smaller than the quadratic ones.
            slopes = np.maximum(np.sqrt(curvatures), scale) if adapted else np.ones_like(curvatures)
            options: dict[str, Any] = {"scale": jnp.asarray(scale * slopes), "rngs": nnx.Rngs(key)}
            decoder = MLP.frozen(extent, units, outputs, **options)
            (layer,) = decoder.hidden
            layer.kernel[...] = turn @ layer.kernel[...]
            bias = layer.bias
            assert bias is not None
            bias[...] = bias[...] - shift @ layer.kernel[...]
            readout = fitting.readout(
                _with_one(decoder, latents[known]),
                states[known],
                rcond=max(rcond, least),
                refinements=1,
            ).weights
            lost = _with_one(decoder, latents[held_out]) @ np.asarray(readout) - states[held_out]
            error = float(np.linalg.norm(lost) / np.linalg.norm(states[held_out]))
            if error < best[0]:
                best = error, (decoder, readout)
        decoder, readout = best[1]
        readout = readout @ self.directions.T
        decoder.readout.kernel[...], decoder.readout.bias[...] = readout[:-1], readout[-1]
        encoder = MLP(len(self.mean), (), len(shift), dtype=shift.dtype, rngs=nnx.Rngs(0))
        encoder.readout.kernel[...] = (self.directions / self.deviations[None]) @ weights
        encoder.readout.bias[...] = shift  # pyright: ignore[reportOptionalSubscript]
        return Codec(Autoencoder(encoder, decoder), self.mean, self.scale), best[0]


class FlatUnits(eqx.Module):
    """A few frozen units that give little but polynomials of low degree.

    Attributes:
        weights, biases: of the units, for latent numbers of unit covariance.
    """

    weights: Float[Array, "latent units"]
    biases: Float[Array, " units"]

    @classmethod
    def drawn(
        cls,
        key: PRNGKeyArray,
        latent: int,
        dtype: DTypeLike,
        *,
        units: int = _NARROW,
        scale: float = _SCALE,
    ) -> "FlatUnits":
        first, second = jax.random.split(key)
        weights = scale * jax.random.normal(first, (latent, units), dtype)
        return cls(weights, scale * latent**0.5 * jax.random.normal(second, (units,), dtype))

    def features(self, latents: Float[Array, "rows latent"]) -> Float[Array, "rows terms"]:
        """The units, the latent numbers and one."""
        units = jnp.tanh(latents @ self.weights + self.biases[None])
        return jnp.concatenate([units, latents, jnp.ones_like(units[:, :1])], axis=1)

    def __call__(self, model: Array, batch: tuple[Array, Array], key: PyTree) -> Array:
        """What the units leave of the data, as a function of the projection."""
        white, targets = batch
        features = self.features(white @ jnp.linalg.qr(model)[0])
        return unexplained(features, targets, _damping(features.dtype))

    def curvature(
        self, latents: Float[np.ndarray, "rows latent"], targets: Float[np.ndarray, "rows outputs"]
    ) -> tuple[Float[np.ndarray, " latent"], Float[np.ndarray, "latent latent"]]:
        r"""Returns (sizes, axes): how curved the data are along the latent numbers' directions.

        With H the Hessian of an output of the units' fit to the targets, they are the roots of the
        eigenvalues, descending and relative to the first, and the eigenvectors of the mean over the
        rows and the sum over the outputs of $H^2$. Data that a direction enters linearly have size
        zero along it.
        """
        features = np.asarray(self.features(jnp.asarray(latents)))
        num, weights = self.weights.shape[1], np.asarray(self.weights)
        fitted = np.linalg.lstsq(features, targets, rcond=_damping(features.dtype))[0][:num]
        values = features[:, :num]
        second = -2 * values * (1 - values**2)  # of tanh
        # A Hessian is the sum over units of a number times w w^T: the square has the pairs' w . w.
        paired = (second.T @ second) * (fitted @ fitted.T) * (weights.T @ weights)
        sizes, axes = np.linalg.eigh(weights @ paired @ weights.T)
        sizes = np.sqrt(np.maximum(sizes[::-1], 0))
        # Data that are linear in all latent numbers are so in each alike.
        return (sizes / sizes[0] if sizes[0] > 0 else np.ones_like(sizes)), axes[:, ::-1]


def _damping(dtype: DTypeLike) -> float:
    """The share of the largest singular value of flat units below which rounding rules."""
    return 1e5 * float(jnp.finfo(dtype).eps)


@eqx.filter_jit
def _features(decoder: MLP, latents: Array) -> Array:
    return jnp.pad(decoder.features(latents), ((0, 0), (0, 1)), constant_values=1.0)


def _with_one(decoder: MLP, latents: Array) -> np.ndarray:
    """The decoder's features and a column of ones, on the host."""
    return np.asarray(_features(decoder, latents))

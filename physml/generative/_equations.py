"""Equations of latent numbers: the projection in which they close, and the frame of few terms."""

import math
import warnings
from itertools import combinations_with_replacement

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, PyTree, Real

from physml import fit as fitting
from physml._numerics.calls import checked, summary
from physml._numerics.checks import require_count, require_share
from physml.data import Trajectories
from physml.generative._codec import Codec
from physml.generative._projection import FlatUnits, Projected
from physml.generative._separable import distant_rows, unexplained
from physml.nn import MLP, Autoencoder
from physml.results import raise_if_interrupted
from physml.systems import System, from_function

# Central differences of order eight.
_DIFFERENCES = np.asarray([1 / 280, -4 / 105, 1 / 5, -4 / 5, 0, 4 / 5, -1 / 5, 4 / 105, -1 / 280])
_ROWS = 600
_SMALL = 1e-2  # a normalised coefficient that counts as none in the search for a frame
_FRAME_STEPS = 2000

Powers = tuple[tuple[int, ...], ...]
"""The powers of each latent number in each term."""


class Polynomials(eqx.Module):
    r"""dz/dt as polynomials: $\dot z_i = \sum_j c_{ji} \prod_k z_k^{p_{jk}}$.

    Attributes:
        powers: p, a row for each term.
        coefficients: c, a column for each equation.
    """

    powers: Powers = eqx.field(static=True)
    coefficients: Float[Array, "terms dim"]

    def __call__(
        self, t: Real[ArrayLike, ""], z: Float[Array, " dim"], args: PyTree
    ) -> Float[Array, " dim"]:
        return library(z[None], self.powers)[0] @ self.coefficients


class LatentEquations(eqx.Module):
    """Sparse equations of the latent numbers of a code.

    Attributes:
        codec: the code whose latent numbers obey the equations.
        system: the equations, for `reference.solve` and `reference.FlowMap`.
        powers, coefficients: their terms, see `Polynomials`.
        residual: the root-mean-square of what the equations leave of dz/dt, relative to it.
    """

    codec: Codec
    system: System
    powers: Powers = eqx.field(static=True)
    coefficients: Float[Array, "terms dim"]
    residual: float

    @property
    def terms(self) -> int:
        """How many terms the equations have in all."""
        return int(np.sum(np.asarray(self.coefficients) != 0))

    def __repr__(self) -> str:
        return summary(f"LatentEquations: {self.terms} terms", {"residual": f"{self.residual:.2g}"})

    def __str__(self) -> str:
        lines = []
        for i, column in enumerate(np.asarray(self.coefficients).T):
            terms = [
                f"{c:+.4g} " + " ".join(f"z{k}" for k in range(len(p)) for _ in range(p[k]))
                for c, p in zip(column, self.powers, strict=True)
                if c != 0
            ]
            lines.append(f"dz{i}/dt = " + " ".join(term.strip() for term in terms))
        return "\n".join(lines)


@checked
def discover_equations(
    codec: Codec,
    trajectories: Trajectories,
    *,
    key: PRNGKeyArray,
    degree: int = 2,
    threshold: float = 0.02,
    starts: int = 32,
    units: int = 300,
) -> LatentEquations:
    r"""Find latent numbers of the data that obey polynomial equations of few terms.

    Latent numbers are not unique: every invertible map of them codes the data as well. Three steps
    choose among those that are projections of the data, z = Y W + c:

    1. W, from the codec's own, such that dz/dt is a polynomial of z: Levenberg and Marquardt's
       method on what the best polynomials leave (variable projection).
    2. The frame: among all affine images of z that in which the normalised coefficients are few,
       by gradient descent on $\sum \log(c^2 + \epsilon^2)$ from many random frames at once.
    3. Coefficients below the threshold are dropped, and W and c are fitted once more, now to
       equations that have the other terms alone; this is repeated until no term is dropped.

    Derivatives are central differences of order eight of the data.

    Args:
        codec: a code with a linear encoder, from `fit_projection`.
        trajectories: the data it was made for, nine times or more each.
        key: for the frames that are tried and the new decoder.
        degree: of the polynomials.
        threshold: terms are dropped whose root mean square is less than this share of that of
            dz/dt.
        starts: frames that are tried.
        units: of the decoder, which is fitted anew.

    Raises:
        TypeError: the codec's encoder has hidden layers.
        ValueError: too few times, or states that are no rows of the codec's data.

    Source: S. Brunton, J. Proctor, J. N. Kutz, "Discovering governing equations from data by sparse
    identification of nonlinear dynamical systems", PNAS 113 (2016), on sequential thresholds;
    Champion and others, PNAS 116 (2019), on equations of latent numbers.
    """
    require_count(degree=degree, starts=starts, units=units)
    require_share(threshold=threshold)
    ys = codec.check(trajectories.ys)
    if ys.shape[1] < len(_DIFFERENCES):
        raise ValueError(f"trajectories must have 9 times or more, got {ys.shape[1]}")
    encoder = codec.network.encoder if isinstance(codec.network, Autoencoder) else None
    if not isinstance(encoder, MLP) or len(encoder.hidden):
        raise TypeError(
            "codec must have a linear encoder, as from fit_projection, got one of "
            f"{type(encoder or codec.network).__name__} with hidden layers"
        )
    projected = Projected.of(ys.reshape(-1, ys.shape[-1]))
    rows = _with_derivatives(projected, ys.shape[1], trajectories.dt)
    start = jnp.asarray(projected.deviations)[:, None] * (
        projected.directions.T @ encoder.readout.kernel[...]
    )
    start = start * projected.scale / codec.scale
    weights, shift = start, jnp.zeros(start.shape[1], start.dtype)
    powers = _powers(start.shape[1], degree)
    every = jnp.ones((len(powers), start.shape[1]), bool)
    weights, _ = _closed((weights, shift), rows, powers, every)
    # Of unit covariance, in which the frames that are tried are as good as each other.
    weights = jnp.linalg.qr(weights)[0]
    frame, origin = _sparse_frame(weights, rows, powers, starts, key)
    model, kept = (weights @ frame.T, -frame @ origin), every
    coefficients = _coefficients(model, rows, powers, kept)
    while True:
        large = _sizes(coefficients, *model, rows, powers) > threshold
        if (large | ~kept).all():
            break
        kept = kept & large
        model = _closed(model, rows, powers, kept)
        coefficients = _coefficients(model, rows, powers, kept)
    weights, shift = model
    z, dz = _latents(weights, shift, rows)
    lost = dz - library(z, powers) @ coefficients
    flat = FlatUnits.drawn(key, weights.shape[1], weights.dtype)
    made, _ = projected.decoded(weights, shift, flat, units, key)
    system = from_function(Polynomials(powers, coefficients), weights.shape[1])
    residual = float(jnp.linalg.norm(lost) / jnp.linalg.norm(dz))
    return LatentEquations(made, system, powers, coefficients, residual)


def library(z: Float[Array, "rows dim"], powers: Powers) -> Float[Array, "rows terms"]:
    """The monomials of each row."""
    columns = []
    for term in powers:
        factors = [z[:, k] for k, power in enumerate(term) for _ in range(power)]
        columns.append(math.prod(factors, start=jnp.ones_like(z[:, 0])))
    return jnp.stack(columns, axis=1)


def _powers(dim: int, degree: int) -> Powers:
    """The powers of all monomials up to a degree, the constant first."""
    chosen = [c for n in range(degree + 1) for c in combinations_with_replacement(range(dim), n)]
    return tuple(tuple(c.count(k) for k in range(dim)) for c in chosen)


Pair = tuple[Array, Array]
Rows = tuple[Float[Array, "rows components"], Float[Array, "rows components"]]


def _with_derivatives(projected: Projected, times: int, dt: float) -> Rows:
    """States in their components and the derivatives of these, of rows that cover the data."""
    white = projected.white.reshape(-1, times, projected.white.shape[1])
    count = times - len(_DIFFERENCES) + 1
    shifted = np.stack([white[:, k : k + count] for k in range(len(_DIFFERENCES))])
    slopes = np.tensordot(_DIFFERENCES / dt, shifted, axes=1)
    inner = white[:, 4 : 4 + count].reshape(-1, white.shape[-1])
    chosen = distant_rows(inner, _ROWS)
    return jnp.asarray(inner[chosen]), jnp.asarray(slopes.reshape(inner.shape)[chosen])


def _latents(weights: Array, shift: Array, rows: Rows) -> Pair:
    return rows[0] @ weights + shift[None], rows[1] @ weights


class _Closure(eqx.Module):
    """What the best equations of some terms leave of dz/dt, relative to it."""

    powers: Powers = eqx.field(static=True)

    def __call__(self, model: Pair, batch: tuple[Rows, Array], key: PyTree) -> Array:
        rows, kept = batch
        z, dz = _latents(*model, rows)
        features = library(z, self.powers)
        features = features / jnp.sqrt(jnp.mean(features**2, axis=0))[None]
        dz = dz / jnp.sqrt(jnp.mean(dz**2, axis=0))[None]
        damping = 1e2 * float(jnp.finfo(z.dtype).eps)
        left = [
            unexplained(jnp.where(kept[None, :, i], features, 0), dz[:, i : i + 1], damping)
            for i in range(dz.shape[1])
        ]
        return jnp.concatenate(left, axis=1)


def _closed(model: Pair, rows: Rows, powers: Powers, kept: Bool[Array, "terms dim"]) -> Pair:
    """Weights and shift with which equations of the terms kept hold best."""
    method = optx.LevenbergMarquardt(rtol=1e-12, atol=1e-16)
    with warnings.catch_warnings():
        # Any unit and, with all terms, any frame will do: the search need not settle.
        warnings.simplefilter("ignore")
        found = fitting.least_squares(
            _Closure(powers), model, (rows, kept), method=method, max_steps=500
        )
    weights, shift = found.model
    # No equation says how large a latent number is: their root mean squares become 1.
    size = jnp.sqrt(jnp.mean((rows[0] @ weights) ** 2, axis=0))
    return weights / size[None], shift / size


def _coefficients(
    model: Pair, rows: Rows, powers: Powers, kept: Bool[Array, "terms dim"]
) -> Float[Array, "terms dim"]:
    """Those of the terms kept, by least squares."""
    z, dz = (np.asarray(x) for x in _latents(*model, rows))
    features, found = np.asarray(library(jnp.asarray(z), powers)), np.zeros(kept.shape)
    for i, terms in enumerate(np.asarray(kept).T):
        found[terms, i] = np.linalg.lstsq(features[:, terms], dz[:, i], rcond=None)[0]
    return jnp.asarray(found, rows[0].dtype)


def _sizes(
    coefficients: Array, weights: Array, shift: Array, rows: Rows, powers: Powers
) -> Float[Array, "terms dim"]:
    """The root mean square of each term, relative to that of dz/dt."""
    z, dz = _latents(weights, shift, rows)
    sizes = jnp.sqrt(jnp.mean(library(z, powers) ** 2, axis=0))
    return jnp.abs(coefficients) * sizes[:, None] / jnp.sqrt(jnp.mean(dz**2, axis=0))[None]


class _Spread(eqx.Module):
    """How many terms the equations have in each of many frames u = B (z - c), as a loss."""

    powers: Powers = eqx.field(static=True)

    def __call__(self, model: Pair, batch: PyTree, key: PyTree) -> tuple[Array, dict]:
        return jnp.sum(self.of_each(model, batch)), {}

    def of_each(self, model: Pair, batch: PyTree) -> Float[Array, " frames"]:
        return jax.vmap(lambda frame, origin: self._of_one(frame, origin, *batch))(*model)

    def _of_one(
        self, frame: Array, origin: Array, z: Array, dz: Array, coefficients: Array, points: Array
    ) -> Array:
        frame = unit_rows(frame)
        there = points @ jnp.linalg.inv(frame).T + origin[None]
        slopes = library(there, self.powers) @ coefficients @ frame.T
        found = jnp.linalg.pinv(jax.lax.stop_gradient(library(points, self.powers))) @ slopes
        rows = (z - origin[None], dz)
        sizes = _sizes(found, frame.T, jnp.zeros_like(origin), rows, self.powers)
        return jnp.sum(jnp.log(sizes**2 + _SMALL**2))


def unit_rows(frame: Array) -> Array:
    """A frame in which white latent numbers have unit variance."""
    return frame / jnp.linalg.norm(frame, axis=1)[:, None]


def _sparse_frame(
    weights: Array, rows: Rows, powers: Powers, starts: int, key: PRNGKeyArray
) -> Pair:
    """Returns (B, c): in u = B (z - c) the equations have few terms."""
    z, dz = _latents(weights, jnp.zeros_like(weights[0]), rows)
    dim = z.shape[1]
    coefficients = jnp.linalg.lstsq(library(z, powers), dz)[0]
    frames_key, origins_key, points_key = jax.random.split(key, 3)
    frames = jax.random.normal(frames_key, (starts, dim, dim), z.dtype)
    origins = jax.random.normal(origins_key, (starts, dim), z.dtype)
    points = jax.random.normal(points_key, (4 * len(powers), dim), z.dtype)
    batch = (z, dz, coefficients, points)
    spread = _Spread(powers)
    found = fitting.gradient(
        spread,
        (frames, origins),
        batch,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.05, _FRAME_STEPS)),
        steps=_FRAME_STEPS,
    )
    raise_if_interrupted(found.result)
    frames, origins = found.model
    best = int(jnp.argmin(spread.of_each((frames, origins), batch)))
    return unit_rows(frames[best]), origins[best]

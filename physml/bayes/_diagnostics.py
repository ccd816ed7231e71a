"""Whether chains have mixed, and whether intervals cover what they promise."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from physml._numerics.calls import checked
from physml._numerics.checks import (
    floating_array,
    floating_arrays,
    require_finite,
    require_positive,
    require_share,
)

LEVELS = (0.5, 0.8, 0.95)


@checked
def split_rhat(draws: Float[ArrayLike, "chains draws *shape"]) -> Float[Array, "*shape"]:
    r"""How much chains, each cut in halves, differ from each other; 1 if not at all.

    $\hat R^2 = (n - 1)/n + B/(n W)$ with B/n the variance of the means of the half-chains, of
    length n, and W the mean of their variances.

    Args:
        draws: (chains, draws, ...), at least four draws.

    Raises:
        TypeError, ValueError: an argument of the wrong kind; too few draws.

    Source: A. Gelman and others, Bayesian Data Analysis, 3rd ed. (2013), section 11.4.
    """
    x = _halves(draws)
    n = x.shape[1]
    between, within = jnp.var(jnp.mean(x, axis=1), axis=0, ddof=1), jnp.mean(_variances(x), axis=0)
    return jnp.sqrt((n - 1) / n + between / jnp.where(within > 0, within, 1.0))


@checked
def effective_sample_size(draws: Float[ArrayLike, "chains draws *shape"]) -> Float[Array, "*shape"]:
    r"""The number of independent draws whose mean is as exact as that of the chains.

    $n_{\text{eff}} = m n / (1 + 2 \sum_t \hat\rho_t)$ for m half-chains of length n, with the
    correlations $\hat\rho_t$ summed in pairs as long as the pairs are positive, and each pair at
    most as large as the one before.

    Args and raises as `split_rhat`.

    Source: C. Geyer, "Practical Markov chain Monte Carlo", Statistical Science 7 (1992); for many
    chains A. Vehtari and others, Bayesian Analysis 16 (2021), section 3.
    """
    x = _halves(draws)
    chains, n = x.shape[:2]
    centred = x - jnp.mean(x, axis=1, keepdims=True)
    transform = jnp.fft.rfft(centred, 2 * n, axis=1)
    covariance = jnp.fft.irfft(jnp.abs(transform) ** 2, 2 * n, axis=1)[:, :n] / n
    covariance = jnp.mean(covariance, axis=0)
    within = covariance[0] * n / (n - 1)
    total = covariance[0] + jnp.var(jnp.mean(x, axis=1), axis=0, ddof=1)
    total = jnp.where(total > 0, total, 1.0)
    rho = 1.0 - (within[None] - covariance) / total[None]
    rho = rho.at[0].set(1.0)
    pairs = rho[: n - n % 2].reshape(n // 2, 2, *rho.shape[1:]).sum(axis=1)
    pairs = jnp.where(jnp.cumsum(pairs <= 0, axis=0) > 0, 0.0, pairs)
    pairs = jax.lax.cummin(pairs, axis=0)
    time = jnp.maximum(-1.0 + 2.0 * jnp.sum(pairs, axis=0), 1.0 / np.log10(chains * n))
    return chains * n / time


class Coverage(NamedTuple):
    """How often intervals hold the truth.

    Attributes:
        levels: what the intervals promise.
        shares: how often they do.
        errors: the standard deviations of the shares if the promise is kept.
        ranks: where each truth lies in its distribution, from 0 to 1; uniform if all is well.
    """

    levels: Float[np.ndarray, " levels"]
    shares: Float[np.ndarray, " levels"]
    errors: Float[np.ndarray, " levels"]
    ranks: Float[np.ndarray, "..."]

    def at(self, level: float) -> float:
        """The share at one of the levels."""
        return float(self.shares[np.argmin(np.abs(self.levels - level))])


@checked
def coverage_of_draws(
    draws: Float[ArrayLike, "draws *cases"],
    truth: Float[ArrayLike, "*cases"],
    levels: Sequence[float] = LEVELS,
) -> Coverage:
    """How often central intervals of draws hold the truth.

    Args:
        draws: of each case's distribution, (draws, ...).
        truth: what each case's distribution is about, (...).
        levels: the shares of the distribution between the ends of the intervals.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or shape; a level not between 0 and 1.
    """
    draws, truth = floating_array("draws", draws), floating_array("truth", truth)
    require_finite("draws", draws)
    require_finite("truth", truth)
    below = jnp.sum(draws < truth[None], axis=0, dtype=draws.dtype)
    return _coverage((below + 0.5) / (draws.shape[0] + 1), levels)


@checked
def coverage_of_normals(
    mean: Float[ArrayLike, "*cases"],
    sd: Float[ArrayLike, "*cases"],
    truth: Float[ArrayLike, "*cases"],
    levels: Sequence[float] = LEVELS,
) -> Coverage:
    """How often central intervals of normal distributions hold the truth.

    Args:
        mean, sd: of each case's distribution, sd > 0.
        truth: what each case's distribution is about.
        levels: as for `coverage_of_draws`.

    Raises:
        TypeError, ValueError: as `coverage_of_draws`.
    """
    mean, sd, truth = floating_arrays(mean=mean, sd=sd, truth=truth)
    require_finite("mean", mean)
    require_finite("truth", truth)
    require_positive(sd=sd)
    z = (truth - mean) / sd
    return _coverage(jax.scipy.stats.norm.cdf(z), levels)


def _coverage(ranks: Array, levels: Sequence[float]) -> Coverage:
    for level in levels:
        require_share(levels=level)
    ranks_, levels_ = np.asarray(ranks), np.asarray(levels, float)
    shares = np.asarray([np.mean(np.abs(ranks_ - 0.5) <= level / 2) for level in levels_])
    return Coverage(levels_, shares, np.sqrt(levels_ * (1 - levels_) / ranks_.size), ranks_)


def _halves(draws: ArrayLike) -> Array:
    draws = floating_array("draws", draws)
    require_finite("draws", draws)
    if draws.shape[1] < 4:
        raise ValueError(f"draws must hold at least 4 of each chain, got shape {draws.shape}")
    n = draws.shape[1] // 2
    return jnp.concatenate([draws[:, :n], draws[:, -n:]])


def _variances(x: Array) -> Array:
    return jnp.var(x, axis=1, ddof=1)

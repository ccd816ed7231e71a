"""Which of several equations explains the data better: evidence, and leaving one out."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from physml._numerics.calls import checked
from physml._numerics.checks import floating_array, is_concrete, require_finite, require_not_empty
from physml._numerics.units import max_of, min_of
from physml.bayes._posterior import Posterior

_SETTLED_DRAWS = 30  # shape parameters that the posterior mean of k is averaged over, at least


class LeaveOneOut(NamedTuple):
    """How well each observation is predicted by the posterior from all others.

    Attributes:
        elpd: the sum of the log densities of the observations, each predicted from the others.
        error: the standard error of `elpd`.
        pointwise: its terms, as the observations are laid out.
        pareto_k: how heavy the tails of the importance weights are; above 0.7 a term is
            unreliable.
        num_effective: the effective number of parameters.
    """

    elpd: float
    error: float
    pointwise: Float[np.ndarray, "n obs"]
    pareto_k: Float[np.ndarray, "n obs"]
    num_effective: float


@checked
def leave_one_out(belief: Posterior) -> LeaveOneOut:
    """Leave-one-out cross-validation without fitting anew, by smoothed importance sampling.

    Args:
        belief: a posterior by "nuts".

    Raises:
        ValueError: the posterior was traced, or is a batch.

    Source: A. Vehtari, A. Gelman, J. Gabry, "Practical Bayesian model evaluation using
    leave-one-out cross-validation and WAIC", Statistics and Computing 27 (2017).
    """
    if not is_concrete(belief.chains.q) or belief.chains.q.ndim != 3:
        raise ValueError("belief must be one posterior, neither traced nor a batch")
    log = belief.log_likelihood()
    flat = log.reshape(-1, log.shape[-2] * log.shape[-1])
    time = belief.chains.q.shape[0] * belief.chains.q.shape[1]
    worst = min(float(min_of(x)) for x in belief.ess.values())
    weights, k = pareto_smoothed(-flat, min(worst / time, 1.0))
    pointwise = jax.nn.logsumexp(weights + flat, axis=0)
    shape = log.shape[-2:]
    whole = jax.nn.logsumexp(flat, axis=0) - np.log(len(flat))
    terms = np.asarray(pointwise)
    return LeaveOneOut(
        elpd=float(terms.sum()),
        error=float(np.sqrt(terms.size * terms.var())),
        pointwise=terms.reshape(shape),
        pareto_k=np.asarray(k).reshape(shape),
        num_effective=float(jnp.sum(whole - pointwise)),
    )


@checked
def pareto_smoothed(
    log_ratios: Float[ArrayLike, "draws cases"], efficiency: float = 1.0
) -> tuple[Float[Array, "draws cases"], Float[Array, " cases"]]:
    """Importance weights whose largest follow a fitted Pareto distribution, and its shape k.

    Args:
        log_ratios: the logs of the importance ratios, up to a constant for each case.
        efficiency: effective draws over draws.

    Returns:
        The logs of the weights, which add up to one in each case, and k.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, or not finite.

    Source: A. Vehtari and others, "Pareto smoothed importance sampling", J. Mach. Learn. Res. 25
    (2024), arXiv 1507.02646; the fit is by J. Zhang, M. A. Stephens, Technometrics 51 (2009).
    """
    x = floating_array("log_ratios", log_ratios)
    require_finite("log_ratios", x)
    n = x.shape[0]
    x = x - max_of(x, axis=0, keepdims=True)
    tail = int(np.ceil(min(n / 5, 3 * np.sqrt(n / efficiency))))
    if tail < 5:
        raise ValueError(f"log_ratios must hold at least 25 draws, got {n}")

    def smooth(x: Array) -> tuple[Array, Array]:
        order = jnp.argsort(x)
        cut = x[order[n - tail - 1]]
        above = jnp.exp(x[order[n - tail :]]) - jnp.exp(cut)
        k, scale = _fit_pareto(above)
        share = jnp.asarray((np.arange(tail) + 0.5) / tail, x.dtype)
        rest = jnp.where(jnp.abs(k) < 1e-9, 1.0, k)
        quantiles = jnp.where(
            jnp.abs(k) < 1e-9, -jnp.log1p(-share), jnp.expm1(-rest * jnp.log1p(-share)) / rest
        )
        smoothed = jnp.minimum(jnp.log(scale * quantiles + jnp.exp(cut)), 0.0)
        smoothed = jnp.where(jnp.isfinite(k), smoothed, x[order[n - tail :]])
        x = x.at[order[n - tail :]].set(smoothed)
        return x - jax.nn.logsumexp(x), k

    return jax.jit(jax.vmap(smooth, in_axes=1, out_axes=(1, 0)))(x)


def _fit_pareto(x: Float[Array, " n"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Shape and scale of a generalised Pareto distribution from sorted excesses."""
    n = x.size
    count = _SETTLED_DRAWS + int(np.sqrt(n))
    quartile = x[int(n / 4 + 0.5) - 1]
    grid = jnp.arange(1, count + 1, dtype=x.dtype) - 0.5
    b = (1 - jnp.sqrt(count / grid)) / (3 * quartile) + 1 / x[-1]
    k = jnp.mean(jnp.log1p(-b[:, None] * x[None]), axis=1)
    likelihood = n * (jnp.log(-b / k) - k - 1)
    weights = jax.nn.softmax(likelihood)
    best = jnp.sum(b * weights)
    k = jnp.mean(jnp.log1p(-best * x))
    scale = -k / best
    return (k * n + 10 * 0.5) / (n + 10), scale  # a weak prior on k, as in the source


class Comparison(NamedTuple):
    """One of several models.

    Attributes:
        name: of the model.
        elpd: of `leave_one_out`.
        behind: how far its `elpd` is below the best one.
        behind_error: the standard error of the difference.
        pareto_k: the largest.
        log_evidence: by Laplace's method, NaN without priors for all unknowns.
    """

    name: str
    elpd: float
    behind: float
    behind_error: float
    pareto_k: float
    log_evidence: float


@checked
def compare(beliefs: Mapping[str, Posterior]) -> list[Comparison]:
    """Models of the same data, the best predictions first.

    Args:
        beliefs: posteriors by the model's name.

    Raises:
        ValueError: there are none, or their data differ.
    """
    require_not_empty(beliefs=list(beliefs))
    shapes = {belief.model.ys.shape for belief in beliefs.values()}
    if len(shapes) > 1:
        raise ValueError(f"beliefs must be about the same data, got shapes {sorted(shapes)}")
    found = {name: leave_one_out(belief) for name, belief in beliefs.items()}
    best = max(found.values(), key=lambda loo: loo.elpd)
    rows = []
    for name, loo in sorted(found.items(), key=lambda item: -item[1].elpd):
        gap = (best.pointwise - loo.pointwise).ravel()
        error = float(np.sqrt(gap.size * gap.var()))
        evidence = float(beliefs[name].log_evidence)
        rows.append(
            Comparison(name, loo.elpd, float(gap.sum()), error, loo.pareto_k.max(), evidence)
        )
    return rows

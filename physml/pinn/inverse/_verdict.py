"""What a fit is worth: whether its residuals are those of the noise, and how it ended."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from physml.pinn.inverse import _shooting as shooting
from physml.pinn.inverse._levenberg_marquardt import ShootingFit
from physml.pinn.inverse._shooting import ShootingProblem
from physml.results import RESULTS

NULL = 1e-12  # singular values up to this count as zero
_RESOLVED = 0.01  # the largest error of a window, in units of the noise
# The smallest noise, as a share of the data, that the windows have to resolve; and the smallest for
# which it is worth while to double their number.
_COARSEST, _FINEST = 1e-5, 1e-6
_MISFIT = 3.0  # the largest scatter of the data, in units of the noise that a smoother sees
CONTRADICTED = 2.6  # standard normal: by chance in one fit of a hundred, for both tests
_SILENT = 0.3  # residuals smaller than this share of the noise say nothing about it
_FEWEST = 10  # observations of a column that can contradict a noise


def residual_tests(
    values: Float[Array, "n obs"], r: Float[Array, "n obs"]
) -> dict[str, Float[Array, ""]]:
    r"""Two tests of residuals r in standard deviations, each standard normal if the noise is right.

    `growth` is Spearman's rank correlation of |r| and the size of the fitted value: the noise grows
    with the value. `memory` is the correlation of each residual with the next one: the model
    misses something that takes longer than a step, or the noise does.
    """
    n, columns = r.shape
    if n < _FEWEST:
        return {"growth": jnp.zeros(()), "memory": jnp.zeros(())}
    ranks = (jnp.argsort(jnp.argsort(jnp.abs(x), axis=0), axis=0) for x in (values, r))
    size, scatter = (rank.astype(r.dtype) - (n - 1) / 2 for rank in ranks)
    growth = jnp.sum(size * scatter, axis=0) / jnp.sum(size**2, axis=0)
    memory = jnp.sum(r[1:] * r[:-1], axis=0) / jnp.sum(r**2, axis=0)
    tests = {"growth": np.sqrt(n - 1) * growth, "memory": np.sqrt(n) * memory}
    # Residuals far below the noise, such as those of data without any, contradict nothing.
    small = jnp.mean(r**2) < _SILENT**2
    return {k: jnp.where(small, 0.0, jnp.sum(z) / np.sqrt(columns)) for k, z in tests.items()}


class Doubts(NamedTuple):
    """What speaks against a fit that converged.

    Attributes:
        coarse: the windows' own error shows beside the noise.
        noiseless: nothing is left to estimate the noise from.
        undetermined: the entries of p, then of the start, that the data do not determine.
        misfit: the residuals are much larger than the noise.
        contradicted: the residuals are not those of the noise that is assumed.
    """

    coarse: Bool[Array, ""]
    noiseless: bool
    undetermined: Bool[Array, " unknowns"]
    misfit: Bool[Array, ""]
    contradicted: Bool[Array, ""]

    def result(self, fitted: ShootingFit) -> RESULTS:
        """How the fit ended: the gravest doubt counts."""
        result = RESULTS.where(self.contradicted, RESULTS.noise_contradicted, RESULTS.successful)
        result = RESULTS.where(jnp.any(self.undetermined), RESULTS.unidentifiable, result)
        result = RESULTS.where(self.misfit, RESULTS.misfit, result)
        result = RESULTS.noise_unknown if self.noiseless else result
        result = RESULTS.where(self.coarse, RESULTS.unresolved, result)
        result = RESULTS.where(fitted.converged, result, RESULTS.not_converged)
        return RESULTS.where(jnp.isfinite(fitted.cost), result, RESULTS.nonfinite)


def doubts(
    problem: ShootingProblem,
    fitted: ShootingFit,
    covariance: Array,
    nulls: Bool[Array, " unknowns"],
    tests: dict[str, Array],
) -> Doubts:
    """What speaks against a fit; `nulls` are the unknowns in directions without any effect."""
    point, free = fitted.point, problem.prior[1] == 0
    freedom = problem.ys.size - problem.num_free
    known = problem.noise is not None
    if known:  # chi squared is eight standard deviations above its mean
        least = max(freedom, 1)
        misfit = fitted.cost > least + 8 * np.sqrt(2 * least)
    else:  # the unit is what a local smoother leaves of the data, which must be enough for it
        misfit = jnp.any(fitted.noise > _MISFIT * problem.first_noise[None]) & (
            len(problem.ys) > 20
        )
    # A residual no larger than the windows' own error does not speak against the equation.
    rough = jnp.sqrt(jnp.mean(shooting.residuals(problem, point) ** 2, axis=0)) / problem.size
    own = _MISFIT * jnp.max(shooting.window_errors(problem, point))
    free = jnp.concatenate([free, problem.start[1] == 0])
    sizes = jnp.maximum(problem.scales.p, jnp.abs(point.p))
    sizes = jnp.concatenate([sizes, problem.scales.y])
    vague = free & ~(jnp.sqrt(jnp.diagonal(covariance)) < sizes)
    return Doubts(
        coarse=coarseness(problem, fitted, _COARSEST) > 1,
        noiseless=not known and freedom <= 0,
        undetermined=vague | (nulls & jnp.all(free[: point.p.size])),
        misfit=misfit & jnp.any(rough > own),
        contradicted=jnp.maximum(tests["growth"], tests["memory"]) > CONTRADICTED,
    )


def coarseness(
    problem: ShootingProblem, fitted: ShootingFit, least_noise: float = _FINEST
) -> Float[Array, ""]:
    """The largest error of a window, in units of what does not show beside the noise.

    Args:
        least_noise: the smallest noise that counts, as a share of the data.
    """
    noise = jnp.sqrt(jnp.mean(fitted.noise**2, axis=0))
    shown = jnp.maximum(jnp.min(noise / problem.size), least_noise)
    return jnp.max(shooting.window_errors(problem, fitted.point)) / (_RESOLVED * shown)

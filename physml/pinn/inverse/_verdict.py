"""What a fit is worth: whether its residuals are those of the noise, and how it ended."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from physml._numerics.units import max_of, min_of
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
_SMOOTHABLE = 20  # observations of a column from which a smoother tells the noise
_RARE = 1e-3  # the smallest mean of a count
_FEWEST = 10  # observations of a column that can contradict a noise


def residual_tests(
    values: Float[Array, "n obs"],
    r: Float[Array, "n obs"],
    seen: Bool[ArrayLike, "n obs"] | None = None,
) -> dict[str, Float[Array, ""]]:
    r"""Two tests of residuals r in standard deviations, each standard normal if the noise is right.

    `growth` is Spearman's rank correlation of |r| and the size of the fitted value: the noise grows
    with the value. `memory` is the correlation of each residual with the next one: the model
    misses something that takes longer than a step, or the noise does.
    """
    seen = jnp.ones(r.shape, bool) if seen is None else jnp.asarray(seen)
    return _combined([_column_tests(values, r, seen)])


def tests_of_experiments(
    problem: ShootingProblem, values: Float[Array, "n obs"], r: Float[Array, "n obs"]
) -> dict[str, Float[Array, ""]]:
    """The tests of each experiment's residuals, together, where counts are not small.

    `spread` is standard normal if counts scatter as Poisson's distribution says, small ones too.
    """
    data = problem.data
    tested = jnp.asarray(data.seen) & data.likelihood.testable(values)
    blocks = (slice(*rows) for rows in data.rows)
    tests = _combined([_column_tests(values[own], r[own], tested[own]) for own in blocks])
    counts = jnp.asarray(data.seen) & data.likelihood.are_counts()
    left = max(data.count - problem.num_free, 0) / data.count  # of each square, on average
    variance = jnp.sum(jnp.where(counts, 2 + 1 / jnp.maximum(values, _RARE), 0.0))
    surplus = jnp.sum(jnp.where(counts, r**2 - left, 0.0))
    return {**tests, "spread": surplus / jnp.sqrt(jnp.maximum(variance, 1.0))}


def _column_tests(values: Array, r: Array, seen: Array) -> tuple[Array, Array, Array, Array]:
    """Both tests of each column, the number of its residuals and the sum of their squares."""
    count = jnp.sum(seen, axis=0).astype(r.dtype)

    def ranks(x):
        order = jnp.where(seen, jnp.abs(x), jnp.inf)
        rank = jnp.argsort(jnp.argsort(order, axis=0), axis=0).astype(r.dtype)
        rank = rank - (count[None] - 1) / 2
        return jnp.where(seen, rank, 0.0)

    size, scatter = ranks(values), ranks(r)
    r = jnp.take_along_axis(jnp.where(seen, r, 0.0), jnp.argsort(~seen, axis=0, stable=True), 0)
    squares = jnp.sum(r**2, axis=0)
    growth = jnp.sum(size * scatter, axis=0) / jnp.maximum(jnp.sum(size**2, axis=0), 1.0)
    memory = jnp.sum(r[1:] * r[:-1], axis=0) / jnp.where(squares > 0, squares, 1.0)
    root = jnp.sqrt(jnp.maximum(count - 1, 0.0))
    return root * growth, jnp.sqrt(count) * memory, count, squares


def _combined(columns: list[tuple[Array, Array, Array, Array]]) -> dict[str, Float[Array, ""]]:
    """The tests of all columns that have enough residuals of a noise, as one."""
    growth, memory, count, squares = map(jnp.concatenate, zip(*columns, strict=True))
    # Residuals far below the noise, such as those of a column without any, contradict nothing.
    enough = (count >= _FEWEST) & (squares >= _SILENT**2 * count)
    number = jnp.maximum(jnp.sum(enough), 1).astype(count.dtype)
    joined = (jnp.sum(jnp.where(enough, z, 0.0)) / jnp.sqrt(number) for z in (growth, memory))
    return dict(zip(("growth", "memory"), joined, strict=True))


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
    point, data = fitted.point, problem.data
    freedom = data.count - problem.num_free
    known = data.likelihood.is_known
    white = shooting.whitened_at_data(problem, point, fitted.scale)
    if known:  # chi squared is eight standard deviations above its mean
        least = max(freedom, 1)
        squares = jnp.sum(jnp.where(data.seen, white.r**2, 0.0))
        if problem.loss != "squares":
            squares = fitted.cost
        misfit = squares > least + 8 * np.sqrt(2 * least)
    else:  # the unit is what a local smoother leaves of the data, which must be enough for it
        large = jnp.where(data.seen, fitted.scale > _MISFIT * problem.first_scale, False)
        misfit = jnp.any(large & _in_columns_of(problem, _SMOOTHABLE))
    # A residual no larger than the windows' own error does not speak against the equation.
    residual = shooting.values_at_data(problem, point) - problem.ys
    rough = _by_columns(problem, (residual / problem.size) ** 2)
    own = _MISFIT * max_of(shooting.window_errors(problem, point))
    free = jnp.repeat(~jnp.asarray(problem.starts.held), point.s.shape[1])
    free = jnp.concatenate([problem.prior[1] == 0, free])
    sizes = jnp.maximum(problem.scales.p, jnp.abs(point.p))
    sizes = jnp.concatenate([sizes, jnp.ravel(problem.scales.y)])
    vague = free & ~(jnp.sqrt(jnp.diagonal(covariance)) < sizes)
    return Doubts(
        coarse=coarseness(problem, fitted, _COARSEST) > 1,
        noiseless=not known and freedom <= 0,
        undetermined=vague | (nulls & jnp.all(free[: point.p.size])),
        misfit=misfit & jnp.any(jnp.where(jnp.isfinite(rough), rough, 0.0) > own),
        contradicted=max_of(jnp.stack(list(tests.values()))) > CONTRADICTED,
    )


def _in_columns_of(problem: ShootingProblem, least: int) -> Bool[Array, "n obs"]:
    """Which observations are in a column of an experiment that has more than `least` of them."""
    data = problem.data
    seen = [jnp.asarray(data.seen)[slice(*rows)] for rows in data.rows]
    many = (jnp.sum(own, axis=0) > least for own in seen)
    return jnp.concatenate(
        [jnp.broadcast_to(x[None], own.shape) for x, own in zip(many, seen, strict=True)]
    )


def _by_columns(
    problem: ShootingProblem, squares: Float[Array, "n obs"]
) -> Float[Array, "experiments obs"]:
    """The root mean square of each experiment's columns; infinite where nothing was seen."""
    data = problem.data
    seen, squares = jnp.asarray(data.seen), jnp.where(data.seen, squares, 0.0)
    blocks = [slice(*rows) for rows in data.rows]
    total, count = (jnp.stack([jnp.sum(x[own], axis=0) for own in blocks]) for x in (squares, seen))
    return jnp.where(
        count > 0, jnp.sqrt(total / jnp.maximum(count, 1).astype(total.dtype)), jnp.inf
    )


def coarseness(
    problem: ShootingProblem, fitted: ShootingFit, least_noise: float = _FINEST
) -> Float[Array, ""]:
    """The largest error of a window, in units of what does not show beside the noise.

    Args:
        least_noise: the smallest noise that counts, as a share of the data.
    """
    slope = shooting.whitened_at_data(problem, fitted.point, fitted.scale).slope
    noise = _by_columns(problem, 1 / (slope * problem.size) ** 2)
    shown = jnp.maximum(min_of(noise), least_noise)
    return max_of(shooting.window_errors(problem, fitted.point)) / (_RESOLVED * shown)

"""How well parameters are known: covariance, intervals, likelihood profiles, a verdict."""

import dataclasses
import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Float, Int

from physml._numerics.blas import single_threaded_blas
from physml._numerics.checks import is_concrete
from physml.pinn.inverse import _shooting as shooting
from physml.pinn.inverse._parameters import Parameters
from physml.results import RESULTS
from physml.solution import Solution
from physml.systems import System

FINEST = 1e-5  # noise assumed at least, relative to the data
_RESOLVED = 0.01  # the equation's residual in a window, at most, in units of the noise
_MISFIT = 3.0  # times the noise that a local smoother sees
_NULL = 1e-12  # a singular value that stands for zero
_EXACT = 1e8  # the weight of a row that has to hold, in standard deviations


class Identified(eqx.Module):
    """Parameters and a start with their uncertainty, and the system and solution they give.

    Attributes:
        estimate: all parameters' entries in the order of `free`; `values` has them by name.
        y0: the state at the start.
        covariance: of the entries of `estimate`, then of y0.
        singular_values: of the Jacobian with columns of norm 1, in the same unknowns: one near
            zero is a combination of them that the data do not tell.
        noise: the standard deviation of each observed column: as given, or estimated.
        residuals: h(u) - data, shape (n, obs).
        cost: what was minimised, the sum of rho(residual / noise) and of the prior's squares.
        system, args: with the values in place, so that `solve(found.system, found.y0, t1,
            args=found.args)` continues.
        solution: the window networks on the observed interval; `ys` at the observations. Its
            error estimate is that of the solution for these parameters and this start, which are
            what the data leave open; there is none where the equation jumps.
        result: one of `RESULTS`.
        degrees_of_freedom: infinite where the noise is known.
        stats: counts.
    """

    estimate: Float[Array, "*batch p"]  # all parameters' entries
    y0: Float[Array, " dim"]
    covariance: Float[Array, "unknowns unknowns"]
    singular_values: Float[Array, " unknowns"]
    noise: Float[Array, " obs"]
    residuals: Float[Array, "n obs"]
    cost: Float[Array, ""]
    system: System
    args: Any
    solution: Solution
    result: RESULTS
    degrees_of_freedom: float = eqx.field(static=True)
    stats: dict[str, Int[Array, ""]]
    parameters: Parameters
    problem: shooting.Problem
    fitted: shooting.Fitted

    @property
    def values(self) -> dict[str, Array]:
        """The parameters by name."""
        return self.parameters.split(self.estimate)

    @property
    def sd(self) -> dict[str, Array]:
        """Standard deviations of the parameters by name, within bounds to first order."""
        return self.parameters.split(self._sd[..., : self.estimate.shape[-1]])

    @property
    def y0_sd(self) -> Float[Array, "*batch dim"]:
        """Standard deviations of the start."""
        return self._sd[..., self.estimate.shape[-1] :]

    @property
    def _sd(self) -> Float[Array, "*batch unknowns"]:
        return jnp.sqrt(jnp.diagonal(self.covariance, axis1=-2, axis2=-1))

    def intervals(self, level: float = 0.95) -> dict[str, tuple[Array, Array]]:
        """By name, (low, high) of a confidence interval.

        Normal, or Student's t where the noise is estimated; of a parameter within bounds it is
        taken before the transform, so that it keeps to them.
        """
        quantile = _quantile(level, self.degrees_of_freedom)
        p, parameters = self.fitted.point.p, self.parameters
        away = quantile * self._sd[..., : p.shape[-1]] / parameters.slope(p)
        low, high = (parameters.split(parameters.constrain(p + x)) for x in (-away, away))
        return {name: (low[name], high[name]) for name in parameters.names}

    def y0_interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """(low, high) of the start's components, as for `intervals`."""
        away = _quantile(level, self.degrees_of_freedom) * self.y0_sd
        return self.y0 - away, self.y0 + away


def _quantile(level: float, freedom: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    return float(scipy.stats.t.ppf(0.5 + level / 2, freedom))


def summarise(
    parameters: Parameters, problem: shooting.Problem, fitted: shooting.Fitted, solution: Solution
) -> Identified:
    """What a fit says; called under `jax.jit`."""
    point = fitted.point
    scale = shooting.estimate_scale(problem, point)
    freedom = max(problem.ys.size - problem.num_free, 1)
    covariance, singular = _covariance(problem, point, scale, freedom)
    # To first order; intervals are mapped instead.
    slope = jnp.concatenate([parameters.slope(point.p), jnp.ones_like(point.s[0])])
    cost = shooting.data_cost(problem, point, scale)
    noise = problem.noise * scale
    if problem.known_noise:  # chi squared, eight of its standard deviations out
        misfit = cost > freedom + 8 * np.sqrt(2 * freedom)
    else:  # the unit is what a local smoother leaves, which needs some data to smooth
        misfit = (scale > _MISFIT) & (problem.ys.shape[0] > 20)
    relative = jnp.min(noise) / jnp.sqrt(jnp.mean(problem.ys**2))
    coarse = jnp.max(solution.stats["residuals"]) > _RESOLVED * jnp.maximum(relative, FINEST)
    free = problem.prior[1] == 0
    sd = jnp.sqrt(jnp.diagonal(covariance))[: point.p.size]
    vague = jnp.any(free & ~(sd < jnp.maximum(problem.typical_p, jnp.abs(point.p))))
    degenerate = jnp.all(free) & ~(singular[-1] > _NULL)
    choose: Any = RESULTS.where  # its annotations take a member for a plain literal
    result = choose(vague | degenerate, RESULTS.unidentifiable, RESULTS.successful)
    result = choose(misfit, RESULTS.misfit, result)
    result = choose(coarse, RESULTS.unresolved, result)
    result = choose(fitted.converged, result, RESULTS.not_converged)
    result = choose(jnp.isfinite(fitted.cost), result, RESULTS.nonfinite)
    system, args = parameters.at(point.p)
    exact = problem.known_noise and problem.loss == "squares"
    return Identified(
        estimate=parameters.constrain(point.p),
        y0=point.s[0],
        covariance=covariance * jnp.outer(slope, slope),
        singular_values=singular,
        noise=noise,
        residuals=jax.vmap(problem.observe)(solution.ys) - problem.ys,
        cost=cost,
        system=system,
        args=args,
        solution=solution,
        result=result,
        degrees_of_freedom=np.inf if exact else float(freedom),
        stats={"num_iterations": fitted.num_iterations},
        parameters=parameters,
        problem=problem,
        fitted=fitted,
    )


def _covariance(
    problem: shooting.Problem, point: shooting.Point, scale: Array, freedom: int
) -> tuple[Array, Array]:
    """Of p and the start, by a singular value decomposition; and the singular values."""
    with jax.default_matmul_precision("highest"):
        still = jnp.zeros((), scale.dtype)
        hard = shooting.last_coupling(problem, scale)
        step = shooting.linear_solve(problem, point, scale, hard, still, robust=False)
    triangle = jnp.roll(step.triangle, point.p.size, axis=1)  # p first, then the start
    norms = jnp.linalg.norm(triangle, axis=0)
    norms = jnp.where(norms > 0, norms, 1.0)
    _, singular, right = jnp.linalg.svd(triangle / norms[None])
    half = right.T / jnp.maximum(singular, _NULL)[None] / norms[:, None]
    covariance = half @ half.T
    if problem.loss == "squares":
        return covariance, singular
    # Of an M-estimator: P. Huber, Robust Statistics (1981), section 7.6.
    r = point.linear.residual / scale
    _, weight, curvature = shooting.weigh(problem.loss, r)
    mean = jnp.sum(jnp.where(shooting.used_rows(problem), curvature, 0.0)) / problem.ys.size
    return covariance * jnp.sum((weight * r) ** 2) / freedom / mean**2, singular


def judge(found: Identified, throw: bool) -> Identified:
    """The verdict as an error, if asked for, or as a warning."""
    failures = (RESULTS.nonfinite, RESULTS.not_converged, RESULTS.unresolved)
    if found.result != RESULTS.successful:
        message = f"pinn.identify: {RESULTS[found.result]}"
        if throw and found.result in failures:
            raise RuntimeError(message)
        warnings.warn(message, stacklevel=3)
    return found


class Profile(NamedTuple):
    r"""The profile likelihood of one parameter.

    $D(v) = -2 \log (\max_{\text{others}} L(v, \cdot) / \max L)$: zero at the best value, and
    parabolic where the problem is as good as linear.
    """

    name: str
    values: np.ndarray
    deviance: np.ndarray

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Where D crosses the quantile of chi squared, interpolated; infinite if it does not."""
        bound = scipy.stats.chi2.ppf(level, 1)
        inside = np.flatnonzero(self.deviance <= bound)
        if not inside.size:
            raise ValueError("values of the profile are too far apart: none is within the level")
        ends = []
        for i, step in ((inside[0], -1), (inside[-1], 1)):
            j = i + step
            if not 0 <= j < len(self.values):
                ends.append(step * np.inf)
                continue
            share = (bound - self.deviance[i]) / (self.deviance[j] - self.deviance[i])
            ends.append(float(self.values[i] + share * (self.values[j] - self.values[i])))
        return ends[0], ends[1]


def profile(found: Identified, name: str, num: int = 15, span: float = 3.0) -> Profile:
    """The likelihood of one parameter with all other unknowns fitted anew at each of its values.

    Args:
        found: what `identify` returned.
        name: a free parameter that is a single number.
        num: the number of values.
        span: standard deviations to either side.

    Raises:
        ValueError: there is no such parameter, or the identification was traced.
        RuntimeError: a fit did not converge.
    """
    names, shapes = found.parameters.names, found.parameters.shapes
    if name not in names or shapes[names.index(name)] != ():
        single = [n for n, shape in zip(names, shapes, strict=True) if shape == ()]
        raise ValueError(f"name must be one of {single}, single free parameters, got {name!r}")
    if not is_concrete(found.cost) or found.cost.ndim:
        raise ValueError("found must be one identification, neither traced nor a batch")
    index = sum(int(np.prod(shape)) for shape in shapes[: names.index(name)])
    offsets = jnp.asarray(np.linspace(-span, span, num))
    with single_threaded_blas():
        values, costs, converged = jax.block_until_ready(
            _profile(found, jnp.asarray(index), offsets)
        )
    if not bool(converged.all()):
        raise RuntimeError(f"profile of {name}: {int((~converged).sum())} of {num} fits failed")
    deviance = np.asarray(costs) - float(found.cost)
    if np.isfinite(found.degrees_of_freedom) and found.problem.loss == "squares":
        # The noise is fitted as well: n log of the sums' ratio.
        deviance = found.residuals.size * np.log1p(deviance / float(found.cost))
    return Profile(name, np.asarray(values), np.maximum(deviance, 0.0))


@eqx.filter_jit
def _profile(found: Identified, index: Array, offsets: Array) -> tuple[Array, Array, Array]:
    point, problem = found.fitted.point, found.problem
    mean, weight = problem.prior
    sd = jnp.sqrt(found.covariance[index, index]) / found.parameters.slope(point.p)[index]

    def at(offset):
        p = point.p.at[index].add(offset * sd)
        prior = mean.at[index].set(p[index]), weight.at[index].set(_EXACT / sd)
        fixed = dataclasses.replace(problem, prior=prior, noise=found.noise, known_noise=True)
        fitted = shooting.fit(fixed, p, point.s, 300)
        return found.parameters.constrain(p)[index], fitted.cost, fitted.converged

    return jax.lax.map(at, offsets)

"""Identified parameters, with their covariance, intervals and a verdict."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from physml._numerics.calls import checked, summary
from physml._numerics.checks import is_concrete
from physml.pinn.inverse import _shooting as shooting
from physml.pinn.inverse._levenberg_marquardt import ShootingFit
from physml.pinn.inverse._parameters import Parameters
from physml.pinn.inverse._shooting import ShootingProblem
from physml.results import RESULTS
from physml.solution import Solution
from physml.systems import System

FINEST = 1e-5  # the smallest noise that is assumed, relative to the data
_RESOLVED = 0.01  # the largest residual of the equation in a window, in units of the noise
_MISFIT = 3.0  # the largest scatter of the data, in units of the noise that a smoother sees
_NULL = 1e-12  # singular values up to this count as zero


class Identified(eqx.Module):
    """Parameters and a start with their uncertainty, and the system and solution they give.

    Attributes:
        estimate: the entries of all parameters in the order of `free`; `values` has them by name.
        y0: the state at the start.
        covariance: the covariance of the entries of `estimate`, then of `y0`.
        singular_values: those of the Jacobian in these unknowns, with columns of norm 1. A value
            near zero means that the data do not determine some combination of the unknowns.
        noise: the standard deviation of each observed column, as given or estimated.
        residuals: h(u) - data.
        cost: the minimised sum of rho(residual / noise) and of the prior's squares.
        system, args: the equation with the values in place, so that `solve(found.system, found.y0,
            t1, args=found.args)` goes on.
        solution: the window networks on the observed interval; `ys` at the observations. Its error
            estimate holds for these parameters and this start, and does not contain their
            uncertainty. An equation that jumps has no estimate.
        result: one of `RESULTS`.
        degrees_of_freedom: infinite where the noise is known.
        stats: the number of iterations.
        problem, fitted: what was minimised, and where the iteration ended.
    """

    estimate: Float[Array, "*batch p"]
    y0: Float[Array, " dim"]
    covariance: Float[Array, "unknowns unknowns"]
    singular_values: Float[Array, " unknowns"]
    noise: Float[Array, " obs"]
    residuals: Float[Array, "n obs"]
    cost: Float[Array, ""]
    system: System
    args: PyTree
    solution: Solution
    result: RESULTS
    degrees_of_freedom: float = eqx.field(static=True)
    stats: dict[str, Int[Array, ""]]
    problem: ShootingProblem
    fitted: ShootingFit

    @property
    def parameters(self) -> Parameters:
        """The free parameters, with their bounds."""
        return self.problem.field

    def __repr__(self) -> str:
        if not (isinstance(self.estimate, jax.Array) and is_concrete(self.estimate)):
            return super().__repr__()
        sd, values = self.sd, self.values
        single = self.estimate.ndim == 1
        facts = {
            **{
                name: f"{float(value):.6g} ± {float(sd[name]):.2g}"
                if single and value.ndim == 0
                else f"an array of shape {value.shape}"
                for name, value in values.items()
            },
            "noise": self.noise,
            "result": RESULTS[self.result],
        }
        return summary("Identified parameters, with standard deviations", facts)

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

    @checked
    def intervals(self, level: float = 0.95) -> dict[str, tuple[Array, Array]]:
        """By name, (low, high) of a confidence interval.

        The distribution is normal, or Student's t where the noise is estimated. The interval of
        a parameter with bounds is transformed as the parameter is, so that it lies within them.
        """
        quantile = _quantile(level, self.degrees_of_freedom)
        p, parameters = self.fitted.point.p, self.parameters
        away = quantile * self._sd[..., : p.shape[-1]] / parameters.slope(p)
        low, high = (parameters.split(parameters.constrain(p + x)) for x in (-away, away))
        return {name: (low[name], high[name]) for name in parameters.names}

    @checked
    def y0_interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """(low, high) of the start's components, by the same distribution as `intervals`."""
        away = _quantile(level, self.degrees_of_freedom) * self.y0_sd
        return self.y0 - away, self.y0 + away


def _quantile(level: float, freedom: float) -> float:
    import scipy.stats  # half a second: only where it is needed

    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    return float(scipy.stats.t.ppf(0.5 + level / 2, freedom))


def summarise(problem: ShootingProblem, fitted: ShootingFit, solution: Solution) -> Identified:
    """The estimates of a fit with their uncertainty and a verdict; called under `jax.jit`."""
    parameters, point = problem.field, fitted.point
    scale = shooting.estimate_scale(problem, point)
    freedom = max(problem.ys.size - problem.num_free, 1)
    covariance, singular = _covariance(problem, fitted, scale, freedom)
    # Within bounds the covariance is right to first order.
    slope = jnp.concatenate([parameters.slope(point.p), jnp.ones_like(point.s[0])])
    cost = shooting.data_cost(problem, point, scale)
    noise = problem.noise * scale
    if problem.known_noise:  # chi squared is eight standard deviations above its mean
        misfit = cost > freedom + 8 * np.sqrt(2 * freedom)
    else:  # the unit is what a local smoother leaves of the data, which must be enough for it
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
        problem=problem,
        fitted=fitted,
    )


def _covariance(
    problem: ShootingProblem, fitted: ShootingFit, scale: Array, freedom: int
) -> tuple[Array, Array]:
    """The covariance of p and the start, and the Jacobian's singular values."""
    point = fitted.point
    triangle = jnp.roll(fitted.triangle, point.p.size, axis=1)  # p first, then the start
    norms = jnp.linalg.norm(triangle, axis=0)
    norms = jnp.where(norms > 0, norms, 1.0)
    _, singular, right = jnp.linalg.svd(triangle / norms[None])
    half = right.T / jnp.maximum(singular, _NULL)[None] / norms[:, None]
    covariance = half @ half.T
    if problem.loss == "squares":
        return covariance, singular
    # The covariance of an M-estimator: P. Huber, Robust Statistics (1981), section 7.6.
    r = point.linear.residual / scale
    _, weight, curvature = shooting.weigh(problem.loss, r)
    mean = jnp.sum(jnp.where(shooting.used_rows(problem), curvature, 0.0)) / problem.ys.size
    return covariance * jnp.sum((weight * r) ** 2) / freedom / mean**2, singular

"""Identified parameters, with their covariance, intervals and a verdict."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from physml._numerics.calls import checked, summary
from physml._numerics.checks import is_concrete, require_inner_share
from physml.pinn.collocation import Parameters
from physml.pinn.inverse import _shooting as shooting
from physml.pinn.inverse._levenberg_marquardt import ShootingFit
from physml.pinn.inverse._shooting import ShootingProblem
from physml.pinn.inverse._verdict import CONTRADICTED, NULL, coarseness, doubts, residual_tests
from physml.results import RESULTS
from physml.solution import Solution
from physml.systems import System

_SHARE = 0.1  # of a direction without any effect, from which an unknown counts as part of it


class Identified(eqx.Module):
    """Parameters and a start with their uncertainty, and the system and solution they give.

    Attributes:
        estimate: the entries of all parameters in the order of `free`; `values` has them by name.
        y0: the state at the start.
        covariance: the covariance of the entries of `estimate`, then of `y0`.
        singular_values: those of the Jacobian in these unknowns, with columns of norm 1. A value
            near zero means that the data do not determine some combination of the unknowns.
        undetermined: which of these unknowns the data do not determine.
        noise: the noise's standard deviation for each observed column, or for each observation
            where it was given so, as given or estimated. It is at least a millionth of the
            data's standard deviation where it is estimated, and a hundredth of that where it is
            given.
        residuals: h(u) - data.
        cost: the minimised sum of rho(residual / noise) and of the prior's squares.
        system, args: the equation with the values in place, so that `solve(found.system, found.y0,
            t1, args=found.args)` goes on.
        solution: the window networks on the observed interval; `ys` at the observations. Its error
            estimate holds for these parameters and this start, and does not contain their
            uncertainty. An equation that jumps has no estimate.
        result: one of `RESULTS`.
        degrees_of_freedom: infinite where the noise is known. If none is left to estimate the
            noise from, the covariance and the intervals are infinite.
        stats: the number of iterations; `growth` and `memory`, by which the residuals contradict
            the noise, see `residual_tests`; `coarseness`, the windows' own error in units of what
            does not show beside the noise.
        problem, fitted: what was minimised, and where the iteration ended.
    """

    estimate: Float[Array, "*batch p"]
    y0: Float[Array, " dim"]
    covariance: Float[Array, "unknowns unknowns"]
    singular_values: Float[Array, " unknowns"]
    undetermined: Bool[Array, " unknowns"]
    noise: Float[Array, "*rows obs"]
    residuals: Float[Array, "n obs"]
    cost: Float[Array, ""]
    system: System
    args: PyTree
    solution: Solution
    result: RESULTS
    degrees_of_freedom: float = eqx.field(static=True)
    stats: dict[str, Array]
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
    def undetermined_names(self) -> tuple[str, ...]:
        """The parameters, and components of the start, that the data do not determine."""
        names = []
        for name, shape in zip(self.parameters.names, self.parameters.shapes, strict=True):
            entries = np.ndindex(shape)
            names += [f"{name}[{', '.join(map(str, i))}]" if i else name for i in entries]
        names += [f"y0[{i}]" for i in range(self.y0.shape[-1])]
        return tuple(np.array(names)[np.asarray(self.undetermined)].tolist())

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


def in_words(found: Identified) -> str:
    """What a concrete fit's verdict is about, and the remedy."""
    names = ", ".join(found.undetermined_names)
    if found.result == RESULTS.unidentifiable:
        return f"Not determined: {names}."
    if found.result == RESULTS.unresolved:
        error = float(np.max(np.asarray(found.solution.stats["errors"])))
        return f"The error is {error:.1e} of the states in a window: give more num_windows."
    if found.result != RESULTS.noise_contradicted:
        return ""
    words = []
    if found.stats["growth"] > CONTRADICTED:
        words.append(
            "They grow with the observed value: give the noise as a function of it, such as "
            "noise=lambda y: 0.1 * y, or fit the logarithm with observe=jnp.log."
        )
    if found.stats["memory"] > CONTRADICTED:
        words.append(
            "Each resembles the one before it: the model misses something, or the noise has a "
            "memory, and then fewer observations that lie further apart give the right intervals."
        )
    return " ".join(words)


def _quantile(level: float, freedom: float) -> float:
    import scipy.stats  # half a second: only where it is needed

    require_inner_share(level=level)
    if not freedom:
        return 1.0  # the standard deviations are infinite
    return float(scipy.stats.t.ppf(0.5 + level / 2, freedom))


def summarise(problem: ShootingProblem, fitted: ShootingFit, solution: Solution) -> Identified:
    """The estimates of a fit with their uncertainty and a verdict; called under `jax.jit`."""
    parameters, point = problem.field, fitted.point
    freedom = problem.ys.size - problem.num_free
    covariance, singular, nulls = _covariance(problem, fitted)
    residuals = shooting.residuals(problem, point)
    tests = residual_tests(problem.ys + residuals, residuals / fitted.noise)
    doubt = doubts(problem, fitted, covariance, nulls, tests)
    if doubt.noiseless:  # infinite but for a start that is known
        unknown = jnp.concatenate([jnp.ones(point.p.size, bool), problem.start[1] == 0])
        covariance = jnp.where(jnp.outer(unknown, unknown), jnp.inf, 0.0)
    # Within bounds the covariance is right to first order.
    slope = jnp.concatenate([parameters.slope(point.p), jnp.ones_like(point.s[0])])
    system, args = parameters.at(point.p)
    exact = problem.noise is not None and problem.loss == "squares"
    return Identified(
        estimate=parameters.constrain(point.p),
        y0=point.s[0],
        covariance=covariance * jnp.outer(slope, slope),
        singular_values=singular,
        undetermined=doubt.undetermined,
        noise=fitted.noise[0] if len(fitted.noise) == 1 else fitted.noise,
        residuals=residuals,
        cost=fitted.cost,
        system=system,
        args=args,
        solution=solution,
        result=doubt.result(fitted),
        degrees_of_freedom=np.inf if exact else float(max(freedom, 0)),
        stats={
            "num_iterations": fitted.num_iterations,
            "coarseness": coarseness(problem, fitted),
            **tests,
        },
        problem=problem,
        fitted=fitted,
    )


def _covariance(
    problem: ShootingProblem, fitted: ShootingFit
) -> tuple[Array, Array, Bool[Array, " unknowns"]]:
    """The covariance of p and the start, the Jacobian's singular values, and what it ignores."""
    point = fitted.point
    triangle = jnp.roll(fitted.triangle, point.p.size, axis=1)  # p first, then the start
    norms = jnp.linalg.norm(triangle, axis=0)
    norms = jnp.where(norms > 0, norms, 1.0)
    _, singular, right = jnp.linalg.svd(triangle / norms[None])
    half = right.T / jnp.maximum(singular, NULL)[None] / norms[:, None]
    covariance = half @ half.T
    nulls = jnp.any(~(singular > NULL)[:, None] & (jnp.abs(right) > _SHARE), axis=0)
    if problem.loss == "squares":
        return covariance, singular, nulls
    # The covariance of an M-estimator: P. Huber, Robust Statistics (1981), section 7.6.
    r = shooting.standardised(problem, point, fitted.noise)
    _, weight, curvature = shooting.weigh(problem.loss, r)
    mean = jnp.sum(jnp.where(shooting.used_rows(problem), curvature, 0.0)) / problem.ys.size
    freedom = max(problem.ys.size - problem.num_free, 1)
    return covariance * jnp.sum((weight * r) ** 2) / freedom / mean**2, singular, nulls

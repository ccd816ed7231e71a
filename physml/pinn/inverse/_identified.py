"""Identified parameters, with their covariance, intervals and a verdict."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from physml._numerics.calls import checked, summary
from physml._numerics.checks import is_concrete, require_inner_share
from physml._numerics.units import max_of
from physml.pinn.collocation import Parameters
from physml.pinn.inverse import _shooting as shooting
from physml.pinn.inverse._levenberg_marquardt import ShootingFit
from physml.pinn.inverse._shooting import ShootingProblem
from physml.pinn.inverse._verdict import (
    CONTRADICTED,
    NULL,
    coarseness,
    doubts,
    tests_of_experiments,
)
from physml.results import RESULTS
from physml.solution import Solution, as_written
from physml.systems import System
from physml.systems.states import Form

_SHARE = 0.1  # of a direction without any effect, from which an unknown counts as part of it


class FittedExperiment(eqx.Module):
    """What was found of one experiment.

    Attributes:
        y0: the state at its start.
        y0_covariance: of `y0`; zero where the start is known.
        noise: the scale of the noise for each observed column, or for each observation where it
            is not the same for all: a standard deviation of normal noise. It is at least a
            millionth of the data's standard deviation where it is estimated, and a hundredth of
            that where it is given. It is 1 of noise without a scale.
        residuals: h(u) - data; NaN where nothing was seen.
        system, args: the equation with the values in place, so that `solve(found.system, found.y0,
            t1, args=found.args)` goes on.
        solution: the window networks on the observed interval; `ys` at the observations. Its error
            estimate holds for these parameters and this start, and does not contain their
            uncertainty. An equation that jumps has no estimate.
    """

    y0: Float[Array, "*batch dim"]
    y0_covariance: Float[Array, "*batch dim dim"]
    noise: Float[Array, "*rows obs"]
    residuals: Float[Array, "*batch n obs"]
    system: System
    args: PyTree
    solution: Solution

    def __repr__(self) -> str:
        if not (isinstance(self.y0, jax.Array) and is_concrete(self.y0) and self.y0.ndim == 1):
            return super().__repr__()
        starts = zip(self.system.state_names, self.y0, self.y0_sd, strict=True)
        facts = {name: f"{float(x):.6g} ± {float(sd):.2g}" for name, x, sd in starts}
        seen = int(jnp.sum(~jnp.isnan(self.residuals)))
        facts |= {"noise": self.noise, "observations": str(seen)}
        return summary("Experiment, its start with standard deviations", facts)

    @property
    def y0_sd(self) -> Float[Array, "*batch dim"]:
        """Standard deviations of the start."""
        return jnp.sqrt(jnp.diagonal(self.y0_covariance, axis1=-2, axis2=-1))


class Identified(eqx.Module):
    """Parameters and starts with their uncertainty, and the systems and solutions they give.

    What belongs to one experiment is in `experiments`. Where there is only one, it is at hand here
    as well: `y0`, `y0_sd`, `noise`, `residuals`, `solution`.

    Attributes:
        estimate: the entries of all parameters in the order of `free`; `values` has them by name.
        experiments: what was found of each experiment.
        covariance: the covariance of the entries of `estimate`, then of the starts, one after the
            other.
        singular_values: those of the Jacobian in these unknowns, with columns of norm 1. A value
            near zero means that the data do not determine some combination of the unknowns.
        undetermined: which of these unknowns the data do not determine.
        cost: the minimised sum: minus twice the log of the likelihood, up to a constant, and the
            prior's squares; of normal noise the sum of rho(residual / noise).
        result: one of `RESULTS`.
        degrees_of_freedom: infinite where the noise is known. If none is left to estimate the
            noise from, the covariance and the intervals are infinite.
        stats: the number of iterations; `growth` and `memory`, by which the residuals contradict
            the noise, see `residual_tests`; `spread`, by which counts do; `coarseness`, the
            windows' own error in units of what does not show beside the noise.
        problem, fitted: what was minimised, and where the iteration ended.
    """

    estimate: Float[Array, "*batch p"]
    experiments: tuple[FittedExperiment, ...]
    covariance: Float[Array, "unknowns unknowns"]
    singular_values: Float[Array, " unknowns"]
    undetermined: Bool[Array, " unknowns"]
    cost: Float[Array, ""]
    result: RESULTS
    degrees_of_freedom: float = eqx.field(static=True)
    stats: dict[str, Array]
    problem: ShootingProblem
    fitted: ShootingFit

    def as_written(self, form: Form) -> "Identified":
        """What was found, with solutions whose states are as the user writes them."""
        if form == Form():
            return self
        fitted = tuple(
            dataclasses.replace(x, solution=as_written(x.solution, form)) for x in self.experiments
        )
        return dataclasses.replace(self, experiments=fitted)

    def _only(self, name: str) -> FittedExperiment:
        first, *others = self.experiments
        if others:
            raise AttributeError(
                f"each of {len(self.experiments)} experiments has its own {name}: ask for "
                f"experiments[0].{name}"
            )
        return first

    @property
    def y0(self) -> Float[Array, "*batch dim"]:
        """The state at the start of the only experiment."""
        return self._only("y0").y0

    @property
    def y0_sd(self) -> Float[Array, "*batch dim"]:
        """Standard deviations of the start of the only experiment."""
        return self._only("y0_sd").y0_sd

    @property
    def noise(self) -> Float[Array, "*rows obs"]:
        """The scale of the noise of the only experiment."""
        return self._only("noise").noise

    @property
    def residuals(self) -> Float[Array, "*batch n obs"]:
        """The residuals of the only experiment."""
        return self._only("residuals").residuals

    @property
    def solution(self) -> Solution:
        """The solution of the only experiment."""
        return self._only("solution").solution

    @property
    def system(self) -> System:
        """The system with the values in place; what an experiment fixes is that of the first."""
        return self.experiments[0].system

    @property
    def args(self) -> PyTree:
        """What goes with `system`, with the values in place."""
        return self.experiments[0].args

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
            **self._noises(),
            "result": RESULTS[self.result],
        }
        return summary("Identified parameters, with standard deviations", facts)

    def _noises(self) -> dict[str, Array]:
        several = len(self.experiments) > 1
        every = enumerate(self.experiments)
        return {f"noise of experiments[{i}]" if several else "noise": x.noise for i, x in every}

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
        several = len(self.experiments) > 1
        for number, experiment in enumerate(self.experiments):
            where = f"experiments[{number}]." if several else ""
            names += [f"{where}y0[{i}]" for i in range(experiment.y0.shape[-1])]
        return tuple(np.array(names)[np.asarray(self.undetermined)].tolist())

    @property
    def sd(self) -> dict[str, Array]:
        """Standard deviations of the parameters by name, within bounds to first order."""
        return self.parameters.split(self._sd[..., : self.estimate.shape[-1]])

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
        errors = (experiment.solution.stats["errors"] for experiment in found.experiments)
        error = max(float(np.max(np.asarray(x))) for x in errors)
        return f"The error is {error:.1e} of the states in a window: give more num_windows."
    if found.result != RESULTS.noise_contradicted:
        return ""
    words = []
    if found.stats["growth"] > CONTRADICTED:
        words.append(
            "They grow with the observed value: give noise=noises.LogNormalNoise(), PoissonNoise() "
            "for counts, or the noise as a function of the value, such as noise=lambda y: 0.1 * y."
        )
    if found.stats["spread"] > CONTRADICTED:
        words.append(
            "Counts scatter more than Poisson's distribution does: give noise=noises.NormalNoise() "
            "or LogNormalNoise(), whose scales are estimated."
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


def summarise(
    problem: ShootingProblem, fitted: ShootingFit, solutions: Sequence[Solution]
) -> Identified:
    """The estimates of a fit with their uncertainty and a verdict; called under `jax.jit`."""
    parameters, point, data = problem.field, fitted.point, problem.data
    freedom = data.count - problem.num_free
    covariance, singular, nulls = _covariance(problem, fitted)
    white = shooting.whitened_at_data(problem, point, fitted.scale)
    values = shooting.values_at_data(problem, point)
    tests = tests_of_experiments(problem, values, white.r)
    doubt = doubts(problem, fitted, covariance, nulls, tests)
    starts = point.s[np.asarray(problem.layout.firsts)]
    if doubt.noiseless:  # infinite but for a start that is known
        held = jnp.repeat(jnp.asarray(problem.starts.held), starts.shape[1])
        unknown = jnp.concatenate([jnp.ones(point.p.size, bool), ~held])
        covariance = jnp.where(jnp.outer(unknown, unknown), jnp.inf, 0.0)
    # Within bounds the covariance is right to first order.
    slope = jnp.concatenate([parameters.slope(point.p), jnp.ones(starts.size)])
    covariance = covariance * jnp.outer(slope, slope)
    exact = data.likelihood.is_known and problem.loss == "squares"
    return Identified(
        estimate=parameters.constrain(point.p),
        experiments=tuple(
            _experiment(problem, fitted, number, covariance, solution, values)
            for number, solution in enumerate(solutions)
        ),
        covariance=covariance,
        singular_values=singular,
        undetermined=doubt.undetermined,
        cost=fitted.cost,
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


def _experiment(
    problem: ShootingProblem,
    fitted: ShootingFit,
    number: int,
    covariance: Array,
    solution: Solution,
    values: Float[Array, "n obs"],
) -> FittedExperiment:
    """What was found of one experiment."""
    data, point = problem.data, fitted.point
    own, columns = slice(*data.rows[number]), data.columns[number]
    dim, first = point.s.shape[1], problem.layout.firsts[number]
    place = slice(point.p.size + number * dim, point.p.size + (number + 1) * dim)
    system, args = problem.field.at(point.p, number)
    residuals = jnp.where(data.seen, values - data.ys, jnp.nan)[own, :columns]
    scale, seen = fitted.scale[own, :columns], jnp.asarray(data.seen)[own, :columns]
    if not data.likelihood.by_rows[number]:  # the same in all rows that have one
        scale = max_of(jnp.where(seen, scale, 0.0), axis=0)
    return FittedExperiment(
        y0=point.s[first],
        y0_covariance=covariance[place, place],
        noise=scale,
        residuals=residuals,
        system=system,
        args=args,
        solution=solution,
    )


def _covariance(
    problem: ShootingProblem, fitted: ShootingFit
) -> tuple[Array, Array, Bool[Array, " unknowns"]]:
    """The covariance of p and the start, the Jacobian's singular values, and what it ignores."""
    point = fitted.point
    triangle = jnp.roll(fitted.triangle, point.p.size, axis=1)  # p first, then the starts
    norms = jnp.linalg.norm(triangle, axis=0)
    norms = jnp.where(norms > 0, norms, 1.0)
    _, singular, right = jnp.linalg.svd(triangle / norms[None])
    half = right.T / jnp.maximum(singular, NULL)[None] / norms[:, None]
    covariance = half @ half.T
    nulls = jnp.any(~(singular > NULL)[:, None] & (jnp.abs(right) > _SHARE), axis=0)
    if problem.loss == "squares":
        return covariance, singular, nulls
    # The covariance of an M-estimator: P. Huber, Robust Statistics (1981), section 7.6.
    data = problem.data
    r = shooting.whitened_at_data(problem, point, fitted.scale).r
    _, weight, curvature = shooting.weigh(problem.loss, r)
    mean = jnp.sum(jnp.where(data.seen, curvature, 0.0)) / data.count
    freedom = max(data.count - problem.num_free, 1)
    squares = jnp.sum(jnp.where(data.seen, (weight * r) ** 2, 0.0))
    return covariance * squares / freedom / mean**2, singular, nulls

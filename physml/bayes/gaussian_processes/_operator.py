"""Linear equations by Gaussian processes: a motion and the force behind it are jointly normal."""

import functools
from collections.abc import Callable, Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, PyTree

from physml._numerics.calls import answer, ask, checked
from physml._numerics.checks import (
    floating_array,
    require_count,
    require_finite,
    require_key,
    require_not_negative,
)
from physml._numerics.compiled import compiled
from physml._numerics.units import max_of
from physml._types import Numbers
from physml.bayes.gaussian_processes._kernels import RBF, AnyKernel, as_arrays
from physml.bayes.gaussian_processes._search import Found, maximise, positive_parameters, verdict
from physml.bayes.gaussian_processes._solvers import gaussian_log_density, rounding
from physml.results import RESULTS, conclude

Coefficients = Callable[[Mapping[str, Array]], Sequence[ArrayLike]]
"""`coefficients(parameters) -> (c0, c1, ...)` of c0 x + c1 x' + c2 x'' + ... = F."""

_FIRST_NOISE = 0.1
_STEP = 1e-4  # of the logarithms of parameters, for the curvature of the likelihood


class _Rows(eqx.Module):
    """Where x and F are observed, in units of the spread of the times, and what was seen there."""

    times: Float[Array, " rows"]
    of_force: Bool[Array, " rows"]
    values: Float[Array, "rows 1"]

    def observed(self, scaled: Float[Array, " order"]) -> Float[Array, "rows order"]:
        """What every row observes: the weights of x, x', x'', ... in it."""
        itself = jnp.zeros_like(scaled).at[0].set(1.0)
        return jnp.where(self.of_force[:, None], scaled[None], itself[None])

    def variances(self, noise: Array, force_noise: Array) -> Float[Array, " rows"]:
        return jnp.where(self.of_force, force_noise, noise) ** 2


class LinearEquationFit(eqx.Module):
    """A motion and its force given noisy observations, and the parameters of the equation.

    Attributes:
        parameters: of the equation, by name.
        standard_deviations: of those that were fitted, by the curvature of the log likelihood.
        kernel: of the motion, with its parameters in standard deviations of the times.
        noise, force_noise: standard deviations in the units of x and F.
        log_likelihood: of the observations in units of their own.
        result: how the search ended.

    The variances of the motion and of the force have two parts: what the process leaves open, and
    how the mean changes with the parameters that were fitted, to first order.
    """

    parameters: dict[str, Array]
    standard_deviations: dict[str, Array]
    kernel: AnyKernel
    noise: Array
    force_noise: Array
    log_likelihood: Array
    result: RESULTS
    rows: _Rows
    factor: Float[Array, "all all"]
    weights: Float[Array, "all 1"]
    scaled: Float[Array, " order"]  # the operator's coefficients in the units of the rows
    moved: PyTree  # kernel, coefficients, weights at parameters moved up and down
    units: Float[Array, "4"]  # middle and spread of the times, units of x and F

    @checked
    def solution(self, t: Numbers) -> tuple[Float[Array, " times"], Float[Array, " times"]]:
        """The mean and the variance of x at times, without noise."""
        return self._predict(t, 0)

    @checked
    def force(self, t: Numbers) -> tuple[Float[Array, " times"], Float[Array, " times"]]:
        """The mean and the variance of the force at times, without noise."""
        return self._predict(t, 1)

    def _predict(self, t: Numbers, which: int) -> tuple[Array, Array]:
        times = floating_array("t", t, self.weights.dtype)
        if times.ndim != 1 or not times.size:
            raise ValueError(f"t must have shape (times,), got shape {times.shape}")
        require_finite("t", times)
        at = (times - self.units[0]) / self.units[1]
        mean, variance = _at_times(self, at, which)
        return mean * self.units[2 + which], variance * self.units[2 + which] ** 2


@checked
def fit_linear_equation(
    coefficients: Coefficients,
    ts: Numbers,
    xs: Numbers,
    key: PRNGKeyArray,
    *,
    parameters: Mapping[str, float],
    force_ts: Numbers | None = None,
    forces: Numbers | None = None,
    kernel: AnyKernel | None = None,
    noise: float | None = None,
    force_noise: float | None = None,
    restarts: int = 2,
    max_steps: int = 200,
    throw: bool = True,
) -> LinearEquationFit:
    r"""The force, and the parameters, of a linear equation from noisy observations of its motion.

    With x a Gaussian process of covariance k, $F = L x = \sum_j c_j x^{(j)}$ is one too, and

    $$\operatorname{cov}(F(t), x(s)) = L_t k(t, s), \qquad
    \operatorname{cov}(F(t), F(s)) = L_t L_s k(t, s),$$

    by automatic differentiation of the kernel. Observations of x alone give the force of a known
    equation; they say nothing of its parameters, since for every choice of these some force makes
    the motion. With the force at some times too, the parameters are those of the largest marginal
    likelihood.

    Args:
        coefficients: of the operator; `lambda p: (p["omega0"] ** 2, 2 * p["gamma"], 1.0)` is the
            damped oscillator's.
        ts, xs: times and noisy positions, (rows,).
        key: for the other starts of the search.
        parameters: positive, by name: the truth, or with forces the first guess.
        force_ts, forces: times and values of the force, (others,); None if none was observed.
        kernel: of the motion, whose functions need as many derivatives as the operator takes;
            `1.0 * bayes.RBF()` unless given.
        noise, force_noise: standard deviations; None to find them.
        restarts, max_steps, throw: as for `fit_gaussian_process`.

    Raises:
        TypeError, ValueError: observations of the wrong shape or that are not finite, or
            coefficients that are no numbers.
        RuntimeError: the search failed, and `throw` is set.

    Source: M. Raissi, P. Perdikaris and G. E. Karniadakis, Machine learning of linear differential
    equations using Gaussian processes, J. Comput. Phys. 348 (2017) 683.
    """
    require_count(0, restarts=restarts)
    require_count(max_steps=max_steps)
    require_key(key=key)
    given = {"noise": noise, "force_noise": force_noise}
    require_not_negative(**{name: value for name, value in given.items() if value is not None})
    rows, units = _rows(ts, xs, force_ts, forces)
    dtype, observed = units.dtype, forces is not None
    start = {name: floating_array(name, value, dtype) for name, value in parameters.items()}
    first = jax.jit(functools.partial(_scaled, coefficients))(start, units[1])
    weight = jnp.sum(jnp.abs(first))  # in units of x times it, forces are about 1
    units = units.at[3].mul(weight)
    values = jnp.where(rows.of_force[:, None], rows.values / weight, rows.values)
    rows = _Rows(rows.times, rows.of_force, values)
    kernel = as_arrays(1.0 * RBF() if kernel is None else kernel, dtype)
    searched: dict[str, PyTree] = {"kernel": kernel}
    fixed: dict[str, PyTree] = {}
    for (name, value), unit in zip(given.items(), units[2:], strict=True):
        if value is None and (observed or name == "noise"):
            searched[name] = jnp.asarray(_FIRST_NOISE, dtype)
        else:
            fixed[name] = jnp.asarray(value or 0.0, dtype) / unit
    (searched if observed else fixed)["parameters"] = start
    free, rest = positive_parameters("start", searched, (), dtype)
    constants = (rest, fixed, rows, units[1], weight)
    arguments = (coefficients, free, constants, key, restarts, max_steps)
    program, _ = compiled(_search, *arguments)
    found, curvature = program(*arguments)
    result, details = verdict(found)
    fitted = _fitted(coefficients, found, curvature, constants, units, result)
    return conclude(fitted, result, "bayes.fit_linear_equation", details, throw=throw)


def _fitted(
    coefficients: Coefficients,
    found: Found,
    curvature: Array,
    constants: tuple,
    units: Array,
    result: RESULTS,
) -> LinearEquationFit:
    rest, fixed, rows, spread, weight = constants
    best = jax.tree.map(lambda leaf: leaf[0], found.parameters)
    everything = eqx.combine(best, rest) | fixed
    factor, weights, scaled = _solved(coefficients, everything, rows, spread, weight)
    root = _covariance_root(curvature)
    flat, unflatten = ravel_pytree(best)
    errors = unflatten(flat * jnp.linalg.norm(root, axis=1))
    moves = _STEP * jnp.concatenate([root.T, -root.T])
    return LinearEquationFit(
        parameters=everything["parameters"],
        standard_deviations=errors.get("parameters", {}),
        kernel=everything["kernel"],
        noise=everything["noise"] * units[2],
        force_noise=everything["force_noise"] * units[3],
        log_likelihood=max_of(found.values),
        result=result,
        rows=rows,
        factor=factor,
        weights=weights,
        scaled=scaled,
        moved=_moved(coefficients, (best, moves), constants),
        units=units,
    )


def _rows(
    ts: Numbers, xs: Numbers, force_ts: Numbers | None, forces: Numbers | None
) -> tuple[_Rows, Array]:
    """The observations in units of x alone, and the units of `LinearEquationFit`."""
    if (force_ts is None) != (forces is None):
        raise ValueError("forces must be given together with force_ts")
    ts, xs = _observations("ts", ts, "xs", xs, 2)
    if forces is None or force_ts is None:
        force_ts, forces = ts[:0], xs[:0]
    else:
        force_ts, forces = _observations("force_ts", force_ts, "forces", forces, 1)
    middle, spread, size = jnp.mean(ts), jnp.std(ts), jnp.sqrt(jnp.mean(xs**2))
    if not spread > 0:
        raise ValueError(f"ts must differ from each other, got {ts[0]} only")
    size = jnp.where(size > 0, size, 1.0)
    times = (jnp.concatenate([ts, force_ts.astype(ts.dtype)]) - middle) / spread
    values = jnp.concatenate([xs, forces.astype(ts.dtype)]) / size
    rows = _Rows(times, jnp.arange(len(times)) >= len(ts), values[:, None])
    return rows, jnp.stack([middle, spread, size, size])


def _observations(
    first: str, ts: Numbers, second: str, xs: Numbers, least: int
) -> tuple[Array, Array]:
    ts, xs = floating_array(first, ts), floating_array(second, xs)
    for name, value in ((first, ts), (second, xs)):
        if value.ndim != 1 or len(value) < least:
            raise ValueError(
                f"{name} must have shape (rows,) with {least} rows or more, got {value.shape}"
            )
        require_finite(name, value)
    if len(ts) != len(xs):
        raise ValueError(f"{second} must have {len(ts)} rows, as {first} has, got {len(xs)}")
    return ts, xs.astype(ts.dtype)


def _scaled(coefficients: Coefficients, parameters: Mapping[str, Array], spread: Array) -> Array:
    """The operator's coefficients when time is measured in the spread of the times."""
    given = ask("coefficients", "coefficients(parameters)", coefficients, dict(parameters))
    numbers = answer("coefficients", "numbers", given, dtype=spread.dtype)
    if numbers.ndim != 1:
        raise ValueError(f"coefficients must return a list of numbers, got shape {numbers.shape}")
    return numbers / spread ** jnp.arange(len(numbers), dtype=spread.dtype)


def _covariances(
    kernel: AnyKernel, a: tuple[Array, Array], b: tuple[Array, Array]
) -> Float[Array, "rows columns"]:
    """The covariances of what two sets of rows observe, each given by its times and weights.

    The kernel's derivatives by both times, up to the operator's order, are made in one pass.
    """
    order = a[1].shape[1]

    def entry(t: Array, weights: Array, s: Array, others: Array) -> Array:
        def by_s(t: Array) -> Array:
            return _tower(lambda s: kernel.evaluate(t[None], s[None]), order)(s)

        return weights @ _tower(by_s, order)(t) @ others

    rows = jax.vmap(entry, in_axes=(None, None, 0, 0))
    return jax.vmap(rows, in_axes=(0, 0, None, None))(*a, *b)


def _tower(f: Callable[[Array], Array], order: int) -> Callable[[Array], Array]:
    """The function with its derivatives below an order, along a new first axis."""

    def with_next(known: Callable[[Array], tuple]) -> Callable[[Array], tuple]:
        def values(t: Array) -> tuple:
            found, slopes = jax.jvp(known, (t,), (jnp.ones_like(t),))
            return (*found, slopes[-1])

        return values

    known: Callable[[Array], tuple] = lambda t: (f(t),)  # noqa: E731
    for _ in range(order - 1):
        known = with_next(known)
    return lambda t: jnp.stack(known(t))


def _prepared(coefficients: Coefficients, everything: dict, rows: _Rows, spread, weight) -> tuple:
    scaled = _scaled(coefficients, everything["parameters"], spread) / weight
    seen = (rows.times, rows.observed(scaled))
    covariance = _covariances(everything["kernel"], seen, seen)
    noise = rows.variances(everything["noise"], everything["force_noise"])
    return scaled, covariance + jnp.diag(noise + rounding(covariance))


def _search(
    coefficients: Coefficients,
    start: PyTree,
    constants: tuple,
    key: PRNGKeyArray,
    restarts: int,
    max_steps: int,
) -> tuple:
    rest, fixed, rows, spread, weight = constants

    def value(free: PyTree, _: Array) -> Array:
        everything = eqx.combine(free, rest) | fixed
        covariance = _prepared(coefficients, everything, rows, spread, weight)[1]
        return gaussian_log_density(covariance, rows.values)

    numbers, task = rows.values.size, jnp.zeros(1)
    found = maximise(value, start, task, key, restarts, max_steps, numbers, 1 + restarts)
    best = jax.tree.map(lambda leaf: leaf[0], found.parameters)
    flat, unflatten = ravel_pytree(best)

    def slope(move: Array) -> Array:
        return jax.grad(lambda move: -value(unflatten(flat * jnp.exp(move)), task[0]))(move)

    # Differences of slopes: a second derivative would have to compile six derivatives of a kernel.
    moves = _STEP * jnp.eye(len(flat), dtype=flat.dtype)
    slopes = jax.lax.map(slope, jnp.concatenate([moves, -moves]))
    curvature = (slopes[: len(flat)] - slopes[len(flat) :]) / (2 * _STEP)
    bound = {name: at for name, at in found.at_bound.items() if "noise" not in name}
    return found._replace(at_bound=bound), curvature


def _covariance_root(curvature: Array) -> Array:
    """A root R of the covariance R R^T of the parameters' logarithms, by their likelihood."""
    values, vectors = np.linalg.eigh(np.asarray(curvature))
    # What the data do not determine is known to a factor of e, as far as its effect is concerned.
    sds = 1.0 / np.sqrt(np.maximum(values, 1.0))
    return jnp.asarray(vectors * sds, curvature.dtype)


@eqx.filter_jit
def _moved(coefficients: Coefficients, at: tuple[PyTree, Array], constants: tuple) -> PyTree:
    rest, fixed, rows, spread, weight = constants
    flat, unflatten = ravel_pytree(at[0])

    def one(move: Array) -> PyTree:
        everything = eqx.combine(unflatten(flat * jnp.exp(move)), rest) | fixed
        _, weights, scaled = _solved(coefficients, everything, rows, spread, weight)
        return everything["kernel"], scaled, weights

    return jax.lax.map(one, at[1])


@eqx.filter_jit
def _solved(coefficients: Coefficients, everything: dict, rows: _Rows, spread, weight) -> tuple:
    scaled, covariance = _prepared(coefficients, everything, rows, spread, weight)
    factor = jnp.linalg.cholesky(covariance)
    return factor, cho_solve((factor, True), rows.values), scaled


@eqx.filter_jit
def _at_times(fit: LinearEquationFit, at: Array, which: int) -> tuple[Array, Array]:
    def asked(scaled: Array) -> tuple[Array, Array]:
        rows = _Rows(at, jnp.full(len(at), bool(which)), at[:, None])
        return at, rows.observed(scaled)

    def across(kernel: AnyKernel, scaled: Array) -> Array:
        return _covariances(kernel, asked(scaled), (fit.rows.times, fit.rows.observed(scaled)))

    seen = across(fit.kernel, fit.scaled)
    times, weights = asked(fit.scaled)
    prior = jax.vmap(
        lambda t, w: _covariances(fit.kernel, (t[None], w[None]), (t[None], w[None]))[0, 0]
    )(times, weights)
    known = solve_triangular(fit.factor, seen.T, lower=True)
    variance = jnp.maximum(prior - jnp.sum(known**2, axis=0), 0.0)
    # How the mean changes with the parameters, whose uncertainty the process does not know.
    means = jax.lax.map(lambda m: (across(m[0], m[1]) @ m[2])[:, 0], fit.moved)
    up, down = jnp.split(means, 2)
    variance = variance + jnp.sum(((up - down) / (2 * _STEP)) ** 2, axis=0)
    return (seen @ fit.weights)[:, 0], variance

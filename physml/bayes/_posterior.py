"""Posteriors of an equation's unknowns, by the No-U-Turn sampler or by Laplace's method."""

import os
from collections.abc import Mapping
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from physml import fit
from physml._numerics.blas import single_threaded_blas
from physml._numerics.calls import checked, summary
from physml._numerics.checks import (
    is_concrete,
    require_count,
    require_increasing,
    require_installed,
    require_key,
    require_one_of,
    require_share,
)
from physml._numerics.units import max_of
from physml._types import Numbers
from physml.bayes._diagnostics import effective_sample_size, split_rhat
from physml.bayes._model import EquationModel, at_times, equation_model, first_point, noise_of
from physml.bayes._sampler import LEAST_DRAWS, Chains, Mode, draw_normal, find_mode, run_nuts
from physml.noises import Noise
from physml.pinn import Identified
from physml.results import RESULTS, conclude

Method = Literal["nuts", "laplace"]

_MIXED = 1.01  # R-hat: Vehtari and others, Bayesian Analysis 16 (2021), section 4
_DIVERGENT = 1e-3  # the share of draws that may diverge
_CHECKED = 64  # draws at which the solver's steps are checked
_NEWTON_STEPS = 50
_SOLVED = 0.01  # the error of the log density that the steps of the solver may leave
_UNRESOLVED = 0.1  # the same at nearly all draws
_MOST_SUBSTEPS = 512


class Posterior(eqx.Module):
    """Draws from a posterior, and how far they can be trusted.

    Attributes:
        draws: by the unknown's name, (chains, draws) and the unknown's own shape. "y0" is the
            start, "noise" the scales of the noise by columns.
        chains: the draws as vectors without bounds, their log density up to a constant, and what
            the sampler did.
        mode: the mode of that density and its curvature there.
        model: equation, data, priors and noise.
        rhat: by name, how much the halves of the chains differ, see `split_rhat`.
        ess: by name, the number of independent draws that say as much about the mean.
        log_evidence: the log of the probability of the data, by Laplace's method; NaN unless every
            unknown has a prior in `priors`.
        solver_error: what half as long steps of the solver change in the log density, at 95 % of
            the draws at most.
        result: one of `RESULTS`.
        method: "nuts" or "laplace".
    """

    draws: dict[str, Array]
    chains: Chains
    mode: Mode
    model: EquationModel
    rhat: dict[str, Array]
    ess: dict[str, Array]
    log_evidence: Array
    solver_error: Array
    result: RESULTS
    method: Method = eqx.field(static=True)

    def __repr__(self) -> str:
        if not is_concrete(self.chains.log_density) or self.chains.log_density.ndim > 2:
            return super().__repr__()
        facts = {}
        for name, value in self.draws.items():
            if value.ndim > 3 or value[0, 0].size > 8:
                facts[name] = f"an array of shape {value.shape[2:]}"
                continue
            pairs = zip(np.ravel(self.mean[name]), np.ravel(self.sd[name]), strict=True)
            facts[name] = ", ".join(f"{mean:.6g} ± {sd:.2g}" for mean, sd in pairs)
        facts |= {"draws": str(self.chains.log_density.size), "result": RESULTS[self.result]}
        return summary(f"Posterior by {self.method}, means and standard deviations", facts)

    @property
    def mean(self) -> dict[str, Array]:
        """Means of the unknowns by name."""
        return {name: jnp.mean(x, axis=self._axes) for name, x in self.draws.items()}

    @property
    def sd(self) -> dict[str, Array]:
        """Standard deviations of the unknowns by name."""
        return {name: jnp.std(x, axis=self._axes) for name, x in self.draws.items()}

    @property
    def mean_error(self) -> dict[str, Array]:
        """The Monte Carlo standard errors of the means by name."""
        return {name: sd / jnp.sqrt(self.ess[name]) for name, sd in self.sd.items()}

    @checked
    def intervals(self, level: float = 0.95) -> dict[str, tuple[Array, Array]]:
        """By name, (low, high) with equal shares of the draws on either side."""
        require_share(level=level)
        ends = jnp.asarray([0.5 - level / 2, 0.5 + level / 2])
        quantiles = {n: jnp.quantile(x, ends, axis=self._axes) for n, x in self.draws.items()}
        return {name: (low, high) for name, (low, high) in quantiles.items()}

    @checked
    def predict(
        self, times: Numbers, *, key: PRNGKeyArray, num: int = 200, noisy: bool = False
    ) -> Float[Array, "num n obs"]:
        """What would be observed at some times, for some of the draws.

        Args:
            times: increasing times, not before the start.
            key: chooses the draws, and draws the noise.
            num: how many of the draws.
            noisy: with the noise of an observation; otherwise the solution's own values.

        Raises:
            ValueError: the times are not increasing or before the start, or the noise is known for
                each observation alone.
        """
        require_count(num=num)
        times = np.asarray(times, float)
        require_increasing("times", times)
        if times[0] < self.model.edges[0]:
            raise ValueError(f"times must not be before {self.model.edges[0]}, got {times[0]}")
        scale = self.model.noise.scale
        rows = () if scale is None else np.shape(scale)[:-1]
        if noisy and rows and rows[0] > 1:
            raise ValueError("noisy must be False where each observation has a noise of its own")
        pick, draw = jax.random.split(key)
        q = self.chains.q.reshape(-1, self.chains.q.shape[-1])
        q = q[jax.random.randint(pick, (num,), 0, len(q))]
        model = at_times(self.model, times)
        return _predict(model, q, jax.random.split(draw, num) if noisy else None)

    @checked
    def log_likelihood(self) -> Float[Array, "chains draws n obs"]:
        """The log of the density of each observation, for each draw."""
        return _log_likelihood(self.model, self.chains.q)

    def to_arviz(self) -> Any:
        """What ArviZ reads: draws, statistics of the sampler, log likelihood, observations.

        Raises:
            ImportError: ArviZ is not installed (`pip install "physml[arviz]"`).
        """
        arviz = require_installed("arviz", "arviz")
        stats = {
            "lp": self.chains.log_density,
            "diverging": self.chains.diverged,
            "n_steps": self.chains.num_steps,
        }
        groups = {
            "posterior": self.draws,
            "sample_stats": stats,
            "log_likelihood": {"y": self.log_likelihood()},
            "observed_data": {"y": self.model.ys},
        }
        groups = jax.tree.map(np.asarray, groups)
        return (
            arviz.from_dict(**groups)
            if arviz.__version__.startswith("0.")
            else arviz.from_dict(groups)
        )

    @property
    def _axes(self) -> tuple[int, int]:
        batch = self.chains.log_density.ndim - 2
        return batch, batch + 1


@eqx.filter_jit
def _predict(model: EquationModel, q: Float[Array, "num q"], keys: Array | None) -> Array:
    def single(q, key):
        values, scale = model.predict(q)
        return values if key is None else model.noise.sample(key, values, scale)

    return jax.vmap(single, in_axes=(0, None if keys is None else 0))(q, keys)


@eqx.filter_jit
def _log_likelihood(model: EquationModel, q: Float[Array, "chains draws q"]) -> Array:
    flat = jax.lax.map(model.log_likelihood, q.reshape(-1, q.shape[-1]), batch_size=500)
    return flat.reshape(*q.shape[:2], *flat.shape[1:])


@checked
def posterior(
    found: Identified,
    *,
    key: PRNGKeyArray,
    method: Method = "nuts",
    noise: Noise | None = None,
    priors: Mapping[str, Any] | None = None,
    num_chains: int = 4,
    num_draws: int = 1000,
    num_warmup: int = 300,
    substeps: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | fit.Callback = False,
    throw: bool = True,
) -> Posterior:
    r"""The posterior of what `pinn.identify` has found: parameters, start and scale of the noise.

    The equation is solved for each draw, with derivatives, by steps that are fixed beforehand and
    checked at the draws. Newton's method finds the mode of the posterior from what was identified.
    "laplace" takes the normal distribution that touches the posterior there, in the coordinates
    without bounds. "nuts" samples the posterior itself by Hamiltonian Monte Carlo, in coordinates
    in which that normal distribution is standard, so that correlations and units do not matter.

    It may be called under `jax.jit` and `jax.vmap` with `found` traced, over many draws of the
    noise. Set `substeps` then, and look at `result`, because nothing is raised.

    Args:
        found: what `identify` returned. Its equation, data, bounds and prior are the posterior's;
            its noise too, unless `noise` says otherwise.
        key: draws everything.
        method: "nuts" or "laplace".
        noise: how observations differ from the solution: `NormalNoise`, `LogNormalNoise`,
            `StudentNoise` or `PoissonNoise` of `physml.noises`. Unless given, it is that of
            `identify`, with the scale that `identify` was given, or one unknown scale for each
            column.
        priors: by the unknown's name ("y0" for the start, "noise" for the scales), a distribution
            of numpyro or anything with `log_prob`. What is not named is flat, a scale in its
            logarithm. Bounds belong to `identify`; a prior must allow all values within them.
        num_chains, num_draws, num_warmup: chains, draws of each, and its steps before them.
            "laplace" makes as many independent draws.
        substeps: Runge-Kutta steps between two observations. Unless given, the number is doubled
            until the log density does not change by more than 0.01 (never under tracing, where it
            is 1).
        checkpoint: a folder, for "nuts". The chains are saved there every few seconds beside their
            work, and the same call goes on from what it finds there: the draws are those of chains
            that were never cut, bit for bit. With more `num_draws` the chains become longer.
        progress: of "nuts": show a progress bar, or call a function after each chunk of draws.
        throw: raise if it fails; otherwise `result` says how it ended.

    Returns:
        A `Posterior`: draws, means, standard deviations, intervals, R-hat, effective sample sizes.

    Raises:
        TypeError, ValueError: arguments of the wrong kind; priors of no unknown, or that exclude
            values within the bounds; observations that the noise cannot have given.
        RuntimeError: no mode was found, or the steps do not resolve the solution.
        KeyboardInterrupt: Ctrl-C was pressed before each chain had four draws.

    Warns:
        UserWarning: the chains have not mixed (R-hat above 1.01) or diverged, or the density is
            flat in some direction. After Ctrl-C the chains end with the draws made until then, and
            the result is `interrupted`.

    Source: A. Gelman and others, Bayesian Data Analysis, 3rd ed. (2013), chapters 11 to 13.

    Example:
        >>> ts = np.linspace(0.0, 2.0, 20)
        >>> noise = 0.01 * np.random.default_rng(0).standard_normal((20, 1))
        >>> ys = np.exp(-1.3 * ts)[:, None] + noise
        >>> guess = systems.from_function(lambda t, y, args: -args["k"] * y, 1, args={"k": 1.0})
        >>> belief = bayes.posterior(pinn.identify(guess, ts, ys, free=("k",)), key=key)
        >>> low, high = belief.intervals(0.95)["k"]
        >>> bool(low < 1.3 < high)
        True
    """
    require_key(key=key)
    require_one_of(get_args(Method), method=method)
    require_count(num_chains=num_chains, num_warmup=num_warmup)
    require_count(LEAST_DRAWS, num_draws=num_draws)
    if noise is None:
        noise = noise_of(found)
    traced = not is_concrete(found.cost)
    if substeps is None:
        substeps = 1 if traced else _enough_substeps(found, noise, priors or {})
    require_count(substeps=substeps)
    model, finer = (equation_model(found, noise, priors or {}, n) for n in (substeps, 2 * substeps))
    with single_threaded_blas():
        mode = _find_mode(model, *first_point(model, found))
        if method == "laplace":
            chains, ended = draw_normal(mode, key, num_chains, num_draws), RESULTS.successful
        else:
            sizes = {"num_chains": num_chains, "num_warmup": num_warmup, "num_draws": num_draws}
            kept: Any = {"checkpoint": checkpoint, "progress": progress}
            chains, ended = run_nuts(model.log_density, mode, key, **sizes, **kept)
        belief = _posterior(model, finer, mode, chains, method)
    if ended != RESULTS.successful:
        belief = eqx.tree_at(lambda b: b.result, belief, ended)
    return conclude(belief, belief.result, "bayes.posterior", _in_words(belief), throw=throw)


def _enough_substeps(found: Identified, noise: Noise, priors: Mapping[str, Any]) -> int:
    """The number of steps at which the log density about what was identified is right."""
    substeps, points = 1, None
    while substeps < _MOST_SUBSTEPS:
        model, finer = (equation_model(found, noise, priors, n) for n in (substeps, 2 * substeps))
        if points is None:
            q, half = first_point(model, found)
            points = jnp.concatenate([q[None], q[None] + half.T, q[None] - half.T])
        if float(max_of(_solver_errors(model, finer, points))) < _SOLVED:
            break
        substeps *= 2
    return substeps


@eqx.filter_jit
def _solver_errors(
    model: EquationModel, finer: EquationModel, points: Float[Array, "points q"]
) -> Float[Array, " points"]:
    """What half as long steps change in the log density; none where both find it impossible."""
    by_both = [jax.vmap(m.log_density)(points) for m in (model, finer)]
    return jnp.where(by_both[0] == by_both[1], 0.0, jnp.abs(by_both[0] - by_both[1]))


@eqx.filter_jit
def _find_mode(model: EquationModel, q: Float[Array, " q"], half: Float[Array, "q q"]) -> Mode:
    return find_mode(model.log_density, q, half, _NEWTON_STEPS)


@eqx.filter_jit
def _posterior(
    model: EquationModel, finer: EquationModel, mode: Mode, chains: Chains, method: Method
) -> Posterior:
    """The draws in the units of the user, and how far they can be trusted."""
    draws = jax.vmap(jax.vmap(model.constrain))(chains.q)
    rhat = {name: split_rhat(x) for name, x in draws.items()}
    flat = chains.q.reshape(-1, mode.q.size)
    some = flat[:: max(len(flat) // _CHECKED, 1)]
    error = jnp.quantile(_solver_errors(model, finer, some), 0.95)
    result = _result(method, mode, chains, rhat, error)
    return Posterior(
        draws=draws,
        chains=chains,
        mode=mode,
        model=model,
        rhat=rhat,
        ess={name: effective_sample_size(x) for name, x in draws.items()},
        log_evidence=mode.log_evidence if model.is_proper else jnp.full((), jnp.nan),
        solver_error=error,
        result=result,
        method=method,
    )


def _result(
    method: Method, mode: Mode, chains: Chains, rhat: dict[str, Array], error: Array
) -> RESULTS:
    """How it ended; the chains do not need the mode, Laplace's method does."""
    worst = max_of(jnp.concatenate([jnp.ravel(x) for x in rhat.values()]))
    unmixed = ~(worst <= _MIXED) | (jnp.mean(chains.diverged) > _DIVERGENT)
    result = RESULTS.where(unmixed, RESULTS.not_mixed, RESULTS.successful)
    if method == "laplace":
        result = RESULTS.where(mode.curved, RESULTS.successful, RESULTS.unidentifiable)
        result = RESULTS.where(mode.converged, result, RESULTS.not_converged)
    return RESULTS.where(error <= _UNRESOLVED, result, RESULTS.unresolved)


def _in_words(belief: Posterior) -> str:
    """What a concrete posterior's verdict is about, and the remedy."""
    if not is_concrete(belief.solver_error) or belief.solver_error.ndim:
        return ""
    if belief.result == RESULTS.unresolved:
        return f"The log density is off by {float(belief.solver_error):.1e}: give more substeps."
    if belief.result == RESULTS.not_mixed:
        worst = max(belief.rhat, key=lambda name: float(max_of(belief.rhat[name])))
        value, diverged = float(max_of(belief.rhat[worst])), int(jnp.sum(belief.chains.diverged))
        return f"R-hat of {worst} is {value:.3f}, and {diverged} draws diverged."
    return ""

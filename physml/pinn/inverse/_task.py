"""Check what a fit is given: the observations of a solution, and what is unknown."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Bool, Float

from physml._numerics import checks
from physml._numerics.calls import answer, as_traced, ask, check_components
from physml._numerics.compiled import watched
from physml._numerics.parts import as_pytree
from physml.pinn.collocation import Parameters
from physml.pinn.inverse._experiments import Experiment, Observe
from physml.pinn.inverse._likelihood import Likelihood, likelihood_of
from physml.pinn.inverse._noise_arguments import AnyNoise
from physml.systems import System


class Observations(eqx.Module):
    """What was observed in all experiments, one after the other."""

    ts: tuple[Float[np.ndarray | Array, " _"], ...]  # of the experiments
    rows: tuple[tuple[int, int], ...] = eqx.field(static=True)  # an experiment's, as a range
    columns: tuple[int, ...] = eqx.field(static=True)  # how many an experiment has
    ys: Float[Array, "n obs"]  # 1 where nothing was seen
    seen: Bool[np.ndarray | Array, "n obs"]
    observers: tuple[Callable[[Array], Array], ...]  # from (dim,) to (obs,), pytrees
    observer: tuple[int, ...] = eqx.field(static=True)  # which of them an experiment has
    likelihood: Likelihood
    shown: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    """The components that an experiment shows as they are, in the order of its columns."""
    count: int = eqx.field(static=True)  # of observed numbers


class Starts(eqx.Module):
    """The states at the start of all experiments: guesses, or what they are."""

    guess: Float[Array, "experiments dim"]
    held: tuple[bool, ...] = eqx.field(static=True)  # whether a start is known, or a function
    functions: tuple[Callable | None, ...]  # of the parameters' values

    def at(self, parameters: Parameters, p: Float[Array, " p"]) -> Float[Array, "experiments dim"]:
        """The starts at these parameters."""
        return jnp.stack(
            [
                guess
                if function is None
                else jnp.asarray(function(parameters.values(p, i)), guess.dtype)
                for i, (guess, function) in enumerate(zip(self.guess, self.functions, strict=True))
            ]
        )


class Unknowns(eqx.Module):
    """Parameters and a start, with what is known about them before the fit."""

    parameters: Parameters
    values: Float[Array, " p"]  # first guess of the parameters
    precision: Float[np.ndarray, " p"]  # 1 / (standard deviation of the prior); 0 without a prior
    starts: Starts  # of the experiments
    given: tuple[bool, ...] = eqx.field(static=True)  # otherwise a start is taken from the data
    count: int = eqx.field(static=True)  # of unknown numbers


class _Components(eqx.Module):
    """The components of a state that are observed."""

    indices: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, y: Float[Array, " dim"]) -> Float[Array, " obs"]:
        return y[np.asarray(self.indices)]


def require_double(name: str) -> None:
    """Raise ValueError unless float64 is allowed."""
    if jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
        raise ValueError(
            f"jax_enable_x64 must be on, because {name} computes in float64 whatever the data are, "
            'got False: call jax.config.update("jax_enable_x64", True) first'
        )


def check_observations(
    experiments: Sequence[Experiment], dim: int, noise: AnyNoise
) -> Observations:
    """The observations of states of `dim` components, checked.

    Args:
        noise: of the experiments that do not say theirs.
    """
    observers, indices, observer, known = [], [], [], []
    for experiment in experiments:
        at = [i for i, other in enumerate(known) if _same(other, experiment.observe)]
        if not at:
            known.append(experiment.observe)
        observer.append(at[0] if at else len(known) - 1)
        found = _observation(experiment.observe, dim, experiment.ys.shape[1])
        if not at:
            observers.append(found[0])
            indices.append(found[1])
    ends = np.cumsum([0, *(len(x.ts) for x in experiments)]).tolist()
    width = max(experiment.ys.shape[1] for experiment in experiments)
    every = [_widened(x.ys, width, jnp.nan) for x in experiments]
    seen = np.concatenate([_widened(x.seen, width, False) for x in experiments])
    ys = jnp.where(seen, jnp.concatenate(every), 1.0)
    return Observations(
        ts=tuple(x.ts for x in experiments),
        rows=tuple(itertools.pairwise(ends)),
        columns=tuple(x.ys.shape[1] for x in experiments),
        ys=ys,
        seen=seen,
        observers=tuple(observers),
        observer=tuple(observer),
        likelihood=likelihood_of(experiments, noise, observer, ys, seen),
        shown=tuple(
            indices[i] if x.seen.any(axis=0).all() else ()
            for i, x in zip(observer, experiments, strict=True)
        ),
        count=int(seen.sum()),
    )


def _same(a: Observe, b: Observe) -> bool:
    """Whether two experiments are seen in the same way."""
    if a is b:
        return True
    return not (a is None or b is None or callable(a) or callable(b)) and list(a) == list(b)


def _widened(rows: Any, width: int, empty: float | bool) -> Any:
    """Observations with empty columns beside them."""
    xp = np if isinstance(rows, np.ndarray) else jnp
    beside = ((0, 0), (0, width - rows.shape[1]))
    return xp.pad(rows, beside, constant_values=empty)


def _observation(
    observe: Observe, dim: int, columns: int
) -> tuple[Callable[[Array], Array], tuple[int, ...]]:
    """The observation as a function, and the components that it shows as they are."""
    indices: tuple[int, ...] = ()
    every, state = range(dim), jax.ShapeDtypeStruct((dim,), jnp.float64)
    if not callable(observe):
        indices = tuple(int(i) for i in (every if observe is None else observe))
        if not indices or len(set(indices)) < len(indices) or not set(indices) <= set(every):
            raise ValueError(
                f"observe must hold different indices below {len(every)}, got {observe}"
            )
        observe = _Components(indices)

    observe = as_pytree(observe)
    seen = Partial(_seen, observe)
    out = jax.eval_shape(seen, state)
    traced = check_components("observe", seen, y=state)
    if out.shape != (columns,) or out.dtype != state.dtype:
        raise ValueError(
            f"ys must have a column for each number that observe gives, of shape {out.shape} and "
            f"dtype {out.dtype}, got {columns} columns"
        )
    return as_traced(observe, traced), indices


def _seen(observe: Callable[[Array], object], y: Array) -> Array:
    return answer("observe", "numbers", ask("observe", "observe(y)", observe, y))


def check_seen(
    system: System,
    experiments: Sequence[Experiment],
    lacking: tuple[int, ...],
    inputs: tuple[int, ...],
    observe: tuple[int, ...],
) -> Float[Array, "n inputs"]:
    """The observed inputs of the terms, where all of them were seen."""
    if not lacking or len(set(lacking)) < len(lacking):
        raise ValueError(f"component must be one index or several different ones, got {lacking}")
    for component in lacking:
        if not isinstance(component, int) or not 0 <= component < system.dim:
            raise ValueError(f"component must be an index below {system.dim}, got {component!r}")
    if not inputs or not set(inputs) <= set(observe):
        raise ValueError(f"inputs must be observed components out of {observe}, got {inputs}")
    every = []
    for experiment in experiments:
        if not checks.is_concrete(experiment.ys):
            raise ValueError("ys must not be traced: which terms are found depends on them")
        if experiment.ys.shape[1] != len(observe):
            raise ValueError(f"ys must have shape (n, {len(observe)}), got {experiment.ys.shape}")
        if experiment.observe is not None and experiment.observe != observe:
            raise ValueError(
                f"observe must be the same in all experiments, {observe}, got {experiment.observe}"
            )
        own = np.asarray(experiment.ys)[:, [observe.index(i) for i in inputs]]
        every.append(own[np.isfinite(own).all(axis=1)])
    seen = np.concatenate(every)
    spans = np.ptp(seen, axis=0) if len(seen) else np.zeros(len(inputs))
    if not (spans > 0).all():
        raise ValueError(
            f"ys must vary in every component of inputs, {inputs}, got max - min = {spans}"
        )
    return jnp.asarray(seen)


def check_unknowns(
    guess: tuple[Parameters, Float[Array, " p"]],
    experiments: Sequence[Experiment],
    data: Observations,
    prior: Mapping[str, float],
) -> Unknowns:
    """The unknowns that these data are to determine, checked."""
    parameters, values = guess
    dim, several = parameters.system.dim, len(experiments) > 1
    precision = _precisions(parameters, prior)
    starts, functions, given = [], [], []
    for number, experiment in enumerate(experiments):
        where = f" of experiments[{number}]" if several else ""
        given.append(experiment.y0 is not None)
        start = experiment.y0
        functions.append(None)
        if callable(start):
            functions[-1] = _checked_start(parameters, number, as_pytree(start), values)
            start = _start_at(parameters, number, functions[-1], values)
        if not given[-1] and (experiment.known_start or set(data.shown[number]) != set(range(dim))):
            raise ValueError(
                f"y0{where} must be given unless all components are observed, got None"
            )
        start = floating_start(f"y0{where}", start, dim)
        _require_finite_slope(parameters, experiment, data.shown[number], start)
        starts.append(start)
    held = tuple(bool(x.known_start) or callable(x.y0) for x in experiments)
    count = int(np.sum(precision == 0)) + dim * (len(held) - sum(held))
    if data.count < count:
        raise ValueError(
            f"ys must hold at least as many numbers as are unknown, {count}, got {data.count}"
        )
    anchored = Starts(jnp.stack(starts), held, tuple(functions))
    return Unknowns(parameters, values, precision, anchored, tuple(given), count)


def floating_start(name: str, start: Any, dim: int) -> Float[Array, " dim"]:
    """A state at the start as an array; zeros where none is given."""
    start = checks.floating_array(name, np.zeros(dim) if start is None else start, jnp.float64)
    if start.shape != (dim,):
        raise ValueError(f"{name} must have shape ({dim},), got {start.shape}")
    checks.require_finite(name, start)
    return start


def _checked_start(parameters: Parameters, number: int, start: Callable, at: Array) -> Callable:
    """A user's start, of which all that is wrong is raised."""

    def given(at: Array) -> dict[str, Any]:
        return parameters.values(parameters.unconstrain(at), number)

    state = Partial(_state, parameters, start)
    traced = check_components("y0", state, parameters=jax.eval_shape(given, at))
    return as_traced(start, traced)


@watched
@eqx.filter_jit
def _start_at(parameters: Parameters, number: int, start: Callable, at: Array) -> Array:
    return _state(parameters, start, parameters.values(parameters.unconstrain(at), number))


def _state(parameters: Parameters, start: Callable, values: dict[str, Any]) -> Array:
    found = ask("y0", "y0(parameters)", start, values)
    return answer("y0", "a state", found, (parameters.system.dim,), jnp.float64)


def _require_finite_slope(
    parameters: Parameters,
    experiment: Experiment,
    shown: tuple[int, ...],
    start: Float[Array, " dim"],
) -> None:
    """Raise ValueError unless the right-hand side is finite where the experiment starts."""
    given = experiment.y0 is not None
    first = start if given else (start, experiment.ys)
    if not all(checks.is_concrete(x) for x in jax.tree.leaves((parameters, first))):
        return
    where, state = "the guess" if given else "the first observation", np.array(start)
    if not given:
        ys = np.asarray(experiment.ys)
        for column, i in enumerate(shown):
            state[i] = ys[experiment.seen[:, column], column][0]
    slope = _slope(parameters, dict(experiment.fixed), experiment.start_time, state)
    checks.require_finite(f"the right-hand side at {where}", slope)


@watched
@eqx.filter_jit
def _slope(parameters: Parameters, fixed: dict[str, Any], t: ArrayLike, y: Any) -> Array:
    system, args = parameters.having(fixed)
    return system(t, y, args)  # outside jit each operation would be a program of its own


def _precisions(parameters: Parameters, prior: Mapping[str, float]) -> Float[np.ndarray, " p"]:
    """1 / (standard deviation of the prior) for each entry of the parameters; 0 without one."""
    if set(prior) - set(parameters.names):
        raise ValueError(f"prior must name free parameters {parameters.names}, got {sorted(prior)}")
    bounded = np.isfinite(parameters.low) | np.isfinite(parameters.high)
    precisions = np.zeros(bounded.size)
    for name, sd in prior.items():
        place = parameters.places()[name]
        if not sd > 0 or bounded[place].any():
            raise ValueError(
                f"prior of {name} must be a positive standard deviation, and {name} without "
                f"bounds, got {sd}"
            )
        precisions[place] = 1 / sd
    return precisions

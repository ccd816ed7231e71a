"""Check what a fit is given: the observations of a solution, and what is unknown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from physml._numerics import checks
from physml._numerics.calls import answer, ask
from physml._numerics.parts import as_pytree
from physml._types import Numbers
from physml.pinn.collocation import Parameters
from physml.systems import System

Observe = Sequence[int] | Callable[[Array], Array] | None
"""What is seen of a state: indices of components, a function from (dim,) to (obs,), or all."""


Noise = Numbers | Callable[[Array], Array] | None
"""The noise's standard deviation: a number, one for each column or for each observation, or a
function of the observed values, (n, obs) to (n, obs)."""


NoiseModel = Float[Array, "rows obs"] | Callable[[Array], Array] | None
"""The same, checked: one row for all observations or one for each, or a function."""


class Observations(eqx.Module):
    """Observations of a solution that starts at t0."""

    t0: np.floating
    ts: Float[np.ndarray, " n"]
    ys: Float[Array, "n obs"]
    observe: Callable[[Array], Array]  # from (dim,) to (obs,), a pytree
    indices: tuple[int, ...] = eqx.field(static=True)  # of the components that are seen as they are
    noise: NoiseModel  # standard deviation, where it is known


class Unknowns(eqx.Module):
    """Parameters and a start, with what is known about them before the fit."""

    parameters: Parameters
    values: Float[Array, " p"]  # first guess of the parameters
    precision: Float[np.ndarray, " p"]  # 1 / (standard deviation of the prior); 0 without a prior
    start: Float[Array, " dim"]  # first guess of the state at t0
    start_given: bool = eqx.field(static=True)  # otherwise the start is taken from the data
    start_known: bool = eqx.field(static=True)  # the start is exact, not a guess
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
    ts: Numbers,
    ys: Numbers,
    state: Float[Array, " dim"],
    *,
    t0: float | None,
    observe: Observe,
    noise: Noise,
) -> Observations:
    """The observations of a state with as many components as `state`, checked."""
    if not (checks.is_concrete(ts) and checks.is_concrete(t0)):
        raise ValueError("ts and t0 must not be traced: the windows are laid out by them")
    ts = np.asarray(ts, float)
    checks.require_increasing("ts", ts)
    ys = checks.floating_array("ys", ys, jnp.float64)
    if ys.ndim != 2 or ys.shape[0] != len(ts):
        raise ValueError(f"ys must have shape ({len(ts)}, obs), a row a time, got {ys.shape}")
    checks.require_finite("ys", ys)
    start = np.float64(ts[0] if t0 is None else t0)
    if not (np.isfinite(start) and start <= ts[0] and start < ts[-1]):
        raise ValueError(
            f"ts must lie within the horizon that starts at t0 = {start} and hold a later time, "
            f"got {ts[0]} to {ts[-1]}"
        )
    observe, indices = _observation(observe, state, ys.shape[1])
    return Observations(start, ts, ys, observe, indices, _noise_model(noise, ys))


def _noise_model(noise: Noise, ys: Float[Array, "n obs"]) -> NoiseModel:
    if noise is None:
        return None
    name, model = "noise", None
    if callable(noise):
        name, model = "noise at the observations", as_pytree(noise)
        noise = _noise_at(model, ys)
        if noise.shape != ys.shape:
            raise ValueError(f"{name} must have their shape {ys.shape}, got {noise.shape}")
    noise = checks.floating_array(name, noise, jnp.float64)
    if noise.shape not in ((), ys.shape[1:], ys.shape):
        raise ValueError(
            f"noise must be a number, {ys.shape[1]}, or an array of the shape of ys, {ys.shape}, "
            f"got shape {noise.shape}"
        )
    checks.require_finite(name, noise)
    if model is not None:
        return _AtLeast(model, 1e-3 * jnp.sqrt(jnp.mean(noise**2, axis=0)))
    checks.require_positive(noise=noise)
    return jnp.broadcast_to(noise, ys.shape if noise.ndim == 2 else (1, ys.shape[1]))


@eqx.filter_jit
def _noise_at(model: Callable, ys: Array) -> Array:
    return model(ys)


class _AtLeast(eqx.Module):
    """A noise as a function of the value, which is not far below its usual size anywhere."""

    model: Callable
    least: Float[Array, " obs"]

    def __call__(self, values: Float[Array, "n obs"]) -> Float[Array, "n obs"]:
        return jnp.maximum(self.model(values), self.least[None])


def _observation(
    observe: Observe, state: Float[Array, " dim"], columns: int
) -> tuple[Callable[[Array], Array], tuple[int, ...]]:
    """The observation as a function, and the components that it shows as they are."""
    indices: tuple[int, ...] = ()
    every = range(state.size)
    if not callable(observe):
        indices = tuple(int(i) for i in (every if observe is None else observe))
        if not indices or len(set(indices)) < len(indices) or not set(indices) <= set(every):
            raise ValueError(
                f"observe must hold different indices below {len(every)}, got {observe}"
            )
        observe = _Components(indices)

    def seen(y: Array) -> Array:
        return answer("observe", "numbers", ask("observe", "observe(y)", observe, y))

    out = jax.eval_shape(seen, state)
    if out.shape != (columns,) or out.dtype != state.dtype:
        raise ValueError(
            f"ys must have a column for each number that observe gives, of shape {out.shape} and "
            f"dtype {out.dtype}, got {columns} columns"
        )
    return as_pytree(observe), indices


def check_unknowns(
    guess: tuple[Parameters, Float[Array, " p"]],
    start: Float[Array, " dim"],
    data: Observations,
    *,
    prior: Mapping[str, float],
    given: bool,
    known: bool,
) -> Unknowns:
    """The unknowns that these data are to determine, checked."""
    parameters, values = guess
    dim = parameters.system.dim
    if not given and (known or set(data.indices) != set(range(dim))):
        raise ValueError("y0 must be given unless all components are observed, got None")
    precision = _precisions(parameters, prior)
    first = start if given else (start, data.ys)
    if all(checks.is_concrete(x) for x in jax.tree.leaves((parameters, first))):
        where = "the guess" if given else "the first observation"
        state = np.array(start)
        if not given:
            state[list(data.indices)] = np.asarray(data.ys)[0]
        slope = _slope(parameters.system, data.t0, state, parameters.args)
        checks.require_finite(f"the right-hand side at {where}", slope)
    count = int(np.sum(precision == 0)) + (0 if known else dim)
    if data.ys.size < count:
        raise ValueError(
            f"ys must hold at least as many numbers as are unknown, {count}, got {data.ys.size}"
        )
    return Unknowns(parameters, values, precision, start, given, known, count)


@eqx.filter_jit
def _slope(system: System, t: ArrayLike, y: Any, args: PyTree) -> Array:
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

"""The guess that a search for a solution begins with."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from physml._numerics.calls import answer, ask
from physml._numerics.checks import floating_array, require_finite
from physml._types import Numbers
from physml.solution import Solution

Guess = Callable[[Float[np.ndarray, "*times"]], Float[np.ndarray, "*times dim"]]


def as_guess(
    guess: Numbers | Callable[[Array], Numbers] | None, dim: int, ends: tuple[float, float]
) -> tuple[Guess, np.dtype]:
    """A guess as a function of many times, and the dtype in which it came.

    Args:
        guess: a state; states at even times; a function of the time, such as a solution; or None
            for zero.
        dim: the number of components.
        ends: the first and the last time.

    Raises:
        ValueError: the states have another number of components, or are not finite.
    """
    if isinstance(guess, Solution):
        return _of_solution(guess, dim)
    if callable(guess):
        return _of_function(guess, dim)
    values = np.asarray(floating_array("guess", np.zeros(dim) if guess is None else guess))
    if values.shape[-1:] != (dim,) or values.ndim > 2 or values.shape[0] < 1:
        raise ValueError(
            f"guess must have shape ({dim},), or (times, {dim}) for states at even times from t0 "
            f"to t1, got {values.shape}"
        )
    require_finite("guess", values)
    if values.ndim == 1 or len(values) == 1:
        constant = values.reshape(dim)
        return lambda times: np.broadcast_to(constant, (*np.shape(times), dim)), values.dtype
    if not np.isfinite(ends).all():
        raise ValueError(
            "guess must be a state or a function of the time where an end is infinite, got states "
            "at even times"
        )
    even = np.linspace(*ends, len(values))
    return lambda times: _between(times, even, values), values.dtype


def _between(times: np.ndarray, even: np.ndarray, values: np.ndarray) -> np.ndarray:
    columns = [np.interp(times, even, column) for column in values.T]
    return np.stack(columns, axis=-1).astype(values.dtype)


def _of_solution(solution: Solution, dim: int) -> tuple[Guess, np.dtype]:
    if solution.ys.ndim != 2 or solution.ys.shape[1] != dim:
        raise ValueError(
            f"guess must be a solution with {dim} components, got ys of shape {solution.ys.shape}"
        )
    low, high = float(solution.t0), float(solution.t1)

    def at(times: np.ndarray) -> np.ndarray:
        flat = np.clip(np.ravel(times), low, high)
        return np.asarray(solution(flat)).reshape(*np.shape(times), dim)

    return at, np.dtype(solution.ys.dtype)


def _of_function(guess: Callable[[Array], Numbers], dim: int) -> tuple[Guess, np.dtype]:
    def single(t: Array) -> Array:
        return answer("guess", "a state", ask("guess", "guess(t)", guess, t), (dim,), t.dtype)

    def at(times: np.ndarray) -> np.ndarray:
        values = np.asarray(jax.vmap(single)(jnp.asarray(np.ravel(times))))
        require_finite("guess", values)
        return values.reshape(*np.shape(times), dim)

    dtype: DTypeLike = jnp.zeros(()).dtype
    return at, np.dtype(dtype)

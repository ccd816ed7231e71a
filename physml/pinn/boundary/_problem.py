"""A boundary value problem with its guess, and the programs that evaluate it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, PyTree

from physml._numerics.calls import answer, ask
from physml._numerics.checks import floating_array, require_finite, require_untraced
from physml._numerics.compiled import compiling, lower
from physml._numerics.double_double import DoubleDouble
from physml._numerics.interpreter import by_pairs, in_double_double
from physml._numerics.parts import as_pytree
from physml._types import Numbers
from physml.pinn.collocation import Parameters, exact_defect, exact_nodes_in, left_out
from physml.solution import Solution, in_vectors
from physml.systems import System, from_function
from physml.systems.states import Path, Structure, ravel_numbers, take_apart_state

Guess = Callable[[Float[np.ndarray, "*times"]], Float[np.ndarray, "*times dim"]]

POINTS_AT_ONCE = 512
WINDOWS_AT_ONCE = 8


class BoundaryProblem(eqx.Module):
    """dy/dt = f(t, y; p) with conditions on the states at some times.

    The unknown numbers p are the free parameters and, if the period is unknown, the period T. Then
    the solver's time is s in [0, 1], with t = t0 + T s and dy/ds = T f.

    Attributes:
        system, args: the right-hand side.
        free: the right-hand side with its parameters free, if any are.
        conditions: of the states at the conditions' times, and of the free parameters by name.
        num_states: the number of the conditions' times.
        num_unknown: the number of unknown numbers.
        unknown_period: whether the last of them is the period.
        t0: the first time.
    """

    system: System
    args: PyTree
    free: Parameters | None
    conditions: Callable
    num_states: int = eqx.field(static=True)
    num_unknown: int = eqx.field(static=True)
    unknown_period: bool = eqx.field(static=True)
    t0: Float[Array, ""]

    @property
    def dim(self) -> int:
        """The number of components."""
        return self.system.dim

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the computation."""
        return np.dtype(self.t0.dtype)

    def times(self, s: np.ndarray, p: np.ndarray) -> np.ndarray:
        """The user's times, of the solver's."""
        return np.asarray(self.t0) + p[-1] * s if self.unknown_period else s

    def rates(
        self, t: Float[Array, "*batch"], y: Float[Array, "dim *batch"], p: Float[Array, " unknown"]
    ) -> Float[Array, "dim *batch"]:
        """dy/dt, or dy/ds with an unknown period."""
        times = self.t0 + p[-1] * t if self.unknown_period else t
        if self.free is None:
            rates = self.system(times, y, self.args)
        else:
            rates = self.free(times, y, p[:-1] if self.unknown_period else p)
        return p[-1] * rates if self.unknown_period else rates

    def misses(
        self, states: Float[Array, "states dim"], p: Float[Array, " unknown"]
    ) -> Float[Array, " conditions"]:
        """By how much the conditions are missed: zero where they are met."""
        given: list[object] = list(states)
        if self.free is not None:
            given.append(self.free.split(p[:-1] if self.unknown_period else p))
        found = ask("conditions", called(given), self.conditions, *given)
        what = f"{self.dim + self.num_unknown} numbers, one for each component"
        what += " and each free parameter" * (self.num_unknown > 0)
        found = answer("conditions", what, found, None, self.dtype)
        if found.shape != (self.dim + self.num_unknown,):
            raise ValueError(f"conditions must return {what}, got shape {found.shape}")
        return found


class WrittenConditions(eqx.Module):
    """A user's conditions on states that are no vectors, as conditions on vectors.

    The answers may be any tree of numbers; a complex one is two conditions.

    Attributes:
        conditions: of states as the user writes them, and of the free parameters by name.
        structure: of the states.
    """

    conditions: Callable
    structure: Structure = eqx.field(static=True)

    def __call__(self, *given: PyTree) -> Float[Array, " conditions"]:
        leaves, tree = jax.tree.flatten(given)

        def of_leaves(*leaves: Array) -> Array:
            given = jax.tree.unflatten(tree, leaves)
            written = [x if isinstance(x, dict) else self.structure.unravel(x) for x in given]
            found = ask("conditions", called(given), self.conditions, *written)
            return ravel_numbers("conditions", "numbers, zero where they are met", found)

        return by_pairs(of_leaves)(*leaves)


def written(conditions: Callable, structure: Structure | None) -> Callable:
    """Conditions on states as the user writes them, as conditions on vectors."""
    return conditions if structure is None else WrittenConditions(as_pytree(conditions), structure)


def called(given: Sequence[object]) -> str:
    """How conditions are called: with vectors, and a dictionary of parameters if any are free."""
    num = sum(not isinstance(x, dict) for x in given)
    words = ["y0", "y1", "y2"][:num] if num < 4 else ["y0", "...", "yn"]
    return f"conditions({', '.join(words + ['parameters'] * (len(given) - num))})"


class Programs(NamedTuple):
    """Compiled functions of a problem and arrays of fixed shapes.

    Attributes:
        linearised: dy/dt at some points, and its derivatives in y and in p.
        conditions: by how much they are missed, and their derivatives in the states and in p.
        exact: the defect of some windows, computed in double-double, and what their quadrature of
            f leaves out.
        exact_conditions: by how much the conditions are missed, computed in double-double.
    """

    linearised: Callable[..., tuple[Array, Array, Array]]
    conditions: Callable[..., tuple[Array, Array, Array]]
    exact: Callable[..., tuple[Array, Array]]
    exact_conditions: Callable[..., Array]


def make_programs(problem: BoundaryProblem, finer: int) -> Programs:
    """The programs, compiled beside each other; `finer` is the number of points of `exact`."""
    dim, unknown, dtype = problem.dim, problem.num_unknown, problem.dtype

    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    p, states = array(unknown), array(problem.num_states, dim)
    many, some = POINTS_AT_ONCE, WINDOWS_AT_ONCE
    values, edges = array(some, dim, finer + 2), array(some)
    return Programs(
        compiling(lower(_linearised, problem, array(many), array(dim, many), p), quickly=True),
        compiling(lower(_conditions, problem, states, p), quickly=True),
        compiling(lower(_exact, problem, edges, edges, values, values, p, p), quickly=True),
        compiling(lower(_exact_conditions, problem, states, states, p, p), quickly=True),
    )


def _linearised(
    problem: BoundaryProblem, t: Float[Array, " points"], y: Float[Array, "dim points"], p: Array
) -> tuple[Array, Array, Array]:
    """f (dim, points), f_y (dim, dim, points) and f_p (dim, unknown, points)."""
    rates, tangent = jax.linearize(lambda y, p: problem.rates(t, y, p), y, p)

    def in_state(direction: Array) -> Array:
        return tangent(jnp.broadcast_to(direction[:, None], y.shape), jnp.zeros_like(p))

    by_state = jax.vmap(in_state, out_axes=1)(jnp.eye(len(y), dtype=y.dtype))
    if not p.size:
        return rates, by_state, jnp.zeros((len(y), 0, t.size), y.dtype)
    in_unknown = jax.vmap(lambda d: tangent(jnp.zeros_like(y), d), out_axes=1)
    return rates, by_state, in_unknown(jnp.eye(p.size, dtype=y.dtype))


def _conditions(
    problem: BoundaryProblem, states: Float[Array, "states dim"], p: Float[Array, " unknown"]
) -> tuple[Array, Array, Array]:
    """g (rows,), its derivatives (rows, states, dim) and (rows, unknown)."""
    by_states, by_unknown = jax.jacfwd(problem.misses, argnums=(0, 1))(states, p)
    return problem.misses(states, p), by_states, by_unknown


def _exact(
    problem: BoundaryProblem,
    starts: Float[Array, " windows"],
    ends: Float[Array, " windows"],
    values: Float[Array, "windows dim nodes"],
    rest: Float[Array, "windows dim nodes"],
    p: Float[Array, " unknown"],
    p_rest: Float[Array, " unknown"],
) -> tuple[Float[Array, "windows dim later"], Float[Array, "windows dim"]]:
    """The defect at all nodes but the first, and what the quadrature of f leaves out.

    Values and unknown numbers come as double-doubles. The unknown numbers join the state, as
    components that do not change, so that they enter f in double-double too.
    """
    dim, num = values.shape[1], values.shape[2] - 2

    def field(t: Array, z: Float[Array, "all points"]) -> Array:
        if not p.size:
            return problem.rates(t, z, p)
        single = jax.vmap(lambda t, z: problem.rates(t, z[:dim], z[dim:]), (0, 1), 1)
        return jnp.concatenate([single(t, z), jnp.zeros_like(z[dim:])])

    def window(start: Array, end: Array, values: Array, rest: Array) -> tuple[Array, Array]:
        def joined(y: Array, p: Array) -> Array:
            return jnp.concatenate([y, jnp.broadcast_to(p[:, None], (p.size, num + 2))])

        nodes = exact_nodes_in(start, end, num)
        z = DoubleDouble(joined(values, p), joined(rest, p_rest))
        missing, rates = exact_defect(field, nodes, z)
        return missing[:dim], left_out(nodes.leading, rates[:dim])

    return jax.vmap(window)(starts, ends, values, rest)


def _exact_conditions(
    problem: BoundaryProblem, states: Array, states_rest: Array, p: Array, p_rest: Array
) -> Float[Array, " conditions"]:
    """By how much the conditions are missed; the arguments come as double-doubles."""
    in_full = in_double_double(problem.misses)
    return in_full(DoubleDouble(states, states_rest), DoubleDouble(p, p_rest)).hi


def take_apart_guess(
    system: System | Callable[..., Any], guess: Any, t0: float
) -> tuple[System, Any, Structure | None]:
    """The system, the guess in vectors, and the structure of the states as the user writes them.

    Args:
        system: a system, or a right-hand side `f(t, y, args)` or `f(t, y)`, whose states are like
            the guess.
        guess: as for `as_guess`, of states that may be no vectors.
        t0: a time at which a guess that is a function is known.

    Raises:
        TypeError, ValueError: there is no guess for a function; as `Structure.ravel_rows`.
    """
    require_untraced("a boundary value problem", guess)
    structure = getattr(system, "structure", None)
    if not isinstance(system, System):
        if not callable(system):
            raise TypeError(f"system must be a System or a function, got {type(system).__name__}")
        if guess is None:
            raise TypeError("guess must be given where the system is a function, got None")
        structure = _structure_of(guess, t0)
        system = from_function(system, like=structure)
        structure = system.structure
    if structure is None:
        return system, guess, None
    if isinstance(guess, Solution):
        if guess.structure != structure:
            found = "vectors" if guess.structure is None else guess.structure.words
            raise ValueError(f"guess must have the structure {structure.words}, got {found}")
        guess = in_vectors(guess)
    elif callable(guess):
        guess = Path("guess", as_pytree(guess), structure)
    elif guess is not None:
        guess = structure.ravel_rows("guess", guess)
    return system, guess, structure


def _structure_of(guess: Any, t0: float) -> Structure:
    """The structure of the states that a guess stands for; rows of numbers are many vectors."""
    if isinstance(guess, Solution) and guess.structure is not None:
        return guess.structure
    if callable(guess):
        guess = ask("guess", "guess(t)", guess, jnp.asarray(t0, jnp.zeros(()).dtype))
    elif not isinstance(guess, dict | tuple) and np.ndim(guess) == 2:
        guess = guess[0]
    return take_apart_state("guess", guess)[0]


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

"""The check of an initial value problem, as users hand it in."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import (
    as_traced,
    check_components,
    reads_traced,
    require_components,
    trace,
    with_arrays,
)
from physml._numerics.checks import floating_array, is_concrete, require_finite
from physml._numerics.compiled import constant
from physml._types import Numbers
from physml.systems._base import System
from physml.systems._function import FunctionSystem, from_function
from physml.systems.states import Form, Held, HigherOrder, Reversed, Structure, take_apart_state


class FlatProblem(NamedTuple):
    """An initial value problem as the solvers see it: a vector of real numbers, time that grows.

    Attributes:
        system: the right-hand side.
        y0: the start.
        form: how the user writes states and time.
        args: the arguments of the right-hand side.
    """

    system: System
    y0: Float[Array, " dim"]
    form: Form
    args: PyTree


def flatten_problem(
    system: System | Callable[..., Any],
    y0: PyTree,
    args: PyTree,
    *,
    t0: Any = 0.0,
    backwards: bool = False,
) -> FlatProblem:
    """The problem that a user states, for solvers of real vectors and growing times.

    A right-hand side `f(t, y, args)` or `f(t, y)` becomes a system of states like y0. What is a
    vector of real numbers passes as it is.

    Args:
        system, y0, args: as the user gives them.
        t0: the user's time of y0; used where time runs backwards.
        backwards: whether it does.

    Raises:
        TypeError, ValueError: as `check_problem`, of states of any structure.
    """
    structure = None
    if not isinstance(system, System):
        if not callable(system):
            raise TypeError(f"system must be a System or a function, got {type(system).__name__}")
        structure, start = take_apart_state("y0", y0)
        system = from_function(system, like=structure)
        structure = system.structure
    elif isinstance(system, FunctionSystem) and system.structure is not None:
        start, structure = system.structure.ravel_like("y0", y0)
    else:
        start = floating_array("y0", y0)
    solved = Reversed.of(system, float(t0)) if backwards else system
    solved, start, args = check_problem(solved, start, args)
    problem = FlatProblem(solved, start, Form(structure, backwards), args)
    if isinstance(system, FunctionSystem):
        if structure is not None:
            _require_leaves(system, structure, problem.y0, args)
        _require_solvable(system, problem.y0, args, t0)
    return problem


def _require_solvable(
    system: FunctionSystem, y0: Float[Array, " dim"], args: PyTree, t0: Any
) -> None:
    """Raise ValueError where an implicit equation has no right-hand side at the start."""
    args = system.args if args is None else args
    known = all(map(is_concrete, jax.tree.leaves((system.function, y0, args, t0))))
    if isinstance(system.function, HigherOrder) and known:
        with jax.ensure_compile_time_eval():  # also while something else is traced
            state = y0 if system.structure is None else system.structure.unravel(y0)
            system.function.check_start(t0, state, args)


def _require_leaves(
    system: FunctionSystem, structure: Structure, y0: Float[Array, " dim"], args: PyTree
) -> None:
    """Raise ValueError if the right-hand side takes a component that an array does not have."""
    args = system.args if args is None else args
    state = jax.eval_shape(structure.unravel, y0)
    check_components(
        "the right-hand side",
        lambda t, state: system.rates(t, state, args),
        t=jax.ShapeDtypeStruct((), y0.dtype),
        y=state,
    )


def check_problem(system: System, y0: Numbers, args: PyTree) -> tuple[System, Array, PyTree]:
    """The system and `args`, with numbers as (weakly typed) arrays, and y0 as an array, checked.

    Raises:
        TypeError: `system` is not a System, or y0 not real numbers, or the right-hand side answers
            with None.
        ValueError: y0 has the wrong shape, precision or values, or the right-hand side answers
            with another shape or dtype.
    """
    if not isinstance(system, System):
        raise TypeError(
            f"system must be a System, got {type(system).__name__}: "
            "systems.from_function(f, dim) makes one of a right-hand side"
        )
    # JAX traces parameters that are arrays: another value of one does not compile again.
    system = jax.tree.map(lambda x: constant(x) if isinstance(x, float) else x, system)
    y0 = floating_array("y0", y0)
    if y0.shape[:1] != (system.dim,):
        raise ValueError(f"y0 must have shape ({system.dim},), got {y0.shape}")
    require_finite("y0", y0)
    t = jax.ShapeDtypeStruct((), y0.dtype)
    (traced, out), args = with_arrays(
        lambda args: trace(jax.tree_util.Partial(_rates, system, args), t, y0), args
    )
    if out is None:
        raise TypeError(
            f"the right-hand side must answer with an array of shape {y0.shape}, got None"
        )
    if out.shape != y0.shape or out.dtype != y0.dtype:
        raise ValueError(
            f"the right-hand side must answer with the shape and dtype of y, {y0.shape} "
            f"{y0.dtype}, got {out.shape} {out.dtype}"
        )
    inner = system.system if isinstance(system, Reversed) else system
    if getattr(inner, "structure", None) is None:  # others are asked by their arrays' names
        require_components("the right-hand side", traced, {traced.arguments[1]: "y"})
    if reads_traced(traced):
        system = Held.of(system, t, y0, args)
        traced, _ = trace(jax.tree_util.Partial(_rates, system, args), t, y0)
    return as_traced(system, traced), y0, args


def _rates(system: System, args: PyTree, t: Array, y: Array) -> object:
    return system(t, y, args)

"""From a checked problem to its solution and verdict, however it was stated."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike, Float, PyTree

from physml._numerics import checks
from physml._numerics.blas import single_threaded_blas
from physml._numerics.calls import as_traced, check_components
from physml._numerics.compiled import constant, once
from physml._numerics.parts import as_pytree
from physml._types import Numbers
from physml.pinn.boundary._correction import Corrected, correct, finer
from physml.pinn.boundary._infinite import Ends, settle
from physml.pinn.boundary._linear import Step
from physml.pinn.boundary._mesh import Found, Search, Settings
from physml.pinn.boundary._problem import BoundaryProblem, Guess, make_programs
from physml.pinn.boundary._solution import (
    ILL_POSED,
    BoundarySolution,
    judge,
    periodic_facts,
    unknown_numbers,
)
from physml.pinn.collocation import free_parameters
from physml.results import RESULTS, conclude
from physml.solution import as_written
from physml.systems import System, flatten_problem
from physml.systems.states import Form

_DEFAULT_RTOL = (1e-10, 1e-4)  # in float64 and float32


class Task(NamedTuple):
    """What is to be solved.

    Attributes:
        problem: the equation and the conditions.
        guess: of the solution, a function of the solver's time.
        unknown: the guess of the unknown numbers.
        ends: of the interval, in the solver's time.
        at: the conditions' times.
        settings: of the search.
        period: of a periodic solution, or a guess of it; None for any other.
        form: how the user writes a state.
    """

    problem: BoundaryProblem
    guess: Guess
    unknown: Float[np.ndarray, " unknown"]
    ends: Ends
    at: Float[np.ndarray, " states"]
    settings: Settings
    period: float | None = None
    form: Form = Form()


def check_settings(
    rtol: float | None,
    atol: float | None,
    num_points: int,
    max_windows: int,
    max_steps: int,
    dtype: DTypeLike,
) -> Settings:
    """The settings of a search: raises ValueError where one is out of range."""
    checks.require_count(8, num_points=num_points)
    checks.require_count(max_windows=max_windows, max_steps=max_steps)
    relative, absolute = checks.check_tolerances(rtol, atol, dtype, _DEFAULT_RTOL)
    absolute = 0.0 if absolute is None else float(absolute)
    return Settings(float(relative), absolute, num_points, max_windows, max_steps)


def state_problem(
    equation: tuple[System, PyTree, Sequence[str]],
    conditions: Callable[..., Numbers],
    start: tuple[Guess, float, DTypeLike],
    *,
    num_states: int,
    period: float | None = None,
) -> tuple[BoundaryProblem, Float[np.ndarray, " unknown"]]:
    """The problem, checked, and the guess of its unknown numbers.

    Args:
        equation: the system, its `args`, and the names of the free parameters.
        conditions: as users state them.
        start: the guess, the first time or another at which it is known, and the dtype.
        num_states: the number of states that the conditions get.
        period: the guess of an unknown period.
    """
    (system, args, names), (guess, t, dtype) = equation, start
    checks.require_untraced("a boundary value problem", (system, args, conditions))
    args = getattr(system, "args", None) if args is None else args
    first = guess(np.asarray(t)).astype(dtype)
    system, _, _, args = flatten_problem(system, first, args)
    free, unknown = None, np.zeros(0, dtype)
    if len(names):
        free, values = free_parameters(system, args, names, {}, dtype)
        unknown = np.asarray(values, dtype)
    if period is not None:
        unknown = np.append(unknown, np.asarray(period, dtype))
    problem = BoundaryProblem(
        system=system,
        args=args,
        free=free,
        conditions=as_pytree(conditions),
        num_states=num_states,
        num_unknown=len(unknown),
        unknown_period=period is not None,
        t0=constant(t, dtype),
    )
    states, p = jnp.zeros((num_states, system.dim), dtype), jnp.asarray(unknown)
    rates = problem.rates, jnp.zeros(1, dtype), states[:1].T, p
    checks.require_untraced("a boundary value problem", (), (problem.misses, states, p), rates)
    traced = check_components("conditions", problem.misses, states=states, parameters=p)
    return as_traced(problem, traced), unknown


def run(task: Task, ts: Numbers | None, name: str, *, throw: bool) -> BoundarySolution:
    """Search, correct, judge and conclude."""
    with single_threaded_blas():
        search = make_search(task)
        found, beyond = _search(search, task)
        solution, words = finish(task, search, found, beyond, ts)
    return conclude(solution, solution.result, name, words, throw=throw)


def make_search(task: Task) -> Search:
    """A search for the solution, with its programs."""
    programs = once(make_programs, task.problem, finer(task.settings.num_points))
    return Search(task.problem, programs, task.settings)


def finish(
    task: Task,
    search: Search,
    found: Found,
    beyond: Float[np.ndarray, " dim"],
    ts: Numbers | None,
) -> tuple[BoundarySolution, str]:
    """What was found, corrected and judged, and the words for how it ended."""
    problem, settings = search.problem, task.settings
    result, words = found.result, found.words
    corrected = _hopeless(found)
    if result == RESULTS.successful:
        try:
            space = search.on_mesh(found.edges, _places(task, found), finer(settings.num_points))
            corrected = correct(space, found.x)
        except np.linalg.LinAlgError:
            result, words = RESULTS.not_converged, "The linearised problem has no factors."
    times = problem.times(found.edges, found.x.unknown)
    given = checks.check_times(ts, float(times[0]), float(times[-1]), problem.dtype)
    tolerance = settings.rtol, settings.atol
    judged = judge(problem, found, corrected, beyond, given, tolerance)
    if result == RESULTS.successful and not judged.trusted:
        result, words = RESULTS.suspect, _doubt(corrected)
    solution = BoundarySolution(
        ts=given,
        ys=judged.ys,
        t0=constant(times[0]),
        t1=constant(times[-1]),
        dense=judged.polynomials,
        result=result,
        stats={
            "num_windows": len(found.edges) - 1,
            "num_meshes": found.num_meshes,
            "num_iterations": found.num_steps,
            "edges": constant(times),
            "residuals": constant(found.residuals),
            "condition": corrected.condition,
        },
        error=judged.error,
        **unknown_numbers(problem, corrected),
        **({} if task.period is None else periodic_facts(task.period, problem, corrected)),
    )
    return as_written(solution, task.form), words


def _search(search: Search, task: Task) -> tuple[Found, Float[np.ndarray, " dim"]]:
    """The solution on a mesh, and the errors that the cut of an infinite interval makes."""
    ends, dtype, system = task.ends, task.problem.dtype, task.problem.system
    inner = task.at[np.isfinite(task.at)]
    if not task.problem.unknown_period:
        inner = np.append(inner, system.jump_times(*ends.cut))
    found = search.from_guess(
        ends.stops(inner, dtype), ends.places(task.at, dtype), task.guess, task.unknown
    )
    if found.result != RESULTS.successful or not ends.infinite:
        return found, np.zeros(system.dim, dtype)
    return settle(search, found, ends, inner, task.at)


def _places(task: Task, found: Found) -> Float[np.ndarray, " states"]:
    """The conditions' times on the mesh that was found."""
    return np.clip(task.at.astype(found.edges.dtype), found.edges[0], found.edges[-1])


def _hopeless(found: Found) -> Corrected:
    """What has been reached, with an infinite error."""
    nothing = Step(*map(np.zeros_like, found.x))
    anything = Step(*(np.full_like(x, np.inf) for x in found.x))
    return Corrected(found.x, nothing, anything, np.inf, np.zeros((0, 0, 0)))


def _doubt(corrected: Corrected) -> str:
    """What the message says of a solution whose estimate is large."""
    if not corrected.condition * np.finfo(corrected.x.values.dtype).eps < ILL_POSED:
        return (
            "The conditions hardly determine the solution: other solutions near it, or none, may "
            f"fulfil them. Their condition number is {corrected.condition:.1e}."
        )
    return "By the estimate, less than half of the digits asked for are right."

"""Branches of solutions: a boundary value problem followed in one of its parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics import checks
from physml._numerics.blas import single_threaded_blas
from physml._numerics.calls import checked, summary
from physml.pinn.boundary._arc import FIRST_STEP, Arc, OnArc
from physml.pinn.boundary._infinite import Ends
from physml.pinn.boundary._problem import as_guess, take_apart_guess, written
from physml.pinn.boundary._run import Task, check_settings, state_problem
from physml.pinn.boundary._solution import BoundarySolution
from physml.results import RESULTS, conclude
from physml.systems import System
from physml.systems.states import Form

_LONGEST_STEP = 0.1
_EASY = 4  # Newton's steps up to which the next step along the arc is longer


class Branch(eqx.Module):
    """Solutions along a branch, in the order in which they were found.

    Attributes:
        parameter: the name of the parameter.
        values: its values.
        solutions: the solutions.
        folds: those at which the parameter turns back.
        branch_points: those at which another branch crosses this one.
        result: how it ended: `successful` where the parameter left its range,
            `max_steps_reached`, or why no step led on.
    """

    parameter: str = eqx.field(static=True)
    values: Float[Array, " points"]
    solutions: list[BoundarySolution]
    folds: list[BoundarySolution]
    branch_points: list[BoundarySolution]
    result: RESULTS

    def __repr__(self) -> str:
        if not isinstance(self.values, jax.Array):
            return super().__repr__()

        def at(some: list[BoundarySolution]) -> str:
            return ", ".join(f"{float(x.parameters[self.parameter]):.10g}" for x in some) or "none"

        facts = {
            "from": self.values[0], "to": self.values[-1], "solutions": str(len(self.solutions)),
            "folds": at(self.folds), "branch points": at(self.branch_points),
            "result": RESULTS[self.result],
        }  # fmt: skip
        return summary(f"Branch in {self.parameter}", facts)


@checked
def follow_branch(
    system: System | Callable[..., Any],
    conditions: Callable[..., PyTree],
    t0: float,
    t1: float,
    *,
    parameter: str,
    within: tuple[float, float],
    guess: PyTree | Callable[[Array], PyTree] = None,
    backwards: bool = False,
    free: Sequence[str] = (),
    args: PyTree = None,
    rtol: float | None = None,
    atol: float | None = None,
    num_points: int = 20,
    max_windows: int = 1024,
    max_steps: int = 50,
    max_points: int = 200,
    throw: bool = True,
) -> Branch:
    r"""The branch of solutions of a boundary value problem, followed in one of its parameters.

    The first solution is that of `solve_boundary` at the system's own value of the parameter. Each
    further one lies a step along the tangent of the branch: the parameter is one of the unknowns,
    and the length of the step is one of the conditions (pseudo-arclength), so that the branch is
    followed where the parameter turns back. At such a fold the parameter's share of the tangent is
    zero; the solution there is found as precisely as any other. Where the determinant of all
    equations changes its sign, another branch crosses. The solution there is found too; because the
    equations are singular there, its error cannot be estimated, and its own result is `suspect`.

    Args:
        system, guess: as for `solve_boundary`; the guess is that of the first solution.
        conditions: `conditions(y0, y1, parameters)`, zero where they are met, of the states at `t0`
            and `t1` and a dictionary of the parameter and those in `free`.
        t0, t1: the interval.
        parameter: the name of the parameter: the system's own, or a key of `args`. It is a number.
        within: the range of the parameter; the branch ends where it leaves it.
        backwards: begin with falling values of the parameter.
        free: names of other unknown parameters, each with a condition more.
        args, rtol, atol, num_points, max_windows, max_steps: as for `solve_boundary`.
        max_points: the largest number of solutions.
        throw: raise where the first solution is not found, or where no step leads on; otherwise
            warn, and `result` says why.

    Returns:
        A `Branch`.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape, order or precision.
        RuntimeError: the first solution was not found, or no step leads on.

    Source: H. B. Keller, Numerical solution of bifurcation and nonlinear eigenvalue problems, in
    P. Rabinowitz (ed.), Applications of Bifurcation Theory (1977) 359.

    Example:
        >>> bratu = systems.from_function(
        ...     lambda t, y, p: [y[1], -p["strength"] * jnp.exp(y[0])], 2, args={"strength": 1.0}
        ... )
        >>> branch = pinn.follow_branch(
        ...     bratu, lambda a, b, p: [a[0], b[0]], 0.0, 1.0,
        ...     parameter="strength", within=(0.5, 4.0),
        ... )
        >>> print(f"{branch.folds[0].parameters['strength']:.9f}")
        3.513830719
    """
    t0, t1 = checks.check_interval(t0, t1)
    if not within[0] < within[1]:
        raise ValueError(f"within must be low < high, got {within}")
    checks.require_count(2, max_points=max_points)
    system, guess, structure = take_apart_guess(system, guess, t0)
    start, dtype = as_guess(guess, system.dim, (t0, t1))
    settings = check_settings(rtol, atol, num_points, max_windows, max_steps, dtype)
    names = (*free, parameter)
    nowhere = jnp.zeros((2, system.dim), dtype), jnp.zeros(len(names), dtype)
    conditions = OnArc(
        written(conditions, structure), names, *nowhere, *nowhere, jnp.zeros((), dtype)
    )
    equation, given = (system, args, names), (start, t0, dtype)
    problem, unknown = state_problem(equation, conditions, given, num_states=2)
    if len(unknown) != len(names):
        raise ValueError(f"parameter and free must be single numbers, got {len(unknown)} in all")
    if not within[0] <= unknown[-1] <= within[1]:
        raise ValueError(f"within must hold {parameter} = {unknown[-1]}, got {within}")
    ends, at, form = Ends(t0, t1), np.array([t0, t1]), Form(structure)
    task = Task(problem, start, unknown, ends, at, settings, form=form)
    with single_threaded_blas():
        arc = Arc(task, conditions, within[1] - within[0])
        branch, words = _follow(arc, within, -1.0 if backwards else 1.0, max_points)
    return conclude(branch, branch.result, "pinn.follow_branch", words, throw=throw)


def _follow(
    arc: Arc, within: tuple[float, float], direction: float, max_points: int
) -> tuple[Branch, str]:
    """The branch, and the words for how it ended."""
    found, point = arc.first(direction)
    first, words = arc.solution(found)
    solutions, folds, crossings, step, result = [first], [], [], FIRST_STEP, found.result
    while point is not None:
        at = float(point.found.x.unknown[-1])
        if not within[0] <= at <= within[1]:
            result, words = RESULTS.successful, ""
            break
        if len(solutions) == max_points:
            words = f"It has {max_points} solutions, that is max_points."
            result = RESULTS.max_steps_reached
            break
        following, step = arc.step(point, step)
        if following is None:
            result, words = RESULTS.not_converged, f"No step leads on from the parameter {at:.6g}."
            break
        solutions.append(arc.solution(following.found)[0])  # while its place on the arc is set
        if following.tangent.unknown[-1] * point.tangent.unknown[-1] < 0:
            folds.append(arc.solution(arc.fold(point, step))[0])
        elif arc.crosses(point, step):
            crossings.append(arc.solution(arc.crossing(point, step))[0])
        steps = following.found.num_steps - point.found.num_steps
        step = min(step * (1.5 if steps <= _EASY else 0.8), _LONGEST_STEP)
        point = following
    name = arc.names[-1]
    values = jnp.stack([solution.parameters[name] for solution in solutions])
    return Branch(name, values, solutions, folds, crossings, result), words

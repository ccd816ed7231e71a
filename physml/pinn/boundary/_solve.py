"""A boundary value problem, solved in all windows at once."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics import checks
from physml._numerics.calls import checked
from physml._types import Numbers
from physml.pinn.boundary._infinite import Ends, time_scale
from physml.pinn.boundary._problem import as_guess, take_apart_guess, written
from physml.pinn.boundary._run import Task, check_settings, run, state_problem
from physml.pinn.boundary._solution import BoundarySolution
from physml.systems import System
from physml.systems.states import Form


@checked
def solve_boundary(
    system: System | Callable[..., Any],
    conditions: Callable[..., PyTree],
    t0: float,
    t1: float,
    *,
    guess: PyTree | Callable[[Array], PyTree] = None,
    free: Sequence[str] = (),
    at: Numbers | None = None,
    ts: Numbers | None = None,
    args: PyTree = None,
    rtol: float | None = None,
    atol: float | None = None,
    num_points: int = 20,
    max_windows: int = 1024,
    max_steps: int = 50,
    settling: float | None = None,
    throw: bool = True,
) -> BoundarySolution:
    r"""Solves $dy/dt = f(t, y; p)$ with conditions on the states at two or more times.

    [t0, t1] is cut into windows. In each one the solution is a polynomial through the window's
    start, its Gauss points and its end, and the equation holds in integral form at the points
    (collocation, as in `solve`, for all windows at once). Newton's method finds the values at all
    points and the free parameters together, from a guess; its steps are damped so that the method
    does not depend on how the equations are scaled. Windows whose polynomial does not resolve the
    solution are cut, those with room are merged, until every component is resolved to `rtol` of its
    size. Where Newton's method does not converge on the first mesh, it is tried on finer ones.

    Then the defect of these polynomials is found at more points, in double-double arithmetic, and
    the linearised problem turns it into their error, which is subtracted. The error that remains is
    estimated in the same way, everywhere at once: it is `solution.error_estimate(t)`. Where the
    conditions hardly determine the solution, the result is `RESULTS.suspect`, with a warning.

    A boundary value problem may have no solution, one, or several: which one is found depends on
    the guess. Where none is found, the result is `RESULTS.not_converged`.

    `t1` may be infinite, and `t0` minus infinite. Then the interval is cut, and the cut is moved
    out, to twice as far each time, until the solution does not change any more; the solution is
    known up to `solution.t1`.

    It runs on the host, with compiled calls for the equation: it cannot be used in `jax.jit`,
    `jax.grad` or `jax.vmap`. Call it once for each value; a derivative is a difference of two
    solutions.

    Args:
        system: the right-hand side: a system, or a function `f(t, y, args)` or `f(t, y)`, for which
            a guess must be given. Its values of the free parameters are the first guess.
        conditions: `conditions(y0, y1)` of the states at `t0` and `t1`, zero where they are met;
            with free parameters `conditions(y0, y1, parameters)`, of a dictionary by name. It
            returns as many numbers as there are components and free parameters.
        t0, t1: the interval; t1 is later.
        guess: a state; states at even times from t0 to t1, shape (times, dim); or a function of the
            time, such as another solution. Zero unless given. Its dtype is the solution's. For a
            function, or a system made by `systems.from_function(f, like=...)`, states may be
            written as for `pinn.solve`: the solution has such states, and `conditions` gets them;
            what it returns may then be any tree, and a complex number counts as two.
        free: names of the parameters to find: the system's own, or keys of `args`. Every entry of
            an array is a parameter.
        at: increasing times in [t0, t1]: `conditions` gets the states at these times instead.
        ts: increasing times in [t0, t1] at which `solution.ys` is wanted; 1001 evenly spaced ones
            unless given.
        args: passed on to the right-hand side.
        rtol, atol: relative and absolute tolerance, to which the windows resolve the solution
            before it is corrected. Default 1e-10 in float64 and 1e-4 in float32.
        num_points: the number of Gauss points in a window, at least 8.
        max_windows: the largest number of windows.
        max_steps: Newton steps on one mesh.
        settling: for an infinite interval, the time in which the solution settles, roughly; found
            from the derivatives of f at the guess unless given.
        throw: raise if no solution was found; otherwise warn, and `result` says why:
            `not_converged`, `nonfinite` or `unresolved`.

    Returns:
        A `BoundarySolution`: a `Solution` with `parameters` and `parameter_errors`. `stats` holds
        `num_windows`, `num_meshes` and `num_iterations`, the number of Newton's steps, `edges` and
        `residuals`, how full each window is (up to 1 it is resolved), and `condition`, the
        condition number of the conditions.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape, order or precision.
        RuntimeError: no solution was found; the message says why.

    Sources: U. M. Ascher, R. M. M. Mattheij, R. D. Russell, Numerical Solution of Boundary Value
    Problems for Ordinary Differential Equations (1995); P. Deuflhard, Newton Methods for Nonlinear
    Problems (2004).

    Example:
        Bratu's problem, u'' + exp(u) = 0 with u(0) = u(1) = 0; zero leads to the lower solution.

        >>> bratu = systems.from_function(lambda t, y, args: [y[1], -jnp.exp(y[0])], 2)
        >>> found = pinn.solve_boundary(bratu, lambda a, b: [a[0], b[0]], 0.0, 1.0)
        >>> print(f"{found(0.5)[0]:.12f}")
        0.140539214400
    """
    ends = _check_ends(t0, t1)
    at = _check_at(at, ends)
    system, guess, structure = take_apart_guess(system, guess, ends.middle)
    start, dtype = as_guess(guess, system.dim, (ends.t0, ends.t1))
    settings = check_settings(rtol, atol, num_points, max_windows, max_steps, dtype)
    if settling is not None:
        checks.require_positive(settling=settling)
    problem, unknown = state_problem(
        (system, args, free),
        written(conditions, structure),
        (start, ends.middle, dtype),
        num_states=len(at),
    )
    if ends.infinite:
        if settling is None:
            settling = time_scale(problem, start, ends.middle, unknown)
        if settling is None:
            raise ValueError(
                "settling must be given where f at the guess has no time scale, got None"
            )
        ends = ends.at_first(settling)
    task = Task(problem, start, unknown, ends, at, settings, form=Form(structure))
    return run(task, ts, "pinn.solve_boundary", throw=throw)


def _check_ends(t0: float, t1: float) -> Ends:
    if not (checks.is_concrete(t0) and checks.is_concrete(t1)):
        raise ValueError(f"t0 and t1 must not be traced, got {t0} and {t1}")
    if not (t0 < t1 and t0 != np.inf and t1 != -np.inf):
        raise ValueError(f"t1 must be later than t0 = {t0}, got t1 = {t1}")
    return Ends(float(t0), float(t1))


def _check_at(at: Numbers | None, ends: Ends) -> Float[np.ndarray, " states"]:
    """The conditions' times."""
    if at is None:
        return np.array([ends.t0, ends.t1])
    times = np.asarray(at, float)
    if times.ndim != 1 or not times.size or not (np.diff(times) > 0).all():
        raise ValueError(f"at must be increasing times, got {at}")
    if not (times[0] >= ends.t0 and times[-1] <= ends.t1):
        raise ValueError(f"at must lie in [{ends.t0}, {ends.t1}], got {times[0]} to {times[-1]}")
    return times

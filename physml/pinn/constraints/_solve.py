"""An initial value problem with constraints, window after window."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from physml._numerics import checks
from physml._numerics.blas import single_threaded_blas
from physml._numerics.calls import checked
from physml._numerics.compiled import constant, once
from physml._types import Numbers
from physml.pinn.collocation import Tolerance
from physml.pinn.constraints._equation import Equation
from physml.pinn.constraints._march import Marched, Settings, Task, correct, march
from physml.pinn.constraints._pencil import Pencil, solve, take_apart
from physml.pinn.constraints._refined import make_programs
from physml.pinn.constraints._solution import put_together
from physml.pinn.constraints._start import check_equation, find_start
from physml.results import RESULTS, conclude
from physml.solution import Solution, as_written
from physml.systems import ImplicitSystem
from physml.systems.states import Form

_DEFAULT_RTOL = (1e-10, 1e-4)  # in float64 and float32
_ROUNDINGS = 1e3  # by which a start may miss the equations


@checked
def solve_constrained(
    system: ImplicitSystem,
    y0: PyTree,
    t1: float,
    *,
    t0: float = 0.0,
    dy0: PyTree = None,
    ts: Numbers | None = None,
    args: PyTree = None,
    rtol: float | PyTree | None = None,
    atol: float | PyTree | None = None,
    num_points: int = 16,
    first_span: float | None = None,
    max_window: float | None = None,
    max_steps: int = 10,
    max_windows: int = 4096,
    throw: bool = True,
) -> Solution:
    r"""Solves $F(t, y, y') = 0, y(t_0) = y_0$, of differential and algebraic equations of index 1.

    [t0, t1] is cut into windows. In each one the solution is a polynomial whose derivative is
    found at Radau points by Newton's method, so that the equations hold there (collocation, as in
    `solve`); the last point is the window's end, where the algebraic equations hold too. Between
    the points, what the equations miss is turned into a change of the state by the linearised
    equations; a window is tried narrower if that is above `rtol` times the size of a component.

    Then the windows are solved again at half as many points more, in double-double arithmetic, and
    the error that remains is found from what the equations miss at still more points, carried
    through all windows: it is `solution.error_estimate(t)`.

    The start must be consistent: `consistent_start` finds one, and the message of a refusal has
    it. Equations of index 2 or more are refused, with the remedy. Where the index changes on the
    way, the march stops. The equations must be smooth between `t0` and `t1`; at a jump, solve one
    leg up to it and another from `consistent_start` on. A window costs the factorisation of a
    matrix of all its points: a system should have at most some 50 components.

    It runs on the host, with compiled calls for the equations: it cannot be used in `jax.jit`,
    `jax.grad` or `jax.vmap`. Call it once for each value; a derivative is a difference of two
    solutions.

    Args:
        system: the equations, from `systems.implicit`, `with_mass`, `with_invariants` or
            `constrained_motion`.
        y0: the state at `t0`, shape (dim,); what the last two append may be left out. Or a state as
            the system's functions see it, where this is no vector (see `systems.implicit`); then
            the solution has such states. Its dtype is the solution's.
        t1: the end; later than `t0`.
        t0: the time of `y0`.
        dy0: a guess of the derivative at `t0`. It is needed where F is not linear in y', and
            chooses between branches.
        ts: increasing times in [t0, t1] at which `solution.ys` is wanted; 1001 evenly spaced ones
            unless given.
        args: passed on to the equations; the system's own unless given.
        rtol, atol: relative and absolute tolerance of the windows before they are corrected.
            Default 1e-10 in float64 and 1e-4 in float32; `rtol` refers to the largest value of a
            component so far. Both may be trees like the state, or arrays of shape (dim,), as for
            `pinn.solve`.
        num_points: the number of Radau points in a window, at least 8.
        first_span: the span of the first window; found from the derivative at `t0` unless given.
        max_window: the widest window. A pulse in time that is shorter than about a hundredth of a
            window may be stepped over; windows of fifty times its width meet it.
        max_steps: Newton steps after which a window is tried narrower.
        max_windows: the number of windows after which the march stops.
        throw: raise if the march stops before `t1`; otherwise `solution.result` says why, the
            solution is defined up to `solution.t1`, and rows of `ys` after that are NaN.

    Returns:
        A `Solution`. `stats` holds `num_windows`, `num_rejected`, `num_iterations`, and for each
        window its `edges` and `residuals` (in units of the tolerance; 1 is what is accepted), and
        `multipliers`, the largest values of components that the solution leaves out.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape, order or precision, a start that
            is not consistent, or equations whose index is not 0 or 1.
        RuntimeError: the march stopped early; the message says where and why.

    Sources: G. Fabiani, E. Galaris, L. Russo, C. Siettos, "Parsimonious physics-informed random
    projection neural networks for initial value problems of ODEs and index-1 DAEs", Chaos 33 (2023)
    043128, for networks by collocation; E. Hairer, G. Wanner, Solving Ordinary Differential
    Equations II (1996), VI, for Radau points.

    Example:
        >>> mixed = systems.with_mass(
        ...     lambda t, y, args: [-y[0] + y[1], y[0] - 2 * y[1]], [[1.0, 0.0], [0.0, 0.0]]
        ... )
        >>> print(pinn.solve_constrained(mixed, [1.0, 0.5], 2.0)(2.0).round(12))  # 1/e, 1/(2 e)
        [0.36787944 0.18393972]
    """
    t0, t1 = checks.check_interval(t0, t1)
    checks.require_untraced("pinn.solve_constrained", (system, y0, dy0, args))
    equation, given, rate, form = check_equation(system, y0, dy0, t0, args)
    checks.require_untraced(
        "pinn.solve_constrained",
        given,
        (equation.single, jnp.asarray(t0, given.dtype), given, given),
    )
    dtype = given.dtype
    rtols = form.tolerances(rtol, atol, system.dim - system.num_hidden)
    relative, absolute = checks.check_tolerances(*rtols, dtype, _DEFAULT_RTOL)
    if absolute is not None and absolute.ndim:
        # A component that a solution leaves out has no size of its own.
        absolute = jnp.append(absolute, jnp.zeros(system.num_hidden, dtype))
    tolerance = Tolerance(relative, absolute)
    times = checks.check_times(ts, t0, t1, dtype)
    checks.require_count(8, num_points=num_points)
    checks.require_count(max_steps=max_steps, max_windows=max_windows)
    for name, value in (("first_span", first_span), ("max_window", max_window)):
        if value is not None:
            checks.require_positive(**{name: value})
    widest = np.inf if max_window is None else max_window
    settings = Settings(tolerance, num_points, first_span, widest, max_steps, max_windows)
    with single_threaded_blas():
        y, dy, pencil = find_start(equation, t0, given, rate)
        _require_consistent(equation, t0, given, y, pencil, form)
        task = Task(equation, once(make_programs, equation, tolerance, constant(y), num_points))
        marched = march(task, (t0, t1), y, dy, settings)
        corrected = correct(task, y, marched)
        solution = put_together(marched, corrected, times, tolerance, system.num_hidden)
    details = _details(solution, equation, marched, tolerance, t1)
    solution = as_written(solution, form)
    return conclude(solution, solution.result, "pinn.solve_constrained", details, throw=throw)


def _require_consistent(
    equation: Equation,
    t0: float,
    given: np.ndarray,
    found: np.ndarray,
    pencil: Pencil,
    form: Form,
) -> None:
    """Raise ValueError if the algebraic components of a start are not those that were found."""
    at = equation.derivatives(t0, found, np.zeros_like(found))
    eps = np.finfo(found.dtype).eps
    spoilt = np.zeros_like(found)
    if len(pencil.algebraic):
        terms = np.abs(pencil.algebraic) @ (np.abs(at.by_state) @ np.abs(found))
        spoilt = np.abs(pencil.unseen @ solve(pencil.coupling, terms))
    enough = eps**0.5 * np.maximum(np.abs(found), np.abs(given)) + _ROUNDINGS * eps * spoilt
    if np.all(np.abs(found - given) <= enough):
        return
    got, finds = (
        jax.tree.map(lambda x: np.asarray(x).tolist(), form.state(constant(x)))
        for x in (given, found)
    )
    raise ValueError(
        f"y0 must be consistent, F(t0, y0, y') = 0 for some y', got {got}; "
        f"pinn.consistent_start finds {finds}, which keeps the differential components"
    )


def _details(
    solution: Solution, equation: Equation, marched: Marched, tolerance: Tolerance, t1: float
) -> str:
    """What the message says of a solution that is suspect, or that ends before t1."""
    if solution.result == RESULTS.successful:
        return ""
    if solution.result == RESULTS.suspect:
        until, _ = solution.valid_until(float(tolerance.rtol) ** 0.5)
        return (
            f"By the estimate, half of the digits asked for are right until t = {until:.6g} of "
            f"{solution.t1:.6g}; see solution.error_estimate."
        )
    words = (
        f"The march stopped at t = {solution.t1}, before t1 = {t1}, after "
        f"{len(marched.rates)} windows."
    )
    if solution.result != RESULTS.window_failed:
        return words
    at = equation.derivatives(float(solution.t1), marched.state, marched.slope)
    if all(np.isfinite(x).all() for x in at) and take_apart(at.by_rate, at.by_state).index > 1:
        return f"{words} There the index is 2 or more."
    return f"{words} There the equations jump, the index changes, or the solution blows up."

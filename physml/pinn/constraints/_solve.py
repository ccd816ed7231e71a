"""An initial value problem with constraints, window after window."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics import checks
from physml._numerics.blas import single_threaded_blas
from physml._numerics.calls import checked
from physml._numerics.compiled import constant, once
from physml._numerics.quadrature import radau
from physml._types import Numbers
from physml.pinn.collocation import Error, Polynomials, Tolerance
from physml.pinn.constraints._equation import Equation
from physml.pinn.constraints._march import Corrected, Marched, Settings, Task, correct, march
from physml.pinn.constraints._pencil import Pencil, solve, take_apart
from physml.pinn.constraints._refined import make_programs
from physml.pinn.constraints._start import check_equation, find_start
from physml.results import RESULTS, conclude
from physml.solution import Solution
from physml.systems import ImplicitSystem

_DEFAULT_RTOL = (1e-10, 1e-4)  # in float64 and float32
_INTERPOLATED = 3.0  # the error of a polynomial through nodes, in units of its last term
_ROUNDINGS = 1e3  # by which a start may miss the equations


@checked
def solve_constrained(
    system: ImplicitSystem,
    y0: Numbers,
    t1: float,
    *,
    t0: float = 0.0,
    dy0: Numbers | None = None,
    ts: Numbers | None = None,
    args: PyTree = None,
    rtol: float | None = None,
    atol: float | None = None,
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

    It runs on the host, with compiled calls for the equations: it cannot be used in `jax.jit` or
    `jax.grad`.

    Args:
        system: the equations, from `systems.implicit`, `with_mass`, `with_invariants` or
            `constrained_motion`.
        y0: the state at `t0`, shape (dim,); what the last two append may be left out. Its dtype is
            the solution's.
        t1: the end; later than `t0`.
        t0: the time of `y0`.
        dy0: a guess of the derivative at `t0`. It is needed where F is not linear in y', and
            chooses between branches.
        ts: increasing times in [t0, t1] at which `solution.ys` is wanted; 1001 evenly spaced ones
            unless given.
        args: passed on to the equations; the system's own unless given.
        rtol, atol: relative and absolute tolerance of the windows before they are corrected.
            Default 1e-10 in float64 and 1e-4 in float32; `rtol` refers to the largest value of a
            component so far.
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
        window its `edges` and `residuals` (in units of the tolerance; 1 is what is accepted).

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
    equation, given, rate = check_equation(system, y0, dy0, t0, args)
    dtype = given.dtype
    tolerance = Tolerance(*checks.check_tolerances(rtol, atol, dtype, _DEFAULT_RTOL))
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
        _require_consistent(equation, t0, given, y, pencil)
        task = Task(equation, once(make_programs, equation, tolerance, constant(y), num_points))
        marched = march(task, (t0, t1), y, dy, settings)
        solution = _solution(task, y, marched, times, tolerance)
    details = _details(solution, equation, marched, tolerance, t1)
    return conclude(solution, solution.result, "pinn.solve_constrained", details, throw=throw)


def _require_consistent(
    equation: Equation, t0: float, given: np.ndarray, found: np.ndarray, pencil: Pencil
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
    raise ValueError(
        f"y0 must be consistent, F(t0, y0, y') = 0 for some y', got {given.tolist()}; "
        f"pinn.consistent_start finds {found.tolist()}, which keeps the differential components"
    )


def _solution(
    task: Task,
    y0: np.ndarray,
    marched: Marched,
    ts: Float[Array, " n"],
    tolerance: Tolerance,
) -> Solution:
    """The windows corrected, judged, and put together for the user."""
    result, count, dtype = marched.result, len(marched.rates), y0.dtype
    if count:
        corrected = correct(task, y0, marched)
    else:  # one window of no span
        nothing = np.zeros((1, 2, len(y0)), dtype)
        corrected = Corrected(nothing + y0, nothing, np.full((1, len(y0)), np.inf, dtype))
    edges = marched.edges if count else np.repeat(marched.edges, 2)
    dense, error, trusted = _judge(edges, corrected, tolerance)
    if result == RESULTS.successful and not trusted:
        result = RESULTS.suspect
    t1 = constant(edges[-1])
    return Solution(
        ts=ts,
        ys=_values_at(dense, ts, t1),
        t0=constant(edges[0]),
        t1=t1,
        dense=dense,
        result=result,
        stats={
            "num_windows": constant(count),
            "num_rejected": constant(marched.rejected),
            "num_iterations": constant(marched.steps),
            "edges": constant(marched.edges),
            "residuals": constant(np.asarray(marched.errors, dtype)),
        },
        error=error,
    )


def _judge(
    edges: np.ndarray, corrected: Corrected, tolerance: Tolerance
) -> tuple[Polynomials, Error, bool]:
    """The solution in continuous time, the estimate of its error, and whether it can be trusted."""
    values, error, left_out = corrected
    eps, spans = np.finfo(values.dtype).eps, np.diff(edges)
    size = np.max(np.abs(values), axis=1)
    late = np.maximum(np.abs(edges[:-1]), np.abs(edges[1:]))[:, None]
    terms = _legendre(values)
    rounding = 2 * eps * size + 0.5 * eps * late * _slopes(values, spans)
    resolution = left_out + rounding + _INTERPOLATED * np.max(np.abs(terms[:, -2:]), axis=1)
    dense = _pieces(edges[:-1], spans, terms)
    signed = _pieces(edges[:-1], spans, _legendre(error))
    largest = np.max(np.abs(error), axis=1) + resolution
    rtol = float(tolerance.rtol)
    enough = rtol**0.5 * np.max(size, axis=0) + np.max(rounding, axis=0)
    if tolerance.atol is not None:
        enough = enough + np.asarray(tolerance.atol)
    fill = len(dense.starts) - len(spans)
    resolution = constant(np.pad(resolution, ((0, fill), (0, 0))).astype(values.dtype))
    return dense, Error(signed, resolution), bool(np.all(largest <= enough))


def _nodes(count: int) -> Float[np.ndarray, " nodes"]:
    """The start of a window, in [-1, 1], and its points."""
    return np.append(-1.0, radau(count - 1).points) if count > 2 else np.asarray([-1.0, 1.0])


def _legendre(values: Float[np.ndarray, "windows nodes dim"]) -> np.ndarray:
    """The Legendre coefficients of the polynomials through the values."""
    nodes = _nodes(values.shape[1])
    inverse = np.linalg.inv(np.polynomial.legendre.legvander(nodes, len(nodes) - 1))
    return np.einsum("np,kpi->kni", inverse, values)


def _slopes(values: np.ndarray, spans: np.ndarray) -> Float[np.ndarray, "windows dim"]:
    """The largest slope between two nodes of each window."""
    steps = np.diff(_nodes(values.shape[1]))[:, None] * spans[:, None, None] / 2
    steps = np.where(steps > 0, steps, 1.0)
    return np.max(np.abs(np.diff(values, axis=1)) / steps, axis=1)


def _pieces(starts: np.ndarray, spans: np.ndarray, terms: np.ndarray) -> Polynomials:
    """Polynomials in buffers for a power of two of windows, so that few shapes are compiled."""
    fill, dtype = max(64, 1 << (len(starts) - 1).bit_length()) - len(starts), starts.dtype
    return Polynomials(
        constant(np.pad(starts, (0, fill), constant_values=np.inf), dtype),
        constant(np.pad(np.where(spans > 0, spans, 1.0), (0, fill), constant_values=1.0), dtype),
        constant(np.pad(terms, ((0, fill), (0, 0), (0, 0))), dtype),
    )


@eqx.filter_jit
def _values_at(dense: Polynomials, ts: Float[Array, " n"], t1: Array) -> Float[Array, "n dim"]:
    found = jax.vmap(dense.evaluate)(jnp.minimum(ts, t1))
    return jnp.where((ts <= t1)[:, None], found, jnp.nan)


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

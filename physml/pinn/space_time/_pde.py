"""A partial differential equation solved by networks, in space and through time."""

import os
from collections.abc import Collection, Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from physml._numerics.blas import single_threaded_blas
from physml._numerics.calls import checked, digest_of
from physml._numerics.checks import require_count, require_positive
from physml._numerics.interrupt import ctrl_c
from physml.pinn.space_time._checkpoint import Checkpoint
from physml.pinn.space_time._conditions import Face, checked_conditions, condition_defects
from physml.pinn.space_time._discretisation import Discretisation
from physml.pinn.space_time._jets import PointResidual
from physml.pinn.space_time._march import March
from physml.pinn.space_time._problem import PDEProblem, make_problem
from physml.pinn.space_time._solution import PDESolution
from physml.pinn.space_time.boxes import BoxSolution, solve_box
from physml.results import RESULTS, conclude

_DEFAULT_RTOL = {True: (1e-13, 1e-3), False: (1e-10, 1e-3)}  # in slabs? in float64 and float32


@checked
def pde(
    residual: PointResidual,
    domain: Mapping[str, tuple[float, float]],
    conditions: Mapping[Face, PointResidual],
    *,
    periodic: Collection[str] = (),
    components: int | None = None,
    rtol: float | None = None,
    elements: int = 4,
    max_elements: int = 128,
    first_span: float | None = None,
    max_windows: int = 1000,
    max_steps: int = 12,
    dtype: DTypeLike | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    throw: bool = True,
) -> PDESolution | BoxSolution:
    r"""Solves a partial differential equation by neural networks, to many digits.

    The equation is a residual, zero where u solves it, written with u and its derivatives as
    functions: `u(x, t)`, `u.t(x, t)`, `u.xx(x, t)`, or any derivative that JAX takes of `u`. The
    conditions on the faces of the domain are residuals too. A residual must be local: it may ask
    for u only at the point that it is given.

    The first coordinate of space is cut into elements, and time, if there is a coordinate t, into
    windows. On each element u is a tensor product of networks in each coordinate, with frozen
    hidden tanh layers. By construction u and its derivatives below the order of the equation
    continue over the edges and over periodic ends, and u starts from initial values that are
    fitted to the conditions first. Conditions in space are further rows of the least-squares
    problem, each row in units of u. Gauss-Newton finds the readouts, by orthogonal triangulation.
    An equation of a higher order in t is solved as a system of first order.

    With two coordinates of space and t, u is the tensor product of polynomials (of waves where it
    is periodic) through its values on a grid. The conditions on the faces fix the values there, and
    `solve` carries the others through time, by networks in windows. The grid gets finer until its
    last coefficients are below `rtol` at all times; the error of the grid is estimated from a
    coarser one. Then `elements` and `max_elements` do not count, the equation must be linear in its
    highest derivative in t and of at most second order in a coordinate that is not periodic, and
    conditions in space must be linear in u. An initial value with a kink, or one that contradicts
    the conditions on the faces, is refused before the march.

    The residual is judged between the collocation points, as the change of u that would remove
    it. Where this is above `rtol` times the largest value of an unknown so far, of each its own,
    elements are halved if it is large along them, and the window is narrowed if it is large in t.
    An initial value with a kink gets small elements; a kink that the equation keeps is never
    resolved.

    In two coordinates of space, most of the first call is compiling; a second one with the same
    functions compiles little. Sharp fronts need many points, perhaps more memory than there is.

    `pde` runs on the host, with a compiled call for each window: it cannot be used in `jax.jit` or
    `jax.grad`.

    Args:
        residual: `residual(u, *point)`, an array of shape () or (components,), or a tuple of
            such; the point's coordinates are scalars in the order of `domain`. Derivatives up to
            the fourth order are found.
        domain: the interval (low, high) of each coordinate, by its name, a single letter; "t" is
            time, and at most two others are possible. Put the one in which u is sharpest first;
            without t the other one is tried as well.
        conditions: residuals on the faces ("x", low) and ("x", high), and on ("t", low) for the
            initial values. Those in time must return as many numbers as the order in t asks for
            (u and u.t for the wave equation). Derivatives must be of a lower order than those of
            the equation.
        periodic: coordinates of space in which u is periodic.
        components: the length of the vector u(x, t) of a system; u is a scalar unless given.
        rtol: relative tolerance. Default 1e-13 in float64, but 1e-10 without t and in two
            coordinates of space and t; 1e-3 in float32.
        elements: the number of elements at the start.
        max_elements: the largest number of elements.
        first_span: the span of the first window in units of time; a sixteenth of the whole unless
            given.
        max_windows: the number of windows after which the march stops.
        max_steps: Gauss-Newton steps after which a window is tried narrower.
        dtype: float64 or float32; JAX's default float unless given.
        checkpoint: a folder. A march in one coordinate of space and t is saved there every few
            seconds beside its work, and the same call goes on from what it finds there, to the same
            solution bit for bit.
        throw: raise if the equation is not solved to tolerance everywhere; otherwise warn, and
            `solution.result` says why: `window_failed`, `unresolved` (`max_elements`),
            `max_steps_reached` (`max_windows`), `nonlinear_divergence` or `nonfinite`. The
            solution then ends at the time reached.

    Warns:
        UserWarning: the residual is small, but errors have grown until, by the estimate, fewer than
            half of the digits asked for are right (`RESULTS.suspect`).

    Returns:
        A `PDESolution`, with `error_estimate`, or a `BoxSolution`, which is called in the same way,
        for two coordinates of space and t; its `stats` have `num_points`. `stats` holds
        `num_windows`, `num_rejected`, `num_iterations`; for each window `num_elements` and
        `residuals` (in units of the tolerance: accepted up to 1);
        `initial_defect` and `condition_defects`, by how much u misses the conditions.

    Raises:
        TypeError, ValueError: a domain, residual or condition of the wrong kind or shape, or not
            finite, before anything is solved.
        RuntimeError: it was not solved to tolerance everywhere; the message says why.

    Sources: S. Dong, Z. Li, "Local extreme learning machines and domain decomposition", CMAME 387
    (2021) 114129; Å. Björck, "Numerical Methods for Least Squares Problems" (1996), section 6.3,
    for the elimination by elements.

    Example:
        The heat equation on a rod whose ends are kept at zero:

        >>> solution = pinn.pde(
        ...     lambda u, x, t: u.t(x, t) - u.xx(x, t),
        ...     {"x": (0.0, 1.0), "t": (0.0, 0.1)},
        ...     {
        ...         ("t", 0.0): lambda u, x, t: u(x, t) - jnp.sin(jnp.pi * x),
        ...         ("x", 0.0): lambda u, x, t: u(x, t),
        ...         ("x", 1.0): lambda u, x, t: u(x, t),
        ...     },
        ... )
        >>> float(solution(0.5, 0.1).round(6)), float(solution.derivative("xx", 0.5, 0.1).round(4))
        (0.372708, -3.6785)
    """
    require_count(elements=elements, max_windows=max_windows, max_steps=max_steps)
    require_count(elements, max_elements=max_elements)
    if first_span is not None:
        require_positive(first_span=first_span)
    if rtol is not None and not 0 < rtol < 1:
        raise ValueError(f"rtol must be positive and less than 1, got {rtol}")
    problem = make_problem(residual, domain, periodic, components, dtype)
    problem = problem._replace(conditions=checked_conditions(problem, conditions))
    if checkpoint is not None and (problem.time is None or problem.dim > 2):
        raise ValueError(
            f"checkpoint must be None unless the coordinates are one of space and t, got "
            f"{checkpoint!r}"
        )
    if rtol is None:
        in_slabs = problem.time is not None and problem.dim == 2
        rtol = _DEFAULT_RTOL[in_slabs][0 if problem.dtype == jnp.float64 else 1]
    if problem.dim > 2:
        return _on_a_box(problem, rtol, (first_span, max_windows, max_steps), throw)
    limits = rtol, max_elements, max_steps
    with single_threaded_blas():
        if problem.time is None:
            march, result = _steady(problem, elements, limits)
        else:
            march = March(Discretisation(problem), *limits)
            ends = {name: tuple(map(float, interval)) for name, interval in domain.items()}
            options = sorted(periodic), components, elements, first_span, str(problem.dtype)
            facts = {
                "equations": (residual, *conditions.values()),
                "numbers": repr((ends, list(conditions), *options, *limits)),
                "computed": [digest_of(x.residual) for x in (problem, *problem.conditions)],
            }
            with Checkpoint(checkpoint, facts) as kept, ctrl_c() as interrupted:
                course = first_span, max_windows, interrupted, kept.resume(march), kept.note
                result = march.through_time(_even(problem, elements), *course)
    solution, reach = _solution(march, result)
    result, details = _verdict(march, solution, reach)
    solution = eqx.tree_at(lambda s: s.result, solution, result)
    return conclude(solution, result, "pinn.pde", details, throw=throw)


def _on_a_box(
    problem: PDEProblem, rtol: float, limits: tuple[float | None, int, int], throw: bool
) -> BoxSolution:
    """A problem of two coordinates of space and t."""
    solution, stop, sizes = solve_box(problem, rtol, *limits)
    result, details = stop
    if result == RESULTS.successful:
        defects, reach = condition_defects(solution, problem, sizes)
        stats = solution.stats | {"condition_defects": defects}
        solution = eqx.tree_at(lambda s: s.stats, solution, stats)
        if missed := _missed(defects, reach, rtol):
            result, details = RESULTS.unresolved, missed
    solution = eqx.tree_at(lambda s: s.result, solution, result)
    return conclude(solution, result, "pinn.pde", details, throw=throw)


def _missed(defects: Mapping[str, float], reach: Mapping[str, float], rtol: float) -> str:
    """What is said of conditions that are not met; nothing if all are."""
    missed = [
        f"{face} is missed by {size:.2g}"
        for face, size in defects.items()
        if not size <= np.sqrt(rtol) * reach[face]
    ]
    return f"The conditions are not met: {', '.join(missed)}." if missed else ""


def _even(problem: PDEProblem, elements: int) -> np.ndarray:
    low, high = problem.intervals[problem.axis]
    return np.linspace(low, high, elements + 1)


def _steady(
    problem: PDEProblem, elements: int, limits: tuple[float, int, int]
) -> tuple[March, RESULTS]:
    """A problem without t; elements along another coordinate if u is too sharp across them."""
    march = March(Discretisation(problem), *limits)
    result = march.steady(_even(problem, elements))
    if result == RESULTS.unresolved and problem.dim > 1:
        turned = problem._replace(axis=1 - problem.axis)
        other = March(Discretisation(turned), *limits)
        ended = other.steady(_even(turned, elements))
        if ended == RESULTS.successful or other.defects[0] < march.defects[0]:
            return other, ended
    return march, result


def _verdict(
    march: March, solution: PDESolution, reach: Mapping[str, float]
) -> tuple[RESULTS, str]:
    """How the solve ended, and what the message adds to that.

    `reach` is how far each condition changes when the unknowns change by their own size.
    """
    problem, result = march.space.problem, solution.result
    if result == RESULTS.successful:
        if missed := _missed(solution.stats["condition_defects"], reach, march.rtol):
            return RESULTS.unresolved, missed
        until = march.trusted_until()
        if until is None:
            return result, ""
        where = "" if problem.time is None else f" until t = {until:.6g}"
        return RESULTS.suspect, (
            f"By the estimate, half of the digits asked for are right{where or ' nowhere'}; see "
            "solution.error_estimate."
        )
    elements, limit = len(march.slabs[-1].edges) - 1 if march.slabs else 0, march.max_elements
    details = ""
    if problem.time is not None:
        details = f"It stopped at t = {solution.domain[problem.time, 1]:.6g}. "
    if result == RESULTS.nonlinear_divergence and problem.time is not None and not march.slabs:
        details += "No initial values were found that fulfil the conditions in time."
    elif result == RESULTS.nonlinear_divergence:
        details += "The equation may have no u, or many, or need a smaller first_span or rtol."
    elif result == RESULTS.unresolved and (problem.time is not None or elements >= limit):
        details += f"Raise rtol, or max_elements = {limit}."
    elif result == RESULTS.unresolved:
        own, across = (problem.coordinates[i] for i in (problem.axis, 1 - problem.axis))
        details += f"{elements} elements resolve it in {own}, and one layer does not in {across}. "
        details += f"Raise rtol, or cut the domain in {across}."
    elif result == RESULTS.window_failed:
        details += "End the domain before it, or raise rtol."
    elif result == RESULTS.max_steps_reached:
        details += "Raise max_windows or rtol."
    return result, details.rstrip()


def _solution(march: March, result: RESULTS) -> tuple[PDESolution, dict[str, float]]:
    """The slabs as one solution, in buffers as long as the longest slab.

    Beside it comes how far each condition changes when the unknowns change by their own size.
    """
    space, slabs = march.space, march.slabs
    problem = space.problem
    components = problem.components or 1
    size = max((len(slab.edges) for slab in slabs), default=2)
    shape = size - 1, int(np.prod(space.across)), space.num_along, components
    # Where not even the first window was solved, one without values stands in its place.
    edges = np.full((max(len(slabs), 1), size), np.inf)
    readouts = np.full((len(edges), *shape), np.nan)
    errors = np.full((len(edges), size - 1, components), np.inf)
    for i, slab in enumerate(slabs):
        edges[i, : len(slab.edges)] = slab.edges
        readouts[i, : len(slab.edges) - 1] = slab.coefficients
        errors[i, : len(slab.edges) - 1] = slab.errors[:, :components]
    intervals = problem.intervals.copy()
    if problem.time is not None:
        low = intervals[problem.time, 0]
        intervals[problem.time, 1] = slabs[-1].start + slabs[-1].span if slabs else low
        if result == RESULTS.successful:
            intervals[problem.time] = problem.intervals[problem.time]
    starts = [slab.start for slab in slabs] or [problem.intervals[problem.time or 0, 0]]
    spans = [slab.span for slab in slabs] or [1.0]
    arrays = intervals, starts, spans, edges, readouts, errors
    stats = {
        "num_windows": len(slabs),
        "num_rejected": march.num_rejected,
        "num_iterations": march.num_iterations,
        "num_elements": [len(slab.edges) - 1 for slab in slabs],
        "residuals": march.defects,
        "initial_defect": march.initial_defect,
    }
    solution = PDESolution(
        problem.coordinates,
        problem.residual,
        problem.components,
        problem.axis,
        tuple(functions.basis for functions in space.functions),
        *[jnp.asarray(x, problem.dtype) for x in arrays],
        result=result,
        stats=stats,
    )
    sizes = march.units[:components]
    defects, reach = condition_defects(solution, problem, sizes) if slabs else ({}, {})
    solution = eqx.tree_at(lambda s: s.stats, solution, stats | {"condition_defects": defects})
    return solution, reach

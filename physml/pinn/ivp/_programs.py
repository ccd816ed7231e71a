"""The programs that find a solution: one where its problem is traced, else several small ones."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from physml._numerics.batch import map_used
from physml._numerics.blas import single_threaded_blas
from physml._numerics.compiled import compiling, lower, once
from physml.pinn.collocation import Tables, Tolerance
from physml.pinn.ivp._error_correction import Carried, Corrected, carry_error, judge
from physml.pinn.ivp._march import Course, InitialValueProblem, Limits, March, march
from physml.pinn.ivp._room import for_stiff, grow, room_at_first
from physml.pinn.ivp._stepped_over import stepped_over
from physml.results import RESULTS

_MOST_TURNS = 4  # in which pulses are met that the march had stepped over


class Task(NamedTuple):
    """What is asked of a march."""

    problem: InitialValueProblem
    tables: Tables
    tolerance: Tolerance
    course: Course
    limits: Limits


class Ended(NamedTuple):
    """The arrays of a solution."""

    corrected: Corrected
    readouts: Float[Array, "windows units dim"]
    edges: Float[Array, " windows_and_1"]
    residuals: Float[Array, " windows"]
    ys: Float[Array, "n dim"]
    result: RESULTS


@eqx.filter_jit
def in_one_program(task: Task, ts: Float[Array, " n"], correct: bool) -> tuple[March, Ended]:
    """The solution where its problem is traced, under `jax.jit`, `jax.vmap` or a derivative."""
    marched = _march(task, None, True)
    carried = _carry_error(task.problem, task.tables, task.tolerance, marched, correct, None, True)
    return marched, _end(task, ts, marched, carried)


def in_programs(task: Task, ts: Float[Array, " n"], correct: bool) -> tuple[March, Ended]:
    """The solution by three programs, which take less time to compile than one.

    They have nothing in them that only stiff windows need. That is compiled when the first stiff
    window comes. Nor do they have room for `max_windows` windows of many components: the march goes
    on in buffers of four times the size, by programs of their own, where they are full. A march
    that has stepped over a pulse of the right-hand side begins again with an edge in it.
    """
    most = task.limits.max_windows
    plain = task = _with_room(task, min(most, room_at_first(task.problem.y0.size)))
    march, carry, end = once(_begin_to_compile, task, ts, correct)
    with single_threaded_blas():  # entered here, since loading BLAS takes as long as some compiling
        marched, implicit, reshaped, turns = march(task, None, False), False, False, _MOST_TURNS
        while True:
            room = task.limits.max_windows
            if marched.stiff:
                tables = for_stiff(task.problem, task.tables, marched)
                implicit, task = True, task._replace(tables=tables)
            elif int(marched.num_windows) == room < most and marched.t < task.course.stops[-1]:
                reshaped, task = True, _with_room(task, min(most, 4 * room))
                marched = grow(marched, task.limits.max_windows)
            elif turns and len(times := stepped_over(*task[:3], marched)):
                reshaped, turns, marched = True, turns - 1, None
                task = task._replace(course=task.course.with_stops(times))
            else:
                break
            march = once(_compile_march, task, marched, implicit)
            marched = march(task, marched, implicit)
        fitting = task.problem, plain.tables, task.tolerance
        plain = task._replace(tables=plain.tables)
        if reshaped:
            carry, end = once(_compile_rest, plain, ts, correct, marched)
        carried = carry(*fitting, marched, correct, None, False)
        if carried.stiff:
            if task.tables.implicit is None:
                task = task._replace(tables=for_stiff(task.problem, task.tables, marched))
            fitting = task.problem, task.tables, task.tolerance
            carry = once(_compile_carry, *fitting, marched, correct, carried, True)
            carried = carry(*fitting, marched, correct, carried, True)
        return jax.block_until_ready((marched, end(plain, ts, marched, carried)))


def _with_room(task: Task, num_windows: int) -> Task:
    return task._replace(limits=task.limits._replace(max_windows=num_windows))


def _begin_to_compile(
    task: Task, ts: Float[Array, " n"], correct: bool
) -> tuple[Callable[..., March], Callable[..., Carried], Callable[..., Ended]]:
    """The three programs. Each is compiled while the next is traced."""
    marching = lower(_march, task, None, False)
    march = compiling(marching, quickly=True)
    return march, *_compile_rest(task, ts, correct, marching.out_info)


def _compile_rest(
    task: Task, ts: Float[Array, " n"], correct: bool, marched: PyTree
) -> tuple[Callable[..., Carried], Callable[..., Ended]]:
    """The programs that follow a march of these shapes."""
    fitting = task.problem, task.tables, task.tolerance
    carrying = lower(_carry_error, *fitting, marched, correct, None, False)
    carry = compiling(carrying, quickly=True)
    ending = lower(_end, task, ts, marched, carrying.out_info)
    return carry, compiling(ending, quickly=True)


def _compile_march(*args: object) -> Callable[..., March]:
    return compiling(lower(_march, *args), quickly=True)


def _compile_carry(*args: object) -> Callable[..., Carried]:
    return compiling(lower(_carry_error, *args), quickly=True)


def _march(task: Task, begun: March | None, gauss_newton: bool) -> March:
    with jax.default_matmul_precision("highest"):
        return march(*task, begun, gauss_newton=gauss_newton)


def _carry_error(
    problem: InitialValueProblem,
    tables: Tables,
    tolerance: Tolerance,
    marched: March,
    subtract: bool,
    begun: Carried | None,
    lu: bool,
) -> Carried:
    with jax.default_matmul_precision("highest"):
        return carry_error(problem.rates, tables, tolerance, marched, subtract, begun, lu=lu)


def _end(task: Task, ts: Float[Array, " n"], marched: March, carried: Carried) -> Ended:
    """The corrected solution, its values at `ts`, the windows' readouts, and the verdict."""
    with jax.default_matmul_precision("highest"):
        corrected = judge(task.tolerance, marched, carried)
        readouts = map_used(
            lambda some: jnp.einsum("wr,nrd->nwd", task.tables.readout, some),
            marched.windows.coefficients,
            marched.num_windows,
        )
    used = jnp.arange(task.limits.max_windows) < marched.num_windows
    ys = jax.vmap(corrected.polynomials.evaluate)(ts)
    return Ended(
        corrected,
        readouts,
        jnp.append(jnp.where(used, marched.windows.start, marched.t), marched.t),
        jnp.where(used, marched.windows.error, 0.0),
        jnp.where((ts <= marched.t)[:, None], ys, jnp.nan),
        _result(task, marched, corrected),
    )


def _result(task: Task, marched: March, corrected: Corrected) -> RESULTS:
    finite = jnp.all(jnp.isfinite(task.problem.rates(marched.t, marched.y)))
    result = RESULTS.where(finite, RESULTS.window_failed, RESULTS.nonfinite)
    full = marched.num_windows == task.limits.max_windows
    result = RESULTS.where(full, RESULTS.max_steps_reached, result)
    verdict = RESULTS.where(corrected.trusted, RESULTS.successful, RESULTS.suspect)
    return RESULTS.where(marched.t >= task.course.stops[-1], verdict, result)

"""The march over windows: how wide each is, and what is done where one cannot be fitted."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from physml._numerics.batch import largest_of_batch
from physml._numerics.units import max_of
from physml.pinn.collocation import Tables, Tolerance
from physml.pinn.ivp._acceptance import Search, decide, no_search
from physml.pinn.ivp._audit import Place
from physml.pinn.ivp._window import Seen, Window, fit_window, hand_over, unseen
from physml.systems import System


class InitialValueProblem(NamedTuple):
    """What a solution depends on, and can be differentiated in."""

    system: System
    y0: Float[Array, " dim"]
    args: PyTree

    def rates(self, t: Float[Array, "*batch"], y: Float[Array, "dim *batch"]) -> Array:
        """f(t, y)."""
        return self.system(t, y, self.args)


class Course(NamedTuple):
    """Where a march starts and stops.

    Attributes:
        t0: the start.
        stops: the times that no window crosses, increasing; the last one is the end.
        first_span: of the first window; found from the right-hand side if None.
        max_window: the widest span allowed.
    """

    t0: Float[Array, ""]
    stops: Float[Array, " stops"]
    first_span: Float[Array, ""] | None
    max_window: Float[Array, ""]

    def with_stops(self, times: Float[np.ndarray, " times"]) -> "Course":
        """The course with more times that no window crosses."""
        stops = np.unique(np.append(np.asarray(self.stops), times.astype(self.stops.dtype)))
        return self._replace(stops=jnp.asarray(stops[stops > np.asarray(self.t0)]))

    def shortest(self, t: Float[Array, ""], span: Float[Array, ""]) -> Float[Array, ""]:
        """The shortest span that a window near t may have: some roundings of the time.

        At the time zero it is relative to the span that was tried, not to the end, which may be
        many orders of magnitude later than the first transient.
        """
        eps = jnp.finfo(t.dtype).eps
        time = jnp.maximum(jnp.abs(t), jnp.abs(t + span))
        return 16 * eps * jnp.maximum(time, eps * (self.stops[-1] - self.t0))

    def place(
        self,
        t: Float[Array, ""],
        y: Float[Array, " dim"],
        span: Float[Array, ""],
        searching: Bool[Array, ""],
    ) -> Place:
        """Where the next window lies, from (t, y), of about this span."""
        stop = self.stops[jnp.searchsorted(self.stops, t, side="right")]
        # No sliver is left before a stop: what remains is taken whole, or halved.
        left, span = stop - t, jnp.minimum(span, self.max_window)
        most = jnp.where(searching, left, 0.5 * left)
        whole = (span > 0.99 * left) & ~searching & (left <= 1.01 * self.max_window)
        end = jnp.where(whole, stop, t + jnp.minimum(span, most))
        # f may round the time of a declared jump otherwise than the stop was rounded.
        at_stop = jnp.any(self.stops[None] == jnp.stack([t, end])[:, None], axis=1)
        return Place(t, end, jnp.where(at_stop, 4 * self.shortest(t, end - t), 0.0), y)


class Limits(NamedTuple):
    """The bounds on a march: Gauss-Newton steps in a window, and windows."""

    max_steps: int
    max_windows: int


class March(eqx.Module):
    """Where the march stands, and the windows behind it."""

    t: Float[Array, ""]
    y: Float[Array, " dim"]
    span: Float[Array, ""]
    search: Search  # for what is not smooth in the next window
    seen: Seen
    implicit: Bool[Array, ""]  # whether Gauss-Newton may solve what the iterations do not
    narrowed: Bool[Array, ""]  # because they did not contract in a wider window from here
    stiff: Bool[Array, ""]  # whether the march stopped because the next window needs Gauss-Newton
    num_windows: Int[Array, ""]
    num_rejected: Int[Array, ""]
    num_iterations: Int[Array, ""]
    windows: Window  # each field with a leading axis of length num_windows or more


def march(
    problem: InitialValueProblem,
    tables: Tables,
    tolerance: Tolerance,
    course: Course,
    limits: Limits,
    begun: March | None,
    *,
    gauss_newton: bool,
) -> March:
    """Fit window after window, each as wide as its residual allows.

    A window whose error is above one tolerance is fitted again at a shorter span: see `decide`.

    Args:
        problem, tables, tolerance, course, limits: see their classes.
        begun: a march to go on with; None for a new one.
        gauss_newton: whether the program has Gauss-Newton in it. Without it, it compiles faster,
            and the march stops, with `stiff` set, before the first window that needs it.
    """

    def fit(place: Place, seen: Seen, implicit: Array) -> tuple[Window, Seen]:
        most = jnp.where(implicit, limits.max_steps, 0) if gauss_newton else None
        return fit_window(problem.rates, tables, tolerance, place, seen, most)

    def unfinished(m: March) -> Array:
        room = (m.num_windows < limits.max_windows) & (m.span > course.shortest(m.t, m.span))
        return (m.t < course.stops[-1]) & room & ~m.stiff

    def advance(m: March) -> March:
        place = course.place(m.t, m.y, m.span, m.search.on)
        shortest = course.shortest(m.t, place.span)
        window, seen = fit(place, m.seen, m.implicit)
        stiff = jnp.asarray(False) if gauss_newton else m.implicit & ~window.contracted
        active = unfinished(m) & ~stiff
        rtol, rank = tolerance.rtol, tables.rank
        good, next_span, search = decide(m.search, window, m.implicit, shortest, rtol, rank)
        accepted = active & good
        # Gauss-Newton costs some hundred iterations, and under vmap one member's Gauss-Newton costs
        # all members. So it is enabled only where the residual would have allowed twice the span
        # and the iterations did not contract there.
        limiting = m.narrowed & (window.error < 0.5 ** (tables.rank / 2))
        count = m.num_windows
        # A rejected window says nothing of the solution. If a component begins as a high power of
        # the time, its relative residual is the same in a narrow window: it gets some leeway.
        leeway = jnp.minimum(10 * m.seen.leeway, 0.1 / tolerance.rtol)
        rejected = Seen(m.seen.size, jnp.zeros_like(m.y), leeway)
        return March(
            t=jnp.where(accepted, place.end, m.t),
            y=jnp.where(accepted, hand_over(tables, window), m.y),
            span=jnp.where(active, next_span, m.span),
            search=jax.tree.map(lambda new, old: jnp.where(active, new, old), search, m.search),
            seen=jax.tree.map(lambda new, old: jnp.where(accepted, new, old), seen, rejected),
            implicit=jnp.where(window.contracted, limiting & accepted, m.implicit),
            narrowed=~accepted & (m.narrowed | ~window.contracted),
            stiff=stiff,
            num_windows=count + accepted.astype(count.dtype),
            num_rejected=m.num_rejected + (active & ~accepted).astype(count.dtype),
            num_iterations=m.num_iterations + jnp.where(active, window.num_iterations, 0),
            # A rejected window is overwritten by the next.
            windows=jax.tree.map(lambda rows, row: rows.at[count].set(row), m.windows, window),
        )

    if begun is None:
        t0, y0 = course.t0, problem.y0
        place = Place(t0, t0, jnp.zeros(2, t0.dtype), y0)
        shapes, _ = jax.eval_shape(fit, place, unseen(y0), jnp.asarray(True))
        begun = _at_start(problem, tolerance, course, limits, shapes)
    start = dataclasses.replace(begun, stiff=jnp.asarray(False))
    return jax.lax.while_loop(lambda m: largest_of_batch(unfinished(m)), advance, start)


def _at_start(
    problem: InitialValueProblem,
    tolerance: Tolerance,
    course: Course,
    limits: Limits,
    shapes: PyTree[jax.ShapeDtypeStruct],
) -> March:
    """A march before its first window, with room for all of them; `shapes` are those of one."""
    t0, y0, zero = course.t0, problem.y0, jnp.asarray(0)
    yes, no = jnp.asarray(True), jnp.asarray(False)
    first = course.first_span
    first = _first_span(problem, tolerance, course) if first is None else first
    regular = jnp.all(jnp.isfinite(problem.rates(t0, y0)))
    first = jnp.where(regular, first, 0.0)  # a span of zero ends the march at once
    empty = jax.tree.map(lambda x: jnp.zeros((limits.max_windows, *x.shape), x.dtype), shapes)
    return March(t0, y0, first, no_search(t0), unseen(y0), yes, no, no, zero, zero, zero, empty)


def _first_span(
    problem: InitialValueProblem, tolerance: Tolerance, course: Course
) -> Float[Array, ""]:
    """A tenth of the time in which some component changes by its own size.

    A component may start at what rounding has left of zero, and this time be none at all beside t0.
    """
    size = tolerance.of(problem.y0) / tolerance.rtol
    slope = jnp.abs(problem.rates(course.t0, problem.y0))
    rate = max_of(slope / jnp.where(size > 0, size, jnp.inf))
    span = 0.1 / jnp.maximum(rate, 1 / (course.stops[-1] - course.t0))
    return jnp.maximum(span, 64 * course.shortest(course.t0, span))

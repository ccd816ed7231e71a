"""The roots of functions of the time and the state along a solution."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, PyTree

from physml._numerics.calls import as_traced, checked, trace
from physml._numerics.checks import require_count
from physml.pinn.collocation import CorrectedNetworks
from physml.pinn.events._event import Event, value
from physml.solution import Solution, as_solved

_POINTS = 64  # of a window, at which signs are looked at: twice the degree of its polynomial
_HALVINGS, _NARROWINGS = 64, 90  # until rounding is reached, from the distance of two such points
_NEAR_ZERO = 1e-4  # the share of a function's size that it may have where it becomes NaN
_GOLDEN = (5**0.5 - 1) / 2


class Roots(NamedTuple):
    """The first roots along a solution, by their times.

    Attributes:
        times: increasing, and infinite behind the last root; decreasing, and minus infinity, where
            the solution runs backwards.
        which: the number of the function whose root it is.
        rising: whether the function grows there, along the way that the solution goes.
        count: how many roots there are, which may be more than are listed.
    """

    times: Float[Array, " roots"]
    which: Int[Array, " roots"]
    rising: Bool[Array, " roots"]
    count: Int[Array, ""]


@checked
def find_roots(
    solution: Solution,
    root: Callable[..., object],
    *,
    args: PyTree = None,
    direction: int = 0,
    max_roots: int = 64,
) -> Roots:
    """The times at which a function of the time and the state is zero along a solution.

    A root is where the function changes its sign; it is located to rounding. One at `t0` does not
    count. Of two roots between
    neighbouring points (64 a window of `pinn.solve`; of other solutions 64 between neighbours of
    `ts`) both are found, because the function is smaller between them. It may be called under
    `jax.jit` and `jax.vmap`.

    Args:
        solution: where to look.
        root: `root(t, y, args)`, a scalar of the time and a state as the solution has it; JAX
            traces it.
        args: passed on to `root`.
        direction: 1 where only a root that grows through zero counts, -1 where only one that falls
            does, 0 where both do.
        max_roots: how many roots are listed at most, the first ones; `count` says if there are
            more.

    Raises:
        TypeError, ValueError: arguments of the wrong kind or size.

    Example:
        >>> solution = pinn.solve(systems.Pendulum(), jnp.array([1.0, 0.0]), t1=20.0)
        >>> highest = pinn.find_roots(solution, lambda t, y, args: y[1], direction=-1)
        >>> int(highest.count), round(float(highest.times[0]), 5)
        (9, 2.13914)
    """
    require_count(max_roots=max_roots)
    solution, form = as_solved(solution)
    event = Event(root, direction=direction).seen_by(form)
    traced, _ = trace(Partial(_at_end, event), solution, args)
    event = replace(event, root=as_traced(event.root, traced))
    first = jnp.zeros(1, solution.ts.dtype)
    found = locate(solution, (event,), args, solution.t1, first, max_roots)
    return found._replace(times=form.time(found.times))


def locate(
    solution: Solution,
    events: Sequence[Event],
    args: PyTree,
    high: Float[Array, ""],
    first: Float[Array, " events"],
    most: int,
) -> Roots:
    """The first roots of all events up to the time `high`.

    `first` is the sign of each function right after the start, or zero where its value there tells.
    """
    # Of `stats` each solution has other shapes, for which all would be compiled again.
    bare = eqx.tree_at(lambda s: s.stats, solution, {})
    return _locate(bare, events, args, high, first, most)


def _at_end(event: Event, solution: Solution, args: PyTree) -> Array:
    return value(event, solution.t1, solution.dense.evaluate(solution.t1), args)


@eqx.filter_jit
def _locate(
    solution: Solution,
    events: Sequence[Event],
    args: PyTree,
    high: Float[Array, ""],
    first: Float[Array, " events"],
    most: int,
) -> Roots:
    dense = solution.dense

    def values(t: Array) -> Float[Array, " events"]:
        y = dense.evaluate(t)
        return jnp.stack([value(event, t, y, args) for event in events])

    times = _points(solution, high)
    found = jax.vmap(values)(times)
    size = jnp.nanmax(jnp.abs(found), axis=0, initial=0.0)
    rounding = 8 * jnp.finfo(found.dtype).eps * size
    at_start = jnp.where(jnp.abs(found[0]) <= rounding, found[1], found[0])  # no root there
    positive = (found >= 0).at[0].set(jnp.where(first == 0, at_start, first) >= 0)
    flips = positive[1:] != positive[:-1]
    at, which = jnp.nonzero(flips, size=most, fill_value=0)
    seen = jnp.arange(most) < jnp.sum(flips)
    crossings = _Brackets(times[at], times[at + 1], which, positive[at, which], seen)
    brackets = [crossings, *_hidden(values, times, found, positive, most)]
    all_of = jax.tree.map(lambda *parts: jnp.concatenate(parts), *brackets)
    rising = ~all_of.positive
    directions = jnp.asarray([event.direction for event in events])[all_of.which]
    counted = all_of.there & ((directions == 0) | ((directions > 0) == rising))
    before, after = _bisect(values, all_of)
    roots = jnp.where(counted & _known(values, before, after, all_of, size), after, jnp.inf)
    order = jnp.argsort(roots)[:most]
    unseen = jnp.maximum(jnp.sum(flips) - most, 0)
    count = jnp.sum(roots < jnp.inf) + unseen
    return Roots(roots[order], all_of.which[order], rising[order], count)


class _Brackets(NamedTuple):
    """Intervals that hold a root each."""

    low: Float[Array, " brackets"]
    high: Float[Array, " brackets"]
    which: Int[Array, " brackets"]
    positive: Bool[Array, " brackets"]  # the sign at `low`
    there: Bool[Array, " brackets"]  # where it is not, the rest means nothing


def _points(solution: Solution, high: Float[Array, ""]) -> Float[Array, " points"]:
    """Increasing times, close to each other where the solution varies fast."""
    dense, ts = solution.dense, solution.ts
    if isinstance(dense, CorrectedNetworks):
        starts, spans = dense.polynomials.starts, dense.polynomials.spans
    else:
        edges = jnp.clip(jnp.concatenate([solution.t0[None], ts]), solution.t0, high)
        starts, spans = edges[:-1], jnp.diff(edges)
    # Without each window's end, which is the start of the next one.
    s = jnp.asarray((1 - np.cos(np.pi * np.arange(_POINTS) / _POINTS)) / 2, ts.dtype)
    times = starts[:, None] + spans[:, None] * s[None]
    times = jnp.where(jnp.isfinite(starts)[:, None], times, high)
    return jnp.append(jnp.clip(times, solution.t0, high).reshape(-1), high)


def _bisect(
    values: Callable[[Array], Array], brackets: _Brackets
) -> tuple[Float[Array, " brackets"], Float[Array, " brackets"]]:
    """The root in each interval, to rounding: the times just before it and just after it."""

    def one(bracket: _Brackets) -> tuple[Array, Array]:
        def halve(_: Array, interval: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = interval
            middle = low + (high - low) / 2
            same = (values(middle)[bracket.which] >= 0) == bracket.positive
            return jnp.where(same, middle, low), jnp.where(same, high, middle)

        return jax.lax.fori_loop(0, _HALVINGS, halve, (bracket.low, bracket.high))

    return jax.vmap(one)(brackets)


def _known(
    values: Callable[[Array], Array],
    before: Float[Array, " brackets"],
    after: Float[Array, " brackets"],
    brackets: _Brackets,
    size: Float[Array, " events"],
) -> Bool[Array, " brackets"]:
    """Whether a function changes its sign, and is not NaN beside a root that is none.

    A function such as the square root of what passes zero is close to zero where it becomes NaN.
    """
    at = jax.vmap(lambda t, which: values(t)[which])
    ends = at(before, brackets.which), at(after, brackets.which)
    lost = jnp.isnan(ends[0]) | jnp.isnan(ends[1])
    left = jnp.abs(jnp.where(jnp.isnan(ends[0]), ends[1], ends[0]))
    return ~lost | (left <= _NEAR_ZERO * size[brackets.which])


def _hidden(
    values: Callable[[Array], Array],
    times: Float[Array, " points"],
    found: Float[Array, "points events"],
    positive: Bool[Array, "points events"],
    most: int,
) -> tuple[_Brackets, _Brackets]:
    """Two roots between points at which a function has the same sign.

    They are looked for where the function at a point is nearer to zero than at both neighbours, and
    the parabola through the three goes on for at least half of the way.
    """
    size, spans = jnp.abs(found), jnp.diff(times)[:, None]
    nearer = (size[1:-1] <= size[:-2]) & (size[1:-1] <= size[2:])
    nearer &= (positive[1:-1] == positive[:-2]) & (positive[1:-1] == positive[2:])
    slopes = jnp.diff(size, axis=0) / spans
    twice = spans[:-1] + spans[1:]
    curvature = jnp.diff(slopes, axis=0) / twice
    slope = (slopes[:-1] * spans[1:] + slopes[1:] * spans[:-1]) / twice
    nearer &= (curvature > 0) & (slope**2 >= 2 * curvature * size[1:-1])
    at, which = jnp.nonzero(nearer, size=most, fill_value=0)
    there, sign = jnp.arange(most) < jnp.sum(nearer), positive[at + 1, which]
    low, high = times[at], times[at + 2]

    def nearest(low: Array, high: Array, which: Array, sign: Array) -> Array:
        def distance(t: Array) -> Array:
            return jnp.where(sign, 1.0, -1.0) * values(t)[which]

        def narrow(_: Array, interval: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = interval
            left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
            downhill = distance(left) < distance(right)
            return jnp.where(downhill, low, left), jnp.where(downhill, right, high)

        low, high = jax.lax.fori_loop(0, _NARROWINGS, narrow, (low, high))
        return low + (high - low) / 2

    middle = jax.vmap(nearest)(low, high, which, sign)
    past = (jax.vmap(values)(middle)[jnp.arange(most), which] >= 0) != sign
    there &= past
    return (
        _Brackets(low, middle, which, sign, there),
        _Brackets(middle, high, which, ~sign, there),
    )

"""The roots of functions of the time and the state along a solution."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, PyTree

from physml._numerics.calls import as_traced, checked, holding, reads_traced, trace
from physml._numerics.checks import is_concrete, require_count
from physml._numerics.parts import fixed
from physml.pinn.events._brackets import Brackets, look_along
from physml.pinn.events._event import Event, value
from physml.pinn.events._samples import Look, looking
from physml.results import RESULTS, conclude
from physml.solution import Solution, as_solved

_HALVINGS = 64  # until rounding is reached, from the distance of two points
_NEAR_ZERO = 1e-4  # the share of a function's size that it may have where it becomes NaN


class Roots(NamedTuple):
    """The first roots along a solution, by their times.

    Attributes:
        times: increasing, and infinite behind the last root; decreasing, and minus infinity, where
            the solution runs backwards.
        which: the number of the function whose root it is.
        rising: whether the function grows there, along the way that the solution goes.
        count: how many roots there are, which may be more than are listed.
        result: `roots_missed` where the function varies so fast that some may be missing.
    """

    times: Float[Array, " roots"]
    which: Int[Array, " roots"]
    rising: Bool[Array, " roots"]
    count: Int[Array, ""]
    result: RESULTS = RESULTS.successful


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

    A root is where the function changes its sign, by more than the rounding of the state does; it
    is located to rounding. One at `t1` counts, one at `t0` does not, nor does zero that is only
    approached.

    The function is looked at 64 times in each window of `pinn.solve`, and between neighbours of
    `ts` in other solutions. Where it varies too fast for that, as a clock may, the windows are
    halved until it does not. Of two roots between points both are found, because the function is
    smaller between them. It may be called under `jax.jit` and `jax.vmap`, and `jax.grad` gives the
    derivatives of the times.

    Args:
        solution: where to look.
        root: `root(t, y, args)`, a scalar of the time and a state as the solution has it; JAX
            traces it.
        args: passed on to `root`.
        direction: 1 where only a root that grows through zero counts, -1 where only one that falls
            does, 0 where both do.
        max_roots: how many roots are listed at most, the first ones; `count` says if there are
            more.

    Returns:
        `Roots`. A function that no halving resolves, such as noise, ends with a warning.

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
    if reads_traced(traced):
        t1 = solution.t1
        function = holding(event.root, t1, solution.dense.evaluate(t1), args)
        event, args = replace(event, root=_held), (function, args)
        traced, _ = trace(Partial(_at_end, event), solution, args)
    event = replace(event, root=as_traced(event.root, traced))
    first = jnp.zeros(1, solution.ts.dtype)
    held, known = fixed((solution, args))
    found = locate(held, (event,), known, solution.t1, first, max_roots, all_of=True)
    if not all(map(is_concrete, jax.tree.leaves((solution, args)))):
        found = found._replace(times=_moving(solution, event, args, found.times))
    found = found._replace(times=form.time(found.times))
    return conclude(found, found.result, "pinn.find_roots", throw=False)


def _held(t: Array, y: Array, args: tuple[Callable[..., object], PyTree]) -> object:
    function, args = args
    return function(t, y, args)


def locate(
    solution: Solution,
    events: Sequence[Event],
    args: PyTree,
    high: Float[Array, ""],
    first: Float[Array, " events"],
    most: int,
    *,
    all_of: bool = False,
) -> Roots:
    """The first roots of all events up to the time `high`.

    `first` is the sign of each function right after the start, or zero where its value there tells.
    Unless all are to be counted, a fast function is not followed behind the first ones.
    """
    # Of `stats` each solution has other shapes, for which all would be compiled again.
    bare = eqx.tree_at(lambda s: s.stats, solution, {})
    enough = jnp.asarray(jnp.iinfo(jnp.int32).max if all_of else most)
    return _locate(bare, events, args, high, first, most, enough)


def _moving(
    solution: Solution, event: Event, args: PyTree, times: Float[Array, " roots"]
) -> Float[Array, " roots"]:
    """The same times, with their derivatives in the solution and in `args`."""
    listed = jnp.isfinite(times)

    def along(t: Array) -> Array:
        return value(event, t, solution.dense.evaluate(t), args)

    def moved(t: Array) -> Array:
        found, speed = jax.jvp(along, (t,), (jnp.ones_like(t),))
        found, speed = found - jax.lax.stop_gradient(found), jax.lax.stop_gradient(speed)
        return t - found / jnp.where(speed == 0, 1, speed)

    return jnp.where(listed, jax.vmap(moved)(jnp.where(listed, times, solution.t0)), times)


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
    enough: Int[Array, ""],
) -> Roots:
    look = looking(solution, events, args)
    seen = look_along(solution, look, events, high, first, most, enough)
    brackets = seen.brackets
    before, after = _bisect(look, brackets)
    known = brackets.there & _known(look, before, after, brackets, seen.size)
    roots = jnp.where(known, after, jnp.inf)
    order = jnp.argsort(roots)[:most]
    count = jnp.sum(known) + seen.unlisted
    result = RESULTS.where(seen.resolved, RESULTS.successful, RESULTS.roots_missed)
    return Roots(roots[order], brackets.which[order], ~brackets.positive[order], count, result)


def _bisect(
    look: Look, brackets: Brackets
) -> tuple[Float[Array, " brackets"], Float[Array, " brackets"]]:
    """The root in each interval, to rounding: the times just before it and just after it."""

    def one(bracket: Brackets) -> tuple[Array, Array]:
        def halve(_: Array, interval: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = interval
            middle = low + (high - low) / 2
            same = (look(middle).values[bracket.which] >= 0) == bracket.positive
            return jnp.where(same, middle, low), jnp.where(same, high, middle)

        return jax.lax.fori_loop(0, _HALVINGS, halve, (bracket.low, bracket.high))

    return jax.vmap(one)(brackets)


def _known(
    look: Look,
    before: Float[Array, " brackets"],
    after: Float[Array, " brackets"],
    brackets: Brackets,
    size: Float[Array, " events"],
) -> Bool[Array, " brackets"]:
    """Whether a function changes its sign, and is not NaN beside a root that is none.

    A function such as the square root of what passes zero is close to zero where it becomes NaN.
    """

    def at(time: Array, which: Array) -> Array:
        return look(time).values[which]

    ends = jax.vmap(at)(jnp.stack([before, after]).T.reshape(-1), jnp.repeat(brackets.which, 2))
    first, second = ends.reshape(-1, 2).T
    lost = jnp.isnan(first) | jnp.isnan(second)
    left = jnp.abs(jnp.where(jnp.isnan(first), second, first))
    return ~lost | (left <= _NEAR_ZERO * size[brackets.which])

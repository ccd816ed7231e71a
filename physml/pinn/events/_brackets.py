"""Intervals of time that hold a root each, found by the signs of functions along a solution."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from physml.pinn.events._event import Event
from physml.pinn.events._samples import (
    POINTS,
    Look,
    Samples,
    Signs,
    by_window,
    changing,
    counts_in,
    is_clear,
    near_zero,
    node_shares,
    num_missed,
    signs_of,
    windows_of,
)
from physml.solution import Solution

_DEPTH = 16  # how often a window is halved where a function varies faster than the solution does
_JUMPS = 6  # how often around what no halving resolves, such as a jump
_AT_A_JUMP = 3  # points close to it, of those at which a cubic through four others is tried
_MOST_LOOKS = 200_000  # at parts of windows, which take seconds
_AFAR = 8  # roundings from zero from which it is reached at once, and not only approached
_TRIED, _AT_ONCE = 16, 16  # pairs that are tried for each root that is listed, and together
_NARROWINGS = 90  # until rounding is reached, from the distance of two points
_GOLDEN = (5**0.5 - 1) / 2


class Brackets(NamedTuple):
    """Intervals that hold a root each."""

    low: Float[Array, " brackets"]
    high: Float[Array, " brackets"]
    which: Int[Array, " brackets"]
    positive: Bool[Array, " brackets"]  # the sign at `low`
    there: Bool[Array, " brackets"]  # where it is not, the rest means nothing


class Looked(NamedTuple):
    """What has been seen of functions along a solution.

    Attributes:
        brackets: of the first roots in directions that count.
        unlisted: how many roots there are that are not among them.
        size: of each function, the largest absolute value.
        resolved: whether the points were as close to each other as the functions need.
    """

    brackets: Brackets
    unlisted: Int[Array, ""]
    size: Float[Array, " events"]
    resolved: Bool[Array, ""]


def look_along(
    solution: Solution,
    look: Look,
    events: Sequence[Event],
    high: Float[Array, ""],
    first: Float[Array, " events"],
    most: int,
    enough: Int[Array, ""] | int,
) -> Looked:
    """The first roots up to the time `high`, each between two times.

    Each window of the solution is looked at as a whole first. Where a function varies faster than
    the points there tell, the window is halved until they do.

    Args:
        solution: where to look.
        look: what to look at.
        events: what it looks at.
        high: where to stop.
        first: the sign of each function right after the start, or zero where its value there tells.
        most: how many are listed.
        enough: how many changes of sign are counted before fast functions are not followed farther.
    """
    directions = jnp.asarray([event.direction for event in events])
    starts, ends = windows_of(solution, high)
    nodes = jnp.asarray(node_shares(np.arange(POINTS)), starts.dtype)
    times = (starts[:, None] + (ends - starts)[:, None] * nodes[None]).reshape(-1)
    seen = jax.vmap(look)(jnp.append(times, high))
    size = jnp.nanmax(jnp.abs(seen.values), axis=0, initial=0.0)
    at_start = jnp.abs(seen.values[0]) <= 8 * jnp.finfo(times.dtype).eps * size  # no root there
    clear = is_clear(seen)
    clear = clear.at[0].set(clear[0] & ~at_start)
    own = seen.values[jnp.argmax(clear, axis=0), jnp.arange(len(events))] >= 0
    before = jnp.where(first == 0, own, first > 0)
    clear = clear.at[0].set(clear[0] & (first == 0))
    signs = signs_of(seen, clear, Signs(before, jnp.broadcast_to(seen.times[0], before.shape)))
    fast = num_missed(by_window(seen)) > 0
    at_starts = jax.tree.map(lambda x: x[:-1:POINTS], signs)
    march = _march(look, starts, ends, fast, at_starts, directions, most, enough)
    # A window that the march has not come to is taken as it was seen at first.
    begun = march.windows + (march.part > 0).astype(int)
    slow = jnp.repeat(~fast | (jnp.cumsum(fast) > begun), POINTS)[:, None]
    flips, low = changing(signs, directions) & slow, signs.since[:-1]
    # A function that comes to zero at the end passes it there.
    ends_at_zero = ~clear[-1] & _comes_from_afar(seen) & counts_in(directions, ~signs.positive[-1])
    flips = flips.at[-1].set(flips[-1] | ends_at_zero)
    low = low.at[-1].set(jnp.where(ends_at_zero, high, low[-1]))
    crossings = _List.empty(most, times.dtype).append(
        0, flips, low, seen.times[1:], signs.positive[:-1]
    )
    near = near_zero(seen, signs.positive) & slow[1:]
    low = jnp.broadcast_to(seen.times[:-2, None], near.shape)
    hidden = march.hidden.append(march.num_hidden, near, low, seen.times[2:], signs.positive[1:-1])
    pairs, more = _pairs(look, hidden.brackets(), directions, most)
    all_tried = jnp.sum(near) + march.num_hidden <= _TRIED * most
    alone = march.crossings.brackets(), crossings.brackets()
    unlisted = march.count + jnp.sum(flips) - sum(jnp.sum(x.there) for x in alone)
    return Looked(
        jax.tree.map(lambda *x: jnp.concatenate(x), *alone, *pairs),
        unlisted + more,
        size,
        march.resolved & all_tried,
    )


def _comes_from_afar(seen: Samples) -> Bool[Array, " events"]:
    """Whether a function was far from its rounding just before the last time."""
    before = jnp.sum(seen.times < seen.times[-1]) - 1
    return jnp.abs(seen.values[before]) > _AFAR * seen.noise[before]


class _List(NamedTuple):
    """Brackets while they are found, in few arrays, because XLA compiles each write by itself.

    Attributes:
        ends: of each bracket.
        code: twice its `which`, and one more where it is `positive`; -1 where there is none.
    """

    ends: Float[Array, "room 2"]
    code: Int[Array, " room"]

    @classmethod
    def empty(cls, most: int, dtype: np.dtype) -> "_List":
        """A list for so many, with room behind them for as many to be written at once."""
        return cls(jnp.zeros((2 * most, 2), dtype), jnp.full(2 * most, -1))

    @property
    def most(self) -> int:
        return len(self.code) // 2

    def append(
        self,
        count: Int[Array, ""] | int,
        found: Bool[Array, "intervals events"],
        low: Float[Array, "intervals events"],
        high: Float[Array, " intervals"],
        positive: Bool[Array, "intervals events"],
    ) -> "_List":
        """What is found, behind the `count` brackets that are there, as far as there is room."""
        first, there = _first(found.reshape(-1), self.most)
        ends = jnp.stack(jnp.broadcast_arrays(low, high[:, None]), axis=-1).reshape(-1, 2)[first]
        code = 2 * jnp.arange(found.shape[1])[None] + positive.astype(int)
        code = code.reshape(-1)[first]
        new = _List(ends, jnp.where(there, code, -1))
        place = jnp.minimum(count, self.most)
        return jax.tree.map(
            lambda old, x: jax.lax.dynamic_update_slice_in_dim(old, x, place, 0), self, new
        )

    def brackets(self) -> Brackets:
        ends, code = self.ends[: self.most], self.code[: self.most]
        return Brackets(ends[:, 0], ends[:, 1], jnp.maximum(code, 0) >> 1, code & 1 == 1, code >= 0)


class _March(NamedTuple):
    """How far the windows of fast functions have been looked at closely.

    The part of a window that is next is number `part` of 2**depth equal ones.
    """

    windows: Int[Array, ""]
    depth: Int[Array, ""]
    part: Int[Array, ""]
    looks: Int[Array, ""]
    signs: Signs
    crossings: _List
    count: Int[Array, ""]
    hidden: _List
    num_hidden: Int[Array, ""]
    resolved: Bool[Array, ""]


def _march(
    look: Look,
    starts: Float[Array, " windows"],
    ends: Float[Array, " windows"],
    fast: Bool[Array, " windows"],
    at_starts: Signs,
    directions: Int[Array, " events"],
    most: int,
    enough: Int[Array, ""] | int,
) -> _March:
    """Halve the parts of some windows until the functions are followed in each of them."""
    todo, _ = _first(fast, len(fast))
    num = jnp.sum(fast)
    nodes = jnp.asarray(node_shares(np.arange(-1, POINTS + 1)), starts.dtype)

    def unfinished(march: _March) -> Bool[Array, ""]:
        return (march.windows < num) & (march.looks < _MOST_LOOKS) & (march.count < enough)

    def step(march: _March) -> _March:
        window, parts = todo[march.windows], jnp.left_shift(1, march.depth)
        share = (march.part.astype(nodes.dtype) + nodes) / parts.astype(nodes.dtype)
        times = starts[window] + (ends - starts)[window] * share
        around = jax.vmap(look)(jnp.clip(times, starts[0], ends[-1]))
        seen = jax.tree.map(lambda x: x[1:], around)
        unlike = num_missed(seen)
        jump = (march.depth >= _JUMPS) & (unlike <= _AT_A_JUMP)
        end = march.depth >= _DEPTH
        return jax.lax.cond(
            (unlike == 0) | jump | end,
            lambda: passed(march, around, seen)._replace(resolved=march.resolved & (~end | jump)),
            lambda: march._replace(depth=march.depth + 1, part=2 * march.part),
        )._replace(looks=march.looks + 1)

    def passed(march: _March, around: Samples, seen: Samples) -> _March:
        # The sign at the start is that at the end of the part before.
        signs = signs_of(seen, is_clear(seen).at[0].set(False), march.signs)
        flips = changing(signs, directions)
        crossings = march.crossings.append(
            march.count, flips, signs.since[:-1], seen.times[1:], signs.positive[:-1]
        )
        ahead = jnp.where(is_clear(around)[0], around.values[0] >= 0, march.signs.positive)
        near = near_zero(around, jnp.concatenate([ahead[None], signs.positive]))
        low = jnp.broadcast_to(around.times[:-2, None], near.shape)
        hidden = march.hidden.append(
            march.num_hidden, near, low, around.times[2:], signs.positive[:-1]
        )
        part = march.part + 1
        done = part == jnp.left_shift(1, march.depth)
        whole = (part % 2 == 0) & (march.depth > 0)  # the next part may be twice as wide
        windows = march.windows + done.astype(int)
        at_next = jax.tree.map(lambda x: x[todo[jnp.minimum(windows, len(todo) - 1)]], at_starts)
        at_end = jax.tree.map(lambda x: x[-1], signs)
        return _March(
            windows,
            march.depth - jnp.where(whole & ~done, 1, 0),
            jnp.where(done, 0, jnp.where(whole, part // 2, part)),
            march.looks,
            jax.tree.map(lambda x, y: jnp.where(done, x, y), at_next, at_end),
            crossings,
            march.count + jnp.sum(flips),
            hidden,
            march.num_hidden + jnp.sum(near),
            march.resolved,
        )

    none, begin = jnp.zeros((), int), jax.tree.map(lambda x: x[todo[0]], at_starts)
    crossings, hidden = (_List.empty(size, starts.dtype) for size in (most, _TRIED * most))
    march = _March(
        none, none + 1, none, none, begin, crossings, none, hidden, none, jnp.asarray(True)
    )
    march = jax.lax.while_loop(unfinished, step, march)
    stopped = (march.windows < num) & (march.looks >= _MOST_LOOKS)
    return march._replace(resolved=march.resolved & ~stopped)


def _first(found: Bool[Array, " n"], most: int) -> tuple[Int[Array, " most"], Bool[Array, " most"]]:
    """The first numbers at which something is found, and which of them mean something.

    This is `jnp.nonzero`, which takes XLA ten times as long to compile as a sort.
    """
    place = jnp.sort(jnp.where(found, jnp.arange(len(found)), len(found)))[:most]
    place = jnp.pad(place, (0, most - len(place)), constant_values=len(found))
    there = place < len(found)
    return jnp.where(there, place, 0), there


def _pairs(
    look: Look, near: Brackets, directions: Int[Array, " events"], most: int
) -> tuple[list[Brackets], Int[Array, ""]]:
    """The pairs of roots where a function does change its sign between points close to zero.

    Returns the brackets of both roots of the first pairs, and how many more roots there are.
    """

    def nearest(at: Brackets) -> tuple[Array, Array]:
        sign = jnp.where(at.positive, 1.0, -1.0)

        def narrow(_: Array, interval: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = interval
            left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
            found = sign * jax.vmap(look)(jnp.stack([left, right])).values[:, at.which]
            downhill = found[0] < found[1]
            return jnp.where(downhill, low, left), jnp.where(downhill, right, high)

        low, high = jax.lax.fori_loop(0, _NARROWINGS, narrow, (at.low, at.high))
        seen = look(low + (high - low) / 2)
        return seen.times, sign * seen.values[at.which] < -seen.noise[at.which]

    def unfinished(state: tuple[Array, Array, Array]) -> Bool[Array, ""]:
        return state[0] < jnp.sum(near.there)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        tried, middles, past = state
        some = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, tried, _AT_ONCE), near)
        found = jax.vmap(nearest)(some)
        middles, past = (
            jax.lax.dynamic_update_slice_in_dim(x, new, tried, 0)
            for x, new in zip((middles, past), found, strict=True)
        )
        return tried + _AT_ONCE, middles, past

    state = jnp.zeros((), int), near.low, near.there
    _, middles, past = jax.lax.while_loop(unfinished, step, state)
    past &= near.there
    index = jnp.argsort(jnp.where(past, near.low, jnp.inf))[:most]
    listed = jax.tree.map(lambda x: x[index], near._replace(there=past))
    pairs = [
        listed._replace(high=middles[index]),
        listed._replace(low=middles[index], positive=~listed.positive),
    ]
    pairs = [x._replace(there=x.there & counts_in(directions[x.which], ~x.positive)) for x in pairs]
    total = jnp.sum(jnp.where(past, jnp.where(directions[near.which] == 0, 2, 1), 0))
    return pairs, total - sum(jnp.sum(x.there) for x in pairs)

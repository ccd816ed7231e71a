"""Functions along a solution: where they are looked at, their signs, and what points may hide."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from physml._numerics.units import max_of
from physml.pinn.collocation import CorrectedNetworks
from physml.pinn.events._event import Event, value
from physml.solution import Solution

POINTS = 64  # of a window, at which signs are looked at: twice the degree of its polynomial
_UNLIKE = 0.1  # the share of a function's size by which a cubic may miss it
_ROUNDINGS = 32  # within which of zero a function has no sign


class Samples(NamedTuple):
    """Functions at some times, and by how much rounding may have moved them there."""

    times: Float[Array, " points"]
    values: Float[Array, "points events"]
    noise: Float[Array, "points events"]


Look = Callable[[Array], Samples]  # at one time


def looking(solution: Solution, events: Sequence[Event], args: PyTree) -> Look:
    """The functions of events at a time, and their rounding.

    A state is known to rounding at best. What that does to a function is measured along two
    directions, in which all components change by their share, with equal and with other signs.
    """
    dense = solution.dense

    def look(t: Array) -> Samples:
        y = dense.evaluate(t)

        def values(t: Array, y: Array) -> Float[Array, " events"]:
            return jnp.stack([value(event, t, y, args) for event in events])

        def slope(signs: Array) -> Float[Array, " events"]:
            return jax.jvp(values, (t, y), (jnp.abs(t), signs * jnp.abs(y)))[1]

        found, signs = values(t, y), np.stack([np.ones(y.size), (-1.0) ** np.arange(y.size)])
        try:
            slopes = jnp.abs(jax.vmap(slope)(jnp.asarray(signs, y.dtype)))
        except (TypeError, ValueError):  # of JAX, where the function has no such derivative
            return Samples(t, found, jnp.zeros_like(found))
        noise = _ROUNDINGS * jnp.finfo(y.dtype).eps * jnp.maximum(slopes[0], slopes[1])
        return Samples(t, found, jnp.where(jnp.isfinite(noise), noise, 0))

    return look


def windows_of(
    solution: Solution, high: Float[Array, ""]
) -> tuple[Float[Array, " windows"], Float[Array, " windows"]]:
    """Where the parts of a solution begin and end, in each of which it is smooth."""
    dense, ts = solution.dense, solution.ts
    if isinstance(dense, CorrectedNetworks):
        edges = dense.polynomials.starts  # infinite behind the last one
    else:
        edges = jnp.concatenate([solution.t0[None], ts])
    edges = jnp.clip(jnp.append(edges, high), solution.t0, high)
    return edges[:-1], edges[1:]


def node_shares(number: np.ndarray) -> np.ndarray:
    """Shares of an interval, close to each other at its ends; beyond these they are mirrored."""
    shares = (1 - np.cos(np.pi * number / POINTS)) / 2
    return np.where(number < 0, -shares, shares)


class Signs(NamedTuple):
    """The sign of each function, and since when it is known to have it."""

    positive: Bool[Array, "*points events"]
    since: Float[Array, "*points events"]


def is_clear(seen: Samples) -> Bool[Array, "points events"]:
    """Where a function is farther from zero than its rounding, or is NaN."""
    return ~(jnp.abs(seen.values) <= seen.noise)


def signs_of(seen: Samples, clear: Bool[Array, "points events"], before: Signs) -> Signs:
    """The signs at some times; where they are not clear, those of the time before."""
    last = jax.lax.cummax(jnp.where(clear, jnp.arange(len(clear))[:, None], -1), axis=0)
    known = last >= 0
    positive = jnp.take_along_axis(seen.values >= 0, last, axis=0)
    return Signs(
        jnp.where(known, positive, before.positive[None]),
        jnp.where(known, seen.times[last], before.since[None]),
    )


def by_window(seen: Samples) -> Samples:
    """The samples of each window, with its end, which is the start of the next one."""

    def rows(x: Array) -> Array:
        inside = x[:-1].reshape(-1, POINTS, *x.shape[1:])
        return jnp.concatenate([inside, x[POINTS::POINTS][:, None]], axis=1)

    return jax.tree.map(rows, seen)


def num_missed(seen: Samples) -> Int[Array, "..."]:
    """At how many points of an interval a cubic through four neighbours misses one of them."""
    even, odd = seen.values[..., ::2, :], seen.values[..., 1::2, :]
    # By the angle, of which the nodes are cosines, a function is mirrored at both ends.
    even = jnp.concatenate([even[..., 1:2, :], even, even[..., -2:-1, :]], axis=-2)
    count = even.shape[-2] - 3
    four = jnp.stack([even[..., i : i + count, :] for i in range(4)])
    cubic = (9 * (four[1] + four[2]) - four[0] - four[3]) / 16
    size = jnp.maximum(max_of(jnp.abs(four), axis=0), jnp.abs(odd))
    missed = jnp.abs(odd - cubic)
    missed = (missed > _UNLIKE * size) & (missed > seen.noise[..., 1::2, :])
    return jnp.sum(jnp.any(missed, axis=-1), axis=-1)


def changing(signs: Signs, directions: Int[Array, " events"]) -> Bool[Array, "intervals events"]:
    """Between which neighbours a function changes its sign in a direction that counts."""
    before, after = signs.positive[:-1], signs.positive[1:]
    return (before != after) & counts_in(directions[None], after)


def near_zero(seen: Samples, positive: Bool[Array, "points events"]) -> Bool[Array, "inner events"]:
    """At which points two roots may be hidden between both neighbours.

    A function is nearer to zero there than at both of them, has the sign that it has there, and the
    parabola through the three goes on towards zero for at least half of the way.
    """
    size, spans = jnp.abs(seen.values), jnp.diff(seen.times)[:, None]
    nearer = (size[1:-1] <= size[:-2]) & (size[1:-1] <= size[2:])
    nearer &= (positive[1:-1] == positive[:-2]) & (positive[1:-1] == positive[2:])
    slopes = jnp.diff(size, axis=0) / spans
    twice = spans[:-1] + spans[1:]
    curvature = jnp.diff(slopes, axis=0) / twice
    slope = (slopes[:-1] * spans[1:] + slopes[1:] * spans[:-1]) / twice
    return nearer & (curvature > 0) & (slope**2 >= 2 * curvature * size[1:-1])


def counts_in(direction: Int[Array, "..."], rising: Bool[Array, "..."]) -> Bool[Array, "..."]:
    """Whether roots of this kind are looked for, see `Event.direction`."""
    return (direction == 0) | ((direction > 0) == rising)

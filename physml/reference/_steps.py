"""Steps of many trajectories along one uniform grid, a stretch of it at a time."""

import itertools
from collections.abc import Iterator

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, PyTree

from physml._numerics.compiled import watched
from physml._numerics.devices import AXIS, ROWS, WHOLE
from physml._numerics.units import in_units, max_of, rounding, seen_on_the_way
from physml.systems import System

# Equal steps in an interval; where more are needed, steps follow what happens inside, as at a kink.
_EQUAL_SUBSTEPS = 64
_SHORT = 1e-9  # a step this short, in units of an interval, should hardly change y
_LEAST_SHARE = 1e-3  # of an interval's error that any step may make
STRETCH = 100  # intervals of the grid for which a program is compiled, whatever the grid's length

# The error estimate of m steps in place of one falls with this power of m.
_ESTIMATE_ORDER = {diffrax.Dopri8: 7, diffrax.Tsit5: 4}


class Plan(eqx.Module):
    """What all chunks of a march share."""

    system: System
    args: PyTree
    solver: diffrax.Dopri8 | diffrax.Tsit5
    dt: Float[Array, ""]
    tolerances: tuple[Float[Array, ""], Float[Array, ""] | None]
    max_substeps: Float[Array, ""]

    def term(self, jumps: bool) -> diffrax.ODETerm:
        """The right-hand side in the time s of a segment, from 0 to 1, so that lengths may differ.

        The solver's arguments are the segment's start and length, those of each trajectory.
        """

        def field(s, y, where):
            start, length = where
            t = start + length * s
            if jumps:  # a jump's value belongs to one side only
                last = jnp.nextafter(start + length, -jnp.inf)
                t = jnp.clip(t, jnp.nextafter(start, jnp.inf), last)
            return jnp.broadcast_to(length, y.shape) * self.system(t, y, self.args)

        return diffrax.ODETerm(field)

    def attempt(
        self, term: diffrax.ODETerm, segments: list, y: Array, m: Array, noise: Array
    ) -> tuple[Float[Array, "dim chunk"], Float[Array, "dim chunk"], Float[Array, " chunk"]]:
        """m steps in each segment: the new state, its error, and that in units of the tolerance.

        The tolerance is at least `noise`, what rounding leaves of each component.
        """
        start = y

        def substep(k, carry, where):
            y, error, state = carry
            s, jumped = k.astype(y.dtype), jnp.asarray(False)
            y, e, _, state, _ = self.solver.step(term, s / m, (s + 1) / m, y, where, state, jumped)
            return y, error + jnp.abs(e), state

        error = jnp.zeros_like(y)
        for where in segments:
            state = self.solver.init(term, jnp.zeros_like(m), 1 / m, y, where)
            y, error, _ = jax.lax.fori_loop(
                0, m.astype(int), lambda k, c, w=where: substep(k, c, w), (y, error, state)
            )
        return y, error, self.ratio(start, y, error, noise)

    def ratio(self, start: Array, y: Array, error: Array, noise: Array) -> Float[Array, " chunk"]:
        """The error in units of the tolerance; infinite where it is NaN."""
        rtol, atol = self.tolerances
        if atol is None:
            allowed = rtol * jnp.maximum(jnp.abs(start), jnp.abs(y))
        else:
            allowed = atol + rtol * jnp.abs(y)
        allowed = jnp.maximum(allowed, jnp.broadcast_to(noise[:, None], y.shape))
        ratio = max_of(in_units(error, allowed, jnp.inf), axis=0)
        return jnp.where(jnp.isnan(ratio), jnp.inf, ratio)

    def noise(
        self, segments: list, y: Float[Array, "dim chunk"], step: tuple[Array, Array]
    ) -> Float[Array, " dim"]:
        """What rounding leaves of each component in an interval.

        It is looked at where a step begins and where it leads to; `step` is the state there, and
        its error.
        """

        def rates(t: Array, y: Array) -> Array:
            return self.system(t, y, self.args)

        start, _ = segments[0]
        seen = seen_on_the_way(y, *step, looks=2).reshape(len(y), -1)
        times = jnp.broadcast_to(jnp.broadcast_to(start, y.shape[1:]), (2, *y.shape[1:])).ravel()
        return self.dt * rounding(rates, times, seen)

    def equally(
        self, term: diffrax.ODETerm, segments: list[tuple], y: Array, m: Array, alive: Array
    ) -> tuple[Float[Array, "dim chunk"], Float[Array, ""], Bool[Array, " chunk"]]:
        """Equal steps through an interval: the new state, how many steps come next, who passed."""
        order = _ESTIMATE_ORDER[type(self.solver)]

        def worst(ratio: Array) -> Array:
            return max_of(jnp.where(alive, ratio, 0.0))

        def refine(state: tuple) -> tuple:
            y_next, error, ratio, m = state
            wanted = jnp.ceil(m * (1.5 * worst(ratio)) ** (1 / order))
            m = jnp.minimum(jnp.clip(wanted, m + 1, 4 * m), self.max_substeps)
            noise = self.noise(segments, y, (y_next, error))
            return *self.attempt(term, segments, y, m, noise), m

        y_next, _, ratio, m_next = jax.lax.while_loop(
            lambda state: (worst(state[2]) > 1) & (state[3] < self.max_substeps),
            refine,
            (*self.attempt(term, segments, y, m, jnp.zeros_like(y[:, 0])), m),
        )
        guess = jnp.ceil(m_next * (2 * worst(ratio)) ** (1 / order))
        return y_next, jnp.clip(guess, 1, m_next), alive & (ratio <= 1)

    def adaptively(
        self, term: diffrax.ODETerm, segments: list[tuple], y: Array, m: Array, alive: Array
    ) -> tuple[Float[Array, "dim chunk"], Float[Array, ""], Bool[Array, " chunk"]]:
        """Steps of any length through an interval: as `equally`."""
        for segment in segments:
            y, m, alive = self.follow(term, segment, y, m, alive)
        return y, m, alive

    def follow(
        self, term: diffrax.ODETerm, where: tuple, y: Array, m: Array, alive: Array
    ) -> tuple[Float[Array, "dim chunk"], Float[Array, ""], Bool[Array, " chunk"]]:
        """Steps of any length through a segment: the new state, 1 / the last, who was followed.

        Where steps become as short as rounding, or too many, those that ask for them are left
        behind, and the others go on.
        """
        order, (start, length) = _ESTIMATE_ORDER[type(self.solver)], where
        last = jnp.maximum(jnp.abs(start), jnp.abs(start + length))
        rounding = 4 * jnp.finfo(y.dtype).eps * last / jnp.where(length > 0, length, jnp.inf)
        shortest = max_of(jnp.maximum(rounding, jnp.finfo(y.dtype).eps))

        def step(state: tuple) -> tuple:
            s, share, y, alive, count, noise = state
            share = jnp.minimum(share, 1 - s)
            first = self.solver.init(term, s, s + share, y, where)
            y_next, e, *_ = self.solver.step(
                term, s, s + share, y, where, first, jnp.asarray(False)
            )
            ratio = self.ratio(y, y_next, jnp.abs(e), noise) / jnp.maximum(share, _LEAST_SHARE)
            worst = max_of(jnp.where(alive, ratio, 0.0))
            good, count = worst <= 1, count + 1
            noise = jax.lax.cond(
                good, lambda: noise, lambda: self.noise([where], y, (y_next, jnp.abs(e)))
            )
            following = share * jnp.clip(0.9 * worst ** (-1 / order), 0.1, 4.0)
            ends = good & (share >= 1 - s)
            stuck = ((following < shortest) | (count >= self.max_substeps)) & ~ends
            # After a jump of f steps grow again; towards a pole they shrink, and still change y.
            change, size = (max_of(jnp.abs(x), axis=0) for x in (y_next - y, y))
            pole = good & (share < _SHORT) & (change > 1e-3 * size)
            alive = alive & ~(stuck & (ratio >= worst / 2)) & ~pole
            y = jnp.where(jnp.broadcast_to(good & alive, y.shape), y_next, y)
            # The trajectories that go on may allow longer steps than those left behind.
            following = jnp.where(stuck, jnp.maximum(following, 1 / self.max_substeps), following)
            s = jnp.where(ends, 1.0, jnp.where(good, s + share, s))
            return s, following, y, alive, jnp.where(stuck, 0, count), noise

        def unfinished(state: tuple) -> Bool[Array, ""]:
            return (state[0] < 1) & jnp.any(state[3])

        zero = jnp.zeros((), y.dtype)
        begun = zero, 1 / m, y, alive, zero, self.noise([where], y, (y, jnp.zeros_like(y)))
        _, share, y, alive, *_ = jax.lax.while_loop(unfinished, step, begun)
        return y, 1 / jnp.minimum(share, 1.0), alive


Carry = tuple[Array, Array, Array, Array]
"""States (dim, chunk), steps an interval, who is followed, and how many intervals each passed."""


DIVIDED = (PartitionSpec(None, AXIS), ROWS, ROWS, ROWS)  # a carry's arrays among devices


def begin(y0: np.ndarray, devices: int = 1) -> tuple[np.ndarray, ...]:
    """The carry of no steps; each device has its own number of steps an interval."""
    num = y0.shape[1]
    return y0, np.ones(devices, y0.dtype), np.ones(num, bool), np.zeros(num, int)


def stretches(
    plan: Plan, carry: Carry, t0s: Array, grid: np.ndarray, mesh: Mesh | None
) -> Iterator[tuple[int, Carry, Array]]:
    """The first interval of each stretch of the grid, the state after it, and its rows.

    From the first stretch on for which some equal steps are not enough, steps adapt.
    """
    most = jnp.minimum(plan.max_substeps, _EQUAL_SUBSTEPS)
    few, enough = eqx.tree_at(lambda plan: plan.max_substeps, plan, most), True
    for first in range(0, len(grid), STRETCH):
        begun, stretch = carry, _stretch(grid, first, carry[0].dtype)
        if enough:
            carry, ys, all_passed = _advance(few, begun, t0s, *stretch, equal=True, mesh=mesh)
            enough = bool(all_passed)
        if not enough:
            carry, ys, _ = _advance(plan, begun, t0s, *stretch, equal=False, mesh=mesh)
        yield first, carry, ys


def _stretch(grid: np.ndarray, first: int, dtype: np.dtype) -> tuple[Array, Array]:
    """The rows of a stretch of the grid, of which those past its end do not count."""
    rows = first + np.arange(min(STRETCH, len(grid)))
    where = grid[np.minimum(rows, len(grid) - 1)]
    return jnp.asarray(where, dtype), jnp.asarray(rows < len(grid))


@watched
@eqx.filter_jit
def _advance(
    plan: Plan,
    carry: Carry,
    t0s: Float[Array, " chunk"],
    grid: Float[Array, " intervals"] | Float[Array, "intervals edges chunk"],
    counts: Bool[Array, " intervals"],
    *,
    equal: bool,
    mesh: Mesh | None,
) -> tuple[Carry, Float[Array, "intervals dim chunk"], Bool[Array, ""]]:
    """One chunk through a stretch of the grid: the starts of intervals, or their edges at jumps.

    Steps are `equal` in an interval, or they adapt inside it, as a kink asks. Each device of a mesh
    goes on by itself; only whether all were followed is asked of all.
    """
    arrays, static = eqx.partition(plan, eqx.is_array)

    def own(arrays: PyTree, carry: Carry, t0s: Array, grid: Array, counts: Array) -> tuple:
        plan = eqx.combine(arrays, static)
        (y, m, alive, reached), ys = _through(plan, carry, t0s, grid, counts, equal)
        passed = jnp.all(alive == carry[2])
        if mesh is not None:
            passed = jax.lax.psum(~passed, AXIS) == 0
        return (y, m, alive, reached), ys, passed

    if mesh is not None:
        edges = PartitionSpec(None, None, AXIS) if grid.ndim == 3 else WHOLE
        own = jax.shard_map(
            own,
            mesh=mesh,
            in_specs=(WHOLE, DIVIDED, ROWS, edges, WHOLE),
            out_specs=(DIVIDED, PartitionSpec(None, None, AXIS), WHOLE),
            check_vma=False,
        )
    return own(arrays, carry, t0s, grid, counts)


def _through(
    plan: Plan, carry: Carry, t0s: Array, grid: Array, counts: Array, equal: bool
) -> tuple[Carry, Array]:
    """What `_advance` does on one device."""
    term, through = plan.term(grid.ndim == 3), plan.equally if equal else plan.adaptively

    def interval(carry, xs):
        (y, m, alive, reached), (where, counts) = carry, xs
        segments = _segments(plan, t0s, where)
        y_next, m_next, passed = through(term, segments, y, m[0], alive & counts)
        y_next = jnp.where(jnp.broadcast_to(passed, y.shape), y_next, jnp.nan)
        following = y_next, m_next[None], passed, reached + passed.astype(int)
        return jax.tree.map(lambda new, old: jnp.where(counts, new, old), following, carry), y_next

    return jax.lax.scan(interval, carry, (grid, counts))


def _segments(plan: Plan, t0s: Array, where: Array) -> list[tuple[Array, Array]]:
    """The starts and lengths of the parts of an interval, whose start or edges are given."""
    if where.ndim == 0:
        return [(t0s + where, plan.dt)]
    return [(a, b - a) for a, b in itertools.pairwise(where)]

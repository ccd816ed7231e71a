"""The engine of `reference.trajectories`: many trajectories marched along one uniform grid."""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physml._numerics.checks import check_tolerances
from physml.systems import System, check_problem

# On a CPU a core's second-level cache holds the stages of this many trajectories; 10,000 in one
# chunk take twice as long. An accelerator wants all it can get.
_CPU_CHUNK, _ACCELERATOR_CHUNK = 512, 32768
_DEFAULT_RTOL = (1e-12, 1e-5)

_DOPRI8 = diffrax.Dopri8()
# The error estimate of m steps in place of one falls with this power of m.
_ESTIMATE_ORDER = {diffrax.Dopri8: 7, diffrax.Tsit5: 4}


def march(
    system: System,
    y0s: Array,
    times: np.ndarray,
    t0s: np.ndarray,
    *,
    last_only: bool = False,
    solver: diffrax.Dopri8 | diffrax.Tsit5 = _DOPRI8,
    args: Any = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_substeps: int = 1000,
    chunk: int | None = None,
    throw: bool = True,
) -> Float[Array, "num time dim"]:
    """All rows, or the last only, of every trajectory; chunks go to a pool of threads."""
    num, dtype = len(y0s), y0s.dtype
    system, _ = check_problem(system, y0s.T, args)
    tolerances = check_tolerances(rtol, atol, dtype, _DEFAULT_RTOL)
    if max_substeps < 1:
        raise ValueError(f"max_substeps must be at least 1, got {max_substeps}")
    on_cpu = jax.default_backend() == "cpu"
    limit = (_CPU_CHUNK if on_cpu else _ACCELERATOR_CHUNK) if chunk is None else chunk
    if limit < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    workers = num_cores() if on_cpu else 1
    share = -(-num // workers)  # a chunk for each core at least
    size = min(limit, 1 << (share - 1).bit_length())  # powers of two: few shapes to compile
    dt = (times[-1] - times[0]) / (len(times) - 1)
    jumps = _Jumps.of(system, times, t0s)
    starts = np.asarray(y0s)
    out = _aligned_empty((num, 1 if last_only else len(times), system.dim), dtype)
    reached = np.empty(num, int)

    x64 = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]

    @jax.enable_x64(x64)  # a thread does not inherit it where it was set by a context
    def work(first: int) -> None:
        part = slice(first, min(first + size, num))
        index = np.minimum(np.arange(first, first + size), num - 1)
        edges = None if jumps is None else jnp.asarray(jumps.edges(times, t0s[index]), dtype)
        ys, steps = _integrate(
            system,
            solver,
            jnp.asarray(starts[index].T),
            jnp.asarray(times[:-1], dtype),
            jnp.asarray(t0s[index], dtype),
            jnp.asarray(dt, dtype),
            edges,
            args,
            tolerances,
            jnp.asarray(max_substeps, dtype),
            last_only,
        )
        # The transpose is a copy either way, and NumPy writes it where it belongs.
        out[part] = np.asarray(ys)[:, :, : part.stop - first].transpose(2, 0, 1)
        reached[part] = np.asarray(steps)[: part.stop - first]

    # JAX lets go of the interpreter while it computes, so that threads use all cores.
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(0, num, size)))

    failed = np.flatnonzero(reached < len(times) - 1)
    if throw and len(failed):
        worst = failed[np.argmin(reached[failed])]
        raise RuntimeError(
            f"{len(failed)} of {num} trajectories diverged or could not be followed with "
            f"max_substeps = {max_substeps} in a step of {dt:.3g}: numbers "
            f"{failed[:10].tolist()}{' ...' if len(failed) > 10 else ''}, the first at "
            f"t = {t0s[worst] + times[reached[worst]]:.6g} from {starts[worst]}. "
            "throw=False keeps all, with NaN from there on"
        )
    return jax.device_put(out, may_alias=True)


@eqx.filter_jit
def _integrate(
    system: System,
    solver: diffrax.AbstractERK,
    y0: Float[Array, "dim chunk"],
    times: Float[Array, " intervals"],
    t0s: Float[Array, " chunk"],
    dt: Float[Array, ""],
    edges: Float[Array, "intervals edges chunk"] | None,
    args: Any,
    tolerances: tuple[Array, Array],
    max_substeps: Float[Array, ""],
    last_only: bool,
) -> tuple[Float[Array, "time dim chunk"], Array]:
    """One chunk's states, and the number of intervals that each trajectory has come through."""
    rtol, atol = tolerances

    def field(s, y, where):  # time in a segment is s in [0, 1], so that segments may differ
        start, length = where
        t = start + length * s
        if edges is not None:  # a jump's value belongs to one side only
            inside, last = jnp.nextafter(start, jnp.inf), jnp.nextafter(start + length, -jnp.inf)
            t = jnp.clip(t, inside, last)
        return jnp.broadcast_to(length, y.shape) * system(t, y, args)

    term = diffrax.ODETerm(field)
    order = _ESTIMATE_ORDER[type(solver)]

    def attempt(y, segments, m):
        """m steps in each segment: the new state, and its error in units of the tolerance."""

        def substep(k, carry, where):
            y, error, state = carry
            s = k.astype(y.dtype)
            made_jump = jnp.asarray(False)
            y, e, _, state, _ = solver.step(term, s / m, (s + 1) / m, y, where, state, made_jump)
            return y, error + jnp.abs(e), state

        error = jnp.zeros_like(y)
        for where in segments:
            state = solver.init(term, jnp.zeros_like(m), 1 / m, y, where)
            y, error, _ = jax.lax.fori_loop(
                0, m.astype(int), lambda k, c, w=where: substep(k, c, w), (y, error, state)
            )
        return y, jnp.max(error / (atol + rtol * jnp.abs(y)), axis=0)

    def interval(carry, xs):
        y, m, alive, reached = carry
        if edges is None:
            segments = [(t0s + xs, dt)]
        else:
            segments = [(a, b - a) for a, b in itertools.pairwise(xs)]

        def worst(ratio):
            return jnp.max(jnp.where(alive, jnp.where(jnp.isnan(ratio), jnp.inf, ratio), 0.0))

        def refine(state):
            _, ratio, m = state
            wanted = jnp.ceil(m * (1.5 * worst(ratio)) ** (1 / order))
            m = jnp.minimum(jnp.clip(wanted, m + 1, 4 * m), max_substeps)
            return *attempt(y, segments, m), m

        y_next, ratio, m = jax.lax.while_loop(
            lambda state: (worst(state[1]) > 1) & (state[2] < max_substeps),
            refine,
            (*attempt(y, segments, m), m),
        )
        alive = alive & (ratio <= 1)
        y_next = jnp.where(jnp.broadcast_to(alive, y.shape), y_next, jnp.nan)
        guess = jnp.ceil(m * (2 * worst(ratio)) ** (1 / order))
        carry = y_next, jnp.clip(guess, 1, m), alive, reached + alive.astype(int)
        return carry, y_next[:0] if last_only else y_next

    start = (
        y0,
        jnp.asarray(1.0, y0.dtype),
        jnp.ones(y0.shape[1], bool),
        jnp.zeros(y0.shape[1], int),
    )
    (y, _, _, reached), ys = jax.lax.scan(interval, start, times if edges is None else edges)
    return y[None] if last_only else jnp.concatenate([y0[None], ys]), reached


class _Jumps(NamedTuple):
    """Where the right-hand side jumps, over all trajectories, and how often in one interval."""

    times: np.ndarray
    most: int

    @classmethod
    def of(cls, system: System, times: np.ndarray, t0s: np.ndarray) -> "_Jumps | None":
        if system.autonomous:
            return None
        jumps = system.jump_times(float(t0s.min() + times[0]), float(t0s.max() + times[-1]))
        if len(jumps) == 0:
            return None
        grid = np.unique(t0s)[:, None] + times
        first = np.searchsorted(jumps, grid[:, :-1], side="right")
        most = int(np.max(np.searchsorted(jumps, grid[:, 1:], side="left") - first))
        return cls(jumps, most)

    def edges(self, times: np.ndarray, t0s: np.ndarray) -> np.ndarray:
        """The ends of the jump-free segments of each interval, (intervals, most + 2, chunk).

        Where a trajectory has fewer jumps in an interval its last segments are empty.
        """
        grid = times[:, None] + t0s
        start, end = grid[:-1], grid[1:]
        first = np.searchsorted(self.times, start, side="right")
        padded = np.concatenate([self.times, np.full(self.most + 1, np.inf)])
        inner = [np.minimum(padded[first + j], end) for j in range(self.most)]
        return np.stack([start, *inner, end], axis=1)


def num_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array aligned as XLA wants it, so that it becomes a JAX array without a copy."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    offset = -raw.ctypes.data % 64
    return raw[offset : offset + size].view(dtype).reshape(shape)

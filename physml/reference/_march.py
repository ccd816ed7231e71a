"""The engine of `reference.trajectories`: many trajectories marched along one uniform grid."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from physml._numerics.checks import check_tolerances, require_count
from physml._numerics.devices import (
    ROWS,
    few_shapes,
    for_each_chunk,
    joined,
    mesh_of,
    num_cores,
    on_host,
    placed,
)
from physml.reference._steps import DIVIDED, STRETCH, Plan, begin, stretches
from physml.results import RESULTS, conclude
from physml.systems import System, check_problem

# On a CPU a core's second-level cache holds the stages of this many trajectories; 10,000 in one
# chunk take twice as long. An accelerator wants all it can get.
_CPU_CHUNK, _ACCELERATOR_CHUNK = 512, 32768
_DEFAULT_RTOL = (1e-12, 1e-5)

_DOPRI8 = diffrax.Dopri8()


def march(
    system: System,
    y0s: Array,
    times: np.ndarray,
    t0s: np.ndarray,
    *,
    last_only: bool = False,
    solver: diffrax.Dopri8 | diffrax.Tsit5 = _DOPRI8,
    args: PyTree = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_substeps: int = 1000,
    chunk: int | None = None,
    devices: Sequence[object] | None = None,
    throw: bool = True,
) -> Float[Array, "num time dim"]:
    """All rows, or only the last, of every trajectory."""
    num, dtype = len(y0s), y0s.dtype
    system, _, args = check_problem(system, y0s.T, args)
    tolerances = check_tolerances(rtol, atol, dtype, _DEFAULT_RTOL)
    dt = (times[-1] - times[0]) / (len(times) - 1)
    plan = Plan(
        system=system,
        args=args,
        solver=solver,
        dt=jnp.asarray(dt, dtype),
        tolerances=tolerances,
        max_substeps=jnp.asarray(max_substeps, dtype),
    )
    on_cpu = devices is None and jax.default_backend() == "cpu"
    limit = (_CPU_CHUNK if on_cpu else _ACCELERATOR_CHUNK) if chunk is None else chunk
    require_count(max_substeps=max_substeps, chunk=limit)
    starts = on_host(y0s)
    grid = _Grid(times, t0s, _Jumps.of(system, times, t0s))
    if on_cpu:
        ys, reached = _on_cores(plan, starts, grid, last_only, limit)
    else:
        mesh = mesh_of(devices, num)
        ys, reached = _on_devices(plan, starts, grid, last_only, limit, mesh)
    if (reached == len(times) - 1).all():
        return ys
    details = _failures(reached, starts, times, t0s, max_substeps)
    details += " throw=False keeps all, with NaN from there on." * throw
    name = "reference.trajectories"
    return conclude(ys, RESULTS.diverged, name, details, throw=throw)


class _Grid(NamedTuple):
    """The times of all trajectories."""

    times: np.ndarray
    t0s: np.ndarray
    jumps: "_Jumps | None"

    def intervals(self, index: np.ndarray) -> np.ndarray:
        """The starts of the intervals, or their edges for these trajectories where f jumps."""
        if self.jumps is None:
            return self.times[:-1]
        return self.jumps.edges(self.times, self.t0s[index])


def _on_cores(
    plan: Plan, starts: np.ndarray, grid: _Grid, last_only: bool, limit: int
) -> tuple[Array, np.ndarray]:
    """The rows, and how many intervals each trajectory passed: a chunk a core, on the CPU."""
    num, dim = starts.shape
    out = _aligned_empty((num, 1 if last_only else len(grid.times), dim), starts.dtype)
    reached = np.empty(num, int)

    def work(index: np.ndarray, rows: slice) -> None:
        t0, own = jnp.asarray(grid.t0s[index], out.dtype), slice(rows.stop - rows.start)
        if not last_only:
            out[rows, 0] = starts[rows]
        begun: Any = tuple(map(jnp.asarray, begin(starts[index].T)))
        for first, carry, ys in stretches(plan, begun, t0, grid.intervals(index), None):
            if not last_only:
                # The transpose is a copy either way, and NumPy writes it where it belongs.
                place = out[rows, first + 1 : first + 1 + STRETCH]
                place[:] = np.asarray(ys)[: place.shape[1], :, own].transpose(2, 0, 1)
            else:
                out[rows, 0] = np.asarray(carry[0]).T[own]
            reached[rows] = np.asarray(carry[3])[own]

    workers = num_cores()
    for_each_chunk(work, num, few_shapes(num, limit, workers), workers)
    return jax.device_put(out, may_alias=True), reached


def _on_devices(
    plan: Plan, starts: np.ndarray, grid: _Grid, last_only: bool, limit: int, mesh: Mesh | None
) -> tuple[Array, np.ndarray]:
    """As `_on_cores`, with the rows where they were computed: on an accelerator, or on several."""
    num, size = len(starts), 1 if mesh is None else mesh.size
    count = -(-num // (size * limit))  # of chunks
    width = -(-num // (size * count))  # of a chunk, on each device
    rows, reached = [], []
    for k in range(count):
        # A device's chunks lie behind each other; where rows are left over, the last is repeated.
        first = width * (count * np.arange(size) + k)
        index = np.minimum(first[:, None] + np.arange(width), num - 1).ravel()
        t0 = placed(grid.t0s[index].astype(starts.dtype), mesh, ROWS)
        columns = zip(begin(starts[index].T, size), DIVIDED, strict=True)
        begun: Any = tuple(placed(x, mesh, spec) for x, spec in columns)
        carry, made = begun, []
        for _, carry, ys in stretches(plan, begun, t0, grid.intervals(index), mesh):  # noqa: B007
            made.append(None if last_only else ys)
        rows.append(_as_rows(begun[0], [carry[0][None]] if last_only else made, last_only))
        reached.append(carry[3])
    steps = 1 if last_only else len(grid.times)
    return joined(rows, mesh)[:num, :steps], on_host(joined(reached, mesh))[:num]


@functools.partial(jax.jit, static_argnums=2)
def _as_rows(start: Array, made: list[Array], last_only: bool) -> Float[Array, "chunk time dim"]:
    """What stretches have made, (intervals, dim, chunk) each, behind the starts."""
    return jnp.concatenate([start[None], *made][last_only:]).transpose(2, 0, 1)


def _failures(
    reached: np.ndarray, starts: np.ndarray, times: np.ndarray, t0s: np.ndarray, max_substeps: int
) -> str:
    """Which trajectories failed, and where the first of them did."""
    failed = np.flatnonzero(reached < len(times) - 1)
    worst = failed[np.argmin(reached[failed])]
    dt = (times[-1] - times[0]) / (len(times) - 1)
    return (
        f"{len(failed)} of {len(starts)} trajectories failed with max_substeps = {max_substeps} in "
        f"a step of {dt:.3g}: numbers {failed[:10].tolist()}{' ...' if len(failed) > 10 else ''}, "
        f"the first at t = {t0s[worst] + times[reached[worst]]:.6g} from {starts[worst]}. End the "
        "times before it, or raise rtol or max_substeps; for a stiff system use "
        "reference.solve(..., stiff=True)."
    )


class _Jumps(NamedTuple):
    """When the right-hand side jumps, over all trajectories, and how often in one interval."""

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

        Where a trajectory has fewer jumps in an interval, its last segments are empty.
        """
        grid = times[:, None] + t0s
        start, end = grid[:-1], grid[1:]
        first = np.searchsorted(self.times, start, side="right")
        padded = np.concatenate([self.times, np.full(self.most + 1, np.inf)])
        inner = [np.minimum(padded[first + j], end) for j in range(self.most)]
        return np.stack([start, *inner, end], axis=1)


def _aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array aligned as XLA wants it, so that it becomes a JAX array without a copy."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    offset = -raw.ctypes.data % 64
    return raw[offset : offset + size].view(dtype).reshape(shape)

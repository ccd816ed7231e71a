"""Many trajectories in chunks: one state each, on a pool of threads."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np


def num_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_one_cpu(*arrays: object) -> bool:
    """Whether arrays lie on one device, a CPU, where chunks on threads fill the cores."""
    devices = {d for x in arrays if isinstance(x, jax.Array) for d in x.devices()}
    return len(devices) <= 1 and all(device.platform == "cpu" for device in devices)


def few_shapes(num: int, limit: int, workers: int) -> int:
    """A size of chunks that is a power of two, with a chunk for each worker if there are enough."""
    share = -(-num // workers)
    return min(limit, 1 << (share - 1).bit_length())


def for_each_chunk(
    work: Callable[[np.ndarray, slice], None], num: int, size: int, workers: int
) -> None:
    """Call `work(index, rows)` for every chunk of `num` trajectories, on `workers` threads.

    Args:
        work: takes the numbers of a chunk's trajectories and the rows that they fill. All chunks
            have one size: the last one repeats the last trajectory, whose copies fill no row.
        num: how many trajectories there are.
        size: trajectories in a chunk.
        workers: how many threads.
    """
    x64 = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]

    @jax.enable_x64(x64)  # a thread does not inherit it where it was set by a context
    def chunk(first: int) -> None:
        index = np.minimum(np.arange(first, first + size), num - 1)
        work(index, slice(first, min(first + size, num)))

    # JAX lets go of the interpreter while it computes, so that threads use all cores.
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(chunk, range(0, num, size)))

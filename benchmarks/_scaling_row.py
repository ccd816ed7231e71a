"""One row of `scaling.py`, in a process of its own: prints its figures as JSON.

    python benchmarks/_scaling_row.py climate NUM
    python benchmarks/_scaling_row.py devices COUNT

The process imports little, because it measures its own memory.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)  # before anything is computed

from physml import dynamics, reference, systems

LORENZ, DT, NUM_STEPS = systems.Lorenz(), 0.01, 800
TS = DT * np.arange(NUM_STEPS + 1)
BOUNDS = ((-25.0, -30.0, 0.0), (25.0, 30.0, 52.0))
CHUNK = 1000  # trajectories in memory at a time, whatever their number
SHARE = 512  # of trajectories, on each device, where the work grows with the devices


def climate(num: int) -> dict[str, float]:
    """The climate of `num` trajectories, made and pooled a chunk at a time."""

    def chunks(num: int) -> Iterator[jax.Array]:
        for i in range(num // CHUNK):
            key = jax.random.fold_in(jax.random.key(0), i)
            yield reference.trajectories(LORENZ, key, CHUNK, TS).ys

    dynamics.pool_climate(chunks(CHUNK), DT, bounds=BOUNDS, segment=400)  # compiles all
    seconds, cpu, states = [], [], 0
    for _ in range(max(1, 10_000 // num)):
        start, used = time.perf_counter(), time.process_time()
        pooled = dynamics.pool_climate(chunks(num), DT, bounds=BOUNDS, segment=400)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
        states = int(pooled.joint.sum())
    return {
        "num": num,
        "states": states,
        "seconds": float(np.median(seconds)),
        "us_per_trajectory": 1e6 * float(np.median(seconds)) / num,
        "cpu_us_per_trajectory": 1e6 * float(np.median(cpu)) / num,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def devices(count: int) -> dict[str, float]:
    """Trajectories and forecasts on so many devices: the same work, and work that grows."""
    from physml.experiment import best_of  # it loads much, and `climate` measures its memory

    if jax.device_count() < count and jax.default_backend() == "cpu":
        raise RuntimeError(f"the CPU must be {count} devices, got {jax.device_count()}")
    some = jax.devices()[:count]

    def made(num: int) -> Callable[[], Any]:
        y0s = jax.random.uniform(jax.random.key(0), (num, 3), minval=-15.0, maxval=15.0)
        return lambda: reference.trajectories_from(LORENZ, y0s, TS, devices=some).ys

    starts = reference.attractor_starts(LORENZ, jax.random.key(1), 8 * SHARE, devices=some)
    flow = reference.RungeKutta4(system=LORENZ, dt=DT)
    history = jnp.expand_dims(starts, 1)
    return {
        "count": count,
        "strong_seconds": best_of(made(8 * SHARE), 3)[1],
        "weak_seconds": best_of(made(count * SHARE), 3)[1],
        "forecast_seconds": best_of(lambda: dynamics.rollout(flow, history, NUM_STEPS), 3)[1],
    }


if __name__ == "__main__":
    kind, number = sys.argv[1], int(sys.argv[2])
    if kind == "devices":
        jax.config.update("jax_num_cpu_devices", number)
    print(json.dumps({"climate": climate, "devices": devices}[kind](number)))

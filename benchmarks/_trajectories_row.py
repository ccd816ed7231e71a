"""One row of `trajectories.py`, in a process of its own: prints its figures as JSON.

    python benchmarks/_trajectories_row.py SOLVER NUM

The process imports little, because it measures its own memory.
"""

import json
import os
import resource
import sys
import time

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)  # before anything is computed

from physml import reference, systems

NUM_STEPS, DT = 800, 0.01
LORENZ, TS = systems.Lorenz(), np.linspace(0.0, NUM_STEPS * DT, NUM_STEPS + 1)


def physml(y0s: jax.Array) -> jax.Array:
    return reference.trajectories_from(LORENZ, y0s, TS).ys


def lsoda(y0s: jax.Array) -> np.ndarray:
    from scipy.integrate import odeint

    def f(y, t):
        return 10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]

    return np.stack([odeint(f, y0, TS, rtol=1e-10, atol=1e-10) for y0 in np.asarray(y0s)])


@jax.jit
@jax.vmap
def adaptive(y0):
    return diffrax.diffeqsolve(
        diffrax.ODETerm(LORENZ), diffrax.Dopri8(), 0.0, TS[-1], None, y0,
        saveat=diffrax.SaveAt(ts=jnp.asarray(TS)), max_steps=16384,
        stepsize_controller=diffrax.PIDController(rtol=1e-10, atol=1e-10),
    ).ys  # fmt: skip


SOLVERS = {"physml": physml, "odeint": lsoda, "vmapped Dopri8": adaptive}


def peak_mib() -> float:
    """The largest resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, num: int) -> dict[str, float]:
    """Seconds, memory and one-step errors of a batch of `num` trajectories."""
    solve = SOLVERS[name]
    y0s = jax.random.uniform(jax.random.key(0), (num, 3), minval=-15.0, maxval=15.0)
    before, start = peak_mib(), time.perf_counter()
    if name != "odeint":
        # `reference` works in chunks, so one chunk per core compiles all that the batch needs.
        few = min(num, 512 * (os.cpu_count() or 1)) if name == "physml" else num
        jax.block_until_ready(solve(y0s[:few]))
    compile_seconds = time.perf_counter() - start
    seconds = float("inf")
    for _ in range(3):  # the best of three: another process can only add to the time
        ys = None  # or two batches would be held at once
        start = time.perf_counter()
        ys = jax.block_until_ready(solve(y0s))
        seconds = min(seconds, time.perf_counter() - start)
    peak = peak_mib()

    some = np.asarray(ys[: max(1, 200_000 // NUM_STEPS)])
    tight = reference.trajectories_from(
        LORENZ, some[:, :-1].reshape(-1, 3), [0.0, DT / 2, DT], rtol=1e-14
    )
    error = np.abs(np.asarray(tight.ys[:, 2]) - some[:, 1:].reshape(-1, 3))
    return {
        "num": num,
        "seconds": seconds,
        "compile_seconds": compile_seconds,
        "us_per_trajectory": 1e6 * seconds / num,
        "error_max": float(error.max()),
        "error_rms": float(np.sqrt((error**2).mean())),
        "output_mib": ys.nbytes / 2**20,
        "peak_mib": peak,
        "peak_before_mib": before,
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))

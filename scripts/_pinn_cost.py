"""What a PINN of the Lorenz system costs, beside an integrator that is as accurate."""

import jax
import jax.numpy as jnp
import numpy as np

from physml import dynamics, pinn, reference, systems
from physml.experiment import Run, best_of

DT = 0.01
LORENZ = systems.Lorenz()


def grid(t1: float) -> np.ndarray:
    """Times DT apart."""
    return DT * np.arange(round(t1 / DT) + 1)


def worst_component(ys: jax.Array, truth: jax.Array) -> float:
    """The relative L2 error over all rows, that of the worst component."""
    return float(dynamics.relative_l2(ys, truth).max())


def measure_cost(run: Run, key: jax.Array, batch: int) -> None:
    """Seconds to t = 20 after compiling: the PINN, Dopri8 beside it, and a batch in one call."""
    ts, y0 = grid(20), jnp.ones(3)
    times = jnp.asarray(ts)
    truth = run.part("truth_t20", reference.extended_trajectories, LORENZ, y0[None], ts).ys[0]
    solved, seconds, compile_seconds = run.part(
        "cost", best_of, lambda: pinn.solve(LORENZ, y0, t1=20.0, ts=ts)
    )
    error = worst_component(solved.ys, truth)

    def at(rtol: float) -> tuple[float, float, float]:
        ys, seconds, _ = best_of(lambda: reference.dopri8(LORENZ, y0, times, rtol))
        return worst_component(ys, truth), seconds, rtol

    tried = [at(rtol) for rtol in 10.0 ** np.arange(-8.0, -15.0, -1.0)]
    equal = [row for row in tried if row[0] <= error]
    peer_error, peer_seconds, rtol = min(equal, key=lambda row: row[1]) if equal else min(tried)

    starts = reference.attractor_starts(LORENZ, key, batch)
    solve = jax.jit(jax.vmap(lambda y: pinn.solve(LORENZ, y, 20.0, ts=ts, max_windows=128).ys))
    _, batch_seconds, batch_compile_seconds = best_of(lambda: solve(starts))
    rows = [
        ["PINN", 1, error, seconds, compile_seconds],
        [f"Diffrax Dopri8, rtol {rtol:.0e}", 1, peer_error, peer_seconds, None],
        ["PINN, one vmapped call", batch, None, batch_seconds, batch_compile_seconds],
    ]
    run.table(
        rows,
        ["solver", "starts", "rel. L2", "seconds", "compile s"],
        title="Seconds to t = 20, the best of five after the first call",
    )
    run.metrics(
        {
            "seconds_t20": seconds,
            "diffrax_ratio_t20": seconds / peer_seconds,
            "diffrax_rel_l2_t20": peer_error,
            "batch": batch,
            "batch_ratio": batch_seconds / seconds,
        }
    )

"""Diffrax's rows: Dopri8 for one solution and, by vmap, for many."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from _row import best_of, lorenz, oscillator, serve

jax.config.update("jax_enable_x64", True)


def solver(rates, ts, tolerance):
    """Answers the states at `ts` for a start."""
    term = diffrax.ODETerm(lambda t, y, args: jnp.stack(rates(t, y)))

    def solve(y0):
        return diffrax.diffeqsolve(
            term, diffrax.Dopri8(), ts[0], ts[-1], None, y0, max_steps=2**16,
            saveat=diffrax.SaveAt(ts=jnp.asarray(ts)),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        ).ys  # fmt: skip

    return solve


def one(rates):
    def task(data, limit):
        solve, y0 = jax.jit(solver(rates, data["ts"], 1e-13)), jnp.asarray(data["y0"])
        answer, times = best_of(lambda: np.asarray(solve(y0)))
        return answer, times | {"setting": "Dopri8, rtol = atol = 1e-13, jit"}

    return task


def many(data, limit):
    solve, starts = jax.jit(jax.vmap(solver(lorenz, data["ts"], 1e-10))), data["starts"]
    answer, times = best_of(lambda: np.asarray(solve(starts)), times=2)
    return answer, times | {"setting": "Dopri8 under vmap and jit, rtol = atol = 1e-10"}


TASKS = {
    "oscillator": one(lambda t, y: oscillator(t, y, jnp.cos)), "lorenz": one(lorenz), "many": many,
}  # fmt: skip

if __name__ == "__main__":
    serve(TASKS, "diffrax")

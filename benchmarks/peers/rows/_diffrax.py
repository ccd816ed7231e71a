"""Diffrax's rows: Dopri8 for one solution and, by vmap, for many."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from _row import best_of, lorenz, oscillator, serve

jax.config.update("jax_enable_x64", True)


def solver(rates, ts, tolerance, land=False):
    """Answers the states at `ts` for a start, by steps that `land` there or by interpolation."""
    term = diffrax.ODETerm(lambda t, y, args: jnp.stack(rates(t, y)))
    controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
    if land:
        controller = diffrax.ClipStepSizeController(controller, step_ts=jnp.asarray(ts))

    def solve(y0):
        return diffrax.diffeqsolve(
            term, diffrax.Dopri8(), ts[0], ts[-1], None, y0, max_steps=2**16,
            saveat=diffrax.SaveAt(ts=jnp.asarray(ts)),
            stepsize_controller=controller,
        ).ys  # fmt: skip

    return solve


def one(rates, land=False):
    def task(data, limit):
        solve, y0 = jax.jit(solver(rates, data["ts"], 1e-13, land)), jnp.asarray(data["y0"])
        answer, times = best_of(lambda: np.asarray(solve(y0)))
        said = "Dopri8, rtol = atol = 1e-13, jit, "
        said += "a step to each time" if land else "interpolated"
        return answer, times | {"setting": said}

    return task


def many(data, limit):
    solve, starts = jax.jit(jax.vmap(solver(lorenz, data["ts"], 1e-10))), data["starts"]
    answer, times = best_of(lambda: np.asarray(solve(starts)), times=2)
    return answer, times | {"setting": "Dopri8 under vmap and jit, rtol = atol = 1e-10"}


def force(t, y):
    return oscillator(t, y, jnp.cos)


TASKS = {
    "oscillator": one(force), "oscillator_landing": one(force, True), "lorenz": one(lorenz),
    "lorenz_landing": one(lorenz, True), "many": many,
}  # fmt: skip

if __name__ == "__main__":
    serve(TASKS, "diffrax")

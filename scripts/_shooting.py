"""Single shooting on Lorenz by Diffrax and Levenberg-Marquardt: the classical baseline."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx

from physml import systems


def trajectory(unknowns: jax.Array, ts: np.ndarray, observe: tuple[int, ...]) -> jax.Array:
    """What is observed, given (sigma, rho, beta, x, y, z at the start)."""
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(systems.Lorenz(*unknowns[:3])),
        diffrax.Dopri8(),
        ts[0],
        ts[-1],
        0.001,
        unknowns[3:],
        saveat=diffrax.SaveAt(ts=jnp.asarray(ts)),
        stepsize_controller=diffrax.PIDController(rtol=1e-9, atol=1e-9),
        adjoint=diffrax.ForwardMode(),
        throw=False,
    )
    assert solution.ys is not None
    return solution.ys[:, np.asarray(observe)]


def shooting(
    guess: jax.Array, ts: np.ndarray, data: jax.Array, observe: tuple[int, ...], noise: float
) -> np.ndarray:
    """The unknowns by one trajectory from the start to the end."""

    def residual(unknowns: jax.Array, data: jax.Array) -> jax.Array:
        return (trajectory(unknowns, ts, observe) - data) / noise

    solver = optx.LevenbergMarquardt(rtol=1e-8, atol=1e-8)
    options = {"jac": "fwd"}
    solution = optx.least_squares(
        residual, solver, guess, args=data, options=options, max_steps=200, throw=False
    )
    return np.asarray(solution.value)

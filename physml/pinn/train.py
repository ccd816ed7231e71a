"""Classic training: a whole network made to fulfil the equation by gradient descent."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from physml import fit, residuals
from physml.pinn.ivp import check_interval, check_times
from physml.reference.initial_value import check_problem
from physml.solution import RESULTS, Dense, Solution
from physml.systems import System


class TrainedNetwork(Dense):
    r"""A network that meets the initial condition whatever its weights.

    $u(t) = y_0 + (1 - e^{-(t - t_0) / \tau})\, N((t - t_m) / \tau)$, with $t_m$ the middle of
    the interval and $\tau$ the time scale.
    """

    network: nnx.Module
    y0: Float[Array, " dim"]
    t0: Float[Array, ""]
    middle: Float[Array, ""]
    time_scale: Float[Array, ""]

    def evaluate(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """u(t)."""
        network: Any = self.network
        ramp = -jnp.expm1((self.t0 - t) / self.time_scale)
        return self.y0 + ramp * network(((t - self.middle) / self.time_scale)[None])

    def derivative(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """The derivative of the network."""
        return jax.jvp(self.evaluate, (t,), (jnp.ones_like(t),))[1]


class Training(NamedTuple):
    """A solution by classic training, and the fits of its stages with their histories."""

    solution: Solution
    fits: tuple[fit.Fit, ...]

    @property
    def losses(self) -> np.ndarray:
        """The mean square of the residual before each step, all stages in a row."""
        return np.concatenate([stage.history["loss"] for stage in self.fits])


def train(
    network: nnx.Module,
    system: System,
    y0: Any,
    t1: float,
    *,
    t0: float = 0.0,
    ts: Any = None,
    args: Any = None,
    time_scale: float | None = None,
    num_points: int = 200,
    stages: Sequence[tuple[optax.GradientTransformation, int]] | None = None,
    key: PRNGKeyArray | None = None,
    progress: bool = False,
    throw: bool = True,
) -> Training:
    r"""Trains all weights of one network on the residual of $dy/dt = f(t, y), y(t_0) = y_0$.

    The initial condition is built in (see `TrainedNetwork`), the loss is the mean square of
    `residuals.equation` at even times. This is the textbook method, for comparison and for
    networks of one's own; `pinn.solve` is faster by orders of magnitude, more accurate, and
    judges its residual. A small loss is no proof of a right solution: another one may be near.

    Networks with sine units do far better on oscillations than those with tanh. The lecture's
    driven oscillator over 20 time units takes two layers of 32 of them to a relative L2 error
    near 2e-5 in the default stages.

    Args:
        network: turns (..., 1) into (..., dim); it is not changed. Its weights have the dtype of
            `y0`.
        system: the right-hand side.
        y0: the state at `t0`, shape (dim,).
        t1: the end; later than `t0`.
        t0: the time of `y0`.
        ts: increasing times in [t0, t1] at which `solution.ys` is wanted; 1001 even ones unless
            given.
        args: passed on to the right-hand side.
        time_scale: the unit of time that the network sees, about the time in which the solution
            changes; a tenth of the interval unless given.
        num_points: the number of times at which the residual is taken.
        stages: optimizers and their numbers of steps, one after the other; 1000 of Adam with a
            cosine schedule and 3000 of L-BFGS unless given.
        key: for networks that need one.
        progress: show a progress bar for each stage.
        throw: raise if a loss is not finite; otherwise `solution.result` says so, and the
            solution is the last good one.

    Returns:
        `training.solution`, whose `stats` holds the root mean square of the residual per
        component, and `training.fits`.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape, order or precision.
        RuntimeError: the loss became infinite or NaN.

    Source: I. Lagaris, A. Likas, D. Fotiadis, "Artificial neural networks for solving ordinary
    and partial differential equations", IEEE Trans. Neural Networks 9 (1998).

    Example:
        >>> network = nn.MLP(1, (32, 32), 2, activation="sin", rngs=nnx.Rngs(0))
        >>> training = pinn.train(network, DrivenOscillator(), [1.0, 0.0], t1=20.0)
        >>> training.solution(3.7), training.losses
    """
    t0, t1 = check_interval(t0, t1)
    system, y0 = check_problem(system, y0, args)
    dtype = y0.dtype
    ts = check_times(ts, t0, t1, dtype)
    if num_points < 1:
        raise ValueError(f"num_points must be at least 1, got {num_points}")
    time_scale = (t1 - t0) / 10 if time_scale is None else time_scale
    if not 0 < time_scale < np.inf:
        raise ValueError(f"time_scale must be positive and finite, got {time_scale}")
    if stages is None:
        adam = optax.adam(optax.cosine_decay_schedule(3e-3, 1000))
        stages = ((adam, 1000), (optax.lbfgs(memory_size=50), 3000))
    if not stages:
        raise ValueError("stages must hold at least one (optimizer, steps), got none")

    model = TrainedNetwork(
        network, y0, *(jnp.asarray(x, dtype) for x in (t0, (t0 + t1) / 2, time_scale))
    )
    with jax.numpy_dtype_promotion("standard"):  # for a message of our own
        out = jax.eval_shape(model.evaluate, model.t0)
    if (out.shape, out.dtype) != (y0.shape, dtype):
        raise ValueError(
            f"network must turn (..., 1) into (..., {system.dim}) in {dtype}, the dtype of y0; "
            f"with it the solution has shape {out.shape} and dtype {out.dtype}"
        )
    equation = residuals.equation(system, args)

    def residual(model: TrainedNetwork, times: Array, key: Any) -> Array:
        return equation(model.evaluate, times, key)

    loss = fit.mean_square(residual)
    cells = (np.arange(num_points) + 0.5) / num_points
    times = jnp.asarray(t0 + (t1 - t0) * cells, dtype)
    fits = []
    for optimizer, steps in stages:
        done = fit.gradient(
            loss, model, times, optimizer=optimizer, steps=steps, key=key, progress=progress
        )
        model = done.model
        fits.append(done)
        if done.result != fit.RESULTS.completed:
            break

    failed = fits[-1].result == fit.RESULTS.nonfinite
    if failed and throw:
        raise RuntimeError(
            f"pinn.train: the loss was not finite at step {fits[-1].nonfinite_step} of stage "
            f"{len(fits)}, after a loss of {fits[-1].history['loss'][-1:]}; a smaller learning "
            "rate may help"
        )
    result: Any = RESULTS.nonfinite if failed else RESULTS.successful
    solution = Solution(
        ts=ts,
        ys=jax.vmap(model.evaluate)(ts),
        t0=model.t0,
        t1=jnp.asarray(t1, dtype),
        dense=model,
        result=result,
        stats={"rms_residual": jnp.sqrt(jnp.mean(residual(model, times, None) ** 2, axis=0))},
    )
    return Training(solution, tuple(fits))

"""Classic training: a whole network made to fulfil the equation by descent on its residual."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from physml import fit, residuals
from physml._numerics.blas import single_threaded_blas
from physml._numerics.checks import check_interval, check_times, is_concrete, require_finite
from physml.pinn.collocation import estimate
from physml.pinn.training._descent import Collocation, descend
from physml.pinn.training._points import Even, Points
from physml.pinn.training._scales import Scales, find_scales
from physml.pinn.training._weights import Fixed, Weights
from physml.results import RESULTS
from physml.solution import Differentiated, Solution
from physml.systems import System, check_problem

Condition = Literal["hard", "soft"]
"""Whether a network meets the initial condition by construction, or by a term of the loss."""

_SUSPECT = 0.1  # of the solution's size: an error above it is no small one
_MISSED = 0.01  # of the state's unit: an initial condition that is not met


class TrainedNetwork(Differentiated):
    r"""A network N as a solution, in units of time $\tau$ and of the state S.

    $u(t) = y_0 + S\, g(t)\, N((t - t_m) / \tau)$, with $t_m$ the middle of the interval. With a
    hard condition $g = 1 - e^{-(t - t_0) / \tau}$, so that $u(t_0) = y_0$ whatever the weights;
    with a soft one g = 1.
    """

    network: nnx.Module
    y0: Float[Array, " dim"]
    t0: Float[Array, ""]
    middle: Float[Array, ""]
    scales: Scales
    condition: Condition = eqx.field(static=True)

    def evaluate(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """u(t)."""
        network: Any = self.network
        out = self.scales.state * network(((t - self.middle) / self.scales.time)[None])
        if self.condition == "hard":
            out = -jnp.expm1((self.t0 - t) / self.scales.time) * out
        return self.y0 + out


class Training(NamedTuple):
    """A solution by classic training, and the fits of its stages with their histories."""

    solution: Solution
    fits: tuple[fit.Fit, ...]

    @property
    def losses(self) -> np.ndarray:
        """The residual's mean square before each step, unweighted, all stages in a row."""
        return np.concatenate([stage.history["mean_square"] for stage in self.fits])


class Problem(eqx.Module):
    """An initial value problem as the residual of a `TrainedNetwork`, in its units."""

    system: System
    args: Any

    def __call__(
        self, model: TrainedNetwork, batch: Any, key: PRNGKeyArray | None = None
    ) -> dict[str, Array]:
        """The residual at times (n,), weighted by (n, terms): see `Collocation`."""
        times, weights = batch
        dim = model.y0.shape[0]
        root = jnp.sqrt(weights)
        blocks = {"equation": root[:, :dim] * self.equation(model, times)}
        if model.condition == "soft":
            blocks["condition"] = root[0, dim:] * self.missing(model)
        return blocks

    def equation(
        self, model: TrainedNetwork, times: Float[Array, " times"]
    ) -> Float[Array, "times dim"]:
        """The equation's residual, in units of the state per unit of time."""
        unit = jnp.asarray(model.scales.time / model.scales.state)
        raw = residuals.equation(self.system, self.args)(model.evaluate, times, None)
        return raw * unit[None]

    def missing(self, model: TrainedNetwork) -> Float[Array, " dim"]:
        """What is missing of the initial condition."""
        return (model.evaluate(model.t0) - model.y0) / model.scales.state

    def terms(self, model: TrainedNetwork, times: Float[Array, " times"]) -> Array:
        """The mean squares, one for each component, of both."""
        equation = jnp.mean(self.equation(model, times) ** 2, axis=0)
        if model.condition == "hard":
            return equation
        return jnp.concatenate([equation, self.missing(model) ** 2])


def train(
    network: nnx.Module,
    system: System,
    y0: Any,
    t1: float,
    *,
    t0: float = 0.0,
    ts: Any = None,
    args: Any = None,
    condition: Condition = "hard",
    scales: Scales | None = None,
    points: Points = Even(200),  # noqa: B008 -- immutable
    weights: Weights = Fixed(),  # noqa: B008 -- immutable
    stages: Sequence[tuple[Any, int]] | None = None,
    key: PRNGKeyArray | None = None,
    progress: bool = False,
    throw: bool = True,
) -> Training:
    r"""Trains all weights of one network on the residual of $dy/dt = f(t, y), y(t_0) = y_0$.

    The loss is the mean square of `residuals.equation` at a number of times, in units that are
    found automatically. This is the textbook method, for comparison and for networks of one's
    own; `pinn.solve` is faster and more accurate.

    A small loss is no proof of a right solution: another one may be near, the rest at a fixed
    point most of all. So the residual is carried along the linearised flow (`pinn.error`), as
    `solution.error_estimate(t)`; where it comes to more than a tenth of the solution, or the
    initial condition is not met, the result is `RESULTS.suspect`, with a warning.

    Every number of the scales, points, weights and stages is traced: another value of one, or
    another `y0`, `t1` or parameter of the system, uses the program of the first call. For optax's
    own transformations `fit.scheduled` does that.

    Networks with sine units do far better on oscillations than those with tanh.

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
        condition: "hard", the initial condition is built in, or "soft", it is a term of the loss.
        scales: the units of time and state that the network sees; found by `find_scales` unless
            given.
        points: where the residual is taken: `Even(num)` or `Resampled(num, ...)`.
        weights: of the loss's terms: `Fixed(...)`, `GradientNorm(...)`, `RandomLookback(...)`.
        stages: optimizers and their numbers of steps, one after the other: optax transformations
            and `fit.VariableProjection`; 50 steps of the latter unless given, which wants a
            network with a linear last layer named `readout`.
        key: for points, weights and networks that need one.
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
        >>> training.solution(3.7), training.solution.error_estimate(3.7), training.losses
    """
    t0, t1 = check_interval(t0, t1)
    system, y0 = check_problem(system, y0, args)
    dtype = y0.dtype
    start, end = (jnp.asarray(t, dtype) for t in (t0, t1))
    if not all(is_concrete(x) for x in jax.tree.leaves((system, y0, args))):
        raise ValueError("system, y0 and args must not be traced: training runs on the host")
    require_finite("the right-hand side at t0", system(start, y0, args))
    ts = check_times(ts, t0, t1, dtype)
    stages = _check_options(condition, points, weights, stages, key)
    if scales is None:
        scales = find_scales(system, y0, start, end, args)
    scales = scales.checked(y0)
    middle = jnp.asarray((t0 + t1) / 2, dtype)
    model = TrainedNetwork(network, y0, start, middle, scales, condition)
    _check_network(model)

    problem = Problem(system, args)
    collocation = Collocation(problem, points, weights, (start, end))
    with single_threaded_blas():
        fits, model, times = descend(collocation, model, stages, key, progress)
    failed = bool(fits[-1].result == RESULTS.nonfinite)
    if failed and throw:
        raise RuntimeError(
            f"pinn.train: the loss was not finite at step {fits[-1].nonfinite_step} of stage "
            f"{len(fits)}, after a loss of {fits[-1].history['loss'][-1:]}; a smaller learning "
            "rate may help"
        )
    # Twice as many windows as units of time, each of several Gauss points; a power of two, so that
    # few shapes are compiled.
    num_windows = 1 << int(np.clip(np.ceil(np.log2(2 * (t1 - t0) / float(scales.time))), 6, 12))
    error, rms, ys, worst = _judge(problem, model, times, ts, start, end, num_windows)
    missed = np.max(np.abs(np.asarray(problem.missing(model))))
    suspect = not worst <= _SUSPECT or not missed <= _MISSED
    result: Any = RESULTS.successful
    if failed:
        result = RESULTS.nonfinite
    elif suspect:
        result = RESULTS.suspect
        warnings.warn(
            f"pinn.train: the values may belong to another solution, or to none: by the residual, "
            f"of root mean square {float(np.linalg.norm(rms)):.2g}, the error is up to {worst:.2g} "
            f"of the solution's size, and the initial condition is missed by {missed:.2g} of it. "
            "See solution.error_estimate.",
            stacklevel=2,
        )
    solution = Solution(
        ts=ts, ys=ys, t0=start, t1=end, dense=model, result=result,
        stats={"rms_residual": rms}, error=error,
    )  # fmt: skip
    return Training(solution, fits)


@eqx.filter_jit
def _judge(
    problem: Problem,
    model: TrainedNetwork,
    times: Float[Array, " times"],
    ts: Float[Array, " n"],
    t0: Float[Array, ""],
    t1: Float[Array, ""],
    num_windows: int,
) -> Any:
    """The estimated error, the residual's root mean square, u at `ts`, and the largest error."""

    def field(t: Array, y: Array) -> Array:
        return problem.system(t, y, problem.args)

    error = estimate(field, model, model.y0, t0, t1, num_windows)
    raw = residuals.equation(problem.system, problem.args)(model.evaluate, times, None)
    even = t0 + (t1 - t0) * jnp.linspace(0.0, 1.0, 1000, dtype=ts.dtype)
    size = jnp.max(jnp.abs(jax.vmap(model.evaluate)(even)), axis=0)
    size = jnp.maximum(size, model.scales.state)
    worst = jnp.max(jnp.max(jax.vmap(error)(even), axis=0) / size)
    return error, jnp.sqrt(jnp.mean(raw**2, axis=0)), jax.vmap(model.evaluate)(ts), worst


def _check_options(condition, points, weights, stages, key) -> tuple[tuple[Any, int], ...]:
    """The stages, all options checked."""
    if condition not in get_args(Condition):
        raise ValueError(f"condition must be one of {get_args(Condition)}, got {condition!r}")
    for name, value, kind, choices in (
        ("points", points, Points, "pinn.Even and pinn.Resampled"),
        ("weights", weights, Weights, "pinn.Fixed, pinn.GradientNorm and pinn.RandomLookback"),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be one of {choices}, got {type(value).__name__}")
        if value.random and key is None:
            raise ValueError(f"{name}={type(value).__name__}(...) needs a key, key is None")
    if points.num < 1:
        raise ValueError(f"points.num must be at least 1, got {points.num}")
    stages = ((fit.VariableProjection(), 50),) if stages is None else tuple(stages)
    if not stages:
        raise ValueError("stages must hold at least one (optimizer, steps), got none")
    for stage in stages:
        known = isinstance(stage, tuple) and len(stage) == 2
        kinds = (optax.GradientTransformation, fit.VariableProjection)
        if not (known and isinstance(stage[0], kinds)):
            raise TypeError(
                "stages must hold pairs (optimizer, steps), the optimizer an optax transformation "
                f"or fit.VariableProjection, got {stage!r}"
            )
        if stage[1] < 1:
            raise ValueError(f"stages must have at least 1 step each, got {stage[1]}")
    return stages


def _check_network(model: TrainedNetwork) -> None:
    network: Any = model.network
    one = jnp.zeros(1, model.y0.dtype)
    with jax.numpy_dtype_promotion("standard"):  # for a message of our own
        out = jax.eval_shape(lambda x: network(x), one)
    if (out.shape, out.dtype) != (model.y0.shape, model.y0.dtype):
        raise ValueError(
            f"network must turn (..., 1) into (..., {model.y0.shape[0]}) in {model.y0.dtype}, the "
            f"dtype of y0; it answers (1,) with shape {out.shape} and dtype {out.dtype}"
        )

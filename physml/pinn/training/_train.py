"""Classic training: a whole network made to fulfil the equation by descent on its residual."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from physml import fit
from physml._numerics import checks
from physml._numerics.blas import single_threaded_blas
from physml._numerics.calls import checked
from physml._numerics.compiled import watched
from physml._numerics.devices import mesh_of
from physml._numerics.interrupt import ctrl_c
from physml._numerics.units import max_of
from physml._types import Numbers
from physml.pinn.collocation import Error, estimate
from physml.pinn.training._adversarial import Adversarial
from physml.pinn.training._descent import CollocationTask, Stages, descend
from physml.pinn.training._network import Condition, TrainedNetwork, TrainingResidual
from physml.pinn.training._points import Even, Points
from physml.pinn.training._scales import Scales, find_scales
from physml.pinn.training._weights import Fixed, Weights
from physml.results import RESULTS, conclude
from physml.solution import Solution, as_written
from physml.systems import System, flatten_problem
from physml.systems.states import is_backwards

_SUSPECT = 0.1  # of the solution's size: a larger error is not small
_MISSED = 0.01  # of the state's unit: an initial condition missed by more is not met


class Training(NamedTuple):
    """A solution by classic training, and the fits of its stages with their histories."""

    solution: Solution
    fits: tuple[fit.Fit, ...]

    @property
    def losses(self) -> np.ndarray:
        """The residual's mean square before each step, unweighted, all stages in a row."""
        made = [stage.history["mean_square"] for stage in self.fits if stage.step]
        return np.concatenate([np.zeros(0), *made])


@checked
def train(
    network: nnx.Module,
    system: System | Callable[..., Any],
    y0: PyTree,
    t1: float,
    *,
    t0: float = 0.0,
    ts: Numbers | None = None,
    args: PyTree = None,
    condition: Condition = "hard",
    scales: Scales | None = None,
    points: Points = Even(200),  # noqa: B008 -- immutable
    weights: Weights = Fixed(),  # noqa: B008 -- immutable
    stages: Stages | None = None,
    key: PRNGKeyArray | None = None,
    devices: Sequence[object] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | fit.Callback = False,
    throw: bool = True,
) -> Training:
    r"""Trains all weights of one network on the residual of $dy/dt = f(t, y), y(t_0) = y_0$.

    The loss is the mean square of `residuals.equation` at a number of times, in units that are
    found automatically. This is the textbook method, for comparison and for networks of one's
    own; `pinn.solve` is faster and more accurate.

    A small loss does not prove that the solution is right: the network may have found another
    solution, most often the rest at a fixed point. So the residual is carried along the linearised
    flow, which gives `solution.error_estimate(t)`. Where the estimate is above a tenth of the
    solution's size, or the initial condition is not met, the result is `RESULTS.suspect`, with a
    warning; after Ctrl-C it is `RESULTS.interrupted`, with a warning.

    Every number of the scales, points, weights and stages is traced: a call with other numbers, or
    another `y0`, `t1` or parameter of the system, uses the program of the first call. For the
    numbers of optax's own transformations use `fit.scheduled`.

    Networks with sine units do far better on oscillations than those with tanh.

    Args:
        network: turns (..., 1) into (..., dim); it is not changed. Its weights have the dtype of
            `y0`. Where a state is no vector, its outputs are the state's numbers one after the
            other, a complex one as its real and its imaginary part.
        system: the right-hand side: a system, or a function `f(t, y, args)` or `f(t, y)`.
        y0: the state at `t0`, shape (dim,), or written as for `pinn.solve`; the solution's states
            are written like it.
        t1: the end. If it is earlier than `t0`, the solution runs backwards in time.
        t0: the time of `y0`.
        ts: times from t0 to t1, in this order, at which `solution.ys` is wanted; 1001 even ones
            unless given.
        args: passed on to the right-hand side.
        condition: "hard", the initial condition is built in, or "soft", it is a term of the loss.
        scales: the units of time and state that the network sees; found by `find_scales` unless
            given. The state's may be written as a state is.
        points: where the residual is taken: `Even(num)`, `Resampled(num, ...)`, or your own
            subclass of `Points`.
        weights: of the loss's terms: `Fixed(...)`, `GradientNorm(...)`, `RandomLookback(...)`, or
            your own subclass of `Weights`.
        stages: optimizers and their numbers of steps, one after the other: optax transformations,
            `fit.VariableProjection` and `pinn.Adversarial`, which needs a key and a hard condition.
            Unless given, 50 steps of variable projection, for which the network must have a linear
            last layer named `readout`.
        key: for points, weights and networks that need one.
        devices: the points are shared out among these, for instance `jax.devices()`, and what each
            adds to the gradient is added up; each holds the network. They must divide the points. A
            step of variable projection has its Jacobian divided, but is solved by each device.
        checkpoint: a folder from which the same call goes on, see `fit.gradient`; it holds one for
            each stage.
        progress: show a progress bar for each stage, or call a function after each chunk of it.
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
        >>> network = nn.MLP(1, (20,), 2, activation="sin", rngs=nnx.Rngs(0))
        >>> training = pinn.train(network, systems.DrivenOscillator(), [1.0, 0.0], t1=5.0)
        >>> training.solution(5.0).round(6)
        Array([-0.736018, -0.619361], dtype=float64)
        >>> bool(training.solution.error_estimate(5.0).max() < 1e-9)
        True
    """
    backwards = is_backwards(t0, t1)
    flat = flatten_problem(system, y0, args, t0=t0, backwards=backwards)
    system, y0, form, args = flat
    t0, t1 = checks.check_interval(form.time(t0), form.time(t1))
    dtype = y0.dtype
    start, end, middle = (jnp.asarray(t, dtype) for t in (t0, t1, (t0 + t1) / 2))
    if not all(checks.is_concrete(x) for x in jax.tree.leaves((system, y0, args))):
        raise ValueError("system, y0 and args must not be traced: training runs on the host")
    checks.require_finite("the right-hand side at t0", system(start, y0, args))
    ts = checks.check_times(form.times(ts), t0, t1, dtype)
    checks.require_one_of(get_args(Condition), condition=condition)
    _check_rules(points, weights, key)
    mesh = mesh_of(devices)
    if mesh is not None:
        checks.require_multiple("devices", mesh.size, **{"points.num": points.num})
    stages = _check_stages(((fit.VariableProjection(), 50),) if stages is None else tuple(stages))
    if scales is None:
        scales = find_scales(system, y0, start, end, args)
    else:
        state = form.spread("scales.state", scales.state, y0.size)
        scales = dataclasses.replace(scales, state=state)
    model = TrainedNetwork(network, y0, start, middle, scales.checked(y0), condition)
    _check_network(model)
    _check_adversaries(model, stages, key)

    task = CollocationTask(TrainingResidual(system, args), points, weights, (start, end))
    with single_threaded_blas(), ctrl_c():  # also while a stage is compiled
        fits, model, times = descend(task, model, stages, key, progress, checkpoint, mesh)
    solution, details = _judged(task.problem, model, times, ts, end, fits[-1].result)
    if fits[-1].result == RESULTS.nonfinite:
        details = (
            f"The loss was not finite at step {fits[-1].nonfinite_step} of stage {len(fits)} "
            f"(before: {fits[-1].history['loss'][-1:]}). A smaller learning rate may help."
        )
    solution = as_written(solution, form)
    return conclude(Training(solution, fits), solution.result, "pinn.train", details, throw=throw)


def _judged(
    problem: TrainingResidual,
    model: TrainedNetwork,
    times: Float[Array, " times"],
    ts: Float[Array, " n"],
    t1: Float[Array, ""],
    result: RESULTS,
) -> tuple[Solution, str]:
    """The solution with its result, and a sentence about its error."""
    # Twice as many windows as units of time, each of several Gauss points; a power of two, so that
    # few shapes are compiled.
    units = (float(t1) - float(model.t0)) / float(model.scales.time)
    num_windows = 1 << int(np.clip(np.ceil(np.log2(2 * units)), 6, 12))
    error, rms, ys, worst = _measure(problem, model, times, ts, t1, num_windows)
    missed = np.max(np.abs(np.asarray(problem.missing(model))))
    if result == RESULTS.successful and not (worst <= _SUSPECT and missed <= _MISSED):
        result = RESULTS.suspect
    solution = Solution(ts, ys, model.t0, t1, model, result, {"rms_residual": rms}, error)
    return solution, (
        f"By the residual, of root mean square {float(np.linalg.norm(rms)):.2g}, the error is up "
        f"to {worst:.2g} of the solution's size, and the initial condition is missed by "
        f"{missed:.2g} of it. See solution.error_estimate."
    )


@watched
@eqx.filter_jit
def _measure(
    problem: TrainingResidual,
    model: TrainedNetwork,
    times: Float[Array, " times"],
    ts: Float[Array, " n"],
    t1: Float[Array, ""],
    num_windows: int,
) -> tuple[Error, Float[Array, " dim"], Float[Array, "n dim"], Float[Array, ""]]:
    """The estimated error, the residual's root mean square, u at `ts`, and the largest error."""
    t0 = model.t0

    def field(t: Array, y: Array) -> Array:
        return problem.system(t, y, problem.args)

    error = estimate(field, model, model.y0, t0, t1, num_windows)
    rms = jnp.sqrt(jnp.mean(problem.raw(model, times) ** 2, axis=0))
    even = t0 + (t1 - t0) * jnp.linspace(0.0, 1.0, 1000, dtype=ts.dtype)
    size = max_of(jnp.abs(jax.vmap(model.evaluate)(even)), axis=0)
    size = jnp.maximum(size, model.scales.state)
    worst = max_of(max_of(jax.vmap(error)(even), axis=0) / size)
    return error, rms, jax.vmap(model.evaluate)(ts), worst


def _check_rules(points: Points, weights: Weights, key: PRNGKeyArray | None) -> None:
    for name, value in (("points", points), ("weights", weights)):
        if value.random and key is None:
            raise ValueError(f"key must be given for {name}={type(value).__name__}(...), got None")
    checks.require_count(**{"points.num": points.num})


def _check_stages(stages: Stages) -> Stages:
    if not stages:
        raise ValueError("stages must hold at least one (optimizer, steps), got none")
    for _, steps in stages:
        checks.require_count(**{"steps of a stage": steps})
    return stages


def _check_adversaries(model: TrainedNetwork, stages: Stages, key: PRNGKeyArray | None) -> None:
    for method in (method for method, _ in stages if isinstance(method, Adversarial)):
        if key is None:
            raise ValueError("key must be given for an adversarial stage, got None")
        if model.condition == "soft":
            raise ValueError("condition must be 'hard' for an adversarial stage, got 'soft'")
        method.check(model.y0.size, model.y0.dtype)


def _check_network(model: TrainedNetwork) -> None:
    network: Any = model.network
    one = jnp.zeros(1, model.y0.dtype)
    with jax.numpy_dtype_promotion("standard"):  # for a message of our own
        out = jax.eval_shape(lambda x: network(x), one)
    if (out.shape, out.dtype) != (model.y0.shape, model.y0.dtype):
        raise ValueError(
            f"network must turn (..., 1) into (..., {model.y0.shape[0]}) in {model.y0.dtype}, the "
            f"dtype of y0, got shape {out.shape} and dtype {out.dtype} for (1,)"
        )

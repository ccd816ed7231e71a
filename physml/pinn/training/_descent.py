"""Descent on collocation points: the points and the weights of the loss move along."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from physml import fit
from physml._numerics.devices import ROWS, WHOLE, held, on_first, placed
from physml._numerics.parts import take_apart, traced
from physml.pinn.training._adversarial import Adversarial, game_of
from physml.pinn.training._network import TrainedNetwork, TrainingResidual
from physml.pinn.training._points import Points
from physml.pinn.training._weights import Weights, WeightsState
from physml.results import RESULTS

Method = optax.GradientTransformation | fit.VariableProjection | Adversarial
Stages = Sequence[tuple[Method, int]]
"""Optimizers and their numbers of steps, one after the other."""


class CollocationTask(eqx.Module):
    """What a network is trained on: a residual, where it is taken, and how it is weighed."""

    problem: TrainingResidual
    points: Points
    weights: Weights
    span: tuple[Array, Array]


class DescentState(eqx.Module):
    """Where a fit on collocation points stands."""

    inner: fit.FitState | fit.GameState
    times: Float[Array, " times"]
    weights: WeightsState


class DescentStep(eqx.Module):
    """Move the points and the weights, then make a step of an optimizer."""

    inner: fit.GradientStep | fit.ProjectionStep | fit.GameStep
    task: CollocationTask
    mesh: Mesh | None = eqx.field(static=True, default=None)  # among which the points are divided

    def __call__(
        self, state: DescentState, batch: None, key: PRNGKeyArray | None
    ) -> tuple[DescentState, dict[str, Array]]:
        problem, params, parts = self.task.problem, state.inner.params, self.inner.parts
        count = state.inner.step
        keys = (None,) * 3 if key is None else tuple(jax.random.split(key, 3))

        def model(params: PyTree[Array]) -> TrainedNetwork:
            return parts.merge(params, state.inner.rest)

        def magnitude(times: Array) -> Array:
            return jnp.linalg.norm(problem.equation(model(params), times), axis=1)

        times = self.task.points.move(state.times, self.task.span, count, magnitude, keys[0])
        times = held(times, self.mesh, ROWS)

        def terms(params: PyTree[Array]) -> Array:
            return problem.terms(model(params), times)

        weights = self.task.weights.move(state.weights, count, terms, params, keys[1])
        rows = jnp.broadcast_to(weights["weights"], (times.size, weights["weights"].size))
        step: Any = self.inner  # of states of its own kind
        inner, metrics = step(state.inner, (times, held(rows, self.mesh, ROWS)), keys[2])
        metrics = {"loss": metrics["loss"], "weights": weights["weights"]}
        metrics["mean_square"] = jnp.mean(terms(params))
        inner, weights, metrics = held((inner, weights, metrics), self.mesh, WHOLE)
        return DescentState(inner, times, weights), metrics


def descend(
    task: CollocationTask,
    model: TrainedNetwork,
    stages: Stages,
    key: PRNGKeyArray | None,
    progress: bool | fit.Callback,
    checkpoint: str | os.PathLike[str] | None = None,
    mesh: Mesh | None = None,
) -> tuple[tuple[fit.Fit, ...], TrainedNetwork, Float[Array, " times"]]:
    """The fits of all stages, the model that the last one left, and its points.

    Args:
        task: its Python numbers become arrays, and are traced.
        model: what is trained.
        stages: each begins where the one before ended.
        key: for points, weights and networks; each stage folds its number in.
        progress: show a progress bar for each stage.
        checkpoint: a folder for a checkpoint of each stage.
        mesh: the devices among which the points are divided.

    Raises:
        ValueError: an optimizer does not fit the model's weights.
    """
    task = traced(task)
    parts, params, rest = take_apart(model, nnx.Param)
    for method, _ in stages:  # an optimizer that does not fit raises before any stage runs
        jax.eval_shape(method.init, params)
    t0, t1 = task.span
    soft = model.condition == "soft"
    is_condition = jnp.arange((1 + soft) * model.y0.size) >= model.y0.size
    times = placed(task.points.start(t0, t1, t0.dtype), mesh, ROWS)
    weights = task.weights.start(is_condition, t0.dtype)
    loss = fit.mean_square(task.problem)
    fits = []
    for index, (method, steps) in enumerate(stages):
        if isinstance(method, Adversarial):
            inner, begin = game_of(method, task.problem, parts, params, rest)
        elif isinstance(method, fit.VariableProjection):
            shared = ("condition",) if soft else ()
            method = traced(method)
            inner = fit.ProjectionStep(task.problem, method, parts, shared)
            begin = fit.FitState.begin(params, rest, method.init(params), None)
        else:
            method = optax.with_extra_args_support(method)
            inner = fit.GradientStep(loss, method, parts)
            begin = fit.FitState.begin(params, rest, method.init(params), None)
        stage_key = None if key is None else jax.random.fold_in(key, index)
        outcome = fit.loop(
            DescentStep(inner, task, mesh),
            DescentState(placed(begin, mesh, WHOLE), times, placed(weights, mesh, WHOLE)),
            num_steps=steps,
            key=stage_key,
            review=lambda state: (state, {}, fit.nonfinite(state.inner)),
            checkpoint=None if checkpoint is None else Path(checkpoint) / f"stage_{index}",
            progress=progress,
        )
        last = outcome.state
        params, rest, times, weights = last.inner.params, last.inner.rest, last.times, last.weights
        fits.append(replace(outcome, model=parts.merge(*on_first((params, rest), mesh))))
        if outcome.result != RESULTS.successful:
            break
    return tuple(fits), fits[-1].model, on_first(times, mesh)

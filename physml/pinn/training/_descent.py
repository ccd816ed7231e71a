"""A step of training on collocation points: they and the weights of the loss move along."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from physml import fit
from physml._numerics.parts import take_apart, traced
from physml.pinn.training._points import Points
from physml.pinn.training._weights import Weights
from physml.results import RESULTS


class Collocation(eqx.Module):
    """What a network is trained on: a residual, where it is taken, and how it is weighed.

    The problem has `problem(model, (times, weights), key) -> blocks`, weights of shape (times,
    terms), `equation(model, times)` and `terms(model, times)`.
    """

    problem: Any
    points: Points
    weights: Weights
    span: tuple[Array, Array]


class State(eqx.Module):
    """Where a fit on collocation points stands."""

    inner: fit.FitState
    times: Float[Array, " times"]
    weights: Any  # of the rule; "weights" are those of the terms


class Step(eqx.Module):
    """Move the points and the weights, then make a step of an optimizer."""

    inner: Any
    collocation: Collocation

    def __call__(
        self, state: State, batch: Any, key: PRNGKeyArray | None
    ) -> tuple[State, dict[str, Array]]:
        problem, params, parts = self.collocation.problem, state.inner.params, self.inner.parts
        count = state.inner.step
        keys = (None,) * 3 if key is None else tuple(jax.random.split(key, 3))

        def model(params: Any) -> Any:
            return parts.merge(params, state.inner.rest)

        def magnitude(times: Array) -> Array:
            return jnp.linalg.norm(problem.equation(model(params), times), axis=1)

        times = self.collocation.points.move(
            state.times, self.collocation.span, count, magnitude, keys[0]
        )

        def terms(params: Any) -> Array:
            return problem.terms(model(params), times)

        weights = self.collocation.weights.move(state.weights, count, terms, params, keys[1])
        rows = jnp.broadcast_to(weights["weights"], (times.size, weights["weights"].size))
        inner, metrics = self.inner(state.inner, (times, rows), keys[2])
        metrics = {"loss": metrics["loss"], "weights": weights["weights"]}
        metrics["mean_square"] = jnp.mean(terms(params))
        return State(inner, times, weights), metrics


def descend(
    collocation: Collocation,
    model: Any,
    stages: Sequence[tuple[Any, int]],
    key: PRNGKeyArray | None,
    progress: bool,
) -> tuple[tuple[fit.Fit, ...], Any, Float[Array, " times"]]:
    """The fits of all stages, the model that the last one left, and its points.

    Args:
        collocation: its Python numbers become arrays, and are traced.
        model: a `TrainedNetwork`.
        stages: optax transformations or `fit.VariableProjection`, and numbers of steps.
        key: for points, weights and networks; each stage folds its number in.
        progress: show a progress bar for each stage.

    Raises:
        ValueError: an optimizer does not fit the model's weights.
    """
    collocation = traced(collocation)
    parts, params, rest = take_apart(model, nnx.Param)
    for method, _ in stages:  # what does not fit is said before any of them runs
        jax.eval_shape(method.init, params)
    t0, t1 = collocation.span
    soft = model.condition == "soft"
    is_condition = jnp.arange((1 + soft) * model.y0.size) >= model.y0.size
    times = collocation.points.start(t0, t1, t0.dtype)
    weights = collocation.weights.start(is_condition, t0.dtype)
    loss = fit.mean_square(collocation.problem)
    fits = []
    for index, (method, steps) in enumerate(stages):
        if isinstance(method, fit.VariableProjection):
            shared = ("condition",) if soft else ()
            method = traced(method)
            inner: Any = fit.ProjectionStep(collocation.problem, method, parts, shared)
        else:
            method = optax.with_extra_args_support(method)
            inner = fit.GradientStep(loss, method, parts)
        stage_key = None if key is None else jax.random.fold_in(key, index)
        begin = fit.FitState.begin(params, rest, method.init(params), None)
        outcome = fit.loop(
            Step(inner, collocation),
            State(begin, times, weights),
            num_steps=steps,
            key=stage_key,
            review=lambda state: (state, {}, fit.nonfinite(state.inner)),
            progress=progress,
        )
        last = outcome.state
        params, rest, times, weights = last.inner.params, last.inner.rest, last.times, last.weights
        fits.append(replace(outcome, model=parts.merge(params, rest)))
        if outcome.result != RESULTS.successful:
            break
    return tuple(fits), fits[-1].model, times

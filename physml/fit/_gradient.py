"""Gradient descent on any loss by any optax transformation: a step for the one loop."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Int, PRNGKeyArray, PyTree, Scalar

from physml._numerics.compiled import compiled
from physml._numerics.parts import Parts, as_arrays, take_apart
from physml._types import Loss
from physml.fit._fit import Fit
from physml.fit._loop import Augment, Callback, loop
from physml.nn import set_evaluation
from physml.results import RESULTS


class Best(eqx.Module):
    """The best model on the validation data so far."""

    loss: Scalar
    params: Any
    rest: Any
    age: Int[Array, ""]  # validations since


class State(eqx.Module):
    """Everything that a fit by gradients needs to go on: one pytree of arrays.

    `fit.checkpoint` saves it; `gradient(..., state=state)` goes on from it.
    """

    params: Any  # the variables that are trained
    rest: Any  # batch statistics, dropout keys and counts, frozen weights
    opt_state: Any
    step: Int[Array, ""]  # steps made
    key: PRNGKeyArray | None
    best: Best | None  # None without validation data


def gradient(
    loss: Loss,
    model: Any,
    data: PyTree[Any] = None,
    *,
    optimizer: optax.GradientTransformation,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    augment: Augment | None = None,
    key: PRNGKeyArray | None = None,
    valid: PyTree[Any] = None,
    valid_loss: Loss | None = None,
    valid_every: int | None = None,
    patience: int | None = None,
    wrt: Any = nnx.Param,
    chunk: int | None = None,
    progress: bool | Callback = False,
    callback: Callback | None = None,
    state: State | None = None,
) -> Fit:
    """Fit a model by gradient descent on a loss.

    Each step takes a batch (`fit.loop` says which), the loss's value and gradient in the variables
    that `wrt` selects, and the optimizer's update. Optimizers with a line search, such as
    `optax.lbfgs()`, get what they need; give them the full batch. Pass the same optimizer and
    loss objects to a second fit and nothing is compiled again.

    With validation data, the loss on them is taken every `valid_every` steps and after the last
    one, on the model in evaluation mode and always with the same key; the model that comes back is
    the best one on it, and `state` still holds the last one.

    Args:
        loss: `loss(model, batch, key) -> (value, aux)`, value a scalar, aux a dict of arrays that
            are recorded beside it; `fit.mean_square(residual)` makes one.
        model: an `nnx.Module`, a pytree that holds some, or a pytree of arrays. It is not changed.
        data: pytree of arrays, passed to the loss as the batch; with a `batch_size`, all of one
            leading length, whose rows are drawn without replacement in each epoch.
        optimizer: any optax transformation.
        steps: steps in all, those behind `state` included.
        epochs: the same in epochs of n // batch_size steps; give one of the two.
        batch_size: rows per step; the full batch, in its order, if None.
        augment: `augment(data, key) -> data`, called on all of `data` at the start of each epoch;
            the batches of that epoch are drawn from what it returns.
        key: for the order of the data and for the loss; may be None if neither needs it. A `state`
            brings its own.
        valid: validation data, whole.
        valid_loss: loss on them; `loss` if None.
        valid_every: steps between validations; an epoch if there are batches, otherwise 100.
        patience: stop after so many validations in a row without improvement.
        wrt: a Flax filter for what is trained; the rest stays fixed. A model without Flax variables
            trains all its floating arrays.
        chunk: steps between looks at the clock, see `fit.loop`.
        progress: True for a progress bar, or a callback.
        callback: called with a `fit.Report` after each chunk; returning True stops the fit.
        state: the `state` of an earlier fit, to go on exactly where it was.

    Returns:
        A `Fit`. `result` is `completed`, `early_stopped`, `interrupted` (Ctrl-C) or `nonfinite`,
        and then the model is the last whose loss was finite, `nonfinite_step` the step that found
        it not to be.

    Raises:
        ValueError: if neither or both of `steps` and `epochs` are given, `patience` or `valid_loss`
            without `valid`, a `state` that does not belong to this model, optimizer and validation,
            or what `fit.loop` refuses.
        TypeError: if the loss does not return a scalar and a dict.
    """
    if valid is None and not (patience is None and valid_loss is None and valid_every is None):
        raise ValueError("patience, valid_loss and valid_every need validation data, valid is None")
    if patience is not None and patience < 1:
        raise ValueError(f"patience is {patience}, expected a positive number of validations")
    per_epoch = _steps_per_epoch(data, batch_size)
    if epochs is not None and steps is None:
        num_steps = epochs * per_epoch
    elif steps is not None and epochs is None:
        num_steps = steps
    else:
        raise ValueError(f"give one of steps and epochs, got {steps=} and {epochs=}")
    if valid is not None and valid_every is None:
        valid_every = 100 if batch_size is None else per_epoch

    parts, params, rest = take_apart(model, wrt)
    optimizer = optax.with_extra_args_support(optimizer)
    best = None if valid is None else Best(jnp.asarray(jnp.inf), params, rest, _zero())
    key = key if state is None else state.key
    fresh = State(params, rest, optimizer.init(params), _zero(), key, best)
    begin = fresh if state is None else _checked(state, fresh)
    valid = as_arrays("valid", valid)
    judge = loss if valid_loss is None else valid_loss
    validate: Any = None
    compile_seconds = 0.0
    if valid is not None and int(begin.step) < num_steps:
        validate, compile_seconds = compiled(validated, judge, parts, begin, valid)

    def review(state: State) -> tuple[State, dict[str, Any], RESULTS | None]:
        unusable = nonfinite(state)
        if valid is None or unusable is not None:
            return state, {}, unusable
        best, value = validate(judge, parts, state, valid)
        state = State(state.params, state.rest, state.opt_state, state.step, state.key, best)
        metrics = {"valid_loss": float(value), "valid_step": int(state.step)}
        worn_out = patience is not None and int(best.age) >= patience
        return state, metrics, RESULTS.early_stopped if worn_out else None

    outcome = loop(
        GradientStep(loss, optimizer, parts),
        begin,
        data,
        num_steps=num_steps,
        start=int(begin.step),
        key=key,
        batch_size=batch_size,
        augment=augment,
        chunk=chunk,
        review=review,
        review_every=valid_every,
        progress=progress,
        callback=callback,
    )
    last = outcome.state
    chosen = last if last.best is None or jnp.isinf(last.best.loss) else last.best
    done = outcome.as_fit(parts.merge(chosen.params, chosen.rest), last)
    return eqx.tree_at(lambda f: f.compile_seconds, done, done.compile_seconds + compile_seconds)


def nonfinite(state: State) -> RESULTS | None:
    """The verdict on weights that are not finite."""
    finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    return None if finite else RESULTS.nonfinite


class GradientStep(eqx.Module):
    loss: Any
    optimizer: optax.GradientTransformationExtraArgs
    parts: Parts

    def __call__(
        self, state: State, batch: Any, key: PRNGKeyArray | None
    ) -> tuple[State, dict[str, Array]]:
        def value_of(params: Any) -> tuple[Scalar, tuple[dict[str, Array], Any]]:
            model = self.parts.merge(params, state.rest)
            value, aux = _called(self.loss, model, batch, key)
            return value, (aux, self.parts.rest(model, state.rest))

        (value, (aux, rest)), grad = jax.value_and_grad(value_of, has_aux=True)(state.params)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            updates, opt_state = self.optimizer.update(
                grad,
                state.opt_state,
                state.params,
                value=value,
                grad=grad,
                value_fn=lambda params: value_of(params)[0],
            )
        params = optax.apply_updates(state.params, updates)
        state = State(params, rest, opt_state, state.step + 1, state.key, state.best)
        return state, {"loss": value, **aux}


def validated(loss: Loss, parts: Parts, state: State, valid: Any) -> tuple[Best, Scalar]:
    model = parts.merge(state.params, state.rest)
    set_evaluation(model)
    # Neither of the two keys that the loop splits off for the steps and the order of the data.
    key = None if state.key is None else jax.random.fold_in(state.key, 2)
    value, _ = _called(loss, model, valid, key)
    best = state.best
    assert best is not None
    new = Best(value.astype(best.loss.dtype), state.params, state.rest, _zero())
    old = eqx.tree_at(lambda b: b.age, best, best.age + 1)
    return jax.tree.map(lambda n, o: jnp.where(new.loss < best.loss, n, o), new, old), value


def _called(
    loss: Loss, model: Any, batch: Any, key: PRNGKeyArray | None
) -> tuple[Scalar, dict[str, Array]]:
    out = loss(model, batch, key)
    if not (isinstance(out, tuple) and len(out) == 2 and isinstance(out[1], dict)):
        raise TypeError(f"loss returned {type(out).__name__}, expected (scalar, dict of arrays)")
    value, aux = out
    if jnp.shape(value) != ():
        raise TypeError(f"loss returned a value of shape {jnp.shape(value)}, expected a scalar")
    taken = sorted({"loss", "step", "valid_loss", "valid_step"} & set(aux))
    if taken:
        raise ValueError(f"loss returned aux named {taken}, which name the fit's own history")
    return value, aux


def _steps_per_epoch(data: Any, batch_size: int | None) -> int:
    leaves = jax.tree.leaves(data)
    if batch_size is None or batch_size < 1 or not leaves:
        return 1
    return max(1, np.shape(leaves[0])[0] // batch_size)


def _checked(state: State, fresh: State) -> State:
    """The given state, if a fit could have left it."""
    given, expected = (dict(jax.tree.leaves_with_path(tree)) for tree in (state, fresh))
    if jax.tree.structure(state) != jax.tree.structure(fresh):
        different = sorted(jax.tree_util.keystr(path) for path in set(given) ^ set(expected))
        raise ValueError(
            "state does not belong to this model, optimizer and validation: they differ in "
            f"{different or 'the kind of nodes'}"
        )
    for path, leaf in expected.items():
        got = given[path]
        if (got.shape, got.dtype) != (leaf.shape, leaf.dtype):
            raise ValueError(
                f"state{jax.tree_util.keystr(path)} is {got.dtype}{got.shape}, "
                f"expected {leaf.dtype}{leaf.shape}"
            )
    return state


def _zero() -> Int[Array, ""]:
    return jnp.zeros((), jnp.int32)

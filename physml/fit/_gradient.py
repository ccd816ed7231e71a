"""Gradient descent on any loss by any optax transformation: a step for the one loop."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Int, PRNGKeyArray, PyTree, Scalar

from physml._numerics.calls import Trace, as_traced, ask, checked, trace
from physml._numerics.checks import require_count, require_multiple
from physml._numerics.compiled import compiled
from physml._numerics.devices import ROWS, WHOLE, held, mesh_of, on_first, on_host, placed
from physml._numerics.parts import Filter, Parts, as_arrays, take_apart
from physml._types import Loss
from physml.fit._chunks import Augment, in_files
from physml.fit._fit import Fit, Model, concluded
from physml.fit._loop import Callback, loop
from physml.nn import set_evaluation
from physml.results import RESULTS

State = TypeVar("State")


class Best(eqx.Module):
    """The best model on the validation data so far."""

    loss: Scalar
    params: PyTree
    rest: PyTree
    age: Int[Array, ""]  # validations since


class FitState(eqx.Module):
    """Everything that a fit by gradients needs to go on: one pytree of arrays.

    `fit.checkpoint` saves it; `gradient(..., state=state)` goes on from it.
    """

    params: PyTree  # the variables that are trained
    rest: PyTree  # batch statistics, dropout keys and counts, frozen weights
    opt_state: PyTree
    step: Int[Array, ""]  # steps made
    key: PRNGKeyArray | None
    best: Best | None  # None without validation data

    @classmethod
    def begin(
        cls,
        params: PyTree,
        rest: PyTree,
        opt_state: PyTree,
        key: PRNGKeyArray | None,
        valid: bool = False,
    ) -> "FitState":
        """The state of no steps."""
        best = Best(jnp.asarray(jnp.inf), params, rest, _zero()) if valid else None
        return cls(params, rest, opt_state, _zero(), key, best)


@checked
def gradient(
    loss: Loss,
    model: Model,
    data: PyTree = None,
    *,
    optimizer: optax.GradientTransformation,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    augment: Augment | None = None,
    key: PRNGKeyArray | None = None,
    valid: PyTree = None,
    valid_loss: Loss | None = None,
    valid_every: int | None = None,
    patience: int | None = None,
    wrt: Filter = nnx.Param,
    devices: Sequence[object] | None = None,
    chunk: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | Callback = False,
    callback: Callback | None = None,
    state: FitState | None = None,
) -> Fit[Model]:
    """Fit a model by gradient descent on a loss.

    Each step takes a batch (`fit.loop` says which), the loss's value and gradient in the variables
    that `wrt` selects, and the optimizer's update. Optimizers with a line search, such as
    `optax.lbfgs()`, work; give them the full batch. A second fit with the same optimizer and loss
    objects compiles nothing.

    With validation data, their loss is taken every `valid_every` steps and after the last one, of
    the model in evaluation mode and always with the same key. The best model on them comes back;
    `state` holds the last one.

    Args:
        loss: `loss(model, batch, key) -> (value, aux)`, value a scalar, aux a dict of arrays that
            are recorded beside it; `fit.mean_square(residual)` makes one.
        model: an `nnx.Module`, a pytree that holds some, or a pytree of arrays. It is not changed.
        data: pytree of arrays, passed to the loss as the batch; with a `batch_size`, all of one
            leading length, whose rows are drawn without replacement in each epoch. Files that
            are mapped into memory (`np.load(path, mmap_mode="r")`) may be larger than the device:
            a chunk brings only its own batches there.
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
        devices: the rows of each batch are shared out among these, for instance `jax.devices()`,
            and the gradients of all are added up, for a loss that is a mean over rows. Each holds
            the model and, if there are batches, all data; the full batch is divided among them.
            They must divide the batch.
        chunk: steps between looks at the clock, see `fit.loop`.
        checkpoint: a folder. The fit is saved there every few seconds beside its work, with the
            best model on the validation data, and the same call goes on from what it finds there:
            the model and the whole history are those of a fit that was never cut, bit for bit.
        progress: True for a progress bar, or a callback.
        callback: called with a `fit.Report` after each chunk; returning True stops the fit.
        state: the `state` of an earlier fit, to go on exactly where it was.

    Returns:
        A `Fit`. `result` is `successful`, `early_stopped`, `interrupted` (Ctrl-C) or `nonfinite`;
        the last two warn. After `nonfinite` the model is the last whose loss was finite, and
        `nonfinite_step` is the step that found a loss that was not.

    Raises:
        ValueError: if neither or both of `steps` and `epochs` are given, `patience` or `valid_loss`
            without `valid`, a `state` that does not belong to this model, optimizer and validation,
            or what `fit.loop` refuses.
        TypeError: if the loss does not return a scalar and a dict.

    Example:
        >>> def quadratic(model, batch, key):
        ...     return jnp.sum((model - 3.0) ** 2), {}
        >>> fitted = fit.gradient(quadratic, jnp.zeros(1), optimizer=optax.sgd(0.1), steps=100)
        >>> fitted.model.round(6).tolist()
        [3.0]
    """
    if valid is None and not (patience is None and valid_loss is None and valid_every is None):
        raise ValueError("valid must be given for patience, valid_loss and valid_every, got None")
    if patience is not None:
        require_count(patience=patience)
    given = {"steps": steps, "epochs": epochs}
    require_count(0, **{name: count for name, count in given.items() if count is not None})
    per_epoch = _steps_per_epoch(data, batch_size)
    if valid is not None and valid_every is None:
        valid_every = 100 if batch_size is None else per_epoch
    parts, params, rest = take_apart(model, wrt)
    optimizer = optax.with_extra_args_support(optimizer)
    key = key if state is None else state.key
    fresh = FitState.begin(params, rest, optimizer.init(params), key, valid is not None)
    begin = fresh if state is None else belonging(state, fresh)
    mesh = mesh_of(devices)
    if mesh is not None:
        data = _on_mesh(mesh, data, batch_size)
        valid, begin = placed((as_arrays("valid", valid), begin), mesh, WHOLE)
    num_steps, start = _num_steps(steps, epochs, per_epoch), int(begin.step)
    judge = _Judge(valid_loss or loss, parts, as_arrays("valid", valid), patience)
    if start < num_steps:
        judge.compile(begin)
    fitted = loop(
        GradientStep(loss, optimizer, parts, mesh),
        begin,
        data,
        num_steps=num_steps,
        start=start,
        key=key,
        batch_size=batch_size,
        augment=augment,
        chunk=chunk,
        review=judge,
        review_every=valid_every,
        checkpoint=checkpoint,
        beside=None if checkpoint is None else judge.identity(begin),
        progress=progress,
        callback=callback,
    )
    last = fitted.state
    chosen = last if last.best is None or jnp.isinf(last.best.loss) else last.best
    seconds = fitted.compile_seconds + judge.compile_seconds
    model = parts.merge(*on_first((chosen.params, chosen.rest), mesh))
    return concluded(replace(fitted, model=model, compile_seconds=seconds), "fit.gradient")


class _Judge:
    """The review of a fit: are its weights finite, and how good are they on validation data?"""

    def __init__(self, loss: Loss, parts: Parts, valid: PyTree, patience: int | None):
        self.compile_seconds = 0.0
        self._loss, self._parts, self._valid, self._patience = loss, parts, valid, patience
        self._validate: Callable[..., tuple[Best, Scalar]] | None = None

    def identity(self, state: FitState) -> PyTree:
        """What tells this review from another."""
        return None if self._valid is None else (self._valid, self._traced(state).fingerprint)

    def _traced(self, state: FitState) -> Trace:
        return trace(Partial(validated, self._loss, self._parts), state, self._valid)[0]

    def compile(self, state: FitState) -> None:
        if self._valid is not None:
            self._loss = as_traced(self._loss, self._traced(state))
            self._validate, self.compile_seconds = compiled(
                validated, self._loss, self._parts, state, self._valid
            )

    def __call__(self, state: FitState) -> tuple[FitState, dict[str, ArrayLike], RESULTS | None]:
        unusable = nonfinite(state)
        if self._validate is None or unusable is not None:
            return state, {}, unusable
        best, value = self._validate(self._loss, self._parts, state, self._valid)
        metrics = {"valid_loss": float(value), "valid_step": int(state.step)}
        worn_out = self._patience is not None and int(best.age) >= self._patience
        return replace(state, best=best), metrics, RESULTS.early_stopped if worn_out else None


def nonfinite(state: Any) -> RESULTS | None:
    """The verdict on weights that are not finite, of a state with `params`."""
    finite = all(np.isfinite(on_host(leaf)).all() for leaf in jax.tree.leaves(state.params))
    return None if finite else RESULTS.nonfinite


class GradientStep(eqx.Module):
    """A step of `fit.loop`: the loss on a batch, its gradient, and an update of the optimizer."""

    loss: Loss
    optimizer: optax.GradientTransformationExtraArgs
    parts: Parts
    mesh: Mesh | None = eqx.field(static=True, default=None)  # among which batches are divided

    def __call__(
        self, state: FitState, batch: PyTree, key: PRNGKeyArray | None
    ) -> tuple[FitState, dict[str, Array]]:
        batch = held(batch, self.mesh, ROWS)

        def value_of(params: PyTree) -> tuple[Scalar, tuple[dict[str, Array], PyTree]]:
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
        state = FitState(params, rest, opt_state, state.step + 1, state.key, state.best)
        return held((state, {"loss": value, **aux}), self.mesh, WHOLE)


def validated(loss: Loss, parts: Parts, state: FitState, valid: PyTree) -> tuple[Best, Scalar]:
    """The best model so far, which may be the state's own, and the latter's validation loss."""
    model = parts.merge(state.params, state.rest)
    set_evaluation(model)
    # Folding makes a key unlike those that the loop splits off for steps, order and augmentation.
    key = None if state.key is None else jax.random.fold_in(state.key, 2)
    value, _ = _called(loss, model, valid, key)
    best = state.best
    assert best is not None
    new = Best(value.astype(best.loss.dtype), state.params, state.rest, _zero())
    old = eqx.tree_at(lambda b: b.age, best, best.age + 1)
    return jax.tree.map(lambda n, o: jnp.where(new.loss < best.loss, n, o), new, old), value


def _called(
    loss: Loss, model: PyTree, batch: PyTree, key: PRNGKeyArray | None
) -> tuple[Scalar, dict[str, Array]]:
    out = ask("loss", "loss(model, batch, key)", loss, model, batch, key)
    if not (isinstance(out, tuple) and len(out) == 2 and isinstance(out[1], dict)):
        raise TypeError(f"loss must return (scalar, dict of arrays), got {type(out).__name__}")
    value, aux = out
    if jnp.shape(value) != ():
        raise TypeError(f"loss must return a scalar, got a value of shape {jnp.shape(value)}")
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise TypeError(f"loss must return a real number, got {jnp.result_type(value)}")
    taken = sorted({"loss", "step", "valid_loss", "valid_step"} & set(aux))
    if taken:
        raise ValueError(f"aux must not use the names of the fit's own history, got {taken}")
    return value, aux


def _on_mesh(mesh: Mesh, data: PyTree, batch_size: int | None) -> PyTree:
    """The data on the devices of a mesh: the full batch divided, or all for batches to be drawn."""
    rows = {np.shape(x)[0] if np.ndim(x) else 0 for x in jax.tree.leaves(data)}
    for num in {batch_size} if batch_size is not None else rows:
        require_multiple("devices", mesh.size, **{"batch_size" if batch_size else "rows": num})
    if in_files(data):
        return data  # a chunk takes its rows from there
    return placed(as_arrays("data", data), mesh, ROWS if batch_size is None else WHOLE)


def _steps_per_epoch(data: PyTree, batch_size: int | None) -> int:
    leaves = jax.tree.leaves(data)
    if batch_size is None or batch_size < 1 or not leaves:
        return 1
    return max(1, np.shape(leaves[0])[0] // batch_size)


def _num_steps(steps: int | None, epochs: int | None, per_epoch: int) -> int:
    if epochs is not None and steps is None:
        return epochs * per_epoch
    if steps is not None and epochs is None:
        return steps
    raise ValueError(f"one of steps and epochs must be given, got {steps=} and {epochs=}")


def belonging(state: State, fresh: State) -> State:
    """The given state, if a fit could have left it."""
    given, expected = (dict(jax.tree.leaves_with_path(tree)) for tree in (state, fresh))
    if jax.tree.structure(state) != jax.tree.structure(fresh):
        different = sorted(jax.tree_util.keystr(path) for path in set(given) ^ set(expected))
        raise ValueError(
            "state must belong to this model, optimizer and validation, got one that differs in "
            f"{different or 'the kind of nodes'}"
        )
    for path, leaf in expected.items():
        got = given[path]
        if (got.shape, got.dtype) != (leaf.shape, leaf.dtype):
            raise ValueError(
                f"state{jax.tree_util.keystr(path)} must be {leaf.dtype}{leaf.shape}, "
                f"got {got.dtype}{got.shape}"
            )
    return state


def _zero() -> Int[Array, ""]:
    return jnp.zeros((), jnp.int32)

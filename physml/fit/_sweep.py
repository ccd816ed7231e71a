"""Many fits of one shape at once: seeds and hyper-parameters along an axis of one program."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray, PyTree

from physml import saving
from physml._numerics.calls import Identity, as_traced, checked, identity, trace
from physml._numerics.checks import require_count
from physml._numerics.compiled import compiled
from physml._numerics.devices import Spread, on_host
from physml._numerics.parts import Filter, Parts, as_arrays
from physml._types import Loss
from physml.fit import checkpoint as checkpoints
from physml.fit._chunks import Augment, Chunks
from physml.fit._fit import AbstractFit, Fit, concluded
from physml.fit._gradient import Best
from physml.fit._loop import Callback, Report, loop
from physml.fit._members import Members, MembersStep, begin, chosen, validate_all
from physml.results import RESULTS


class Sweep(AbstractFit):
    """Fitted models and how they came about; `sweep[i]` is model i as a `Fit`.

    Its history holds "loss" (steps, models) and "valid_loss" (validations, models); its result is
    `nonfinite` if no model is left.
    """

    models: PyTree  # one model whose arrays have a leading axis of models: `jax.vmap` over it
    settings: PyTree
    nonfinite_step: Int[np.ndarray, " models"]  # where a model's loss was not finite, or -1
    _parts: Parts
    _arrays: tuple[PyTree, PyTree]

    @property
    def diverged(self) -> Bool[np.ndarray, " models"]:
        """Which models' losses became infinite or NaN."""
        return self.nonfinite_step >= 0

    def __len__(self) -> int:
        return len(self.nonfinite_step)

    @checked
    def __getitem__(self, index: int) -> Fit:
        """One model, with the history up to where it diverged; it has no `state` of its own."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be one of {len(self)} models, got {index}")
        bad = int(self.nonfinite_step[index])
        step = self.step if bad < 0 else max(bad - 1, 0)
        history = {}
        for beat, name in (("step", "loss"), ("valid_step", "valid_loss")):
            if name in self.history:
                # Step k leaves the state that is validated after k + 1 steps.
                kept = self.history[beat] < step + (beat == "valid_step")
                history[name] = self.history[name][kept, index]
                history[beat] = self.history[beat][kept]
        return Fit(
            model=self._parts.merge(*jax.tree.map(lambda x: x[index], self._arrays)),
            history=history,
            result=self.result if bad < 0 else RESULTS.nonfinite,
            step=step,
            nonfinite_step=None if bad < 0 else bad,
            seconds=self.seconds,
            compile_seconds=self.compile_seconds,
        )


@checked
def sweep(
    loss: Loss,
    build_model: Callable[[PyTree], PyTree],
    data: PyTree = None,
    *,
    settings: PyTree,
    optimizer: Callable[[PyTree], optax.GradientTransformation],
    steps: int,
    batch_size: int | None = None,
    augment: Augment | None = None,
    key: PRNGKeyArray | None = None,
    valid: PyTree = None,
    valid_loss: Loss | None = None,
    valid_every: int = 100,
    wrt: Filter = nnx.Param,
    devices: Sequence[object] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    chunk: int | None = None,
    progress: bool | Callback = False,
    callback: Callback | None = None,
) -> Sweep:
    """Fit many models of one shape, each with a setting of its own, in one compiled program.

    Model i is what this call gives with the i-th setting, up to rounding::

        fit.gradient(loss, build_model(setting), data, optimizer=optimizer(setting),
                     steps=steps, batch_size=batch_size, key=key, ...)

    All models see the same batches of the same data,
    which are held and gathered once. With validation data each model is the best of its fit. A
    model whose loss becomes infinite or NaN stays at its last state of finite loss, as
    `nonfinite_step` says, and the others go on. Warns if no model is left, or of an interrupt.

    Args:
        loss: as for `fit.gradient`. The model may hold what the loss needs of a setting, as an
            `eqx.Module` of a network and its regularisation strength does.
        build_model: `build_model(setting)` makes a model, traced, from one setting's arrays without
            their leading axis; `nnx.Rngs(setting["key"])` works.
        data: pytree of arrays, as for `fit.gradient`.
        settings: pytree of arrays of one leading length, the number of models. Give its floats
            the dtype of the models.
        optimizer: `optimizer(setting)` makes the optax transformation, traced as `build_model`.
            Pass the same functions to a second sweep and nothing is compiled again.
        steps: steps in all.
        batch_size, augment, key, valid, valid_loss, wrt: as for `fit.gradient`.
        valid_every: steps between validations.
        devices: the models are shared out among these, for instance `jax.devices()`, and no device
            waits for another; by default all models are on one. JAX takes a CPU for one device,
            whose cores small models do not fill: `jax.config.update("jax_num_cpu_devices",
            os.cpu_count())`, before anything is computed, makes each core a device. If the devices
            do not divide the models, the state in a `fit.Report` repeats the last model.
        checkpoint: a folder. The sweep is saved there every few seconds beside its work, and when
            it ends, however it ends, and the same call goes on from what it finds there.
        chunk, progress, callback: as for `fit.gradient`; the metrics of a `fit.Report` are "losses"
            (steps, models) and, after a validation, "valid_loss" (1, models).

    Raises:
        ValueError: if the settings have no or different leading lengths, the checkpoint belongs to
            other settings, shapes or another key, or as `fit.gradient`.
        TypeError: if the loss does not return a scalar and a dict.

    Example:
        >>> x = jnp.linspace(-1.0, 1.0, 20)[:, None]
        >>> def misfit(model, batch, key):
        ...     return model(batch) - batch**2
        >>> swept = fit.sweep(
        ...     fit.mean_square(misfit),
        ...     lambda s: nn.MLP(1, (8,), 1, rngs=nnx.Rngs(s["key"])),
        ...     x,
        ...     settings={"rate": jnp.array([1e-3, 1e-2]), "key": jax.random.split(key)},
        ...     optimizer=lambda s: optax.adam(s["rate"]),
        ...     steps=10,
        ... )
        >>> swept.history["loss"].shape, jax.vmap(lambda model: model(x))(swept.models).shape
        ((10, 2), (2, 20, 1))
    """
    if valid is None and valid_loss is not None:
        raise ValueError("valid must be given for valid_loss, got None")
    require_count(valid_every=valid_every)
    require_count(0, steps=steps)
    settings, num = _checked(settings)
    spread = Spread(num, devices)
    tick = time.perf_counter()
    parts, fresh = begin(build_model, optimizer, settings, wrt, key, valid is not None)
    compile_seconds = time.perf_counter() - tick
    num_valid = 0 if valid is None else -(-steps // valid_every)
    blanks = (np.full((rows, num), np.nan) for rows in (steps, num_valid))
    own = None
    if checkpoint is not None:
        step = MembersStep(loss, optimizer, parts, settings, None)
        chunks = Chunks(step, data, key, batch_size, augment, 1)
        own = _identity(chunks, step, fresh, (data, valid), valid_loss or loss)
    record = _Record(fresh, settings, own, *blanks)
    books = _Books(record, spread, checkpoint, valid_every, callback)
    begun = books.record.state
    start = int(begun.step)
    state = Members(spread.divided(begun.members), *spread.copied((begun.step, begun.key)))
    data, valid = (spread.copied(as_arrays(n, x)) for n, x in (("data", data), ("valid", valid)))
    if valid is not None and start < steps:
        arguments = (valid_loss or loss, parts, spread.mesh)
        traced, _ = trace(Partial(validate_all, *arguments), state, valid)
        arguments = (as_traced(arguments[0], traced), *arguments[1:])
        validate, seconds = compiled(validate_all, *arguments, state, valid)
        books.validate = lambda state: validate(*arguments, state, valid)
        compile_seconds += seconds
    with books.keeper or contextlib.nullcontext():
        fitted = loop(
            MembersStep(loss, optimizer, parts, spread.divided(settings), spread.mesh),
            state,
            data,
            num_steps=steps,
            start=start,
            key=spread.copied(key),
            batch_size=batch_size,
            augment=augment,
            chunk=chunk,
            review=books.review,
            review_every=None if valid is None else valid_every,
            progress=books.told(progress) if callable(progress) else progress,
            callback=books.told(books.listen),
        )
        if start < fitted.step and books.keeper is not None:
            books.keep(books.keeper, fitted.state)
    return concluded(books.closed(fitted, parts, compile_seconds), "fit.sweep")


def _checked(settings: PyTree) -> tuple[PyTree[Array], int]:
    """The settings as arrays, and how many there are."""
    settings = as_arrays("settings", settings)
    lengths = sorted({x.shape[0] if x.ndim else 0 for x in jax.tree.leaves(settings)})
    if len(lengths) != 1 or lengths[0] == 0:
        raise ValueError(f"settings must have one leading length, the models', got {lengths}")
    return settings, lengths[0]


def _identity(
    chunks: Chunks, step: MembersStep, fresh: Members, data: tuple[PyTree, PyTree], loss: Loss
) -> Identity:
    """The identity of a sweep of these steps on one device, whatever those are that share it."""
    traces = chunks.traces(fresh)
    if data[1] is not None:
        judge = Partial(validate_all, loss, step.parts, None)
        traces = (*traces, trace(judge, fresh, as_arrays("valid", data[1]))[0])
    return identity((), data, traces, fresh)


class _Record(eqx.Module):
    """What a checkpoint holds."""

    state: Members
    settings: PyTree
    identity: Identity | None
    loss: Float[np.ndarray, "steps models"]  # NaN where no step has been made
    valid_loss: Float[np.ndarray, "validations models"]


class _Books:
    """What the host keeps of a sweep: the losses of every model, and a checkpoint of all."""

    def __init__(
        self,
        fresh: _Record,
        spread: Spread,
        checkpoint: str | os.PathLike[str] | None,
        valid_every: int,
        callback: Callback | None,
    ):
        self.record = fresh
        self.validate: Callable[[Members], tuple[Best, Array]] | None = None
        self._spread = spread
        self.keeper = None if checkpoint is None else saving.Keeper(checkpoint)
        self._valid_every, self._callback = valid_every, callback
        if checkpoint is not None:
            with contextlib.suppress(FileNotFoundError):  # nothing saved as yet
                self.record = _resumed(checkpoint, fresh)

    def review(self, state: Members) -> tuple[Members, dict[str, ArrayLike], None]:
        """Validate every model."""
        if self.validate is None:
            return state, {}, None
        best, values = self.validate(state)
        row = on_host(values)[: self._spread.num]
        self.record.valid_loss[-(-int(state.step) // self._valid_every) - 1] = row
        return eqx.tree_at(lambda s: s.members.best, state, best), {"valid_loss": row}, None

    def told(self, listener: Callback) -> Callback:
        """A listener that is told of every model once."""
        num = self._spread.num
        return lambda report: listener(
            eqx.tree_at(lambda r: r.metrics["losses"], report, report.metrics["losses"][:, :num])
        )

    def listen(self, report: Report) -> bool:
        """Note the losses of a chunk, save now and then, and stop when no model is left."""
        rows = report.metrics["losses"]
        self.record.loss[report.step - len(rows) : report.step] = rows
        if self.keeper is not None and self.keeper.due:
            self.keep(self.keeper, report.state)
        asked = self._callback is not None and self._callback(report)
        return bool(asked or (on_host(report.state.members.nonfinite_step) >= 0).all())

    def keep(self, keeper: saving.Keeper, state: Members) -> None:
        """Begin to write the checkpoint."""
        members, spread = self._spread.gathered(state.members), self._spread
        gathered = Members(members, *spread.on_first((state.step, state.key)))
        losses = (self.record.loss.copy(), self.record.valid_loss.copy())  # they change meanwhile
        keeper.keep(_Record(gathered, self.record.settings, self.record.identity, *losses))

    def closed(self, fitted: Fit, parts: Parts, compile_seconds: float) -> Sweep:
        """The sweep that a loop has left."""
        members = self._spread.gathered(fitted.state.members)
        record, made = self.record, fitted.step
        spoiled, arrays = chosen(members)
        nonfinite_step = np.where(spoiled, made, members.nonfinite_step)
        history = {"loss": record.loss[:made], "step": np.arange(made)}
        if members.best is not None:
            ends = self._valid_every * np.arange(1, len(record.valid_loss) + 1)
            ends = np.minimum(ends, len(record.loss))
            history["valid_loss"] = record.valid_loss[ends <= made]
            history["valid_step"] = ends[ends <= made]
        stopped = bool(fitted.result == RESULTS.interrupted)
        lost = (nonfinite_step >= 0).all() and not stopped
        return Sweep(
            models=parts.merge(*arrays),
            settings=record.settings,
            history=history,
            result=RESULTS.nonfinite if lost else fitted.result,
            nonfinite_step=nonfinite_step,
            step=made,
            seconds=fitted.seconds,
            compile_seconds=fitted.compile_seconds + compile_seconds,
            _parts=parts,
            _arrays=arrays,
        )


def _resumed(path: str | os.PathLike[str], like: _Record) -> _Record:
    """What a checkpoint holds, if it belongs to this sweep."""
    assert like.identity is not None
    try:
        saved = checkpoints.load(path, dataclasses.replace(like, identity=like.identity.like()))
    except ValueError as error:
        raise ValueError(f"checkpoint must be of this very fit, got {path}: {error}") from error
    given, expected = (
        [_bits(x) for x in jax.tree.leaves((one.settings, one.state.key))] for one in (saved, like)
    )
    if not all(map(np.array_equal, given, expected)):
        raise ValueError(
            f"checkpoint must be of a sweep with these settings and this key, got {path}"
        )
    like.identity.require(saved.identity, path)
    return saved


def _bits(x: Array) -> np.ndarray:
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)

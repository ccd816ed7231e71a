"""Many fits of one shape at once: seeds and hyper-parameters along an axis of one program."""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from physml._numerics.compiled import compiled
from physml._numerics.parts import Parts, as_arrays, take_apart
from physml._types import Loss
from physml.fit import checkpoint as checkpoints
from physml.fit._fit import Fit
from physml.fit._gradient import Best, GradientStep, State, validated
from physml.fit._loop import Augment, Callback, Report, loop
from physml.fit._spread import Spread, of_each
from physml.results import RESULTS

SAVE_SECONDS = 20.0  # a process that is killed loses about so much
_RUN_ONCE = {"xla_backend_optimization_level": 0}  # a third of the time to compile


class Sweep(eqx.Module):
    """Fitted models and how they came about; `sweep[i]` is model i as a `Fit`."""

    models: Any  # one model whose arrays have a leading axis of models: `jax.vmap` over it
    settings: Any
    history: dict[str, np.ndarray]  # "loss" (steps, models), "valid_loss" (validations, models)
    result: RESULTS  # of all together: `nonfinite` if not one is left
    nonfinite_step: Int[np.ndarray, " models"]  # where a model's loss was not finite, or -1
    step: int  # steps made in all
    seconds: float  # of this call, without compiling
    compile_seconds: float
    _parts: Parts
    _arrays: tuple[Any, Any]

    @property
    def diverged(self) -> Bool[np.ndarray, " models"]:
        """Which models' losses became infinite or NaN."""
        return self.nonfinite_step >= 0

    def __len__(self) -> int:
        return len(self.nonfinite_step)

    def __getitem__(self, index: int) -> Fit:
        """One model, with the history up to where it diverged; it has no `state` of its own."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"model {index} of {len(self)}")
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
            state=None,
            step=step,
            nonfinite_step=None if bad < 0 else bad,
            seconds=self.seconds,
            compile_seconds=self.compile_seconds,
        )


def sweep(
    loss: Loss,
    build_model: Callable[[Any], Any],
    data: PyTree[Any] = None,
    *,
    settings: PyTree[Any],
    optimizer: Callable[[Any], optax.GradientTransformation],
    steps: int,
    batch_size: int | None = None,
    augment: Augment | None = None,
    key: PRNGKeyArray | None = None,
    valid: PyTree[Any] = None,
    valid_loss: Loss | None = None,
    valid_every: int = 100,
    wrt: Any = nnx.Param,
    devices: Sequence[Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    chunk: int | None = None,
    progress: bool | Callback = False,
    callback: Callback | None = None,
) -> Sweep:
    """Fit many models of one shape, each with a setting of its own, in one compiled program.

    Model i is what

        fit.gradient(loss, build_model(setting), data, optimizer=optimizer(setting),
                     steps=steps, batch_size=batch_size, key=key, ...)

    gives with `setting` the i-th of the settings, to rounding: every model sees the same batches,
    of the same data, which are held and gathered once. With validation data the best model on them
    is returned for each. A model whose loss becomes infinite or NaN stays at its last state whose
    loss was finite, as `nonfinite_step` says, and the others go on.

    ```python
    rates, keys = jnp.geomspace(1e-4, 1e-1, 4), jax.random.split(key, 4)
    fitted = fit.sweep(
        loss,
        lambda s: nn.MLP(3, (32, 32), 3, rngs=nnx.Rngs(s["key"])),
        data,
        settings={"rate": rates, "key": keys},
        optimizer=lambda s: optax.adam(s["rate"]),
        steps=1000,
    )
    jax.vmap(lambda model: model(x))(fitted.models)  # (4, ...)
    ```

    Args:
        loss: as for `fit.gradient`. What it needs of a setting the model may hold, for instance in
            an `eqx.Module` of the network and a regularisation strength.
        build_model: `build_model(setting)` makes a model, traced: one setting's arrays, without
            their leading axis, come in as tracers, `nnx.Rngs(setting["key"])` included.
        data: pytree of arrays, as for `fit.gradient`.
        settings: pytree of arrays of one leading length, the number of models. Floats best have
            the dtype of the models.
        optimizer: `optimizer(setting)` makes the optax transformation, traced as `build_model`.
            Pass the same functions to a second sweep and nothing is compiled again.
        steps: steps in all.
        batch_size, augment, key, valid, valid_loss, wrt: as for `fit.gradient`.
        valid_every: steps between validations.
        devices: the models are shared out among these, for instance `jax.devices()`, and need not
            wait for each other; by default all are on one. To JAX a CPU is one device, whose cores
            small models do not fill: `jax.config.update("jax_num_cpu_devices", os.cpu_count())`,
            before anything is computed, makes one of each core. Of a number of models that they
            do not divide, the state in a `fit.Report` has the last one several times.
        checkpoint: a directory. The sweep is saved there now and then and when it ends, however it
            ends, and the same call goes on from what it finds there.
        chunk, progress, callback: as for `fit.gradient`; the metrics of a `fit.Report` are "losses"
            (steps, models) and, after a validation, "valid_loss" (1, models).

    Raises:
        ValueError: if the settings have no or different leading lengths, the checkpoint belongs to
            other settings, shapes or another key, or as `fit.gradient`.
        TypeError: if the loss does not return a scalar and a dict.
    """
    if valid is None and valid_loss is not None:
        raise ValueError("valid_loss needs validation data, valid is None")
    if steps < 0:
        raise ValueError(f"steps is {steps}, expected no negative number")
    if valid_every < 1:
        raise ValueError(f"valid_every is {valid_every}, expected a positive number")
    if devices is not None and len(devices) == 0:
        raise ValueError("devices is empty, expected one or more, or None")
    settings = as_arrays("settings", settings)
    lengths = sorted({x.shape[0] if x.ndim else 0 for x in jax.tree.leaves(settings)})
    if len(lengths) != 1 or lengths[0] == 0:
        raise ValueError(f"settings have leading lengths {lengths}, expected one, the models'")
    num = lengths[0]

    tick = time.perf_counter()
    parts, fresh = _begin(build_model, optimizer, settings, wrt, key, valid is not None)
    compile_seconds = time.perf_counter() - tick
    num_valid = 0 if valid is None else -(-steps // valid_every)
    blanks = (np.full((rows, num), np.nan) for rows in (steps, num_valid))
    saved = _Saved(fresh, settings, *blanks)
    spread = Spread(num, devices)
    if checkpoint is not None:
        with contextlib.suppress(FileNotFoundError):  # nothing saved as yet
            saved = _resumed(checkpoint, saved)
    begun = saved.state
    start = int(begun.step)
    state = _State(spread.shared(begun.members), *spread.copied((begun.step, begun.key)))

    judge = loss if valid_loss is None else valid_loss
    data, valid = (spread.copied(as_arrays(n, x)) for n, x in (("data", data), ("valid", valid)))
    validate: Any = None
    if valid is not None and start < steps:
        validate, seconds = compiled(_validate_all, judge, parts, spread.mesh, state, valid)
        compile_seconds += seconds

    def review(state: _State) -> tuple[_State, dict[str, Any], None]:
        if validate is None:
            return state, {}, None
        best, values = validate(judge, parts, spread.mesh, state, valid)
        row = np.asarray(values)[:num]
        saved.valid_loss[-(-int(state.step) // valid_every) - 1] = row
        return eqx.tree_at(lambda s: s.members.best, state, best), {"valid_loss": row}, None

    last_save = time.perf_counter()

    def save(state: _State) -> None:
        nonlocal last_save
        if checkpoint is not None:
            gathered = _State(
                spread.gathered(state.members), *spread.on_first((state.step, state.key))
            )
            checkpoints.save(checkpoint, eqx.tree_at(lambda s: s.state, saved, gathered))
            last_save = time.perf_counter()

    def told(listener: Callback) -> Callback:
        """A listener that is told of every model once."""
        return lambda report: listener(
            eqx.tree_at(lambda r: r.metrics["losses"], report, report.metrics["losses"][:, :num])
        )

    def listen(report: Report) -> bool:
        rows = report.metrics["losses"]
        saved.loss[report.step - len(rows) : report.step] = rows
        if time.perf_counter() - last_save > SAVE_SECONDS:
            save(report.state)
        asked = callback is not None and callback(report)
        return bool(asked or (np.asarray(report.state.members.nonfinite_step) >= 0).all())

    outcome = loop(
        _SweepStep(loss, optimizer, parts, spread.shared(settings), spread.mesh),
        state,
        data,
        num_steps=steps,
        start=start,
        key=spread.copied(key),
        batch_size=batch_size,
        augment=augment,
        chunk=chunk,
        review=review,
        review_every=None if valid is None else valid_every,
        progress=told(progress) if callable(progress) else progress,
        callback=told(listen),
    )
    if start < outcome.step:
        save(outcome.state)
    members = spread.gathered(outcome.state.members)
    spoiled, arrays = _chosen(members)
    nonfinite_step = np.where(spoiled, outcome.step, members.nonfinite_step)
    history = {"loss": saved.loss[: outcome.step], "step": np.arange(outcome.step)}
    if valid is not None:
        valid_steps = np.minimum(valid_every * np.arange(1, num_valid + 1), steps)
        made = valid_steps <= outcome.step
        history |= {"valid_loss": saved.valid_loss[made], "valid_step": valid_steps[made]}
    return Sweep(
        models=parts.merge(*arrays),
        settings=settings,
        history=history,
        result=RESULTS.nonfinite if (nonfinite_step >= 0).all() else outcome.result,
        nonfinite_step=nonfinite_step,
        step=outcome.step,
        seconds=outcome.seconds,
        compile_seconds=outcome.compile_seconds + compile_seconds,
        _parts=parts,
        _arrays=arrays,
    )


class _Member(eqx.Module):
    """What a model has of its own; with an axis of models outside `jax.vmap`."""

    params: Any
    rest: Any
    opt_state: Any
    good: tuple[Any, Any]  # the last parameters and rest whose own loss was finite
    nonfinite_step: Int[Array, "..."]
    best: Best | None

    def state(self, step: Int[Array, ""], key: PRNGKeyArray | None) -> State:
        """As a single fit has it."""
        return State(self.params, self.rest, self.opt_state, step, key, self.best)


class _State(eqx.Module):
    members: _Member
    step: Int[Array, ""]
    key: PRNGKeyArray | None


class _Saved(eqx.Module):
    """What a checkpoint holds."""

    state: _State
    settings: Any
    loss: Float[np.ndarray, "steps models"]  # NaN where no step has been made
    valid_loss: Float[np.ndarray, "validations models"]


class _SweepStep(eqx.Module):
    loss: Any
    optimizer: Any
    parts: Parts
    settings: Any
    mesh: Mesh | None = eqx.field(static=True)

    def __call__(
        self, state: _State, batch: Any, key: PRNGKeyArray | None
    ) -> tuple[_State, dict[str, Array]]:
        def one(model: tuple[Any, _Member], shared: Any) -> tuple[_Member, Array]:
            (setting, old), (count, own_key, batch, key) = model, shared
            optimizer = optax.with_extra_args_support(self.optimizer(setting))
            step = GradientStep(self.loss, optimizer, self.parts)
            new, metrics = step(old.state(count, own_key), batch, key)
            loss = metrics["loss"]
            fails = (old.nonfinite_step < 0) & ~jnp.isfinite(loss)
            at = jnp.where(fails, count, old.nonfinite_step)

            def unless_failed(new: Any, old: Any) -> Any:
                return jax.tree.map(lambda n, o: jnp.where(at < 0, n, o), new, old)

            kept = unless_failed(
                (new.params, new.rest, new.opt_state), (old.params, old.rest, old.opt_state)
            )
            good = unless_failed((old.params, old.rest), old.good)
            member = _Member(kept[0], kept[1], kept[2], good, at, old.best)
            return member, jnp.where(at < 0, loss, jnp.nan)

        models, shared = (self.settings, state.members), (state.step, state.key, batch, key)
        members, loss = of_each(one, models, shared, self.mesh)
        # Not called "loss": the loop would stop, and go back, where all have diverged.
        return _State(members, state.step + 1, state.key), {"losses": loss}


def _validate_all(
    loss: Loss, parts: Parts, mesh: Mesh | None, state: _State, valid: Any
) -> tuple[Best, Array]:
    def one(member: _Member, shared: Any) -> tuple[Best, Array]:
        step, key, valid = shared
        best, value = validated(loss, parts, member.state(step, key), valid)
        # A loss such as the share of errors is finite for a model that has diverged, too.
        fine = (member.nonfinite_step < 0) & _finite(member.params)
        best = jax.tree.map(lambda new, old: jnp.where(fine, new, old), best, member.best)
        return best, jnp.where(fine, value, jnp.nan)

    return of_each(one, state.members, (state.step, state.key, valid), mesh)


def _finite(params: Any) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(params)]).all()


def _begun(
    build_model: Any,
    optimizer: Any,
    settings: Any,
    wrt: Any,
    key: PRNGKeyArray | None,
    has_valid: bool,
) -> tuple[Parts, _State]:
    """How the models are put together, and the state of no steps."""

    def one(setting: Any) -> tuple[Parts, _Member]:
        parts, params, rest = take_apart(build_model(setting), wrt)
        opt_state = optax.with_extra_args_support(optimizer(setting)).init(params)
        zero = jnp.zeros((), jnp.int32)
        best = Best(jnp.asarray(jnp.inf), params, rest, zero) if has_valid else None
        return parts, _Member(params, rest, opt_state, (params, rest), zero - 1, best)

    parts, members = eqx.filter_vmap(one)(settings)
    return parts, _State(members, jnp.zeros((), jnp.int32), key)


_begin: Any = eqx.filter_jit(_begun, compiler_options=_RUN_ONCE)  # pyright: ignore[reportCallIssue]


@functools.partial(jax.jit, compiler_options=_RUN_ONCE)
def _chosen(members: _Member) -> tuple[Bool[Array, " models"], tuple[Any, Any]]:
    """Which models the last step spoiled spoiled, and the arrays of those to be returned."""

    def one(member: _Member) -> Any:
        last, best = (member.params, member.rest), member.best
        finite = _finite(member.params)
        spoiled = ~finite & (member.nonfinite_step < 0)
        fine = finite & (member.nonfinite_step < 0)
        chosen = jax.tree.map(lambda x, good: jnp.where(fine, x, good), last, member.good)
        if best is not None:
            seen = jnp.isfinite(best.loss)
            pair = (best.params, best.rest)
            chosen = jax.tree.map(lambda x, b: jnp.where(seen, b, x), chosen, pair)
        return spoiled, chosen

    return jax.vmap(one)(members)


def _resumed(path: Any, like: _Saved) -> _Saved:
    """What a checkpoint holds, if it belongs to this sweep."""
    saved = checkpoints.load(path, like)
    given, expected = (
        [_bits(x) for x in jax.tree.leaves((one.settings, one.state.key))] for one in (saved, like)
    )
    if not all(map(np.array_equal, given, expected)):
        raise ValueError(f"checkpoint {path} is of a sweep with other settings or another key")
    # Copies that can be written to.
    return _Saved(saved.state, saved.settings, saved.loss.copy(), saved.valid_loss.copy())


def _bits(x: Array) -> np.ndarray:
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)

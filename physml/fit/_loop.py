"""The one training loop: a step, run on the device in chunks, with the host between them."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree, UInt32

from physml._numerics.compiled import compiled
from physml._numerics.parts import as_arrays
from physml._numerics.shuffle import shuffle_words, shuffled
from physml.fit._fit import Fit
from physml.results import RESULTS

Step = Callable[[Any, Any, PRNGKeyArray | None], tuple[Any, dict[str, Array]]]
"""`step(state, batch, key) -> (state, metrics)`."""

Augment = Callable[[Any, PRNGKeyArray], Any]
"""`augment(data, key) -> data`: other data of the same structure, shapes and dtypes."""

CAPACITY = 10_000  # a chunk whose length is left to the clock has at most so many steps,
CHUNK_SECONDS = 0.5  # and as many as take about this long: what Ctrl-C may have to wait


class Report(eqx.Module):
    """What a callback is told after each chunk."""

    step: int  # steps made, counted from the very first
    num_steps: int  # steps to be made in all
    state: Any  # may be kept or saved: a loop goes on from it
    metrics: dict[str, np.ndarray]  # a row per step of the chunk; one row of a review's
    seconds: float  # since the loop began, without compiling


Callback = Callable[[Report], bool | None]
"""Called after each chunk; returning True stops the loop."""

Review = Callable[[Any], tuple[Any, dict[str, Any], RESULTS | None]]
"""`review(state) -> (state, metrics, verdict)`, on the host; a verdict ends the loop."""


class Outcome(eqx.Module):
    """What a loop leaves behind."""

    state: Any
    step: int  # steps behind this state, counted from the very first
    history: dict[str, np.ndarray]  # by metric, a row per step; "step" numbers the rows
    result: RESULTS
    nonfinite_step: int | None  # the step (from 0) whose loss was not finite
    seconds: float  # without compiling
    compile_seconds: float

    def as_fit(self, model: Any, state: Any) -> Fit:
        """As the `Fit` of a model, with what is needed to go on."""
        return Fit(
            model=model,
            history=self.history,
            result=self.result,
            state=state,
            step=self.step,
            nonfinite_step=self.nonfinite_step,
            seconds=self.seconds,
            compile_seconds=self.compile_seconds,
        )


def loop(
    step: Step,
    state: PyTree[Any],
    data: PyTree[Any] = None,
    *,
    num_steps: int,
    start: int = 0,
    key: PRNGKeyArray | None = None,
    batch_size: int | None = None,
    augment: Augment | None = None,
    chunk: int | None = None,
    review: Review | None = None,
    review_every: int | None = None,
    progress: bool | Callback = False,
    callback: Callback | None = None,
) -> Outcome:
    """Make steps `start`, ..., `num_steps - 1` from a state.

    Steps run on the device in chunks, compiled once whatever their number; between chunks the host
    looks at what came out. The numbers do not depend on where chunks end. Step i gets the key
    folded with i, and batch i % m of epoch i // m, m = n // batch_size: an epoch's order is drawn
    anew from the key, and the n % batch_size rows that come last in it sit that epoch out. So a
    loop over steps 0..a and then, with the same key, over a..b is the loop over 0..b, bit for bit.

    The loop ends early, each time with a usable state, when
    - the metric "loss" of a step has no finite entry, or a review's verdict is `nonfinite`: the
      state that comes back is the last one whose own loss was finite;
    - a review gives another verdict, or a callback returns True;
    - the user presses Ctrl-C (a second Ctrl-C acts at once).

    Args:
        step: pure function `(state, batch, key) -> (state, metrics)`, metrics a dict of arrays. It
            may be a pytree such as an `eqx.Module`, whose arrays are then traced.
        state: pytree of arrays; never donated, so what was passed in stays valid.
        data: pytree of arrays; with a `batch_size`, all of one leading length n.
        num_steps: steps in all, those before `start` included.
        start: steps already behind `state`.
        key: key of the whole fit; without one each step gets `key=None`.
        batch_size: rows of `data` per step; if None each step gets all of `data`.
        augment: a pure function, called on all of `data` at the start of each epoch, on the device;
            the batches of that epoch are rows of what it returns.
        chunk: steps per chunk; by default as many as take about half a second.
        review: called after every `review_every` steps, counted from step 0, and after the last.
        review_every: steps between reviews.
        progress: True for a progress bar with the loss, or a callback of your own.
        callback: called after each chunk with a `Report`.

    Raises:
        ValueError: before compiling, if a count is out of range, `data` has arrays of different
            lengths, fewer rows than `batch_size` or float64 while x64 is off, batches are asked for
            without a key, or `augment` comes without batches or changes what the data are like.
    """
    counts = {"batch_size": batch_size, "chunk": chunk, "review_every": review_every}
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name} is {count}, expected a positive number")
    if not 0 <= start <= num_steps:
        raise ValueError(f"start is {start}, expected from 0 to num_steps = {num_steps}")
    data = as_arrays("data", data)
    state = jax.tree.map(_strong, state)
    if batch_size is not None:
        _check_batches(data, batch_size, key)
    elif augment is not None:
        raise ValueError("augment is called once an epoch, which needs a batch_size")

    # Derived out here, since each use of the generator takes a compiler a tenth of a second.
    step_key, order_key, augment_key = [None] * 3 if key is None else jax.random.split(key, 3)
    keys = (step_key, None if order_key is None else shuffle_words(order_key))
    epochs = _Epochs(data, augment, augment_key, batch_size)

    def arguments(state: Any, first: int, last: int) -> tuple[Any, ...]:
        span = (_int32(first), _int32(last))
        return step, state, epochs.data(first), keys, span, batch_size, chunk or CAPACITY

    program: Any = None
    compile_seconds = epochs.compile_seconds
    if start < num_steps:
        program, seconds = compiled(_advance, *arguments(state, start, start))
        compile_seconds += seconds

    def advance(state: Any, first: int, last: int) -> tuple[Any, dict[str, np.ndarray]]:
        state, metrics = program(*arguments(state, first, last))
        return state, {name: np.asarray(rows)[: last - first] for name, rows in metrics.items()}

    first, length = start, chunk or 1  # without `chunk`, the first one measures how long a step is
    anchors = [(start, state)]  # states from which the steps to a bad one can be made again
    rows: list[dict[str, np.ndarray]] = []
    reviews: list[dict[str, Any]] = []
    verdict, nonfinite_step = None, None
    begin = time.perf_counter()
    with _ctrl_c() as interrupted, _listening(progress, callback, start, num_steps) as listeners:
        while first < num_steps and verdict is None:
            beats = (chunk, review_every, epochs.beat)
            ends = [(first // every + 1) * every for every in beats if every]
            last = min(first + length, num_steps, *ends)
            tick = time.perf_counter()
            state, metrics = advance(state, first, last)
            if chunk is None:
                per_step = (time.perf_counter() - tick) / (last - first)
                length = max(1, min(int(CHUNK_SECONDS / per_step), CAPACITY))
            rows.append(metrics)
            nonfinite_step = _first_nonfinite(metrics, first)
            due = last == num_steps or (review_every is not None and last % review_every == 0)
            if review is not None and due and nonfinite_step is None:
                state, reviewed, verdict = review(state)
                if _is(verdict, RESULTS.nonfinite):
                    nonfinite_step = last
                else:
                    reviews.append(reviewed)
                    metrics = metrics | {name: np.asarray([x]) for name, x in reviewed.items()}
            if nonfinite_step is not None:
                verdict = RESULTS.nonfinite
                first = max(nonfinite_step - 1, start)
                anchor, state = next(pair for pair in reversed(anchors) if pair[0] <= first)
                state, _ = advance(state, anchor, first)
                break
            first, anchors = last, [anchors[-1], (last, state)]
            report = Report(first, num_steps, state, metrics, time.perf_counter() - begin)
            asked = [listener(report) for listener in listeners]
            if verdict is None and any(asked):
                verdict = RESULTS.early_stopped
            if verdict is None and first < num_steps and interrupted():
                verdict = RESULTS.interrupted

    return Outcome(
        state=state,
        step=first,
        history=_stacked(rows, first - start)
        | {"step": np.arange(start, first)}
        | _stacked([{n: [x] for n, x in reviewed.items()} for reviewed in reviews], None),
        result=RESULTS.successful if verdict is None else verdict,
        nonfinite_step=nonfinite_step,
        seconds=time.perf_counter() - begin,
        compile_seconds=compile_seconds,
    )


class _Epochs:
    """The data of each epoch: those given, or augmented from them."""

    def __init__(
        self,
        data: Any,
        augment: Augment | None,
        key: PRNGKeyArray | None,
        batch_size: int | None,
    ):
        self.beat: int | None = None  # steps after which the data change
        self.compile_seconds = 0.0
        self._made: tuple[int, Any] = (-1, data)  # the last epoch that was asked for
        if augment is None or batch_size is None:
            return
        made = jax.eval_shape(augment, data, key)
        if jax.tree.structure(made) != jax.tree.structure(data) or _kinds(made) != _kinds(data):
            raise ValueError(
                f"augment made {_kinds(made)} of data that are {_kinds(data)}, expected the same "
                "structure, shapes and dtypes"
            )
        self.beat = jax.tree.leaves(data)[0].shape[0] // batch_size
        program, self.compile_seconds = compiled(_augmented, augment, data, key, _int32(0))
        self._make = lambda epoch: program(augment, data, key, _int32(epoch))

    def data(self, step: int) -> Any:
        """The data of the epoch that a step is in."""
        if self.beat is not None and (epoch := step // self.beat) != self._made[0]:
            self._made = (epoch, self._make(epoch))
        return self._made[1]


def _augmented(augment: Augment, data: Any, key: PRNGKeyArray, epoch: Int[Array, ""]) -> Any:
    return augment(data, jax.random.fold_in(key, epoch))


def _kinds(tree: Any) -> list[str]:
    return [f"{leaf.dtype}{leaf.shape}" for leaf in jax.tree.leaves(tree)]


def _advance(
    step: Step,
    state: Any,
    data: Any,
    keys: tuple[PRNGKeyArray | None, UInt32[Array, " rounds"] | None],
    span: tuple[Int[Array, ""], Int[Array, ""]],
    batch_size: int | None,
    capacity: int,
) -> tuple[Any, dict[str, Array]]:
    """The steps of a span [first, last), with their metrics in the first of `capacity` rows.

    The ends are traced, so chunks of every length share one program.
    """
    first, last = span
    step_key, words = keys
    once = jax.jit(lambda *args: step(*args))  # one trace for the metrics' shapes and the body

    def batch(i: Int[Array, ""]) -> Any:
        if batch_size is None or words is None:
            return data
        num_rows = jax.tree.leaves(data)[0].shape[0]
        epoch, position = jnp.divmod(i, num_rows // batch_size)
        places = position * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
        rows = shuffled(places, num_rows, epoch, words)
        return jax.tree.map(lambda x: x.at[rows].get(mode="promise_in_bounds"), data)

    def call(state: Any, i: Int[Array, ""]) -> tuple[Any, dict[str, Array]]:
        key = None if step_key is None else jax.random.fold_in(step_key, i)
        return once(state, batch(i), key)

    def body(i: Int[Array, ""], carry: Any) -> Any:
        state, rows = carry
        state, metrics = call(state, i)
        return state, {name: rows[name].at[i - first].set(metrics[name]) for name in rows}

    _, metrics = jax.eval_shape(call, state, first)
    rows = {name: jnp.zeros((capacity, *m.shape), m.dtype) for name, m in metrics.items()}
    return jax.lax.fori_loop(first, last, body, (state, rows))


def _stacked(parts: list[dict[str, Any]], length: int | None) -> dict[str, np.ndarray]:
    names = parts[0] if parts else ()
    return {name: np.concatenate([part[name] for part in parts])[:length] for name in names}


def _first_nonfinite(metrics: dict[str, np.ndarray], first: int) -> int | None:
    """The number of the first step whose loss (of every model, if there are many) is not finite."""
    if "loss" not in metrics:
        return None
    loss = metrics["loss"]
    bad = ~np.isfinite(loss).reshape(len(loss), -1).any(axis=1)
    return first + int(np.argmax(bad)) if bad.any() else None


def _is(verdict: RESULTS | None, result: RESULTS) -> bool:
    return verdict is not None and bool(verdict == result)


def _strong(leaf: Any) -> Array:
    """A state's leaf as an array whose dtype no step will change by promotion."""
    leaf = jnp.asarray(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    return jax.lax.convert_element_type(leaf, leaf.dtype)


def _int32(number: int) -> Int[Array, ""]:
    return jnp.asarray(number, jnp.int32)


def _check_batches(data: Any, batch_size: int, key: PRNGKeyArray | None) -> None:
    if key is None:
        raise ValueError(f"batch_size = {batch_size} needs a key to shuffle by, key is None")
    lengths = sorted({leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(data)})
    if len(lengths) != 1:
        raise ValueError(f"data has arrays of leading lengths {lengths}, expected one length")
    if batch_size > lengths[0]:
        raise ValueError(f"batch_size is {batch_size}, more than the {lengths[0]} rows of data")


@contextlib.contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag; a second one does what Ctrl-C did before.

    Signals reach the main thread only; elsewhere the flag stays down.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    raised = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def restore() -> None:
        # None: the handler was not set from Python, and can't be set back.
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)

    def handle(number: int, frame: Any) -> None:
        raised.set()
        restore()

    signal.signal(signal.SIGINT, handle)
    try:
        yield raised.is_set
    finally:
        restore()


@contextlib.contextmanager
def _listening(
    progress: bool | Callback, callback: Callback | None, start: int, num_steps: int
) -> Iterator[list[Callback]]:
    listeners = [listener for listener in (progress, callback) if callable(listener)]
    if progress is not True:
        yield listeners
        return
    from tqdm import tqdm  # only where it is shown

    with tqdm(total=num_steps, initial=start, unit="step") as bar:

        def show(report: Report) -> None:
            losses = {n: m[-1] for n, m in report.metrics.items() if n.endswith(("loss", "losses"))}
            least = {n: np.fmin.reduce(x, axis=None) for n, x in losses.items()}  # of many models
            bar.set_postfix({n: f"{x:.3g}" for n, x in least.items()})
            bar.update(report.step - bar.n)

        yield [show, *listeners]

"""The one training loop: a step, run on the device in chunks, with the host between them."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TypedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PRNGKeyArray, PyTree

from physml import saving
from physml._numerics.calls import Identity, checked, identity
from physml._numerics.checks import require_count
from physml._numerics.interrupt import ctrl_c
from physml._numerics.progress import bar as progress_bar
from physml.fit._chunks import Augment, Chunks, Step
from physml.fit._fit import Fit
from physml.results import RESULTS

CAPACITY = 10_000  # the most steps of a chunk whose length the clock decides
CHUNK_SECONDS = 0.5  # about how long such a chunk takes, and Ctrl-C may have to wait
TOGETHER = 100  # steps of a chunk that several processes make, whose clocks might disagree


class Report(eqx.Module):
    """What a callback is told after each chunk."""

    step: int  # steps made, counted from the very first
    num_steps: int  # steps to be made in all
    state: PyTree  # may be kept or saved: a loop goes on from it
    metrics: dict[str, np.ndarray]  # a row per step of the chunk; one row of a review's
    seconds: float  # since the loop began, without compiling


Callback = Callable[[Report], bool | None]
"""Called after each chunk; returning True stops the loop."""

Review = Callable[[PyTree], tuple[PyTree, dict[str, ArrayLike], RESULTS | None]]
"""`review(state) -> (state, metrics, verdict)`, on the host; a verdict ends the loop."""


@checked
def loop(
    step: Step,
    state: PyTree,
    data: PyTree = None,
    *,
    num_steps: int,
    start: int = 0,
    key: PRNGKeyArray | None = None,
    batch_size: int | None = None,
    augment: Augment | None = None,
    chunk: int | None = None,
    review: Review | None = None,
    review_every: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    beside: PyTree = None,
    progress: bool | Callback = False,
    callback: Callback | None = None,
) -> Fit:
    """Make steps `start`, ..., `num_steps - 1` from a state.

    Steps run on the device in chunks, compiled once whatever their number; between chunks the host
    looks at what came out. The numbers do not depend on where chunks end. Step i gets the key
    folded with i, and batch i % m of epoch i // m, m = n // batch_size: an epoch's order is drawn
    anew from the key, and the last n % batch_size rows of that order are left out of the epoch. So
    a loop over steps 0..a and then, with the same key, over a..b is the loop over 0..b, bit for
    bit.

    The loop ends early, each time with a usable state, when
    - the metric "loss" of a step has no finite entry, or a review's verdict is `nonfinite`: the
      state that comes back is the last one whose own loss was finite;
    - a review gives another verdict, or a callback returns True;
    - the user presses Ctrl-C (a second Ctrl-C acts at once).

    The loop itself does not raise or warn then: its result says how it ended, and its caller ends
    in `results.conclude`. After Ctrl-C the result is `interrupted`, even if all steps had been
    made.

    Args:
        step: pure function `(state, batch, key) -> (state, metrics)`, metrics a dict of arrays. It
            may be a pytree such as an `eqx.Module`, whose arrays are then traced.
        state: pytree of arrays; never donated, so what was passed in stays valid.
        data: pytree of arrays; with a `batch_size`, all of one leading length n. Where one of them
            is an `np.memmap`, the data stay in their files, and only the rows that a chunk needs
            come to the device.
        num_steps: steps in all, those before `start` included.
        start: steps already behind `state`.
        key: key of the whole fit; without one each step gets `key=None`.
        batch_size: rows of `data` per step; if None each step gets all of `data`.
        augment: a pure function, called on all of `data` at the start of each epoch, on the device;
            the batches of that epoch are rows of what it returns.
        chunk: steps per chunk; by default as many as take about half a second, and 100 in one of
            several processes.
        review: called after every `review_every` steps, counted from step 0, and after the last.
        review_every: steps between reviews.
        checkpoint: a folder. The loop is saved there every few seconds beside its work, and when it
            ends, and the same call goes on from what it finds there: its end, and its whole
            history, are those of a loop that was never cut, bit for bit. One of several processes
            keeps none.
        beside: what a checkpoint must have in common with this loop beside the step, the data, the
            key and the first state: arrays, such as a review's validation data, and texts.
        progress: True for a progress bar with the loss, the rate and the time left, shown at a
            terminal and in a notebook; or a callback of your own.
        callback: called after each chunk with a `Report`.

    Returns:
        A `Fit` without a model: its `state` is the last one.

    Raises:
        TypeError: before compiling, if a count is not an integer.
        ValueError: before compiling, if a count is out of range, `data` has arrays of different
            lengths, fewer rows than `batch_size` or float64 while x64 is off, batches are asked for
            without a key, or `augment` comes without batches or changes what the data are like; or
            the checkpoint is of a step that computes something else, another key, another state or
            other data, or is damaged, or this is one of several processes.
    """
    counts = {"batch_size": batch_size, "chunk": chunk, "review_every": review_every}
    require_count(**{name: count for name, count in counts.items() if count is not None})
    if jax.process_count() > 1:
        if checkpoint is not None:
            # Each would be due by a clock of its own, and gathering arrays takes all processes.
            raise ValueError(
                f"checkpoint must be None in one of several processes, got {checkpoint}"
            )
        chunk = TOGETHER if chunk is None else chunk
    if not 0 <= start <= num_steps:
        raise ValueError(f"start must be from 0 to num_steps = {num_steps}, got {start}")
    chunks = Chunks(step, data, key, batch_size, augment, chunk or CAPACITY)
    run = _Run(chunks, jax.tree.map(_strong, state), start)
    kept = _Checkpoint(checkpoint)
    if checkpoint is not None:
        facts = {"step": step, "other": [repr(batch_size), augment]}
        own = identity(facts, (data, key, beside), chunks.traces(run.state), run.state)
        kept.resume(run, num_steps, own)
    length = chunk or 1  # without `chunk`, the first one measures how long a step is
    beats = [beat for beat in (chunk, review_every, chunks.beat) if beat]
    listening = _listening(progress, callback, run.first, num_steps)
    with kept, ctrl_c() as interrupted, listening as listeners:
        if run.first < num_steps:
            chunks.compile(run.state, run.first)
        begin = time.perf_counter() - run.seconds
        while run.first < num_steps and run.verdict is None and not interrupted():
            ends = [(run.first // beat + 1) * beat for beat in beats]
            last = min(run.first + min(length, chunks.capacity), num_steps, *ends)
            tick = time.perf_counter()
            metrics = run.advance(last)
            if chunk is None:
                per_step = (time.perf_counter() - tick) / (last - run.first)
                length = max(1, min(int(CHUNK_SECONDS / per_step), CAPACITY))
            if review and (last == num_steps or (review_every and last % review_every == 0)):
                metrics = metrics | run.review(review, last)
            if run.nonfinite_step is not None:
                run.seconds = time.perf_counter() - begin
                run.go_back(run.nonfinite_step)
                break
            run.go_on(last, time.perf_counter() - begin)
            report = Report(last, num_steps, run.state, metrics, run.seconds)
            asked = [listener(report) for listener in listeners]
            if any(asked) and run.verdict is None:
                run.verdict = RESULTS.early_stopped
            kept.note(run)
        kept.note(run, last=True)
    verdict = RESULTS.interrupted if interrupted() else run.verdict
    return Fit(
        model=None,
        state=run.state,
        step=run.first,
        history=run.history(),
        result=RESULTS.successful if verdict is None else verdict,
        nonfinite_step=run.nonfinite_step,
        seconds=run.seconds,
        compile_seconds=chunks.compile_seconds,
    )


class _Said(TypedDict):
    """All but the states that another process needs to go on."""

    rows: dict[str, np.ndarray]
    reviews: dict[str, np.ndarray]
    start: int
    seconds: float
    stopped: bool


class _Run:
    """Where a loop stands, and what its steps and reviews have said so far."""

    def __init__(self, chunks: Chunks, state: PyTree[Array], start: int):
        self.state = state
        self.first = self.start = start
        self.seconds = 0.0
        self.verdict: RESULTS | None = None
        self.nonfinite_step: int | None = None
        self._chunks = chunks
        self.anchors = [(start, state)]  # states from which steps up to a bad one can be repeated
        self._rows: list[dict[str, np.ndarray]] = []
        self._reviews: list[dict[str, np.ndarray]] = []

    def advance(self, last: int) -> dict[str, np.ndarray]:
        """Make the steps of one chunk; returns their metrics."""
        self.state, metrics = self._chunks.advance(self.state, self.first, last)
        self._rows.append(metrics)
        self.nonfinite_step = _first_nonfinite(metrics, self.first)
        return metrics

    def review(self, review: Review, last: int) -> dict[str, np.ndarray]:
        """Have a usable state reviewed; returns the review's metrics, of one row each."""
        if self.nonfinite_step is not None:
            return {}
        self.state, metrics, self.verdict = review(self.state)
        if self.verdict is not None and bool(self.verdict == RESULTS.nonfinite):
            self.nonfinite_step = last
            return {}
        self._reviews.append({name: np.asarray([value]) for name, value in metrics.items()})
        return self._reviews[-1]

    def go_on(self, last: int, seconds: float) -> None:
        """Begin the next chunk from here."""
        self.first, self.anchors = last, [self.anchors[-1], (last, self.state)]
        self.seconds = seconds

    def go_back(self, bad_step: int) -> None:
        """Return to the last state whose own loss was finite."""
        self.verdict = RESULTS.nonfinite
        self.first = max(bad_step - 1, self.start)
        anchor, state = next(pair for pair in reversed(self.anchors) if pair[0] <= self.first)
        self.state, _ = self._chunks.advance(state, anchor, self.first)

    def history(self) -> dict[str, np.ndarray]:
        """A row for each step behind the state, and for each review."""
        return (
            _stacked(self._rows, self.first - self.start)
            | {"step": np.arange(self.start, self.first)}
            | _stacked(self._reviews, None)
        )

    def said(self) -> _Said:
        """All but the states that another process needs to go on."""
        return {
            "rows": _stacked(self._rows, None),
            "reviews": _stacked(self._reviews, None),
            "start": self.start,
            "seconds": self.seconds,
            "stopped": self.verdict is not None,
        }

    def go_on_from(self, anchors: list[tuple[int, PyTree[Array]]], said: _Said) -> None:
        """Stand where another process has stood."""
        self.anchors = list(anchors)
        self.first, self.state = anchors[-1]
        self.start, self.seconds = said["start"], said["seconds"]
        self.verdict = RESULTS.early_stopped if said["stopped"] else None
        self._rows, self._reviews = ([x] if x else [] for x in (said["rows"], said["reviews"]))


class _Checkpoint:
    """Keeps on the disk where a loop stands, together with what says that it is this loop."""

    def __init__(self, path: str | os.PathLike[str] | None):
        self._keeper = None if path is None else saving.Keeper(path)
        self._kept = -1  # steps behind the last version
        self._identity: Identity | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        if self._keeper is not None:
            self._keeper.wait()

    def resume(self, run: _Run, num_steps: int, own: Identity) -> None:
        """Have a loop of this identity go on from the last version, if there is one."""
        assert self._keeper is not None
        path, self._identity = self._keeper.path, own
        like = {"loop": own.like(), "anchors": [(0, run.state)] * 2, "said": ...}
        try:
            found = saving.load(path, like=like)
        except FileNotFoundError:
            return
        except ValueError as error:
            raise ValueError(f"checkpoint must be of this very fit, got {path}: {error}") from error
        own.require(found["loop"], path)
        run.go_on_from(found["anchors"], found["said"])
        self._kept = run.first
        if run.first > num_steps:
            raise ValueError(
                f"num_steps must be at least {run.first}, the steps behind the checkpoint, got "
                f"{num_steps}"
            )

    def note(self, run: _Run, last: bool = False) -> None:
        """Write a version if it is time for one, or the loop ends."""
        new = run.first > self._kept and run.nonfinite_step is None and len(run.anchors) == 2
        if self._keeper is not None and new and (last or self._keeper.due):
            version = {"loop": self._identity, "anchors": list(run.anchors), "said": run.said()}
            self._keeper.keep(version)
            self._kept = run.first


def _stacked(parts: list[dict[str, np.ndarray]], length: int | None) -> dict[str, np.ndarray]:
    names = parts[0] if parts else ()
    return {name: np.concatenate([part[name] for part in parts])[:length] for name in names}


def _first_nonfinite(metrics: dict[str, np.ndarray], first: int) -> int | None:
    """The number of the first step whose loss (of every model, if there are many) is not finite."""
    if "loss" not in metrics:
        return None
    loss = metrics["loss"]
    bad = ~np.isfinite(loss).reshape(len(loss), -1).any(axis=1)
    return first + int(np.argmax(bad)) if bad.any() else None


def _strong(leaf: ArrayLike) -> Array:
    """A state's leaf as an array whose dtype no step will change by promotion."""
    array = jnp.asarray(leaf)
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    return array if is_key else jax.lax.convert_element_type(array, array.dtype)


@contextlib.contextmanager
def _listening(
    progress: bool | Callback, callback: Callback | None, start: int, num_steps: int
) -> Iterator[list[Callback]]:
    listeners = [listener for listener in (progress, callback) if callable(listener)]
    if progress is not True:
        yield listeners
        return
    with progress_bar(total=num_steps, initial=start, unit="step") as bar:

        def show(report: Report) -> None:
            losses = {n: m[-1] for n, m in report.metrics.items() if n.endswith(("loss", "losses"))}
            least = {n: np.fmin.reduce(x, axis=None) for n, x in losses.items()}  # of many models
            bar.set_postfix({n: f"{x:.3g}" for n, x in least.items()})
            bar.update(report.step - bar.n)

        yield [show, *listeners]

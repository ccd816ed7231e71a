"""Steps on the device: chunks of any number of them share one compiled program."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Int, PRNGKeyArray, PyTree, UInt32

from physml._numerics.calls import Trace, answer, as_traced, ask, trace
from physml._numerics.checks import require_count
from physml._numerics.compiled import compiled
from physml._numerics.devices import moved_to, on_host
from physml._numerics.parts import as_arrays
from physml._numerics.shuffle import shuffle_words, shuffled

Step = Callable[[PyTree, PyTree, PRNGKeyArray | None], tuple[PyTree, dict[str, Array]]]
"""`step(state, batch, key) -> (state, metrics)`."""

Augment = Callable[[PyTree, PRNGKeyArray], PyTree]
"""`augment(data, key) -> data`: other data of the same structure, shapes and dtypes."""

_CHUNK_BYTES = 1 << 26  # of rows from files that one chunk brings to the device


class Chunks:
    """The steps of a loop, with the data and keys they take; `fit.loop` says which.

    Attributes:
        beat: a chunk must end after every `beat` steps, where the data change; None if never.
        capacity: the most steps of a chunk.
        compile_seconds: the time that compiling took.
    """

    def __init__(
        self,
        step: Step,
        data: PyTree,
        key: PRNGKeyArray | None,
        batch_size: int | None,
        augment: Augment | None,
        capacity: int,
    ):
        self._in_files = in_files(data)
        if self._in_files:
            _check_files(batch_size, augment)
            data = jax.tree.map(np.asanyarray, data)  # what is in memory beside files
            as_arrays("data", jax.tree.map(lambda x: np.zeros((), x.dtype), data))  # for its errors
        else:
            data = as_arrays("data", data)
        if batch_size is not None:
            _check_batches(data, batch_size, key)
            if self._in_files:
                row = sum(leaf[:1].nbytes for leaf in jax.tree.leaves(data))
                capacity = max(1, min(capacity, _CHUNK_BYTES // max(1, batch_size * row)))
        elif augment is not None:
            raise ValueError("augment must come with a batch_size, got None")
        # Split out here: within the program, each split would take a tenth of a second to compile.
        step_key, order_key, augment_key = [None] * 3 if key is None else jax.random.split(key, 3)
        self._keys = (step_key, None if order_key is None else shuffle_words(order_key))
        self._step, self._sizes, self.capacity = step, (batch_size, capacity), capacity
        self._smaller = lambda size: Chunks(step, data, key, size, augment, capacity)
        self._data: tuple[int, PyTree] = (-1, data)  # of the last epoch that was asked for
        self._program: Callable[..., tuple[PyTree[Array], dict[str, Array]]]
        self._traced: Trace | None = None
        self._augmented: tuple[Trace, ...] = ()
        self.beat: int | None = None
        self.compile_seconds = 0.0
        if augment is None or batch_size is None:
            return
        traced, made = trace(Partial(_new, augment), data, augment_key)
        self._augmented = (traced,)
        if jax.tree.structure(made) != jax.tree.structure(data) or _kinds(made) != _kinds(data):
            raise ValueError(
                "augment must keep the structure, shapes and dtypes of the data, which are "
                f"{_kinds(data)}, got {_kinds(made)}"
            )
        self.beat = jax.tree.leaves(data)[0].shape[0] // batch_size
        arguments = (augment, data, augment_key)
        program, self.compile_seconds = compiled(_augmented, *arguments, _int32(0))
        self._augment = lambda epoch: program(*arguments, _int32(epoch))

    def traces(self, state: PyTree[Array]) -> tuple[Trace, ...]:
        """A step for states like this one, and what augments the data, traced once."""
        if self._traced is None:
            size, key = self._sizes[0], self._keys[0]
            batch = jax.tree.map(
                lambda x: (
                    x if size is None else jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
                ),
                self._data[1],
            )
            self._traced, _ = trace(Partial(_stepped, self._step), state, batch, key)
        return self._traced, *self._augmented

    def compile(self, state: PyTree[Array], first: int) -> None:
        """Compile the steps for states like this one."""
        self._step = as_traced(self._step, self.traces(state)[0])
        self._program, seconds = compiled(_advance, *self._arguments(state, first, first))
        self.compile_seconds += seconds

    def advance(
        self, state: PyTree[Array], first: int, last: int
    ) -> tuple[PyTree[Array], dict[str, np.ndarray]]:
        """The state after the steps first, ..., last - 1, with a row of metrics for each.

        Raises:
            MemoryError: a batch is too large for the device; the message says what size fits.
        """
        try:
            after, metrics = self._program(*self._arguments(state, first, last))
            rows = {name: on_host(row)[: last - first] for name, row in metrics.items()}
            return jax.block_until_ready(moved_to(state, after)), rows
        except jax.errors.JaxRuntimeError as error:
            if self._sizes[0] is None or "RESOURCE_EXHAUSTED" not in str(error):
                raise
            problem = error
        size = self._size_that_fits(self._sizes[0] // 2, state)
        raise MemoryError(
            f"batch_size must fit into the memory of {jax.devices()[0].device_kind}, got "
            f"{self._sizes[0]}: {f'{size} fits' if size else 'not even 1 fits'}"
        ) from problem

    def _size_that_fits(self, size: int, state: PyTree[Array]) -> int:
        """The size, or the first of its halves, with which a step can be made; 0 if none."""
        while size:
            smaller = self._smaller(size)
            try:
                smaller.compile(state, 0)
                jax.block_until_ready(smaller._program(*smaller._arguments(state, 0, 1)))
                return size
            except jax.errors.JaxRuntimeError:
                size //= 2
        return 0

    def _arguments(self, state: PyTree, first: int, last: int) -> tuple:
        if self.beat is not None and (epoch := first // self.beat) != self._data[0]:
            self._data = (epoch, self._augment(epoch))
        data, words, (size, capacity) = self._data[1], self._keys[1], self._sizes
        if self._in_files:
            assert words is not None and size is not None
            data = _read(data, words, first, last, size, capacity)
        span = (_int32(first), _int32(last))
        return self._step, state, data, self._keys, span, *self._sizes, self._in_files


def _new(augment: Augment, data: PyTree, key: PRNGKeyArray | None) -> PyTree[Array]:
    made = ask("augment", "augment(data, key)", augment, data, key)
    return jax.tree.map(lambda leaf: answer("augment", "arrays", leaf), made)


def _stepped(step: Step, *args: PyTree) -> tuple[PyTree, dict[str, Array]]:
    out = ask("step", "step(state, batch, key)", step, *args)
    if not (isinstance(out, tuple) and len(out) == 2 and isinstance(out[1], dict)):
        raise TypeError(f"step must return (state, dict of arrays), got {type(out).__name__}")
    return out


def _augmented(augment: Augment, data: PyTree, key: PRNGKeyArray, epoch: Int[Array, ""]) -> PyTree:
    return augment(data, jax.random.fold_in(key, epoch))


def _kinds(tree: PyTree) -> list[str]:
    return [f"{leaf.dtype}{leaf.shape}" for leaf in jax.tree.leaves(tree)]


def _advance(
    step: Step,
    state: PyTree,
    data: PyTree,
    keys: tuple[PRNGKeyArray | None, UInt32[Array, " rounds"] | None],
    span: tuple[Int[Array, ""], Int[Array, ""]],
    batch_size: int | None,
    capacity: int,
    read: bool,
) -> tuple[PyTree, dict[str, Array]]:
    """The steps of a span [first, last), with their metrics in the first of `capacity` rows.

    The ends are traced, so chunks of every length share one program. If they have been read, the
    data are the batches of the span; otherwise they are all rows.
    """
    first, last = span
    step_key, words = keys
    once = jax.jit(lambda *args: _stepped(step, *args))  # one trace for shapes and the body

    def batch(i: Int[Array, ""]) -> PyTree:
        if batch_size is None or words is None:
            return data
        if read:
            return jax.tree.map(lambda x: x[i - first], data)
        rows = _rows_of(i, batch_size, jax.tree.leaves(data)[0].shape[0], words)
        return jax.tree.map(lambda x: x.at[rows].get(mode="promise_in_bounds"), data)

    def call(state: PyTree, i: Int[Array, ""]) -> tuple[PyTree, dict[str, Array]]:
        key = None if step_key is None else jax.random.fold_in(step_key, i)
        return once(state, batch(i), key)

    def body(i: Int[Array, ""], carry: PyTree) -> tuple:
        state, rows = carry
        state, metrics = call(state, i)
        return state, {name: rows[name].at[i - first].set(metrics[name]) for name in rows}

    _, metrics = jax.eval_shape(call, state, first)
    rows = {name: jnp.zeros((capacity, *m.shape), m.dtype) for name, m in metrics.items()}
    return jax.lax.fori_loop(first, last, body, (state, rows))


def _rows_of(
    step: Int[Array, ""], batch_size: int, num_rows: int, words: UInt32[Array, " rounds"]
) -> Int[Array, " batch"]:
    """The numbers of the rows that make a step's batch."""
    epoch, position = jnp.divmod(step, num_rows // batch_size)
    places = position * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
    return shuffled(places, num_rows, epoch, words)


def in_files(data: PyTree) -> bool:
    """Whether data lie in files that are mapped into memory, and may be larger than the device."""
    return any(isinstance(leaf, np.memmap) for leaf in jax.tree.leaves(data))


def _read(
    data: PyTree, words: UInt32[Array, " rounds"], first: int, last: int, size: int, capacity: int
) -> PyTree[np.ndarray]:
    """The batches of the steps first, ..., last - 1 from files, in the first of `capacity` rows."""
    num_rows = jax.tree.leaves(data)[0].shape[0]
    steps = first + jnp.arange(capacity, dtype=jnp.int32)
    rows = np.asarray(_rows_of_all(steps, size, num_rows, words))[: last - first]

    def batches(leaf: np.ndarray) -> np.ndarray:
        found = np.zeros((capacity, size, *leaf.shape[1:]), leaf.dtype)
        found[: last - first] = leaf[rows]
        return found

    return jax.tree.map(batches, data)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _rows_of_all(
    steps: Int[Array, " steps"], batch_size: int, num_rows: int, words: UInt32[Array, " rounds"]
) -> Int[Array, "steps batch"]:
    return jax.vmap(lambda step: _rows_of(step, batch_size, num_rows, words))(steps)


def _check_files(batch_size: int | None, augment: Augment | None) -> None:
    if batch_size is None:
        raise ValueError("batch_size must be given for data in mapped files, got None")
    if augment is not None:
        raise ValueError("augment must be None for data in mapped files: it needs all of them")


def _int32(number: int) -> Int[Array, ""]:
    return jnp.asarray(number, jnp.int32)


def _check_batches(data: PyTree, batch_size: int, key: PRNGKeyArray | None) -> None:
    if key is None:
        raise ValueError(f"key must be given for batches, got None with batch_size {batch_size}")
    lengths = sorted({leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(data)})
    if len(lengths) != 1:
        raise ValueError(f"data must have arrays of one leading length, got {lengths}")
    require_count(1, (lengths[0], "the rows of data"), batch_size=batch_size)

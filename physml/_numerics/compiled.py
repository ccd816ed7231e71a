"""Compile pure functions once for their shapes, and measure how long that takes."""

import contextlib
import contextvars
import functools
import inspect
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import jax
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]
from jaxtyping import Array, ArrayLike, DTypeLike, PyTree

from physml._numerics.devices import num_cores
from physml._numerics.interpreter import made_nan

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])
Static = tuple[jax.tree_util.PyTreeDef, tuple]

_ARRAYS = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)

_ONE_AT_A_TIME = threading.Lock()  # so that two threads do not compile one program twice


class _Traced:
    """Marks the place of a traced leaf in the static part of a tree."""


class Lowered(NamedTuple):
    """A function traced for some arguments and not compiled yet.

    Attributes:
        program: what JAX compiles.
        jaxpr: its operations, kept where JAX looks for NaN; else None.
    """

    program: jax.stages.Lowered
    jaxpr: ClosedJaxpr | None

    @property
    def out_info(self) -> PyTree:
        """The shapes and dtypes of what comes out."""
        return self.program.out_info


def compiled(function: Callable[..., PyTree], *args: PyTree) -> tuple[Callable[..., PyTree], float]:
    """`function` compiled for arguments like `args`, and the seconds that compiling took.

    Arrays in `args` are traced. Everything else (functions, activations, Python numbers, the graph
    definition of a network) is static and compared by value, so that a second fit with the same
    functions and shapes finds the program of the first and compiles nothing.

    Args:
        function: a pure function at module level; a closure would be a new function each time.
        args: pytrees.

    Returns:
        A callable that takes arguments of the same structure, shapes and dtypes, and the seconds
        spent on tracing and compiling (nearly zero if the program was there already).
    """
    start = time.perf_counter()
    with _ONE_AT_A_TIME:
        lowered = lower(function, *args)
        program = lowered.program.compile()
    seconds = time.perf_counter() - start
    if seconds > _NOTICED:
        make_room()
    return lambda *args: _run(program, lowered.jaxpr, args), seconds


def lower(function: Callable[..., PyTree], *args: PyTree) -> Lowered:
    """`function` traced for arguments like `args`, as for `compiled`, and not compiled yet.

    An array may be given by its shape and dtype alone, as `jax.ShapeDtypeStruct`: so the `out_info`
    of one program can be an argument of the next.
    """
    traced, static = _split(args)
    tracing = _apply.trace(function, static, traced)
    return Lowered(tracing.lower(), tracing.jaxpr if _looks_for_nan() else None)


def watched(function: Function) -> Function:
    """A jitted function that says which operation made a NaN, where JAX looks for NaN.

    JAX itself names the outermost loop that a NaN came out of, and takes a fill for a mistake. With
    `jax_debug_nans` unset, or where its arguments are traced, the function is called as it is.

    Raises:
        FloatingPointError: an operation made a NaN that came out, see `made_nan`.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not _looks_for_nan():
            return function(*args, **kwargs)
        traced, static = _split((args, kwargs))
        if any(isinstance(x, Tracer) for x in traced):
            return function(*args, **kwargs)

        def run(traced: list[ArrayLike]) -> PyTree:
            args, kwargs = _merged(static, traced)
            return function(*args, **kwargs)

        closed = functools.partial(jax.make_jaxpr(run), traced)
        return _explained(lambda: function(*args, **kwargs), closed, traced)

    return cast(Function, call)


@contextlib.contextmanager
def in_programs_alone() -> Iterator[None]:
    """Look for NaN in what programs give, and not after each small operation between them.

    There NaN is a fill or data that nobody has seen, which JAX takes for a mistake.
    """
    token = _WATCHING.set(_looks_for_nan())
    try:
        with jax.debug_nans(False):
            yield
    finally:
        _WATCHING.reset(token)


def once(make: Callable[..., T], *args: PyTree) -> T:
    """`make(*args)`, made once for all arguments that ask for the same programs.

    To trace a function and to look up its program takes JAX longer than many a program runs. `make`
    compiles what is needed for arguments like `args`; they ask for the same if their arrays agree
    in shape, dtype and device, and everything else in them in value.
    """
    traced, static = _split(args)
    kinds = tuple((jax.typeof(x), getattr(x, "sharding", None)) for x in traced)
    settings = tuple(getattr(jax.config, name) for name in _SETTINGS)
    key = make, static, kinds, settings, _looks_for_nan()
    made = _MADE.get(key)
    if made is None:
        make_room()
        if len(_MADE) >= _MOST_MADE:
            _MADE.pop(next(iter(_MADE)), None)
        made = _MADE[key] = make(*args)
    return made


def forget() -> None:
    """Let go of all programs, those of `jax.jit` too."""
    _MADE.clear()
    jax.clear_caches()


def make_room() -> None:
    """`forget` all programs before they take a process's last maps of memory.

    Linux grants a process `vm.max_map_count` of them, by default 65,530. A program takes
    about a hundred, and where none is left XLA ends the process. What is still needed is compiled
    once more.
    """
    maps, most = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
    if most.exists() and 2 * maps.read_bytes().count(b"\n") > int(most.read_text()):
        forget()


_MADE: dict[Hashable, Any] = {}
_MOST_MADE = 64
_NOTICED = 0.05  # seconds, in which nothing was compiled
_SETTINGS = ("jax_enable_x64", "jax_default_device", "jax_default_matmul_precision")  # of programs
_WATCHING: contextvars.ContextVar[bool] = contextvars.ContextVar("watching", default=False)


def compiling(lowered: Lowered, *, quickly: bool = False) -> Callable[..., PyTree]:
    """A program made of what `lower` gave, compiled in a thread; a call waits until it is there.

    XLA frees Python's lock while it compiles, so that the next program can be traced meanwhile. A
    program takes arguments of the structure, shapes and dtypes that it was traced for.

    Args:
        lowered: the traced function.
        quickly: on a CPU, let XLA's older emitters of loops make the program: for many small
            operations they need half the time, and they may round elsewhere than the newer ones do.
    """
    program = _COMPILERS.submit(_compile, lowered.program, quickly)
    return lambda *args: _run(program.result(), lowered.jaxpr, args)


_COMPILERS = ThreadPoolExecutor(4)
_QUICKLY: dict[str, str | bool] = {
    "xla_cpu_use_fusion_emitters": False,
    # The parts that a program is compiled in beside each other: by default 32, each with a cost.
    "xla_cpu_parallel_codegen_split_count": str(num_cores()),
    # It makes two loops of each reduction of more than 32 numbers, compiled by themselves.
    "xla_disable_hlo_passes": "tree_reduction_rewriter",
}


def _compile(lowered: jax.stages.Lowered, quickly: bool) -> jax.stages.Compiled:
    options = dict(_QUICKLY)  # as they are now: another thread may drop one meanwhile
    if not (quickly and options and jax.default_backend() == "cpu"):
        return lowered.compile()
    try:
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        unknown = [name for name in options if name in str(error)]  # to this XLA
        if not unknown:
            raise
    for name in unknown:
        _QUICKLY.pop(name, None)
    return _compile(lowered, quickly)


def constant(value: ArrayLike, dtype: DTypeLike | None = None) -> Array:
    """Known numbers as an array, also while something else is traced.

    Unlike `jnp.asarray` it compiles nothing. A Python number without a dtype stays weakly typed.
    """
    with jax.ensure_compile_time_eval():
        return jax.device_put(value if dtype is None else np.asarray(value, dtype))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(function: Callable[..., PyTree], static: Static, traced: list[ArrayLike]) -> PyTree:
    return function(*_merged(static, traced))


def _run(program: jax.stages.Compiled, closed: ClosedJaxpr | None, args: PyTree) -> PyTree:
    traced, _ = _split(args)
    if closed is None or not _looks_for_nan():
        return program(traced)
    return _explained(lambda: program(traced), lambda: closed, traced)


def _looks_for_nan() -> bool:
    return _WATCHING.get() or jax.config.jax_debug_nans


def _explained(
    run: Callable[[], PyTree], closed: Callable[[], ClosedJaxpr], traced: list[Any]
) -> PyTree:
    """What a program gives; if an operation made a NaN in it, that is raised."""
    with jax.debug_nans(False):
        out = run()
        arrays = [x for x in jax.tree.leaves(out) if isinstance(x, jax.Array)]
        if any(isinstance(x, Tracer) for x in arrays):
            return out
        suspects = list(filter(_has_nan, arrays))
        given = [x for x in traced if suspects and _has_nan(x)]  # such as data with gaps
        if all(any(_same(x, y) for y in given) for x in suspects):
            return out
        made = made_nan(closed(), traced)
    if made is not None:
        raise FloatingPointError(str(made))
    return out


def _has_nan(array: ArrayLike) -> bool:
    return jax.numpy.issubdtype(jax.typeof(array).dtype, np.inexact) and bool(np.isnan(array).any())


def _same(a: ArrayLike, b: ArrayLike) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)


def _merged(static: Static, traced: list[ArrayLike]) -> PyTree:
    """The tree that `_split` has taken apart."""
    structure, leaves = static
    arrays = iter(traced)
    merged = [next(arrays) if kind is _Traced else leaf for kind, leaf in leaves]
    return jax.tree.unflatten(structure, merged)


def _split(tree: PyTree) -> tuple[list[ArrayLike | jax.ShapeDtypeStruct], Static]:
    """The arrays of a tree, and everything else in it as a hashable value."""
    leaves, structure = jax.tree.flatten(tree)
    if any(map(inspect.ismethod, leaves)):
        leaves, structure = jax.tree.flatten(jax.tree.map(_opened, tree))
    is_array = [isinstance(leaf, _ARRAYS) for leaf in leaves]
    traced = [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]
    # The type is part of the comparison, since 1 == 1.0 == True.
    static = tuple(
        (_Traced, None) if array else (type(leaf), leaf)
        for leaf, array in zip(leaves, is_array, strict=True)
    )
    return traced, (structure, static)


def _opened(leaf: object) -> object:
    """A bound method as a pytree, so that what its object holds is traced.

    A bound method equals itself even if its object has changed: as a static leaf it would find the
    program with the old weights compiled in.
    """
    if inspect.ismethod(leaf) and not inspect.isclass(leaf.__self__):
        return jax.tree_util.Partial(leaf.__func__, leaf.__self__)
    return leaf

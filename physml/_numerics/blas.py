"""LAPACK on a CPU in one thread, the quickest way to factorise small matrices."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threadpoolctl


@contextlib.contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Keep BLAS and LAPACK to one thread within the block, which must wait for its results.

    JAX factorises on the CPU by SciPy's OpenBLAS, whose threads wait for each other by spinning,
    every few columns. For matrices of some hundred columns two threads gain little on an idle
    machine, and are 10 to 100 times slower than one thread once another process needs a core.

    The limit is the whole process's. Blocks in several threads share it, and BLAS has its threads
    back when the last block is left.
    """
    _LIMIT.enter()
    try:
        yield
    finally:
        _LIMIT.leave()


class _Shared:
    """One limit for all blocks that are open at a time: the first sets it, the last lifts it."""

    def __init__(self) -> None:
        self._lock, self._open = threading.Lock(), 0
        self._limit = contextlib.ExitStack()

    def enter(self) -> None:
        with self._lock:
            if not self._open:
                self._limit.enter_context(_libraries().limit(limits=1, user_api="blas"))
            self._open += 1

    def leave(self) -> None:
        with self._lock:
            self._open -= 1
            if not self._open:
                _let_any_thread_set_limits()
                self._limit.close()
                _let_any_thread_set_limits()


_LIMIT = _Shared()


def _let_any_thread_set_limits() -> None:
    """Let another thread lift the limit than the one that set it, as threadpoolctl 3.8 forbids."""
    import threadpoolctl

    release = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)


@functools.cache
def _libraries() -> "threadpoolctl.ThreadpoolController":
    """The libraries that are loaded, looked up once: that takes 2 ms."""
    import scipy.linalg  # noqa: F401 -- only a library that is loaded can be limited
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()

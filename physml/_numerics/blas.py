"""LAPACK on a CPU in one thread, the quickest way to factorise small matrices."""

import contextlib
import functools
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
    """
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _libraries() -> "threadpoolctl.ThreadpoolController":
    """The libraries that are loaded, looked up once: that takes 2 ms."""
    import scipy.linalg  # noqa: F401 -- only a library that is loaded can be limited
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()

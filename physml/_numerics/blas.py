"""LAPACK on a CPU by one thread: for factorisations of small matrices, the quickest way."""

import contextlib
from collections.abc import Iterator

import threadpoolctl


@contextlib.contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Keep BLAS and LAPACK to one thread within the block, which must wait for its results.

    JAX factorises on the CPU by SciPy's OpenBLAS. Its threads wait for each other by spinning, at
    every few columns: for matrices of some hundred columns two threads gain little on an idle
    machine, and are ten to a hundred times slower than one as soon as another process wants a core.
    """
    import scipy.linalg  # noqa: F401 -- only a library that is loaded can be limited

    with threadpoolctl.threadpool_limits(1, "blas"):
        yield

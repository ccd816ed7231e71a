"""LAPACK on a CPU in one thread, the quickest way to factorise small matrices."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Keep BLAS and LAPACK to one thread within the block, which must wait for its results.

    JAX factorises on the CPU by SciPy's OpenBLAS, whose threads wait for each other by spinning,
    every few columns. For matrices of some hundred columns two threads gain little on an idle
    machine, and are 10 to 100 times slower than one thread once another process needs a core.
    """
    import scipy.linalg  # noqa: F401 -- only a library that is loaded can be limited
    import threadpoolctl

    with threadpoolctl.threadpool_limits(1, "blas"):
        yield

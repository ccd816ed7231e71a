"""The systems of the package dysts, for JAX and for long doubles, as the package has them.

W. Gilpin, Chaos as an interpretable benchmark (2021), https://github.com/williamgilpin/dysts
"""

import contextlib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml import systems


class Flow(NamedTuple):
    """A chaotic system of the package."""

    name: str
    system: systems.System
    y0: np.ndarray
    t1: float
    """Five periods, or ten Lyapunov times where these are shorter."""
    lyapunov_time: float
    original: Any
    """The package's own object, which computes with NumPy."""

    def rates(self, t: Any, y: np.ndarray) -> np.ndarray:
        """The right-hand side in NumPy, in the precision of t and y."""
        return np.asarray(self.original.rhs(y, t))

    def observed(self, ys: np.ndarray) -> np.ndarray:
        """What the package shows of states (..., dim): angles that grow for ever as their sines."""
        if not hasattr(self.original, "_postprocessing"):
            return ys
        return np.stack(self.original._postprocessing(*np.moveaxis(ys, -1, 0)), axis=-1)


def flows() -> tuple[list[Flow], dict[str, str]]:
    """The systems that JAX can trace, and why it cannot trace the others, by name."""
    with _package():
        base = importlib.import_module("dysts.base")
        vars(base)["staticjit"] = staticmethod  # numba takes neither tracers nor long doubles
        plain, traced = _module(), _module()
    vars(traced)["np"] = jnp
    found, left = [], {}
    for name, original in sorted(vars(plain).items()):
        own = isinstance(original, type) and original.__module__ == plain.__name__
        if not (own and issubclass(original, base.BaseDyn)):
            continue
        if issubclass(original, base.DynSysDelay):
            left[name] = "a delay equation"
            continue
        try:
            found.append(_flow(original(), getattr(traced, name)()))
        except (TypeError, ValueError, NotImplementedError) as error:
            left[name] = type(error).__name__
    return found, left


def _flow(original: Any, traced: Any) -> Flow:
    y0 = np.asarray(original.ic, float)

    def vector_field(t: Any, y: jax.Array, args: Any) -> jax.Array:
        return jnp.stack(list(traced.rhs(y, t)))

    system = systems.from_function(vector_field, len(y0))
    jax.eval_shape(system, 0.0, y0)
    lyapunov_time = 1 / float(original.maximum_lyapunov_estimated)
    t1 = min(5 * float(original.period), 10 * lyapunov_time)
    return Flow(original.name, system, y0, t1, lyapunov_time, original)


def _module() -> ModuleType:
    """A copy of its own of the module with the right-hand sides."""
    spec = importlib.util.find_spec("dysts.flows")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _package() -> Iterator[None]:
    """The package can be imported, though the benchmark that imports it has the same name."""
    here, path = Path(__file__).resolve().parent, sys.path[:]
    sys.path[:] = [entry for entry in path if Path(entry or ".").resolve() != here]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that numba is not there
            yield
    finally:
        sys.path[:] = path

"""Checks of what users hand to this room: paths, names, times."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from physml._numerics import checks


def checked_path(name: str, path: object) -> Path:
    """A path; raises TypeError unless it is text or a path (`open` would take a number too)."""
    if not isinstance(path, str | os.PathLike) or path == "":
        raise TypeError(f"{name} must be a path, got {path!r}")
    return Path(path)


def require_arrays(kind: type, **values: object) -> None:
    """Raise TypeError unless every value is an array with entries of a kind, as `jnp.floating`."""
    for name, value in values.items():
        array = isinstance(value, jax.Array | np.ndarray)
        if not array or not jnp.issubdtype(value.dtype, kind):
            got = value.dtype if array else type(value).__name__
            raise TypeError(
                f"{name} must be an array of a dtype that is {kind.__name__}, got {got}: "
                "from_arrays makes one of what it is given"
            )


def checked_names(argument: str, names: object) -> tuple[str, ...]:
    """Names as a tuple of different strings.

    Raises:
        TypeError: they are no sequence of strings; one string is none.
        ValueError: two are the same.
    """
    listed = tuple(names) if isinstance(names, list | tuple | np.ndarray) else (None,)
    if not all(isinstance(name, str) for name in listed):
        raise TypeError(f"{argument} must be a list or tuple of strings, got {names!r}")
    if len(set(listed)) < len(listed):
        raise ValueError(f"{argument} must differ from each other, got {listed}")
    return tuple(map(str, listed))  # plain strings where NumPy's came


def checked_times(name: str, times: object) -> np.ndarray:
    """Finite real numbers (n,) in float64 on the host, whatever JAX's precision.

    Raises:
        TypeError: the times are no real numbers, or are traced.
        ValueError: they are not finite, or have another shape.
    """
    if not checks.is_concrete(times):
        raise TypeError(f"{name} must not be traced, got {times}")
    try:
        array = np.asarray(times)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array of real numbers, got {error}") from error
    if getattr(array.dtype, "kind", "V") not in "iu" and not jnp.issubdtype(
        array.dtype, jnp.floating
    ):
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name} must have shape (n,) with n >= 1, got {array.shape}")
    checks.require_finite(name, array)
    return array.astype(float)

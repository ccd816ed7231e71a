"""Checks of static facts: what a user hands in, before any long work.

Every check names the argument, what came and what was expected. Values are looked at only
where they are concrete; under `jax.jit` and `jax.vmap` shapes and dtypes are all there is.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array


def is_concrete(value: Any) -> bool:
    """Whether the numbers in an array can be read now (it is not traced)."""
    return not isinstance(value, Tracer)


def floating_array(name: str, value: Any, dtype: Any = None) -> Array:
    """`value` as a JAX array of a floating dtype, never with fewer digits than it came with.

    NumPy and JAX arrays of a floating dtype keep it; everything else (lists, Python numbers,
    integers) takes JAX's default floating dtype. `dtype` overrides both.

    Raises:
        TypeError: `value` is not an array of real numbers.
        ValueError: float64 is asked for, by `dtype` or by a NumPy array, while
            `jax_enable_x64` is off.
    """
    typed = isinstance(value, jax.Array | np.ndarray | np.generic)
    try:
        array = value if typed else np.asarray(value)
    except ValueError as error:
        raise TypeError(f"{name} must be an array of real numbers: {error}") from error
    if array.dtype.kind not in "iuf" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if dtype is None:
        floating = typed and jnp.issubdtype(array.dtype, jnp.floating)
        dtype = array.dtype if floating else jnp.zeros(()).dtype
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name} must have a floating dtype, got {dtype}")
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(
            f"{name} is {dtype}, which JAX would silently round to "
            f"{jax.dtypes.canonicalize_dtype(dtype)}: call "
            'jax.config.update("jax_enable_x64", True) first, or pass float32 data'
        )
    return jnp.asarray(array, dtype)


def floating_arrays(**values: Any) -> tuple[Array, ...]:
    """The values as JAX arrays of one floating dtype, that to which JAX promotes theirs.

    What has no floating dtype of its own (lists, Python numbers, integers) takes that of the
    others. Raises as `floating_array`.
    """
    own = (getattr(value, "dtype", None) for value in values.values())
    dtypes = [dtype for dtype in own if dtype is not None and jnp.issubdtype(dtype, jnp.floating)]
    dtype = functools.reduce(jnp.promote_types, dtypes) if dtypes else None
    return tuple(floating_array(name, value, dtype) for name, value in values.items())


def require_finite(name: str, value: Any) -> None:
    """Raises ValueError that says where the first NaN or infinity stands, if there is one."""
    if not is_concrete(value):
        return
    array = np.asarray(value)
    finite = np.isfinite(array)
    if finite.all():
        return
    where = tuple(int(i) for i in np.argwhere(~finite)[0])
    raise ValueError(
        f"{name} must be finite, got {array[where]} at index {where} "
        f"({int((~finite).sum())} of {array.size} values are not finite)"
    )


def require_increasing(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is one-dimensional, not empty, finite and increasing."""
    if value.ndim != 1 or value.shape[0] == 0:
        raise ValueError(f"{name} must have shape (n,) with n >= 1, got shape {value.shape}")
    if not is_concrete(value):
        return
    require_finite(name, value)
    array = np.asarray(value)
    steps = np.diff(array)
    if (steps <= 0).any():
        i = int(np.argmax(steps <= 0))
        raise ValueError(
            f"{name} must increase, got {name}[{i}] = {array[i]} then "
            f"{name}[{i + 1}] = {array[i + 1]}"
        )


def require_uniform(name: str, times: np.ndarray) -> None:
    """Raises ValueError unless `times` has two or more entries, increasing in equal steps."""
    require_increasing(name, times)
    if len(times) < 2:
        raise ValueError(f"{name} must have at least 2 entries, got {len(times)}")
    steps = np.diff(times.astype(float))
    mean = steps.mean()
    # Times are rounded, to an ulp where they are computed, to a few digits in a printed table.
    slack = 1e-4 * mean + 4 * np.finfo(times.dtype).eps * np.abs(times).max()
    if (np.abs(steps - mean) > slack).any():
        i = int(np.argmax(np.abs(steps - mean)))
        raise ValueError(
            f"{name} must be uniform, got a step of {steps[i]} from index {i} to {i + 1} "
            f"where the mean step is {mean}"
        )

"""Checks of static facts: what a user hands in, before any long work.

Every message reads "NAME must ..., got ...". A check looks at values only where they are concrete;
under `jax.jit` and `jax.vmap` it sees shapes and dtypes.
"""

import functools
import importlib
from collections.abc import Collection, Sequence
from typing import Any, SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, DTypeLike, Float, PyTree

from physml._numerics.compiled import constant
from physml._numerics.devices import on_host


def is_concrete(value: object) -> bool:
    """Whether the numbers in an array can be read now (it is not traced)."""
    return not isinstance(value, Tracer)


def require_untraced(solver: str, given: PyTree, *calls: tuple[Any, ...]) -> None:
    """Raise ValueError where JAX traces what a solver gets that runs on the host.

    Args:
        solver: its name.
        given: its arguments.
        calls: functions, each with examples of its arguments, that may close over traced values.
    """
    # Within jax.jit the result of any operation is traced, whatever the arguments are.
    leaves = [*jax.tree.leaves(given), jnp.negative(1.0)]
    if all(map(is_concrete, leaves)):  # with traced arguments a call may fail in another way
        leaves = [x for f, *examples in calls for x in jax.make_jaxpr(f)(*examples).consts]
    if not all(map(is_concrete, leaves)):
        raise ValueError(
            f"the arguments of {solver} must not be traced, because it runs on the host: call it "
            "outside of jax.jit, jax.grad and jax.vmap, once for each value (a derivative is a "
            "difference of two solutions), got a traced value"
        )


def floating_array(name: str, value: object, dtype: DTypeLike | None = None) -> Array:
    """`value` as a JAX array of a floating dtype, never with fewer digits than it came with.

    NumPy and JAX arrays of a floating dtype keep it; everything else (lists, Python numbers,
    integers) takes JAX's default floating dtype. `dtype` overrides both.

    Raises:
        TypeError: `value` is not an array of real numbers.
        ValueError: float64 is asked for, by `dtype` or by a NumPy array, while
            `jax_enable_x64` is off.
    """
    typed = isinstance(value, jax.Array | np.ndarray | np.generic)
    if np.ma.isMaskedArray(value) and np.ma.is_masked(value):
        raise ValueError(f"{name} must have no masked values, whose numbers mean nothing")
    try:
        array = value if typed else np.asarray(value)
    except ValueError as error:
        raise TypeError(f"{name} must be an array of real numbers, got {error}") from error
    if getattr(array.dtype, "kind", "V") not in "iuf" and not jnp.issubdtype(
        array.dtype, jnp.floating
    ):
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if dtype is None:
        floating = typed and jnp.issubdtype(array.dtype, jnp.floating)
        dtype = array.dtype if floating else jnp.zeros(()).dtype
    try:
        dtype = jnp.dtype(dtype if isinstance(dtype, str | type | np.dtype) else None)
    except TypeError:
        raise TypeError(f"dtype must be a floating dtype, got {dtype!r}") from None
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name} must have a floating dtype, got {dtype}")
    if (rounded := jax.dtypes.canonicalize_dtype(dtype)) != dtype:
        remedy = 'call jax.config.update("jax_enable_x64", True) first'
        if array.dtype == dtype:
            remedy += f", or pass {rounded} data"
        raise ValueError(
            f"{name} must be {rounded} while jax_enable_x64 is off, got {dtype}: {remedy}"
        )
    return jnp.asarray(array, dtype)


def floating_arrays(**values: object) -> tuple[Array, ...]:
    """The values as JAX arrays of one floating dtype, that to which JAX promotes theirs.

    What has no floating dtype of its own (lists, Python numbers, integers) takes that of the
    others. Raises as `floating_array`.
    """
    own = (getattr(value, "dtype", None) for value in values.values())
    dtypes = [dtype for dtype in own if dtype is not None and jnp.issubdtype(dtype, jnp.floating)]
    dtype = functools.reduce(jnp.promote_types, dtypes) if dtypes else None
    return tuple(floating_array(name, value, dtype) for name, value in values.items())


def require_count(least: int = 1, most: tuple[int, str] | None = None, /, **values: object) -> None:
    """Raise unless every value is a whole number, `least` or more and `most` or less.

    Args:
        least: the smallest that is allowed.
        most: the largest that is allowed, and what it is, such as (3, "the number of components").
        values: the values by their names.

    Raises:
        TypeError: one is not an integer.
        ValueError: one is too small or too large.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
        if most is not None and value > most[0]:
            raise ValueError(f"{name} must be at most {most[0]}, {most[1]}, got {value}")


def require_positive(**values: object) -> None:
    """Raise ValueError unless every value, where its numbers are known, is positive and finite."""
    for name, value in values.items():
        if is_concrete(value) and not np.all((0 < (x := np.asarray(value))) & (x < np.inf)):
            raise ValueError(f"{name} must be positive and finite, got {value}")


def require_one_of(choices: Collection[object], **values: object) -> None:
    """Raise ValueError unless every value is one of the choices."""
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name} must be one of {tuple(choices)}, got {value!r}")


def require_finite(name: str, value: object) -> None:
    """Raise ValueError that says where the first NaN or infinity stands, if there is one."""
    if not is_concrete(value):
        return
    array = on_host(value)
    finite = np.isfinite(array)
    if finite.all():
        return
    if array.ndim == 0:
        raise ValueError(f"{name} must be finite, got {array}")
    where = tuple(int(i) for i in np.argwhere(~finite)[0])
    raise ValueError(
        f"{name} must be finite, got {array[where]} at index {where} "
        f"({int((~finite).sum())} of {array.size} values are not finite)"
    )


def require_not_empty(**values: Any) -> None:
    """Raise ValueError unless every value, an array or a sequence, holds at least one entry."""
    for name, value in values.items():
        if 0 in np.shape(value):
            raise ValueError(f"{name} must not be empty, got shape {np.shape(value)}")


def require_increasing(name: str, value: Array | np.ndarray) -> None:
    """Raise ValueError unless `value` is one-dimensional, not empty, finite and increasing."""
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


def times_in(dtype: DTypeLike, name: str, times: object) -> Float[Array, " n"]:
    """Increasing times as an array of a dtype, in which they must still increase.

    Raises:
        ValueError: they are not increasing, or too close to each other for the dtype.
    """
    if not is_concrete(times):
        array = jnp.asarray(times, dtype)
        require_increasing(name, array)
        return array
    given = np.asarray(times)
    require_increasing(name, given)
    rounded = np.asarray(given, dtype)
    if (np.diff(rounded) <= 0).any():
        raise ValueError(
            f"{name} must differ in {np.dtype(dtype)}, the dtype of y0, got times from {given[0]} "
            f"to {given[-1]} that round to the same: count the time from a nearer zero, or pass y0 "
            "in float64"
        )
    return constant(rounded, dtype)


def require_uniform(name: str, times: np.ndarray) -> None:
    """Raise ValueError unless `times` has two or more entries, increasing in equal steps."""
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


def check_interval(t0: SupportsFloat, t1: SupportsFloat) -> tuple[float, float]:
    """Both ends of an interval of time as floats.

    Raises:
        ValueError: they are traced, not finite, or t1 is not after t0. Where time runs backwards
            the solvers hand in both with the other sign.
    """
    if not (is_concrete(t0) and is_concrete(t1)):
        raise ValueError(f"t0 and t1 must not be traced, got {t0} and {t1}")
    require_finite("t0", t0)
    t0, t1 = float(t0), float(t1)
    if not (np.isfinite(t0) and np.isfinite(t1) and t1 > t0):
        raise ValueError(f"t1 must be finite and later than t0 = {t0}, got t1 = {t1}")
    return t0, t1


def check_times(ts: object, t0: float, t1: float, dtype: DTypeLike) -> Float[Array, " n"]:
    """Times in [t0, t1]; 1001 even ones where none were asked for.

    Raises:
        ValueError: they do not increase, or leave [t0, t1].
    """
    if ts is None:
        ts = times_in(dtype, "1001 times from t0 to t1", np.linspace(t0, t1, 1001))
    else:
        ts = times_in(dtype, "ts", ts)
    if is_concrete(ts):
        first, last = np.asarray(ts)[[0, -1]]  # on the host, also while something else is traced
        low, high = np.asarray([t0, t1], ts.dtype)
        if not (first >= low and last <= high):
            raise ValueError(f"ts must lie in [{t0}, {t1}], got {first} to {last}")
    return ts


def check_tolerances(
    rtol: Any, atol: Any, dtype: DTypeLike, defaults: tuple[float, float]
) -> tuple[Array, Array | None]:
    """Tolerances as arrays; `defaults` are the relative ones for float64 and float32.

    The absolute one may be an array, one for each component.

    There is no default for the absolute one, because it has the unit of the state.

    Raises:
        TypeError: one is no number, or a tree for a state that is a vector.
        ValueError: the dtype does not allow `rtol`, or `atol` is negative.
    """
    for name, value in (("rtol", rtol), ("atol", atol)):
        number = isinstance(value, int | float | np.number | np.ndarray | jax.Array)
        if value is not None and (isinstance(value, bool) or not number):
            raise TypeError(f"{name} must be a number, got {value!r}")
        if value is not None and np.ndim(value) == 0 and value != value:
            raise ValueError(f"{name} must be a number, got {value}")
    double = dtype == jnp.float64
    rtol = defaults[0 if double else 1] if rtol is None else rtol
    require_positive(rtol=rtol)
    finest = 10 * float(jnp.finfo(dtype).eps)
    if not rtol >= finest:
        more = "" if double else ' (float64 allows less: jax.config.update("jax_enable_x64", True))'
        raise ValueError(
            f"rtol must be at least {finest:.1e}, the least that {dtype} allows, got {rtol}{more}"
        )
    if atol is None:
        return constant(rtol, dtype), None
    if not np.all((0 <= np.asarray(atol)) & (np.asarray(atol) < np.inf)):
        raise ValueError(f"atol must be finite and not negative, got {atol}")
    return constant(rtol, dtype), constant(atol, dtype)


def check_fractions(fractions: Sequence[float]) -> np.ndarray:
    """Shares of a whole as an array (parts,).

    Raises:
        ValueError: they are not positive, or do not add to 1.
    """
    try:
        shares = np.asarray(fractions).astype(float, casting="same_kind")
    except (TypeError, ValueError):  # no numbers
        shares = np.asarray(np.nan)
    if shares.ndim != 1 or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"fractions must be positive and add to 1, got {fractions!r}")
    return shares


def require_not_negative(**values: object) -> None:
    """Raise ValueError unless every value, where its numbers are known, is zero or more."""
    for name, value in values.items():
        if is_concrete(value) and not np.all(np.asarray(value) >= 0):
            raise ValueError(f"{name} must not be negative, got {value}")
        require_finite(name, value)


def require_share(**values: float) -> None:
    """Raise ValueError unless every value is at least 0 and less than 1."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be at least 0 and less than 1, got {value}")


def require_inner_share(**values: float) -> None:
    """Raise ValueError unless every value is more than 0 and less than 1."""
    for name, value in values.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} must be between 0 and 1, got {value}")


def require_probability(**values: SupportsFloat) -> None:
    """Raise ValueError unless every value, where its numbers are known, is from 0 to 1."""
    for name, value in values.items():
        if is_concrete(value) and not 0 <= float(value) <= 1:
            raise ValueError(f"{name} must be from 0 to 1, got {value}")


def require_multiple(of: str, step: int, **values: int) -> None:
    """Raise ValueError unless every value is a multiple of the step, whose name is `of`."""
    for name, value in values.items():
        if value % step:
            raise ValueError(f"{name} must be a multiple of {of} = {step}, got {value}")


def check_scale(scale: object, dim: int, dtype: DTypeLike | None = None) -> Float[Array, " dim"]:
    """A scale for each component as an array, see `floating_array`.

    Raises:
        ValueError: it is not `dim` positive numbers.
    """
    scale = floating_array("scale", scale, dtype)
    if scale.shape != (dim,):
        raise ValueError(f"scale must have shape ({dim},), got {scale.shape}")
    require_positive(scale=scale)
    return scale


def require_key(**values: object) -> None:
    """Raise TypeError unless every value is one random key of JAX, of the new or the old kind."""
    for name, value in values.items():
        sound = False
        if isinstance(value, jax.Array | np.ndarray):
            typed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
            bare = not typed and value.dtype == jnp.uint32
            sound = value.shape == () if typed else bare and value.shape in ((2,), (4,))
        if not sound:
            raise TypeError(f"{name} must be a random key such as jax.random.key(0), got {value!r}")


def require_installed(module: str, extra: str) -> Any:
    """A module of a package that physml can do without, imported now.

    Raises:
        ImportError: it is not installed; the message names the extra that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{module} must be installed, got none: pip install "physml[{extra}]"', name=module
        ) from error

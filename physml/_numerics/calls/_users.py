"""Calls the functions that users write, and explains their usual mistakes in one sentence."""

import inspect
import linecache
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike

from physml._numerics.calls._text import shown

_PACKAGE = f"{Path(__file__).parents[2]}/"

_TRACED = (
    "{name} must compute with jax.numpy alone, because JAX traces it: {what}. {remedy}, {where}"
)
_SLIPS: tuple[tuple[type[Exception], str, str], ...] = (
    (
        jax.errors.TracerBoolConversionError,
        "its numbers are not known yet, so that `if`, `while`, `and`, `or`, `max` and `min` cannot "
        "decide by them",
        "Write jnp.where(condition, a, b), jnp.maximum, jnp.minimum or jnp.logical_and",
    ),
    (
        jax.errors.TracerArrayConversionError,
        "NumPy cannot compute with its numbers",
        "Write jnp.sin for np.sin, jnp.array for np.array",
    ),
    (
        jax.errors.TracerIntegerConversionError,
        "its numbers are not known yet, so that they cannot be an index or a count",
        "Write jnp.take, or jnp.where for a choice",
    ),
    (
        jax.errors.NonConcreteBooleanIndexError,
        "how many numbers a mask picks is not known yet",
        "Write jnp.where(mask, a, b)",
    ),
    (
        jax.errors.UnexpectedTracerError,
        "it keeps a number of an earlier call",
        "Return what it computes instead of storing it outside",
    ),
    (
        jax.errors.ConcretizationTypeError,
        "its numbers are not known yet, so that math.sin, float() and .item() cannot take them",
        "Write jnp.sin for math.sin, and y[0] for float(y[0])",
    ),
)

T = TypeVar("T")


def ask(name: str, form: str, function: Callable[..., T], *args: object) -> T:
    """Call a user's function, and explain its usual mistakes in one sentence.

    Args:
        name: what the function is called in messages.
        form: how it is called, such as "f(t, y, args)".
        function: the user's function.
        args: its arguments.

    Raises:
        TypeError: the function takes other arguments, or does what JAX cannot trace. The message
            names the remedy and the line of the user's code.
    """
    try:
        return function(*args)
    except Exception as error:
        words = _explained(name, form, function, args, error)
        if words is None:
            raise
    raise TypeError(words)


def answer(
    name: str,
    what: str,
    value: object,
    shape: tuple[int, ...] | None = None,
    dtype: DTypeLike | None = None,
) -> Array:
    """The value that a user's function returned, as an array: real unless `dtype` is not.

    Args:
        name: what the function is called in messages.
        what: what it should return, such as "dy/dt".
        value: what it returned.
        shape: the shape that the array must have; None allows any.
        dtype: the dtype to which the array is converted; None leaves it as it is.

    Raises:
        TypeError: the value is None, or not real numbers, or truth values in place of a `dtype`.
        ValueError: the value has another shape.
    """
    wanted = what if shape is None else f"{what} of shape {shape}"
    if value is None:
        raise TypeError(f"{name} must return {wanted}, got None (is a `return` missing?)")
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):  # rows of different lengths, text, dictionaries
        shapes = [getattr(leaf, "shape", None) for leaf in jax.tree.leaves(value)]
        traced = any(shape is not None for shape in shapes)
        got = f"a {type(value).__name__} of shapes {shapes}" if traced else shown(value)
        raise TypeError(
            f"{name} must return {wanted}, as an array or a list of numbers, got {got}"
        ) from None
    if array.dtype == bool and dtype is not None:
        raise TypeError(
            f"{name} must return {wanted}, got truth values: write a difference in place of a "
            "comparison, or multiply by 1.0 if 0 and 1 are meant"
        )
    allowed = dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating)
    if jnp.issubdtype(array.dtype, jnp.complexfloating) and not allowed:
        raise TypeError(
            f"{name} must return real numbers for {what}, got {array.dtype}: start from complex "
            "numbers, or write the real and the imaginary part as two components"
        )
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} must return {wanted}, got shape {array.shape}")
    return array if dtype is None else array.astype(dtype)


def _explained(
    name: str, form: str, function: Callable[..., object], args: tuple, error: Exception
) -> str | None:
    """A sentence that explains a usual mistake, or None for any other error."""
    for kind, what, remedy in _SLIPS:
        if isinstance(error, kind):
            return _TRACED.format(name=name, what=what, remedy=remedy, where=_where(error))
    message, where = str(error), _where(error)
    if isinstance(error, ValueError) and "to unpack" in message:
        return f"{name} must unpack as many values as its argument has, got {message}, {where}"
    if isinstance(error, ValueError) and "setting an array element" in message:
        what, remedy = "NumPy's arrays cannot hold its numbers", "Write jnp.stack([a, b])"
        return _TRACED.format(name=name, what=what, remedy=remedy, where=where)
    if not isinstance(error, TypeError):
        return None
    missing = f"args must be given where {name} uses them, got None"
    if form.endswith("args)") and args[-1] is None and "NoneType" in message:
        return None if message.startswith(missing) else f"{missing}: {message}, {where}"
    if "item assignment" in message or "does not support item deletion" in message:
        what, remedy = (
            "JAX's arrays do not change",
            "Write y.at[0].set(value), or jnp.stack([a, b])",
        )
        return _TRACED.format(name=name, what=what, remedy=remedy, where=where)
    if not takes(function, form) and "argument" in message:
        return f"{name} must be called as {form}, got a function with {_parameters(function)}"
    return None


def takes(function: Callable[..., object], form: str) -> bool:
    """Whether a function takes as many arguments as the form has, such as "f(t, y, args)"."""
    count = form.count(",") + 1
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a built-in function without a signature
        return True
    return True


def _parameters(function: Callable[..., object]) -> str:
    return f"the parameters {inspect.signature(function)}"


def _where(error: Exception) -> str:
    """The user's line: the last that is neither this package's nor an installed one's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        if not frame.filename.startswith((_PACKAGE, "<@")) and "-packages" not in frame.filename
    ]
    if not own:
        return "in its code"
    frame = own[-1]
    line = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
    return (
        f"in line {frame.lineno} of {frame.filename}: {line[:80]}"
        if line
        else f"in {frame.filename}"
    )

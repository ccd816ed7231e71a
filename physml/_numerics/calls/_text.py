"""How messages and `print` show values."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from physml._numerics.checks import is_concrete


def shown(value: object) -> str:
    """How a message shows a value: an array by dtype and shape, a long value by its type."""
    if isinstance(value, type):
        return f"the class {value.__name__}, which is not called"
    if inspect.isfunction(value) and value.__name__.isidentifier():
        return f"the function {value.__name__}"
    if isinstance(value, jax.Array | np.ndarray):
        return f"dtype {value.dtype} of shape {value.shape}"
    text = repr(value)
    if len(text) <= 60 and "\n" not in text and " at 0x" not in text:
        return text
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def listed(words: Iterable[str], last: str = "or") -> str:
    """Words as "a, b or c", each once; an empty text without words."""
    *before, end = dict.fromkeys(words) or [""]
    return f"{', '.join(before)} {last} {end}" if before else end


def summary(title: str, facts: Mapping[str, object]) -> str:
    """A record as `print` shows it: what it is, and a line for each fact.

    A number has six digits. A long array is shown by its shape, a traced value as "traced".
    """
    width = max(map(len, facts))
    lines = (f"\n  {name:<{width}}  {_fact(value)}" for name, value in facts.items())
    return title + "".join(lines)


def numbers_in(stats: Mapping[str, Any]) -> dict[str, Any]:
    """What a solver counted, without its arrays."""
    kinds = int | float | jax.Array | np.ndarray | np.generic
    return {name: x for name, x in stats.items() if isinstance(x, kinds) and not np.ndim(x)}


def _fact(value: object) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, int | float | jax.Array | np.ndarray | np.generic):
        return shown(value)
    if not is_concrete(value):
        return "traced"
    if isinstance(value, jax.Array | np.ndarray) and value.ndim == 1 and value.size <= 8:
        return ", ".join(f"{float(x):.6g}" for x in np.asarray(value))
    return f"an array of shape {np.shape(value)}" if np.ndim(value) else f"{float(value):.6g}"

"""What an annotation allows, and the words for it."""

import collections.abc
import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, DTypeLike, PRNGKeyArray

from physml._numerics.calls._classes import described
from physml._numerics.calls._shapes import Sizes, check_shape
from physml._numerics.calls._text import listed, shown
from physml._numerics.checks import is_concrete, require_key

_DTYPES: dict[str, tuple[type, str]] = {  # jaxtyping's names: which dtypes fit, and what they are
    "Float": (np.number, "real numbers"),
    "Real": (np.number, "real numbers"),
    "Num": (np.number, "numbers"),
    "Int": (np.integer, "integers"),
    "Integer": (np.integer, "integers"),
    "Bool": (np.bool_, "True or False"),
    "Shaped": (np.number, "real numbers"),
}


class Kind(NamedTuple):
    """One kind of value that an annotation allows.

    Attributes:
        words: what it is, as after "must be".
        fits: whether a value is of this kind.
        axes: the names of an array's axes, as jaxtyping has them; None if any shape is allowed.
        convert: makes of the value what the function receives; None if that is the value itself.
        parts: the parts of a value as (what follows the name, part, what is allowed), for a
            message that points at the wrong one.
    """

    words: str
    fits: Callable[[object], bool]
    axes: str | None = None
    convert: Callable[[Any], object] | None = None
    parts: Callable[[object], Iterable["Part"]] = lambda value: ()

    @property
    def fits_numbers(self) -> bool:
        """Whether arrays of numbers are of this kind."""
        return self is _NUMBERS or self.axes is not None


class Annotation(NamedTuple):
    """The kinds of value that an annotation allows. Without kinds it allows everything."""

    kinds: tuple[Kind, ...]

    @classmethod
    def of(cls, hint: object) -> "Annotation":
        """What a type hint allows."""
        members = _members(hint)
        if any(member in _ANYTHING or _is_open(member) for member in members):
            return cls(())
        kinds: list[Kind] = []
        for whole, kind in _TOGETHER:
            if whole <= set(members):
                kinds.append(kind)
                members = [member for member in members if member not in whole]
        kinds += map(_kind, members)
        if _NUMBER in kinds:  # first, so that a number needs no axes beside an array
            kinds = [_NUMBER, *(kind for kind in kinds if kind not in (_NUMBER, _SIMPLE[int]))]
        return cls(tuple(kinds))

    def check(self, name: str, value: Any, sizes: Sizes) -> object:
        """Check a value, and return what the function receives for it.

        Args:
            name: of the argument.
            value: of the argument.
            sizes: the axes of the arguments before; those of the value are added.

        Raises:
            TypeError: the value is of no allowed kind.
            ValueError: the value is NaN, or an array of a shape that is not allowed.
        """
        if not self.kinds:
            return value
        kind = next((kind for kind in self.kinds if kind.fits(value)), None)
        if kind is None or _is_nan(value):
            raise self._refusal(name, value)
        if kind.convert is not None:
            value = kind.convert(value)
        if kind.axes is not None:
            check_shape(name, np.shape(value), kind.axes, sizes)
        return value

    def allows(self, value: object) -> bool:
        """Whether a value is of an allowed kind, and not NaN."""
        if not self.kinds:
            return True
        return not _is_nan(value) and any(kind.fits(value) for kind in self.kinds)

    def words(self) -> str:
        """What it allows, as after "must be"."""
        return listed(kind.words for kind in self.kinds if kind.words != "None")

    def _refusal(self, name: str, value: object) -> Exception:
        """The exception for NaN, for a value of no allowed kind, or for its first wrong part."""
        if any(kind.fits(value) for kind in self.kinds):
            return ValueError(f"{name} must be a number, got {value}")
        named = hasattr(value, "_fields")  # a record, such as an optimiser, is one thing
        numbers = any(kind.fits_numbers for kind in self.kinds)
        for kind in () if named else self.kinds:
            parts = list(kind.parts(value))
            # What could be numbers as well is such a collection only if something in it fits.
            if numbers and not any(allowed.allows(part) for _, part, allowed in parts):
                continue
            for where, part, allowed in parts:
                if not allowed.allows(part):
                    return allowed._refusal(f"{name}{where}", part)
        if numbers and isinstance(value, _MANY):
            return TypeError(f"{name} must hold real numbers, got {shown(value)}")
        if numbers and isinstance(getattr(value, "ys", None), _ARRAYS):
            return TypeError(f"{name} must be {self.words()}, got {shown(value)}: pass its `ys`")
        words = self.words()
        choice = isinstance(value, str) and words.startswith(("one of", "a floating dtype"))
        return (ValueError if choice else TypeError)(f"{name} must be {words}, got {shown(value)}")


Part = tuple[str, object, Annotation]


def _members(hint: object) -> list[object]:
    """The members of a union, or the hint itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [x for part in typing.get_args(hint) for x in _members(part)]
    return [hint]


_ANYTHING = (Any, object, inspect.Parameter.empty, Ellipsis, type(Ellipsis))


def _is_open(hint: object) -> bool:
    """Whether a hint allows everything: a type variable, a pytree."""
    return isinstance(hint, typing.TypeVar | typing.ParamSpec) or (
        getattr(hint, "__module__", "") == "jaxtyping" and "PyTree" in getattr(hint, "__name__", "")
    )


def _kind(hint: Any) -> Kind:
    """The kind that a hint allows, if the hint is not a union."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is None or hint is type(None):
        return Kind("None", lambda value: value is None)
    if hasattr(hint, "dim_str"):
        return _array(hint)
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    if origin is typing.Literal:
        return Kind(
            f"one of {args}", lambda value: any(value is x or _same(value, x) for x in args)
        )
    if hint is collections.abc.Callable or origin is collections.abc.Callable:
        counted = len(args[0]) if args and isinstance(args[0], list) else None
        of = {None: "", 1: " of one argument"}.get(counted, f" of {counted} arguments")
        return Kind(f"a function{of}", callable)
    if origin is tuple:
        return _tuple(args)
    if origin is not None and isinstance(origin, type):
        if issubclass(origin, Mapping):
            return _mapping(args)
        if issubclass(origin, Collection):
            return _sequence(args)
        hint = origin
    return Kind(described(hint), lambda value: isinstance(value, hint))


def _same(value: object, choice: object) -> bool:
    return type(value) is type(choice) and bool(value == choice)


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64)


def _is_number(value: object) -> bool:
    """Whether a value is one real number, concrete or traced."""
    if isinstance(value, int | float | np.integer | np.floating):
        return not isinstance(value, bool | np.timedelta64)
    if isinstance(value, jax.Array | np.ndarray):
        return value.ndim == 0 and _is_real(value.dtype)
    return False


def _is_real(dtype: DTypeLike) -> bool:
    if np.issubdtype(dtype, np.timedelta64):  # an integer to NumPy, though in an arbitrary unit
        return False
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def _fits_numbers(value: object, kind: type = np.number) -> bool:
    """Whether a value is an array, a number, or rows of numbers, of a kind of dtype."""
    if isinstance(value, list | tuple):
        if any(not is_concrete(leaf) for leaf in jax.tree.leaves(value)):
            return True
        try:
            value = np.asarray(value)
        except (TypeError, ValueError):  # rows of different lengths
            return False
        if not value.size:
            return True
    elif isinstance(value, bool) or (isinstance(value, int | float)):
        value = np.asarray(value)
    if not isinstance(value, _ARRAYS):
        return False
    if kind is np.number:
        return _is_real(value.dtype)
    return jnp.issubdtype(value.dtype, kind)


def _array(hint: Any) -> Kind:
    """An array of a dtype with given axes; a list or a number is turned into an array."""
    category = hint.dtype.__name__
    if category in ("Key", "UInt8", "Int32", "UInt32"):
        return Kind(f"an array of {category.lower()}", lambda value: True, hint.dim_str)
    kind, numbers = _DTYPES[category]
    make = np.asarray if hint.array_type is np.ndarray else jnp.asarray

    def convert(value: Any) -> object:
        if isinstance(value, _ARRAYS):
            return value
        floating = category == "Float" and not any(
            hasattr(leaf, "dtype") for leaf in jax.tree.leaves(value)
        )
        return make(value, float) if floating else make(value)

    one = "an integer" if kind is np.integer else "a number"
    words = f"an array of {numbers}" if hint.dim_str else one
    return Kind(words, lambda value: _fits_numbers(value, kind), hint.dim_str, convert)


def _tuple(args: tuple) -> Kind:
    """A tuple of one or several kinds; a list is turned into a tuple."""
    if len(args) == 2 and args[1] is Ellipsis:
        kind = _sequence(args[:1], tuple | list)
        return kind._replace(words=kind.words.replace("a sequence", "a tuple"), convert=_as_tuple)
    each = [Annotation.of(hint) for hint in args]
    of_one_kind = len({one.words() if one.kinds else "" for one in each}) == 1

    def parts(value: object) -> Iterator[Part]:
        if isinstance(value, tuple | list) and len(value) == len(each):
            for at, (part, one) in enumerate(zip(value, each, strict=True)):
                yield f"[{at}]", part, one

    def fits(value: object) -> bool:
        found = list(parts(value))
        return len(found) == len(each) and all(one.allows(part) for _, part, one in found)

    several, count = ("a pair", "") if len(each) == 2 else ("a tuple", f"{len(each)} ")
    if of_one_kind:
        words = f"{several} of {count}{_plural(each[0])}"
    else:
        words = f"{several} ({', '.join(one.words() if one.kinds else 'anything' for one in each)})"
    return Kind(words, fits, None, _as_tuple, parts)


def _as_tuple(value: object) -> object:
    return tuple(value) if type(value) is list else value


def _sequence(args: tuple, kinds: type | types.UnionType = Iterable | np.ndarray) -> Kind:
    """A list or another collection of one kind; "xyz" counts as three names."""
    one = Annotation.of(args[0]) if args else Annotation(())

    def is_sequence(value: object) -> TypeGuard[Collection[object]]:
        if isinstance(value, bytes | Mapping) or not isinstance(value, kinds):
            return False
        return isinstance(value, collections.abc.Sized) and not np.ndim(getattr(value, "size", 1))

    def parts(value: object) -> Iterator[Part]:
        if is_sequence(value) and not isinstance(value, str):
            for at, part in enumerate(value):
                yield f"[{at}]", part, one

    def fits(value: object) -> bool:
        return is_sequence(value) and all(one.allows(part) for part in value)

    return Kind(f"a sequence of {_plural(one)}", fits, parts=parts)


def _mapping(args: tuple) -> Kind:
    """A dictionary from names to values of one kind."""
    key, one = map(Annotation.of, args)

    def parts(value: object) -> Iterator[Part]:
        if isinstance(value, Mapping) and all(key.allows(name) for name in value):
            for name, part in value.items():
                yield f"[{name!r}]", part, one

    def fits(value: object) -> bool:
        keys = isinstance(value, Mapping) and all(key.allows(name) for name in value)
        return keys and all(one.allows(part) for _, part, one in parts(value))

    return Kind(f"a dictionary from {_plural(key)} to {_plural(one)}", fits, parts=parts)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and bool(value != value)


def _plural(annotation: Annotation) -> str:
    """The words for several values, from those for one."""
    counted = r"^an? (array|function|integer|number|pair|sequence|tuple)\b"
    words = (re.sub(counted, r"\1s", kind.words) for kind in annotation.kinds)
    return listed(_PLURALS.get(x) or re.sub("^an? ", "", x) for x in words) or "values"


def _fits_dtype(value: Any) -> bool:
    try:
        return jnp.issubdtype(jnp.dtype(value), jnp.floating) and value is not None
    except TypeError:
        return False


def _fits_key(value: object) -> bool:
    try:
        require_key(key=value)
    except TypeError:
        return False
    return True


_PLURALS = {"text": "strings", "a path": "paths"}
_MANY = (list, tuple, jax.Array, np.ndarray)
_ARRAYS = (jax.Array, np.ndarray, np.generic)
_NUMBER = Kind("a number", _is_number)
_NUMBERS = Kind("a number or an array of real numbers", _fits_numbers)
_BOOL = Kind("True or False", lambda value: isinstance(value, bool | np.bool_))
_SIMPLE: dict[object, Kind] = {
    int: Kind("an integer", _is_integer),
    float: _NUMBER,
    np.number: _NUMBER,
    bool: _BOOL,
    str: Kind("text", lambda value: isinstance(value, str)),
    jax.Array: Kind(
        "an array", lambda value: isinstance(value, jax.Array | np.ndarray | np.generic)
    ),
    np.ndarray: Kind("an array", lambda value: isinstance(value, jax.Array | np.ndarray)),
}
_TOGETHER: tuple[tuple[set[object], Kind], ...] = (  # unions that mean one thing
    (
        set(typing.get_args(PRNGKeyArray)),
        Kind("a random key such as jax.random.key(0)", _fits_key),
    ),
    ({*typing.get_args(ArrayLike), Sequence[Any]}, _NUMBERS),
    (set(typing.get_args(ArrayLike)), _NUMBERS),
    (set(typing.get_args(DTypeLike)), Kind("a floating dtype such as jnp.float64", _fits_dtype)),
    (
        {str, os.PathLike[str]},
        Kind("a path", lambda value: isinstance(value, str | os.PathLike) and value != ""),
    ),
)

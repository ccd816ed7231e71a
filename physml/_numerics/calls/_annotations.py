"""What an annotation allows, and the words for it."""

import collections.abc
import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, DTypeLike, PRNGKeyArray

from physml._numerics.calls._text import shown
from physml._numerics.checks import is_concrete, require_key

_REMEDIES = {  # by the name of the class that is wanted: this module stands below all rooms
    "GradientTransformation": "optax.adam(1e-3) is one",
    "Images": "data.Images.from_arrays(images, labels) makes them",
    "Module": "nn.MLP makes one",
    "FeatureNetwork": "nn.MLP makes one",
    "RecurrentNetwork": "nn.RNN makes one",
    "StepMap": "reference.FlowMap(system, dt) steps a system, surrogate.Stepper a network",
    "System": "systems.from_function(f, dim) makes one of a right-hand side",
    "Trajectories": "data.from_arrays(ts, ys) makes them",
}
_NAMES = {
    "Module": "nnx.Module",
    "GradientTransformation": "optax.GradientTransformation",
    "FeatureNetwork": "network with `features` and a `readout`",
    "RecurrentNetwork": "network with `advance` and a `readout`",
}
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
    """

    words: str
    fits: Callable[[Any], bool]
    axes: str | None = None
    convert: Callable[[Any], Any] | None = None

    @property
    def fits_numbers(self) -> bool:
        """Whether arrays of numbers are of this kind."""
        return self is _NUMBERS or self.axes is not None


class Annotation(NamedTuple):
    """The kinds of value that an annotation allows. Without kinds it allows everything."""

    kinds: tuple[Kind, ...]
    remedy: str = ""

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
        names = (getattr(member, "__name__", "") for member in _members(hint))
        return cls(tuple(kinds), next((_REMEDIES[x] for x in names if x in _REMEDIES), ""))

    def check(self, name: str, value: Any, sizes: dict[str, tuple[int, ...]]) -> Any:
        """Check a value, and return what the function receives for it.

        Args:
            name: of the argument.
            value: of the argument.
            sizes: the lengths of axes by name, from the arguments before; new ones are added.

        Raises:
            TypeError: the value is of no allowed kind.
            ValueError: the value is NaN, or an array of a shape that is not allowed.
        """
        if not self.kinds:
            return value
        kind = next((kind for kind in self.kinds if kind.fits(value)), None)
        if kind is None:
            raise self._refusal(name, value)
        if isinstance(value, float) and value != value:
            raise ValueError(f"{name} must be a number, got {value}")
        if kind.convert is not None:
            value = kind.convert(value)
        if kind.axes is not None:
            _check_shape(name, np.shape(value), kind.axes, sizes)
        return value

    def _refusal(self, name: str, value: Any) -> Exception:
        """The exception for a value of no allowed kind."""
        given = [kind for kind in self.kinds if kind.words != "None"]
        if any(kind.fits_numbers for kind in given) and isinstance(value, _MANY):
            return TypeError(f"{name} must hold real numbers, got {shown(value)}")
        words = " or ".join(dict.fromkeys(kind.words for kind in given))
        remedy = f": {self.remedy}" if self.remedy else ""
        choice = isinstance(value, str) and words.startswith(("one of", "a floating dtype"))
        return (ValueError if choice else TypeError)(
            f"{name} must be {words}, got {shown(value)}{remedy}"
        )


def _check_shape(
    name: str, shape: tuple[int, ...], axes: str, sizes: dict[str, tuple[int, ...]]
) -> None:
    """Raise ValueError unless a shape fits the names of its axes; add new lengths to `sizes`."""
    wanted = axes.split()
    several = next((at for at, axis in enumerate(wanted) if axis[0] in "*."), None)
    lengths: list[tuple[int, ...]]
    if several is None:
        fits = len(shape) == len(wanted)
        lengths = [(n,) for n in shape]
    else:
        after = len(wanted) - several - 1
        fits = len(shape) >= len(wanted) - 1
        middle = shape[several : len(shape) - after]
        lengths = [(n,) for n in shape[:several]] + [middle]
        lengths += [(n,) for n in shape[len(shape) - after :]]
    named = [
        axis for axis in wanted if axis.lstrip("*").isidentifier() and axis.lstrip("*")[0] != "_"
    ]
    if fits:
        known = {axis: (int(axis),) for axis in wanted if axis.isdigit()} | {
            axis: sizes[axis] for axis in named if axis in sizes
        }
        found = dict(zip(wanted, lengths, strict=True))
        fits = all(found[axis] == length for axis, length in known.items())
        empty = any(0 in found[axis] for axis in wanted if axis != "...")
        if fits and not empty:
            sizes |= {axis: found[axis] for axis in named}
            return
    parts = [
        ", ".join(map(str, sizes[axis])) if axis in named and axis in sizes else axis.lstrip("_")
        for axis in wanted
    ]
    if not wanted:
        raise ValueError(f"{name} must be a number, got shape {shape}")
    text = ", ".join(part for part in parts if part) + "," * (len(wanted) == 1)
    empty = ", not empty" if 0 in shape else ""
    raise ValueError(f"{name} must have shape ({text}){empty}, got shape {shape}")


def _members(hint: object) -> list[Any]:
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
        return Kind("a function", callable)
    if origin is tuple:
        return _tuple(args)
    if origin is not None and isinstance(origin, type):
        if issubclass(origin, Mapping):
            return _mapping(args)
        if issubclass(origin, collections.abc.Collection):
            return _sequence(args)
        hint = origin
    name: str = _NAMES.get(hint.__name__) or hint.__name__
    article = "an" if name[0] in "AEIOUaeiou" or name.startswith("nnx") else "a"
    return Kind(f"{article} {name}", lambda value: isinstance(value, hint))


def _same(value: object, choice: object) -> bool:
    return type(value) is type(choice) and bool(value == choice)


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    """Whether a value is one real number, concrete or traced."""
    if isinstance(value, int | float | np.integer | np.floating):
        return not isinstance(value, bool)
    if isinstance(value, jax.Array | np.ndarray):
        return value.ndim == 0 and _is_real(value.dtype)
    return False


def _is_real(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def _fits_numbers(value: Any, kind: type = np.number) -> bool:
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

    def convert(value: Any) -> Any:
        if isinstance(value, _ARRAYS):
            return value
        floating = category == "Float" and not any(
            hasattr(leaf, "dtype") for leaf in jax.tree.leaves(value)
        )
        return make(value, float) if floating else make(value)

    words = f"an array of {numbers}" if hint.dim_str else "a number"
    return Kind(words, lambda value: _fits_numbers(value, kind), hint.dim_str, convert)


def _tuple(args: tuple) -> Kind:
    """A tuple of one or several kinds; a list is turned into a tuple."""
    many = len(args) == 2 and args[1] is Ellipsis
    each = [Annotation.of(hint) for hint in (args[:1] if many else args)]

    def fits(value: Any) -> bool:
        if not isinstance(value, tuple | list) or not (many or len(value) == len(each)):
            return False
        return all(_allows(each[0 if many else at], x) for at, x in enumerate(value))

    words = f"a tuple of {_plural(each[0])}" if many else f"a tuple of {len(each)} values"
    if not many and len({kind.words for one in each for kind in one.kinds}) == 1:
        words = f"a pair of {_plural(each[0])}" if len(each) == 2 else words
    return Kind(words, fits, None, lambda value: tuple(value) if type(value) is list else value)


def _sequence(args: tuple) -> Kind:
    """A list or another collection of one kind; "xyz" counts as three names."""
    one = Annotation.of(args[0]) if args else Annotation(())

    def fits(value: Any) -> bool:
        if isinstance(value, bytes | Mapping) or not isinstance(value, Iterable | np.ndarray):
            return False
        if not isinstance(value, collections.abc.Sized) or np.ndim(getattr(value, "size", 1)):
            return False
        return all(_allows(one, x) for x in value)

    return Kind(f"a sequence of {_plural(one)}", fits)


def _mapping(args: tuple) -> Kind:
    """A dictionary from names to values of one kind."""
    key, one = map(Annotation.of, args)

    def fits(value: Any) -> bool:
        return isinstance(value, Mapping) and all(
            _allows(key, name) and _allows(one, x) for name, x in value.items()
        )

    return Kind(f"a dictionary whose values are {_plural(one)}", fits)


def _allows(annotation: Annotation, value: Any) -> bool:
    return not annotation.kinds or any(
        kind.fits(value) and not (isinstance(value, float) and value != value)
        for kind in annotation.kinds
    )


def _plural(annotation: Annotation) -> str:
    """The words for several values, from those for one."""
    many = {"an integer": "integers", "a number": "numbers", "text": "strings"}
    many |= {
        kind.words: kind.words.replace("a pair", "pairs", 1).removeprefix("a ").removeprefix("an ")
        for kind in annotation.kinds
        if kind.words not in many
    }
    words = dict.fromkeys(many.get(kind.words, kind.words) for kind in annotation.kinds)
    return " or ".join(words) or "values"


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


_MANY = (list, tuple, jax.Array, np.ndarray)
_ARRAYS = (jax.Array, np.ndarray, np.generic)
_NUMBER = Kind("a number", _is_number)
_NUMBERS = Kind("a number or an array of real numbers", _fits_numbers)
_BOOL = Kind("True or False", lambda value: isinstance(value, bool | np.bool_))
_SIMPLE: dict[Any, Kind] = {
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
_TOGETHER: tuple[tuple[set[Any], Kind], ...] = (  # unions that mean one thing
    (
        set(typing.get_args(PRNGKeyArray)),
        Kind("a random key such as jax.random.key(0)", _fits_key),
    ),
    ({*typing.get_args(ArrayLike), Sequence[Any]}, _NUMBERS),
    (set(typing.get_args(ArrayLike)), _NUMBERS),
    (set(typing.get_args(DTypeLike)), Kind("a floating dtype", _fits_dtype)),
    (
        {str, os.PathLike[str]},
        Kind("a path", lambda value: isinstance(value, str | os.PathLike) and value != ""),
    ),
)

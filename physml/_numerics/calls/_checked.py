"""The check of a call: every argument is what the signature's annotation says."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import jax

from physml._numerics.calls._annotations import Annotation
from physml._numerics.compiled import in_programs_alone

Function = TypeVar("Function", bound=Callable[..., Any])


@runtime_checkable
class Dataclass(Protocol):
    """An instance of a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]


def checked(function: Function) -> Function:
    """The function, which first compares its arguments with its annotations.

    The signature is the contract. `int` is an integer and no bool, `float` one real number that is
    not NaN, `Float[Array, "time dim"]` an array of real numbers with these axes, and a class an
    instance of it. An axis has the same length in all arguments that name it. A list becomes an
    array where an array is wanted, and a tuple where a tuple is wanted. Whether values are
    positive, increasing or finite is checked by the function itself.

    Traced arguments pass by their shapes and dtypes. A check takes some microseconds and reads no
    array.

    Raises:
        TypeError: an argument is of another kind than its annotation says.
        ValueError: a number is NaN, or an array has other axes or is empty.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # which says what is missing or too much
        annotations, sizes = _annotations(function), {}
        given = bound.arguments
        for name, value in given.items():
            kind = signature.parameters[name].kind
            annotation = annotations.get(name)
            if annotation is None:
                continue
            if kind is inspect.Parameter.VAR_KEYWORD:
                given[name] = {x: annotation.check(x, v, sizes) for x, v in value.items()}
            elif kind is inspect.Parameter.VAR_POSITIONAL:
                checked = (annotation.check(f"{name}[{i}]", v, sizes) for i, v in enumerate(value))
                given[name] = tuple(checked)
            elif value is not signature.parameters[name].default:
                given[name] = annotation.check(name, value, sizes)
        if jax.config.jax_debug_nans:
            with in_programs_alone():
                return function(*bound.args, **bound.kwargs)
        return function(*bound.args, **bound.kwargs)

    return typing.cast(Function, call)


def require_fields(record: Dataclass) -> None:
    """Raise as `checked` unless every field of a dataclass is what its annotation says."""
    annotations, sizes = _annotations(type(record)), {}
    for field in dataclasses.fields(record):
        if field.name in annotations:
            annotations[field.name].check(field.name, getattr(record, field.name), sizes)


def require_instance(kind: type, **values: object) -> None:
    """Raise TypeError unless every value is of a type, as `checked` does."""
    for name, value in values.items():
        Annotation.of(kind).check(name, value, {})


@functools.cache
def _annotations(owner: Callable[..., object]) -> dict[str, Annotation]:
    """What the annotations of a function or a class allow, by name; made when first needed."""
    try:
        hints = typing.get_type_hints(owner)
    except NameError:  # a user's own class, with names that only its function knows
        return {}
    hints.pop("return", None)
    fields = {name: x for name, x in hints.items() if typing.get_origin(x) is not ClassVar}
    return {name: Annotation.of(hint) for name, hint in fields.items()}

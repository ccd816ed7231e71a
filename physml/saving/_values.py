"""Small values of Python's and JAX's classes: each is told by what makes it again."""

import datetime
import decimal
import fractions
import pathlib
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax.core import FrozenDict


class _Value(NamedTuple):
    """How values of one class are told.

    Attributes:
        of: the class itself; things of its subclasses are told otherwise.
        told: the things that make a value again, which have nodes themselves.
        make: the value that they make.
    """

    of: type
    told: Callable[[Any], tuple[object, ...]]
    make: Callable[..., object]


def _moment(text: str, fold: int, zone: datetime.tzinfo | None) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _clock(text: str, fold: int, zone: datetime.tzinfo | None) -> datetime.time:
    return datetime.time.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _timed(x: Any) -> tuple[object, ...]:
    return x.replace(tzinfo=None).isoformat(), x.fold, x.tzinfo


VALUES = {
    "bytes": _Value(bytes, lambda x: (x.hex(),), bytes.fromhex),
    "range": _Value(range, lambda x: (x.start, x.stop, x.step), range),
    "slice": _Value(slice, lambda x: (x.start, x.stop, x.step), slice),
    "deque": _Value(deque, lambda x: (list(x), x.maxlen), deque),
    "fraction": _Value(
        fractions.Fraction, lambda x: (x.numerator, x.denominator), fractions.Fraction
    ),
    "decimal": _Value(decimal.Decimal, lambda x: (str(x),), decimal.Decimal),
    "path": _Value(type(pathlib.Path()), lambda x: x.parts, pathlib.Path),
    "date": _Value(datetime.date, lambda x: (x.isoformat(),), datetime.date.fromisoformat),
    "time": _Value(datetime.time, _timed, _clock),
    "datetime": _Value(datetime.datetime, _timed, _moment),
    "timedelta": _Value(
        datetime.timedelta, lambda x: (x.days, x.seconds, x.microseconds), datetime.timedelta
    ),
    "timezone": _Value(datetime.timezone, lambda x: x.__getinitargs__(), datetime.timezone),
    "shape": _Value(
        jax.ShapeDtypeStruct,
        lambda x: (x.shape, x.dtype, x.weak_type),
        lambda shape, dtype, weak: jax.ShapeDtypeStruct(shape, dtype, weak_type=weak),
    ),
}
"""What is told by things that make it again: kind of the node -> how."""

KINDS = {value.of: kind for kind, value in VALUES.items()}

DICTS = {
    dict: "dict",
    OrderedDict: "ordered dict",
    defaultdict: "default dict",
    FrozenDict: "frozen dict",
}
"""What is told by pairs of keys and values."""


def kind_of(thing: Any) -> str | None:
    """The kind in `VALUES` that tells all of a thing, or None."""
    kind = KINDS.get(type(thing))
    if kind == "shape" and VALUES[kind].make(*VALUES[kind].told(thing)) != thing:
        return None  # it names devices
    return kind

"""What a file cannot hold: the user's own functions and classes, named, described and handed in."""

import contextlib
import hashlib
import inspect
import sys
import textwrap
import types
import warnings
from collections.abc import Mapping
from typing import TypedDict

_LINES = 12  # of a function's text that are kept for the reader


class Known(TypedDict):
    """What a file says of a user's function, class or object."""

    kind: str
    module: str
    source: str
    code: list[str] | None


def describe(thing: object) -> Known:
    """What is known of a user's function, class or object, so that it can be found again."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return {
        "kind": _kind(thing),
        "module": str(getattr(named, "__module__", "")),
        "source": _source(thing),
        "code": _fingerprint(thing),
    }


def check_own(wanted: Mapping[str, Known], given: Mapping[str, object], path: object) -> None:
    """Raise unless the user hands in everything that a file names, and each of its kind.

    Raises:
        ValueError: something is missing.
        TypeError: something is of another kind.

    Warns:
        UserWarning: a function is not the one that was used when the thing was saved.
    """
    missing = {name: known for name, known in wanted.items() if name not in given}
    if missing:
        lines = "".join(
            f"\n  {name!r}: a {known['kind']} of the module {known['module']}"
            + textwrap.indent(f"\n{known['source']}" if known["source"] else "", "      ")
            for name, known in missing.items()
        )
        raise ValueError(
            f"functions must hold what {path} cannot, load(path, functions={{name: ...}}), got "
            f"{sorted(given) or 'none'}, without{lines}"
        )
    for name, known in wanted.items():
        kind = _kind(given[name])
        if kind != known["kind"]:
            raise TypeError(f"functions[{name!r}] must be a {known['kind']}, got a {kind}")
        code = _fingerprint(given[name])
        if code and known["code"] and code != known["code"] and code[0] == known["code"][0]:
            warnings.warn(
                f"functions[{name!r}] is not the function with which {path} was saved, which was\n"
                f"{known['source']}\nWhat it answers may differ.",
                stacklevel=4,
            )


def _kind(thing: object) -> str:
    if isinstance(thing, type):
        return "class"
    return "function" if hasattr(thing, "__name__") else f"{type(thing).__qualname__} object"


def _source(thing: object) -> str:
    """The first lines of a function or a class; empty if they are not known."""
    if not callable(thing):
        return ""
    try:
        lines = inspect.getsource(inspect.unwrap(thing)).splitlines()
    except (OSError, TypeError, ValueError):
        return ""
    more = ["..."] if len(lines) > _LINES else []
    return textwrap.dedent("\n".join(lines[:_LINES] + more))


def _fingerprint(thing: object) -> list[str] | None:
    """What a function does, as compiled by this version of Python; None for anything else."""
    function = inspect.unwrap(thing) if callable(thing) else thing
    if not isinstance(function, types.FunctionType):
        return None
    content = repr((_instructions(function.__code__), _settings(function))).encode()
    return [f"{sys.version_info[0]}.{sys.version_info[1]}", hashlib.sha256(content).hexdigest()]


def _instructions(code: types.CodeType) -> tuple[object, ...]:
    return code.co_code, code.co_names, [_constant(x) for x in code.co_consts]


def _constant(x: object) -> object:
    if isinstance(x, types.CodeType):
        return _instructions(x)
    return sorted(map(repr, x)) if isinstance(x, frozenset) else x  # whose order is random


def _settings(function: types.FunctionType) -> list[bool | int | float | complex | str]:
    """The numbers and texts that a function has from its defaults and from around it."""
    values = [*(function.__defaults__ or ())]
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # an empty cell
            values.append(cell.cell_contents)
    return [x for x in values if isinstance(x, bool | int | float | complex | str)]

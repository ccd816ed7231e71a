"""Files that appear whole or not at all, and their names."""

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from physml._types import Numbers
from physml.saving import replacing

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")

KINDS = ("figures", "history", "models")
"""The folders in a run's folder that its methods write in."""

Json = None | bool | int | float | str | list | dict
"""What JSON can hold."""


def slug(label: str) -> str:
    """A label in the form that names of files and metrics have: lower case, '_' between words.

    Example:
        >>> experiment.slug("batches, momentum 0.9")
        'batches_momentum_0.9'
    """
    return "_".join("".join(c if c.isalnum() or c in ".-" else " " for c in label).split()).lower()


def checked_name(name: str) -> str:
    """The name itself, if it is a plain file name, which leads to no other folder."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"name must hold letters, digits, '_', '-' and '.' only, got {name!r}")
    return name


def jsonable(value: object) -> Json:
    """The value in JSON's types; NaN, infinities and all else as strings."""
    match value:
        case dict():
            return {str(key): jsonable(item) for key, item in value.items()}
        case list() | tuple():
            return [jsonable(item) for item in value]
        case float() if not math.isfinite(value):
            return str(value)
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object that a JSON file holds; None if there is no file.

    Raises:
        ValueError: it holds something else, as when it was cut.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} must hold a JSON object, but it is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a JSON object, got {found!r:.50}")
    return found


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a mapping as strict JSON."""
    write_text(path, json.dumps(jsonable(content), indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8."""
    write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_arrays(path: Path, arrays: Mapping[str, Numbers]) -> None:
    """Write arrays by name as `.npz`."""
    found = {name: np.asarray(array) for name, array in arrays.items()}

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:  # NumPy would add .npz to the name of a path
            np.savez(file, allow_pickle=False, **found)

    write(path, save)


def write(path: Path, writer: Callable[[Path], object]) -> None:
    """Let `writer` write a file beside `path`, and put it there once it is whole."""
    with replacing(path) as temporary:
        writer(temporary)


def remove(folder: Path, names: Iterable[object]) -> None:
    """Remove figures, histories and models that a run has written, and folders left empty.

    The names, such as "figures/errors.png", come from a file that anybody may have changed. One
    that is of no such file is passed over, so that nothing else is removed.
    """
    for name in map(str, names):
        kind, _, own = name.partition("/")
        if kind not in KINDS or not _NAME.fullmatch(own):
            continue
        path = folder / name
        if path.is_dir():  # a model: a folder of versions, in which a user may keep files too
            for version in path.glob("version_*.zip"):
                version.unlink()
        else:
            path.unlink(missing_ok=True)
        for left in (path, path.parent):
            with contextlib.suppress(OSError):  # it is not there, or somebody's files are in it
                left.rmdir()

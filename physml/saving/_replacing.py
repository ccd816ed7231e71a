"""Files that appear whole or not at all, however many threads and processes write them."""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to: when all is written, that file takes the place of the one at `path`.

    Whatever goes wrong before, the old file stays as it was, and nothing is left beside it. The
    bytes are on the disk before the file gets its name, so that a power failure cannot leave a
    file that is half empty. Of several writers of one file, the last one to end wins.
    """
    with _part(path) as part:
        yield part
        _to_disk(part)
        os.replace(part, path)


def add(paths: Iterable[Path], beside: Path, write: Callable[[Path], object]) -> Path:
    """Write a new file, which gets the first of some paths that is free, and return that path.

    No file is replaced, and two writers never get the same path.

    Args:
        paths: asked for when all is written.
        beside: what the file is named after while it is written.
        write: writes the file at the path that it is given.
    """
    with _part(beside) as part:
        write(part)
        _to_disk(part)
        return next(path for path in paths if _takes(part, path))


def _takes(part: Path, path: Path) -> bool:
    """Give a file another name, unless there is a file of that name."""
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: for a moment an empty file has the name
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return False
        os.replace(part, path)
    return True


@contextlib.contextmanager
def _part(path: Path) -> Iterator[Path]:
    """A path that nobody else writes to, neither a thread nor a process of another computer."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())

"""Files that appear whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to: when all is written, that file takes the place of the one at `path`.

    Whatever goes wrong before, the old file stays as it was, and nothing is left beside it. The
    bytes are on the disk before the file gets its name, so that a power failure cannot leave a
    file that is half empty.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

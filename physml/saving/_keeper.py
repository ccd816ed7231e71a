"""Versions of a thing that changes, written beside the work that changes it."""

import os
import threading
import time
import warnings
from pathlib import Path

from physml.saving._save import save

_SHARE = 0.02  # of the time, at most, in which versions are written


class Keeper:
    """Saves a thing again and again, as `physml.save` does, in a thread of its own.

    A process that is killed loses what was done since the last version. Writing takes at most 2 %
    of the time: the next version is due when fifty times as long has passed as the last one took.

    It is a context manager, whose block is left when the last version is on the disk.

    Args:
        path: a folder, which keeps the last two versions.
        seconds: the least time between two versions.

    Warns:
        UserWarning: a version could not be written, such as on a full disk. The work goes on, and
            the versions before it stay.
    """

    def __init__(self, path: str | os.PathLike[str], seconds: float = 5.0):
        self.path = Path(path)
        self._seconds, self._next = seconds, time.perf_counter() + seconds
        self._thread: threading.Thread | None = None
        self._problem: Exception | None = None

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.wait()

    @property
    def due(self) -> bool:
        """Whether it is time for another version."""
        writing = self._thread is not None and self._thread.is_alive()
        return not writing and time.perf_counter() >= self._next

    def keep(self, thing: object) -> None:
        """Begin to write a version of a thing, none of whose arrays is changed in place."""
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(thing,))
        self._thread.start()

    def wait(self) -> None:
        """Return when what was begun is on the disk."""
        if self._thread is not None:
            self._thread.join()
        problem, self._problem = self._problem, None
        if isinstance(problem, OSError):
            warnings.warn(
                f"the work goes on, but it is not kept in {self.path}: {problem}", stacklevel=4
            )
        elif problem is not None:
            raise problem

    def _write(self, thing: object) -> None:
        begin = time.perf_counter()
        try:
            save(self.path, thing)
        except Exception as problem:
            self._problem = problem
        end = time.perf_counter()
        self._next = end + max(self._seconds, (end - begin) / _SHARE)

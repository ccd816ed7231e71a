"""Who works in a run's folder, and how the last run there ended."""

import contextlib
import getpass
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from physml.experiment import _files as files

_RECORD, _LOCK = "run.json", "run.lock"


class Claim:
    """The right to write in a folder, which one process at a time has.

    The system takes it back when the process ends, however that happens; so the claim of a process
    that was killed stands in nobody's way. `run.json` says whose it is and how it ended.
    """

    def __init__(self, folder: Path, command: str | None):
        self._folder = folder
        self._lock = FileLock(folder / _LOCK)
        self._record: dict[str, object] = {"state": "running", "command": command}

    def take(self) -> None:
        """Take the folder.

        Raises:
            RuntimeError: another run has it; the message says whose, and since when.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            other = files.read_json(self._folder / _RECORD) or {}
            raise RuntimeError(
                f"out_dir must be free, got {self._folder}, where {other.get('owner', 'somebody')} "
                f"(process {other.get('process')}) has been running since {other.get('started')}"
            ) from None
        self._record |= {"owner": _owner(), "process": os.getpid(), "started": now()}
        self._write()

    def give_back(self, error: BaseException | None) -> None:
        """Say how the run ended, and let others have the folder."""
        ends = "complete" if error is None else "failed"
        self._record["state"] = "interrupted" if isinstance(error, KeyboardInterrupt) else ends
        self._record["ended"] = now()
        if error is not None:
            self._record["error"] = f"{type(error).__name__}: {error}".rstrip(": ")
        self._write()
        self._lock.release()

    def _write(self) -> None:
        files.write_json(self._folder / _RECORD, self._record)


def record_of(folder: Path) -> dict[str, Any] | None:
    """What `run.json` says of the last run in a folder; None if there was none.

    Its "state" is one of running, complete, interrupted, failed, and killed, where the process
    ended without a word.
    """
    record = files.read_json(folder / _RECORD)
    if record and record["state"] == "running":
        lock = FileLock(folder / _LOCK)
        with contextlib.suppress(Timeout), lock.acquire(timeout=0):
            record["state"] = "killed"
    return record


def now() -> str:
    """The time, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _owner() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        user = str(os.getuid()) if hasattr(os, "getuid") else "somebody"
    return f"{user}@{socket.gethostname()}"

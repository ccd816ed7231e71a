"""Who works in a run's folder, and how the last run there ended."""

import contextlib
import getpass
import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from physml.experiment import _files as files

RECORD, _LOCK = "run.json", "run.lock"


class Claim:
    """The right to write in a folder, which one process at a time has.

    The system takes it back when the process ends, however that happens; so the claim of a process
    that was killed stands in nobody's way. `run.json` says whose it is, how it ended, and which
    figures, histories and models it has written.

    Args:
        folder: the run's folder.
        facts: what `run.json` is to say of the run beside that.
    """

    def __init__(self, folder: Path, facts: Mapping[str, object]):
        self._folder, self._facts = folder, facts
        self._lock = FileLock(folder / _LOCK)
        self._record: dict[str, Any] = {}

    def take(self) -> None:
        """Take the folder, in which nothing is written yet.

        Raises:
            RuntimeError: another run has it; the message says whose, and since when.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            other = self._written()
            raise RuntimeError(
                f"out_dir must be free, got {self._folder}, where {other.get('owner', 'somebody')} "
                f"(process {other.get('process')}) has been running since {other.get('started')}"
            ) from None

    def release(self) -> None:
        """Let others have the folder."""
        self._lock.release()

    def begin(self) -> None:
        """Say that a run is under way, in the place of what an earlier run has said."""
        earlier = self._written().get("files")
        self._record = {"state": "running", **self._facts, "owner": _owner()}
        self._record |= {"process": os.getpid(), "started": now()}
        self._record["files"] = earlier if isinstance(earlier, list) else []
        self._write()

    def clear(self) -> None:
        """Remove the figures, histories and models of earlier runs."""
        files.remove(self._folder, self._record["files"])
        self._record["files"] = []

    def note(self, name: str) -> None:
        """Say that the run writes a file; before it does, so that none is ever missed."""
        # After its end the folder may be another run's, which has a record of its own.
        if self._lock.is_locked and name not in self._record["files"]:
            self._record["files"].append(name)
            self._write()

    def end(self, error: BaseException | None) -> None:
        """Say how the run ended.

        Raises:
            OSError: that cannot be written, and there is no error that would tell it.
        """
        ends = "complete" if error is None else "failed"
        self._record["state"] = "interrupted" if isinstance(error, KeyboardInterrupt) else ends
        self._record["ended"] = now()
        if error is not None:
            self._record["error"] = f"{type(error).__name__}: {error}".rstrip(": ")
        try:
            self._write()
        except OSError as problem:
            if error is None:
                raise
            error.add_note(f"{self._folder / RECORD} does not say how the run ended: {problem}")

    def _written(self) -> dict[str, Any]:
        """What `run.json` says now; nothing where nobody can read it."""
        with contextlib.suppress(ValueError):
            return files.read_json(self._folder / RECORD) or {}
        return {}

    def _write(self) -> None:
        files.write_json(self._folder / RECORD, self._record)


def record_of(folder: Path) -> dict[str, Any] | None:
    """What `run.json` says of the last run in a folder; None if there was none.

    Its "state" is one of running, complete, interrupted, failed, and killed, where the process
    ended without a word.

    Raises:
        ValueError: the file is damaged, or no run has written it.
    """
    record = files.read_json(folder / RECORD)
    if record is not None and "state" not in record:
        raise ValueError(f"{folder / RECORD} must have the state of a run, got {sorted(record)}")
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

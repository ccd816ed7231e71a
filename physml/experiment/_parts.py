"""What an unfinished run has made so far, kept in its folder so that another process can go on."""

import dataclasses
import importlib.metadata
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from physml import saving
from physml.experiment import _files as files
from physml.experiment._command import PLACES

PACKAGES = ("physml", "jax", "jaxlib", "flax", "optax", "diffrax", "equinox", "numpy")
_RECORD, _CHECKPOINT = "begun.json", ".checkpoint"


def versions() -> dict[str, str]:
    """The versions of the packages that figures depend on."""
    return {f"versions.{name}": importlib.metadata.version(name) for name in PACKAGES}


def identity(config: Any) -> dict[str, files.Json]:
    """What runs have in common that have the same figures: their configuration and versions.

    Where results and compiled programs go does not change the results.
    """
    fields = dataclasses.asdict(config).items()
    own = {name: value for name, value in fields if name not in PLACES}
    return {name: files.jsonable(fact) for name, fact in {**own, **versions()}.items()}


class Parts:
    """The finished parts of a run by name, and the checkpoints of those that are not finished.

    Attributes:
        spent_before: the seconds that earlier processes have spent on the run, by "wall_s" and
            "compile_seconds".
    """

    def __init__(self, folder: Path, run: Mapping[str, object]):
        self.spent_before: dict[str, float] = {}
        self._folder, self._identity = folder, run

    def found(self) -> bool:
        """Whether another process has left something to go on from.

        Raises:
            ValueError: what is to be resumed is another run, or nobody knows which run it is.
        """
        try:
            record = files.read_json(self._folder / _RECORD)
            if record is None:
                return False
            old, self.spent_before = dict(record["run"]), dict(record["spent"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"resume must go on with a run that is known, but {self._folder} holds parts of "
                f"one that is not ({error}): without resume the run begins anew"
            ) from error
        new = self._identity
        differing = [
            f"{key} = {new.get(key)}, not {old.get(key)}"
            for key in {**old, **new}
            if old.get(key) != new.get(key)
        ]
        if differing:
            raise ValueError(
                f"resume must go on with the run of which {self._folder} holds parts, got one with "
                + ", ".join(differing)
            )
        return True

    def clear(self) -> None:
        """Remove all parts."""
        if self._folder.exists():
            shutil.rmtree(self._folder)

    def checkpoint(self, name: str) -> Path:
        """Where the part of this name may keep what it has not finished."""
        if not (self._folder / _RECORD).exists():
            self._record(self.spent_before)
        return self._folder / f"{files.checked_name(name)}{_CHECKPOINT}"

    def load(self, name: str) -> PyTree:
        """A part that was kept.

        Raises:
            FileNotFoundError: there is none, or it was damaged; then it is removed.
            ValueError: it cannot be opened here, such as float64 while JAX's x64 mode is off.

        Warns:
            UserWarning: it was damaged.
        """
        path = self._folder / files.checked_name(name)
        try:
            return saving.load(path)
        except ValueError as error:
            if not any(saving.why_damaged(version) for version in _versions(path)):
                error.add_note(f"To compute the part {name!r} again, remove {path}.")
                raise
            warnings.warn(f"the part {name!r} is computed again: {error}", stacklevel=3)
            shutil.rmtree(path)
            raise FileNotFoundError(f"no part {name!r} is kept any more") from error

    def keep(self, name: str, answer: object, spent: Mapping[str, float]) -> None:
        """Keep a part that is finished, and remove its checkpoint.

        Raises:
            TypeError: the part holds functions or classes that `physml.load` would have to be
                handed, or what `physml.save` cannot keep.
        """
        self._record(spent)
        path = self._folder / files.checked_name(name)
        if own := saving.save(path, answer, keep=1):
            shutil.rmtree(path)
            raise TypeError(
                f"a part must be what physml.load opens by itself, got for {name!r} one that holds "
                f"functions or classes of your own, {', '.join(own)}: keep its arrays instead"
            )
        if (checkpoint := self.checkpoint(name)).exists():
            shutil.rmtree(checkpoint)

    def in_words(self) -> str:
        """What is kept; empty if nothing is.

        A folder without a file, as a full disk leaves it, keeps nothing.
        """
        found = sorted(path for path in self._folder.glob("*/"))
        begun = [path for path in found if path.name.endswith(_CHECKPOINT)]
        done = sum(bool(_versions(path)) for path in found if path not in begun)
        what = [f"{done} finished part{'s' * (done != 1)}"] if done else []
        what += [
            f"a checkpoint of {path.name.removesuffix(_CHECKPOINT)}"
            for path in begun
            if any(file.is_file() for file in path.rglob("*"))
        ]
        return " and ".join(what)

    def _record(self, spent: Mapping[str, float]) -> None:
        self._folder.mkdir(exist_ok=True)
        files.write_json(self._folder / _RECORD, {"run": self._identity, "spent": dict(spent)})


def _versions(part: Path) -> list[Path]:
    """The files in which a part is kept."""
    return list(part.glob("version_*.zip"))

"""What an unfinished run has made so far, kept in its folder so that another process can go on."""

import importlib.metadata
import shutil
from collections.abc import Mapping
from pathlib import Path

from jaxtyping import PyTree

from physml import saving
from physml.experiment import _files as files

PACKAGES = ("physml", "jax", "jaxlib", "flax", "optax", "diffrax", "equinox", "numpy")
_RECORD, _CHECKPOINT = "begun.json", ".checkpoint"


def versions() -> dict[str, str]:
    """The versions of the packages that figures depend on."""
    return {f"versions.{name}": importlib.metadata.version(name) for name in PACKAGES}


class Parts:
    """The finished parts of a run by name, and the checkpoints of those that are not finished.

    Attributes:
        spent_before: the seconds that earlier processes have spent on the run, by "wall_s" and
            "compile_seconds".
    """

    def __init__(self, folder: Path, config: Mapping[str, object]):
        self.spent_before: dict[str, float] = {}
        self._folder = folder
        facts = {**config, **versions()}
        self._identity = {name: files.jsonable(fact) for name, fact in facts.items()}

    def begin(self, resume: bool) -> None:
        """Look whether another process has left something to go on from.

        Raises:
            ValueError: what is to be resumed is another run.
        """
        record = files.read_json(self._folder / _RECORD)
        if record is None or not resume:
            self.clear()
            return
        old, new = record["run"], self._identity
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
        self.spent_before = record["spent"]

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
            FileNotFoundError: there is none.
            ValueError: its file is damaged.
        """
        return saving.load(self._folder / files.checked_name(name))

    def keep(self, name: str, answer: object, spent: Mapping[str, float]) -> None:
        """Keep a part that is finished, and remove its checkpoint.

        Raises:
            TypeError: the part holds functions or classes that `physml.load` would have to be
                handed.
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
        """What is kept, and how to go on from it; empty if nothing is."""
        found = sorted(path.name for path in self._folder.glob("*/"))
        begun = [name for name in found if name.endswith(_CHECKPOINT)]
        done = len(found) - len(begun)
        if not found:
            return ""
        what = [f"{done} finished part{'s' * (done != 1)}"] if done else []
        what += [f"a checkpoint of {name.removesuffix(_CHECKPOINT)}" for name in begun]
        return (
            f"{self._folder} keeps {' and '.join(what)}: "
            "the same command with --resume goes on from there."
        )

    def _record(self, spent: Mapping[str, float]) -> None:
        self._folder.mkdir(exist_ok=True)
        files.write_json(self._folder / _RECORD, {"run": self._identity, "spent": dict(spent)})

"""Keeps a march through time on the disk, so that another process can go on."""

import json
import os
from typing import Any

import numpy as np

from physml import saving
from physml.pinn.space_time._march import March, Slab, Stand


class Checkpoint:
    """A march through time on the disk, with what says that it is this march."""

    def __init__(self, path: str | os.PathLike[str] | None, facts: dict[str, Any]):
        self._keeper = None if path is None else saving.Keeper(path)
        self._facts = facts

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._keeper is not None:
            self._keeper.wait()

    def resume(self, march: March) -> Stand | None:
        """Have a march stand where the last version of it stood, if there is one."""
        if self._keeper is None:
            return None
        path = self._keeper.path
        like = {"facts": self._facts | {"computed": ...}, "stand": ..., "march": ...}
        try:
            found = saving.load(path, like=like)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(f"checkpoint must be of this march, got {path}: {error}") from error
        if list(found["facts"]["computed"]) != self._facts["computed"]:
            raise ValueError(
                f"checkpoint must be of this march, got {path}: its residual or a condition "
                "computes something else, such as with another coefficient"
            )
        said = found["march"]
        march.slabs = [Slab(**slab) for slab in said["slabs"]]
        march.defects, march.sizes = list(said["defects"]), np.asarray(said["sizes"])
        march.num_rejected, march.num_iterations = said["counts"]
        march.initial_defect = said["initial_defect"]
        march.random.bit_generator.state = json.loads(said["random"])
        return Stand(**found["stand"])

    def note(self, march: March, stand: Stand) -> None:
        """Write a version if it is time for one."""
        if self._keeper is None or not self._keeper.due:
            return
        said = {
            "slabs": [slab._asdict() for slab in march.slabs],
            "defects": list(march.defects),
            "sizes": march.sizes,
            "counts": (march.num_rejected, march.num_iterations),
            "initial_defect": march.initial_defect,
            "random": json.dumps(march.random.bit_generator.state),
        }
        version = {"facts": self._facts, "stand": stand._asdict(), "march": said}
        self._keeper.keep(version)

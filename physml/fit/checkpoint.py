"""Save the state of a fit, and load it into a state of the same structure."""

import os

import jax
import numpy as np
from jaxtyping import PyTree

from physml import saving


def save(path: str | os.PathLike[str], tree: PyTree) -> None:
    """Write the state of a fit as `physml.save` does, which keeps the last two versions.

    Args:
        path: a folder, made if need be; a file `version_<n>.zip` is put into it.
        tree: the state of a fit, a model, ...

    Raises:
        FileExistsError: if `path` is a file.
        ValueError: if the tree has nothing to save.
    """
    saved = jax.Array | np.ndarray | np.generic | bool | int | float | complex
    if not any(isinstance(leaf, saved) for leaf in jax.tree.leaves(tree)):
        raise ValueError(f"tree must hold arrays or numbers to save, got {type(tree).__name__}")
    saving.save(path, tree)


def load(path: str | os.PathLike[str], like: PyTree) -> PyTree:
    """What `save` wrote, as a pytree like `like`.

    Arrays come back on the devices of `like`, and functions are those of `like`.

    Args:
        path: where it was saved.
        like: a pytree of the same structure, shapes and dtypes, for instance a freshly made model
            or the state of a fit of no steps.

    Raises:
        FileNotFoundError: if nothing was saved at `path`.
        ValueError: if `like` differs from what was saved in structure, shapes, dtypes or anything
            static, such as an activation or a time step (it says where, with both values); or if
            the file is damaged.
    """
    return saving.load(path, like=like)

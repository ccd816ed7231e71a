"""Save any pytree to disk and load it again, by Orbax."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, PyTree


def save(path: str | os.PathLike[str], tree: PyTree) -> None:
    """Write the arrays and numbers of a pytree, replacing what was saved at `path` before.

    The new version is complete on disk before the old one goes: whenever the process dies, `load`
    finds one of the two.

    Args:
        path: a directory, made if need be; an Orbax checkpoint `version_<n>` is put into it.
        tree: a model, the state of a fit, ...: arrays, random keys and Python numbers are saved;
            functions and other static leaves are not, `load` takes them from its `like`.

    Raises:
        FileExistsError: if `path` is a file.
        ValueError: if the tree has nothing to save.
    """
    import orbax.checkpoint as ocp  # takes seconds, which only those who save should pay

    leaves = _leaves(tree)
    # Orbax refuses arrays without elements; their shape says all there is to say.
    arrays = {name: array for name, leaf in leaves.items() if (array := _to_numpy(leaf)).size}
    if not arrays:
        raise ValueError(f"tree must hold arrays or numbers to save, got {type(tree).__name__}")
    directory = Path(path).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    old = _versions(directory)
    new = directory / f"version_{max(old, default=0) + 1}"
    kinds = {name: _kind(leaf) for name, leaf in leaves.items()}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(new, arrays, custom_metadata=kinds)
    for version in [*old.values(), *directory.glob("version_*.orbax-checkpoint-tmp*")]:
        shutil.rmtree(version)


def load(path: str | os.PathLike[str], like: PyTree) -> PyTree:
    """What `save` wrote, as a pytree like `like`.

    Args:
        path: where it was saved.
        like: a pytree of the same structure, shapes and dtypes, for instance a freshly made model
            or the state of a fit of no steps. Arrays come back on its devices.

    Raises:
        FileNotFoundError: if nothing was saved at `path`.
        ValueError: if `like` differs from what was saved in structure, shapes or dtypes; it says
            where.
    """
    import orbax.checkpoint as ocp

    versions = _versions(Path(path).absolute())
    if not versions:
        raise FileNotFoundError(f"no checkpoint at {path}")
    version = versions[max(versions)]
    leaves = _leaves(like)
    with ocp.StandardCheckpointer() as checkpointer:
        _compare(checkpointer.metadata(version).custom_metadata, leaves)
        blanks = {name: array for name, leaf in leaves.items() if (array := _to_numpy(leaf)).size}
        arrays = checkpointer.restore(version, blanks)

    def restored(path: tuple, leaf: PyTree) -> PyTree:
        name = jax.tree_util.keystr(path)
        return _from_numpy(arrays[name], leaf) if name in arrays else leaf

    return jax.tree.map_with_path(restored, like)


def _versions(directory: Path) -> dict[int, Path]:
    found = {re.fullmatch(r"version_(\d+)", entry.name): entry for entry in directory.glob("*")}
    return {int(match[1]): entry for match, entry in found.items() if match}


def _leaves(tree: PyTree) -> dict[str, ArrayLike]:
    """What is saved of a tree, by its path in it."""
    saved = jax.Array | np.ndarray | np.generic | bool | int | float | complex
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if isinstance(leaf, saved)}


def _kind(leaf: Any) -> str:
    if isinstance(leaf, bool | int | float | complex) and not isinstance(leaf, np.generic):
        return type(leaf).__name__
    return f"{leaf.dtype}{list(leaf.shape)}"


def _compare(saved: dict[str, str], leaves: dict[str, ArrayLike]) -> None:
    given = {name: _kind(leaf) for name, leaf in leaves.items()}
    differences = [
        f"{saved.get(name, 'nothing')} at {name}, got {given.get(name, 'nothing')}"
        for name in sorted(saved.keys() | given.keys())
        if saved.get(name) != given.get(name)
    ]
    if differences:
        more = f" and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise ValueError("like must be what was saved, " + ", ".join(differences[:5]) + more)


def _is_key(leaf: ArrayLike) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_numpy(leaf: ArrayLike) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _from_numpy(array: np.ndarray, like: PyTree) -> ArrayLike:
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
    if isinstance(like, jax.Array):
        return jax.device_put(array, like.sharding)
    return array if isinstance(like, np.ndarray) else type(like)(array.item())

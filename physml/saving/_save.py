"""Save whatever a user keeps, and load it again, in a folder that keeps the last versions."""

import contextlib
import importlib.metadata
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from physml._numerics.calls import checked
from physml._numerics.checks import require_count
from physml.saving import _file
from physml.saving._decode import decode
from physml.saving._encode import encode
from physml.saving._like import decode_like
from physml.saving._own import check_own, describe
from physml.saving._replacing import add

_PACKAGES = ("physml", "jax", "flax", "optax", "equinox", "diffrax", "numpy")
_ABANDONED = 3600.0  # seconds without a byte after which nobody writes to a file any more


@checked
def save(path: str | os.PathLike[str], thing: object, *, keep: int = 2) -> tuple[str, ...]:
    """Write whatever you keep, so that `load(path)` opens it without anything else.

    Solutions, step maps, fits, networks, systems, trajectories, images, and any list, tuple or
    dict of them: what is saved is the class, its static facts and its arrays, with a checksum of
    all. Small values of Python's own classes are kept too: sets, bytes, ranges, paths, dates,
    members of enumerations and the like. No code is saved. Functions and classes of JAX, Flax,
    physml and the packages they stand on are saved by their names.

    The new version is complete on the disk before the oldest one goes: whenever the process dies,
    the disk is full or Ctrl-C comes, the earlier versions are there. Several threads and processes
    may write into one folder: each version gets a number of its own, in the order of their ends.

    Args:
        path: a folder, made if need be; the file `version_<n>.zip` is put into it. Other files in
            it are left alone.
        thing: what is saved. It must not be traced by JAX.
        keep: how many versions the folder keeps, this one included.

    Returns:
        The names of your own functions and classes in it, which `load` has to be handed. Most
        things have none.

    Raises:
        FileExistsError: `path` is a file.
        TypeError: the thing is traced, or holds an array or a dtype that a file cannot hold: of
            Python objects, or of a class of its own such as `np.matrix` or a masked array.
        ValueError: the thing is inside of itself, or nested more than 100 deep.
        OSError: the folder cannot be written.

    Example:
        >>> network = nn.MLP(3, (4,), 3, activation="sin", rngs=nnx.Rngs(0))
        >>> physml.save("network", network)
        ()
        >>> bool((physml.load("network")(jnp.ones(3)) == network(jnp.ones(3))).all())
        True
    """
    require_count(keep=keep)
    folder = Path(path).absolute()
    content = encode(thing)
    contents = {
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "own": {name: describe(own) for name, own in content.own.items()},
        "thing": content.thing,
    }
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "version"
    written = add(_free(folder), part, lambda path: _file.write(path, contents, content.arrays))
    _clear(folder, written, keep)
    return tuple(content.own)


@checked
def load(
    path: str | os.PathLike[str],
    *,
    functions: Mapping[str, object] | None = None,
    like: object = None,
    version: int | None = None,
) -> Any:
    """What `save` wrote, bit for bit.

    The file is checked first. Nothing in it is executed: it names classes and functions of physml
    and the packages that physml stands on, and no module of yours is imported for it.

    Args:
        path: the folder, or one of the files in it.
        functions: your own functions and classes, by the names that `save` returned.
        like: a thing of the same structure, for instance a network that was just made. Arrays are
            put on its devices, functions are taken from it, and it must agree in all that is
            static: activations, time steps, names, shapes, dtypes. Where it has `...`, anything may
            have been saved; arrays there come back as NumPy's.
        version: which version, the number in the file's name; the newest unless given.

    Raises:
        FileNotFoundError: nothing was saved at `path`.
        ValueError: the file is damaged, cut, or not physml's (the message names versions that are
            whole); it holds something of yours that `functions` lacks; it is float64 while JAX's
            x64 mode is off; or `like` differs, and the message says where.
        TypeError: `functions` holds something of another kind.
    """
    file, contents, arrays = _read(Path(path).absolute(), version)
    if like is not None:
        return decode_like(contents["thing"], arrays, like)
    own = functions or {}
    check_own(contents["own"], own, path)
    try:
        return decode(contents["thing"], arrays, lambda name, _: own[name])
    except ValueError as error:
        raise ValueError(f"{file}, saved by physml {contents['physml']}: {error}") from error


def _free(folder: Path) -> Iterator[Path]:
    """Where the next version is written; more than one where others write into the folder too."""
    newest = max(_versions(folder), default=0)
    yield from (folder / f"version_{number}.zip" for number in itertools.count(newest + 1))


def _clear(folder: Path, written: Path, keep: int) -> None:
    """Delete old versions, and what processes that died were writing."""
    versions = _versions(folder)
    newest = max(versions, default=0)
    for number, file in versions.items():
        if number <= newest - keep:
            file.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):  # another writer has deleted it
        abandoned = written.stat().st_mtime - _ABANDONED
        for part in folder.glob(".version*.part"):
            if part.stat().st_mtime < abandoned:
                part.unlink(missing_ok=True)


def _versions(folder: Path) -> dict[int, Path]:
    found = {re.fullmatch(r"version_(\d+)\.zip", file.name): file for file in folder.glob("*")}
    return {int(match[1]): file for match, file in found.items() if match}


def _find(path: Path, version: int | None) -> Path:
    if path.is_file():
        return path
    versions = _versions(path)
    if not versions:
        raise FileNotFoundError(f"nothing was saved at {path}")
    if version is not None and version not in versions:
        raise FileNotFoundError(f"version must be one of {sorted(versions)}, got {version}")
    return versions[max(versions) if version is None else version]


def _read(path: Path, version: int | None) -> tuple[Path, dict[str, Any], list[np.ndarray]]:
    """The file to load, and what it holds."""
    while True:
        file = _find(path, version)
        with contextlib.suppress(FileNotFoundError):  # a writer deleted it, having a newer one
            if problem := _file.why_damaged(file):
                raise ValueError(f"{file} is no saved thing: {problem}{_offer(file)}")
            return file, *_file.read(file)


def _offer(damaged: Path) -> str:
    """A sentence that names the versions beside a damaged one that are whole."""
    whole = [n for n, file in _versions(damaged.parent).items() if not _file.why_damaged(file)]
    if not whole:
        return ""
    return (
        f". An earlier version is whole: load(..., version={max(whole)}), or delete {damaged.name}"
    )

"""Save whatever a user keeps, and load it again, in a folder that keeps the last versions."""

import importlib.metadata
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from physml._numerics.calls import checked
from physml._numerics.checks import require_count
from physml.saving import _file
from physml.saving._decode import decode
from physml.saving._encode import encode
from physml.saving._like import decode_like
from physml.saving._own import check_own, describe

_PACKAGES = ("physml", "jax", "flax", "optax", "equinox", "diffrax", "numpy")


@checked
def save(path: str | os.PathLike[str], thing: object, *, keep: int = 2) -> tuple[str, ...]:
    """Write whatever you keep, so that `load(path)` opens it without anything else.

    Solutions, step maps, fits, networks, systems, trajectories, images, and any list, tuple or
    dict of them: what is saved is the class, its static facts and its arrays, with a checksum of
    all. No code is saved. Functions and classes of JAX, Flax, physml and the packages they stand
    on are saved by their names.

    The new version is complete on the disk before the oldest one goes: whenever the process dies,
    the disk is full or Ctrl-C comes, the earlier versions are there.

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
        TypeError: the thing is traced, or holds an array of Python objects.
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
    old = _versions(folder)
    newest = max(old, default=0)
    _file.write(folder / f"version_{newest + 1}.zip", contents, content.arrays)
    for number, file in old.items():
        if number <= newest + 1 - keep:
            file.unlink(missing_ok=True)
    for part in folder.glob(".version_*.part"):  # of processes that died
        if int(re.findall(r"\d+", part.name)[0]) <= newest:
            part.unlink(missing_ok=True)
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
    file = _find(Path(path).absolute(), version)
    if problem := _file.why_damaged(file):
        raise ValueError(f"{file} is no saved thing: {problem}{_offer(file)}")
    contents, arrays = _file.read(file)
    if like is not None:
        return decode_like(contents["thing"], arrays, like)
    own = functions or {}
    check_own(contents["own"], own, path)
    try:
        return decode(contents["thing"], arrays, lambda name, _: own[name])
    except ValueError as error:
        raise ValueError(f"{file}, saved by physml {contents['physml']}: {error}") from error


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


def _offer(damaged: Path) -> str:
    """A sentence that names the versions beside a damaged one that are whole."""
    whole = [n for n, file in _versions(damaged.parent).items() if not _file.why_damaged(file)]
    if not whole:
        return ""
    return (
        f". An earlier version is whole: load(..., version={max(whole)}), or delete {damaged.name}"
    )

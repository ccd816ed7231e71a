"""One saved thing as one file: an ordinary zip archive whose checksum is its comment."""

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from physml.saving._encode import Stored

_FORMAT = "physml.saving/1"
_CONTENTS = "contents.json"
_BEFORE = b"sha256:"
_TAIL = len(_BEFORE) + 2 * hashlib.sha256().digest_size
_BLOCK = 1 << 20  # bytes that are read at a time
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # so that the same thing gives the same bytes


def write(path: Path, contents: Mapping[str, object], arrays: Sequence[Stored]) -> None:
    """Write a file that holds JSON and arrays.

    `zipfile` and `numpy.load` read it without physml: `contents.json` and `0.npy`, `1.npy`, ...
    Numbers that NumPy does not know, such as bfloat16, are there as unsigned integers.
    """
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = b"?" * _TAIL
        facts = {"format": _FORMAT, "dtypes": [str(x.dtype) for x in arrays], **contents}
        text = json.dumps(facts, indent=1, allow_nan=False)
        archive.writestr(zipfile.ZipInfo(_CONTENTS, _LONG_AGO), text)
        for number, array in enumerate(arrays):
            stored = _storable(_on_host(array))
            member = zipfile.ZipInfo(f"{number}.npy", _LONG_AGO)
            # A batch of solutions has room for far more windows than it used: zeros.
            if 2 * np.count_nonzero(stored) < stored.size:
                member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, stored, allow_pickle=False)
    checksum = _BEFORE + _checksum(path)
    with path.open("rb+") as file:
        file.seek(-_TAIL, 2)
        file.write(checksum)


def why_damaged(path: Path) -> str:
    """What is wrong with a file; empty if it holds what was written."""
    size = path.stat().st_size
    with path.open("rb") as file:
        begins = file.read(4)
        file.seek(max(0, size - _TAIL))
        ends = file.read()
    if begins != b"PK\x03\x04" and not ends.startswith(_BEFORE):
        return "physml did not write it"
    if size < _TAIL or not ends.startswith(_BEFORE):
        return "its end is missing"
    if ends != _BEFORE + _checksum(path):
        return "its bytes are not those that were written"
    return ""


def read(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The JSON and the arrays of a file that is whole.

    Raises:
        ValueError: a newer version of physml wrote it.
    """
    with zipfile.ZipFile(path) as archive:
        contents = json.loads(archive.read(_CONTENTS))
        if contents["format"] != _FORMAT:
            raise ValueError(
                f"{path} must have the format {_FORMAT}, got {contents['format']}: physml "
                f"{contents.get('physml')} wrote it"
            )
        arrays = []
        for number, dtype in enumerate(contents["dtypes"]):
            with archive.open(f"{number}.npy") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
            as_bits = array.dtype.kind == "u" and str(array.dtype) != dtype
            arrays.append(array.view(jnp.dtype(dtype)) if as_bits else array)
    return contents, arrays


def _on_host(array: Stored) -> np.ndarray:
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        from jax.experimental import multihost_utils  # only where there are several hosts

        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def _storable(array: np.ndarray) -> np.ndarray:
    """An array of a dtype that NumPy knows, with the same bytes."""
    known = array.dtype.isbuiltin != 2  # 2 is a dtype that another package has registered
    return array if known else array.view(f"u{array.itemsize}")


def _checksum(path: Path) -> bytes:
    """Of all but the tail. The file is read, not mapped: a mapped file that another process cuts
    ends this one."""
    checksum, left = hashlib.sha256(), path.stat().st_size - _TAIL
    with path.open("rb") as file:
        while block := file.read(min(_BLOCK, left)):
            checksum.update(block)
            left -= len(block)
    return checksum.hexdigest().encode()

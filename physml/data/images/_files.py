"""The files in which MNIST and CIFAR are published, read from their bytes."""

import gzip
import io
import math
import pickle
import zlib
from collections.abc import Callable

import numpy as np
from jaxtyping import PyTree


def parse_idx(content: bytes, where: str, ndim: int) -> np.ndarray:
    """The array of bytes in an idx file, which may be compressed by gzip.

    The format: two zero bytes, 8 for unsigned bytes, the number of dimensions, each dimension as a
    big-endian 32-bit integer, and the entries, the last index fastest.

    Args:
        content: what the file holds.
        where: the file's name, for the messages.
        ndim: the number of dimensions that the array must have.

    Raises:
        ValueError: the file is cut, corrupt, or no idx file of that many dimensions.
    """
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{where} is cut or corrupt: {error}") from error
    magic, header = bytes((0, 0, 8, ndim)), 4 + 4 * ndim
    if content[:4] != magic or len(content) < header:
        raise ValueError(
            f"{where} must be an idx file of bytes in {ndim} dimensions, which begins with "
            f"{magic!r} and {ndim} sizes, got {content[:4]!r}"
        )
    shape = tuple(np.frombuffer(content, ">u4", ndim, offset=4).tolist())
    if len(content) - header != math.prod(shape):
        raise ValueError(
            f"{where} is cut or corrupt: it must have {math.prod(shape)} bytes for shape {shape}, "
            f"got {len(content) - header}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def parse_cifar(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) and labels (n,) of a CIFAR-10 batch for Python.

    The batch is a pickled dict: `data` has a row of 3072 bytes for each image, first all red
    values, then all green, then all blue, row by row; `labels` is a list of integers. The pickle is
    read by an unpickler that can call nothing but what makes arrays of bytes.

    Raises:
        ValueError: the file is cut or corrupt, asks for another function, or holds no such dict.
    """
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{where} is cut, corrupt or no CIFAR-10 batch: {error}") from error
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= set(batch):
        raise ValueError(f"{where} must be a CIFAR-10 batch, a dict with data and labels")
    data, labels = batch[b"data"], batch[b"labels"]
    pixels = data.array if isinstance(data, _Bytes) else None
    if pixels is None or pixels.ndim != 2 or pixels.shape[1] != 3072:
        raise ValueError(
            f"{where} must be a CIFAR-10 batch, with data of (n, 3072) bytes, "
            f"got {type(data).__name__ if pixels is None else pixels.shape}"
        )
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError(f"{where} must be a CIFAR-10 batch, with labels in a list of integers")
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.asarray(labels, np.int32)


class _Bytes:
    """Stands for a NumPy array of bytes while a batch is unpickled."""

    array: np.ndarray | None = None

    def __setstate__(self, state: PyTree) -> None:
        _, shape, dtype, column_major, content = state
        if dtype.code not in (b"u1", "u1") or column_major:
            raise pickle.UnpicklingError(f"data must be rows of bytes, got dtype {dtype.code!r}")
        self.array = np.frombuffer(content, np.uint8).reshape(shape)


class _Dtype:
    """Stands for a NumPy dtype."""

    def __init__(self, code: bytes | str, *flags: object):
        self.code = code

    def __setstate__(self, state: PyTree) -> None:
        pass  # byte order and alignment, which single bytes do not have


def _reconstruct(*what: object) -> _Bytes:
    return _Bytes()


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin-1")  # how Python 3 writes bytes where Python 2 is to read them


_KNOWN = {
    ("numpy", "ndarray"): _Bytes,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
}


class _BatchUnpickler(pickle.Unpickler):
    """Makes dicts, lists, numbers, strings and `_Bytes`; imports nothing."""

    def find_class(self, module_name: str, global_name: str, /) -> Callable[..., object]:
        if (module_name, global_name) not in _KNOWN:
            raise pickle.UnpicklingError(
                f"it asks for {module_name}.{global_name}, which no batch of images needs"
            )
        return _KNOWN[module_name, global_name]

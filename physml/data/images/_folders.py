"""Folders of images, one for each class, read into arrays."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from physml.data.images._arrays import checked_labels, checked_pixels

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".npy", ".pgm", ".png", ".ppm", ".tif", ".tiff")
"""The endings of the files that `Images.from_folder` reads."""


def read_folder(
    folder: Path,
    names: Sequence[str] | None,
    size: tuple[int, int] | None,
    channels: int | None,
) -> tuple[np.ndarray, np.ndarray, Sequence[str] | None]:
    """The images, labels and names of the classes; arguments and errors as `Images.from_folder`."""
    if not folder.is_dir():
        raise FileNotFoundError(f"folder must be a folder with images, got {folder}")
    if channels is not None and (type(channels) is not int or channels not in (1, 3)):
        raise ValueError(f"channels must be 1, 3 or None, got {channels!r}")
    try:
        sizes = np.asarray((1, 1) if size is None else size)
    except (TypeError, ValueError):  # lists of different lengths
        sizes = np.asarray(None)
    if sizes.shape != (2,) or sizes.dtype.kind not in "iu" or sizes.min() < 1:
        raise ValueError(f"size must be two positive integers, (height, width), got {size}")
    stacked, numbers = folder / "images.npy", folder / "labels.npy"
    if stacked.exists() and numbers.exists():
        pixels, classes = _load(stacked), _load(numbers)
        try:
            pixels = checked_pixels(pixels)
            return pixels, checked_labels(classes, len(pixels), names), names
        except (TypeError, ValueError) as error:
            raise type(error)(f"{folder}, images.npy and labels.npy: {error}") from error
    classes = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."
    )
    if not classes:
        missing = " and ".join(path.name for path in (stacked, numbers) if not path.exists())
        raise ValueError(
            f"{folder} must have a folder of images for each class, or the files images.npy and "
            f"labels.npy, got no folder and no {missing}"
        )
    names = classes if names is None else names
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise ValueError(
            f"{folder} must have no other classes than names, {names}, got a folder for "
            f"{', '.join(unknown)}"
        )
    images: list[np.ndarray] = []
    labels: list[int] = []
    for name in classes:
        for path in _image_paths(folder / name):
            image = _read(path, size, channels)
            if images:
                _require_alike(path, image, images[0])
            images.append(image)
            labels.append(names.index(name))
    return np.stack(images), np.asarray(labels), names


def _image_paths(folder: Path) -> list[Path]:
    paths = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != "."
    )
    if not paths:
        raise ValueError(
            f"{folder} must have images of its class, got no file that ends in one of "
            f"{', '.join(SUFFIXES)}"
        )
    return paths


def _require_alike(path: Path, image: np.ndarray, first: np.ndarray) -> None:
    if (image.shape, image.dtype) != (first.shape, first.dtype):
        advice = (
            "arrays are taken as they are, make them alike"
            if path.suffix.lower() == ".npy"
            else "pass size=(height, width) or channels=1 or 3 to read all image files alike"
        )
        raise ValueError(
            f"{path} must be as the first image, {first.dtype}{first.shape}, "
            f"got {image.dtype}{image.shape}: {advice}"
        )


def _read(path: Path, size: tuple[int, int] | None, channels: int | None) -> np.ndarray:
    """One image (height, width, channels)."""
    if path.suffix.lower() == ".npy":
        return _read_array(path)
    from PIL import Image, ImageOps  # only where image files are read

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)  # as the camera was held
    # What Pillow raises for damaged files of different kinds.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is cut, corrupt or no image: {error}") from error
    own = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}.get(image.mode)
    transparency = " with transparency" if "transparency" in image.info else ""
    if own is None or transparency:
        raise ValueError(
            f"{path} must be grey or red, green and blue with eight bits each and no transparency, "
            f"got mode {image.mode}{transparency}: convert it"
        )
    image = image.convert({1: "L", 3: "RGB", None: own}[channels])
    if size is not None:
        height, width = size
        image = image.resize((width, height))
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _read_array(path: Path) -> np.ndarray:
    array = _load(path)
    if array.ndim not in (2, 3):
        raise ValueError(
            f"{path} must have shape (height, width) or (height, width, channels), "
            f"got {array.shape}"
        )
    try:
        return checked_pixels(array[None])[0]
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from error


def _load(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged header can raise nearly anything
        raise ValueError(f"{path} is cut, corrupt or no array of numbers: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} must hold one array, got an archive of several")
    return array

"""Labelled images as data: one record, stratified splits, scaling, a user's own files."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, PRNGKeyArray, UInt8

from physml._numerics.checks import floating_array, is_concrete, require_finite

Pixels = UInt8[Array, "n height width channels"] | Float[Array, "n height width channels"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".npy", ".pgm", ".png", ".ppm", ".tif", ".tiff")
"""The endings of the files that `Images.from_folder` reads."""


class Images(eqx.Module):
    """Images, the class of each, and the names of the classes.

    `Images.from_arrays` and `Images.from_folder` make and check one. `images[index]` selects some
    by a slice or an integer array, `len(images)` counts them.

    Attributes:
        images: the pixels, channels last: bytes as a file has them, or floats.
        labels: the class of each image, from 0.
        names: the classes' names.
        white: the value of a pixel of full brightness, which `scaled` makes 1.
        source: what the images are, for the record.

    Raises:
        ValueError: shapes that do not fit together, or nothing in them.
    """

    images: Pixels
    labels: Int32[Array, " n"]
    names: tuple[str, ...] = eqx.field(static=True)
    white: float = eqx.field(static=True, default=1.0)
    source: str = eqx.field(static=True, default="")

    def __check_init__(self):
        if self.images.ndim != 4 or 0 in self.images.shape:
            raise ValueError(
                "images must have shape (n, height, width, channels), not empty; "
                f"got {self.images.shape}"
            )
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels must have shape ({len(self.images)},), one for each image; "
                f"got {self.labels.shape}"
            )

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any,
        names: Sequence[str] | None = None,
        *,
        white: float | None = None,
        source: str = "",
    ) -> "Images":
        """Checked arrays as a record.

        Args:
            images: (n, height, width, channels), or (n, height, width) for one channel. Integers
                from 0 to 255 become bytes; floats keep their dtype.
            labels: integers (n,).
            names: the classes' names, such as `train.names` for test images, which may be without
                some of them; "0", "1", ... up to the largest label by default, and all have images.
            white: the value of full brightness: 255 for integers and 1 for floats by default.
            source: what the images are.

        Raises:
            TypeError: images that are not numbers, or labels that are not integers.
            ValueError: images of another shape, such as channels first, or flattened, or not finite
                or out of range; labels of another shape or out of range; without names a class
                that has no images; a white that is not positive.
        """
        pixels = _checked_pixels(images)
        classes = _checked_labels(labels, len(pixels), names)
        if names is None:
            counts = np.bincount(classes)
            if (counts == 0).any():
                raise ValueError(
                    f"every class must have images, there are none of "
                    f"{np.flatnonzero(counts == 0).tolist()}: number the labels without gaps, or "
                    "pass the names of all classes"
                )
            names = tuple(map(str, range(len(counts))))
        if white is None:
            white = 255.0 if pixels.dtype == np.uint8 else 1.0
        if not 0 < white < np.inf:
            raise ValueError(f"white must be positive and finite; got {white}")
        return cls(jnp.asarray(pixels), jnp.asarray(classes), tuple(map(str, names)), white, source)

    @classmethod
    def from_folder(
        cls,
        folder: str | os.PathLike[str],
        *,
        names: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        channels: int | None = None,
    ) -> "Images":
        """The images of a folder, by class.

        The folder has a folder for each class, named like the class, with an image a file: PNG,
        JPEG and the like with eight bits a channel, or `.npy` with an array (height, width) or
        (height, width, channels). Files with other endings than `SUFFIXES` are left alone. Or it
        has two files, `images.npy` and `labels.npy`, as `from_arrays` wants them.

        Args:
            folder: the folder.
            names: the classes in the order of their numbers, as test images must have them from
                the training images, `names=train.names`; a class of these may be missing. By
                default the names of the folders, sorted.
            size: (height, width) to which image files are resized; without it all must agree.
            channels: 1 to read image files as grey, 3 as red, green and blue; as they are by
                default.

        Raises:
            FileNotFoundError: no such folder.
            ValueError: the folder is of neither kind, a class that has a folder has no images in
                it or is none of `names`, or a file (it is named) is cut, corrupt, or differs from
                the first in its shape.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"folder must be a folder with images; got {folder}")
        if channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1, 3 or None; got {channels}")
        sizes = np.asarray((1, 1) if size is None else size)
        if sizes.shape != (2,) or sizes.dtype.kind not in "iu" or sizes.min() < 1:
            raise ValueError(f"size must be two positive integers, (height, width); got {size}")
        stacked, numbers = folder / "images.npy", folder / "labels.npy"
        if stacked.exists() and numbers.exists():
            return cls.from_arrays(_load(stacked), _load(numbers), names, source=folder.name)
        classes = sorted(
            path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."
        )
        if not classes:
            missing = " and ".join(path.name for path in (stacked, numbers) if not path.exists())
            raise ValueError(
                f"{folder} must have a folder of images for each class, or the files images.npy "
                f"and labels.npy; it has no folder, and no {missing}"
            )
        names = classes if names is None else list(map(str, names))
        unknown = [name for name in classes if name not in names]
        if unknown:
            raise ValueError(
                f"{folder} must have no other classes than names, {names}; it has a folder for "
                f"{', '.join(unknown)}"
            )
        images: list[np.ndarray] = []
        labels: list[int] = []
        for name in classes:
            paths = sorted(
                path
                for path in (folder / name).iterdir()
                if path.suffix.lower() in SUFFIXES and path.name[0] != "."
            )
            if not paths:
                raise ValueError(
                    f"{folder / name} must have images of its class, there is no file that ends "
                    f"in one of {', '.join(SUFFIXES)}"
                )
            for path in paths:
                image = _read(path, size, channels)
                first = images[0] if images else image
                if (image.shape, image.dtype) != (first.shape, first.dtype):
                    advice = (
                        "arrays are taken as they are, make them alike"
                        if path.suffix.lower() == ".npy"
                        else "pass size=(height, width) or channels=1 or 3 to read all image files "
                        "alike"
                    )
                    raise ValueError(
                        f"{path} is {image.dtype}{image.shape}, the first image is "
                        f"{first.dtype}{first.shape}: {advice}"
                    )
                images.append(image)
                labels.append(names.index(name))
        return cls.from_arrays(np.stack(images), np.asarray(labels), names, source=folder.name)

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(self, index: slice | Int[Array | np.ndarray, " k"]) -> "Images":
        """Some of the images, by a slice or their numbers.

        Raises:
            IndexError: there is no image of a number.
        """
        if not isinstance(index, slice) and is_concrete(index):
            numbers = np.asarray(index)
            wrong = numbers[(numbers < -len(self)) | (numbers >= len(self))]
            if len(wrong):  # JAX would give the nearest
                raise IndexError(f"there is no image {wrong[0]} of {len(self)}")
        return Images(self.images[index], self.labels[index], self.names, self.white, self.source)

    def split(self, fractions: Sequence[float], key: PRNGKeyArray) -> tuple["Images", ...]:
        """A random partition in which every class has its share of every part.

        Each class is cut by itself, to the nearest image; images keep their order in a part.

        Example:
            train, valid, test = images.split((0.8, 0.1, 0.1), key)

        Raises:
            ValueError: the fractions are not positive or do not add to one, or a class has too few
                images to be in every part.
        """
        shares = np.asarray(fractions, float)
        if shares.ndim != 1 or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
            raise ValueError(f"fractions must be positive and add to 1, got {tuple(fractions)}")
        labels = np.asarray(self.labels)
        order = np.asarray(jax.random.permutation(key, len(self)))
        parts: list[list[np.ndarray]] = [[] for _ in shares]
        for label, name in enumerate(self.names):
            members = order[labels[order] == label]
            edges = np.rint(np.cumsum(shares) * len(members)).astype(int)[:-1]
            for part, chosen in zip(parts, np.split(members, edges), strict=True):
                if len(chosen) == 0:
                    raise ValueError(
                        f"class {name!r} has {len(members)} images, too few for every part of "
                        f"{tuple(fractions)} to have some"
                    )
                part.append(chosen)
        return tuple(self._rows(np.sort(np.concatenate(part))) for part in parts)

    def scaled(self, dtype: Any = None) -> "Images":
        """The same images as floats, from 0 for black to 1 for `white`.

        Args:
            dtype: a floating dtype; JAX's default, or that of floating images, by default.
        """
        return self._with(floating_array("images", self.images, dtype) / self.white, white=1.0)

    def transformed(self, function: Callable[[Array], Array]) -> "Images":
        """The same images after a function of the array of them all.

        Mean 0 and standard deviation 1 in each channel, by what the training images have:

            standardizer = Standardizer.fit(train.images)
            train, test = (part.transformed(standardizer) for part in (train, test))
        """
        return self._with(function(self.images), self.white)

    def _rows(self, rows: np.ndarray) -> "Images":
        """`self[rows]`, picked on the host: no program is compiled for each number of rows."""
        images, labels = np.asarray(self.images)[rows], np.asarray(self.labels)[rows]
        return Images(jnp.asarray(images), jnp.asarray(labels), self.names, self.white, self.source)

    def _with(self, images: Array, white: float) -> "Images":
        return Images(images, self.labels, self.names, white, self.source)


def _checked_pixels(images: Any) -> np.ndarray:
    """Images as an array (n, height, width, channels) of bytes or floats."""
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise ValueError(f"images must all have one shape: {error}") from error
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.size == 0:
        raise ValueError(
            "images must have shape (n, height, width, channels) or (n, height, width), not empty; "
            f"got {array.shape}"
            + (": reshape the rows to images" if array.ndim == 2 and array.size else "")
        )
    if array.shape[1] <= 4 < array.shape[3]:
        raise ValueError(
            f"images must have their channels last, (n, height, width, channels); got "
            f"{array.shape}, which has them first: pass np.moveaxis(images, 1, -1)"
        )
    if array.dtype.kind in "iu":
        if array.min() < 0 or array.max() > 255:
            raise ValueError(
                f"images of integers must be from 0 to 255; got {array.min()} to {array.max()}: "
                "divide by the value of full brightness"
            )
        return array.astype(np.uint8, copy=False)
    array = np.asarray(floating_array("images", array))
    require_finite("images", array)
    return array


def _checked_labels(labels: Any, count: int, names: Sequence[str] | None) -> np.ndarray:
    array = np.asarray(labels)
    if array.ndim != 1 or len(array) != count:
        advice = ""
        if array.ndim == 2:  # classes in a column, as Keras has them, or one of them marked by 1
            advice = "labels[:, 0]" if array.shape[1] == 1 else "labels.argmax(axis=1)"
        raise ValueError(
            f"labels must have shape ({count},), one for each image; got {array.shape}"
            + (f": pass {advice}" if advice else "")
        )
    if array.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers; got dtype {array.dtype}")
    # Without names there cannot be more classes than images, of which each must have one.
    top = (count if names is None else len(names)) - 1
    wrong = np.flatnonzero((array < 0) | (array > top))
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            f"labels must number the classes without gaps, from 0 to {top} at most; "
            f"got {array[i]} at index {i} ({len(wrong)} of {count} are out of range)"
        )
    return array.astype(np.int32)


def _read(path: Path, size: tuple[int, int] | None, channels: int | None) -> np.ndarray:
    """One image (height, width, channels)."""
    if path.suffix.lower() == ".npy":
        array = _load(path)
        array = array[..., None] if array.ndim == 2 else array
        if array.ndim != 3:
            raise ValueError(
                f"{path} must have shape (height, width) or (height, width, channels); "
                f"got {array.shape}"
            )
        try:
            return _checked_pixels(array[None])[0]
        except (TypeError, ValueError) as error:
            raise type(error)(f"{path}: {error}") from error
    from PIL import Image, ImageOps  # only where image files are read

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)  # as the camera was held
    # Pillow's words for damaged files of different kinds.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is cut, corrupt or no image: {error}") from error
    own = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}.get(image.mode)
    transparency = " with transparency" if "transparency" in image.info else ""
    if own is None or transparency:
        raise ValueError(
            f"{path} has mode {image.mode}{transparency}, expected grey or red, green and blue "
            "with eight bits each and no transparency: convert it"
        )
    image = image.convert({1: "L", 3: "RGB", None: own}[channels])
    if size is not None:
        height, width = size
        image = image.resize((width, height))
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _load(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged header can raise nearly anything
        raise ValueError(f"{path} is cut, corrupt or no array of numbers: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} must hold one array; it is an archive of several")
    return array

"""Labelled images as data: one record, stratified splits, scaling."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Int32, PRNGKeyArray, UInt8

from physml._numerics import checks
from physml._numerics.calls import require_instance
from physml._types import Numbers
from physml.data._arguments import (
    Index,
    checked_index,
    checked_names,
    checked_path,
    require_arrays,
)
from physml.data.images._arrays import checked_labels, checked_pixels
from physml.data.images._folders import read_folder

Pixels = UInt8[Array, "n height width channels"] | Float[Array, "n height width channels"]


class Images(eqx.Module):
    """Images, the class of each, and the names of the classes.

    `Images.from_arrays` and `Images.from_folder` make and check one. `len(images)` counts them, and
    `images[index]` selects some by a number, a slice, several numbers or a mask.

    >>> digits = data.digits()
    >>> zeros = digits[digits.labels == 0]
    >>> len(zeros), len(digits[:10]), len(digits[-1])
    (178, 10, 1)

    Attributes:
        images: the pixels, channels last: bytes as a file has them, or floats.
        labels: the class of each image, from 0.
        names: the classes' names.
        white: the value of a pixel of full brightness, which `scaled` makes 1.
        source: what the images are, for the record.

    Raises:
        TypeError: what should be arrays or a tuple of names is something else.
        ValueError: shapes that do not fit together, nothing in them, a name given twice, or a white
            that is not positive.
    """

    images: Pixels
    labels: Int32[Array, " n"]
    names: tuple[str, ...] = eqx.field(static=True)
    white: float = eqx.field(static=True, default=1.0)
    source: str = eqx.field(static=True, default="")

    def __check_init__(self):
        require_arrays(np.number, images=self.images)
        require_arrays(np.integer, labels=self.labels)
        if not isinstance(self.names, tuple) or not isinstance(self.source, str):
            raise TypeError(
                f"names must be a tuple and source a string, got {self.names!r} and {self.source!r}"
            )
        checked_names("names", self.names)
        _require_white(self.white)
        if self.images.ndim != 4 or 0 in self.images.shape:
            raise ValueError(
                "images must have shape (n, height, width, channels), not empty, "
                f"got {self.images.shape}"
            )
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels must have shape ({len(self.images)},), one for each image, "
                f"got {self.labels.shape}"
            )

    @classmethod
    def from_arrays(
        cls,
        images: Numbers,
        labels: Numbers,
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
            names: the classes' names. Test images take `train.names` and may lack some of the
                classes. By default "0", "1", ... up to the largest label, each with images.
            white: the value of full brightness: 255 for integers and 1 for floats by default.
            source: what the images are.

        Raises:
            TypeError: images that are not numbers, labels that are not integers, names that are not
                strings, or a white that is not a number.
            ValueError: images of another shape (channels first, flattened), not finite or out of
                range; labels of another shape or out of range; without names a class that has no
                images; a white that is not positive.
        """
        require_instance(str, source=source)
        names = None if names is None else checked_names("names", names)
        pixels = checked_pixels(images)
        classes = checked_labels(labels, len(pixels), names)
        if names is None:
            counts = np.bincount(classes)
            if (counts == 0).any():
                raise ValueError(
                    f"labels must have images of every class, got none of "
                    f"{np.flatnonzero(counts == 0).tolist()}: number the labels without gaps, or "
                    "pass the names of all classes"
                )
            names = tuple(map(str, range(len(counts))))
        if white is None:
            white = 255.0 if pixels.dtype == np.uint8 else 1.0
        _require_white(white)
        return cls(jnp.asarray(pixels), jnp.asarray(classes), names, white, source)

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

        The folder has a folder for each class, named like the class, with one file an image: PNG,
        JPEG and the like with eight bits a channel, or `.npy` with an array (height, width) or
        (height, width, channels). Files with other endings are left alone. Or the folder has two
        files, `images.npy` and `labels.npy`, with the arrays that `from_arrays` takes.

        Args:
            folder: the folder.
            names: the classes in the order of their numbers. Test images take `train.names` and may
                lack some of the classes. By default the names of the folders, sorted.
            size: (height, width) to which image files are resized; without it all must agree.
            channels: 1 reads image files as grey, 3 as red, green and blue; by default as they are.

        Raises:
            TypeError: arguments of another kind.
            FileNotFoundError: no such folder.
            ValueError: the folder is of neither kind, the folder of a class has no images or its
                name is none of `names`, or a file (the message names it) is cut, corrupt, or
                differs from the first in its shape.
        """
        folder = checked_path("folder", folder)
        names = None if names is None else checked_names("names", names)
        images, labels, names = read_folder(folder, names, size, channels)
        return cls.from_arrays(images, labels, names, source=folder.name)

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(self, index: Index) -> "Images":
        """Some of the images, also where it is one.

        Raises:
            TypeError: the index is no number, slice, numbers (k,) or mask (n,).
            IndexError: a number has no image, or a mask has another length.
        """
        index = checked_index(index, len(self), "images")
        return replace(self, images=self.images[index], labels=self.labels[index])

    def split(self, fractions: Sequence[float], key: PRNGKeyArray) -> tuple["Images", ...]:
        """A random partition in which every class has its share of every part.

        Each class is cut separately, to the nearest image; the images of a part keep their order.

        >>> train, valid, test = data.digits().split((0.8, 0.1, 0.1), key)
        >>> len(train), len(valid), len(test)
        (1438, 180, 179)

        Args:
            fractions: the share of each part, which add to 1.
            key: a key such as `jax.random.key(0)`, which draws the order.

        Raises:
            TypeError: arguments of another kind.
            ValueError: the fractions are not positive or do not add to one, or a class has too few
                images to be in every part.
        """
        checks.require_key(key=key)
        shares = checks.check_fractions(fractions)
        labels = np.asarray(self.labels)
        order = np.asarray(jax.random.permutation(key, len(self)))
        parts: list[list[np.ndarray]] = [[] for _ in shares]
        for label, name in enumerate(self.names):
            members = order[labels[order] == label]
            edges = np.rint(np.cumsum(shares) * len(members)).astype(int)[:-1]
            for part, chosen in zip(parts, np.split(members, edges), strict=True):
                if not len(chosen):
                    raise ValueError(
                        f"fractions must leave no part without class {name!r}, got "
                        f"{tuple(fractions)} of its {len(members)} images"
                    )
                part.append(chosen)
        return tuple(self._rows(np.sort(np.concatenate(part))) for part in parts)

    def scaled(self, dtype: DTypeLike | None = None) -> "Images":
        """The same images as floats, from 0 for black to 1 for `white`.

        Args:
            dtype: a floating dtype; JAX's default, or that of floating images, by default.
        """
        images = checks.floating_array("images", self.images, dtype) / self.white
        return replace(self, images=images, white=1.0)

    def transformed(self, function: Callable[[Array], Array]) -> "Images":
        """The same images after `function`, which takes the array of all images.

        Mean 0 and standard deviation 1 in each channel, measured on the training images:

        >>> train, test = data.digits().scaled().split((0.8, 0.2), key)
        >>> standardiser = data.Standardiser.fit(train.images)
        >>> train, test = (part.transformed(standardiser) for part in (train, test))

        Raises:
            TypeError: `function` cannot be called.
            ValueError: it returns no finite images, as many as there were.
        """
        if not callable(function):
            raise TypeError(f"function must be callable, got {function!r}")
        images = function(self.images)
        if getattr(images, "ndim", None) != 4 or images.shape[0] != len(self):
            raise ValueError(
                f"function must return images ({len(self)}, height, width, channels), "
                f"got {getattr(images, 'shape', images)}"
            )
        checks.require_finite("what function returns", images)
        return replace(self, images=images)

    def _rows(self, rows: np.ndarray) -> "Images":
        """`self[rows]`, picked on the host: no program is compiled for each number of rows."""
        images, labels = (jnp.asarray(np.asarray(x)[rows]) for x in (self.images, self.labels))
        return replace(self, images=images, labels=labels)


def _require_white(white: object) -> None:
    if isinstance(white, bool) or not isinstance(white, int | float | np.integer | np.floating):
        raise TypeError(f"white must be a number, got {white!r}")
    checks.require_positive(white=white)

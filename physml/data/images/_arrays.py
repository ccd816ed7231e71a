"""Checks of the arrays that become labelled images."""

from collections.abc import Sequence

import numpy as np

from physml._numerics.checks import floating_array, is_concrete, require_finite
from physml._types import Numbers


def checked_pixels(images: Numbers) -> np.ndarray:
    """Images as an array (n, height, width, channels); raises as `Images.from_arrays`."""
    if not is_concrete(images):
        raise TypeError(f"images must not be traced, got {images}")
    if np.ma.is_masked(images):
        raise ValueError("images must have no masked pixels, whose numbers mean nothing")
    try:
        array = np.asarray(images)
    except TypeError as error:  # random keys
        raise TypeError(f"images must hold real numbers, got {error}") from error
    except ValueError as error:
        raise ValueError(f"images must all have one shape: {error}") from error
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.size == 0:
        advice = ": reshape the rows to images" if array.ndim == 2 and array.size else ""
        raise ValueError(
            "images must have shape (n, height, width, channels) or (n, height, width), not empty, "
            f"got {array.shape}{advice}"
        )
    if array.shape[1] <= 4 < array.shape[3]:
        raise ValueError(
            f"images must have their channels last, (n, height, width, channels), got "
            f"{array.shape}, which has them first: pass np.moveaxis(images, 1, -1)"
        )
    if array.dtype.kind in "iu":
        if array.min() < 0 or array.max() > 255:
            raise ValueError(
                f"images of integers must be from 0 to 255, got {array.min()} to {array.max()}: "
                "divide by the value of full brightness"
            )
        return array.astype(np.uint8, copy=False)
    array = np.asarray(floating_array("images", array))
    require_finite("images", array)
    return array


def checked_labels(labels: Numbers, count: int, names: Sequence[str] | None) -> np.ndarray:
    """Labels of `count` images as 32-bit integers; raises as `Images.from_arrays`."""
    if not is_concrete(labels):
        raise TypeError(f"labels must not be traced, got {labels}")
    if np.ma.is_masked(labels):
        raise ValueError("labels must have none masked, whose numbers mean nothing")
    if names is not None and not names:
        raise ValueError(f"names must have a name for each class, got {names}")
    try:
        array = np.asarray(labels)
    except (TypeError, ValueError) as error:
        raise TypeError(f"labels must be integers (n,), got {error}") from error
    if array.ndim != 1 or len(array) != count:
        advice = ""
        if array.ndim == 2:  # Keras keeps classes in a column; others mark the class by a 1
            advice = ": pass labels" + ("[:, 0]" if array.shape[1] == 1 else ".argmax(axis=1)")
        raise ValueError(
            f"labels must have shape ({count},), one for each image, got {array.shape}{advice}"
        )
    if array.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got dtype {array.dtype}")
    # Without names every class must have an image, so there are no more classes than images.
    top = (count if names is None else len(names)) - 1
    wrong = np.flatnonzero((array < 0) | (array > top))
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            f"labels must number the classes without gaps, from 0 to {top} at most, "
            f"got {array[i]} at index {i} ({len(wrong)} of {count} are out of range)"
        )
    return array.astype(np.int32)

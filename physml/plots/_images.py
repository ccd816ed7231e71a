"""Figures of images, and of what a network's layers make of them."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Array, Float, Num
from matplotlib.figure import Figure

from physml._numerics.calls import checked
from physml._numerics.checks import require_count
from physml.plots._common import FAINT, check_shape

_PAPER = {"cmap": "gray_r", "vmin": 0.0, "vmax": 1.0}  # of one channel: ink on paper
_SLACK = 1e-3  # how far rounding may take a pixel out of range, for instance in interpolation


@checked
def image_grid(
    images: Num[Array | np.ndarray, "n height width channels"],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 5,
    title: str | None = None,
) -> Figure:
    """Images in rows, each with a word below it, such as its class.

    Args:
        images: (n, height, width, channels) with one channel, drawn as ink on paper, or three;
            bytes from 0 to 255, or floats from 0 to 1 as `Images.scaled` makes them.
        titles: a word for each image.
        columns: images in a row.

    Raises:
        ValueError: if there is no image, the channels are neither one nor three, a float is not
            from 0 to 1, or there is not one word for each image.
    """
    pixels = _checked_images("images", images)
    words = [""] * len(pixels) if titles is None else list(titles)
    if len(words) != len(pixels):
        raise ValueError(f"titles must be one for each of {len(pixels)} images, got {len(words)}")
    require_count(columns=columns)
    columns = min(columns, len(pixels))
    rows = -(-len(pixels) // columns)
    longest = max(len(line) for word in words for line in word.split("\n"))
    size = min(9.0, 170 / max(longest, 1))  # in points; what fits below an image
    fig = Figure(figsize=(1.6 * columns, 1.8 * rows + 0.4 * bool(title)), layout="constrained")
    panels = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax, image, word in zip(panels, pixels, words, strict=False):
        ax.imshow(image, **_PAPER)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_xlabel(word, fontsize=size)
        ax.spines[:].set_color(FAINT)
    for ax in panels[len(pixels) :]:
        ax.set_visible(False)
    fig.suptitle(title or "")
    return fig


@checked
def filters(
    kernel: Float[Array | np.ndarray, "rows columns channels filters"], *, title: str | None = None
) -> Figure:
    """The filters of a first layer on one scale: one channel in red and blue, three in colour.

    A weight of zero is white where there is one channel, and grey where there are three.

    Args:
        kernel: (rows, columns, channels, filters), as `nn.Conv.kernel`.

    Raises:
        ValueError: if the channels are neither one nor three.
    """
    weights = np.asarray(kernel, float)
    if weights.ndim != 4 or weights.shape[2] not in (1, 3):
        raise ValueError(
            f"kernel must have shape (rows, columns, 1 or 3, filters), got {weights.shape}"
        )
    largest = max(np.abs(weights).max(), np.finfo(float).tiny)
    tiles = _tiled(np.moveaxis(weights, -1, 0), columns=_columns(weights.shape[-1], wide=2.0))
    height = 5.6 * tiles.shape[0] / tiles.shape[1]
    fig = Figure(figsize=(7.0, height + 0.9), layout="constrained")
    ax = fig.add_subplot()
    if weights.shape[2] == 3:
        shown = np.where(np.isnan(tiles), 1.0, 0.5 + 0.5 * tiles / largest)
        ax.imshow(shown)
    else:
        image = ax.imshow(tiles[..., 0], cmap="RdBu", vmin=-largest, vmax=largest)
        fig.colorbar(image, label="weight", shrink=0.9)
    ax.set_axis_off()
    ax.set_title(title or "")
    return fig


@checked
def feature_maps(
    image: Num[Array | np.ndarray, "height width channels"],
    layers: Mapping[str, Float[Array | np.ndarray, "rows columns maps"]],
    *,
    title: str | None = None,
) -> Figure:
    """An image and the outputs of a network's layers, the maps of a layer on one scale.

    Args:
        image: (height, width, channels), as in `image_grid`.
        layers: by name, the outputs of layers, (rows, columns, maps).

    Raises:
        ValueError: as `image_grid`, or if a layer's maps are no such array.
    """
    (pixels,) = _checked_images("image", np.asarray(image)[None])
    fig = Figure(figsize=(3.1 * (1 + len(layers)), 3.5), layout="constrained")
    panels = fig.subplots(1, 1 + len(layers), squeeze=False)[0]
    panels[0].imshow(pixels, **_PAPER)
    panels[0].set_title("image")
    for ax, (name, maps) in zip(panels[1:], layers.items(), strict=True):
        values = check_shape(name, np.asarray(maps, float), "rows", "columns", "maps")
        if not values.size:
            raise ValueError(f"{name} must have entries, got shape {values.shape}")
        tiles = _tiled(np.moveaxis(values, -1, 0)[..., None], columns=_columns(values.shape[-1]))
        ax.imshow(tiles[..., 0], cmap="magma")
        ax.set_title(f"{name}, {values.shape[-1]} of {values.shape[0]} x {values.shape[1]}")
    for ax in panels:
        ax.set_axis_off()
    fig.suptitle(title or "")
    return fig


def _checked_images(name: str, images: Array | np.ndarray) -> np.ndarray:
    """Images as floats from 0 to 1."""
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or array.size == 0:
        raise ValueError(
            f"{name} must be (height, width, 1 or 3 channels), not empty, got {len(array)} of "
            f"{array.shape[1:]}"
        )
    pixels = array / 255.0 if array.dtype.kind in "iu" else array
    if not (pixels.min() >= -_SLACK and pixels.max() <= 1 + _SLACK):
        raise ValueError(
            f"{name} must be bytes, or floats from 0 to 1 as Images.scaled makes them, "
            f"got {array.dtype} from {array.min()} to {array.max()}"
        )
    return np.clip(pixels, 0.0, 1.0)


def _columns(count: int, wide: float = 1.0) -> int:
    """In how many columns tiles make a block that is about `wide` times as wide as high.

    Full rows are preferred.
    """
    least = min(count, int(np.ceil(np.sqrt(wide * count))))
    full = next(n for n in range(least, count + 1) if count % n == 0)
    return full if full < 1.5 * least else least


def _tiled(
    tiles: Float[np.ndarray, "n rows columns channels"], columns: int
) -> Float[np.ndarray, "height width channels"]:
    """Tiles side by side in one array, with a gap of NaN between them and where there is none."""
    zoom = -(-16 // tiles.shape[2])  # the gap, two pixels, is thin even between small tiles
    tiles = tiles.repeat(zoom, axis=1).repeat(zoom, axis=2)
    num, height, width, channels = tiles.shape
    gap, lines = 2, -(-num // columns)
    sheet = np.full((lines * columns, height + gap, width + gap, channels), np.nan)
    sheet[:num, :height, :width] = tiles
    sheet = sheet.reshape(lines, columns, height + gap, width + gap, channels)
    sheet = sheet.swapaxes(1, 2).reshape(lines * (height + gap), columns * (width + gap), channels)
    return sheet[:-gap, :-gap]

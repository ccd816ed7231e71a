"""Figures of images and of what classifies them."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Array, Float, Integer, Num
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from physml.plots._common import (
    DASHES,
    FAINT,
    PALETTE,
    TRUTH,
    add_legend,
    bare_axes,
    colour_of,
    make_panels,
)

_PAPER = {"cmap": "gray_r", "vmin": 0.0, "vmax": 1.0}  # of one channel: ink on paper
_SLACK = 1e-3  # how far rounding, in interpolation for instance, may take a pixel out of range


def image_grid(
    images: Num[Array | np.ndarray, "n height width channels"],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 5,
    title: str | None = None,
) -> Figure:
    """Images in rows, each with a word below: its class, or what it was taken for.

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
        raise ValueError(f"titles: expected one for each of {len(pixels)} images, got {len(words)}")
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


def confusion_matrix(
    counts: Integer[Array | np.ndarray, "classes classes"],
    names: Sequence[str],
    *,
    title: str | None = None,
) -> Figure:
    """How often each class was taken for each, right answers in blue and mistakes in orange.

    A right answer's colour is its share of the class, on the right as a number too (the recall); a
    mistake's is its share of the class over the largest such share, so that few are seen as well.

    Args:
        counts: (classes, classes), rows the true and columns the predicted classes.
        names: of the classes.

    Raises:
        ValueError: if there is not a row and a column for each name, or a count is negative.
    """
    table = np.asarray(counts)
    if table.shape != (len(names), len(names)) or np.any(table < 0):
        raise ValueError(
            f"counts: expected the shape {(len(names), len(names))} and no negative number, "
            f"got {table.shape}"
        )
    whole = table.sum(axis=1, keepdims=True)
    shares = table / np.maximum(whole, 1)
    right = np.eye(len(names), dtype=bool)
    mistakes = np.where(right, 0.0, shares)
    mistakes = mistakes / max(mistakes.max(), np.finfo(float).tiny)
    blues, oranges = (matplotlib.colormaps[name] for name in ("Blues", "Oranges"))
    colours = np.where(right[..., None], blues(0.15 + 0.75 * shares), oranges(0.75 * mistakes))
    colours[~right & (table == 0)] = 1.0
    side = 1.6 + 0.52 * len(names)
    fig = Figure(figsize=(side + 0.8, side), layout="constrained")
    ax = fig.add_subplot()
    ax.imshow(colours)
    for (i, j), count in np.ndenumerate(table):
        light = colours[i, j, :3] @ (0.3, 0.6, 0.1) > 0.55
        if count:
            ax.text(
                j, i, str(count),
                ha="center", va="center", fontsize=9, color="black" if light else "white",
            )  # fmt: skip
    ticks = np.arange(len(names))
    slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(ticks, names, **(slanted if max(map(len, names)) > 2 else {}))
    ax.set_yticks(ticks, names)
    recall = ax.secondary_yaxis("right")
    recall.set_yticks(
        ticks, [f"{x:.1%}" if n else "-" for x, n in zip(shares[right], whole, strict=True)]
    )
    recall.set_ylabel("recall")
    for each in (ax, recall):
        each.tick_params(length=0)
        each.spines[:].set_visible(False)
    edges = ticks[1:] - 0.5
    ax.hlines(edges, -0.5, len(names) - 0.5, color="#E4E4E4", linewidth=0.6)
    ax.vlines(edges, -0.5, len(names) - 0.5, color="#E4E4E4", linewidth=0.6)
    ax.set(xlabel="predicted", ylabel="true", title=title or "")
    return fig


def accuracy_curves(
    curves: Mapping[str, tuple[Any, Any, Any]], *, title: str | None = None
) -> Figure:
    """Accuracy against the epoch: training thin, validation dashed.

    Args:
        curves: for each model the epochs (n,), and after each the share of right answers in
            training (n,) and validation (n,).

    Raises:
        ValueError: if a curve has not one value for each epoch.
    """
    fig, (ax,) = make_panels(1, height=4.0)
    for i, (model, columns) in enumerate(curves.items()):
        epochs, train, valid = (np.asarray(column, float) for column in columns)
        if not epochs.shape == train.shape == valid.shape == (epochs.size,):
            raise ValueError(
                f"curves: {model!r} must have a value for each epoch, got {train.shape} and "
                f"{valid.shape} for {epochs.shape}"
            )
        colour = colour_of(i)
        ax.plot(epochs, train, color=colour, linewidth=1.1, alpha=0.7, label=f"{model}, train")
        ax.plot(epochs, valid, color=colour, linewidth=2.0, linestyle="--", label=f"{model}, valid")
    ax.set(xlabel="epoch", ylabel="accuracy", title=title or "")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.margins(x=0.01)
    add_legend(ax)
    return fig


def reliability(curves: Mapping[str, tuple[Any, Any, Any]], *, title: str | None = None) -> Figure:
    r"""How often answers given with some confidence are right, and how often it is given.

    On the diagonal a confidence is what it says; below it, too large. The legend has the expected
    calibration error, $\sum_b (n_b / n)\,|\mathrm{accuracy}_b - \mathrm{confidence}_b|$ over the
    bins b (Guo et al., arXiv 1706.04599, equation 3).

    Args:
        curves: for each model, by bins of the confidence in the class predicted: its mean (bins,),
            the share of right answers (bins,) and the number of answers (bins,). Bins without any
            are not drawn.

    Raises:
        ValueError: if the three have not one value for each bin, or no bin has an answer.
    """
    fig = Figure(figsize=(6.6, 6.4), layout="constrained")
    upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bare_axes(upper).plot((0, 1), (0, 1), color=TRUTH, linewidth=0.8, linestyle=":")
    bare_axes(lower)
    for i, (model, columns) in enumerate(curves.items()):
        confidence, accuracy, counts = (np.asarray(column, float) for column in columns)
        if not confidence.shape == accuracy.shape == counts.shape == (counts.size,):
            raise ValueError(
                f"curves: {model!r} must have three values for each bin, got {confidence.shape}, "
                f"{accuracy.shape} and {counts.shape}"
            )
        there = counts > 0
        if not there.any():
            raise ValueError(f"curves: {model!r} has no answer in any bin")
        x, y, shares = confidence[there], accuracy[there], counts[there] / counts.sum()
        style: dict[str, Any] = {
            "color": colour_of(i),
            "linestyle": DASHES[i // len(PALETTE) % len(DASHES)],
            "marker": "o",
            "markersize": 5,
        }
        error = np.sum(shares * np.abs(y - x))
        upper.plot(x, y, label=f"{model}, error {error:.2g}", linewidth=1.6, **style)
        lower.plot(x, shares, linewidth=1.0, **style)
    percent = PercentFormatter(1.0)
    upper.set(ylabel="right answers", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=title or "")
    upper.yaxis.set_major_formatter(percent)
    upper.legend(loc="upper left", frameon=False)
    lower.set(xlabel="confidence", ylabel="share of\nthe answers", yscale="log")
    lower.xaxis.set_major_formatter(percent)
    return fig


def filters(
    kernel: Float[Array | np.ndarray, "rows columns channels filters"], *, title: str | None = None
) -> Figure:
    """The filters of a first layer: of one channel in red and blue about zero, of three in colour.

    All share a scale. In three channels a weight of zero is grey.

    Args:
        kernel: (rows, columns, channels, filters), as `nn.Conv.kernel`.

    Raises:
        ValueError: if the channels are neither one nor three.
    """
    weights = np.asarray(kernel, float)
    if weights.ndim != 4 or weights.shape[2] not in (1, 3):
        raise ValueError(
            "kernel: expected the shape (rows, columns, 1 or 3 channels, filters), "
            f"got {weights.shape}"
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


def feature_maps(
    image: Num[Array | np.ndarray, "height width channels"],
    layers: Mapping[str, Float[Array | np.ndarray, "rows columns maps"]],
    *,
    title: str | None = None,
) -> Figure:
    """An image and what the layers of a network make of it, the maps of a layer on one scale.

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
        values = np.asarray(maps, float)
        if values.ndim != 3 or values.size == 0:
            raise ValueError(f"{name}: expected maps (rows, columns, maps), got {values.shape}")
        tiles = _tiled(np.moveaxis(values, -1, 0)[..., None], columns=_columns(values.shape[-1]))
        ax.imshow(tiles[..., 0], cmap="magma")
        ax.set_title(f"{name}, {values.shape[-1]} of {values.shape[0]} x {values.shape[1]}")
    for ax in panels:
        ax.set_axis_off()
    fig.suptitle(title or "")
    return fig


def _checked_images(name: str, images: Any) -> np.ndarray:
    """Images as floats from 0 to 1."""
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or array.size == 0:
        raise ValueError(
            f"{name}: expected pixels (height, width, 1 or 3 channels), got {array.shape[1:]} "
            f"of {len(array)}"
        )
    pixels = array / 255.0 if array.dtype.kind in "iu" else array
    if not (pixels.min() >= -_SLACK and pixels.max() <= 1 + _SLACK):
        raise ValueError(
            f"{name}: expected bytes, or floats from 0 to 1 as Images.scaled makes them, "
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

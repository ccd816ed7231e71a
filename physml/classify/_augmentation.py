"""Random shifts, flips, rotations and zooms of all images at once, on the device."""

from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int32, PRNGKeyArray

from physml._numerics.calls import checked, require_fields
from physml._numerics.checks import require_count, require_share
from physml.classify._prediction import pixels_of
from physml.data import Images

T = TypeVar("T", Images, Array)


class Augmentation(eqx.Module):
    r"""Move every image at random: `augment(images, key)` makes as many new images.

    An image is mirrored, rotated and zoomed about its centre, and shifted; outside of it pixels are
    zero. This is one mapping: with coordinates from the centre, the new pixel at p takes the value
    of the old image at

    $$M R(\theta)\, (p - t) / z$$

    by bilinear interpolation, each image with its own zoom z, angle $\theta$, shift t and mirroring
    M. Without rotation and zoom the pixels are only moved, which is several times faster and works
    on bytes too. A shift by up to s pixels is also known as padding by s zeros and cropping.

    >>> moves = classify.Augmentation(shift=2, flip=True)
    >>> moves(jnp.zeros((5, 8, 8, 1)), key).shape
    (5, 8, 8, 1)

    Attributes:
        shift: the largest t, in whole pixels, up or down and left or right.
        rotation: the largest theta, in degrees, either way.
        scale: z is from 1 - scale to 1 + scale.
        flip: whether half of the images are mirrored, left to right.

    Raises:
        TypeError: a shift that is not an integer.
        ValueError: a setting out of range.
    """

    shift: int = eqx.field(static=True, default=0)
    rotation: float = eqx.field(static=True, default=0.0)
    scale: float = eqx.field(static=True, default=0.0)
    flip: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        require_fields(self)
        require_count(0, shift=self.shift)
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation must be from 0 to 180 degrees, got {self.rotation}")
        require_share(scale=self.scale)

    @checked
    def __call__(self, images: T, key: PRNGKeyArray) -> T:
        """New images, of the same shape and dtype.

        Args:
            images: a record, whose other entries are kept, or the array alone.
            key: for the draws.

        Raises:
            TypeError: images of integers are to be rotated or zoomed.
            ValueError: images without four axes, empty, or not larger than the shift.
        """
        pixels = pixels_of(images)
        if self.shift >= min(pixels.shape[1:3]):
            raise ValueError(
                f"shift must be smaller than the images, {pixels.shape[1]} x {pixels.shape[2]} "
                f"pixels, got {self.shift}"
            )
        if self._interpolates and not jnp.issubdtype(pixels.dtype, jnp.floating):
            raise TypeError(
                "images must be floats to be rotated or zoomed, as Images.scaled makes them, "
                f"got {pixels.dtype}"
            )
        moved = _moved(self, pixels, key)
        if isinstance(images, Images):
            return eqx.tree_at(lambda record: record.images, images, moved)
        return moved

    @property
    def _interpolates(self) -> bool:
        return self.rotation > 0 or self.scale > 0

    def _draw(self, num: int, dtype: DTypeLike, key: PRNGKeyArray) -> "Move":
        """How each of `num` images is moved."""
        down, right, mirror, turn, zoom = jax.random.uniform(key, (5, num), dtype)
        shifts = jnp.floor((2 * self.shift + 1) * jnp.stack([down, right])) - self.shift
        down, right = shifts.astype(jnp.int32)
        return Move(
            down,
            right,
            self.flip & (mirror < 0.5),
            jnp.deg2rad(self.rotation * (2 * turn - 1)),
            1 + self.scale * (2 * zoom - 1),
        )


class Move(NamedTuple):
    """How images are moved: arrays with a number for each image, or the numbers of one image.

    The angle is in radians, from the axis of rows, which points down, to the axis of columns.
    """

    down: Int32[Array, "..."]
    right: Int32[Array, "..."]
    mirrored: Bool[Array, "..."]
    angle: Float[Array, "..."]
    zoom: Float[Array, "..."]


@eqx.filter_jit
def _moved(augmentation: Augmentation, images: Array, key: PRNGKeyArray) -> Array:
    # Coordinates in half precision would be off by a pixel.
    dtype = jnp.float64 if images.dtype == jnp.float64 else jnp.float32
    moves = augmentation._draw(images.shape[0], dtype, key)
    move = _interpolated if augmentation._interpolates else _shifted
    # No loop over blocks is needed to save memory: XLA fuses everything into one pass that holds
    # only the result. In a loop on the CPU it is many times slower.
    return jax.vmap(move)(images, moves)


def _shifted(image: Array, move: Move) -> Array:
    """A mirrored and shifted image."""
    height, width, _ = image.shape
    rows = jnp.arange(height, dtype=jnp.int32) - move.down
    columns = jnp.arange(width, dtype=jnp.int32) - move.right
    columns = jnp.where(move.mirrored, width - 1 - columns, columns)
    return _pixels_at(image, rows[:, None], columns[None, :])


def _interpolated(image: Array, move: Move) -> Array:
    """A zoomed, rotated, mirrored and shifted image."""
    height, width, _ = image.shape
    dtype = move.angle.dtype
    middle = (height - 1) / 2, (width - 1) / 2
    y = (jnp.arange(height, dtype=dtype) - middle[0] - move.down.astype(dtype))[:, None]
    x = (jnp.arange(width, dtype=dtype) - middle[1] - move.right.astype(dtype))[None, :]
    cos, sin = jnp.cos(move.angle) / move.zoom, jnp.sin(move.angle) / move.zoom
    sign = jnp.where(move.mirrored, -1, 1).astype(dtype)
    # Coordinates more than one pixel outside are clipped, so that they fit into integers.
    row = jnp.clip(cos * y - sin * x + middle[0], -1, height)
    column = jnp.clip(sign * (sin * y + cos * x) + middle[1], -1, width)
    top, left = jnp.floor(row), jnp.floor(column)
    down, right = ((row - top)[..., None], (column - left)[..., None])
    i, j = top.astype(jnp.int32), left.astype(jnp.int32)
    old = image.astype(dtype)

    def along_row(i: Array) -> Array:
        return (1 - right) * _pixels_at(old, i, j) + right * _pixels_at(old, i, j + 1)

    return ((1 - down) * along_row(i) + down * along_row(i + 1)).astype(image.dtype)


def _pixels_at(image: Array, rows: Array, columns: Array) -> Array:
    """The pixels in given rows and columns, zero outside of the image."""
    height, width, channels = image.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    place = jnp.clip(rows, 0, height - 1) * width + jnp.clip(columns, 0, width - 1)
    found = image.reshape(-1, channels).at[place].get(mode="promise_in_bounds")
    return jnp.where(inside[..., None], found, 0)

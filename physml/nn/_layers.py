"""The hidden layers of a convolutional network, as descriptions, and known lists of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from physml._numerics.calls import require_fields
from physml._numerics.checks import require_count, require_share
from physml.nn._conv import Padding
from physml.nn._pool import Pooling


@dataclass(frozen=True)
class Filters:
    """A convolutional layer with an activation."""

    count: int
    kernel: int = 3
    stride: int = 1
    padding: Padding = "VALID"
    batch_norm: bool = False  # before the activation

    def __post_init__(self):
        require_fields(self)
        require_count(count=self.count, kernel=self.kernel, stride=self.stride)


@dataclass(frozen=True)
class Pool:
    """Each block of size x size pixels becomes one pixel."""

    size: int = 2
    kind: Pooling = "max"

    def __post_init__(self):
        require_fields(self)
        require_count(size=self.size)


@dataclass(frozen=True)
class Dense:
    """A fully connected layer with an activation; it takes an image as one row of numbers."""

    units: int
    batch_norm: bool = False  # before the activation

    def __post_init__(self):
        require_fields(self)
        require_count(units=self.units)


@dataclass(frozen=True)
class Dropout:
    """In training, a share of the values is set to zero and the others are scaled up."""

    rate: float

    def __post_init__(self):
        require_fields(self)
        require_share(rate=self.rate)


Layer = Filters | Pool | Dense | Dropout
"""What an `nn.CNN` is a list of."""

ARCHITECTURES: Mapping[str, tuple[Layer, ...]] = MappingProxyType(
    {
        # The lecture's, for 8 x 8 digits, and the same without the convolution.
        "digits": (Filters(10), Pool(), Dense(50)),
        "dense": (Dense(50),),
        # The TensorFlow tutorial's, for CIFAR-10.
        "cifar-tutorial": (
            *(Filters(32), Pool(), Filters(64), Pool()),
            *(Filters(64), Dense(64)),
        ),
        # Filters double where the image halves; the readout sees only the mean of the last maps.
        "cifar-better": (
            Filters(32, padding="SAME", batch_norm=True),
            *(Filters(64, padding="SAME", batch_norm=True), Pool()),
            *(Filters(128, padding="SAME", batch_norm=True), Pool()),
            *(Filters(256, padding="SAME", batch_norm=True), Pool()),
            *(Filters(256, padding="SAME", batch_norm=True), Pool(4, "mean"), Dropout(0.2)),
        ),
        # The usual first network for MNIST.
        "mnist": (Filters(32), Pool(), Filters(64), Pool(), Dense(256)),
        # A strong one: pairs of 3 x 3 filters cover 5 x 5 pixels with fewer weights (Simonyan,
        # Zisserman, arXiv 1409.1556), and the last filters cover all of the remaining image.
        "mnist-strong": (
            *(Filters(32, batch_norm=True), Filters(32, batch_norm=True), Pool(), Dropout(0.25)),
            *(Filters(64, batch_norm=True), Filters(64, batch_norm=True), Pool(), Dropout(0.25)),
            *(Filters(128, kernel=4, batch_norm=True), Dropout(0.4)),
        ),
    }
)
"""Hidden layers of known networks, by name."""


def describe(layer: Layer) -> str:
    match layer:
        case Filters(_, kernel, stride):
            return f"convolution {kernel} x {kernel}" + (f", stride {stride}" * (stride > 1))
        case Pool(size, kind):
            return f"{kind} pooling {size} x {size}"
        case Dense():
            return "dense"
        case Dropout(rate):
            return f"dropout {rate:g}"

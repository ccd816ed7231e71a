"""What models learn from: trajectories on a grid, cut into pairs and windows; labelled images."""

from physml.data._image_sets import cifar10, digits, fashion_mnist, mnist
from physml.data._images import Images
from physml.data._trajectories import (
    Pairs,
    Standardizer,
    Trajectories,
    Windows,
    from_arrays,
    from_csv,
    load_npz,
    save_npz,
    split,
    to_csv,
)

__all__ = [
    "Images",
    "Pairs",
    "Standardizer",
    "Trajectories",
    "Windows",
    "cifar10",
    "digits",
    "fashion_mnist",
    "from_arrays",
    "from_csv",
    "load_npz",
    "mnist",
    "save_npz",
    "split",
    "to_csv",
]

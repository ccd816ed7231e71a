"""What models learn from: trajectories on a grid, cut into pairs and windows; labelled images."""

from physml.data._image_sets import cifar10, digits, fashion_mnist, mnist
from physml.data._images import Images
from physml.data._standardizer import Standardizer
from physml.data._trajectories import Pairs, Trajectories, Windows, from_arrays, split
from physml.data._trajectory_files import from_csv, load_npz, save_npz, to_csv

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

"""What models learn from: trajectories on a grid, cut into pairs and windows; labelled images."""

from physml.data._frames import from_dataframe as from_dataframe
from physml.data._frames import from_xarray as from_xarray
from physml.data._frames import to_dataframe as to_dataframe
from physml.data._frames import to_xarray as to_xarray
from physml.data._noise import Noise as Noise
from physml.data._noise import noise_levels as noise_levels
from physml.data._standardiser import Standardiser as Standardiser
from physml.data._trajectories import Pairs as Pairs
from physml.data._trajectories import Trajectories as Trajectories
from physml.data._trajectories import Windows as Windows
from physml.data._trajectories import from_arrays as from_arrays
from physml.data._trajectories import split as split
from physml.data._trajectory_files import from_csv as from_csv
from physml.data._trajectory_files import load_npz as load_npz
from physml.data._trajectory_files import save_npz as save_npz
from physml.data._trajectory_files import to_csv as to_csv
from physml.data.images import Images as Images
from physml.data.images import cifar10 as cifar10
from physml.data.images import digits as digits
from physml.data.images import fashion_mnist as fashion_mnist
from physml.data.images import mnist as mnist

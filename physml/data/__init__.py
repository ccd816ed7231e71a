"""What models learn from: trajectories on a grid, cut into pairs and windows."""

from physml.data.trajectories import (
    Pairs,
    Standardizer,
    Trajectories,
    Windows,
    from_arrays,
    from_csv,
    load_npz,
    save_npz,
    split,
)

__all__ = [
    "Pairs",
    "Standardizer",
    "Trajectories",
    "Windows",
    "from_arrays",
    "from_csv",
    "load_npz",
    "save_npz",
    "split",
]

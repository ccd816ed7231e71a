"""Models of one shape along an axis, mapped on one device or shared out among several."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree


class Spread:
    """How models are shared out among devices, each of which gets equally many.

    Attributes:
        num: the number of models.
        mesh: the devices, or None for the one that JAX chooses.
    """

    def __init__(self, num: int, devices: Sequence[object] | None):
        if devices is not None and len(devices) == 0:
            raise ValueError("devices must name one or more, or be None, got none")
        if not all(isinstance(device, jax.Device) for device in devices or ()):
            raise TypeError(f"devices must be devices of jax.devices(), got {devices!r}")
        self.num = num
        self.mesh = None if devices is None else Mesh(np.asarray(devices[:num]), ("models",))

    def divided(self, models: PyTree) -> PyTree:
        """Arrays with an axis of models, divided among the devices along it."""
        if self.mesh is None:
            return models
        # If the devices do not divide the number of models, the last one is there several times.
        rows = np.minimum(np.arange(-(-self.num // self.mesh.size) * self.mesh.size), self.num - 1)
        place = NamedSharding(self.mesh, PartitionSpec("models"))
        return jax.tree.map(lambda x: jax.device_put(x[rows], place), models)

    def copied(self, arrays: PyTree) -> PyTree:
        """Arrays that every device needs."""
        if self.mesh is None:
            return arrays
        return jax.device_put(arrays, NamedSharding(self.mesh, PartitionSpec()))

    def on_first(self, arrays: PyTree) -> PyTree:
        """Arrays of either kind on the first device."""
        return arrays if self.mesh is None else jax.device_put(arrays, self.mesh.devices.flat[0])

    def gathered(self, models: PyTree) -> PyTree:
        """Every model once, on the first device."""
        if self.mesh is None:
            return models
        return jax.tree.map(lambda x: x[: self.num], self.on_first(models))


def of_each(
    function: Callable[[PyTree, PyTree], PyTree], models: PyTree, shared: PyTree, mesh: Mesh | None
) -> PyTree:
    """Apply a function to each model, on its device, and to what all models share."""
    mapped = jax.vmap(function, in_axes=(0, None))
    if mesh is not None:
        # Without this the compiler would not know that no model needs another one: it would gather
        # them for convolutions, and for the end of an optimizer's loop.
        share, whole = PartitionSpec("models"), PartitionSpec()
        mapped = jax.shard_map(
            mapped, mesh=mesh, in_specs=(share, whole), out_specs=share, check_vma=False
        )
    return mapped(models, shared)

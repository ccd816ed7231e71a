"""Work shared out among devices: rows of arrays, or models of one shape, along a leading axis."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

AXIS = "members"
ROWS, WHOLE = PartitionSpec(AXIS), PartitionSpec()


def mesh_of(devices: Sequence[object] | None, most: int | None = None) -> Mesh | None:
    """The devices as a mesh of one axis, at most so many of them; None for JAX's own choice.

    Raises:
        TypeError, ValueError: `devices` names none, or something else.
    """
    if devices is not None and len(devices) == 0:
        raise ValueError("devices must name one or more, or be None, got none")
    if not all(isinstance(device, jax.Device) for device in devices or ()):
        raise TypeError(f"devices must be devices of jax.devices(), got {devices!r}")
    return None if devices is None else Mesh(np.asarray(devices[:most]), (AXIS,))


class Spread:
    """How members are shared out among devices, each of which gets equally many.

    Attributes:
        num: the number of members.
        mesh: the devices, or None for the one that JAX chooses.
    """

    def __init__(self, num: int, devices: Sequence[object] | None):
        self.num, self.mesh = num, mesh_of(devices, num)

    def divided(self, members: PyTree) -> PyTree:
        """Arrays with an axis of members, divided among the devices along it."""
        if self.mesh is None:
            return members
        # If the devices do not divide the number of members, the last is there several times.
        rows = np.minimum(np.arange(-(-self.num // self.mesh.size) * self.mesh.size), self.num - 1)
        return placed(jax.tree.map(lambda x: x[rows], members), self.mesh, ROWS)

    def copied(self, arrays: PyTree) -> PyTree:
        """Arrays that every device needs."""
        return arrays if self.mesh is None else placed(arrays, self.mesh, WHOLE)

    def on_first(self, arrays: PyTree) -> PyTree:
        """Arrays of either kind on the first device of this process."""
        if self.mesh is None:
            return arrays
        if not self.mesh.is_multi_process:
            return jax.device_put(arrays, self.mesh.devices.flat[0])
        return jax.tree.map(lambda x: x.addressable_data(0), self.copied(arrays))

    def gathered(self, members: PyTree) -> PyTree:
        """Every member once, on the first device of this process."""
        if self.mesh is None:
            return members
        return jax.tree.map(lambda x: x[: self.num], self.on_first(members))


def placed(arrays: PyTree, mesh: Mesh, spec: PartitionSpec) -> PyTree:
    """Arrays on the devices of a mesh; where it spans processes, all of them hold the same."""
    return jax.device_put(arrays, NamedSharding(mesh, spec))


def on_host(x: Array | np.ndarray) -> np.ndarray:
    """An array's values, wherever they are: from other processes too, all of which must ask."""
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        mesh: Any = x.sharding
        x = jax.device_put(x, NamedSharding(mesh.mesh, WHOLE))
    return np.asarray(x)


def of_each(
    function: Callable[[PyTree, PyTree], PyTree], members: PyTree, shared: PyTree, mesh: Mesh | None
) -> PyTree:
    """Apply a function to each member, on its device, and to what all members share."""
    mapped = jax.vmap(function, in_axes=(0, None))
    if mesh is not None:
        # Without this the compiler would not know that no member needs another one: it would gather
        # them for convolutions, and for the end of an optimizer's loop.
        mapped = jax.shard_map(
            mapped, mesh=mesh, in_specs=(ROWS, WHOLE), out_specs=ROWS, check_vma=False
        )
    return mapped(members, shared)


def joined(parts: Sequence[Array], mesh: Mesh | None) -> Array:
    """Rows behind each other; of divided arrays, those of each device behind each other there."""
    if len(parts) == 1:
        return parts[0]
    if mesh is None:
        return jnp.concatenate(parts)
    return jax.jit(
        jax.shard_map(
            lambda *parts: jnp.concatenate(parts), mesh=mesh, in_specs=ROWS, out_specs=ROWS
        )
    )(*parts)

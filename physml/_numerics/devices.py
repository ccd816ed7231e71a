"""Work shared out among devices, or the cores of one: rows, or models of one shape, by an axis."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, ArrayLike, PyTree

AXIS = "members"
ROWS, WHOLE = PartitionSpec(AXIS), PartitionSpec()


def mesh_of(devices: Sequence[object] | None, most: int | None = None) -> Mesh | None:
    """The devices as a mesh of one axis, at most so many of them; None for JAX's own choice.

    Raises:
        TypeError, ValueError: `devices` is no sequence, names none, names one twice, or names
            something else.
    """
    if devices is None:
        return None
    if not isinstance(devices, Sequence | np.ndarray):  # a set has no order for the members
        raise TypeError(f"devices must be a list of devices of jax.devices(), got {devices!r}")
    named = list(devices)
    if not named:
        raise ValueError("devices must name one or more, or be None, got none")
    if not all(isinstance(device, jax.Device) for device in named):
        raise TypeError(f"devices must be devices of jax.devices(), got {devices!r}")
    twice = [device for device in named if named.count(device) > 1]
    if twice:
        raise ValueError(f"devices must name each device once, got {twice[0]} more than once")
    return Mesh(np.asarray(named[:most]), (AXIS,))


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
        return on_first(arrays, self.mesh)

    def gathered(self, members: PyTree) -> PyTree:
        """Every member once, on the first device of this process."""
        if self.mesh is None:
            return members
        return jax.tree.map(lambda x: x[: self.num], self.on_first(members))


def placed(arrays: PyTree, mesh: Mesh | None, spec: PartitionSpec) -> PyTree:
    """Arrays on the devices of a mesh; where it spans processes, all of them hold the same."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, arrays)
    place = NamedSharding(mesh, spec)
    if not mesh.is_multi_process:
        return jax.device_put(arrays, place)

    def put(x: ArrayLike) -> Array:
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return jax.device_put(x, place)
        if jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key):
            words = put(jax.random.key_data(x))
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(x))
        return jax.device_put(np.asarray(x), place)  # JAX hands on what is not committed

    return jax.tree.map(put, arrays)


def placed_as(values: np.ndarray, like: Array) -> Array:
    """Numbers where an array lies; JAX may move them to other devices only if it may move that."""
    return jax.device_put(values, like.sharding if like.committed else None)


def on_first(arrays: PyTree, mesh: Mesh | None) -> PyTree:
    """Arrays from the devices of a mesh on its first one, or on the first of this process."""
    if mesh is None:
        return arrays
    if not mesh.is_multi_process:
        return jax.device_put(arrays, mesh.devices.flat[0])
    return jax.tree.map(lambda x: x.addressable_data(0), placed(arrays, mesh, WHOLE))


def moved_to(places: PyTree[Array], arrays: PyTree[Array]) -> PyTree[Array]:
    """Arrays on the devices of others: XLA may divide a state otherwise than it was given."""
    return jax.tree.map(
        lambda at, x: x if x.sharding == at.sharding else jax.device_put(x, at.sharding),
        places,
        arrays,
    )


def held(arrays: PyTree, mesh: Mesh | None, spec: PartitionSpec) -> PyTree:
    """Arrays within a program that the compiler must keep so placed, if there is a mesh."""
    if mesh is None:
        return arrays
    return jax.lax.with_sharding_constraint(arrays, NamedSharding(mesh, spec))


def mesh_of_rows(x: Array) -> Mesh | None:
    """The devices among which the rows of an array are divided; None if not, or if it is traced."""
    place = None if isinstance(x, Tracer) else x.sharding
    mesh = place.mesh if isinstance(place, NamedSharding) else None
    if not isinstance(mesh, Mesh) or mesh.size == 1:
        return None
    by_rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    divided = x.sharding.is_equivalent_to(by_rows, x.ndim)
    return Mesh(mesh.devices.ravel(), (AXIS,)) if divided else None


def on_host(x: object) -> np.ndarray:
    """An array's values, wherever they are: from other processes too, all of which must ask."""
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        assert isinstance(x.sharding, NamedSharding)
        x = jax.device_put(x, NamedSharding(x.sharding.mesh, WHOLE))
    return np.asarray(x)


def of_each(
    function: Callable[[PyTree, PyTree], PyTree], members: PyTree, shared: PyTree, mesh: Mesh | None
) -> PyTree:
    """Apply a function to each member, on its device, and to what all members share."""
    return on_each(jax.vmap(function, in_axes=(0, None)), members, shared, mesh)


def on_each(
    function: Callable[[PyTree, PyTree], PyTree], rows: PyTree, shared: PyTree, mesh: Mesh | None
) -> PyTree:
    """`function(rows, shared)` on each device of a mesh, for the rows that it has."""
    if mesh is not None:
        # Without this the compiler would not know that no row needs another one: it would gather
        # them for convolutions, and for the end of an optimizer's loop.
        function = jax.shard_map(
            function, mesh=mesh, in_specs=(ROWS, WHOLE), out_specs=ROWS, check_vma=False
        )
    return function(rows, shared)


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


def num_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_one_cpu(*arrays: object) -> bool:
    """Whether arrays lie on one device, a CPU, where chunks on threads fill the cores."""
    devices = {d for x in arrays if isinstance(x, jax.Array) for d in x.devices()}
    return len(devices) <= 1 and all(device.platform == "cpu" for device in devices)


def few_shapes(num: int, limit: int, workers: int) -> int:
    """A size of chunks that is a power of two, with a chunk for each worker if there are enough."""
    share = -(-num // workers)
    return min(limit, 1 << (share - 1).bit_length())


def for_each_chunk(
    work: Callable[[np.ndarray, slice], None], num: int, size: int, workers: int
) -> None:
    """Call `work(index, rows)` for every chunk of `num` trajectories, on `workers` threads.

    Args:
        work: takes the numbers of a chunk's trajectories and the rows that they fill. All chunks
            have one size: the last one repeats the last trajectory, whose copies fill no row.
        num: how many trajectories there are.
        size: trajectories in a chunk.
        workers: how many threads.
    """
    x64 = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]

    @jax.enable_x64(x64)  # a thread does not inherit it where it was set by a context
    def chunk(first: int) -> None:
        index = np.minimum(np.arange(first, first + size), num - 1)
        work(index, slice(first, min(first + size, num)))

    # JAX lets go of the interpreter while it computes, so that threads use all cores.
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(chunk, range(0, num, size)))

"""Put a thing together again from its nodes and arrays, without calling any constructor."""

import dataclasses
import enum
import functools
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.core import FrozenDict
from flax.nnx.pytreelib import PytreeState

from physml.saving._encode import Described, Node, is_plain, text_of
from physml.saving._names import find
from physml.saving._values import VALUES

Own = Callable[[str, str], object]
"""What the user hands in for a name, at a path."""

Place = Callable[[str, np.ndarray], object]
"""Makes the array at a path from the numbers that were saved."""

T = TypeVar("T")


def decode(
    thing: Node, arrays: Sequence[np.ndarray], own: Own, place: Place | None = None
) -> object:
    """Put a thing together.

    Args:
        thing: its node.
        arrays: what nodes refer to by number.
        own: what the user hands in for a name, at a path.
        place: where given, it makes the arrays; otherwise they go to JAX's default device.

    Raises:
        ValueError: a name is unknown, or a class has other fields than when the thing was saved;
            or an array is float64 while JAX's x64 mode is off.
    """
    return _Decoder(arrays, own, place).thing(thing, "")


class _Decoder:
    def __init__(self, arrays: Sequence[np.ndarray], own: Own, place: Place | None):
        self._arrays = arrays
        self._own, self._place = own, place
        self._shared: dict[int, object] = {}

    def thing(self, node: Node, path: str) -> Any:
        """The thing that a node describes."""
        if not isinstance(node, dict):
            return node
        kind = node["kind"]
        if kind in VALUES:
            return VALUES[kind].make(*self._items(node["items"], path))
        make = getattr(self, "make_" + kind.replace(" ", "_"), None)
        if make is None:
            raise ValueError(
                f"thing{path} must be of a kind that this version of physml knows, got {kind!r}: a "
                "newer version has saved it"
            )
        return make(node, path)

    def make_float(self, node: Described, path: str) -> float:
        return float(node["value"])

    def make_complex(self, node: Described, path: str) -> complex:
        return complex(*self._items(node["parts"], path))

    def make_ellipsis(self, node: Described, path: str) -> object:
        return ...

    def make_dtype(self, node: Described, path: str) -> np.dtype:
        return jnp.dtype(node["name"])

    def make_list(self, node: Described, path: str) -> list:
        return list(self._items(node["items"], path))

    def make_tuple(self, node: Described, path: str) -> tuple:
        return tuple(self._items(node["items"], path))

    def make_set(self, node: Described, path: str) -> set:
        return set(self._items(node["items"], path))

    def make_frozenset(self, node: Described, path: str) -> frozenset:
        return frozenset(self._items(node["items"], path))

    def make_dict(self, node: Described, path: str) -> dict:
        return {
            self.thing(key, path): self.thing(value, f"{path}[{text_of(key)}]")
            for key, value in node["items"]
        }

    def make_ordered_dict(self, node: Described, path: str) -> OrderedDict:
        return OrderedDict(self.make_dict(node, path))

    def make_frozen_dict(self, node: Described, path: str) -> FrozenDict:
        return FrozenDict(self.make_dict(node, path))

    def make_default_dict(self, node: Described, path: str) -> defaultdict:
        factory = self.thing(node["factory"], f"{path}.default_factory")
        return defaultdict(factory, self.make_dict(node, path))

    def make_flag(self, node: Described, path: str) -> enum.Flag:
        return self._class(node, path, enum.Flag)(node["value"])

    def make_choice(self, node: Described, path: str) -> enum.Enum:
        kind = self._class(node, path, enum.Enum)
        if node["name"] not in kind.__members__:
            names = sorted(kind.__members__)
            raise ValueError(f"{node['of']} must have the member {node['name']!r}, got {names}")
        return kind[node["name"]]

    def make_array(self, node: Described, path: str) -> object:
        array = self._arrays[node["number"]]
        if self._place is not None:
            return self._place(path, array)
        if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
            raise ValueError(
                f"thing{path} is {array.dtype}, which needs JAX's x64 mode: call "
                'jax.config.update("jax_enable_x64", True) first'
            )
        return _weak(array) if "weak" in node else jnp.asarray(array)

    def make_numpy(self, node: Described, path: str) -> object:
        array = self._arrays[node["number"]]
        return array if self._place is None else self._place(path, array)

    def make_scalar(self, node: Described, path: str) -> object:
        array = self._arrays[node["number"]]
        return array[()] if self._place is None else self._place(path, array)

    def make_key(self, node: Described, path: str) -> object:
        data = self._arrays[node["number"]]
        if self._place is not None:
            return self._place(path, data)
        return jax.random.wrap_key_data(jnp.asarray(data), impl=node["implementation"])

    def make_name(self, node: Described, path: str) -> object:
        return self._named(node["name"], path)

    def make_own(self, node: Described, path: str) -> object:
        return self._own(node["name"], path)

    def make_again(self, node: Described, path: str) -> object:
        return self._shared[node["id"]]

    def make_member(self, node: Described, path: str) -> object:
        enumeration: Any = self._named(node["of"], path)
        now = enumeration._name_to_item
        if missing := [name for name in node["names"].values() if name not in now]:
            raise ValueError(f"{node['of']} must have the members {missing}, got {sorted(now)}")
        value = self.thing(node["value"], path)
        numbers = {int(old): int(now[name]._value) for old, name in node["names"].items()}
        if any(old != new for old, new in numbers.items()):
            renumbered = np.vectorize(numbers.__getitem__)(np.asarray(value))
            value = renumbered if isinstance(value, np.ndarray) else jnp.asarray(renumbered)
        return _blank(type(now[next(iter(now))]), {"_value": value, "_enumeration": enumeration})

    def make_state(self, node: Described, path: str) -> PytreeState:
        return PytreeState()

    def make_structure(self, node: Described, path: str) -> object:
        return jax.tree.structure(self._fields(node, path)["tree"])

    def make_partial(self, node: Described, path: str) -> object:
        function, arguments, keywords = self._items(node["call"], path)
        kind = self._class(node, path, functools.partial)
        return kind(function, *arguments, **keywords)

    def make_method(self, node: Described, path: str) -> object:
        return getattr(self.thing(node["owner"], f"{path}.owner"), node["name"])

    def make_variable(self, node: Described, path: str) -> nnx.Variable:
        kind = self._class(node, path, nnx.Variable)
        value = self.thing(node["value"], f"{path}.value")
        metadata = self.thing(node["metadata"], f"{path}.metadata")
        made = kind.from_metadata(value, metadata)
        self._remember(node, made)
        return made

    def make_module(self, node: Described, path: str) -> nnx.Pytree:
        made = _blank(self._class(node, path, nnx.Pytree), {"_pytree__state": PytreeState()})
        self._remember(node, made)
        for name, value in self._fields(node, path).items():
            object.__setattr__(made, name, value)
        return made

    def make_named_tuple(self, node: Described, path: str) -> tuple:
        kind: Any = self._class(node, path, tuple)
        fields = self._matched(node, self._fields(node, path), kind._fields, kind._field_defaults)
        return tuple.__new__(kind, (fields[name] for name in kind._fields))

    def make_record(self, node: Described, path: str) -> object:
        kind = self._class(node, path, object)
        fields = self._fields(node, path)
        if dataclasses.is_dataclass(kind):
            declared = dataclasses.fields(kind)
            defaults = {x.name: x.default for x in declared if x.default is not dataclasses.MISSING}
            names = [x.name for x in declared]
            fields = self._matched(node, fields, names, defaults)
        elif not is_plain(kind):
            raise ValueError(f"thing{path} must be a record, got {node['of']}")
        elif not fields:  # there is one of its kind, and numpyro asks whether it is that one
            return kind.__new__(kind)
        return _blank(kind, fields)

    def _matched(
        self,
        node: Described,
        fields: dict[str, object],
        names: Iterable[str],
        defaults: Mapping[str, object],
    ) -> dict[str, object]:
        """The fields by today's names; what has been added since then has its default."""
        complete = {**defaults, **fields}
        if set(complete) != set(names):
            raise ValueError(
                f"{node['of']} must have the fields {sorted(fields)}, as when it was saved, got "
                f"{sorted(names)}"
            )
        return complete

    def _class(self, node: Described, path: str, base: type[T]) -> type[T]:
        found = self._named(node["of"], path)
        if not (isinstance(found, type) and issubclass(found, base)):
            raise ValueError(f"{node['of']} must be a class, got {found!r}")
        return found

    def _named(self, name: str, path: str) -> object:
        if ":" not in name:
            return self._own(name, path)
        try:
            return find(name)
        except LookupError as error:
            raise ValueError(f"thing{path}: {error}") from error

    def _fields(self, node: Described, path: str) -> dict[str, Any]:
        return {name: self.thing(x, f"{path}.{name}") for name, x in node["fields"].items()}

    def _items(self, nodes: Iterable[Node], path: str) -> Iterable[Any]:
        return (self.thing(node, f"{path}[{index}]") for index, node in enumerate(nodes))

    def _remember(self, node: Described, thing: object) -> None:
        if "id" in node:
            self._shared[node["id"]] = thing


def _weak(array: np.ndarray) -> jax.Array:
    """An array as JAX has it where it comes from Python's numbers: it takes on another's dtype."""
    zero = jnp.asarray(array.dtype.type(0).item())
    if zero.dtype != array.dtype:  # made in another mode of JAX
        return jnp.asarray(array)
    if array.ndim == 0:
        return jnp.asarray(array.item())
    return jnp.broadcast_to(zero, array.shape).at[...].set(array)


def _blank(kind: type[T], attributes: Mapping[str, object]) -> T:
    """An instance with these attributes, on which no method has been called."""
    made = object.__new__(kind)
    for name, value in attributes.items():
        object.__setattr__(made, name, value)
    return made

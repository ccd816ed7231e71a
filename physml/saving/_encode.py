"""Take a thing apart into nodes of JSON and a list of arrays."""

import dataclasses
import functools
import inspect
import json
import math
import weakref
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.pytreelib import PytreeState

from physml._numerics.calls import as_given
from physml._numerics.checks import is_concrete
from physml.saving._names import name_of

Described = dict[str, Any]
"""A JSON object whose "kind" says what it describes, and so what else it holds."""

Node = None | bool | int | float | str | Described
"""What a thing becomes in JSON."""

Stored = jax.Array | np.ndarray | np.generic
"""What becomes an array in the file."""

_PLAIN = ("flax.nnx:State", "flax.typing:HashableMapping")
_DISTRIBUTIONS = "numpyro.distributions"


def is_plain(kind: type) -> bool:
    """Whether a class is no record, but its things hold everything in their attributes."""
    name = name_of(kind) or ""
    return name in _PLAIN or name.startswith(_DISTRIBUTIONS)


def text_of(key: Node) -> str:
    """A dict's key in a path."""
    return json.dumps(key) if isinstance(key, dict) else repr(key)


def _is_cache(thing: object, name: str, value: object) -> bool:
    """Whether an attribute of numpyro's is what it has computed, or what was never set."""
    computed = hasattr(inspect.getattr_static(type(thing), name, None), "__get__")
    unset = value is None and name.startswith("_")  # others are None in one half of a partition
    return computed or unset or isinstance(value, weakref.ref)


class Content(NamedTuple):
    """A thing taken apart.

    Attributes:
        thing: the thing's node.
        arrays: the arrays that nodes refer to by number; random keys as their data.
        own: what cannot be rebuilt: the user's functions, classes and other objects by name.
    """

    thing: Node
    arrays: Sequence[Stored]
    own: Mapping[str, object]


def encode(thing: object) -> Content:
    """Take a thing apart.

    Raises:
        TypeError: it holds a traced array, or an array of Python objects.
    """
    encoder = _Encoder()
    return Content(encoder.node(thing, ""), encoder.arrays, encoder.own)


class _Encoder:
    def __init__(self):
        self.arrays: list[Stored] = []
        self.own: dict[str, object] = {}
        self._numbers: dict[int, int] = {}  # of arrays, by their id
        self._shared: dict[int, Described] = {}  # nodes of what is changed in place
        self._count = 0  # of those that occur again
        self._kept: list[object] = []  # so that no id is used twice

    def node(self, thing: Any, path: str) -> Node:
        kind = type(thing)
        if thing is None or kind in (bool, int, str):
            return thing
        if kind is float:
            return thing if math.isfinite(thing) else {"kind": "float", "value": str(thing)}
        if kind is complex:
            return {"kind": "complex", "parts": self._items((thing.real, thing.imag), path)}
        if isinstance(thing, jax.Array | np.ndarray | np.generic):
            return self._array(thing, path)
        if thing is Ellipsis:
            return {"kind": "ellipsis"}
        if isinstance(thing, np.dtype):
            return {"kind": "dtype", "name": str(thing)}
        if id(thing) in self._shared:
            node = self._shared[id(thing)]
            if "id" not in node:
                node["id"], self._count = self._count, self._count + 1
            return {"kind": "again", "id": node["id"]}
        if kind in (list, tuple, set, frozenset):
            return {"kind": kind.__name__, "items": self._items(thing, path)}
        if kind is dict:
            return {"kind": "dict", "items": self._pairs(thing, path)}
        if kind is OrderedDict:
            return {"kind": "ordered dict", "items": self._pairs(thing, path)}
        if (given := as_given(thing)) is not thing:  # what it traces to is found again
            return self.node(given, path)
        if callable(thing) and (name := name_of(thing)):
            return {"kind": "name", "name": name}
        return self._composed(thing, path)

    def _composed(self, thing: Any, path: str) -> Node:
        """The node of what is neither a number, nor a collection, nor known by its name."""
        if isinstance(thing, nnx.Variable):
            node = self._remember(thing, {"kind": "variable", "of": self._class(thing)})
            value = thing.get_raw_value()
            if isinstance(value, jax.Ref):
                value = value[...]
            node["value"] = self.node(value, f"{path}.value")
            node["metadata"] = self.node(thing.get_metadata(), f"{path}.metadata")
            return node
        if isinstance(thing, nnx.Pytree):
            node = self._remember(thing, {"kind": "module", "of": self._class(thing)})
            fields = {name: x for name, x in vars(thing).items() if name != "_pytree__state"}
            data = fields["_pytree__nodes"]
            static = [name for name in fields if not data.get(name, False)]
            return self._fill(node, fields, static, path)
        if isinstance(thing, PytreeState):  # it only notes in what trace a module was made
            return {"kind": "state", "fields": {}}
        if isinstance(thing, jax.tree_util.PyTreeDef):
            example = {"tree": jax.tree.unflatten(thing, range(thing.num_leaves))}
            return self._fill({"kind": "structure"}, example, ("tree",), path)
        if isinstance(thing, functools.partial):
            call = self._items((thing.func, thing.args, thing.keywords), path)
            return {"kind": "partial", "of": self._class(thing), "call": call}
        if (function := getattr(thing, "__func__", None)) and hasattr(thing, "__self__"):
            owner = self.node(thing.__self__, f"{path}.owner")
            return {"kind": "method", "owner": owner, "name": function.__name__}
        if hasattr(thing, "__wrapped__"):  # a compiled or decorated function of the user
            return {"kind": "own", "name": self._own(thing)}
        if isinstance(thing, eqx.Module) and hasattr(thing, "_enumeration"):
            return self._member(thing, path)
        if isinstance(thing, tuple) and (names := getattr(thing, "_fields", None)) is not None:
            fields = dict(zip(names, thing, strict=True))
            return self._fill({"kind": "named tuple", "of": self._class(thing)}, fields, (), path)
        if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
            declared = dataclasses.fields(thing)
            fields = {x.name: getattr(thing, x.name) for x in declared if hasattr(thing, x.name)}
            record = isinstance(thing, eqx.Module)  # other dataclasses are static as a whole
            static = [x.name for x in declared if x.metadata.get("static") or not record]
            return self._fill({"kind": "record", "of": self._class(thing)}, fields, static, path)
        if is_plain(type(thing)):
            node, fields = {"kind": "record", "of": self._class(thing)}, vars(thing)
            if not node["of"].startswith(_DISTRIBUTIONS):
                return self._fill(node, fields, (), path)
            fields = {name: x for name, x in fields.items() if not _is_cache(thing, name, x)}
            return self._fill(node, fields, fields, path)  # with other numbers it is another prior
        return {"kind": "own", "name": self._own(thing)}

    def _fill(
        self, node: Described, fields: Mapping[str, object], static: Collection[str], path: str
    ) -> Described:
        if static:
            node["static"] = sorted(static)
        node["fields"] = {name: self.node(x, f"{path}.{name}") for name, x in fields.items()}
        return node

    def _items(self, things: Iterable[object], path: str) -> list[Node]:
        return [self.node(item, f"{path}[{index}]") for index, item in enumerate(things)]

    def _pairs(self, things: Mapping[object, object], path: str) -> list[list[Node]]:
        return [
            [self.node(key, path), self.node(x, f"{path}[{key!r}]")] for key, x in things.items()
        ]

    def _array(self, array: Stored, path: str) -> Described:
        if not is_concrete(array):
            raise TypeError(f"thing{path} must not be traced: save outside of jit, vmap and grad")
        if array.dtype == object:
            raise TypeError(f"thing{path} must hold numbers, got an array of Python objects")
        node: Described = {"kind": "array"}
        stored = array
        if not isinstance(array, jax.Array):
            node["kind"] = "numpy" if isinstance(array, np.ndarray) else "scalar"
        elif jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            node = {"kind": "key", "implementation": str(jax.random.key_impl(array))}
            stored = jax.random.key_data(array)
        elif array.weak_type:
            node["weak"] = True
        if id(array) not in self._numbers:
            self._kept.append(array)
            self._numbers[id(array)] = len(self.arrays)
            self.arrays.append(stored)
        number = self._numbers[id(array)]
        return node | {"number": number, "dtype": str(stored.dtype), "shape": list(stored.shape)}

    def _member(self, thing: Any, path: str) -> Described:
        """Members of an enumeration by name, since a later version may number them otherwise."""
        enumeration, value = thing._enumeration, thing._value
        used = {int(number) for number in np.unique(np.asarray(value))}
        names = enumeration._name_to_item.items()
        names = {str(int(item._value)): name for name, item in names if int(item._value) in used}
        of = self._name(enumeration)
        return {"kind": "member", "of": of, "names": names, "value": self.node(value, path)}

    def _remember(self, thing: object, node: Described) -> Described:
        self._kept.append(thing)
        self._shared[id(thing)] = node
        return node

    def _class(self, thing: object) -> str:
        return self._name(type(thing))

    def _name(self, thing: object) -> str:
        return name_of(thing) or self._own(thing)

    def _own(self, thing: object) -> str:
        """The name under which a user's own function, class or object is handed in by `load`."""
        named = getattr(thing, "__qualname__", None) or type(thing).__qualname__
        base = name = str(named).rpartition("<locals>.")[2]
        count = 1
        while name in self.own and self.own[name] is not thing:
            count += 1
            name = f"{base} {count}"
        self.own[name] = thing
        return name

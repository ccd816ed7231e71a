"""Take a thing apart into nodes of JSON and a list of arrays."""

import contextlib
import dataclasses
import enum
import functools
import inspect
import json
import math
import weakref
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
from physml.saving._values import DICTS, VALUES, kind_of

Described = dict[str, Any]
"""A JSON object whose "kind" says what it describes, and so what else it holds."""

Node = None | bool | int | float | str | Described
"""What a thing becomes in JSON."""

Stored = jax.Array | np.ndarray | np.generic
"""What becomes an array in the file."""

_PLAIN = ("flax.nnx:State", "flax.typing:HashableMapping")
_DEEPEST = (
    100  # Python lets functions call each other 1000 deep, and `load` takes up to five a level
)
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


def _has_name(dtype: np.dtype) -> bool:
    """Whether a dtype is found again by its name."""
    try:
        return jnp.dtype(str(dtype)) == dtype
    except (TypeError, ValueError, SyntaxError):  # NumPy reads some names as Python
        return False


def _is_kept(dtype: np.dtype) -> bool:
    """Whether a file gives back a dtype."""
    if dtype.isbuiltin == 2:  # a dtype that another package has registered
        return _has_name(dtype)
    if dtype.hasobject or dtype.kind not in "?biufcmMSUV":
        return False
    found = np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype))
    return found == dtype and dtype.type is not np.record


def _check_kept(array: Stored, path: str) -> None:
    """Refuse an array that would come back as another one."""
    if isinstance(array, jax.Array):  # whose dtypes are all known
        return
    if array.dtype == object:
        raise TypeError(f"thing{path} must hold numbers, got an array of Python objects")
    kind = type(array)
    plain = kind in (np.ndarray, np.memmap) or kind is array.dtype.type
    if not (plain and _is_kept(array.dtype)):
        raise TypeError(
            f"thing{path} must be a plain array of numbers, texts, times or a structure of them, "
            f"got a {kind.__module__}.{kind.__qualname__} of dtype {array.dtype}: save what it is "
            "made of (data, mask, fields) as plain arrays"
        )


def _implementation(keys: jax.Array, path: str) -> str:
    name = jax.random.key_impl(keys)
    if not isinstance(name, str):
        raise TypeError(f"thing{path} must be keys of an implementation of JAX's, got {name}")
    return name


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
        TypeError: it holds a traced array, or an array or a dtype that a file cannot hold.
        ValueError: it is inside of itself, or nested too deep.
    """
    encoder = _Encoder()
    try:
        node = encoder.node(thing, "")
    except RecursionError:  # many functions were at work already
        raise ValueError(
            f"thing must be nested at most {_DEEPEST} deep, and less where Python's stack "
            "(sys.getrecursionlimit) is nearly full"
        ) from None
    return Content(node, encoder.arrays, encoder.own)


class _Encoder:
    def __init__(self):
        self.arrays: list[Stored] = []
        self.own: dict[str, object] = {}
        self._numbers: dict[int, int] = {}  # of arrays, by their id
        self._shared: dict[int, Described] = {}  # nodes of what is changed in place
        self._count = 0  # of those that occur again
        self._kept: list[object] = []  # so that no id is used twice
        self._around: set[int] = set()  # ids of what is being taken apart

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
            return self._dtype(thing, path)
        if id(thing) in self._shared:
            node = self._shared[id(thing)]
            if "id" not in node:
                node["id"], self._count = self._count, self._count + 1
            return {"kind": "again", "id": node["id"]}
        with self._inside(thing, path):
            return self._collection(thing, path)

    @contextlib.contextmanager
    def _inside(self, thing: object, path: str) -> Iterator[None]:
        """Refuse what never ends, and what `load` could not put together again."""
        if id(thing) in self._around:
            raise ValueError(
                f"thing{path} must not be what it is inside of: a thing that holds itself"
            )
        if len(self._around) == _DEEPEST:
            raise ValueError(
                f"thing must be nested at most {_DEEPEST} deep, got more at thing{path[:40]}..."
            )
        self._around.add(id(thing))
        try:
            yield
        finally:
            self._around.remove(id(thing))

    def _collection(self, thing: Any, path: str) -> Node:
        """The node of what is neither a number nor an array."""
        kind = type(thing)
        if kind in (list, tuple):
            return {"kind": kind.__name__, "items": self._items(thing, path)}
        if kind in (set, frozenset):  # in an order that is the same in each process
            return {"kind": kind.__name__, "items": self._items(sorted(thing, key=repr), path)}
        if kind in DICTS:
            node = {"kind": DICTS[kind], "items": self._pairs(thing, path)}
            if kind is defaultdict:
                node["factory"] = self.node(thing.default_factory, f"{path}.default_factory")
            return node
        if value := kind_of(thing):
            return {"kind": value, "items": self._items(VALUES[value].told(thing), path)}
        if isinstance(thing, enum.Flag):
            node = {"kind": "flag", "of": self._class(thing), "static": ["value"]}
            return node | {"value": thing.value}
        if isinstance(thing, enum.Enum):
            return {"kind": "choice", "of": self._class(thing), "name": thing.name}
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

    def _dtype(self, dtype: np.dtype, path: str) -> Described:
        if not _has_name(dtype):
            raise TypeError(f"thing{path} must be a dtype that its name tells, got {dtype}")
        return {"kind": "dtype", "name": str(dtype)}

    def _array(self, array: Stored, path: str) -> Described:
        if not is_concrete(array):
            raise TypeError(f"thing{path} must not be traced: save outside of jit, vmap and grad")
        _check_kept(array, path)
        node: Described = {"kind": "array"}
        stored = array
        if not isinstance(array, jax.Array):
            node["kind"] = "numpy" if isinstance(array, np.ndarray) else "scalar"
        elif jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            node = {"kind": "key", "implementation": _implementation(array, path)}
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

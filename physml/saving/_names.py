"""Functions and classes by name: which names a file may use, and what they stand for."""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import numpy as np

_PACKAGES = (
    "physml",
    "jax",
    "flax",
    "optax",
    "equinox",
    "diffrax",
    "lineax",
    "optimistix",
    "numpy",
    "tinygp",
    "numpyro",
)
_PYTHON = (
    *(bool, int, float, complex, str, bytes),
    *(list, tuple, dict, set, frozenset, functools.partial),
)
_OF_PYTHON = {f"{kind.__module__}:{kind.__name__}": kind for kind in _PYTHON}
_SPREAD = {  # public places of what is defined in private modules elsewhere
    "jax": ("jax.numpy", "jax.nn", "jax.lax", "jax.scipy.special", "jax.nn.initializers"),
    "flax": ("flax.nnx",),
    "numpy": ("numpy",),
}


def name_of(thing: object) -> str | None:
    """The name `module:qualified name` under which `find` finds a function or class, or None.

    The module is the public one, where there is one, and in physml it is the room: a name holds
    although the modules within a room, or those within a package, change.
    """
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    if not isinstance(name, str):
        return None
    parts = str(getattr(thing, "__module__", "")).split(".")
    if thing in _PYTHON:
        return f"{thing.__module__}:{name}"
    if parts[0] not in _PACKAGES or not _allowed(thing):
        return None
    for module in _places(parts):
        if _look_up(module, name) is thing:
            return f"{module}:{name}"
    return None


def find(name: str) -> object:
    """What a name stands for.

    Only physml and the packages that it stands on are looked at, and there only functions and
    classes under the name that `name_of` gives them: a file cannot make anything else be imported.

    Raises:
        LookupError: there is no such function or class.
    """
    module, _, qualified = name.partition(":")
    found = _OF_PYTHON.get(name)
    if module.split(".")[0] in _PACKAGES:
        found = _look_up(module, qualified)
    if found is None or name_of(found) != name:
        raise LookupError(f"there is no function or class {name}")
    return found


def _allowed(thing: object) -> bool:
    """Whether a file may name a function or class. NumPy's functions also read and write files."""
    in_numpy = str(getattr(thing, "__module__", "")).startswith("numpy")
    return isinstance(thing, type | np.ufunc) or (callable(thing) and not in_numpy)


def _places(parts: list[str]) -> Iterator[str]:
    """The modules in which something that is defined in one of them may be found."""
    if parts[0] == "physml":
        private = (at for at, part in enumerate(parts) if part.startswith("_"))
        yield ".".join(parts[: next(private, len(parts))])
    else:
        yield from (".".join(parts[:length]) for length in range(1, len(parts)))
        yield from _SPREAD.get(parts[0], ())
    yield ".".join(parts)


def _look_up(module: str, qualified: str) -> object:
    """An attribute of a module; in physml also of the private modules of a room."""
    try:
        places = [importlib.import_module(module)]
    except ImportError:
        return None
    if module.split(".")[0] == "physml":
        places += _private_modules(places[0])
    for found in places:
        for part in qualified.split("."):
            found = inspect.getattr_static(found, part, None)
        if found is not None:
            return found
    return None


@functools.cache
def _private_modules(room: ModuleType) -> list[ModuleType]:
    names = (module.name for module in pkgutil.iter_modules(getattr(room, "__path__", ())))
    return [
        importlib.import_module(f"{room.__name__}.{name}") for name in names if name.startswith("_")
    ]

"""Compare what was saved with a thing of the same structure, and load into it."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from physml.saving._decode import decode
from physml.saving._encode import Described, Node, Stored, encode, text_of
from physml.saving._values import DICTS

_SHOWN = 5  # differences in a message


def decode_like(saved: Node, arrays: Sequence[np.ndarray], like: object) -> object:
    """What was saved, with the functions, and on the devices, of a thing of the same structure.

    Arrays, and numbers that are leaves of the pytree, are taken from what was saved. All else has
    to be the same in both, but for what stands where `like` has `...`.

    Raises:
        ValueError: they differ in what is static, in structure, shapes or dtypes.
    """
    given = encode(like)
    there = {fact.path: fact for fact in _facts(given.thing, given.arrays)}
    free = tuple(path for path, fact in there.items() if fact.node == {"kind": "ellipsis"})
    compared = {path: fact for path, fact in there.items() if path not in free}
    known = {fact.path: fact for fact in _facts(saved, arrays) if not fact.path.startswith(free)}
    _compare(known, compared)

    def own(name: str, path: str) -> object:
        node = there[path].node
        return given.own[node["of"] if "of" in node else node["name"]]

    def place(path: str, array: np.ndarray) -> object:
        if path.startswith(free):
            return array
        node = there[path].node
        beside = given.arrays[node["number"]]
        if not isinstance(beside, jax.Array):
            return array[()] if isinstance(beside, np.generic) else array
        # An array that is bound to a device asks for other programs than one that is not.
        made = jax.device_put(array, beside.sharding if beside.committed else None)
        if node["kind"] == "key":
            return jax.random.wrap_key_data(made, impl=node["implementation"])
        return made

    return decode(saved, arrays, own, place)


class _Fact(NamedTuple):
    """What has to be the same: a text about the thing at a path. A plain value has no node."""

    path: str
    text: str
    node: Described


def _compare(saved: dict[str, _Fact], given: dict[str, _Fact]) -> None:
    def text(facts: dict[str, _Fact], path: str) -> str:
        return facts[path].text if path in facts else "nothing"

    differences = [
        f"{text(saved, path)} at {path or 'its root'}, got {text(given, path)}"
        for path in [*saved, *(path for path in given if path not in saved)]
        if text(saved, path) != text(given, path)
    ]
    if differences:
        more = len(differences) - _SHOWN
        rest = f" and {more} more" if more > 0 else ""
        raise ValueError("like must be what was saved, " + ", ".join(differences[:_SHOWN]) + rest)


def _facts(thing: Node, arrays: Sequence[Stored]) -> Iterator[_Fact]:
    """Everything that a thing is made of, with what occurs again written out."""
    known: dict[int, Described] = {}

    def facts(node: Node, path: str, static: bool) -> Iterator[_Fact]:
        if not isinstance(node, dict):
            text = repr(node) if static or isinstance(node, str | None) else type(node).__name__
            yield _Fact(path, text, {})
            return
        if node["kind"] == "again":
            node = known[node["id"]]
        elif "id" in node:
            known[node["id"]] = node
        match node["kind"]:
            case "array" | "numpy" | "scalar" | "key":
                yield _Fact(path, _array_text(node, arrays, static), node)
            case "float" | "complex":
                text = str(node.get("value", node.get("parts"))) if static else node["kind"]
                yield _Fact(path, text, node)
            case "dtype" | "name" | "own":
                yield _Fact(path, node["name"].partition(" ")[0], node)
            case "member":
                text = str(sorted(node["names"].values())) if static else "member"
                yield _Fact(path, f"{text} of {node['of']}", node["value"])
            case "ellipsis":
                yield _Fact(path, "...", node)
            case kind:
                yield _Fact(path, node.get("of", kind).partition(" ")[0], node)
                for name, part in _parts(node):
                    inner = static or name.removeprefix(".") in node.get("static", ())
                    yield from facts(part, path + name, inner)

    yield from facts(thing, "", False)


def _parts(node: Described) -> Iterator[tuple[str, Node]]:
    """The nodes inside a node, each with what follows the node's path."""
    match node["kind"]:
        case kind if kind in DICTS.values():
            yield from ((f"[{text_of(key)}]", part) for key, part in node["items"])
            if "factory" in node:
                yield ".default_factory", node["factory"]
        case _ if "items" in node:
            yield from ((f"[{index}]", part) for index, part in enumerate(node["items"]))
        case "flag":
            yield ".value", node["value"]
        case "choice":
            yield ".name", node["name"]
        case "partial":
            yield from ((f"[{index}]", part) for index, part in enumerate(node["call"]))
        case "method":
            yield ".owner", node["owner"]
        case "variable":
            yield ".value", node["value"]
        case _:  # a kind that only a newer version knows has no fields, perhaps
            yield from ((f".{name}", part) for name, part in node.get("fields", {}).items())


def _array_text(node: Described, arrays: Sequence[Stored], static: bool) -> str:
    if node["kind"] == "key":
        return f"key<{node['implementation']}>{node['shape'][:-1]}"
    text = f"{node['dtype']}{node['shape']}"
    if not static:
        return text
    return f"{text} {hashlib.sha256(np.asarray(arrays[node['number']]).tobytes()).hexdigest()[:8]}"

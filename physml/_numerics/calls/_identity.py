"""What tells one fit from another, so that none goes on from the checkpoint of another."""

import dataclasses
import os
import zlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, PyTree

from physml._numerics.calls._traced import Trace
from physml._numerics.devices import on_host

_ROUNDINGS = 1e3  # of an array's size, by which machines may differ in where a fit begins


class Identity(eqx.Module):
    """What a fit computes, on which numbers, and from where.

    Attributes:
        facts: its functions, compared by name and by what is static in them, and what else was
            asked for.
        numbers: a checksum of each array that stays the same.
        computed: a checksum of the operations of each function, and of the numbers in them.
        begun: of each array of the state that it begins from, its kind, its size and a sum.
    """

    facts: PyTree
    numbers: PyTree[str]
    computed: PyTree  # of texts
    begun: PyTree  # of tuples, see `_sketch`

    def like(self) -> "Identity":
        """What a kept one is opened by: `require` says in words in what else they differ."""
        return dataclasses.replace(self, computed=..., begun=...)

    def require(self, kept: "Identity", path: str | os.PathLike[str]) -> None:
        """Raise ValueError unless what was kept, of the same facts and numbers, is this fit's."""
        if tuple(kept.computed) != self.computed:
            raise ValueError(
                f"checkpoint must be of this very fit, got {path}: a function of it computes "
                "something else, with another rate, weight, start or number from outside"
            )
        pairs = zip(kept.begun, self.begun, strict=False)
        if len(kept.begun) != len(self.begun) or not all(_agree(*pair) for pair in pairs):
            raise ValueError(
                f"checkpoint must be of this very fit, got {path}: it began from another state, "
                "such as weights drawn from another seed"
            )


def identity(facts: PyTree, numbers: PyTree, traces: tuple[Trace, ...], state: PyTree) -> Identity:
    """The identity of a fit.

    Args:
        facts: its functions and what else was asked for, whose arrays count as numbers.
        numbers: arrays that stay the same, such as its data and its key, and fingerprints of
            other functions than these.
        traces: its functions, traced.
        state: what it begins from.
    """
    texts, arrays = eqx.partition(numbers, lambda x: isinstance(x, str))
    checksums = jax.tree.map(_checksum, (eqx.filter(facts, eqx.is_array), arrays))
    computed = *(trace.fingerprint for trace in traces), *jax.tree.leaves(texts)
    return Identity(facts, checksums, computed, tuple(map(_sketch, jax.tree.leaves(state))))


def _checksum(array: ArrayLike) -> str:
    """A text that is another one for other numbers."""
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    found = on_host(array)
    bits = np.ascontiguousarray(found).reshape(-1).view(np.uint8)
    return f"{found.dtype}{list(found.shape)} {zlib.crc32(bits.data):08x}"


def _sketch(array: ArrayLike) -> tuple[str, float, float]:
    """Two numbers by which other finite floats are told from these, and a checksum of all else.

    They are the same to rounding for floats that two machines have drawn from one key.
    """
    floating = jnp.issubdtype(jnp.result_type(array), jnp.floating)
    if not (floating and np.isfinite(found := on_host(array)).all()):
        return _checksum(array), 0.0, 0.0
    numbers = found.astype(np.float64).ravel()
    weights = np.cos(np.arange(numbers.size))
    return (
        f"{found.dtype}{list(found.shape)}",
        float(np.linalg.norm(numbers)),
        float(numbers @ weights),
    )


def _agree(one: tuple[str, float, float], other: tuple[str, float, float]) -> bool:
    """Whether two sketches are of the same arrays to rounding."""
    (kind, *old), (other_kind, *new) = one, other
    if kind != other_kind or old == new:
        return kind == other_kind
    most = _ROUNDINGS * float(jnp.finfo(kind.partition("[")[0]).eps) * new[0]
    return np.allclose(old, new, rtol=0.0, atol=most)

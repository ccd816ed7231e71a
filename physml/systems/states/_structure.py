"""How the numbers of a state lie in a vector of real numbers: dicts, tuples, arrays, complex."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, PyTree

from physml._numerics.calls import answer, listed, shown
from physml._numerics.checks import floating_array, is_concrete, require_finite
from physml._numerics.interpreter import by_pairs


@dataclass(frozen=True)
class Structure:
    """The form of a state: a tree of arrays, whose numbers are the components of a vector.

    The leaves follow each other in JAX's order of the tree (the keys of a dict are sorted), the
    numbers of a leaf in the order of its axes. A complex number is two components, its real part
    and its imaginary part.

    Attributes:
        tree: the nested dicts, tuples and named tuples.
        shapes: of the leaves.
        is_complex: whether a leaf is complex.
    """

    tree: Any  # a PyTreeDef
    shapes: tuple[tuple[int, ...], ...]
    is_complex: tuple[bool, ...]

    @classmethod
    def of(cls, state: PyTree) -> "Structure":
        """The structure of a tree of arrays."""
        leaves, tree = jax.tree.flatten(state)
        shapes = tuple(jnp.shape(leaf) for leaf in leaves)
        return cls(tree, shapes, tuple(bool(jnp.iscomplexobj(leaf)) for leaf in leaves))

    @property
    def dim(self) -> int:
        """The number of components."""
        return sum(self._counts())

    @property
    def is_vector(self) -> bool:
        """Whether a state is a vector of real numbers already."""
        bare = jax.tree_util.treedef_is_leaf(self.tree)
        return bare and len(self.shapes[0]) == 1 and not self.is_complex[0]

    @property
    def words(self) -> str:
        """The tree with the leaves' shapes, for messages."""
        return _words(self.tree, list(map(_leaf_words, self.shapes, self.is_complex)))

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each component, such as `x[0]` or `psi[1].im`; `y0`, `y1` of a vector."""
        if self.is_vector:
            return tuple(f"y{i}" for i in range(self.dim))
        found = []
        for path, shape, pair in zip(self._paths(), self.shapes, self.is_complex, strict=True):
            path = jax.tree_util.keystr(path, simple=True, separator=".")
            for index in np.ndindex(shape):
                at = f"[{','.join(map(str, index))}]" if index else ""
                found += [
                    f"{path or 'y'}{at}{part}" for part in ((".re", ".im") if pair else ("",))
                ]
        return tuple(found)

    def ravel(self, state: PyTree) -> Float[Array, " dim"]:
        """The vector of a state of this structure."""
        leaves = self.tree.flatten_up_to(state)
        return jnp.concatenate([_components(leaf) for leaf in leaves])

    def ravel_like(
        self, name: str, state: PyTree
    ) -> "tuple[Float[Array, ' components'], Structure | None]":
        """The vector of a state of this structure, and the structure; or a vector, and None.

        Raises:
            TypeError, ValueError: as `take_apart_state`; or the structure is another one.
        """
        found, vector = take_apart_state(name, state)
        if found == self:
            return vector, self
        if not found.is_vector:
            raise ValueError(
                f"{name} must have the structure of the system's states, {self.words}, or shape "
                f"({self.dim},), got {found.words}"
            )
        return vector, None

    def ravel_rows(self, name: str, states: PyTree) -> Float[Array, "*num dim"]:
        """The vector of a state as a user has written it, or of several with an axis in front.

        Raises:
            TypeError, ValueError: as `take_apart_state`; or the structure is another one.
        """
        found, numbers = take_apart_state(name, states)
        if found == self:
            return numbers
        nums = {shape[:1] for shape in found.shapes}
        single = dataclasses.replace(found, shapes=tuple(shape[1:] for shape in found.shapes))
        if single != self or len(nums) != 1 or () in nums:
            raise ValueError(
                f"{name} must have the structure {self.words}, or the same with an axis of states "
                f"in front, got {found.words}"
            )
        return jax.vmap(self.ravel)(found.unravel(numbers))

    def unravel(self, vector: Float[Array, "*batch dim"]) -> PyTree:
        """The states of vectors; the leaves have the shapes (*batch, *shape)."""
        batch, leaves = vector.shape[:-1], []
        for part, shape, pair in zip(
            self._split(vector, self._counts()), self.shapes, self.is_complex, strict=True
        ):
            if pair:
                pairs = part.reshape(*batch, *shape, 2)
                leaves.append(jax.lax.complex(pairs[..., 0], pairs[..., 1]))
            else:
                leaves.append(part.reshape(*batch, *shape))
        return jax.tree.unflatten(self.tree, leaves)

    def sizes(self, vector: Float[Array, "*batch dim"]) -> Float[Array, "*batch numbers"]:
        """The absolute value of each number; that of a complex one from its two components."""
        parts = []
        for part, pair in zip(self._split(vector, self._counts()), self.is_complex, strict=True):
            parts.append(jnp.hypot(part[..., ::2], part[..., 1::2]) if pair else jnp.abs(part))
        return jnp.concatenate(parts, axis=-1)

    def unravel_sizes(self, vector: Float[Array, "*batch dim"]) -> PyTree:
        """The absolute values of numbers as a tree of real arrays, such as errors."""
        real = Structure(self.tree, self.shapes, (False,) * len(self.shapes))
        return real.unravel(self.sizes(vector))

    def ravel_answer(
        self, name: str, what: str, value: object, dtype: DTypeLike
    ) -> Float[Array, " dim"]:
        """The vector of what a user's function has returned.

        Raises:
            TypeError: the value is None, or not numbers, or complex where the state is real.
            ValueError: the value has another structure, or a leaf another shape.
        """
        if value is None:
            answer(name, f"{what} of the structure {self.words}", value)
        try:
            leaves = self.tree.flatten_up_to(value)
        except ValueError:
            raise ValueError(
                f"{name} must return {what} of the structure of the state, {self.words}, "
                f"got {_words_of(value)}"
            ) from None
        parts = []
        for leaf, path, shape, pair in zip(
            leaves, self._paths(), self.shapes, self.is_complex, strict=True
        ):
            kind = complex_dtype(dtype) if pair else dtype
            leaf_what = what + jax.tree_util.keystr(path)
            parts.append(_components(answer(name, leaf_what, leaf, shape, kind)))
        return jnp.concatenate(parts)

    def in_real_numbers(self, function: Callable[..., Array]) -> Callable[..., Array]:
        """A function of real arrays that computes with states, complex numbers in it by pairs."""
        return by_pairs(function) if any(self.is_complex) else function

    def spread(self, name: str, value: Any, of: str = "y0") -> Any:
        """A number for all components, or a tree of numbers like the state, as one for each.

        A leaf may be one number for all that the state has there. The two components of a complex
        number have the same one.

        Raises:
            ValueError: the tree is another one than the state's, or a leaf has another shape.
            TypeError: a leaf holds no real numbers.
        """
        if value is None or (np.ndim(value) == 0 and not isinstance(value, dict | tuple)):
            return value
        try:
            leaves = self.tree.flatten_up_to(value)
        except ValueError:
            raise ValueError(
                f"{name} must be a number or have the structure of {of}, {self.words}, "
                f"got {_words_of(value)}"
            ) from None
        parts = []
        for leaf, path, shape, pair in zip(
            leaves, self._paths(), self.shapes, self.is_complex, strict=True
        ):
            name_here = name + jax.tree_util.keystr(path)
            numbers = floating_array(name_here, leaf)
            if numbers.shape not in ((), shape):
                raise ValueError(f"{name_here} must have shape () or {shape}, got {numbers.shape}")
            numbers = jnp.broadcast_to(numbers, shape).ravel()
            parts.append(jnp.repeat(numbers, 2) if pair else numbers)
        return jnp.concatenate(parts)

    def _counts(self) -> list[int]:
        return [
            math.prod(shape) * (2 if pair else 1)
            for shape, pair in zip(self.shapes, self.is_complex, strict=True)
        ]

    def _paths(self) -> list[tuple]:
        numbered = jax.tree.unflatten(self.tree, range(self.tree.num_leaves))
        return [path for path, _ in jax.tree_util.tree_leaves_with_path(numbered)]

    @staticmethod
    def _split(vector: Array, counts: list[int]) -> Iterator[Array]:
        at = 0
        for count in counts:
            yield jax.lax.slice_in_dim(vector, at, at + count, axis=-1)
            at += count


def ravel_numbers(name: str, what: str, value: object) -> Float[Array, " components"]:
    """The vector of the numbers in any tree that a user's function has returned.

    Raises:
        TypeError: the value is None, or holds no numbers.
    """
    if value is None:
        answer(name, what, value)
    numbers = []
    for leaf in jax.tree.leaves(value):
        kind = leaf.dtype if isinstance(leaf, Array) else None  # complex numbers stay so
        numbers.append(answer(name, what, leaf, None, kind))
    return Structure.of(numbers).ravel(numbers)


def complex_dtype(dtype: DTypeLike) -> DTypeLike:
    """That of complex numbers whose parts have a floating dtype."""
    return jnp.complex128 if dtype == jnp.float64 else jnp.complex64


def take_apart_state(name: str, state: PyTree) -> tuple[Structure, Float[Array, " dim"]]:
    """The structure of a state as a user has written it, and its vector.

    A list is an array, as everywhere; dicts, tuples and named tuples are kept. Whole numbers become
    floating ones.

    Raises:
        TypeError: a leaf holds no numbers.
        ValueError: there are no numbers, or some are NaN or infinite; or leaves differ in
            precision, or float64 is asked for while `jax_enable_x64` is off.
    """
    pairs, tree = jax.tree_util.tree_flatten_with_path(state, is_leaf=_is_leaf)
    names = [name + jax.tree_util.keystr(path) for path, _ in pairs]
    leaves = [_as_numbers(where, leaf) for where, (_, leaf) in zip(names, pairs, strict=True)]
    dtype = _precision(name, dict(zip(names, (own for _, own in leaves), strict=True)))
    found = []
    for where, (leaf, _) in zip(names, leaves, strict=True):
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            real, imaginary = (floating_array(where, x, dtype) for x in (leaf.real, leaf.imag))
            array = jax.lax.complex(real, imaginary)
        else:
            array = floating_array(where, leaf, dtype)
        require_finite(where, array)
        found.append(array)
    state_of_arrays = jax.tree.unflatten(tree, found)
    structure = Structure.of(state_of_arrays)
    if structure.dim == 0:
        raise ValueError(f"{name} must hold numbers, got {_words_of(state)}")
    return structure, structure.ravel(state_of_arrays)


def _is_leaf(node: object) -> bool:
    return isinstance(node, list) or node is None


def _as_numbers(name: str, leaf: Any) -> tuple[Any, DTypeLike | None]:
    """A leaf as an array, and its own precision; Python's numbers and integers have none."""
    typed = isinstance(leaf, jax.Array | np.ndarray | np.generic)
    try:
        traced = not typed and not all(map(is_concrete, jax.tree.leaves(leaf)))
        array = jnp.asarray(leaf) if traced else leaf if typed else np.asarray(leaf)
    except (TypeError, ValueError) as error:  # rows of different lengths
        raise TypeError(f"{name} must be an array of numbers, got {error}") from error
    if not (array.dtype.kind in "iufc" or jnp.issubdtype(array.dtype, jnp.floating)):
        raise TypeError(f"{name} must hold numbers, got {shown(leaf)}")
    if not (typed or traced) or array.dtype.kind in "iu":
        return array, None
    return array, jnp.finfo(array.dtype).dtype


def _precision(name: str, own: dict[str, DTypeLike | None]) -> DTypeLike:
    """The one precision of all leaves."""
    first = {dtype: where for where, dtype in reversed(own.items()) if dtype is not None}
    if len(first) > 1:
        told = listed([f"{dtype} in {where}" for dtype, where in first.items()], "and")
        raise ValueError(f"{name} must have one precision, got {told}")
    return next(iter(first), jnp.zeros(()).dtype)


def _components(leaf: Any) -> Float[Array, " components"]:
    """A leaf's numbers one after the other, a complex one as its two parts."""
    if jnp.iscomplexobj(leaf):
        leaf = jnp.stack([jnp.real(leaf), jnp.imag(leaf)], axis=-1)
    return jnp.ravel(leaf)


def _words(tree: Any, leaves: list[str]) -> str:
    return str(jax.tree.unflatten(tree, [_Bare(text) for text in leaves]))


def _leaf_words(shape: tuple[int, ...], is_complex: bool) -> str:
    return f"{shape} complex" if is_complex else str(shape)


def _words_of(value: object) -> str:
    """What a tree is, by the shapes of its leaves."""

    def of(leaf: Any) -> _Bare:
        if not (hasattr(leaf, "shape") or np.isscalar(leaf)):
            return _Bare(shown(leaf))
        return _Bare(_leaf_words(getattr(leaf, "shape", ()), jnp.iscomplexobj(leaf)))

    return str(jax.tree.map(of, value, is_leaf=_is_leaf))


class _Bare(str):
    """A text that is printed without quotes."""

    def __repr__(self) -> str:
        return str(self)

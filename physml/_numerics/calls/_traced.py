"""Users' functions as JAX traces them: what they do, and with which numbers from outside."""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import (
    ClosedJaxpr,  # pyright: ignore[reportPrivateImportUsage]
    Jaxpr,
    JaxprEqn,
    Var,
    jaxpr_as_fun,
)
from jax.tree_util import Partial
from jaxtyping import PyTree

from physml._numerics.checks import is_concrete
from physml._numerics.compiled import constant
from physml._numerics.parts import Parts

T = TypeVar("T", bound=PyTree)
F = TypeVar("F", bound=Callable[..., Any])

_PLACE = re.compile(" at 0x[0-9a-f]+")  # of an object, another one at each trace


class Trace(NamedTuple):
    """A traced function.

    Attributes:
        closed: its operations, on the arrays that it holds as a pytree and then on its arguments.
        held: those arrays.
    """

    closed: ClosedJaxpr
    held: list[Any]

    @property
    def arguments(self) -> list[Var]:
        """The variables of the arguments."""
        return self.closed.jaxpr.invars[len(self.held) :]

    @property
    def digest(self) -> bytes | None:
        """Of the operations, their derivatives where these are users' own, and the numbers from
        outside; None where one of these is traced or the operations are not all of JAX."""
        text = str(self.closed)
        if "callback" in text or "custom_vjp_call" in text:
            return None  # what Python does there is not in the text
        try:
            rules = [_rule(*found) for found in _calls_with_rules(self.closed)]
        except Exception:  # of a rule that does not fit, which only a derivative would call
            return None
        numbers = list(itertools.chain(*map(_numbers, (self.closed, *rules))))
        return _hash((text, *map(str, rules)), numbers) if all(map(is_concrete, numbers)) else None

    @property
    def fingerprint(self) -> str:
        """Of the operations and the numbers from outside, but for what Python does in callbacks;
        another process that traces the function has the same."""
        return _hash((str(self.closed),), _numbers(self.closed)).hex()


def _hash(texts: Iterable[str], numbers: Iterable[Any]) -> bytes:
    digest = hashlib.sha256(_PLACE.sub("", "".join(texts)).encode())
    for number in numbers:
        digest.update(np.asarray(number).tobytes())
    return digest.digest()


def trace(function: Callable[..., Any], *arguments: PyTree) -> tuple[Trace, PyTree]:
    """A function traced with these arguments, and the shapes and dtypes of what it answers.

    Args:
        function: a callable pytree, such as a `Partial`, whose arrays may change without another
            program; what a closure holds is compiled into it.
        arguments: arrays, or their shapes and dtypes.
    """
    arrays, rest = eqx.partition(function, lambda x: isinstance(x, jax.Array | np.ndarray))
    held, structure = jax.tree.flatten(arrays)

    def call(held: list[Any], *arguments: PyTree) -> PyTree:
        return eqx.combine(jax.tree.unflatten(structure, held), rest)(*arguments)

    closed, answer = jax.make_jaxpr(call, return_shape=True)(held, *arguments)
    return Trace(closed, held), answer


def as_traced(tree: T, *traces: Trace) -> T:
    """A pytree whose functions are equal only to those that trace to the same operations.

    A function equals itself also after a number from outside that it reads has changed, and would
    find the programs that were compiled with the old number. And the function of a cell that a
    notebook runs again is another one, which does the same and need not be compiled again.

    Args:
        tree: what holds the functions.
        traces: of what calls them.
    """
    digests = [trace.digest for trace in traces]
    if not digests or None in digests:
        return tree
    digest = hashlib.sha256(b"".join(filter(None, digests))).digest()

    def convert(leaf: Any) -> Any:
        if _is_users(leaf):
            return Partial(AsTraced(_call, digest), leaf)
        if isinstance(leaf, Partial):
            return Partial(AsTraced(leaf.func, digest), *leaf.args, **leaf.keywords)
        # The object of a bound method is opened where programs are compiled.
        plain = callable(leaf) and not (hasattr(leaf, "__self__") or isinstance(leaf, nnx.Module))
        return AsTraced(leaf, digest) if plain else leaf

    def whole(thing: Any) -> bool:  # what is not a function stays as the arrays beside it expect
        return isinstance(thing, Partial | Parts | nnx.Module) or _is_users(thing)

    return jax.tree.map(convert, tree, is_leaf=whole)


def digest_of(marked: Any) -> str:
    """The checksum of the operations by which `as_traced` has marked a function; else nothing."""
    function = marked.func if isinstance(marked, Partial) else marked
    return function.digest.hex() if isinstance(function, AsTraced) else ""


def reads_traced(traced: Trace) -> bool:
    """Whether a function reads a number from outside that JAX traces, as `jax.grad` does."""
    return not all(map(is_concrete, traced.closed.consts))


def holding(function: Callable[..., PyTree], *arguments: PyTree) -> Partial:
    """A function that holds, as a pytree does, the numbers from outside that it reads.

    So derivatives and batches reach them where programs are compiled, and where a rule gives the
    derivative in all that is held. It takes arguments of the shapes and dtypes of these.
    """
    traced, answer = trace(function, *arguments)
    jaxpr, structure = traced.closed.jaxpr, jax.tree.structure(answer)
    shaped: list[Any] = traced.closed.in_avals[len(traced.held) :]
    dtypes = [x.dtype for x in shaped]

    def call(consts: list[Any], held: list[Any], *arguments: PyTree) -> PyTree:
        given = map(jnp.asarray, jax.tree.leaves(arguments), dtypes)
        answer = jaxpr_as_fun(ClosedJaxpr(jaxpr, consts))(*held, *given)
        return jax.tree.unflatten(structure, answer)

    return Partial(call, traced.closed.consts, traced.held)


def as_given(thing: Any) -> Any:
    """What a user gave, of what `as_traced` has marked; anything else as it is."""
    if isinstance(thing, AsTraced):
        return thing.function
    marked = isinstance(thing, Partial) and isinstance(thing.func, AsTraced)
    return thing.args[0] if marked and thing.func.function is _call else thing


def _is_users(thing: Any) -> bool:
    """Whether it is a callable pytree, and no record of this library nor a variable of Flax."""
    if not callable(thing) or isinstance(thing, Partial) or jax.tree_util.all_leaves([thing]):
        return False
    return _KNOWN.isdisjoint(kind.__module__.split(".")[0] for kind in type(thing).__mro__)


_KNOWN = {__name__.split(".")[0], "flax"}  # whose attributes are read by more than a call


def _call(function: Callable[..., PyTree], *args: PyTree, **kwargs: PyTree) -> PyTree:
    return function(*args, **kwargs)


def with_arrays(
    check: Callable[[PyTree], T], args: PyTree, arrays: PyTree = None
) -> tuple[T, PyTree]:
    """What a check answers, and `args` with arrays for floats: another value compiles nothing.

    Where the functions that it calls take no arrays, such as `math.sin`, `args` stay as they are.

    Args:
        check: what calls the functions.
        args: as they were given.
        arrays: what another check has made of them.
    """
    if arrays is None:
        arrays = jax.tree.map(lambda x: constant(x) if type(x) is float else x, args)
    try:
        return check(arrays), arrays
    except Exception:  # if something else is wrong, the words are those for what was given
        return check(args), args


def retraced(function: F, *arguments: PyTree) -> F:
    """A function that is equal only to those that trace to the same with these arguments."""
    return as_traced(function, trace(function, *arguments)[0])


def _rule(within: Jaxpr, call: JaxprEqn) -> ClosedJaxpr:
    """The rule for the derivative of such a call, traced along its arguments themselves."""
    variables = [x for x in call.invars if isinstance(x, Var)]
    arrays = {"constvars": [], "invars": variables, "outvars": call.outvars}
    alone = ClosedJaxpr(within.replace(eqns=[call], **arrays), ())

    def derivative(*arguments: Any) -> Any:
        tangents = [
            x if jnp.issubdtype(x.dtype, jnp.inexact) else np.zeros(x.shape, jax.dtypes.float0)
            for x in arguments
        ]
        return jax.jvp(jaxpr_as_fun(alone), arguments, tuple(tangents))

    return jax.make_jaxpr(derivative)(*alone.in_avals)


def _calls_with_rules(traced: Any) -> Iterator[tuple[Jaxpr, JaxprEqn]]:
    """The calls of functions that have a rule of their own for the derivative, and where."""
    for jaxpr in _jaxprs(traced):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "custom_jvp_call":
                yield getattr(jaxpr, "jaxpr", jaxpr), equation


def _numbers(traced: Any) -> Iterator[Any]:
    """The arrays from outside, which the text of a traced function leaves out."""
    for jaxpr in _jaxprs(traced):
        yield from getattr(jaxpr, "consts", ())


def _jaxprs(traced: Any) -> Iterator[Any]:
    """A traced function and all those inside it."""
    yield traced
    for equation in traced.eqns:
        for inner in jax.tree.leaves(equation.params, is_leaf=_is_traced):
            if _is_traced(inner):
                yield from _jaxprs(inner)


def _is_traced(thing: object) -> bool:
    return hasattr(thing, "eqns") or hasattr(thing, "jaxpr")


@dataclasses.dataclass(frozen=True, eq=False)
class AsTraced:
    """A function that equals another of the same code that traces to the same."""

    function: Callable[..., Any]
    digest: bytes

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.function

    @property
    def _key(self) -> Hashable:
        return getattr(self.function, "__code__", self.function), self.digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsTraced) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

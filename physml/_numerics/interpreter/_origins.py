"""The operation that made a NaN: a jaxpr evaluated with the origin of each value's NaN."""

import functools
import sysconfig
import traceback
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal  # pyright: ignore[reportPrivateImportUsage]
from jaxtyping import Array, Bool, Int32

from physml._numerics.interpreter._loops import bind, called_by, scan_counts

_RUN_ONCE = {"xla_backend_optimization_level": 0}  # a third of the time to compile

CLEAN, GIVEN = 0, 1
"""Origins of a value without NaN, and of NaN that was there before: a fill or unseen data."""

_OPAQUE = ("shard_map", "pallas_call")  # whose bodies run on parts of their arguments
_LIBRARY = Path(__file__).parents[2]
_JAX = str(Path(jax.__file__).parent)
_PYTHON = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


Frames = tuple[traceback.FrameSummary, ...]


class Made(NamedTuple):
    """An operation that made a NaN out of numbers.

    Attributes:
        operation: its name in JAX, such as "log".
        frames: where the code asks for it, without the frames of JAX and of other packages; the
            innermost one is the last.
    """

    operation: str
    frames: Frames

    @property
    def by_user(self) -> bool:
        """Whether the operation stands in code that is not this library's."""
        return bool(self.frames) and not _is_ours(self.frames[-1])

    def __str__(self) -> str:
        if not self.frames:
            return f"NaN made by {self.operation}"
        last = self.frames[-1]
        place = f'NaN made by {self.operation}, File "{last.filename}", line {last.lineno}'
        lines = [f"{place}, in {last.name}", *([f"    {last.line}"] if last.line else [])]
        outside = [frame for frame in self.frames if not _is_ours(frame)]
        if outside and _is_ours(last):
            called = outside[-1]
            lines += [f'asked for by File "{called.filename}", line {called.lineno}']
            lines += [f"    {called.line}"] if called.line else []
        return "\n".join(lines)


class _Value(NamedTuple):
    """An array of a jaxpr, and where its NaN comes from."""

    array: Any
    origin: Int32[Array, ""]


class _Origins:
    """The operations of a jaxpr and of all jaxprs within it, numbered as they are met."""

    def __init__(self) -> None:
        self._made: list[Made] = []
        self._numbers: dict[Hashable, int] = {}
        self._frames: Frames | None = None  # of the call of a function of JAX's own, while in it

    def number(self, equation: JaxprEqn) -> int:
        """The origin that stands for an operation: even in code that is not this library's."""
        key = id(equation), id(self._frames)  # both are kept
        if key not in self._numbers:  # JAX may trace the body of a loop twice
            frames = _frames(equation) if self._frames is None else self._frames
            self._made.append(Made(equation.primitive.name, frames))
            self._numbers[key] = GIVEN + 2 * len(self._made) - self._made[-1].by_user
        return self._numbers[key]

    def made(self, origin: int) -> Made | None:
        """The operation that an origin stands for; None for NaN that was given, or for none."""
        return self._made[(origin - GIVEN - 1) // 2] if origin > GIVEN else None

    def called(
        self, equation: JaxprEqn, inputs: list[_Value], seen: Int32[Array, ""]
    ) -> tuple[list[_Value], Int32[Array, ""]]:
        """The outputs of a function that an equation calls.

        JAX keeps what it has traced of its own functions, such as `jnp.where`, with the place of
        the first call. There the place of this call counts.
        """
        outside, body = self._frames, called_by(equation)
        first, name = getattr(body, "jaxpr", body).eqns[:1], equation.params.get("name")
        stack = _stack(first[0].source_info.traceback) if first else ()
        own = any(x.name == name and x.filename.startswith(_JAX) for x in stack)
        if outside is None and own:
            self._frames = _frames(equation)
        out = self.evaluate(body, inputs, seen)
        self._frames = outside
        return out

    def evaluate(
        self, closed: Any, given: Sequence[_Value], seen: Int32[Array, ""]
    ) -> tuple[list[_Value], Int32[Array, ""]]:
        """The outputs, and a user's operation whose NaN reached this library (0 for none)."""
        jaxpr: Jaxpr = getattr(closed, "jaxpr", closed)
        values = dict(zip(jaxpr.invars, given, strict=True))
        consts = getattr(closed, "consts", ())
        values |= zip(jaxpr.constvars, map(_as_given, consts), strict=True)

        def read(variable: Any) -> _Value:
            if isinstance(variable, Literal):
                kind: Any = variable.aval
                return _as_given(np.asarray(variable.val, kind.dtype))
            return values[variable]

        for equation in jaxpr.eqns:
            out, seen = self._equation(equation, [read(x) for x in equation.invars], seen)
            values |= zip(equation.outvars, out, strict=True)
        return [read(x) for x in jaxpr.outvars], seen

    def _equation(
        self, equation: JaxprEqn, inputs: list[_Value], seen: Int32[Array, ""]
    ) -> tuple[list[_Value], Int32[Array, ""]]:
        name = equation.primitive.name
        loops = {"scan": self._scan, "while": self._while, "cond": self._cond}
        if name in loops:
            return loops[name](equation, inputs, seen)
        if name not in _OPAQUE and called_by(equation) is not None:
            return self.called(equation, inputs, seen)
        out = bind(equation, [x.array for x in inputs])
        if not any(_is_inexact(x) for x in out):
            return [_Value(x, jnp.int32(CLEAN)) for x in out], seen
        number = self.number(equation)
        before = _latest([x.origin for x in inputs])
        origin = jnp.where(before == CLEAN, number, before)
        values = [_Value(x, jnp.where(_has_nan(x), origin, CLEAN)) for x in out]
        if number % 2 == 1:  # an operation of this library
            made = (before > GIVEN) & (before % 2 == 0)
            seen = jnp.where((seen == CLEAN) & made, before, seen)
        return values, seen

    def _scan(
        self, equation: JaxprEqn, inputs: list[_Value], seen: Int32[Array, ""]
    ) -> tuple[list[_Value], Int32[Array, ""]]:
        params = equation.params
        num_constants, num_carried = scan_counts(equation)
        constants, rest = inputs[:num_constants], inputs[num_constants:]
        stacked = rest[num_carried:]

        def step(carry: Any, rows: list[Any]) -> tuple[Any, list[_Value]]:
            carried, seen = carry
            slices = [_Value(row, x.origin) for row, x in zip(rows, stacked, strict=True)]
            out, seen = self.evaluate(params["jaxpr"], [*constants, *carried, *slices], seen)
            return (out[:num_carried], seen), out[num_carried:]

        (carried, seen), rows = jax.lax.scan(
            step,
            (rest[:num_carried], seen),
            [x.array for x in stacked],
            length=params["length"],
            reverse=params["reverse"],
        )
        joined = [_Value(x.array, _latest([x.origin])) for x in rows]
        return [*carried, *joined], seen

    def _while(
        self, equation: JaxprEqn, inputs: list[_Value], seen: Int32[Array, ""]
    ) -> tuple[list[_Value], Int32[Array, ""]]:
        params = equation.params
        of_test, of_body = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        tests, bodies, start = inputs[:of_test], inputs[of_test:of_body], inputs[of_body:]

        def goes_on(values: list[_Value], seen: Int32[Array, ""]) -> Bool[Array, "*members"]:
            return self.evaluate(params["cond_jaxpr"], [*tests, *values], seen)[0][0].array

        def turn(carry: Any) -> Any:
            values, seen = carry
            out, later = self.evaluate(params["body_jaxpr"], [*bodies, *values], seen)
            # Under vmap the test is an array, and members that are done keep their values.
            running = goes_on(values, seen)
            kept = []
            for new, old in zip(out, values, strict=True):
                shape = running.shape + (1,) * (new.array.ndim - running.ndim)
                array = new.array
                if running.ndim:
                    array = jnp.where(running.reshape(shape), new.array, old.array)
                origin = jnp.where(_has_nan(array), jnp.maximum(new.origin, old.origin), CLEAN)
                kept.append(_Value(array, origin))
            return kept, later

        return jax.lax.while_loop(lambda carry: jnp.any(goes_on(*carry)), turn, (start, seen))

    def _cond(
        self, equation: JaxprEqn, inputs: list[_Value], seen: Int32[Array, ""]
    ) -> tuple[list[_Value], Int32[Array, ""]]:
        branches = [
            lambda values, seen, branch=branch: self.evaluate(branch, values, seen)
            for branch in equation.params["branches"]
        ]
        return jax.lax.switch(inputs[0].array, branches, inputs[1:], seen)


def made_nan(closed: ClosedJaxpr, arguments: Sequence[Any]) -> Made | None:
    """The operation that made the NaN in a function's outputs; None where none made it.

    Every operation is evaluated with the origin of its NaN, in one compiled program. NaN that an
    operation makes and a later one drops, as `jnp.where` does, is not counted, and NaN among the
    arguments or the constants is intended: a fill, or data that nobody has seen. Where the outputs
    have such NaN only, the answer is the first operation in code outside of this library whose NaN
    has reached it, as that of a right-hand side does whose steps an integrator refuses until it
    gives up.

    Args:
        closed: the function.
        arguments: the arrays that it takes.
    """
    origins = _Origins()

    def run(arguments: Sequence[Any]) -> tuple[Int32[Array, ""], Int32[Array, ""]]:
        out, seen = origins.evaluate(closed, list(map(_as_given, arguments)), jnp.int32(CLEAN))
        return _latest([x.origin for x in out]), seen

    outputs, seen = map(int, jax.jit(run, compiler_options=_RUN_ONCE)(list(arguments)))
    return origins.made(outputs) or origins.made(seen)


def _as_given(array: Any) -> _Value:
    return _Value(array, jnp.where(_has_nan(array), jnp.int32(GIVEN), jnp.int32(CLEAN)))


def _latest(origins: list[Array]) -> Int32[Array, ""]:
    """One of several origins: an operation before NaN that was given, and that before none."""
    every = [jnp.ravel(x) for x in origins]
    every.append(jnp.full(1, CLEAN, jnp.int32))
    return jnp.max(jnp.concatenate(every))  # noqa: TID251 (of integers)


def _is_inexact(array: Any) -> bool:
    return jnp.issubdtype(jax.typeof(array).dtype, jnp.inexact)


def _has_nan(array: Any) -> Bool[Array, ""] | np.bool:
    return jnp.any(jnp.isnan(array)) if _is_inexact(array) else np.bool(False)


@functools.lru_cache(maxsize=4096)
def _stack(place: Any) -> Frames:
    return tuple(traceback.extract_tb(place.as_python_traceback())) if place else ()


def _frames(equation: JaxprEqn) -> Frames:
    stack = _stack(equation.source_info.traceback)
    return tuple(x for x in stack if not x.filename.startswith((*_PYTHON, "<frozen")))


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return Path(frame.filename).is_relative_to(_LIBRARY)

"""Indices beyond an array in what users write.

JAX reads the last entry in their place, or NaN, and leaves out what should be written there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var
from jaxtyping import PyTree

from physml._numerics.calls._traced import Trace, trace
from physml._numerics.checks import is_concrete
from physml._numerics.interpreter import called_by, scan_counts


def check_components(what: str, function: Callable[..., Any], **arguments: PyTree) -> Trace:
    """The function, traced; ValueError if it takes a component that an array does not have.

    Indices are known that do not depend on the arguments. One outside whose handling was asked for
    (`mode="clip"`, or `mode="fill"` with a number) is accepted.

    Args:
        what: the function's name in the message.
        function: what is called, with the values of these arguments.
        arguments: their names in the message.
    """
    traced, _ = trace(function, *arguments.values())
    paths = [
        name + jax.tree_util.keystr(path)
        for name, value in arguments.items()
        for path, _ in jax.tree_util.tree_leaves_with_path(value)
    ]
    require_components(what, traced, dict(zip(traced.arguments, paths, strict=True)))
    return traced


def require_components(what: str, traced: Trace, names: dict[Var, str]) -> None:
    """As `check_components`, of a function that is traced already.

    Args:
        what: the function's name in the message.
        traced: the function.
        names: of the variables that have one in the message.
    """
    closed = traced.closed
    held = zip(closed.jaxpr.invars, traced.held, strict=False)
    _follow(what, closed.jaxpr, _constants(closed) | _whole(held), dict(names))


def _constants(traced: Any) -> dict[Var, Any]:
    """The whole numbers that a traced function holds; none where JAX has them as arguments."""
    consts = getattr(traced, "consts", ())
    return _whole(zip(getattr(traced, "jaxpr", traced).constvars, consts, strict=False))


def _whole(pairs: Iterable[tuple[Var, Any]]) -> dict[Var, Any]:
    return {x: n for x, n in pairs if _counts(x) and is_concrete(n)}


def _follow(what: str, jaxpr: Jaxpr, numbers: dict[Var, Any], names: dict[Var, str]) -> list[Any]:
    """Check a function, of which some variables are known numbers; those known of its answer."""
    rows = set()  # variables that are a single row, and have its name

    def known(variable: Literal | Var) -> Any:
        return variable.val if isinstance(variable, Literal) else numbers.get(variable)

    for equation in jaxpr.eqns:
        name, inputs, outputs = equation.primitive.name, equation.invars, equation.outvars
        values = [known(x) for x in inputs]
        if name in _ON_NUMBERS and _counts(outputs[0]) and all(v is not None for v in values):
            with np.errstate(over="ignore"):  # as of random bits
                numbers[outputs[0]] = _ON_NUMBERS[name](equation, *map(np.asarray, values))
            continue
        of = names.get(inputs[0]) if inputs and isinstance(inputs[0], Var) else None
        for axis, starts, size in _taken(equation, values):
            _require_inside(what, inputs[0].aval.shape, axis, starts, size, of)  # pyright: ignore
        if name in ("slice", "dynamic_slice", "squeeze") and of is not None:
            row = "" if inputs[0] in rows else _row(equation, values[1:])
            if row is not None:
                names[outputs[0]] = of + row
                if name != "squeeze":  # whose axis of length 1 is still there
                    rows.add(outputs[0])
        for called, given in _called(equation):
            inner = getattr(called, "jaxpr", called)
            pairs = list(zip(inner.invars, given, strict=False))
            own = {a: names[b] for a, b in pairs if not isinstance(b, Literal) and b in names}
            held = {a: known(b) for a, b in pairs if known(b) is not None} | _constants(called)
            answer = _follow(what, inner, held, own)
            if name in ("jit", "pjit"):
                pairs = zip(outputs, answer, strict=True)
                numbers.update((x, n) for x, n in pairs if n is not None)
    return [known(x) for x in jaxpr.outvars]


def _counts(variable: Var) -> bool:
    """Whether it may be an index, or decide on one."""
    dtype: Any = getattr(variable.aval, "dtype", None)
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.integer, jnp.bool_))


def _called(equation: JaxprEqn) -> Iterator[tuple[Any, Sequence[Any]]]:
    """The functions that an equation calls, and their first arguments, the same in every call."""
    params, inputs = equation.params, equation.invars
    match equation.primitive.name:
        case "cond":
            yield from ((branch, inputs[1:]) for branch in params["branches"])
        case "while":
            first = params["cond_nconsts"]
            yield params["cond_jaxpr"], inputs[:first]
            yield params["body_jaxpr"], inputs[first : first + params["body_nconsts"]]
        case "scan":
            yield params["jaxpr"], inputs[: scan_counts(equation)[0]]
        case _ if (called := called_by(equation)) is not None:
            yield called, inputs


def _broadcast(equation: JaxprEqn, x: np.ndarray) -> np.ndarray:
    shape = equation.params["shape"]
    kept = dict(zip(equation.params["broadcast_dimensions"], x.shape, strict=True))
    return np.broadcast_to(x.reshape([kept.get(axis, 1) for axis in range(len(shape))]), shape)


def _iota(equation: JaxprEqn) -> np.ndarray:
    shape, axis = equation.params["shape"], equation.params["dimension"]
    return np.broadcast_to(
        np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape
    )


_ON_NUMBERS: dict[str, Callable[..., np.ndarray]] = {
    "lt": lambda equation, a, b: a < b,
    "add": lambda equation, a, b: a + b,
    "sub": lambda equation, a, b: a - b,
    "mul": lambda equation, a, b: a * b,
    "select_n": lambda equation, which, *cases: np.choose(which, cases),
    "convert_element_type": lambda equation, x: x.astype(equation.params["new_dtype"]),
    "broadcast_in_dim": _broadcast,
    "reshape": lambda equation, x: x.reshape(equation.params["new_sizes"]),
    "concatenate": lambda equation, *parts: np.concatenate(parts, equation.params["dimension"]),
    "iota": _iota,
}


def _taken(equation: JaxprEqn, values: list[Any]) -> Iterator[tuple[int, np.ndarray, int]]:
    """What an equation reads or writes of its first input: axis, first indices and their number."""
    name, params = equation.primitive.name, equation.params
    shapes: list[tuple[int, ...]] = [x.aval.shape for x in equation.invars]  # pyright: ignore
    if name in ("dynamic_slice", "dynamic_update_slice"):
        reads = name == "dynamic_slice"
        sizes, starts = (params["slice_sizes"], values[1:]) if reads else (shapes[1], values[2:])
        for axis, start in enumerate(starts):
            if start is not None:
                yield axis, np.asarray(start), int(sizes[axis])
        return
    if values[1:] and values[1] is not None and (name == "gather" or name.startswith("scatter")):
        numbers = params["dimension_numbers"]
        if name == "gather":
            axes, sizes = numbers.start_index_map, params["slice_sizes"]
            filled = params["fill_value"]
            chosen = filled is not None and filled == filled  # not NaN
        else:
            axes, chosen = numbers.scatter_dims_to_operand_dims, False
            single = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
            window = iter([shapes[2][axis] for axis in numbers.update_window_dims])
            sizes = [1 if axis in single else next(window) for axis in range(len(shapes[0]))]
        if params["mode"] is not None and params["mode"].name != "CLIP" and not chosen:
            for i, axis in enumerate(axes):
                yield int(axis), np.asarray(values[1])[..., i], int(sizes[axis])


def _require_inside(
    what: str, shape: tuple[int, ...], axis: int, starts: np.ndarray, size: int, name: str | None
) -> None:
    length = shape[axis]
    outside = starts[(starts < 0) | (starts > length - size)]
    if not outside.size:
        return
    start = int(outside.flat[0])
    index = start - length * (start < 0)  # the index that was written
    of = f"an array of shape {shape}" if name is None else name
    if len(shape) == 1 and name is not None:
        raise ValueError(
            f"{what} must use the components {of}[0] to {of}[{length - 1}], got {of}[{index}]"
        )
    raise ValueError(f"{what} must use indices from 0 to {length - 1} of {of}, got {index}")


def _row(equation: JaxprEqn, starts: list[Any]) -> str | None:
    """What is appended to the name of an array of which a single row is taken; None of several."""
    shape: Any = equation.outvars[0].aval.shape  # pyright: ignore
    if equation.primitive.name == "squeeze":  # the only row
        return "[0]" if 0 in equation.params["dimensions"] else ""
    if shape[:1] != (1,):
        return None
    first = starts[0] if starts else equation.params["start_indices"][0]
    return "[...]" if first is None else f"[{int(first)}]"

"""Indices beyond an array in what users write, which JAX takes for its last entry."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

_ON_NUMBERS = {
    "lt": lambda a, b: a < b,
    "add": lambda a, b: a + b,
    "select_n": lambda which, *cases: cases[int(which)],
}


def check_components(what: str, function: Callable[..., Any], **arrays: Any) -> None:
    """Raise ValueError if a function takes a component that an array does not have.

    Args:
        what: the function's name in the message.
        function: what is called, with these arrays.
        arrays: their names in the message.
    """
    jaxpr = jax.make_jaxpr(function)(*arrays.values()).jaxpr
    require_components(what, jaxpr, dict(zip(jaxpr.invars, arrays, strict=True)))


def require_components(what: str, jaxpr: Jaxpr, names: dict[Var, str]) -> None:
    """As `check_components`, of a function that is traced already.

    Args:
        what: the function's name in the message.
        jaxpr: the function.
        names: of the variables that have one in the message.
    """
    _follow(what, jaxpr, {}, dict(names))


def _follow(what: str, jaxpr: Jaxpr, numbers: dict[Var, Any], names: dict[Var, str]) -> None:
    """Check one function, of which some variables are known numbers."""
    rows = set()  # variables that are a single row, and have its name

    def known(variable: Literal | Var) -> Any:
        return variable.val if isinstance(variable, Literal) else numbers.get(variable)

    for equation in jaxpr.eqns:
        name, inputs = equation.primitive.name, equation.invars
        values = [known(x) for x in inputs]
        if name in _ON_NUMBERS and all(np.ndim(v) == 0 and v is not None for v in values):
            numbers[equation.outvars[0]] = _ON_NUMBERS[name](*values)
        elif name in ("slice", "dynamic_slice", "squeeze"):
            array = inputs[0]
            of = None if isinstance(array, Literal) else names.get(array)
            if name == "dynamic_slice":
                _require_inside(what, equation, values[1:], of)
            if of is not None:
                row = "" if array in rows else _row(equation, values[1:])
                if row is not None:
                    names[equation.outvars[0]] = of + row
                    if name != "squeeze":  # whose axis of length 1 is still there
                        rows.add(equation.outvars[0])
        elif (inner := _called(equation)) is not None:
            pairs = list(zip(inner.invars, inputs, strict=False))
            own = {a: names[b] for a, b in pairs if not isinstance(b, Literal) and b in names}
            _follow(what, inner, {a: known(b) for a, b in pairs if known(b) is not None}, own)


def _called(equation: JaxprEqn) -> Jaxpr | None:
    """The function that an equation calls, if it does."""
    return getattr(equation.params.get("jaxpr"), "jaxpr", None)


def _require_inside(what: str, equation: JaxprEqn, starts: list[Any], name: str | None) -> None:
    shape: tuple[int, ...] = equation.invars[0].aval.shape  # pyright: ignore
    for start, size, length in zip(starts, equation.params["slice_sizes"], shape, strict=True):
        if start is None or 0 <= int(start) <= length - size:
            continue
        index = int(start) - length * (int(start) < 0)  # the index that was written
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

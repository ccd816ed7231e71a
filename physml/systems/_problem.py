"""The check of an initial value problem, as users hand it in."""

from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr, Literal, Var
from jaxtyping import Array, PyTree

from physml._numerics.checks import floating_array, require_finite
from physml._numerics.compiled import constant
from physml._types import Numbers
from physml.systems._base import System


def check_problem(system: System, y0: Numbers, args: PyTree) -> tuple[System, Array]:
    """The system, with its numbers as (weakly typed) arrays, and y0 as an array, both checked.

    Raises:
        TypeError: `system` is not a System, or y0 not real numbers, or the right-hand side answers
            with None.
        ValueError: y0 has the wrong shape, precision or values, or the right-hand side answers
            with another shape or dtype.
    """
    if not isinstance(system, System):
        raise TypeError(
            f"system must be a System, got {type(system).__name__}: "
            "systems.from_function(f, dim) makes one of a right-hand side"
        )
    # JAX traces parameters that are arrays: another value of one does not compile again.
    system = jax.tree.map(lambda x: constant(x) if isinstance(x, float) else x, system)
    y0 = floating_array("y0", y0)
    if y0.shape[:1] != (system.dim,):
        raise ValueError(f"y0 must have shape ({system.dim},), got {y0.shape}")
    require_finite("y0", y0)
    traced, out = jax.make_jaxpr(lambda t, y: system(t, y, args), return_shape=True)(
        jax.ShapeDtypeStruct((), y0.dtype), y0
    )
    if out is None:
        raise TypeError(
            f"the right-hand side must answer with an array of shape {y0.shape}, got None"
        )
    if out.shape != y0.shape or out.dtype != y0.dtype:
        raise ValueError(
            f"the right-hand side must answer with the shape and dtype of y, {y0.shape} "
            f"{y0.dtype}, got {out.shape} {out.dtype}"
        )
    _require_components(traced.jaxpr, {traced.jaxpr.invars[1]: y0.shape[0]}, {})
    return system, y0


_ON_NUMBERS = {
    "lt": lambda a, b: a < b,
    "add": lambda a, b: a + b,
    "select_n": lambda which, *cases: cases[int(which)],
}


def _require_components(jaxpr: Jaxpr, lengths: dict, numbers: dict) -> None:
    """Raise ValueError if a right-hand side takes a component that the state does not have.

    JAX would take the last component for it.

    Args:
        jaxpr: the right-hand side.
        lengths: of those variables that are the state.
        numbers: the values of variables that are known.
    """

    def known(variable: Literal | Var) -> Any:
        return variable.val if isinstance(variable, Literal) else numbers.get(variable)

    for equation in jaxpr.eqns:
        name, inputs = equation.primitive.name, equation.invars
        values = [known(x) for x in inputs]
        if name in _ON_NUMBERS and all(np.ndim(v) == 0 and v is not None for v in values):
            numbers[equation.outvars[0]] = _ON_NUMBERS[name](*values)
        elif name == "dynamic_slice" and not isinstance(inputs[0], Literal):
            count, index = lengths.get(inputs[0]), values[1]
            if count is not None and index is not None and not 0 <= int(index) < count:
                raise ValueError(
                    f"the right-hand side must use the components y[0] to y[{count - 1}], "
                    f"got y[{index - count * (index < 0)}]"
                )
        elif "jaxpr" in equation.params and hasattr(equation.params["jaxpr"], "jaxpr"):
            inner = equation.params["jaxpr"].jaxpr
            pairs = list(zip(inner.invars, inputs, strict=False))
            _require_components(
                inner,
                {a: lengths[b] for a, b in pairs if not isinstance(b, Literal) and b in lengths},
                {a: known(b) for a, b in pairs if known(b) is not None},
            )

"""The check of an initial value problem, as users hand it in."""

import jax
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
    out = jax.eval_shape(system, jax.ShapeDtypeStruct((), y0.dtype), y0, args)
    if out is None:
        raise TypeError(
            f"the right-hand side must answer with an array of shape {y0.shape}, got None"
        )
    if out.shape != y0.shape or out.dtype != y0.dtype:
        raise ValueError(
            f"the right-hand side must answer with the shape and dtype of y, {y0.shape} "
            f"{y0.dtype}, got {out.shape} {out.dtype}"
        )
    return system, y0

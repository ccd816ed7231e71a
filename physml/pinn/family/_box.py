"""The box of starts and parameters that a bundle answers for."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.checks import floating_array, require_finite
from physml.systems import (
    ParametricSystem,
    System,
    check_problem,
    flatten_problem,
    with_parameters,
)
from physml.systems.states import Structure, take_apart_state


class InputField(eqx.Module):
    """The right-hand side of an input z = (y, p): a state, and parameters, if any are free."""

    system: System  # a `ParametricSystem` if there are parameters
    args: PyTree

    @property
    def dim(self) -> int:
        """The number of state variables, without the parameters."""
        return self.system.dim - len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the free parameters."""
        return self.system.names if isinstance(self.system, ParametricSystem) else ()

    def __call__(self, t: Array, z: Float[Array, "inputs *batch"]) -> Float[Array, "dim *batch"]:
        return self.system(t, z, self.args)[: self.dim]


class Box(NamedTuple):
    """What is solved, the corners of the box of its inputs, and how the user writes a state."""

    equation: InputField
    low: Float[np.ndarray, " inputs"]
    high: Float[np.ndarray, " inputs"]
    structure: Structure | None

    def at(self, shares: Float[np.ndarray, "num inputs"]) -> Float[np.ndarray, "num inputs"]:
        """Points of the box from those of the unit cube."""
        return self.low + (self.high - self.low) * shares


def check_box(
    system: System | Callable[..., Any],
    y0: PyTree,
    parameters: Mapping[str, tuple[float, float]] | None,
    args: PyTree,
) -> Box:
    """The box, with every static fact checked."""
    if isinstance(system, System) and getattr(system, "structure", None) is None:
        system, corners, args = _vector_corners(system, y0, args)
        structure = None
    else:
        system, corners, args, structure = _corners(system, y0, args)
    low, high = (np.asarray(corner) for corner in corners)
    require_finite("y0", corners)
    if not np.all(low <= high):
        raise ValueError(f"y0 must be corners low <= high, got {low} and {high}")
    if parameters:
        for name, interval in parameters.items():
            if np.shape(interval) != (2,):
                raise ValueError(f"{name} must have a range (low, high), got {interval}")
        system = with_parameters(system, **parameters)
        ranges = np.asarray(system.ranges, low.dtype).T
        low, high = np.concatenate([low, ranges[0]]), np.concatenate([high, ranges[1]])
    if np.all(low == high):
        raise ValueError("y0 or parameters must vary, got one point: use pinn.solve for one start")
    return Box(InputField(system, args), low, high, structure)


def _vector_corners(
    system: System, y0: PyTree, args: PyTree
) -> tuple[System, Float[Array, "2 dim"], PyTree]:
    """The system, the corners of the starts and `args`, where states are vectors."""
    corners = floating_array("y0", y0)
    if corners.ndim == 1:
        corners = jnp.stack([corners, corners])
    if corners.shape != (2, system.dim):
        raise ValueError(
            f"y0 must be one start, ({system.dim},), or corners (low, high), (2, {system.dim}); "
            f"got shape {np.shape(y0)}"
        )
    system, _, args = check_problem(system, corners[0], args)
    return system, corners, args


def _corners(
    system: System | Callable[..., Any], y0: PyTree, args: PyTree
) -> tuple[System, Float[Array, "2 dim"], PyTree, Structure | None]:
    """The same where a state may be written in any way, and what its structure is."""
    low, high = y0 if _is_pair(system, y0) else (y0, y0)
    (first, _), (second, end) = (take_apart_state("y0", corner) for corner in (low, high))
    if first != second:
        raise ValueError(
            f"y0 must have corners of one structure, got {first.words} and {second.words}"
        )
    flat = flatten_problem(system, low, args)
    corners = jnp.stack([flat.y0, end.astype(flat.y0.dtype)])
    return flat.system, corners, flat.args, flat.form.structure


def _is_pair(system: System | Callable[..., Any], y0: PyTree) -> bool:
    """Whether starts are two corners: a list of two states, or an array with an axis of them."""
    if isinstance(y0, dict | tuple):
        return False
    if isinstance(y0, list) and any(isinstance(x, dict | tuple) for x in y0):
        return len(y0) == 2
    shape = np.shape(y0)
    structure = getattr(system, "structure", None)
    if structure is None:
        return len(shape) > 1 and shape[0] == 2
    bare = structure.shapes[0] if len(structure.shapes) == 1 else None
    return shape != bare and shape[:1] == (2,) and shape[1:] in (bare, (structure.dim,))


def stops_of(box: Box, t0: float, t1: float) -> np.ndarray:
    """The times that no window crosses: jumps of the right-hand side, and the end."""
    equation, system = box.equation, box.equation.system
    jumps = system.jump_times(t0, t1)
    if isinstance(system, ParametricSystem):
        for corner in (box.low, box.high):
            moved = system.at(jnp.asarray(corner[equation.dim :])).jump_times(t0, t1)
            if not np.array_equal(moved, jumps):
                raise ValueError(
                    "parameters must not move the times at which the right-hand side jumps, got "
                    f"{equation.names}: windows that all solutions share cannot stop there"
                )
    stops = np.append(jumps, t1)
    return np.unique(stops[stops > t0])


def spread(dim: int, num: int) -> Float[np.ndarray, "num dim"]:
    """Points that fill the unit cube evenly, but denser towards its faces.

    They are a Kronecker sequence with the density of Chebyshev's points: polynomials through
    even points, and units as smooth as ours, are far off near the faces.
    """
    ratio = 1.5
    for _ in range(60):
        ratio = (1.0 + ratio) ** (1.0 / (dim + 1))  # the root of x^(dim + 1) = x + 1
    steps = ratio ** -np.arange(1.0, dim + 1)
    even = (0.5 + np.arange(1, num + 1)[:, None] * steps) % 1.0
    return 0.5 - 0.5 * np.cos(np.pi * even)

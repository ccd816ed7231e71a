"""The box of starts and parameters that a bundle answers for."""

from collections.abc import Mapping
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.checks import floating_array, require_finite
from physml._types import Numbers
from physml.systems import ParametricSystem, System, check_problem, with_parameters


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
    """What is solved, and the corners of the box of its inputs."""

    equation: InputField
    low: Float[np.ndarray, " inputs"]
    high: Float[np.ndarray, " inputs"]

    def at(self, shares: Float[np.ndarray, "num inputs"]) -> Float[np.ndarray, "num inputs"]:
        """Points of the box from those of the unit cube."""
        return self.low + (self.high - self.low) * shares


def check_box(
    system: System, y0: Numbers, parameters: Mapping[str, tuple[float, float]] | None, args: PyTree
) -> Box:
    """The box, with every static fact checked."""
    corners = floating_array("y0", y0)
    dim = getattr(system, "dim", None)
    if corners.ndim == 1:
        corners = jnp.stack([corners, corners])
    if corners.shape != (2, dim) and isinstance(system, System):
        raise ValueError(
            f"y0 must be one start, ({dim},), or corners (low, high), (2, {dim}); "
            f"got shape {np.shape(y0)}"
        )
    system, _ = check_problem(system, corners[0], args)
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
    return Box(InputField(system, args), low, high)


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

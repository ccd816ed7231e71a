"""The grid of a box, and which of its values the conditions on the faces fix."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from physml.pinn.space_time._jets import stacked, taylor
from physml.pinn.space_time._problem import PDECondition, PDEProblem
from physml.pinn.space_time.boxes._axis import GridAxis, grid_axis

_UNDETERMINED = 1e-10  # singular values of the conditions, relative to the largest


class Face(NamedTuple):
    """The points of a face of the box, with the condition there."""

    condition: PDECondition
    points: Float[np.ndarray, "face space"]


class Grid(NamedTuple):
    """A tensor grid; values are numbered by components, then as (x, y) in C order.

    Attributes:
        axes: of the coordinates of space, in the domain's order.
        points: all places, (points, space).
        free: the numbers of the values that the equation moves.
        fixed: those of the values that the conditions determine, `from_free @ (free values) +
            from_faces @ (what the conditions return for u = 0)`.
        faces: the points of each condition in space.
    """

    axes: tuple[GridAxis, ...]
    points: Float[np.ndarray, "points space"]
    free: Int[np.ndarray, " free"]
    fixed: Int[np.ndarray, " fixed"]
    from_free: Float[np.ndarray, "fixed free"]
    from_faces: Float[np.ndarray, "fixed rows"]
    faces: tuple[Face, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The numbers of points in each coordinate."""
        return tuple(axis.size for axis in self.axes)


def space_of(problem: PDEProblem) -> list[int]:
    """The indices of the coordinates of space."""
    return [i for i in range(problem.dim) if i != problem.time]


def make_grid(problem: PDEProblem, sizes: tuple[int, ...]) -> Grid:
    """The grid with so many points in each coordinate of space.

    Raises:
        ValueError: the conditions are not linear in u, or change with t by more than a term
            without u, or do not determine the values on the faces.
    """
    axes = tuple(
        grid_axis(*_ends(problem, i), problem.coordinates[i] in problem.periodic, n)
        for i, n in zip(space_of(problem), sizes, strict=True)
    )
    places = np.meshgrid(*(axis.points for axis in axes), indexing="ij")
    points = np.stack([place.ravel() for place in places], axis=-1)
    shape = tuple(axis.size for axis in axes)
    components = problem.components or 1
    numbers = np.arange(len(points)).reshape(shape)
    is_fixed = np.zeros((components, len(points)), bool)
    faces, rows = [], []
    for condition in problem.conditions:
        if condition.axis == problem.time:
            continue
        place = space_of(problem).index(condition.axis)
        on = np.take(numbers, -condition.end, axis=place).ravel()
        faces.append(Face(condition, points[on]))
        slopes = condition_slopes(problem, condition, points[on])
        is_fixed[np.ix_(_moved(problem, condition, slopes), on)] = True
        rows.append(_rows(axes, on, slopes, condition, space_of(problem)))
    free, fixed = (np.flatnonzero(of) for of in (~is_fixed, is_fixed))
    if not len(fixed):
        empty = np.zeros((0, len(free))), np.zeros((0, 0))
        return Grid(axes, points, free, fixed, *empty, tuple(faces))
    matrix = np.concatenate(rows)
    # Where two faces meet, both have conditions: each counts by its size, whatever its unit.
    units = np.linalg.norm(matrix, axis=1)
    left, singular, right = np.linalg.svd(matrix[:, fixed] / units[:, None], full_matrices=False)
    if len(singular) < len(fixed) or not singular[-1] > _UNDETERMINED * singular[0]:
        raise ValueError("conditions must determine u on the faces, got some that leave it free")
    inverse = -(right.T / singular) @ left.T / units
    return Grid(axes, points, free, fixed, inverse @ matrix[:, free], inverse, tuple(faces))


def _ends(problem: PDEProblem, index: int) -> tuple[float, float]:
    low, high = problem.intervals[index]
    return float(low), float(high)


def condition_slopes(
    problem: PDEProblem, condition: PDECondition, points: Float[np.ndarray, "face space"]
) -> Float[np.ndarray, "face rows derivatives components"]:
    """How a condition depends on the derivatives of u, which must be linear."""
    where = problem.intervals[condition.axis, condition.end]
    name = f"the condition at {problem.coordinates[condition.axis]} = {where}"
    components, of = problem.components or 1, condition.derivatives
    if problem.time is not None and any(d[problem.time] for d in of):
        raise ValueError(f"{name} must have no derivative in t where space has two coordinates")

    def slopes(jet: Array, t: Array, place: Array) -> Array:
        return jax.jacfwd(lambda jet: condition_rows(problem, condition, jet, place, t))(jet)

    random = np.random.default_rng(0)
    jets = jnp.asarray(random.uniform(0.5, 1.5, (2, len(of), components)))
    times = jnp.asarray(problem.intervals[problem.time or 0])
    ask = jax.jit(jax.vmap(slopes, (None, None, 0)))
    first, second = (
        np.asarray(ask(jet, t, jnp.asarray(points))) for jet, t in zip(jets, times, strict=True)
    )
    if not np.allclose(first, second, rtol=1e-9, atol=1e-12 * np.abs(first).max()):
        raise ValueError(
            f"{name} must be linear in u, with factors that do not change with t, where space has "
            "two coordinates"
        )
    return first


def condition_rows(
    problem: PDEProblem, condition: PDECondition, jet: Array, place: Array, t: Array
) -> Float[Array, " rows"]:
    """A condition at a point of its face, of (derivatives, components)."""
    point = whole_point(problem, place, t)
    own = jet[:, 0] if problem.components is None else jet
    u = taylor(problem.coordinates, condition.derivatives, own, point)
    return stacked(condition.residual(u, *point))


def whole_point(problem: PDEProblem, place: Array, t: Array) -> Float[Array, " dim"]:
    """The coordinates in the domain's order, of a place and a time."""
    if problem.time is None:
        return place
    return jnp.insert(place, problem.time, t)


def _moved(problem: PDEProblem, condition: PDECondition, slopes: np.ndarray) -> np.ndarray:
    """The components that a condition determines on its face: as many as it has rows."""
    moved = np.flatnonzero(np.any(slopes, axis=(0, 1, 2)))
    if len(moved) != slopes.shape[1]:
        name = problem.coordinates[condition.axis]
        raise ValueError(
            f"the conditions on a face of {name} must be as many as the components they depend on, "
            f"got {slopes.shape[1]} for {len(moved)}"
        )
    return moved


def _rows(
    axes: tuple[GridAxis, ...],
    on: Int[np.ndarray, " face"],
    slopes: Float[np.ndarray, "face rows derivatives components"],
    condition: PDECondition,
    space: list[int],
) -> Float[np.ndarray, "face_rows values"]:
    """A condition's rows as a matrix that acts on all values."""
    total = np.zeros((*slopes.shape[:2], slopes.shape[3], int(np.prod([a.size for a in axes]))))
    for i, derivative in enumerate(condition.derivatives):
        matrix = np.ones((1, 1))
        for axis, index in zip(axes, space, strict=True):
            matrix = np.kron(matrix, axis.derivative(derivative[index]))
        total += slopes[:, :, i, :, None] * matrix[on][:, None, None, :]
    return total.reshape(total.shape[0] * total.shape[1], -1)

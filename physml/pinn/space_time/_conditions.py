"""The conditions on the faces of a domain: checked before the solve, looked at again after it."""

from collections.abc import Mapping
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from physml._numerics.compiled import watched
from physml.pinn.space_time._jets import Field, PointResidual, derivatives_in, stacked, taylor
from physml.pinn.space_time._pointwise import Pointwise
from physml.pinn.space_time._problem import PDECondition, PDEProblem, points_inside

Face = tuple[str, float]
"""A face of the domain: the name of a coordinate and one end of its interval."""

_FACE_POINTS = 101  # at which the conditions are looked at again


def checked_conditions(
    problem: PDEProblem, conditions: Mapping[Face, PointResidual]
) -> tuple[PDECondition, ...]:
    """The conditions, if they are on faces of the domain and as many as the equation asks for."""
    found = [_condition(problem, face, of) for face, of in conditions.items()]
    for index in range(problem.dim):
        _check_count(problem, index, sum(rows for c, rows in found if c.axis == index))
    return tuple(condition for condition, _ in found)


def _condition(
    problem: PDEProblem, face: Face, residual: PointResidual
) -> tuple[PDECondition, int]:
    """A condition and the number of its rows."""
    name, position = face
    ends = dict(zip(problem.coordinates, problem.intervals, strict=True)).get(name)
    if ends is None or position not in ends or (name == "t" and position != ends[0]):
        raise ValueError(
            f"conditions must name faces of the domain, such as ('x', {problem.intervals[0, 0]}), "
            f"and the start of t, got {face}"
        )
    axis, end = problem.coordinates.index(name), int(position == ends[1])
    points = points_inside(problem.intervals)
    points[:, axis] = position
    label = f"the condition at {name} = {position}"
    residual, derivatives, rows = derivatives_in(
        label, residual, problem.coordinates, problem.components, points
    )
    most = np.array(problem.orders) - (np.arange(len(problem.orders)) == axis)
    if (np.array(derivatives) > most).any():
        raise ValueError(f"{label} must have lower derivatives than the equation")
    return PDECondition(axis, end, residual, derivatives), rows


def _check_count(problem: PDEProblem, index: int, count: int) -> None:
    """Raise ValueError unless the conditions on a coordinate's faces fix u in it."""
    name, order = problem.coordinates[index], problem.orders[index]
    wanted = order * (problem.components or 1)
    if name == "t":
        if count != wanted:
            raise ValueError(
                f"conditions at t = {problem.intervals[index, 0]} must return {wanted} numbers for "
                f"each point, since the equation has the derivative {order} in t, got {count}"
            )
    elif name in problem.periodic:
        if count:
            raise ValueError(f"conditions must name no face of {name}, which is periodic")
    elif not any(derivative[index] for derivative in problem.derivatives):
        if count:
            raise ValueError(
                f"conditions must name no face of {name}, in which the equation has no derivative"
            )
    elif not count:
        raise ValueError(f"conditions must name a face of {name}, which is not periodic")
    elif problem.components is None and order > 1 and count != order:
        raise ValueError(
            f"conditions on the faces of {name} must return {order} numbers in all, since the "
            f"equation has the derivative {order} in {name}, got {count}"
        )


def condition_defects(
    solution: Pointwise, problem: PDEProblem, sizes: np.ndarray
) -> tuple[dict[str, float], dict[str, float]]:
    """How much u misses each condition, and how far the condition could change.

    The first is the root mean square along the condition's face, the second the change for unknowns
    of these sizes that vary over the whole domain.
    """
    domain = np.asarray(solution.domain)
    lengths = np.where(np.ptp(domain, axis=1) > 0, np.ptp(domain, axis=1), 1.0)
    points, units = [], []
    for condition in problem.conditions:
        along = np.linspace(domain[:, 0], domain[:, 1], _FACE_POINTS)
        along[:, condition.axis] = domain[condition.axis, condition.end]
        points.append(jnp.asarray(along, problem.dtype))
        slopes = np.prod(lengths ** -np.array(condition.derivatives, float), axis=1)
        units.append(jnp.asarray(slopes[:, None] * sizes, problem.dtype))
    names = [
        f"the condition at {problem.coordinates[c.axis]} = {domain[c.axis, c.end]:.6g}"
        for c in problem.conditions
    ]

    @watched
    @eqx.filter_jit
    def missed(solution: Pointwise, points: list, units: list) -> list:
        ask = partial(_ask_condition, solution.field, problem)
        return [
            jax.vmap(partial(ask, condition), in_axes=(None, 0))(unit, where)
            for condition, unit, where in zip(problem.conditions, units, points, strict=True)
        ]

    found = [[np.asarray(x) for x in pair] for pair in missed(solution, points, units)]
    defects = [float(np.sqrt(np.mean(residual**2))) for residual, _ in found]
    # Each row in its own unit; the verdict compares the worst of them.
    reach = []
    for (residual, change), defect in zip(found, defects, strict=True):
        rows = np.sqrt(np.mean(residual**2, axis=0))
        most = change.max(axis=0)
        share = np.max(np.where(rows > 0, rows / np.where(most > 0, most, 1e-300), 0.0))
        reach.append(float(defect / share) if share > 0 else np.inf)
    return dict(zip(names, defects, strict=True)), dict(zip(names, reach, strict=True))


def _ask_condition(
    field: Field, problem: PDEProblem, condition: PDECondition, units: Array, point: Array
) -> tuple[Array, Array]:
    """A condition's rows at a point, and their change where u's derivatives change by `units`."""

    def rows(jet: Array) -> Array:
        own = jet[:, 0] if problem.components is None else jet
        u = taylor(problem.coordinates, condition.derivatives, own, point)
        return stacked(condition.residual(u, *point))

    def derivative(orders: tuple[int, ...]) -> Array:
        letters = "".join(c * n for c, n in zip(problem.coordinates, orders, strict=True))
        of_u = getattr(field, letters) if letters else field
        return jnp.atleast_1d(of_u(*point))

    jet = jnp.stack([derivative(orders) for orders in condition.derivatives])
    return rows(jet), jnp.sum(jnp.abs(jax.jacfwd(rows)(jet)) * units[None], axis=(1, 2))

"""Subtract the error of a solution on a mesh, and estimate what is left."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from physml._numerics.quadrature import all_nodes, interpolation
from physml.pinn.boundary._discretisation import Discretisation, Iterate, Sizes
from physml.pinn.boundary._linear import Factors, Step
from physml.pinn.boundary._problem import WINDOWS_AT_ONCE

Array = np.ndarray

_MOST_PASSES = 5
_DRAWS = 8  # of random signs
_SMALL = 0.1  # the largest correction, beside a component's size, that is subtracted


class Corrected(NamedTuple):
    """A solution less its error, and what remains of the error.

    Attributes:
        x: the solution, in finer windows.
        error: the last correction, which was not subtracted.
        left_out: what the quadrature of f in all windows makes of the solution.
        condition: the condition number of the conditions.
        maps: what each window makes of a change at its start.
    """

    x: Iterate
    error: Step
    left_out: Step
    condition: float
    maps: Float[Array, "windows dim dim"]


def finer(num_points: int) -> int:
    """The number of points of the correction, which leave out no more than rounding."""
    return 3 * num_points // 2


def correct(space: Discretisation, x: Iterate) -> Corrected:
    r"""Subtract the error of a solution, and estimate what is left.

    The defect of the windows' polynomials is found at half as many points again, in double-double,
    and so is what the conditions miss. The linearised problem turns them into the error, with its
    sign, which is subtracted; this is repeated for as long as it helps. The last correction is not
    subtracted: it estimates the error that remains. What the quadrature leaves out of each window
    is carried to all others in the same way, with signs drawn at random.

    Args:
        space: the mesh with the finer windows' points.
        x: a solution in the coarser ones.

    Raises:
        np.linalg.LinAlgError: the linearised problem is singular.
    """
    coarse = x.values.shape[1] - 2
    matrix = interpolation(all_nodes(coarse), all_nodes(space.num_points))
    values = np.einsum("qp,kpi->kqi", matrix, x.values).astype(x.values.dtype)
    x = Iterate(values, x.unknown)
    look, sizes = space.look(x), Sizes.of(x)
    if not look.finite:
        raise np.linalg.LinAlgError("f is not finite between the points")
    factors = space.factorise(look, sizes)
    eps, rest = np.finfo(values.dtype).eps, Iterate(np.zeros_like(values), np.zeros_like(x.unknown))
    before = np.inf
    for number in range(_MOST_PASSES):
        defects, misses, left = _exact_look(space, x, rest)
        step = factors.solve(defects, misses)
        length = sizes.norm(step)
        if number == _MOST_PASSES - 1 or not length <= min(_SMALL, 0.5 * before):
            break
        if number and length <= 2 * eps:
            break
        before = length
        x, rest = _add(x, rest, step)
    carried = _carried(factors, defects, misses, left)
    return Corrected(x, step, carried, factors.condition, factors.maps)


def _carried(factors: Factors, defects: Array, misses: Array, left: Array) -> Step:
    """What the errors `left` in each window make of the solution, their signs drawn at random."""
    draws, random = [], np.random.default_rng(0)
    for _ in range(_DRAWS if left.any() else 1):
        ends = np.zeros_like(defects)
        ends[:, -1] = left * random.choice([-1.0, 1.0], left.shape)
        draws.append(factors.solve(ends, np.zeros_like(misses)))
    return Step(*(np.max(np.abs(np.stack(parts)), axis=0) for parts in zip(*draws, strict=True)))


def _add(x: Iterate, rest: Iterate, step: Step) -> tuple[Iterate, Iterate]:
    """The sum of a double-double and a step, as a double-double."""
    pairs = []
    for a, b, c in zip(x, rest, step, strict=True):
        total = a + (change := b + c)
        seen = total - a
        pairs.append((total, (a - (total - seen)) + (change - seen)))
    return Iterate(*(hi for hi, _ in pairs)), Iterate(*(lo for _, lo in pairs))


def _exact_look(
    space: Discretisation, x: Iterate, rest: Iterate
) -> tuple[Array, Array, Float[Array, "windows dim"]]:
    """The defects, what the conditions miss, and what the quadrature of f leaves out."""
    problem, programs = space.problem, space.programs
    windows, fill = len(x.values), -len(x.values) % WINDOWS_AT_ONCE

    def padded(array: Array) -> Array:
        return np.pad(array, [(0, fill)] + [(0, 0)] * (array.ndim - 1), mode="edge")

    starts, ends = padded(space.edges[:-1]), padded(space.edges[1:])
    pair = [padded(y.values.transpose(0, 2, 1)) for y in (x, rest)]
    defects, left = [], []
    for first in range(0, windows, WINDOWS_AT_ONCE):
        some = slice(first, first + WINDOWS_AT_ONCE)
        given = starts[some], ends[some], *(y[some] for y in pair)
        found = programs.exact(problem, *given, x.unknown, rest.unknown)
        defects.append(np.asarray(found[0]).transpose(0, 2, 1))
        left.append(np.asarray(found[1]))
    states = space.states(x.values), space.states(rest.values)
    misses = programs.exact_conditions(problem, *states, x.unknown, rest.unknown)
    return np.concatenate(defects)[:windows], np.asarray(misses), np.concatenate(left)[:windows]

r"""The linearised problem on all windows at once.

In window k, with the correction $c_0$ at its start, those at its later nodes fulfil

$$c_i - c_0 - \tfrac h2 \sum_j W_{ij} (f_y c + f_p\, \delta p)_j = r_i.$$

Elimination of the points leaves an equation between the corrections at the window's two ends, and
elimination of the edges between the conditions' times one between those. Both are orthogonal
transformations of the equations, the second one for every other edge at once. This is stable where
solutions grow and where they decay, as maps from a window's start to its end would not be.

Source: S. J. Wright, Stable parallel algorithms for two-point boundary value problems, SIAM J. Sci.
Stat. Comput. 13 (1992) 742.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Array = np.ndarray


class Step(NamedTuple):
    """A correction of all nodes' values and of the unknown numbers."""

    values: Float[Array, "windows nodes dim"]
    unknown: Float[Array, " unknown"]


class Linearisation(NamedTuple):
    """The derivatives of the equation in all windows, and of the conditions.

    Attributes:
        half: half of each window's span.
        integrals: W, the last row to the end.
        by_state, by_unknown: f_y and f_p at the points.
        of_states, of_unknown: the derivatives of the conditions.
        places: the edges at which the conditions ask for the state.
    """

    half: Float[Array, " windows"]
    integrals: Float[Array, "later points"]
    by_state: Float[Array, "windows points dim dim"]
    by_unknown: Float[Array, "windows points dim unknown"]
    of_states: Float[Array, "rows states dim"]
    of_unknown: Float[Array, "rows unknown"]
    places: tuple[int, ...]


class _Rows(NamedTuple):
    """Equations $L e_k + R e_{k+1} + P\\,\\delta p = s$ between neighbouring edges."""

    left: Float[Array, "pairs dim dim"]
    right: Float[Array, "pairs dim dim"]
    unknown: Float[Array, "pairs dim unknown"]


class _Level(NamedTuple):
    """The elimination of every second edge of some neighbouring windows."""

    rotation: Float[Array, "pairs two_dim two_dim"]
    triangle: Float[Array, "pairs dim dim"]
    top: _Rows  # what the eliminated edges follow from


class Factors:
    """A linearised problem, factorised: it is solved for any defects.

    Attributes:
        units, unknown_units: those in which all is computed.
        condition: the condition number of the equations between the conditions' times.
        singular: whether they are singular to rounding. Then steps are the shortest that fulfil
            them as well as possible.
        smallest: their smallest singular value.
    """

    def __init__(
        self,
        linear: Linearisation,
        units: Float[Array, " dim"],
        unknown_units: Float[Array, " unknown"],
    ):
        """Factorise.

        Args:
            linear: the derivatives.
            units: the size of each component, in which all is computed.
            unknown_units: the size of each unknown number.

        Raises:
            np.linalg.LinAlgError: numbers are not finite.
        """
        self.units, self.unknown_units, self._linear = units, unknown_units, linear
        self._rows = self._eliminate_points()
        self._segments, lasting = [], []
        for first, last in self._spans():
            levels, whole = _eliminate(_Rows(*(x[first:last] for x in self._rows)))
            self._segments.append(levels)
            lasting.append(whole)
        left, sizes, right = np.linalg.svd(self._equations(lasting))
        eps = np.finfo(units.dtype).eps
        used = sizes > 8 * eps * sizes[0]
        self.singular = not bool(used.all())
        self.condition = float(sizes[0] / sizes[-1]) if sizes[-1] > 0 else np.inf
        self._whole_sign = np.linalg.slogdet(left)[0] * np.linalg.slogdet(right)[0]
        self.smallest = float(sizes[-1])
        inverse = np.where(used, 1 / np.where(used, sizes, 1.0), 0.0)
        self._inverse = (right.T * inverse) @ left.T

    @property
    def maps(self) -> Float[Array, "windows dim dim"]:
        """What each window makes of a change at its start, each component in its unit."""
        return -np.linalg.solve(self._rows.right, self._rows.left)

    @property
    def sign(self) -> float:
        """The sign of the determinant of all equations, which neighbours on one mesh share."""
        signs = [self._whole_sign, _sign(self._rotation), _sign(self._triangle)]
        for level in itertools.chain(*self._segments):
            signs += [_sign(level.rotation), _sign(level.triangle)]
        return float(np.prod(signs))

    def _spans(self) -> list[tuple[int, int]]:
        """The windows between neighbouring times of the conditions."""
        places = self._linear.places
        return list(itertools.pairwise(places))

    def _eliminate_points(self) -> _Rows:
        """The equations between the ends of each window."""
        linear, units = self._linear, self.units
        half, weights = linear.half[:, None, None, None], linear.integrals
        jacobian = half * linear.by_state * (units / units[:, None])
        forced = half * linear.by_unknown * (self.unknown_units / units[:, None])
        windows, points, dim = jacobian.shape[:3]
        inner, every = points * dim, (points + 1) * dim
        matrix = -np.einsum("pq,kqij->kpiqj", weights, jacobian, optimize=True)
        matrix = matrix.reshape(windows, every, inner)
        matrix[:, np.arange(inner), np.arange(inner)] += 1
        others = np.zeros((windows, every, 2 * dim + forced.shape[3]), units.dtype)
        others[:, :, :dim] = -np.tile(np.eye(dim), (points + 1, 1))  # of the start
        others[:, inner:, dim : 2 * dim] = np.eye(dim)  # of the end
        pushed = np.einsum("pq,kqiu->kpiu", weights, forced, optimize=True)
        others[:, :, 2 * dim :] = -pushed.reshape(windows, every, -1)
        rotation, triangle = np.linalg.qr(matrix, mode="complete")
        turned = rotation.transpose(0, 2, 1)
        self._rotation, self._triangle = turned, triangle[:, :inner]
        # An inverse serves for many right-hand sides; what it rounds, the next correction sees.
        self._inside = np.linalg.inv(self._triangle) @ turned[:, :inner]
        self._by_others = self._inside @ others
        self._left_over = turned[:, inner:]
        rest = self._left_over @ others
        return _Rows(rest[:, :, :dim], rest[:, :, dim : 2 * dim], rest[:, :, 2 * dim :])

    def _equations(self, lasting: list[_Rows]) -> Float[Array, "all all"]:
        """The matrix of the states at the conditions' times and of the unknown numbers."""
        linear, dim = self._linear, len(self.units)
        count, unknown = len(linear.places), len(self.unknown_units)
        matrix = np.zeros((count * dim + unknown,) * 2, self.units.dtype)
        for k, rows in enumerate(lasting):
            at = slice(k * dim, (k + 1) * dim)
            matrix[at, k * dim : (k + 2) * dim] = np.concatenate([rows.left[0], rows.right[0]], 1)
            matrix[at, count * dim :] = rows.unknown[0]
        conditions = (linear.of_states * self.units).reshape(len(linear.of_states), -1)
        below = slice((count - 1) * dim, None)
        matrix[below, : count * dim] = conditions
        matrix[below, count * dim :] = linear.of_unknown * self.unknown_units
        # Each equation in a unit of its own: those of conditions are the user's.
        sizes = np.max(np.abs(matrix), axis=1)
        self._sizes = np.where(sizes > 0, sizes, 1.0)
        return matrix / self._sizes[:, None]

    def solve(
        self, defects: Float[Array, "windows later dim"], misses: Float[Array, " rows"]
    ) -> Step:
        """The correction for the defects of all windows, and for the conditions' misses."""
        dim, count = len(self.units), len(self._linear.places)
        windows, later, _ = defects.shape
        known = (defects / self.units).reshape(windows, later * dim, 1)
        left = (self._left_over @ known)[:, :, 0]
        kept, right = [], []
        for levels, (first, last) in zip(self._segments, self._spans(), strict=True):
            tops, rest = _forward(levels, left[first:last])
            kept.append(tops)
            right.append(rest[0])
        found = self._inverse @ (np.concatenate([*right, -misses]) / self._sizes)
        unknown, at_places = found[count * dim :], found[: count * dim].reshape(count, dim)
        edges = np.zeros((windows + 1, dim), defects.dtype)
        for k, (first, last) in enumerate(self._spans()):
            ends = at_places[k : k + 2]
            edges[first : last + 1] = _backward(self._segments[k], kept[k], ends, unknown)
        others = np.concatenate([edges[:-1], edges[1:], np.tile(unknown, (windows, 1))], axis=1)
        inside = self._inside @ known - self._by_others @ others[:, :, None]
        values = np.empty((windows, later + 1, dim), defects.dtype)
        values[:, 0], values[:, -1] = edges[:-1], edges[1:]
        values[:, 1:-1] = inside.reshape(windows, later - 1, dim)
        return Step(values * self.units, unknown * self.unknown_units)


def _sign(matrices: Float[Array, "many n n"]) -> float:
    """The sign of the product of determinants."""
    return float(np.prod(np.linalg.slogdet(matrices)[0]))


def _eliminate(rows: _Rows) -> tuple[list[_Level], _Rows]:
    """Eliminate all inner edges; the equation that is left links the outer two."""
    levels, dim = [], rows.left.shape[1]
    while len(rows.left) > 1:
        pairs = len(rows.left) // 2 * 2
        a, b = (_Rows(*(x[first:pairs:2] for x in rows)) for first in (0, 1))
        rotation, triangle = np.linalg.qr(np.concatenate([a.right, b.left], 1), mode="complete")
        turned = rotation.transpose(0, 2, 1)
        left, right = turned[:, :, :dim] @ a.left, turned[:, :, dim:] @ b.right
        unknown = turned @ np.concatenate([a.unknown, b.unknown], axis=1)
        top = _Rows(left[:, :dim], right[:, :dim], unknown[:, :dim])
        levels.append(_Level(turned, triangle[:, :dim], top))
        bottom = left[:, dim:], right[:, dim:], unknown[:, dim:]
        rows = _Rows(*(np.concatenate([x, y[pairs:]]) for x, y in zip(bottom, rows, strict=True)))
    return levels, rows


def _forward(
    levels: list[_Level], known: Float[Array, "windows dim"]
) -> tuple[list[Array], Float[Array, "1 dim"]]:
    """The right-hand sides of the eliminated edges, and that of the equation that is left."""
    tops, dim = [], known.shape[1]
    for level in levels:
        pairs = 2 * len(level.rotation)
        turned = level.rotation @ known[:pairs].reshape(-1, 2 * dim, 1)
        tops.append(turned[:, :dim])
        known = np.concatenate([turned[:, dim:, 0], known[pairs:]])
    return tops, known


def _backward(
    levels: list[_Level], tops: list[Array], ends: Float[Array, "2 dim"], unknown: Array
) -> Float[Array, "edges dim"]:
    """The corrections at all edges, from those at the outer two."""
    edges = ends
    for level, top in zip(reversed(levels), reversed(tops), strict=True):
        pairs = len(level.rotation)
        left, right = edges[:pairs, :, None], edges[1 : pairs + 1, :, None]
        known = top - level.top.left @ left - level.top.right @ right
        middle = np.linalg.solve(level.triangle, known - (level.top.unknown @ unknown)[:, :, None])
        every = np.empty((len(edges) + pairs, edges.shape[1]), edges.dtype)
        every[0 : 2 * pairs : 2], every[1 : 2 * pairs : 2] = edges[:pairs], middle[:, :, 0]
        every[2 * pairs :] = edges[pairs:]
        edges = every
    return edges

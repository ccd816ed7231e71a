"""Intervals without an end: cut so far out that the solution does not change any more."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from physml.pinn.boundary._discretisation import Iterate
from physml.pinn.boundary._mesh import Found, Search, interpolate, transform
from physml.pinn.boundary._newton import first_step
from physml.pinn.boundary._problem import BoundaryProblem, Guess
from physml.results import RESULTS

Array = np.ndarray

_FIRST = 8.0  # times the time scale, where the interval is cut at first
_MOST_DOUBLINGS = 50
_ROUNDINGS = 1e3  # a change of so many roundings is none


class Ends(NamedTuple):
    """An interval, cut at both ends.

    Attributes:
        t0, t1: its ends, one of which or both may be infinite.
        reach: how far from the finite end, or from zero, it is cut.
    """

    t0: float
    t1: float
    reach: float = np.inf

    @property
    def infinite(self) -> bool:
        """Whether one of the ends is."""
        return not (np.isfinite(self.t0) and np.isfinite(self.t1))

    @property
    def middle(self) -> float:
        """The finite end, or zero; the first end where both are finite."""
        return next((t for t in (self.t0, self.t1) if np.isfinite(t)), 0.0)

    def at_first(self, scale: float) -> "Ends":
        """The interval, cut where a solution with this time scale has nearly settled."""
        return self._replace(reach=_FIRST * scale)

    @property
    def cut(self) -> tuple[float, float]:
        """The ends of what is solved."""
        low = self.t0 if np.isfinite(self.t0) else self.middle - self.reach
        return low, self.t1 if np.isfinite(self.t1) else self.middle + self.reach

    def stops(self, inner: Array, dtype: np.dtype) -> Array:
        """The ends, and those of some times that lie between them."""
        low, high = self.cut
        inside = inner[(inner > low) & (inner < high)]
        return np.unique(np.concatenate([[low, high], inside])).astype(dtype)

    def places(self, times: Array, dtype: np.dtype) -> Array:
        """The conditions' times, those at infinity where the interval is cut."""
        return np.clip(times, *self.cut).astype(dtype)


def time_scale(problem: BoundaryProblem, guess: Guess, t: float, unknown: Array) -> float | None:
    """One over the largest eigenvalue of f_y at the guess; None where they are all zero."""
    at = jnp.asarray(t, problem.dtype)
    y = jnp.asarray(guess(np.asarray(at)))
    jacobian = jax.jacfwd(lambda y: problem.rates(at, y, jnp.asarray(unknown)))(y)
    if not np.isfinite(jacobian).all():
        return None
    largest = float(np.max(np.abs(np.linalg.eigvals(np.asarray(jacobian)))))
    return 1 / largest if largest > 0 else None


def settle(
    search: Search, found: Found, ends: Ends, inner: Array, times: Array
) -> tuple[Found, Float[Array, " dim"]]:
    """Cut the interval twice as far out, again and again, until the solution does not change.

    The windows far out are as wide as the solution is smooth there, so that each doubling costs few
    of them. What further doublings would still change follows from the last two changes.

    Returns:
        The solution, and the error of each component that the cut makes.
    """
    dtype = found.edges.dtype
    eps, before = float(np.finfo(dtype).eps), None
    for _ in range(_MOST_DOUBLINGS):
        ends = ends._replace(reach=2 * ends.reach)
        stops, places = ends.stops(inner, dtype), ends.places(times, dtype)
        edges = _longer(found.edges, ends.cut)
        space = search.on_mesh(edges, places)
        ways = [go_on(found, space.nodes(), ends.middle) for go_on in _WAYS]
        tries = [Iterate(values, found.x.unknown) for values in ways]
        for x in sorted(tries, key=lambda x: first_step(space, x)):
            following = search.from_values(edges, stops, places, x)
            if following.result == RESULTS.successful:
                break
        else:
            return following, np.full(x.values.shape[2], np.inf)
        nodes = search.on_mesh(found.edges, found.edges[:1]).nodes()
        there = interpolate(following.edges, following.x.values, nodes)
        change = np.max(np.abs(there - found.x.values), axis=(0, 1))
        size = np.max(np.abs(found.x.values), axis=(0, 1))
        found, largest = following, float(np.max(change / np.where(size > 0, size, 1.0)))
        if before is not None:
            ratio = min(largest / before, 1 - eps) if before > 0 else 0.0
            rest = min(ratio / (1 - ratio), 1.0)  # what all further doublings add, in this change
            if largest * rest <= eps or largest <= _ROUNDINGS * eps:
                return found, change * rest
        before = largest
    words = f"The solution still changes where the interval is cut at {ends.cut}."
    return found._replace(result=RESULTS.unresolved, words=words), change


def _longer(edges: Float[Array, " edges"], cut: tuple[float, float]) -> Float[Array, " more_edges"]:
    """The mesh with two more windows at each end that has moved."""
    before = np.linspace(cut[0], edges[0], 3)[:-1] if cut[0] < edges[0] else edges[:0]
    after = np.linspace(edges[-1], cut[1], 3)[1:] if cut[1] > edges[-1] else edges[:0]
    return np.concatenate([before, edges, after]).astype(edges.dtype)


def _constant(found: Found, times: Array, middle: float) -> Array:
    """The values, which stay what they are at the ends."""
    return interpolate(found.edges, found.x.values, np.clip(times, *found.edges[[0, -1]]))


def _along_tangents(found: Found, times: Array, middle: float) -> Array:
    """The values, which go on along the tangents at the ends."""
    edges, values = found.edges, found.x.values
    beyond = times - np.clip(times, *edges[[0, -1]])
    degrees = np.arange(values.shape[1])
    slopes = degrees * (degrees + 1) / 2  # of the Legendre polynomials at 1
    at_ends = np.einsum("kpi,np->kni", values[[0, -1]], transform(values.shape[1] - 2))
    first = (-slopes * (-1.0) ** degrees) @ at_ends[0] * 2 / (edges[1] - edges[0])
    last = slopes @ at_ends[1] * 2 / (edges[-1] - edges[-2])
    slope = np.where(beyond[..., None] < 0, first, last)
    moved = _constant(found, times, middle) + beyond[..., None] * slope
    return moved.astype(values.dtype)


def _stretched(found: Found, times: Array, middle: float) -> Array:
    """The values, whose outer halves are stretched."""
    halves = middle + (found.edges[[0, -1]] - middle) / 2
    inner = np.clip(times, *halves)
    return interpolate(found.edges, found.x.values, inner + (times - inner) / 3)


_WAYS = (_along_tangents, _constant, _stretched)  # in which a solution may go on

"""Meshes of windows that adapt, and the search for a solution on them by Newton's method."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from physml._numerics.quadrature import all_nodes, piece_at, to_legendre
from physml.pinn.boundary._discretisation import Discretisation, Iterate
from physml.pinn.boundary._newton import Ended, newton
from physml.pinn.boundary._problem import BoundaryProblem, Guess, Programs
from physml.results import RESULTS

Array = np.ndarray

_FIRST_WINDOWS = 8
_FINER_STARTS = 2  # doublings of the first mesh, where Newton's method does not converge on it
_MOST_REFINEMENTS, _MOST_ON_THE_WAY = 8, 200  # of meshes before it has converged; their windows
_MOST_MESHES = 40
_STALLED = 1e3  # in units of what is allowed: below it, a mesh that does not help is the last
_MOST_PIECES = 8  # of one window at once
_FULL = 0.7  # of what a window can hold, up to which neighbours are merged
_SHORTEST = 64  # roundings of the time in a window


class Settings(NamedTuple):
    """What is asked of a search."""

    rtol: float
    atol: float
    num_points: int
    max_windows: int
    max_steps: int


class Found(NamedTuple):
    """What a search has found.

    Attributes:
        edges: of the mesh.
        x: the values on it.
        result: how it ended.
        words: more about a failure.
        num_steps, num_meshes: Newton's steps and the meshes, in all.
        residuals: of each window, up to 1 where it is resolved: the fullness of its polynomial.
        noise: how far rounding may have spoilt each component in Newton's last step.
    """

    edges: Float[Array, " edges"]
    x: Iterate
    result: RESULTS
    words: str
    num_steps: int
    num_meshes: int
    residuals: Float[Array, " windows"]
    noise: Float[Array, " dim"]


class Search:
    """Newton's method for one problem, on meshes that adapt to its solution."""

    def __init__(self, problem: BoundaryProblem, programs: Programs, settings: Settings):
        """A search that has not begun."""
        self.problem, self.programs, self.settings = problem, programs, settings
        self.num_steps = self.num_meshes = 0

    def on_mesh(self, edges: Array, places: Array, num_points: int | None = None) -> Discretisation:
        """The problem on a mesh."""
        num_points = self.settings.num_points if num_points is None else num_points
        return Discretisation(self.problem, self.programs, edges, places, num_points)

    def from_guess(
        self, stops: Float[Array, " stops"], places: Array, guess: Guess, unknown: Array
    ) -> Found:
        """The solution near a guess, first on an even mesh.

        Where Newton's method does not converge on it, it goes on from where it came, on meshes that
        resolve that. Where that does not help, whole steps are tried from the guess: where f is
        convex they come down from any height, which shares of a step take too long for. In the end
        all is tried from a finer even mesh.
        """
        for doublings in range(_FINER_STARTS + 1):
            edges = even = even_mesh(stops, _FIRST_WINDOWS << doublings)
            space = self.on_mesh(edges, places)
            ended = self._newton(space, Iterate(guess(space.nodes()), unknown))
            for _ in range(_MOST_REFINEMENTS):
                if ended.result != RESULTS.not_converged:
                    break
                finer = refine(edges, self._fullness(space, ended)[0], stops)
                if not len(edges) < len(finer) <= _MOST_ON_THE_WAY:
                    break
                space = self.on_mesh(finer, places)
                values = interpolate(edges, ended.x.values, space.nodes())
                edges, ended = finer, self._newton(space, Iterate(values, ended.x.unknown))
            if ended.result == RESULTS.not_converged:
                space = self.on_mesh(even, places)
                whole = self._newton(space, Iterate(guess(space.nodes()), unknown), damped=False)
                if whole.result == RESULTS.successful:
                    edges, ended = even, whole
            if ended.result != RESULTS.not_converged or len(edges) > self.settings.max_windows:
                break
        if ended.result != RESULTS.successful:
            return self._found(edges, ended)
        return self.adapt(edges, stops, places, ended)

    def from_values(self, edges: Array, stops: Array, places: Array, x: Iterate) -> Found:
        """The solution near values on a mesh."""
        ended = self._newton(self.on_mesh(edges, places), x)
        if ended.result != RESULTS.successful:
            return self._found(edges, ended)
        return self.adapt(edges, stops, places, ended)

    def on_values(self, edges: Array, stops: Array, places: Array, x: Iterate) -> Found:
        """The same on this very mesh."""
        return self._found(edges, self._newton(self.on_mesh(edges, places), x))

    def adapt(self, edges: Array, stops: Array, places: Array, ended: Ended) -> Found:
        """Change the mesh until it resolves the solution."""
        best, stalls = np.inf, 0
        for _ in range(_MOST_MESHES):
            space = self.on_mesh(edges, places)
            full, worst = self._fullness(space, ended)
            too_full = unresolved(edges, full)
            stalls = stalls + 1 if worst > 0.5 * best and worst < _STALLED else 0
            best = min(best, worst)
            if not too_full.any() or stalls == 3:
                return self._found(edges, ended, full)
            new = refine(edges, full, stops)
            if len(new) > self.settings.max_windows + 1:
                words = f"It wants {len(new) - 1} windows; max_windows is "
                words += f"{self.settings.max_windows}."
                failed = ended._replace(result=RESULTS.unresolved, words=words)
                return self._found(edges, failed, full)
            space = self.on_mesh(new, places)
            values = interpolate(edges, ended.x.values, space.nodes())
            following = self._newton(space, Iterate(values, ended.x.unknown))
            edges, ended = new, following
            if ended.result != RESULTS.successful:
                return self._found(edges, ended)
        words = f"{_MOST_MESHES} meshes were tried."
        return self._found(edges, ended._replace(result=RESULTS.unresolved, words=words), full)

    def _newton(self, space: Discretisation, x: Iterate, damped: bool = True) -> Ended:
        ended = newton(space, x, self.settings.max_steps, damped=damped)
        self.num_steps += ended.num_steps
        self.num_meshes += 1
        return ended

    def _fullness(self, space: Discretisation, ended: Ended) -> tuple[Array, float]:
        """How full the windows are, and the largest neglected term in units of what is allowed."""
        values, settings = ended.x.values, self.settings
        size, noise = np.max(np.abs(values), axis=(0, 1)), ended.noise.state
        relative = np.where(size > 10 * noise, settings.rtol * size, noise)  # or it is but rounding
        allowed = relative + settings.atol
        # Rounding as large as this is that of a mesh which is far too coarse.
        rounding = np.minimum(space.rounding(ended.look, ended.x), settings.rtol**0.5 * size / 8)
        return fullness(values, allowed, rounding)

    def _found(self, edges: Array, ended: Ended, full: Array | None = None) -> Found:
        full = np.full(len(edges) - 1, np.inf, edges.dtype) if full is None else full
        counts = self.num_steps, self.num_meshes
        return Found(edges, ended.x, ended.result, ended.words, *counts, full, ended.noise.state)


def even_mesh(stops: Float[Array, " stops"], count: int) -> Float[Array, " edges"]:
    """About `count` windows between the stops, each of which is an edge."""
    lengths = np.diff(stops)
    shares = np.maximum(np.round(count * lengths / lengths.sum()), 1).astype(int)
    pieces = [
        np.linspace(a, b, n + 1)[:-1]
        for a, b, n in zip(stops[:-1], stops[1:], shares.tolist(), strict=True)
    ]
    return np.concatenate([*pieces, stops[-1:]]).astype(stops.dtype)


def transform(num_points: int) -> Float[Array, "terms nodes"]:
    """The matrix from values at a window's nodes to Legendre coefficients."""
    return to_legendre(tuple(all_nodes(num_points)))[0]


def fullness(
    values: Float[Array, "windows nodes dim"],
    allowed: Float[Array, " dim"],
    rounding: Float[Array, "windows dim"],
) -> tuple[Float[Array, " windows"], float]:
    """How full each window is: up to 1 its polynomial resolves the solution.

    It is the number of Legendre coefficients that are not negligible, beside the number that there
    are. Where the last ones are not negligible, the number needed follows from their decay.

    Args:
        values: at the nodes.
        allowed: the error allowed in each component.
        rounding: what rounding may have changed.

    Returns:
        The fullness, and the largest of the last coefficients in units of what is allowed.
    """
    matrix = transform(values.shape[1] - 2)
    terms = np.abs(np.einsum("np,kpi->kni", matrix, values))
    limit = np.maximum(allowed + 8 * rounding, np.finfo(values.dtype).tiny)
    size = np.max(terms / limit[:, None], axis=2)
    largest = np.maximum.accumulate(size[:, ::-1], axis=1)[:, ::-1]  # of all later terms
    count = size.shape[1]
    last, middle = largest[:, -2], largest[:, count // 2]
    needed = np.argmax(largest <= 1, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        decay = np.log(middle / last) / (count - 2 - count // 2)
        missing = np.where(last > 1, np.log(last) / decay, 0.0)
    full = np.where(last > 1, 1 + np.nan_to_num(missing, nan=np.inf) / count, needed / count)
    return np.minimum(full, _MOST_PIECES), float(np.max(last))


def unresolved(edges: Float[Array, " edges"], full: Float[Array, " windows"]) -> Array:
    """Which windows are too full, and not yet as short as the time can be told apart."""
    shortest = _SHORTEST * np.finfo(edges.dtype).eps * np.maximum(abs(edges[:-1]), abs(edges[1:]))
    return (full > 1) & (np.diff(edges) > shortest)


def refine(
    edges: Float[Array, " edges"], full: Float[Array, " windows"], stops: Float[Array, " stops"]
) -> Float[Array, " new_edges"]:
    """A mesh in which windows that were too full are cut, and neighbours with room are merged."""
    too_full, fixed = unresolved(edges, full), np.isin(edges, stops)
    new, held = [edges[:1]], np.inf
    for k, share in enumerate(full.tolist()):
        if too_full[k]:
            pieces = max(2, int(np.ceil(share)))
            new.append(np.linspace(edges[k], edges[k + 1], pieces + 1)[1:])
            held = np.inf
        elif held + share <= _FULL and not fixed[k]:
            new[-1] = np.append(new[-1][:-1], edges[k + 1])
            held += share
        else:
            new.append(edges[k + 1 : k + 2])
            held = share
    return np.concatenate(new).astype(edges.dtype)


def interpolate(
    edges: Float[Array, " edges"],
    values: Float[Array, "windows nodes dim"],
    times: Float[Array, "*times"],
) -> Float[Array, "*times dim"]:
    """The windows' polynomials at any times."""
    coefficients = np.einsum("np,kpi->kni", transform(values.shape[1] - 2), values)
    index = np.minimum(piece_at(edges, times), len(edges) - 2)
    start, end = edges[index], edges[index + 1]
    s = np.clip((2 * times - start - end) / (end - start), -1.0, 1.0)
    basis = np.polynomial.legendre.legvander(s, coefficients.shape[1] - 1)
    return np.einsum("...n,...ni->...i", basis, coefficients[index]).astype(values.dtype)

"""The search for a solution: Newton's method on meshes that adapt."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from physml.pinn.boundary._discretisation import Discretisation, Iterate
from physml.pinn.boundary._mesh import even_mesh, fullness, interpolate, refine, unresolved
from physml.pinn.boundary._newton import Ended, newton
from physml.pinn.boundary._problem import BoundaryProblem, Programs
from physml.results import RESULTS

Array = np.ndarray
Guess = Callable[[Float[Array, "*times"]], Float[Array, "*times dim"]]

_FIRST_WINDOWS = 8
_FINER_STARTS = 3  # doublings of the first mesh, where Newton's method does not converge on it
_MOST_MESHES = 40
_STALLED = 1e3  # in units of what is allowed: below it, a mesh that does not help is the last


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
    """

    edges: Float[Array, " edges"]
    x: Iterate
    result: RESULTS
    words: str
    num_steps: int
    num_meshes: int
    residuals: Float[Array, " windows"]


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
        """The solution near a guess, first on an even mesh; on finer ones where that fails."""
        ended, edges = None, stops
        for doublings in range(_FINER_STARTS + 1):
            edges = even_mesh(stops, _FIRST_WINDOWS << doublings)
            if doublings and len(edges) > self.settings.max_windows + 1:
                break
            space = self.on_mesh(edges, places)
            ended = self._newton(space, Iterate(guess(space.nodes()), unknown))
            if ended.result != RESULTS.not_converged:
                break
        assert ended is not None
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

    def _newton(self, space: Discretisation, x: Iterate) -> Ended:
        ended = newton(space, x, self.settings.max_steps)
        self.num_steps += ended.num_steps
        self.num_meshes += 1
        return ended

    def _fullness(self, space: Discretisation, ended: Ended) -> tuple[Array, float]:
        """How full the windows are, and the largest neglected term in units of what is allowed."""
        values, settings = ended.x.values, self.settings
        allowed = settings.rtol * np.max(np.abs(values), axis=(0, 1)) + settings.atol
        allowed = np.maximum(allowed, ended.noise.state)
        return fullness(values, allowed, space.rounding(ended.look, ended.x))

    def _found(self, edges: Array, ended: Ended, full: Array | None = None) -> Found:
        full = np.full(len(edges) - 1, np.inf, edges.dtype) if full is None else full
        return Found(
            edges, ended.x, ended.result, ended.words, self.num_steps, self.num_meshes, full
        )

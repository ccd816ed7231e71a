"""A march through time, slab by slab; elements and spans follow the residual."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from physml.pinn.space_time._discretisation import Discretisation
from physml.pinn.space_time._elements import halving
from physml.pinn.space_time._equations import Box, SlabEquations, defects
from physml.pinn.space_time._slab import FittedSlab, fit_slab
from physml.results import RESULTS

_SHORTEST = 1e-13  # window or element, relative to the whole interval

Edges = Float[np.ndarray, "_edges"]
Coefficients = Float[np.ndarray, "_elements *_across _along _components"]


class Slab(NamedTuple):
    """The solution over one window of time."""

    start: float
    span: float
    edges: Edges
    coefficients: Float[np.ndarray, "elements across along components"]


class Defect(NamedTuple):
    """The residual off the collocation points, as a change of u; infinite if not solved."""

    along: Float[np.ndarray, " elements"]  # between the points of each element
    across: float  # between the points in t, or in another coordinate

    @property
    def worst(self) -> float:
        """The larger of the two."""
        return max(float(self.along.max()), self.across)


class March:
    """Solves a problem slab by slab, on the host; a slab is one compiled call."""

    def __init__(self, space: Discretisation, rtol: float, max_elements: int, max_steps: int):
        self.space, self.rtol = space, rtol
        self.max_elements, self.max_steps = max_elements, max_steps
        self.halves = halving(space.functions[space.problem.axis])
        self.checks = space.checks()
        self.slabs: list[Slab] = []
        self.defects: list[float] = []
        self.num_rejected = self.num_iterations = 0
        self.scale = self.initial_defect = 0.0

    def steady(self, edges: Edges) -> RESULTS:
        """Find the one slab of a problem without t."""
        space = self.space
        equations = space.equations()
        start = np.zeros((len(edges) - 1, *space.across, space.num_along, space.problem.size))
        while True:
            box = space.box(edges, 0.0, 1.0)
            fitted = self._fit(equations, box, start, space.numbers)
            defect = self._judge(fitted, box, space.numbers)
            bad = defect.along > self._tolerance
            if not np.isfinite(defect.worst) or not bad.any() or len(bad) >= self.max_elements:
                break
            edges, start = self._split(edges, _read(fitted, start), bad)
        self._keep(0.0, 1.0, edges, _read(fitted, start), defect)
        if not np.isfinite(defect.worst):
            return RESULTS.nonlinear_divergence
        return RESULTS.successful if defect.worst <= self._tolerance else RESULTS.unresolved

    def through_time(self, edges: Edges, first_span: float | None, max_windows: int) -> RESULTS:
        """Solve window after window, with shorter windows and more elements where needed."""
        space, place = self.space, self.space.place
        t, t1 = space.problem.intervals[space.time]
        whole = t1 - t
        span = whole / 16 if first_span is None else min(first_span, whole)
        equations = space.equations()
        free = np.take(space.numbers, np.arange(1, space.across[place]), axis=place)
        later = [(0, 0)] * (len(space.across) + 3)
        later[1 + place] = (0, space.across[place] - 1)
        end = space.functions[space.time].at(np.array([1.0]))[0, 0]

        edges, state, converged = self._initial(edges)
        if not converged:
            return RESULTS.nonlinear_divergence
        num_failed = 0
        while t < t1:
            if not np.isfinite(state).all():
                return RESULTS.nonfinite
            if len(self.slabs) == max_windows:
                return RESULTS.max_steps_reached
            if span < _SHORTEST * whole:
                return RESULTS.window_failed
            left = t1 - t
            span = left if span > 0.99 * left else min(span, left / 2)
            box, start = space.box(edges, t, span), np.pad(state, later)
            fitted = self._fit(equations, box, start, free)
            defect = self._judge(fitted, box, free)
            ratio = self._tolerance / max(defect.across, 1e-12 * self._tolerance)
            factor = float(np.clip(0.9 * ratio ** (1 / len(end)), 0.25, 4.0))
            if defect.worst <= self._tolerance:
                num_failed = 0
                coefficients = _read(fitted, start)
                self._keep(t, span, edges, coefficients, defect)
                t = t1 if span == left else t + span
                state = np.moveaxis(coefficients, 1 + place, -1) @ end
                state = np.expand_dims(state, 1 + place)
            else:
                self.num_rejected += 1
                coarse = defect.across <= max(defect.along.max(), self._tolerance)
                if coarse and np.isfinite(defect.worst):
                    if len(edges) > self.max_elements:
                        return RESULTS.unresolved
                    edges, state = self._split(edges, state, defect.along > self._tolerance)
                    continue
                # A solution that is not smooth answers slowly to a shorter window.
                num_failed += 1
                factor = min(factor, 0.5**num_failed)
            span *= factor
        return RESULTS.successful

    def _initial(self, edges: Edges) -> tuple[Edges, Coefficients, bool]:
        """Returns (edges, coefficients, converged) of the initial state."""
        space = self.space
        across = tuple(1 if i == space.place else n for i, n in enumerate(space.across))
        start = np.zeros((len(edges) - 1, *across, space.num_along, space.problem.size))
        free = np.arange(int(np.prod(across)))
        equations, checks = space.initial()
        while True:
            box = space.box(edges, space.problem.intervals[space.time, 0], 1.0)
            fitted = self._fit(equations, box, start, free)
            share = np.sqrt(np.diff(edges) / np.ptp(edges))
            along = defects(checks, box, fitted.coefficients, jnp.asarray(free))
            along = np.asarray(along, np.float64).max(axis=0)[: len(share)] * share
            self.initial_defect = float(along.max())
            bad = (along > self._tolerance) & (share > _SHORTEST**0.5)
            if not bad.any() or len(edges) > self.max_elements:
                return edges, _read(fitted, start), bool(fitted.converged)
            edges, start = self._split(edges, start, bad)

    def _fit(
        self,
        equations: SlabEquations,
        box: Box,
        start: Coefficients,
        free: Int[np.ndarray, "*free"],
    ) -> FittedSlab:
        """One compiled call."""
        flat = start.reshape(start.shape[0], -1, *start.shape[-2:])
        missing = box.edges.size - 1 - len(flat)
        flat = np.pad(flat, [(0, missing), (0, 0), (0, 0), (0, 0)])
        flat = jnp.asarray(flat, self.space.problem.dtype)
        fitted = fit_slab(equations, box, flat, jnp.asarray(free.ravel()), self.max_steps)
        self.num_iterations += int(fitted.num_iterations)
        self.scale = max(self.scale, self.space.largest(np.asarray(fitted.coefficients)))
        return fitted

    def _judge(self, fitted: FittedSlab, box: Box, free: Int[np.ndarray, "*free"]) -> Defect:
        lengths = np.diff(np.asarray(box.edges, np.float64))[: int(box.count)]
        if not fitted.converged:
            return Defect(np.full(len(lengths), np.inf), np.inf)
        worst = defects(self.checks, box, fitted.coefficients, jnp.asarray(free.ravel()))
        # An element counts by its share of the domain, as in the L2 norm.
        worst = np.asarray(worst, np.float64)[:, : len(lengths)] * np.sqrt(lengths / lengths.sum())
        worst = np.nan_to_num(worst, nan=np.inf)
        return Defect(worst[0], float(worst[1:].max(initial=0.0)))

    def _keep(
        self, t: float, span: float, edges: Edges, coefficients: Coefficients, defect: Defect
    ) -> None:
        flat = coefficients.reshape(len(edges) - 1, -1, *coefficients.shape[-2:])
        shown = flat[..., : self.space.problem.components or 1]  # then come derivatives in t
        self.slabs.append(Slab(float(t), float(span), edges, shown))
        self.defects.append(defect.worst / self._tolerance)

    @property
    def _tolerance(self) -> float:
        return self.rtol * self.scale

    def _split(
        self, edges: Edges, coefficients: Coefficients, bad: Bool[np.ndarray, " elements"]
    ) -> tuple[Edges, Coefficients]:
        """Halve the elements that are bad."""
        rows, ends = [], [edges[:1]]
        for i, halve in enumerate(bad):
            row = coefficients[i]
            if halve:
                rows += [np.moveaxis(np.tensordot(h, row, (1, -2)), 0, -2) for h in self.halves]
                ends.append((edges[i : i + 1] + edges[i + 1 : i + 2]) / 2)
            else:
                rows.append(row)
            ends.append(edges[i + 1 : i + 2])
        return np.concatenate(ends), np.stack(rows)


def _read(fitted: FittedSlab, start: Coefficients) -> Coefficients:
    """The coefficients on the host, in the shape of the start that they were found from."""
    return np.asarray(fitted.coefficients)[: len(start)].reshape(start.shape)

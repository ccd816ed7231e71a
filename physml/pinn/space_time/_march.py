"""A march through time, slab by slab; elements and spans follow the residual."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from physml.pinn.space_time._discretisation import Discretisation
from physml.pinn.space_time._elements import halving
from physml.pinn.space_time._equations import Box, SlabEquation, SlabEquations, defects
from physml.pinn.space_time._slab import FittedSlab, fit_slab
from physml.results import RESULTS

_MOST_UNITS = 4  # tries to find the unit of what was zero
_SHORTEST = 1e-13  # window or element, relative to the whole interval
# Measured on many equations: the change of u that would remove the residual is larger than the
# error, and at the end of a window a part of the error has decayed.
_LOCAL_SHARE, _END_SHARE, _RESIDUAL_SHARE = 0.2, 0.1, 0.003
_UNMOVED = 16.0  # a window of half the length divides the residual in t by 2^16, if t limits it
# Times larger errors of equations with no derivative along the elements, or only the first.
_APART = {0: 16.0, 1: 4.0}

Edges = Float[np.ndarray, "_edges"]
Coefficients = Float[np.ndarray, "_elements *_across _along _components"]


class Slab(NamedTuple):
    """The solution over one window of time."""

    start: float
    span: float
    edges: Edges
    coefficients: Float[np.ndarray, "elements across along components"]
    errors: Float[np.ndarray, "elements components"]  # of u, estimated


class Stand(NamedTuple):
    """Where a march through time stands."""

    t: float
    span: float  # of the next window
    num_failed: int  # tries of it
    across: float  # the residual in t of the last try that failed
    edges: Edges
    state: Coefficients
    doubt: Coefficients  # about the state


class Defect(NamedTuple):
    """The residual between the collocation points, as a relative change of u.

    It is infinite if the equations were not solved.
    """

    along: Float[np.ndarray, " elements"]  # between the points of each element
    across: float  # between the points in t, or in another coordinate
    local: Float[np.ndarray, " elements"]  # the larger of both, whatever an element's length
    shares: Float[np.ndarray, " elements"]  # the part of each element in `across`

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
        self.checks, self.bumps = space.checks(), space.bumps()
        highest = max(derivative[space.problem.axis] for derivative in space.problem.derivatives)
        self.apart = _APART.get(highest, 1.0)
        self.slabs: list[Slab] = []
        self.defects: list[float] = []
        self.num_rejected = self.num_iterations = 0
        self.initial_defect = 0.0
        self.sizes = np.zeros(space.problem.size)  # of the unknowns, the largest so far
        self.random = np.random.default_rng(0)  # signs of errors, which are not known

    def steady(self, edges: Edges) -> RESULTS:
        """Find the one slab of a problem without t."""
        space = self.space
        equations = space.equations()
        start = np.zeros((len(edges) - 1, *space.across, space.num_along, space.problem.size))
        while True:
            box = space.box(edges, 0.0, 1.0)
            fitted = self._fit(equations, box, start, np.zeros_like(start), space.numbers)
            defect = self._judge(fitted, box, space.numbers)
            bad = defect.along > self.rtol
            if not np.isfinite(defect.worst) or not bad.any() or len(bad) >= self.max_elements:
                break
            edges, start = self._split(edges, _read(fitted.coefficients, start.shape), bad)
        if np.isfinite(defect.worst):
            # One more step, to learn how far a residual of this size moves u.
            found = _read(fitted.coefficients, start.shape)
            again = self._fit(
                equations, box, found, np.zeros_like(start), space.numbers, defect.local
            )
            fitted = fitted._replace(doubt=again.doubt)
        self._keep(0.0, 1.0, edges, fitted, start.shape, defect)
        if not np.isfinite(defect.worst):
            return RESULTS.nonlinear_divergence
        return RESULTS.successful if defect.worst <= self.rtol else RESULTS.unresolved

    def through_time(
        self,
        edges: Edges,
        first_span: float | None,
        max_windows: int,
        interrupted: Callable[[], bool],
        stand: Stand | None,
        note: Callable[["March", Stand], None],
    ) -> RESULTS:
        """Solve window after window, with shorter windows and more elements where needed.

        It goes on from where another march stood, if one did, and notes where it stands.
        """
        t, t1 = self.space.problem.intervals[self.space.time]
        whole = t1 - t
        if stand is None:
            edges, state, doubt, converged = self._initial(edges)
            if not converged:
                return RESULTS.nonlinear_divergence
            span = whole / 16 if first_span is None else min(first_span, whole)
            stand = Stand(float(t), float(span), 0, np.inf, edges, state, doubt)
        equations = self.space.equations()
        while stand.t < t1:
            if interrupted():
                return RESULTS.interrupted
            if not np.isfinite(stand.state).all():
                return RESULTS.nonfinite
            if len(self.slabs) == max_windows:
                return RESULTS.max_steps_reached
            if stand.span < _SHORTEST * whole:
                return RESULTS.window_failed
            after = self._window(equations, stand, t1)
            if after is None:
                return RESULTS.unresolved
            stand = after
            note(self, stand)
        return RESULTS.successful

    def _window(self, equations: SlabEquations, stand: Stand, t1: float) -> Stand | None:
        """Try the next window; returns None if it needs more elements than there may be."""
        space, place = self.space, self.space.place
        free = np.take(space.numbers, np.arange(1, space.across[place]), axis=place)
        later = [(0, 0)] * (len(space.across) + 3)
        later[1 + place] = (0, space.across[place] - 1)
        end = space.functions[space.time].at(np.array([1.0]))[0, 0]

        t, span, num_failed, across, edges, state, doubt = stand
        left = t1 - t
        span = left if span > 0.99 * left else min(span, left / 2)
        box = space.box(edges, t, span)
        start, begun = (np.pad(a, later) for a in (state, doubt))
        fitted = self._fit(equations, box, start, begun, free)
        defect = self._judge(fitted, box, free)
        none = defect.across <= 1e-12 * self.rtol
        ratio = 1e12 if none else self.rtol / defect.across
        factor = float(np.clip(0.9 * ratio ** (1 / len(end)), 0.25, 4.0))
        bad = self._unmoved(defect, across, len(edges))
        if defect.worst <= self.rtol:
            self._keep(t, span, edges, fitted, start.shape, defect)
            state, doubt = (
                np.expand_dims(np.moveaxis(_read(x, start.shape), 1 + place, -1) @ end, 1 + place)
                for x in (fitted.coefficients, fitted.doubt)
            )
            doubt = doubt + self._noise(doubt.shape, defect.local, span)
            if bad is not None:
                edges, state, doubt = self._split_both(edges, state, doubt, bad)
                factor = max(factor, 2.0)
            reached = t1 if span == left else t + span
            return Stand(float(reached), span * factor, 0, np.inf, edges, state, doubt)
        self.num_rejected += 1
        coarse = defect.across <= max(defect.along.max(), self.rtol)
        if coarse and np.isfinite(defect.worst):
            if len(edges) > self.max_elements:
                return None
            edges, state, doubt = self._split_both(edges, state, doubt, defect.along > self.rtol)
            return Stand(t, span, num_failed, across, edges, state, doubt)
        if bad is not None:
            edges, state, doubt = self._split_both(edges, state, doubt, bad)
            return Stand(t, 2 * span, 0, np.inf, edges, state, doubt)
        # A solution that is not smooth answers slowly to a shorter window.
        num_failed += 1
        factor = min(factor, 0.5**num_failed)
        return Stand(t, span * factor, num_failed, defect.across, edges, state, doubt)

    def _unmoved(
        self, defect: Defect, before: float, num_edges: int
    ) -> Bool[np.ndarray, " elements"] | None:
        """The elements to be halved because a shorter window left the residual in t as it was.

        What the elements do not resolve appears in t too, as fast motions of what they hold. At the
        start it may be a kink, which small elements do not cure.
        """
        if not self.slabs or not np.isfinite(defect.worst) or not defect.across > before / _UNMOVED:
            return None
        bad = defect.shares > 0.1 * defect.across
        return bad if num_edges + bad.sum() <= self.max_elements else None

    def _split_both(
        self, edges: Edges, state: Coefficients, doubt: Coefficients, bad: np.ndarray
    ) -> tuple[Edges, Coefficients, Coefficients]:
        """Halve elements with their state and the doubt about it."""
        edges, both = self._split(edges, np.concatenate([state, doubt], axis=-1), bad)
        state, doubt = np.split(both, 2, axis=-1)
        return edges, state, doubt

    def _initial(self, edges: Edges) -> tuple[Edges, Coefficients, Coefficients, bool]:
        """Returns (edges, coefficients, doubt, converged) of the initial state."""
        space = self.space
        across = tuple(1 if i == space.place else n for i, n in enumerate(space.across))
        start = np.zeros((len(edges) - 1, *across, space.num_along, space.problem.size))
        free = np.arange(int(np.prod(across)))
        equations, checks = space.initial()
        while True:
            box = space.box(edges, space.problem.intervals[space.time, 0], 1.0)
            fitted = self._fit(equations, box, start, np.zeros_like(start), free)
            share = np.sqrt(np.diff(edges) / np.ptp(edges))
            along = self._defects(checks, box, fitted.coefficients, free)
            local = np.asarray(along, np.float64).max(axis=0)[: len(share)]
            along = local * share
            self.initial_defect = float(along.max())
            bad = (along > self.rtol) & (share > _SHORTEST**0.5)
            if not bad.any() or len(edges) > self.max_elements:
                noise = self._noise(start.shape, local, 1.0)
                coefficients, doubt = (_read(x, start.shape) for x in fitted[:2])
                return edges, coefficients, doubt + noise, bool(fitted.converged)
            edges, start = self._split(edges, _read(fitted.coefficients, start.shape), bad)

    def _fit(
        self,
        equations: SlabEquations,
        box: Box,
        start: Coefficients,
        doubt: Coefficients,
        free: Int[np.ndarray, "*free"],
        noise: Float[np.ndarray, " elements"] | None = None,
    ) -> FittedSlab:
        """Fit a slab by one compiled call; with `noise`, one step only, for the doubt it causes."""
        missing, dtype = box.edges.size - 1 - len(start), self.space.problem.dtype

        def flat(x: Coefficients) -> Array:
            x = x.reshape(len(x), -1, *x.shape[-2:])
            return jnp.asarray(np.pad(x, [(0, missing), (0, 0), (0, 0), (0, 0)]), dtype)

        most = jnp.asarray(self.max_steps if noise is None else 1)
        only_doubt = noise is not None
        noise = _RESIDUAL_SHARE * noise if only_doubt else np.zeros(len(start))
        extra = jnp.asarray(np.pad(noise, (0, missing)), dtype), jnp.asarray(free.ravel()), most
        unmet = self.sizes == 0
        for _ in range(_MOST_UNITS):
            units = self.units
            arrays = flat(start / units), flat(doubt / units)
            fitted = fit_slab(equations, self._scaled(box), *arrays, *extra)
            coefficients, doubts = (np.asarray(x, np.float64) * units for x in fitted[:2])
            fitted = fitted._replace(coefficients=coefficients, doubt=doubts)
            self.num_iterations += int(fitted.num_iterations)
            if only_doubt:
                break
            # An unknown that was zero gets its unit from the fit, which is repeated until the unit
            # is right within a factor of two.
            sizes = self._largest(coefficients).max(axis=0)
            if fitted.converged:
                self.sizes = np.maximum(self.sizes, sizes)
            self.sizes = np.where(unmet, sizes, self.sizes)
            moved = unmet & (np.abs(np.log2(self.units / units)) > 1)
            if not moved.any():
                break
        else:  # the unknown is rounding alone: it counts as zero
            self.sizes = np.where(moved, 0.0, self.sizes)
        return fitted

    @property
    def units(self) -> Float[np.ndarray, " unknowns"]:
        """The largest size of each unknown so far; one where it was always zero.

        A derivative in t may be zero where u is at rest: it has at least the size of u over the
        whole time.
        """
        problem = self.space.problem
        sizes, shown = self.sizes.copy(), problem.components or 1
        if problem.stages > 1:
            whole = float(np.ptp(problem.intervals[self.space.time]))
            powers = whole ** -(np.arange(len(sizes)) // shown)
            sizes = np.maximum(sizes, np.tile(sizes[:shown], problem.stages) * powers)
        return np.where(sizes > 0, sizes, 1.0)

    def _scaled(self, box: Box) -> Box:
        return box._replace(units=jnp.asarray(self.units, self.space.problem.dtype))

    def _defects(
        self,
        equations: tuple[SlabEquation, ...],
        box: Box,
        coefficients: ArrayLike,
        free: ArrayLike,
    ) -> Array:
        measured = jnp.asarray(np.asarray(coefficients) / self.units, self.space.problem.dtype)
        return defects(equations, self._scaled(box), measured, jnp.asarray(free))

    def _largest(self, coefficients: ArrayLike) -> Float[np.ndarray, "elements shown"]:
        return np.nan_to_num(self.space.largest(np.asarray(coefficients)), nan=0.0)

    def _noise(self, shape: tuple[int, ...], local: np.ndarray, span: float) -> Coefficients:
        """An error as large as the defect, with random signs, and zero at the edges of elements.

        The residual tells neither the sign nor the shape of the error at the end of a window.
        """
        noise = np.zeros(shape)
        shown = self.space.problem.components or 1
        own = np.where(self.sizes > 0, self.units, 0.0)[:shown]  # what is zero has no error yet
        own = np.resize(own, shape[-1])
        for i, size in enumerate(_END_SHARE * self.apart * local):
            signs = self.random.standard_normal((2, shape[-1]))
            units = size * own * (2 / span) ** (np.arange(shape[-1]) // shown)  # of derivatives
            noise[i] = (self.bumps @ signs) * units
        return noise

    def _judge(self, fitted: FittedSlab, box: Box, free: Int[np.ndarray, "*free"]) -> Defect:
        lengths = np.diff(np.asarray(box.edges, np.float64))[: int(box.count)]
        if not fitted.converged:
            infinite = np.full(len(lengths), np.inf)
            return Defect(infinite, np.inf, infinite, infinite)
        worst = self._defects(self.checks, box, fitted.coefficients, free.ravel())
        raw = np.nan_to_num(np.asarray(worst, np.float64)[:, : len(lengths)], nan=np.inf)
        # An element counts by its share of the domain, as in the L2 norm.
        worst = raw * np.sqrt(lengths / lengths.sum())
        shares = worst[1:].max(axis=0, initial=0.0)
        return Defect(worst[0], float(shares.max()), raw.max(axis=0), shares)

    def _keep(
        self,
        t: float,
        span: float,
        edges: Edges,
        fitted: FittedSlab,
        shape: tuple[int, ...],
        defect: Defect,
    ) -> None:
        """Add a slab. Its error is the doubt about its start, its truncation and its rounding."""
        shown = self.space.problem.components or 1
        sizes, doubts = (self._largest(np.asarray(x)[: shape[0]])[:, :shown] for x in fitted[:2])
        eps = float(jnp.finfo(self.space.problem.dtype).eps)
        local = _LOCAL_SHARE * self.apart * defect.local[:, None] * self.units[:shown]
        errors = doubts + local + 2 * eps * sizes
        flat = np.asarray(fitted.coefficients)[: shape[0]]
        # Behind u come its derivatives in t.
        self.slabs.append(Slab(float(t), float(span), edges, flat[..., :shown], errors))
        self.defects.append(defect.worst / self.rtol if defect.worst else 0.0)

    def trusted_until(self) -> float | None:
        """The time until which at least half of the digits asked for are right; None if always.

        An element's error counts by its share of the domain, as in the L2 norm.
        """
        few_digits = np.sqrt(self.rtol) * self.units[: self.space.problem.components or 1]
        for slab in self.slabs:
            share = np.diff(slab.edges) / np.ptp(slab.edges)
            if not np.all(np.sqrt(share @ slab.errors**2) <= few_digits):  # also where it is NaN
                return slab.start
        return None

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


def _read(coefficients: ArrayLike, shape: tuple[int, ...]) -> Coefficients:
    """Coefficients on the host, in the shape of the start that they were found from."""
    return np.asarray(coefficients)[: shape[0]].reshape(shape)

r"""Errors of a solution with delays: each changes what comes directly, and what looks back at it.

A small error e of a solution obeys, to first order,

$$\dot e(t) = f_y\, e(t) + \sum_i f_{z_i}\, e(t - \tau_i)$$

with the derivatives of f in the state and in the delayed states; a delay that depends on the state
adds what it changes to the first of them.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.quadrature import all_nodes
from physml.pinn.collocation import linearise, nodes_in
from physml.pinn.delays._past import WithPast
from physml.solution import Solution

_MOST_CAUSES = 128  # beyond which old ones are added up in pairs


class _Effect(NamedTuple):
    """How errors of the past, and of the start, change one window."""

    solved: Float[Array, "dim nodes dim nodes"]  # of what is known of the linearised equation
    times: Float[Array, "points delays"]  # when the delays look
    weights: Float[Array, "points dim delays dim"]  # f_z
    integrals: Float[Array, "nodes points"]


@eqx.filter_jit
def _effect(
    system: WithPast,
    args: PyTree,
    start: Float[Array, ""],
    span: Float[Array, ""],
    values: Float[Array, "all_nodes dim"],
) -> _Effect:
    nodes = nodes_in(start, span, len(values) - 2)
    linearised = linearise(lambda t, y: system(t, y, args), nodes, values.T)
    dim, count = values.shape[1], len(values) - 1
    identity = jnp.eye(dim * count, dtype=values.dtype).reshape(dim, count, dim * count)
    solved = linearised.solve(identity).reshape(dim, count, dim, count)

    def at(t: Array, y: Array) -> tuple[Array, Array]:
        times, seen = system.sees(t, y, args)
        return times, jax.jacfwd(lambda seen: system.delayed.rate(t, y, seen, args))(seen)

    times, weights = jax.vmap(at)(nodes.times, values[1:-1])
    return _Effect(solved, times, weights, nodes.half * nodes.integrals)


class _Behind(NamedTuple):
    """The errors in one window, as Legendre series: a column for each cause."""

    start: float
    span: float
    terms: Float[np.ndarray, "terms dim causes"]


class Influence:
    """The errors of a solution on its way, a column for each cause.

    One cause is what one leg leaves in one component: an error of one sign that delays see, or one
    of the state at the leg's end. Causes may cancel as time goes on; what they come to is the sum
    of their absolute values.

    Attributes:
        errors: those of the present state.
    """

    def __init__(self, dim: int, memory: float, earlier: Solution | None, joint: float | None):
        """Begin without errors, or with those of an earlier solution.

        Args:
            dim: the number of components.
            memory: the longest delay; infinite where it is not known.
            earlier: the history, if it is a solution with an estimate.
            joint: when the solution continues it; None where it begins with another state.
        """
        self._memory, self._earlier = memory, earlier
        self._behind: list[_Behind] = []
        self.errors = np.zeros((dim, 0))
        if earlier is not None:
            self.errors = np.zeros((dim, dim))
            if joint is not None:
                self.errors = np.diag(_errors_of(earlier, np.asarray([joint]))[0])

    def add(self, causes: Float[np.ndarray, "dim causes"]) -> None:
        """Errors of the present state alone, such as those by the rounding of a jump's time."""
        self.errors = np.concatenate([self.errors, causes], axis=1)

    def turn(self, change: Float[np.ndarray, "dim dim"]) -> None:
        """Let the errors of the present state be changed by what happens there."""
        self.errors = change @ self.errors

    def along(
        self,
        system: WithPast,
        args: PyTree,
        windows: list[tuple[float, float, np.ndarray, np.ndarray]],
        end: float,
    ) -> Float[np.ndarray, "windows dim"]:
        """Carry the errors along a leg, whose own then become causes of what follows.

        Args:
            system, args: the leg's equation.
            windows: the start, the span, and as Legendre coefficients the solution, and the size
                of its own error at its nodes, of each window.
            end: of the leg.

        Returns:
            The largest of the errors from before the leg in each window.
        """
        errors, found = self.errors, []
        carried = np.zeros((len(windows), len(errors)))
        for k, (start, span, terms, own) in enumerate(windows):
            degree = len(terms) - 1
            nodes = all_nodes(degree - 1)
            to_nodes = np.polynomial.legendre.legvander(nodes, degree)
            values = np.concatenate([errors[None], np.zeros((degree, *errors.shape))])
            if errors.shape[1]:
                effect = _effect(
                    system, args, jnp.asarray(start, terms.dtype), jnp.asarray(span, terms.dtype),
                    jnp.asarray(to_nodes @ terms, terms.dtype),
                )  # fmt: skip
                values[1:] = self._changed(system, effect, errors)
            carried[k] = np.abs(values).sum(axis=2).max(axis=0)
            # The leg's own errors, as delays see them, as further columns of one sign each.
            mine = np.zeros((degree + 1, len(errors), len(errors)))
            mine[:, range(len(errors)), range(len(errors))] = own
            from_nodes = np.linalg.inv(to_nodes)
            series = np.einsum("tn,n...->t...", from_nodes, np.concatenate([values, mine], axis=2))
            found.append(_Behind(start, span, series))
            s = [min(2 * (end - start) / span - 1, 1.0)]
            last = np.einsum("t,t...->...", np.polynomial.legendre.legvander(s, degree)[0], series)
            count = errors.shape[1]
            errors = last[:, :count]
            # Of the present state they are other columns: an error that is larger at the end than
            # before must not cancel with what delays see of it, as one that is the same would.
            self.errors = np.concatenate(
                [errors, np.zeros_like(last[:, count:]), last[:, count:]], 1
            )
        self._behind += found
        self._forget(end)
        return np.where(np.isfinite(carried), carried, np.inf)

    def _changed(
        self, system: WithPast, effect: _Effect, errors: Float[np.ndarray, "dim causes"]
    ) -> Float[np.ndarray, "nodes dim causes"]:
        """The errors at a window's nodes but the first, from those at its start and before."""
        solved, times, weights, integrals = (np.asarray(x, float) for x in effect)
        rates = np.zeros((len(times), *errors.shape))
        for i, region in enumerate(system.regions):
            looks = np.clip(times[:, i], float(region.low), float(region.high))
            if not bool(region.from_history):
                rates += np.einsum("pij,pjc->pic", weights[:, :, i], self._at(looks, errors.shape))
            elif self._earlier is not None:
                before = _errors_of(self._earlier, looks)
                dim = len(errors)
                rates[:, :, :dim] += weights[:, :, i] * before[:, None, :]
        known = errors[None] + np.einsum("np,pic->nic", integrals, rates)
        return np.einsum("injm,mjc->nic", solved, known)

    def _at(
        self, times: Float[np.ndarray, " times"], shape: tuple[int, int]
    ) -> Float[np.ndarray, "times dim causes"]:
        """The errors at earlier times."""
        found = np.zeros((len(times), *shape))
        starts = np.array([each.start for each in self._behind])
        which = np.maximum(np.searchsorted(starts, times, side="right") - 1, 0)
        for k in np.unique(which):
            start, span, terms = self._behind[k]
            s = np.clip(2 * (times[which == k] - start) / span - 1, -1.0, 1.0)
            basis = np.polynomial.legendre.legvander(s, len(terms) - 1)
            found[which == k, :, : terms.shape[2]] = np.einsum("pt,t...->p...", basis, terms)
        return found

    def _forget(self, now: float) -> None:
        """Drop what no delay sees any more, and add up the oldest causes where there are many."""
        while self._behind and self._behind[0].start + self._behind[0].span < now - self._memory:
            self._behind.pop(0)
        causes = self.errors.shape[1]
        if causes <= _MOST_CAUSES:
            return
        pairs = causes // 4
        product = np.zeros(pairs)
        units = np.max([np.abs(each.terms).sum(axis=(0, 2)) for each in self._behind], axis=0)
        units = np.where(units > 0, units, 1.0)[None, :, None]
        for each in self._behind:
            terms = each.terms / units
            even = terms[:, :, 0 : 2 * pairs : 2]
            odd = terms[:, :, 1 : 2 * pairs : 2]
            common = min(even.shape[2], odd.shape[2])
            product[:common] += (even[:, :, :common] * odd[:, :, :common]).sum(axis=(0, 1))
        signs = np.where(product < 0, -1.0, 1.0)

        def paired(columns: np.ndarray) -> np.ndarray:
            missing = max(2 * pairs - columns.shape[-1], 0)
            columns = np.pad(columns, [(0, 0)] * (columns.ndim - 1) + [(0, missing)])
            older = columns[..., 0 : 2 * pairs : 2] + signs * columns[..., 1 : 2 * pairs : 2]
            return np.concatenate([older, columns[..., 2 * pairs :]], axis=-1)

        self.errors = paired(self.errors)
        self._behind = [_Behind(b.start, b.span, paired(b.terms)) for b in self._behind]


def _errors_of(
    earlier: Solution, times: Float[np.ndarray, " times"]
) -> Float[np.ndarray, "times dim"]:
    """The errors of the history, at times that may lie beyond its ends by rounding."""
    low, high = sorted((float(earlier.t0), float(earlier.t1)))
    return np.asarray(earlier.error_estimate(np.clip(times, low, high)), float)

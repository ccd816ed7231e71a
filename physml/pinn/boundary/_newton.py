"""Newton's method on one mesh, damped by what the next step would be."""

from typing import NamedTuple

import numpy as np

from physml.pinn.boundary._discretisation import Discretisation, Iterate, Look, Sizes
from physml.pinn.boundary._linear import Factors, Step
from physml.results import RESULTS

_LEAST_SHARE = 1e-7


class Ended(NamedTuple):
    """How Newton's method ended.

    Attributes:
        x, look: the last iterate, and what was seen there or one small step before.
        noise: how far rounding may have spoilt the last step.
        result: `successful`, `not_converged` or `nonfinite`.
        words: what went wrong.
        num_steps: the number of steps.
    """

    x: Iterate
    look: Look
    noise: Sizes
    result: RESULTS
    words: str
    num_steps: int


class _Taken(NamedTuple):
    """A share of a step that was taken, what was seen after it, and the simplified next step."""

    x: Iterate
    look: Look
    share: float
    next: Step


def newton(space: Discretisation, x: Iterate, max_steps: int, *, damped: bool = True) -> Ended:
    r"""Newton's method from an iterate.

    A share of each step is taken, so that the simplified next step, with the derivatives of before,
    is shorter than this one. This test does not change when the equations are multiplied by a
    matrix, nor does the share, which follows from how much the two steps differ.

    Source: P. Deuflhard, Newton Methods for Nonlinear Problems (2004), algorithm NLEQ-ERR.
    """
    enough = float(np.finfo(x.values.dtype).eps) ** 0.6
    look, sizes, share, before = space.look(x), Sizes.of(x), 1.0, None
    spoilt = noise = Sizes(*map(np.zeros_like, sizes))

    def ended(result: RESULTS, words: str = "") -> Ended:
        return Ended(x, look, noise, result, words, count)

    count = 0
    if not look.finite:
        return ended(RESULTS.nonfinite, "So are f, the conditions or a derivative at the guess.")
    while count < max_steps:
        count += 1
        try:
            factors = space.factorise(look, sizes)
            step = factors.solve(look.defects, look.misses)
        except np.linalg.LinAlgError:
            return ended(RESULTS.not_converged, "The linearised problem cannot be factorised.")
        # What the rounding of a larger iterate leaves of a component is no size of its own.
        last, spoilt = spoilt, space.noise(look, x, factors)
        noise = spoilt.up_to(last)
        sizes = Sizes.of(x).up_to(Sizes.of(step)).up_to(noise, 1 / enough)
        length = sizes.norm(step)
        if length <= enough:
            x = x.plus(step)
            return ended(*_verdict(factors))
        if not damped:
            x = x.plus(step)
            look = space.look(x)
            if not look.finite:
                return ended(RESULTS.not_converged, "Newton's steps lead astray.")
            continue
        if before is not None:
            change, foreseen = before
            wrong = sizes.norm(_combined(foreseen, step, -1.0)) * length
            share = min(1.0, share * sizes.norm(change) * sizes.norm(foreseen) / max(wrong, 1e-300))
        taken = _take(space, x, step, factors, sizes, share)
        if taken is None:
            return ended(RESULTS.not_converged, "No share of Newton's step comes nearer.")
        x, look, share, before = taken.x, taken.look, taken.share, (step, taken.next)
        if share == 1.0 and sizes.norm(taken.next) <= enough:
            x = x.plus(taken.next)
            return ended(*_verdict(factors))
    return ended(RESULTS.not_converged, f"It took {max_steps} steps, that is max_steps.")


def first_step(space: Discretisation, x: Iterate) -> float:
    """The size of Newton's first step from an iterate, infinite where there is none."""
    look, sizes = space.look(x), Sizes.of(x)
    try:
        step = space.factorise(look, sizes).solve(look.defects, look.misses)
    except np.linalg.LinAlgError:
        return np.inf
    length = sizes.up_to(Sizes.of(step)).norm(step)
    return length if np.isfinite(length) else np.inf


def _verdict(factors: Factors) -> tuple[RESULTS, str]:
    """How it ended where steps have become short."""
    if not factors.singular:
        return RESULTS.successful, ""
    words = "The linearised problem is singular there: no solution is nearby, or many are."
    return RESULTS.not_converged, words


def _take(
    space: Discretisation, x: Iterate, step: Step, factors: Factors, sizes: Sizes, share: float
) -> _Taken | None:
    """The largest share of a step that comes nearer; None where no share does."""
    length, shortened = sizes.norm(step), False
    while share >= _LEAST_SHARE:
        there = x.plus(step, share)
        look = space.look(there)
        if not look.finite:
            share, shortened = share / 4, True
            continue
        following = factors.solve(look.defects, look.misses)
        bend = sizes.norm(_combined(following, step, share - 1.0))
        better = min(1.0, 0.5 * length * share**2 / max(bend, 1e-300))
        if not sizes.norm(following) < length:
            share, shortened = min(better, share / 2), True
        elif better >= 4 * share and not shortened:
            share = better
        else:
            return _Taken(there, look, share, following)
    return None


def _combined(a: Step, b: Step, factor: float) -> Step:
    return Step(a.values + factor * b.values, a.unknown + factor * b.unknown)

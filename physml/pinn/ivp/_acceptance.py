"""How wide the next window is, and where the right-hand side stops being smooth."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from physml.pinn.ivp._window import Window

# Errors in units of the tolerance. A window that ends where f stops being smooth is accepted below
# the first; one whose error is above the second is too far off for the power law of the spans.
_SMALL, _COARSE = 1e-3, 100.0
_NEAR_MISS = 10.0  # what a jump may cost in the shortest window, in sizes of a component


class Search(NamedTuple):
    r"""The bisection for the first time at which f is not smooth, from a window's start.

    Attributes:
        low: the widest span that could be fitted.
        high: the shortest one that could not; infinite where no search is on.
        error: that of the window of span `high`.
        wide: the span at which the search began, tried again behind what was found; else zero.
    """

    low: Float[Array, ""]
    high: Float[Array, ""]
    error: Float[Array, ""]
    wide: Float[Array, ""]

    @property
    def on(self) -> Bool[Array, ""]:
        """Whether a search is on."""
        return jnp.isfinite(self.high)


def no_search(like: Float[Array, ""]) -> Search:
    """The state before anything was found."""
    zero = jnp.zeros_like(like)
    return Search(zero, zero + jnp.inf, zero, zero)


def decide(
    search: Search,
    window: Window,
    implicit: Bool[Array, ""],
    shortest: Float[Array, ""],
    rtol: Float[Array, ""],
    rank: int,
) -> tuple[Bool[Array, ""], Float[Array, ""], Search]:
    """Returns (accepted, span, search): whether a window counts, and what to try next.

    The error of a smooth window grows with the span to the power rank / 2, and the next span
    follows from it. An error far above the tolerance says that f may not be smooth: then bisection
    finds the widest window without what disturbs it. Next comes a window so short that a jump in it
    changes nothing, and behind it the span from before the search. If the errors of the search turn
    out to be moderate, f was smooth after all, and the search is off.
    """
    span, error = window.span, window.error
    factor = jnp.clip(0.9 * error ** (-2.0 / rank), 0.3, 2.0)
    factor = jnp.where(window.contracted | implicit, factor, 0.5)

    on, crossing = search.on, ~search.on & (search.wide > 0)
    small = jnp.clip(4 * window.rounded, _SMALL, 1.0)
    fits = error <= small
    moderate = ~fits & (error <= _COARSE) & (search.high - search.low > 0.01 * search.high)
    # With a jump at the start, which no span avoids, the error falls in proportion to the span; so
    # it does where a network's own rounding is in the way, which is accepted below one tolerance.
    moderate &= (search.low > 0) | (error <= jnp.maximum(search.error / 8, 1.0))
    begins = ~on & ~crossing & window.contracted & (error > _COARSE) & jnp.isfinite(error)
    goes_on = begins | on & ~moderate

    low = jnp.where(on & fits, span, jnp.where(begins, 0.0, search.low))
    high = jnp.where(on & fits, search.high, span)
    worst = jnp.where(on & fits, search.error, error)
    wide = jnp.where(begins, span, search.wide)
    gap = high - low
    found = (worst * gap <= small * high / 64) | (gap <= 4 * shortest)
    at_start = found & (low == 0)  # nothing fits: the jump is where the window starts

    # A jump that could not be bracketed further is crossed in the shortest window. There a
    # component that was nearly zero may become larger by any factor; the error estimate counts it.
    near_miss = _NEAR_MISS / rtol
    tolerated = jnp.where(crossing & (span <= 8 * shortest), near_miss, 1.0)
    in_search = found & jnp.where(low == 0, error <= near_miss, fits)
    accepted = jnp.where(goes_on, in_search, error <= tolerated)

    following = jnp.where(found, jnp.where(fits, gap, low), (low + high) / 2)
    following = jnp.where(at_start, jnp.where(accepted, wide, 0.0), following)
    behind = crossing & accepted
    following = jnp.where(behind, search.wide, jnp.where(goes_on, following, span * factor))
    ends = accepted | ~goes_on
    return (
        accepted,
        following,
        Search(
            low=jnp.where(ends, 0.0, low),
            high=jnp.where(ends, jnp.inf, high),
            error=worst,
            wide=jnp.where(goes_on & ~(accepted & at_start), wide, 0.0),
        ),
    )

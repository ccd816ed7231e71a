"""Accurate solutions of partial differential equations."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import answer, ask, checked
from physml._numerics.checks import (
    check_interval,
    require_count,
    require_finite,
    require_not_negative,
    require_positive,
)
from physml._types import Numbers
from physml.reference._initial_value import solve
from physml.systems import from_function

_OVERSAMPLING = 64
_MAX_STEPS = 8192  # the solver keeps a state for each


@checked
def reaction_diffusion(
    reaction: Callable[[Array], Array],
    diffusivity: float,
    u0: Callable[[np.ndarray], Numbers],
    interval: tuple[float, float],
    ts: Numbers,
    *,
    num_points: int,
    rtol: float = 1e-10,
) -> Float[Array, "times points"]:
    r"""$u_t = D u_{xx} + R(u)$ with periodic ends, by the method of lines.

    Fourier collocation in space, Diffrax in time. A second solution with another `num_points`
    shows the error of the collocation.

    Args:
        reaction: $R$, elementwise.
        diffusivity: $D$.
        u0: the initial value, a function of the points.
        interval: (low, high), one period.
        ts: increasing times, the first one that of `u0`.
        num_points: even points from `low` on, without `high`.
        rtol: relative and absolute tolerance in time.

    Returns:
        u at the times and points, (times, points).
    """
    low, high = check_interval(*interval)
    require_positive(rtol=rtol)
    require_not_negative(diffusivity=diffusivity)
    require_count(num_points=num_points)
    # Where u0 has a kink, few samples would fold its high waves onto low ones.
    fine = _OVERSAMPLING * num_points
    points = low + (high - low) * np.arange(fine) / fine
    given = np.asarray(ask("u0", "u0(points)", u0, points))
    if given.dtype.kind not in "iuf":
        raise TypeError(f"u0 must return real numbers, got dtype {given.dtype}")
    if given.shape not in ((), points.shape):
        raise ValueError(f"u0 must return the shape {points.shape} of points, got {given.shape}")
    samples = np.broadcast_to(np.asarray(given, float), points.shape)
    require_finite("u0", samples)
    start = np.fft.irfft(np.fft.rfft(samples)[: num_points // 2 + 1], num_points) / _OVERSAMPLING
    waves = 2 * np.pi * np.fft.rfftfreq(num_points, (high - low) / num_points)

    def lines(t: Array, u: Float[Array, " points"], args: PyTree) -> Float[Array, " points"]:
        spectrum = jnp.fft.rfft(u)
        curvature = jnp.fft.irfft(jnp.asarray(-(waves**2), spectrum.dtype) * spectrum, num_points)
        return diffusivity * curvature + answer(
            "reaction", "R(u)", ask("reaction", "reaction(u)", reaction, u), u.shape, u.dtype
        )

    system = from_function(lines, num_points)
    atol = rtol * float(np.max(np.abs(start))) or None  # all points have one unit
    us = solve(system, start, ts, rtol=rtol, atol=atol, max_steps=_MAX_STEPS).ys
    return us.at[0].set(samples[::_OVERSAMPLING])

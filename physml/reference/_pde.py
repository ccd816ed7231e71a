"""Accurate solutions of partial differential equations."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._types import Numbers
from physml.reference._initial_value import solve
from physml.systems import from_function

_OVERSAMPLING = 64
_MAX_STEPS = 8192  # the solver keeps a state for each


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
    low, high = interval
    # Where u0 has a kink, few samples would fold its high waves onto low ones.
    fine = _OVERSAMPLING * num_points
    samples = np.asarray(u0(low + (high - low) * np.arange(fine) / fine))
    start = np.fft.irfft(np.fft.rfft(samples)[: num_points // 2 + 1], num_points) / _OVERSAMPLING
    waves = 2 * np.pi * np.fft.rfftfreq(num_points, (high - low) / num_points)

    def lines(t: Array, u: Float[Array, " points"], args: PyTree) -> Float[Array, " points"]:
        spectrum = jnp.fft.rfft(u)
        curvature = jnp.fft.irfft(jnp.asarray(-(waves**2), spectrum.dtype) * spectrum, num_points)
        return diffusivity * curvature + reaction(u)

    system = from_function(lines, num_points)
    us = solve(system, start, ts, rtol=rtol, atol=rtol, max_steps=_MAX_STEPS).ys
    return us.at[0].set(samples[::_OVERSAMPLING])

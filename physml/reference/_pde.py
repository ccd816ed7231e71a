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
    require_not_empty,
    require_not_negative,
    require_positive,
)
from physml._types import Numbers
from physml.reference._initial_value import solve
from physml.systems import from_function

_OVERSAMPLING = 64
_MAX_STEPS = 8192  # the solver keeps a state for each


@checked
def cole_hopf(x: Numbers, t: Numbers, viscosity: float, *, num_points: int = 200) -> np.ndarray:
    r"""Burgers' equation $u_t + u u_x = \nu u_{xx}$ from $u(x, 0) = -\sin \pi x$, in closed form.

    $$u(x, t) = -\frac{\int \sin(\pi y) F(y) e^{-\eta^2} d\eta}{\int F(y) e^{-\eta^2} d\eta}, \quad
    y = x - 2 \sqrt{\nu t}\, \eta, \quad F(y) = e^{-\cos(\pi y) / (2 \pi \nu)}$$

    by Gauss-Hermite quadrature; F is divided by its largest value against overflow.

    Args:
        x, t: points, arrays of one shape or broadcast to it; t at least 0.
        viscosity: $\nu$.
        num_points: of the quadrature; 200 suffice for $\nu = 0.01 / \pi$ up to t = 1.

    Source: Basdevant et al., Computers & Fluids 14 (1986) 23.
    """
    require_positive(viscosity=viscosity)
    require_count(num_points=num_points)
    for name, points in (("x", x), ("t", t)):
        require_not_empty(**{name: points})
        require_finite(name, points)
    require_not_negative(t=t)
    nodes, weights = np.polynomial.hermite.hermgauss(num_points)
    x, t = np.broadcast_arrays(np.asarray(x, float), np.asarray(t, float))
    y = x[..., None] - 2 * np.sqrt(viscosity * t)[..., None] * nodes
    exponent = -np.cos(np.pi * y) / (2 * np.pi * viscosity)
    factor = weights * np.exp(exponent - exponent.max(axis=-1, keepdims=True))
    return -np.sum(np.sin(np.pi * y) * factor, axis=-1) / np.sum(factor, axis=-1)


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
    us = solve(system, start, ts, rtol=rtol, atol=rtol, max_steps=_MAX_STEPS).ys
    return us.at[0].set(samples[::_OVERSAMPLING])

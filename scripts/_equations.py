"""Partial differential equations whose solutions are known: heat, Poisson, wave and others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from physml import reference

VISCOSITY = 0.01 / np.pi
DIFFUSIVITY = 1e-4


Residual = Callable[..., jax.Array | tuple[jax.Array, ...]]
Truth = Callable[[np.ndarray, np.ndarray], ArrayLike]


@dataclass(frozen=True)
class Equation:
    """What `pinn.pde` is given, and the truth on a grid."""

    residual: Residual
    domain: dict[str, tuple[float, float]]
    conditions: dict[tuple[str, float], Residual]
    truth: Truth
    options: dict[str, Any]


def evolution(
    residual: Residual, start: Residual, truth: Truth, t1: float, left: float = 0.0, **options: Any
) -> Equation:
    """An equation in x from `left` to 1 and t from 0 to `t1`: u = 0 at both ends, or periodic."""

    def zero(u, x, t):
        return u(x, t)

    ends = {} if "periodic" in options else {("x", left): zero, ("x", 1.0): zero}
    domain = {"x": (left, 1.0), "t": (0.0, t1)}
    return Equation(residual, domain, {("t", 0.0): start} | ends, truth, options)


def heat() -> Equation:
    """u_t = u_xx between ends at zero."""

    def start(u, x, t):
        return u(x, t) - jnp.sin(jnp.pi * x) - jnp.sin(3 * jnp.pi * x) / 2

    def truth(x, t):
        modes = ((1.0, 1), (0.5, 3))
        return sum(a * np.exp(-((k * np.pi) ** 2) * t) * np.sin(k * np.pi * x) for a, k in modes)

    return evolution(lambda u, x, t: u.t(x, t) - u.xx(x, t), start, truth, t1=0.5)


def poisson() -> Equation:
    """u_xx + u_yy = f on the unit square, f made for a u that is not zero on its rim."""

    def exact(x, y):
        return jnp.exp(x) * jnp.sin(2 * jnp.pi * x) * jnp.cos(jnp.pi * y)

    def residual(u, x, y):
        f = jax.grad(jax.grad(exact))(x, y) + jax.grad(jax.grad(exact, 1), 1)(x, y)
        return u.xx(x, y) + u.yy(x, y) - f

    def rim(u, x, y):
        return u(x, y) - exact(x, y)

    conditions = {(name, end): rim for name in "xy" for end in (0.0, 1.0)}
    return Equation(residual, {"x": (0.0, 1.0), "y": (0.0, 1.0)}, conditions, exact, {})


def wave() -> Equation:
    """u_tt = 4 u_xx of a string between fixed ends, let go at rest."""

    def start(u, x, t):
        shape = jnp.sin(jnp.pi * x) + jnp.sin(4 * jnp.pi * x) / 2
        return u(x, t) - shape, u.t(x, t)

    def truth(x, t):
        modes = ((1.0, 1), (0.5, 4))
        return sum(a * np.cos(2 * k * np.pi * t) * np.sin(k * np.pi * x) for a, k in modes)

    return evolution(lambda u, x, t: u.tt(x, t) - 4 * u.xx(x, t), start, truth, t1=1.0)


def burgers() -> Equation:
    """u_t + u u_x = nu u_xx, which makes a shock of width 0.006 at t = 0.32."""

    def residual(u, x, t):
        return u.t(x, t) + u(x, t) * u.x(x, t) - VISCOSITY * u.xx(x, t)

    def start(u, x, t):
        return u(x, t) + jnp.sin(jnp.pi * x)

    def truth(x, t):
        return reference.cole_hopf(x, t, VISCOSITY)

    return evolution(residual, start, truth, t1=1.0, left=-1.0)


def allen_cahn(t1: float) -> Equation:
    """u_t = 1e-4 u_xx + 5 (u - u^3) with periodic ends, where u at the start has a kink."""

    def residual(u, x, t):
        return u.t(x, t) - DIFFUSIVITY * u.xx(x, t) - 5 * (u(x, t) - u(x, t) ** 3)

    def start(u, x, t):
        return u(x, t) - x**2 * jnp.cos(jnp.pi * x)

    def truth(x, t):
        return lines(x[:, 0], t[0], num_points=4 * (len(x) - 1))

    return evolution(residual, start, truth, t1, left=-1.0, periodic="x", rtol=1e-7)


def lines(x: np.ndarray, ts: np.ndarray, num_points: int) -> np.ndarray:
    """Allen-Cahn by the method of lines, at even x from -1 to 1."""

    def start(x):
        return x**2 * np.cos(np.pi * x)

    us = reference.reaction_diffusion(
        lambda u: 5 * (u - u**3), DIFFUSIVITY, start, (-1.0, 1.0), ts, num_points=num_points
    )
    us = np.asarray(us)[:, :: num_points // (len(x) - 1)]
    return np.concatenate([us, us[:, :1]], axis=1).T

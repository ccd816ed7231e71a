"""Partial equations in two coordinates of space whose solutions are known in closed form."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from physml import pinn

UNIT = {"x": (0.0, 1.0), "y": (0.0, 1.0)}
REYNOLDS = 40.0


class Problem(NamedTuple):
    """A problem with its truth.

    Attributes:
        label: its name.
        solve: the plain call.
        truth: u at arrays of coordinates; several components along a last axis.
    """

    label: str
    solve: Callable[[], Any]
    truth: Callable[..., Array]


def zero(u: Any, *point: Any) -> Array:
    """u is zero on a face."""
    return u(*point)


def on_faces(domain: dict, condition: Callable) -> dict:
    """One condition on all faces of space."""
    return {(c, end): condition for c in domain if c != "t" for end in domain[c]}


def given(truth: Callable[..., Array]) -> Callable:
    """u is the truth on a face."""
    return lambda u, *point: u(*point) - truth(*point)


def heat() -> Problem:
    """Heat in a square whose edges are kept at zero."""
    domain = {**UNIT, "t": (0.0, 0.1)}

    def truth(x: Any, y: Any, t: Any) -> Array:
        return jnp.sin(jnp.pi * x) * jnp.sin(jnp.pi * y) * jnp.exp(-2 * jnp.pi**2 * t)

    def residual(u: Any, *point: Any) -> Array:
        return u.t(*point) - u.xx(*point) - u.yy(*point)

    conditions = {("t", 0.0): given(truth), **on_faces(domain, zero)}
    return Problem("heat", lambda: pinn.pde(residual, domain, conditions), truth)


def flux() -> Problem:
    """Heat that flows in at one edge, with a given slope on all of them."""
    domain, k = {**UNIT, "t": (0.0, 1.0)}, 0.1

    def truth(x: Any, y: Any, t: Any) -> Array:
        wave = jnp.cos(jnp.pi * x) * jnp.cos(2 * jnp.pi * y)
        return wave * jnp.exp(-5 * jnp.pi**2 * k * t) + x**2 / 2 + k * t

    def residual(u: Any, *point: Any) -> Array:
        return u.t(*point) - k * (u.xx(*point) + u.yy(*point))

    conditions = {
        ("t", 0.0): given(truth),
        ("x", 0.0): lambda u, *point: u.x(*point),
        ("x", 1.0): lambda u, *point: u.x(*point) - 1.0,
        ("y", 0.0): lambda u, *point: u.y(*point),
        ("y", 1.0): lambda u, *point: u.y(*point),
    }
    return Problem("heat with slopes given", lambda: pinn.pde(residual, domain, conditions), truth)


def transport() -> Problem:
    """A periodic shape that moves."""
    turn = (0.0, 2 * np.pi)
    domain = {"x": turn, "y": turn, "t": (0.0, 1.0)}

    def truth(x: Any, y: Any, t: Any) -> Array:
        return jnp.exp(jnp.sin(x - t) + jnp.cos(y - 2 * t))

    def residual(u: Any, *point: Any) -> Array:
        return u.t(*point) + u.x(*point) + 2 * u.y(*point)

    conditions = {("t", 0.0): given(truth)}
    call = lambda: pinn.pde(residual, domain, conditions, periodic="xy")  # noqa: E731
    return Problem("transport, periodic", call, truth)


def burgers() -> Problem:
    """A front that moves along the diagonal, viscosity 0.1."""
    domain, nu = {**UNIT, "t": (0.0, 1.0)}, 0.1

    def truth(x: Any, y: Any, t: Any) -> Array:
        return 1 / (1 + jnp.exp((x + y - t) / (2 * nu)))

    def residual(u: Any, *point: Any) -> Array:
        spread = nu * (u.xx(*point) + u.yy(*point))
        return u.t(*point) + u(*point) * (u.x(*point) + u.y(*point)) - spread

    conditions = {("t", 0.0): given(truth), **on_faces(domain, given(truth))}
    return Problem("Burgers, viscosity 0.1", lambda: pinn.pde(residual, domain, conditions), truth)


def reaction() -> Problem:
    """Two substances that react and spread (Schnakenberg), with sources that make u what it is."""
    domain, spreads = {**UNIT, "t": (0.0, 1.0)}, jnp.array([0.1, 0.05])

    def parts(x: Any, y: Any, t: Any) -> tuple[Array, Array]:
        return jnp.exp(-t) * jnp.sin(x + y), jnp.exp(-t / 2) * jnp.cos(x - y)

    def truth(x: Any, y: Any, t: Any) -> Array:
        a, b = parts(x, y, t)
        return jnp.stack([a + 2, b + 1], axis=-1)

    def rates(u: Any) -> Array:
        formed = u[0] ** 2 * u[1] - u[0]
        return jnp.stack([formed, -formed])

    def residual(u: Any, *point: Any) -> Array:
        a, b = parts(*point)
        source = jnp.stack([-a, -b / 2]) + 2 * spreads * jnp.stack([a, b]) - rates(truth(*point))
        spread = spreads * (u.xx(*point) + u.yy(*point))
        return u.t(*point) - spread - rates(u(*point)) - source

    conditions = {("t", 0.0): given(truth), **on_faces(domain, given(truth))}
    call = lambda: pinn.pde(residual, domain, conditions, components=2)  # noqa: E731
    return Problem("reaction of two substances", call, truth)


def kovasznay() -> Problem:
    """The flow behind a grid in two velocities and the pressure, without time.

    L. I. G. Kovasznay, Proc. Camb. Phil. Soc. 44 (1948) 58-62.
    """
    domain = {"x": (-0.5, 1.0), "y": (-0.5, 0.5)}
    rate = REYNOLDS / 2 - np.sqrt(REYNOLDS**2 / 4 + 4 * np.pi**2)

    def truth(x: Any, y: Any) -> Array:
        decay, angle = jnp.exp(rate * x), 2 * jnp.pi * y
        cross = rate / (2 * np.pi) * decay * jnp.sin(angle)
        return jnp.stack([1 - decay * jnp.cos(angle), cross, (1 - decay**2) / 2 + 0 * y], axis=-1)

    def residual(u: Any, x: Any, y: Any) -> Array:
        flow, by_x, by_y = u(x, y), u.x(x, y), u.y(x, y)
        spread = (u.xx(x, y) + u.yy(x, y)) / REYNOLDS
        carried = flow[0] * by_x + flow[1] * by_y - spread
        return jnp.stack([carried[0] + by_x[2], carried[1] + by_y[2], by_x[0] + by_y[1]])

    def velocities(u: Any, x: Any, y: Any) -> Array:
        return (u(x, y) - truth(x, y))[:2]

    conditions = {**on_faces(domain, velocities), ("x", 1.0): given(truth)}
    call = lambda: pinn.pde(residual, domain, conditions, components=3)  # noqa: E731
    return Problem("Kovasznay's flow, Re = 40", call, truth)


def problems() -> dict[str, Problem]:
    """All problems by name."""
    makers = heat, flux, transport, burgers, reaction, kovasznay
    return {make.__name__: make() for make in makers}


class InverseProblem(NamedTuple):
    """Observations of an equation whose parameters are wanted.

    Attributes:
        grid: the equation, with the guess.
        sensors, times: where and when it is seen.
        truth: what is seen without noise, (times, sensors).
        values: the true parameters by name.
        noise: the standard deviation of the observations.
    """

    grid: pinn.OnGrid
    sensors: np.ndarray
    times: np.ndarray
    truth: np.ndarray
    values: dict[str, float]
    noise: float


def inverse_problem() -> InverseProblem:
    """Heat in a rod whose diffusivity and whose source are unknown, the guess off by half."""
    values = {"diffusivity": 0.1, "source": 1.5}
    sensors, times = np.array([0.2, 0.3, 0.5, 0.6, 0.75]), np.linspace(0.05, 1.0, 20)

    def residual(u: Any, x: Any, t: Any, args: Any) -> Array:
        source = args["source"] * jnp.sin(2 * jnp.pi * x)
        return u.t(x, t) - args["diffusivity"] * u.xx(x, t) - source

    domain = {"x": (0.0, 1.0), "t": (0.0, 1.0)}
    start = {("t", 0.0): lambda u, x, t: u(x, t) - jnp.sin(jnp.pi * x)}
    guess = {"diffusivity": 0.05, "source": 1.0}
    conditions = {**start, **on_faces(domain, zero)}
    grid = pinn.on_grid(residual, domain, conditions, args=guess, points=14)
    rate = np.pi**2 * values["diffusivity"]
    first = np.sin(np.pi * sensors) * np.exp(-rate * times)[:, None]
    risen = values["source"] * (1 - np.exp(-4 * rate * times)) / (4 * rate)
    truth = first + np.sin(2 * np.pi * sensors) * risen[:, None]
    return InverseProblem(grid, sensors, times, truth, values, 0.01)

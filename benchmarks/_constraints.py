"""Problems with constraints whose solutions are known, for `pinn` and, reduced, for SciPy.

SciPy solves no algebraic equations. It gets the differential equation that is left when they are
solved for, by hand, in the right-hand side. The digits of Robertson's reaction at t = 1e11 and of
the transistor amplifier at t = 0.2 are published: F. Mazzia, C. Magherini, Test Set for Initial
Value Problem Solvers (Bari, 2008). The others are closed forms, the pendulum's by Jacobi's elliptic
functions.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.special import ellipj, ellipk

from physml import systems


class Reduced(NamedTuple):
    """A differential equation without constraints.

    Attributes:
        rates: its right-hand side, for SciPy.
        start: of it.
        whole: the components of the constrained problem, of times and the states there.
        atol: as a share of the relative tolerance.
    """

    rates: Callable[[float, np.ndarray], Any]
    start: Sequence[float]
    whole: Callable[[np.ndarray, np.ndarray], np.ndarray]
    atol: float | Sequence[float] = 1.0


class Problem(NamedTuple):
    """A constrained problem.

    Attributes:
        label: its name.
        system: the equations.
        y0: the start at t = 0.
        dy0: a guess of the derivative.
        times: at which the solution is known; the last is the end.
        truth: there, (times, components); the first components of the state.
        reduced: the same for SciPy.
    """

    label: str
    system: systems.ImplicitSystem
    y0: Sequence[float]
    dy0: Sequence[float] | None
    times: np.ndarray
    truth: np.ndarray
    reduced: Reduced


def robertson() -> Problem:
    """Three substances whose amounts add to one: two rates and the sum."""

    def rates(a: Any, b: Any, c: Any) -> tuple:
        slow, back, fast = 0.04 * a, 1e4 * b * c, 3e7 * b**2
        return back - slow, slow - back - fast, fast

    def f(t: Any, y: Any, args: Any) -> list:
        return [*rates(*y)[:2], y[0] + y[1] + y[2] - 1]

    truth = [0.2083340149701255e-07, 0.8333360770334713e-13, 0.9999999791665050]
    reduced = Reduced(lambda t, y: rates(*y), [1.0, 0.0, 0.0], lambda t, y: y, [1e-8, 1e-13, 1.0])
    system = systems.with_mass(f, np.diag([1.0, 1.0, 0.0]))
    return Problem(
        "Robertson to 1e11", system, [1.0, 0.0, 0.0], None, np.array([1e11]), np.array([truth]),
        reduced,
    )  # fmt: skip


def amplifier() -> Problem:
    """Two transistors: five differential components of eight."""
    size = 1e-6

    def currents(xp: Any, t: Any, y: Any) -> list:
        first, second = (size * (xp.exp((y[i] - y[i + 1]) / 0.026) - 1) for i in (1, 4))
        return [
            (0.1 * xp.sin(200 * np.pi * t) - y[0]) / 1000,
            (6 - 2 * y[1]) / 9000 - 0.01 * first,
            first - y[2] / 9000,
            (6 - y[3]) / 9000 - 0.99 * first,
            (6 - 2 * y[4]) / 9000 - 0.01 * second,
            second - y[5] / 9000,
            (6 - y[6]) / 9000 - 0.99 * second,
            -y[7] / 9000,
        ]

    mass = np.zeros((8, 8))
    for first, capacity in ((0, 1e-6), (3, 3e-6), (6, 5e-6)):
        block = capacity * np.array([[1.0, -1.0], [-1.0, 1.0]])
        mass[first : first + 2, first : first + 2] = block
    mass[2, 2], mass[5, 5] = 2e-6, 4e-6

    def states(t: float, x: np.ndarray) -> np.ndarray:
        """All voltages, of those of the capacitors: three equations are solved by Newton."""
        # Newton begins where the currents of the transistors are small.
        y = np.array([0.0, x[1], x[1], 0.0, x[3], x[3], 0.0, 0.0])
        for _ in range(300):
            y[0], y[3] = y[1] + x[0], y[4] + x[2]
            found, before = currents(np, t, y), y[[1, 4]]
            for i, j, resistance in ((0, 1, 1000.0), (3, 4, 9000.0)):
                steep = 0.01 * size / 0.026 * np.exp((y[j] - y[j + 1]) / 0.026)
                step = (found[i] + found[j]) / (1 / resistance + 2 / 9000 + steep)
                y[j] += min(step, 0.05)  # a current grows by a factor of e in 0.026 volts
            if np.max(np.abs(y[[1, 4]] - before)) < 1e-14:
                break
        y[0], y[3] = y[1] + x[0], y[4] + x[2]
        second = size * (np.exp((y[4] - y[5]) / 0.026) - 1)
        y[7] = ((6 - x[4]) / 9000 - 0.99 * second) * 4500  # its current and that of y[6] agree
        y[6] = y[7] + x[4]
        return y

    def rates(t: float, x: np.ndarray) -> list[float]:
        found = currents(np, t, states(t, x))
        return [
            found[0] / 1e-6, found[2] / 2e-6, found[3] / 3e-6, found[5] / 4e-6, found[6] / 5e-6
        ]  # fmt: skip

    def whole(times: np.ndarray, ys: np.ndarray) -> np.ndarray:
        return np.stack([states(t, x) for t, x in zip(times, ys, strict=True)])

    truth = [
        *(-0.5562145012262709e-2, 0.3006522471903042e1, 0.2849958788608128e1),
        *(0.2926422536206241e1, 0.2704617865010554e1, 0.2761837778393145e1),
        *(0.4770927631616772e1, 0.1236995868091548e1),
    ]
    system = systems.with_mass(lambda t, y, args: currents(jnp, t, y), mass)
    return Problem(
        "transistor amplifier", system, [0.0, 3.0, 3.0, 6.0, 3.0, 3.0, 6.0, 0.0], None,
        np.array([0.2]), np.array([truth]), Reduced(rates, [-3.0, 3.0, 3.0, 3.0, 6.0], whole),
    )  # fmt: skip


def pendulum() -> Problem:
    """A rod in two coordinates, released at rest at the height of its pivot."""
    g, times = 9.81, np.linspace(0.0, 10.0, 201)
    w = np.sqrt(g)
    sn, cn, _, _ = ellipj(ellipk(0.5) - w * times, 0.5)

    def whole(t: np.ndarray, ys: np.ndarray) -> np.ndarray:
        angle, speed = ys.T
        x, y = np.sin(angle), -np.cos(angle)
        return np.stack([x, y, -y * speed, x * speed], axis=1)

    exact = np.stack([2 * np.arcsin(np.sqrt(0.5) * sn), -2 * np.sqrt(0.5) * w * cn], axis=1)
    system = systems.constrained_motion(
        lambda t, q, v, args: [0.0, -g], lambda t, q, args: q @ q - 1.0, 2
    )
    reduced = Reduced(lambda t, y: [y[1], -g * np.sin(y[0])], [np.pi / 2, 0.0], whole)
    return Problem(
        "pendulum, x and y", system, [1.0, 0.0, 0.0, 0.0], None, times, whole(times, exact), reduced
    )


def circle() -> Problem:
    """y'^2 + y^2 = 1, not solved for y'."""
    times = np.linspace(0.0, 1.0, 201)
    system = systems.implicit(lambda t, y, dy, args: dy**2 + y**2 - 1.0, 1)
    start = float(np.sin(0.3))
    reduced = Reduced(lambda t, y: np.sqrt(1 - y**2), [start], lambda t, y: y)
    return Problem(
        "y'^2 + y^2 = 1", system, [start], [1.0], times, np.sin(times + 0.3)[:, None], reduced
    )


def turning() -> Problem:
    """A linear problem whose mass matrix depends on the time, with y = (sin t, exp(-t))."""

    def f(t: Any, y: Any, args: Any) -> list:
        rate = jnp.cos(t) - t * jnp.exp(-t) + y[1] - jnp.exp(-t)
        return [rate, y[0] + (1 + t) * y[1] - jnp.sin(t) - (1 + t) * jnp.exp(-t)]

    def second(t: Any, x: Any) -> Any:
        """y[1], where x = y[0] + t y[1] is the combination that has a derivative."""
        return np.sin(t) + (1 + t) * np.exp(-t) - x

    def rates(t: float, x: np.ndarray) -> np.ndarray:
        return np.cos(t) - t * np.exp(-t) + 2 * second(t, x) - np.exp(-t)

    def whole(t: np.ndarray, xs: np.ndarray) -> np.ndarray:
        z = second(t, xs[:, 0])
        return np.stack([xs[:, 0] - t * z, z], axis=1)

    times = np.linspace(0.0, 5.0, 201)
    system = systems.with_mass(f, lambda t, y, args: jnp.array([[1.0, t], [0.0, 0.0]]), 2)
    truth = np.stack([np.sin(times), np.exp(-times)], axis=1)
    return Problem(
        "mass that turns", system, [0.0, 1.0], None, times, truth, Reduced(rates, [0.0], whole)
    )


def problems() -> dict[str, Problem]:
    """All problems by name."""
    return {
        "circle": circle(),
        "turning": turning(),
        "robertson": robertson(),
        "pendulum": pendulum(),
        "amplifier": amplifier(),
    }

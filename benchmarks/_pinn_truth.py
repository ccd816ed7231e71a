"""The equations of `pinn.py`, and their truths by methods that share nothing with `pinn.solve`."""

import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import numpy as np

from physml import reference, systems
from physml._numerics.quadrature import gauss
from physml.solution import Solution

NODES = 24  # of the truth's collocation
Rates = Callable[[Any, Any], list[Any]]


class Equation(NamedTuple):
    """A system, where it starts and ends, and its right-hand side in plain arithmetic."""

    system: systems.System
    y0: tuple[float, ...]
    t1: float
    rates: Rates
    series: tuple[systems.System, tuple[float, ...]] | None = None  # quadratic, in more states


def quadratic(system: systems.System, y0: tuple[float, ...], t1: float, rates: Rates) -> Equation:
    """An equation that is quadratic in its own states."""
    return Equation(system, y0, t1, rates, (system, y0))


def duffing(t: Any, y: Any, args: Any) -> list[Any]:
    """Duffing's equation, which is quadratic if x^2, cos and sin are states too."""
    acceleration = 0.5 * y[3] - 0.3 * y[1] + y[0] - y[0] * y[2]
    return [y[1], acceleration, 2.0 * y[0] * y[1], -1.2 * y[4], 1.2 * y[3]]


def van_der_pol(mu: float, t1: float) -> Equation:
    """Van der Pol's equation, which is stiff for a large mu."""

    def rates(t: Any, y: Any) -> list[Any]:
        return [y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]]

    return Equation(systems.VanDerPol(mu), (2.0, 0.0), t1, rates)


def robertson(t: Any, y: Any, args: Any = None) -> list[Any]:
    """Robertson's reactions, whose rates lie nine orders of magnitude apart."""
    slow, back, fast = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return [back - slow, slow - back - fast, fast]


EQUATIONS = {
    "Lorenz": quadratic(
        systems.Lorenz(), (1.0, 1.0, 1.0), 20.0,
        lambda t, y: [10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]],
    ),
    "driven oscillator": Equation(
        systems.DrivenOscillator(), (1.0, 0.0), 100.0,
        lambda t, y: [y[1], np.cos(0.5 * t) - 2 * 0.2 * y[1] - y[0]],
    ),
    "Duffing": Equation(
        systems.Duffing(), (1.0, 0.0), 100.0,
        lambda t, y: [y[1], 0.5 * np.cos(1.2 * t) - 0.3 * y[1] + y[0] - y[0] ** 3],
        (systems.from_function(duffing, 5), (1.0, 0.0, 1.0, 1.0, 0.0)),
    ),
    "Van der Pol, mu = 5": van_der_pol(5.0, 50.0),
    "Van der Pol, mu = 1000": van_der_pol(1000.0, 2000.0),
    "Lotka-Volterra": quadratic(
        systems.LotkaVolterra(), (10.0, 5.0), 50.0,
        lambda t, y: [y[0] * (1.1 - 0.4 * y[1]), y[1] * (0.1 * y[0] - 0.4)],
    ),
    "pendulum": Equation(
        systems.Pendulum(), (2.0, 0.0), 50.0, lambda t, y: [y[1], -9.81 * np.sin(y[0])]
    ),
    "Rossler": quadratic(
        systems.Rossler(), (1.0, 1.0, 1.0), 50.0,
        lambda t, y: [-y[1] - y[2], y[0] + 0.2 * y[1], 0.2 + y[2] * (y[0] - 5.7)],
    ),
    "Robertson": Equation(systems.from_function(robertson, 3), (1.0, 0.0, 0.0), 1e4, robertson),
}  # fmt: skip


def true_values(equation: Equation, solution: Solution) -> tuple[np.ndarray, np.ndarray, Any]:
    """Times, the truth at these times in float64, and how far it may be off."""
    if equation.series is None:
        ts, truth = collocate(equation, solution, 2)
        _, other = collocate(equation, solution, 4)
        return ts, truth, np.abs(truth - other[::2])
    system, y0 = equation.series
    ts = np.linspace(0.0, equation.t1, 1025)
    rows = reference.extended_trajectories(system, np.array([y0]), ts).ys[0]
    return ts, np.asarray(rows)[:, : len(equation.y0)], 0.0


def collocate(equation: Equation, solution: Solution, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """The ends of equal parts of a solution's windows, and the truth there by collocation.

    Newton's iteration starts from the solution; residuals are in long double, steps in float64.
    """
    rule, long = gauss(NODES), np.longdouble
    integrals = np.array(
        [[long(float(x)) + long(float(x - Fraction(float(x)))) for x in row]
         for row in rule.integrals]
    )  # fmt: skip
    edges = np.asarray(solution.stats["edges"])
    inner = edges[:-1, None] + np.diff(edges)[:, None] * np.arange(parts) / parts
    edges = np.append(inner, edges[-1])
    jacobian = jax.jit(jax.vmap(jax.jacfwd(equation.system, argnums=1)))
    guess = jax.jit(jax.vmap(solution.dense.evaluate))
    y, rows = np.array(equation.y0, long), [np.array(equation.y0)]
    dim, identity = len(equation.y0), np.eye(len(equation.y0) * NODES)
    for start, end in itertools.pairwise(edges):
        half = (long(end) - long(start)) / 2
        t = long(start) + half * (rule.points.astype(long) + 1)
        u = np.asarray(guess(t.astype(float)), long).T

        def rates(u: np.ndarray, t: np.ndarray = t) -> np.ndarray:
            return np.stack([np.broadcast_to(x, t.shape) for x in equation.rates(t, u)])

        slopes = np.asarray(jacobian(t.astype(float), u.T.astype(float)))
        matrix = float(half) * np.einsum("pq,qij->ipjq", integrals[:-1].astype(float), slopes)
        matrix = identity - matrix.reshape(identity.shape)
        for _ in range(20):
            residual = y[:, None] + half * rates(u) @ integrals[:-1].T - u
            step = np.linalg.solve(matrix, residual.astype(float).ravel()).reshape(dim, NODES)
            u = u + step
            if np.max(np.abs(step)) <= 1e-18 * np.max(np.abs(u)):
                break
        y = y + half * rates(u) @ integrals[-1]
        rows.append(y.astype(float))
    return edges, np.stack(rows)

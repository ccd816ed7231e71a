"""Boundary value problems with known numbers, for `pinn` and for SciPy's `solve_bvp`.

Each right-hand side is written once, for the array module that it is handed. The truths are closed
forms or were computed with 30 digits by another method (in mpmath): Troesch's slope from Jacobi's
elliptic functions, Mathieu's number from its tridiagonal matrix, the wells' from k tan k, that of
Falkner and Skan by Taylor series and shooting. The periods are published: that of van der Pol's
oscillator by C. M. Andersen and J. F. Geer, SIAM J. Appl. Math. 42 (1982) 678, recomputed since;
that of Lorenz' shortest orbit by D. Viswanath, Physica D 190 (2004) 115.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_bvp

from physml import pinn, reference, systems

Solved = tuple[float, float]  # a number, and the estimate of its error


class Problem(NamedTuple):
    """A boundary value problem and one number of its solution.

    Attributes:
        label: its name.
        number: what the number is.
        truth: the number.
        ours: solves it, and returns the number with its estimate.
        scipy: the same by `solve_bvp` with a tolerance.
    """

    label: str
    number: str
    truth: float
    ours: Callable[[], Solved]
    scipy: Callable[[float], float]


def state(solution: Any, t: float, component: int) -> Solved:
    """A component at a time."""
    return float(solution(t)[component]), float(solution.error_estimate(t)[component])


def parameter(solution: Any, name: str) -> Solved:
    """A free parameter."""
    return float(solution.parameters[name]), float(solution.parameter_errors[name])


def bvp(rates: Callable, ends: Callable, guess: Callable, t1: float, p: Any = None) -> Callable:
    """SciPy's solution on [0, t1] as a function of the tolerance."""
    x = np.linspace(0.0, t1, 201)

    def solve(tol: float) -> Any:
        def given(t: np.ndarray, y: np.ndarray, *more: np.ndarray) -> np.ndarray:
            rows = rates(np, t, y, *more)
            return np.stack([np.broadcast_to(row, t.shape) for row in rows])

        y = np.stack([np.broadcast_to(row, x.shape) for row in guess(np, x)])
        return solve_bvp(given, ends, x, y, p=p, tol=tol, max_nodes=200_000)

    return solve


def for_jax(rates: Callable, dim: int, names: tuple[str, ...] = (), args: Any = None) -> Any:
    """The right-hand side as a system; SciPy gets a sequence of the named parameters."""

    def single(t: Any, y: Any, p: Any) -> list:
        return rates(jnp, t, y, *([[p[name] for name in names]] if names else []))

    return systems.from_function(single, dim, args=args)


def bratu(label: str, height: float, theta: float) -> Problem:
    """u'' + exp(u) = 0, u(0) = u(1) = 0, on the branch near a parabola of some height."""

    def rates(xp: Any, t: Any, y: Any) -> list:
        return [y[1], -xp.exp(y[0])]

    def guess(xp: Any, t: Any) -> list:
        return [4 * height * t * (1 - t), 4 * height * (1 - 2 * t)]

    def ends(a: Any, b: Any) -> list:
        return [a[0], b[0]]

    system, first = for_jax(rates, 2), lambda t: guess(jnp, t)
    solve = bvp(rates, lambda a, b: np.array(ends(a, b)), guess, 1.0)
    return Problem(
        label, "u(1/2)", float(2 * np.log(np.cosh(np.longdouble(theta) / 4))),
        lambda: state(pinn.solve_boundary(system, ends, 0.0, 1.0, guess=first), 0.5, 0),
        lambda tol: solve(tol).sol(0.5)[0],
    )  # fmt: skip


def troesch() -> Problem:
    """u'' = 10 sinh(10 u), u(0) = 0, u(1) = 1."""

    def rates(xp: Any, t: Any, y: Any) -> list:
        return [y[1], 10 * xp.sinh(10 * y[0])]

    def ends(a: Any, b: Any) -> list:
        return [a[0], b[0] - 1]

    system = for_jax(rates, 2)
    solve = bvp(rates, lambda a, b: np.array(ends(a, b)), lambda xp, t: [t, 1.0], 1.0)
    return Problem(
        "Troesch, mu = 10", "u'(0)", 3.583377846308136904125e-4,
        lambda: state(pinn.solve_boundary(system, ends, 0.0, 1.0), 0.0, 1),
        lambda tol: solve(tol).sol(0.0)[1],
    )  # fmt: skip


def mathieu() -> Problem:
    """u'' + (a - 2 q cos 2t) u = 0 with q = 1: the first number a whose solution is even."""

    def rates(xp: Any, t: Any, y: Any, p: Any) -> list:
        return [y[1], -(p[0] - 2 * xp.cos(2 * t)) * y[0]]

    def ends(a: Any, b: Any, _: Any) -> list:
        return [a[0] - 1, a[1], b[1]]

    system = for_jax(rates, 2, ("a",), {"a": 0.0})
    solve = bvp(rates, lambda *x: np.array(ends(*x)), lambda xp, t: [1.0, 0.0], np.pi, [0.0])
    return Problem(
        "Mathieu, q = 1", "a", -0.4551386041074135482326,
        lambda: parameter(
            pinn.solve_boundary(system, ends, 0.0, np.pi, free=("a",), guess=[1.0, 0.0]), "a"
        ),
        lambda tol: solve(tol).p[0],
    )  # fmt: skip


def well() -> Problem:
    """The ground state of a square well of depth 10: u'' = 2 (V - E) u, with decay outside."""

    def rates(xp: Any, t: Any, y: Any, p: Any) -> list:
        return [y[1], 2 * (xp.where(t < 1, -10.0, 0.0) - p[0]) * y[0]]

    def ends(a: Any, b: Any, _: Any) -> list:
        return [a[0] - 1, a[1], b[0]]

    def guess(xp: Any, t: Any) -> list:
        return [xp.exp(-t * t), -2 * t * xp.exp(-t * t)]

    system = systems.from_function(
        lambda t, y, p: rates(jnp, t, y, [p["E"]]), 2, args={"E": -9.0}, jumps=(1.0,)
    )
    solve = bvp(rates, lambda *x: np.array(ends(*x)), guess, 10.0, [-9.0])
    options = {"free": ("E",), "guess": lambda t: guess(jnp, t)}
    return Problem(
        "square well", "E", -9.180259926233367528748,
        lambda: parameter(pinn.solve_boundary(system, ends, 0.0, np.inf, **options), "E"),
        lambda tol: solve(tol).p[0],
    )  # fmt: skip


def falkner_skan() -> Problem:
    """f''' + f f'' + (1 - f'^2) / 2 = 0, f(0) = f'(0) = 0, f'(infinity) = 1."""

    def rates(xp: Any, t: Any, y: Any) -> list:
        return [y[1], y[2], -y[0] * y[2] - 0.5 * (1 - y[1] ** 2)]

    def ends(a: Any, b: Any) -> list:
        return [a[0], a[1], b[1] - 1]

    def guess(xp: Any, t: Any) -> list:
        return [t - 1 + xp.exp(-t), 1 - xp.exp(-t), xp.exp(-t)]

    system, first = for_jax(rates, 3), lambda t: guess(jnp, t)
    solve = bvp(rates, lambda a, b: np.array(ends(a, b)), guess, 10.0)
    return Problem(
        "Falkner and Skan, beta = 1/2", "f''(0)", 0.9276800398366511392193,
        lambda: state(pinn.solve_boundary(system, ends, 0.0, np.inf, guess=first), 0.0, 2),
        lambda tol: solve(tol).sol(0.0)[2],
    )  # fmt: skip


def orbit(
    label: str, system: Any, rates: Callable, start: list[float], period: float, truth: float
) -> Problem:
    """The period of an orbit near a state; SciPy gets the right-hand side as NumPy rows."""
    ts = np.linspace(0.0, period, 401)

    def ours() -> Solved:
        found = pinn.periodic_orbit(system, start, period)
        return float(found.period), float(found.period_error)  # pyright: ignore[reportArgumentType]

    def scipy(tol: float) -> float:
        ys = np.asarray(reference.solve(system, start, ts).ys).T

        def ends(a: np.ndarray, b: np.ndarray, p: np.ndarray) -> np.ndarray:
            return np.append(b - a, normal @ (a - ys[:, 0]))

        def turning(s: np.ndarray, y: np.ndarray, p: np.ndarray) -> np.ndarray:
            return p[0] * np.stack(rates(*y))

        normal, even = np.stack(rates(*ys[:, 0])), np.linspace(0.0, 1.0, 401)
        found = solve_bvp(turning, ends, even, ys, p=[period], tol=tol, max_nodes=200_000)
        return found.p[0]

    return Problem(label, "period", truth, ours, scipy)


def problems() -> dict[str, Problem]:
    """All problems by name."""
    return {
        "bratu_low": bratu("Bratu, lower branch", 0.0, 1.517164599050754368521844),
        "bratu_high": bratu("Bratu, upper branch", 4.0, 10.9387027721221067996772),
        "troesch": troesch(),
        "mathieu": mathieu(),
        "well": well(),
        "falkner_skan": falkner_skan(),
        "van_der_pol": orbit(
            "van der Pol, mu = 1", systems.VanDerPol(mu=1.0),
            lambda x, v: [v, (1 - x * x) * v - x], [2.0, 0.5], 6.6, 6.6632868593231301897,
        ),
        "lorenz": orbit(
            "Lorenz' shortest orbit", systems.Lorenz(),
            lambda x, y, z: [10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z],
            [-13.76, -19.58, 27.0], 1.56, 1.55865221071617472757,
        ),
    }  # fmt: skip

"""Equations with delays and their truths, for `pinn.solve_delays` and for jitcdde.

The truth of an equation with one constant delay is the method of steps without any interpolation:
all legs side by side are one ordinary equation in the time since a leg's start, whose starts are
found one after the other. It is solved in NumPy's `longdouble` by extrapolation of the midpoint
rule (W. B. Gragg's; R. Bulirsch, J. Stoer). Elsewhere the truth is a closed form.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from physml import systems

_SUBSTEPS = 2 * np.arange(1, 9)  # of the midpoint rule, extrapolated to order 16
_STEPS = 256  # of a leg


class Problem(NamedTuple):
    """An equation with delays.

    Attributes:
        label: its name.
        system: with its delays.
        history: a constant state.
        t0, t1: the interval.
        truth: returns times in it, (n,), and the solution there, (n,).
        jitcdde: the same right-hand side for jitcdde, of the state, the delayed state and a module
            with sin and tanh; None where it needs delays that depend on the state.
    """

    label: str
    system: systems.DelayedSystem
    history: float
    t0: float
    t1: float
    truth: Callable[[], tuple[np.ndarray, np.ndarray]]
    jitcdde: Callable[[Any, Any, Any], Any] | None


def problems() -> dict[str, Problem]:
    """The problems by name."""
    decay = systems.delayed(lambda t, y, past, args: -past[0], 1.0)
    neves = systems.delayed(
        lambda t, y, past, args: y * past[0] / t, lambda t, y, args: t - jnp.log(y[0])
    )
    known = {
        "mackey_glass": (
            "Mackey and Glass", systems.MackeyGlass(), 0.5, 100.0,
            lambda x, past, m: 0.2 * past / (1 + past**10) - 0.1 * x,
        ),
        "ikeda": (
            "Ikeda", systems.IkedaDelay(), 0.5, 20.0, lambda x, past, m: -20 * m.sin(past) - x,
        ),
        "sprott": ("Sprott", systems.SprottDelay(), 0.5, 100.0, lambda x, past, m: m.sin(past)),
        "scroll": (
            "scroll", systems.ScrollDelay(), 0.5, 100.0,
            lambda x, past, m: -0.2 * past + 0.2 * m.tanh(10 * past),
        ),
        "circuit": (
            "piecewise circuit", systems.PiecewiseCircuit(), 0.5, 100.0,
            lambda x, past, m: -past + 3 * (past / 2.24) - (past / 2.24) ** 3,
        ),
        "voss": (
            "Voss", systems.VossDelay(), 0.2, 100.0,
            lambda x, past, m: -3.24 * x - 10.44 * past**3 - 13.95 * past**2 - 3.63 * past + 0.85,
        ),
    }  # fmt: skip
    found = {
        "decay": Problem("y' = -y(t - 1)", decay, 1.0, 0.0, 20.0, _decay, lambda x, past, m: -past)
    }
    for name, (label, system, history, t1, rate) in known.items():
        tau = float(system.delays[0])
        found[name] = Problem(
            label, system, history, 0.0, t1,
            lambda rate=rate, tau=tau, t1=t1, history=history: by_steps(rate, tau, history, t1),
            rate,
        )  # fmt: skip
    found["neves"] = Problem("y' = y y(ln y) / t", neves, 1.0, 1.0, 12.0, _neves, None)
    return found


def _decay() -> tuple[np.ndarray, np.ndarray]:
    """Piecewise polynomials, from their sum in fractions of powers of two."""
    times = np.arange(0, 20 * 16 + 1) / 16.0
    exact = np.zeros(len(times), np.longdouble)
    for k in range(0, 22):
        since = np.maximum(times.astype(np.longdouble) - (k - 1), 0)
        exact += np.where(since > 0, (-1) ** k * since**k / math.factorial(k), 0) if k else 1
    return times, exact.astype(float)


def _neves() -> tuple[np.ndarray, np.ndarray]:
    """A closed form with breaking points at e and e^2, where it is smooth once and twice.

    Source: K. W. Neves, Automatic integration of functional differential equations: an approach,
    ACM Trans. Math. Softw. 1 (1975) 357.
    """
    e, times = math.e, np.linspace(1.0, 12.0, 401)
    last = (e / (3 - np.log(times))) ** e
    return times, np.where(times <= e, times, np.where(times <= e**2, np.exp(times / e), last))


def by_steps(
    rate: Callable[[Any, Any, Any], Any], tau: float, history: float, t1: float
) -> tuple[np.ndarray, np.ndarray]:
    """The solution from a constant history, at even times in [0, t1]."""
    real, count = np.longdouble, math.ceil(t1 / tau)
    start = np.full(1, real(history))
    for _ in range(count):
        legs = _together(rate, real(tau), real(history), start)
        start = np.append(real(history), legs[-1])
    times = tau * np.arange(count)[:, None] + tau * np.arange(_STEPS) / _STEPS
    times, values = times.reshape(-1), legs[:-1].T.reshape(-1)
    return times[times <= t1], values[times <= t1].astype(float)


def _together(
    rate: Callable[[Any, Any, Any], Any], tau: Any, history: Any, start: np.ndarray
) -> np.ndarray:
    """All legs at once from their starts: (steps + 1, legs)."""
    step, rows = tau / _STEPS, [start]

    def rates(y: np.ndarray) -> np.ndarray:
        return rate(y, np.append(history, y[:-1]), np)

    for _ in range(_STEPS):
        table: list[np.ndarray] = []
        for j, substeps in enumerate(_SUBSTEPS):
            h, before, now = step / substeps, rows[-1], rows[-1] + step / substeps * rates(rows[-1])
            for _ in range(substeps - 1):
                before, now = now, before + 2 * h * rates(now)
            row = [(before + now + h * rates(now)) / 2]
            for i in range(1, j + 1):
                ratio = (np.longdouble(substeps) / _SUBSTEPS[j - i]) ** 2
                row.append(row[-1] + (row[-1] - table[i - 1]) / (ratio - 1))
            table = row
        rows.append(table[-1])
    return np.stack(rows)

"""Stiff test problems with their published end values.

The equations and end values of all but heat are those of the Test Set for Initial Value Problem
Solvers (F. Mazzia and C. Magherini, University of Bari, release 2.4), where RADAU or PSIDE computed
the values in more than double precision; those of the ring modulator are from RADAU with a
tolerance of 1e-12, those of the medical problem from PSIDE with 1e-10. Heat is diffusion on [0, 1]
by central differences; its end is a closed form.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Problem(NamedTuple):
    """A stiff initial value problem from t = 0."""

    label: str
    rates: Callable[[Any, jax.Array], jax.Array]
    y0: np.ndarray
    t1: float
    end: dict[int, float]
    """The published values at t1, by component."""
    floor: float = 0.0
    """Errors are relative to the end value, or to this where that is smaller."""
    jumps: tuple[float, ...] = ()

    def error(self, y: Any) -> float:
        """The largest relative error of an end state."""
        y = np.asarray(y, float)
        return max(abs(y[i] - x) / max(abs(x), self.floor) for i, x in self.end.items())


def problem(name: str) -> Problem:
    """A problem by its name."""
    if name.startswith("heat"):
        return heat(int(name.removeprefix("heat")))
    return {
        "robertson": robertson, "hires": hires, "oregonator": oregonator, "pollution": pollution,
        "e5": e5, "van_der_pol": van_der_pol, "akzo_nobel": akzo_nobel,
        "ring_modulator": ring_modulator, "medical_akzo_nobel": medical_akzo_nobel,
    }[name]()  # fmt: skip


def _ends(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def robertson() -> Problem:
    """Three reactions whose rates lie nine orders of magnitude apart."""

    def rates(t: Any, y: jax.Array) -> jax.Array:
        slow, back, fast = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
        return jnp.stack([back - slow, slow - back - fast, fast])

    end = _ends(0.2083340149701255e-7, 0.8333360770334713e-13, 0.9999999791665050)
    return Problem("Robertson", rates, np.array([1.0, 0.0, 0.0]), 1e11, end)


def hires() -> Problem:
    """High irradiance responses of photomorphogenesis, eight reactants."""

    def rates(t: Any, y: jax.Array) -> jax.Array:
        pair = 280.0 * y[5] * y[7]
        last = pair - 1.81 * y[6]
        return jnp.stack([
            -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007,
            1.71 * y[0] - 8.75 * y[1],
            -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4],
            8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3],
            -1.745 * y[4] + 0.43 * (y[5] + y[6]),
            -pair + 0.69 * y[3] + 1.71 * y[4] - 0.43 * y[5] + 0.69 * y[6],
            last,
            -last,
        ])  # fmt: skip

    end = _ends(
        0.7371312573325668e-3, 0.1442485726316185e-3, 0.5888729740967575e-4,
        0.1175651343283149e-2, 0.2386356198831331e-2, 0.6238968252742796e-2,
        0.2849998395185769e-2, 0.2850001604814231e-2,
    )  # fmt: skip
    y0 = np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0057])
    return Problem("HIRES", rates, y0, 321.8122, end)


def oregonator() -> Problem:
    """The Belousov-Zhabotinskii reaction by Field, Koros and Noyes."""

    def rates(t: Any, y: jax.Array) -> jax.Array:
        return jnp.stack([
            77.27 * (y[1] + y[0] * (1 - 8.375e-6 * y[0] - y[1])),
            (y[2] - (1 + y[0]) * y[1]) / 77.27,
            0.161 * (y[0] - y[2]),
        ])  # fmt: skip

    end = _ends(0.1000814870318523e1, 0.1228178521549917e4, 0.1320554942846706e3)
    return Problem("Oregonator", rates, np.array([1.0, 2.0, 3.0]), 360.0, end)


def e5() -> Problem:
    """A pyrolysis, to a time at which hardly anything is left."""

    def rates(t: Any, y: jax.Array) -> jax.Array:
        a, b = 7.89e-10 * y[0], 1.1e7 * y[0] * y[2]
        second, last = a - 1.13e9 * y[1] * y[2], b - 1.13e3 * y[3]
        return jnp.stack([-a - b, second, second - last, last])

    # The first and the last component have vanished by then. The others are small differences of
    # what they were, so that integrators in float64 keep three or four digits of them.
    end = {1: 0.8867655517642120e-22, 2: 0.8854814626268838e-22}
    return Problem("E5", rates, np.array([1.76e-3, 0.0, 0.0, 0.0]), 1e13, end)


def van_der_pol() -> Problem:
    """Van der Pol's equation in the slow time, with a stiffness of a million."""

    def rates(t: Any, y: jax.Array) -> jax.Array:
        return jnp.stack([y[1], ((1 - y[0] ** 2) * y[1] - y[0]) / 1e-6])

    end = _ends(0.1706167732170483e1, -0.8928097010247975)
    return Problem("Van der Pol", rates, np.array([2.0, 0.0]), 2.0, end)


def akzo_nobel() -> Problem:
    """Two species that react under carbon dioxide; the sixth, in equilibrium, is eliminated."""
    k1, k2, k3, k4, equilibrium = 18.7, 0.58, 0.09, 0.42, 34.4
    supply, pressure, henry, ks = 3.3, 0.9, 737.0, 115.83

    def rates(t: Any, y: jax.Array) -> jax.Array:
        root = jnp.sqrt(y[1])
        r1, r2, r3 = k1 * y[0] ** 4 * root, k2 * y[2] * y[3], k2 / equilibrium * y[0] * y[4]
        r4, r5 = k3 * y[0] * y[3] ** 2, k4 * (ks * y[0] * y[3]) ** 2 * root
        inflow = supply * (pressure / henry - y[1])
        return jnp.stack([
            -2 * r1 + r2 - r3 - r4,
            -0.5 * r1 - r4 - 0.5 * r5 + inflow,
            r1 - r2 + r3,
            -r2 + r3 - 2 * r4,
            r2 - r3 + r5,
        ])  # fmt: skip

    end = _ends(
        0.1150794920661702, 0.1203831471567715e-2, 0.1611562887407974,
        0.3656156421249283e-3, 0.1708010885264404e-1,
    )  # fmt: skip
    return Problem("Akzo Nobel", rates, np.array([0.444, 0.00123, 0.0, 0.007, 0.0]), 180.0, end)


def pollution() -> Problem:
    """The chemistry of air pollution, twenty species and twenty-five reactions."""
    k = np.array([
        0.35, 26.6, 1.23e4, 8.6e-4, 8.2e-4, 1.5e4, 1.3e-4, 2.4e4, 1.65e4, 9e3, 0.022, 1.2e4, 1.88,
        1.63e4, 4.8e6, 3.5e-4, 0.0175, 1e8, 4.44e11, 1240.0, 2.1, 5.78, 0.0474, 1780.0, 3.12,
    ])  # fmt: skip
    # The species that react (0: none), and the reactions that each species gains and loses by.
    first = np.array([1, 2, 5, 7, 7, 7, 9, 9, 11, 11, 13, 10, 14,
                      1, 3, 4, 4, 16, 16, 17, 19, 19, 1, 19, 20])  # fmt: skip
    second = np.array([0, 4, 2, 0, 0, 6, 0, 6, 2, 1, 0, 2, 0,
                       6, 0, 0, 0, 0, 0, 6, 0, 0, 4, 1, 0])  # fmt: skip
    gains = [
        (2, 3, 9, 11, 12, 22, 25), (1, 21), (1, 17, 19, 22), (15,), (4, 4, 6, 7, 13, 20),
        (3, 18, 18), (13,), (4, 5, 6, 7), (), (7, 9), (8, 11), (9,), (10,), (12,), (14,), (16,),
        (), (20,), (23, 25), (24,),
    ]  # fmt: skip
    losses = [
        (1, 10, 14, 23, 24), (2, 3, 9, 12), (15,), (2, 16, 17, 23), (3,), (6, 8, 14, 20),
        (4, 5, 6), (), (7, 8), (12,), (9, 10), (), (11,), (13,), (), (18, 19), (20,), (),
        (21, 22, 24), (25,),
    ]  # fmt: skip
    matrix = np.zeros((20, 25))
    for i in range(20):
        for sign, reactions in ((1, gains[i]), (-1, losses[i])):
            for j in reactions:
                matrix[i, j - 1] += sign

    def rates(t: Any, y: jax.Array) -> jax.Array:
        padded = jnp.concatenate([jnp.ones(1), y])  # entry 0 stands for no second species
        return jnp.asarray(matrix) @ (k * padded[first] * padded[second])

    y0 = np.zeros(20)
    y0[[1, 3, 6, 7, 8, 16]] = 0.2, 0.04, 0.1, 0.3, 0.01, 0.007
    end = _ends(
        0.5646255480022769e-1, 0.1342484130422339, 0.4139734331099427e-8, 0.5523140207484359e-2,
        0.2018977262302196e-6, 0.1464541863493966e-6, 0.7784249118997964e-1, 0.3245075353396018,
        0.7494013383880406e-2, 0.1622293157301561e-7, 0.1135863833257075e-7, 0.2230505975721359e-2,
        0.2087162882798630e-3, 0.1396921016840158e-4, 0.8964884856898295e-2, 0.4352846369330103e-17,
        0.6899219696263405e-2, 0.1007803037365946e-3, 0.1772146513969984e-5, 0.5682943292316392e-4,
    )  # fmt: skip
    return Problem("Pollution", rates, y0, 60.0, end)


def ring_modulator() -> Problem:
    """An electric circuit of four diodes that mixes two signals; it oscillates fast."""
    c, cs, cp, lh, ls1, ls2, ls3 = 1.6e-8, 2e-12, 1e-8, 4.45, 2e-3, 5e-4, 5e-4
    r, rp, rg1, rg2, rg3, ri, rc = 25e3, 50.0, 36.3, 17.3, 17.3, 50.0, 600.0

    def diode(u: jax.Array) -> jax.Array:
        return 40.67286402e-9 * (jnp.exp(17.7493332 * u) - 1)

    def rates(t: Any, y: jax.Array) -> jax.Array:
        one, two = 0.5 * jnp.sin(2e3 * jnp.pi * t), 2.0 * jnp.sin(2e4 * jnp.pi * t)
        q1, q2 = diode(y[2] - y[4] - y[6] - two), diode(-y[3] + y[5] - y[6] - two)
        q3, q4 = diode(y[3] + y[4] + y[6] + two), diode(-y[2] - y[5] + y[6] + two)
        return jnp.stack([
            (y[7] - 0.5 * y[9] + 0.5 * y[10] + y[13] - y[0] / r) / c,
            (y[8] - 0.5 * y[11] + 0.5 * y[12] + y[14] - y[1] / r) / c,
            (y[9] - q1 + q4) / cs,
            (-y[10] + q2 - q3) / cs,
            (y[11] + q1 - q3) / cs,
            (-y[12] - q2 + q4) / cs,
            (-y[6] / rp + q1 + q2 - q3 - q4) / cp,
            -y[0] / lh,
            -y[1] / lh,
            (0.5 * y[0] - y[2] - rg2 * y[9]) / ls2,
            (-0.5 * y[0] + y[3] - rg3 * y[10]) / ls3,
            (0.5 * y[1] - y[4] - rg2 * y[11]) / ls2,
            (-0.5 * y[1] + y[5] - rg3 * y[12]) / ls3,
            (-y[0] + one - (ri + rg1) * y[13]) / ls1,
            (-y[1] - (rc + rg1) * y[14]) / ls1,
        ])  # fmt: skip

    end = _ends(
        -0.2339057358486745e-1, -0.7367485485540825e-2, 0.2582956709291169, -0.4064465721283450,
        -0.4039455665149794, 0.2607966765422943, 0.1106761861269975, 0.2939904342435596e-6,
        -0.2840029933642329e-7, 0.7267198267264553e-3, 0.7929487196960840e-3,
        -0.7255283495698965e-3, -0.7941401968526521e-3, 0.7088495416976114e-4,
        0.2390059075236570e-4,
    )  # fmt: skip
    return Problem("ring modulator", rates, np.zeros(15), 1e-3, end)


def medical_akzo_nobel() -> Problem:
    """An antibody that diffuses into tissue and reacts there, on a grid of 200 points."""
    num, rate, c = 200, 100.0, 4.0
    step = 1 / num
    zeta = step * np.arange(1, num)  # nothing diffuses at the last point
    root = (zeta - 1) ** 2 / c
    drift, diffusion = (zeta - 1) * root / c / step, root**2 / step**2

    def rates(t: Any, y: jax.Array) -> jax.Array:
        u, v = y[0::2], y[1::2]
        left = jnp.concatenate([jnp.where(t <= 5.0, 2.0, 0.0)[None], u[:-2]])
        middle, right = u[:-1], u[1:]
        spread = diffusion * (left - 2 * middle + right) + drift * (right - left)
        reaction = rate * u * v
        du = jnp.concatenate([spread, jnp.zeros(1)]) - reaction
        return jnp.stack([du, -reaction], axis=1).ravel()

    end = {
        78: 0.2339942217046434e-3, 132: 0.3576835958481664e-3, 170: 0.3085949832350532e-3,
        198: 0.1173741304462833e-3, 199: 0.6190822732534586e-5,
    }  # fmt: skip
    y0 = np.tile([0.0, 1.0], num)
    return Problem("medical Akzo Nobel", rates, y0, 20.0, end, jumps=(5.0,))


def heat(num: int) -> Problem:
    """Diffusion by lines from x^2 (1 - x), with the ends held at zero."""
    h = 1 / (num + 1)
    x = h * np.arange(1, num + 1)
    y0, t1 = x**2 * (1 - x), 0.5

    def rates(t: Any, y: jax.Array) -> jax.Array:
        padded = jnp.concatenate([jnp.zeros(1), y, jnp.zeros(1)])
        return (padded[:-2] - 2 * y + padded[2:]) / h**2

    modes = np.sqrt(2 * h) * np.sin(np.pi * np.outer(np.arange(1, num + 1), x))
    decay = np.exp(-t1 * 4 / h**2 * np.sin(np.pi / 2 * x) ** 2)
    end = _ends(*(modes @ (decay * (modes @ y0))))
    return Problem(f"heat by lines, n = {num}", rates, y0, t1, end)

"""Partial equations and their truths, for `pinn.pde`.

Where there is no closed form, the truth is a Fourier series whose modes are marched by exponential
time differencing of fourth order (A.-K. Kassam, L. N. Trefethen, SIAM J. Sci. Comput. 26 (2005)
1214), extrapolated from two numbers of steps. How far it moves with twice the modes and steps is
the truth's own doubt.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from physml import reference

VISCOSITY = 0.01 / np.pi
Truth = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


class Problem(NamedTuple):
    """A partial equation in x and t.

    Attributes:
        label: its name.
        residual, domain, conditions, options: what `pinn.pde` is given.
        truth: values at x (n,), t (m,), an array (n, m) or (n, m, components); the third argument
            is 1 for the same by other means: twice the modes and steps, or another quadrature.
        least_tolerance: what `pinn.pde` is asked for at the least.
    """

    label: str
    residual: Callable[..., Any]
    domain: dict[str, tuple[float, float]]
    conditions: dict[tuple[str, float], Callable[..., Any]]
    options: dict[str, Any]
    truth: Truth
    least_tolerance: float = 0.0


def problems() -> dict[str, Problem]:
    """The problems by name."""
    return {
        "robin": robin(),
        "brusselator": brusselator(),
        "burgers": burgers(),
        "allen_cahn": allen_cahn(),
        "schroedinger": schroedinger(),
        "korteweg_de_vries": korteweg_de_vries(),
        "kuramoto_sivashinsky": kuramoto_sivashinsky(),
    }


def _at_the_wall(k: float) -> float:
    """Zero where a wave cos(kx) meets u_x = -u at one."""
    return k * np.sin(k) - np.cos(k)


def robin() -> Problem:
    """Heat that leaves at one end as u_x = -u; the other end is insulated."""
    roots = [
        float(np.asarray(scipy.optimize.brentq(_at_the_wall, *ends, xtol=1e-16)))
        for ends in ((0.5, 1.5), (3.0, 4.0))
    ]

    def exact(x: Any, t: Any, m: Any) -> Any:
        return sum(m.exp(-(k**2) * t) * m.cos(k * x) for k in roots)

    return Problem(
        "heat, Robin",
        lambda u, x, t: u.t(x, t) - u.xx(x, t),
        {"x": (0.0, 1.0), "t": (0.0, 1.0)},
        {
            ("t", 0.0): lambda u, x, t: u(x, t) - exact(x, t, jnp),
            ("x", 0.0): lambda u, x, t: u.x(x, t),
            ("x", 1.0): lambda u, x, t: u.x(x, t) + u(x, t),
        },
        {},
        lambda x, t, finer: exact(x[:, None], t, np),
    )


def burgers() -> Problem:
    """u_t + u u_x = nu u_xx, which makes a shock of width 0.006 at t = 0.32."""

    def zero(u, x, t):
        return u(x, t)

    return Problem(
        "Burgers",
        lambda u, x, t: u.t(x, t) + u(x, t) * u.x(x, t) - VISCOSITY * u.xx(x, t),
        {"x": (-1.0, 1.0), "t": (0.0, 1.0)},
        {
            ("t", 0.0): lambda u, x, t: u(x, t) + jnp.sin(jnp.pi * x),
            ("x", -1.0): zero,
            ("x", 1.0): zero,
        },
        {},
        lambda x, t, finer: _trapezoidal(x, t) if finer else _closed(x, t),
    )


def _closed(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    return reference.cole_hopf(x[:, None], t[None], VISCOSITY)


def _trapezoidal(x: np.ndarray, ts: np.ndarray) -> np.ndarray:
    """Cole and Hopf's quotient of integrals by the trapezoidal rule, in more digits."""
    pi = 4 * np.arctan(np.longdouble(1))
    columns = [-np.sin(pi * x.astype(np.longdouble))] if ts[0] == 0 else []
    for t in ts[len(columns) :].astype(np.longdouble):
        reach = np.sqrt(600 * np.longdouble(VISCOSITY) * t)
        z = np.linspace(-reach, reach, 1200)
        y = x[:, None] + z
        exponent = -(np.cos(pi * y) / pi + z**2 / (2 * t)) / (2 * np.longdouble(VISCOSITY))
        weights = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        columns.append(-(np.sin(pi * y) * weights).sum(1) / weights.sum(1))
    return np.stack(columns, axis=1).astype(float)


def allen_cahn() -> Problem:
    """u_t = 1e-4 u_xx + 5 (u - u^3), periodic, from x^2 cos(pi x): its slope jumps at the ends."""

    def truth(x, ts, finer):
        modes = 4096 * 2**finer
        k = np.arange(modes + 1)

        def moment(m):  # the integral of x^2 cos(m pi x) from -1 to 1
            sizes = 4 * (-1.0) ** m / (np.pi * np.where(m == 0, 1, m)) ** 2
            return np.where(m == 0, 2 / 3, sizes)

        start = (moment(k - 1) + moment(k + 1)) / 2
        start[0] /= 2  # a cosine series
        linear = 5 - 1e-4 * (np.pi * k) ** 2
        cosines = _Cosines(modes)
        found = _marched(
            linear,
            lambda c: -5 * cosines.coefficients(cosines.values(c) ** 3),
            start,
            ts,
            steps=1500 * 2**finer,
            early=True,
        )
        values = np.cos(np.pi * np.outer(x, k)) @ found.T
        values[:, 0] = x**2 * np.cos(np.pi * x)
        return values

    return Problem(
        "Allen-Cahn",
        lambda u, x, t: u.t(x, t) - 1e-4 * u.xx(x, t) - 5 * (u(x, t) - u(x, t) ** 3),
        {"x": (-1.0, 1.0), "t": (0.0, 1.0)},
        {("t", 0.0): lambda u, x, t: u(x, t) - x**2 * jnp.cos(jnp.pi * x)},
        {"periodic": "x", "max_elements": 256},
        truth,
        least_tolerance=1e-10,
    )


class _Cosines:
    """Sums of cos(k pi x), k from 0 to `modes`, on twice as many points as have to be known."""

    def __init__(self, modes: int):
        self.modes = modes

    def values(self, c: np.ndarray) -> np.ndarray:
        n = 4 * self.modes
        return np.fft.irfft(np.pad(np.append(c[:1], c[1:] / 2), (0, n // 2 - self.modes)), n) * n

    def coefficients(self, u: np.ndarray) -> np.ndarray:
        c = np.fft.rfft(u)[: self.modes + 1].real / len(u)
        return np.append(c[:1], 2 * c[1:])


def brusselator() -> Problem:
    """Two reacting substances between walls that let nothing through."""

    def reaction(u, v):
        return 1 + u**2 * v - 4 * u, 3 * u - u**2 * v

    def residual(w, x, t):
        (u, v), diffused = w(x, t), 0.02 * w.xx(x, t)
        return w.t(x, t) - diffused - jnp.stack(reaction(u, v))

    def shape(x, m):
        return 1 + m.cos(np.pi * x) / 2, 3 + m.cos(2 * np.pi * x)

    def wall(w, x, t):
        return w.x(x, t)

    def truth(x, ts, finer):
        modes = 64 * 2**finer
        k, cosines = np.arange(modes + 1), _Cosines(modes)

        def rate(c):
            u, v = (cosines.values(one) for one in c)
            return np.stack([cosines.coefficients(r) for r in reaction(u, v)])

        start = np.zeros((2, modes + 1))
        start[0, :2], start[1, :3] = (1.0, 0.5), (3.0, 0.0, 1.0)
        found = _marched(-0.02 * (np.pi * k) ** 2, rate, start, ts, steps=4000 * 2**finer)
        return np.einsum("xk,tck->xtc", np.cos(np.pi * np.outer(x, k)), found)

    return Problem(
        "Brusselator, Neumann",
        residual,
        {"x": (0.0, 1.0), "t": (0.0, 5.0)},
        {
            ("t", 0.0): lambda w, x, t: w(x, t) - jnp.stack(shape(x, jnp)),
            ("x", 0.0): wall,
            ("x", 1.0): wall,
        },
        {"components": 2},
        truth,
    )


def schroedinger() -> Problem:
    """i h_t + h_xx / 2 + |h|^2 h = 0 from 2 sech x: two solitons that stay together.

    The ends have the values of the solution on the whole line. Joined as a ring of length 10, the
    start would have a jump of 0.05 in its slope, which this equation never smooths.

    Source: J. Satsuma, N. Yajima, Prog. Theor. Phys. Suppl. 55 (1974) 284.
    """

    def exact(x, t, m):
        top = m.cosh(3 * x) + 3 * m.cosh(x) * m.cos(4 * t), 3 * m.cosh(x) * m.sin(4 * t)
        below = m.cosh(4 * x) + 4 * m.cosh(2 * x) + 3 * m.cos(4 * t)
        c, s = m.cos(t / 2), m.sin(t / 2)
        parts = 4 * (c * top[0] - s * top[1]) / below, 4 * (s * top[0] + c * top[1]) / below
        return m.stack(parts, axis=-1)

    def residual(w, x, t):
        (u, v), (ut, vt), (uxx, vxx) = w(x, t), w.t(x, t), w.xx(x, t)
        power = u**2 + v**2
        return jnp.stack([ut + vxx / 2 + power * v, vt - uxx / 2 - power * u])

    def given(w, x, t):
        return w(x, t) - exact(x, t, jnp)

    return Problem(
        "Schrödinger, two solitons",
        residual,
        {"x": (-5.0, 5.0), "t": (0.0, float(np.pi / 2))},
        {("t", 0.0): given, ("x", -5.0): given, ("x", 5.0): given},
        {"components": 2},
        lambda x, t, finer: exact(x[:, None], t[None], np),
    )


def korteweg_de_vries() -> Problem:
    """u_t + 6 u u_x + u_xxx = 0: a fast soliton that overtakes a slow one.

    Source: R. Hirota, Phys. Rev. Lett. 27 (1971) 1192.
    """
    fast, slow = 2.0, 1.0

    def exact(x, t, m):
        a, b = fast * (x + 3) - fast**3 * t, slow * x - slow**3 * t
        ea, eb, both = m.exp(a), m.exp(b), ((fast - slow) / (fast + slow)) ** 2 * m.exp(a + b)
        f = 1 + ea + eb + both
        fx = fast * ea + slow * eb + (fast + slow) * both
        fxx = fast**2 * ea + slow**2 * eb + (fast + slow) ** 2 * both
        return 2 * (fxx / f - (fx / f) ** 2)

    def given(u, x, t):
        return u(x, t) - exact(x, t, jnp)

    def with_slope(u, x, t):
        return given(u, x, t), u.x(x, t) - jax.grad(exact)(x, t, jnp)

    return Problem(
        "Korteweg and de Vries, two solitons",
        lambda u, x, t: u.t(x, t) + 6 * u(x, t) * u.x(x, t) + u.xxx(x, t),
        {"x": (-8.0, 10.0), "t": (0.0, 2.0)},
        {("t", 0.0): given, ("x", -8.0): given, ("x", 10.0): with_slope},
        {},
        lambda x, t, finer: exact(x[:, None], t[None], np),
    )


def kuramoto_sivashinsky() -> Problem:
    """u_t + u u_x + u_xx + u_xxxx = 0 on a ring, from Kassam and Trefethen's start."""
    length = 32 * np.pi

    def truth(x, ts, finer):
        n = 512 * 2**finer
        points = length * np.arange(n) / n
        q = 2 * np.pi / length * np.arange(n // 2 + 1)
        kept = np.arange(n // 2 + 1) < n // 3
        start = np.fft.rfft(np.cos(points / 16) * (1 + np.sin(points / 16))) / n
        found = _marched(
            q**2 - q**4,
            lambda c: -0.5j * q * kept * np.fft.rfft(np.fft.irfft(c, n) ** 2) * n,
            start,
            ts,
            steps=4000 * 2**finer,
        )
        waves = np.exp(1j * np.outer(x, q)) * np.where(q > 0, 2, 1)
        return np.real(waves @ found.T)

    return Problem(
        "Kuramoto and Sivashinsky",
        lambda u, x, t: u.t(x, t) + u(x, t) * u.x(x, t) + u.xx(x, t) + u.xxxx(x, t),
        {"x": (0.0, float(length)), "t": (0.0, 30.0)},
        {("t", 0.0): lambda u, x, t: u(x, t) - jnp.cos(x / 16) * (1 + jnp.sin(x / 16))},
        {"periodic": "x"},
        truth,
    )


def _marched(
    linear: np.ndarray,
    rate: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    ts: np.ndarray,
    steps: int,
    early: bool = False,
) -> np.ndarray:
    """Modes at even times, (times, *modes), extrapolated from two numbers of steps.

    With `early` the first interval is cut into pieces that grow by a factor of 1.5, for a start
    whose series ends slowly.
    """
    coarse, fine = (
        _steps(linear, rate, start, ts, n // (len(ts) - 1), early) for n in (steps, 2 * steps)
    )
    return fine + (fine - coarse) / 15


def _steps(linear, rate, start, ts, steps, early) -> np.ndarray:
    """The modes by a number of steps from each time to the next."""
    found, c = [start], start
    for i, span in enumerate(np.diff(ts)):
        pieces = [span]
        if early and i == 0:
            cuts = span * 1.5 ** -np.arange(40.0)
            pieces = [cuts[-1], *-np.diff(cuts)[::-1]]
        for piece in pieces:
            number = max(8, int(np.ceil(steps * piece / span))) if len(pieces) > 1 else steps
            c = _etdrk4(linear, rate, c, piece / number, number)
        found.append(c)
    return np.stack(found)


def _etdrk4(linear, rate, c, h, number) -> np.ndarray:
    """Steps of exponential time differencing; its coefficients by means over circles."""
    circle = np.exp(1j * np.pi * (np.arange(1, 33) - 0.5) / 32)
    z = h * linear[:, None] + circle
    whole, half = np.exp(h * linear), np.exp(h * linear / 2)
    ez = np.exp(z)

    def mean(f):
        return h * f.mean(axis=1).real

    q = mean((np.exp(z / 2) - 1) / z)
    f1 = mean((-4 - z + ez * (4 - 3 * z + z**2)) / z**3)
    f2 = mean((2 + z + ez * (-2 + z)) / z**3)
    f3 = mean((-4 - 3 * z - z**2 + ez * (4 - z)) / z**3)
    for _ in range(number):
        r0 = rate(c)
        a = half * c + q * r0
        ra = rate(a)
        rb = rate(half * c + q * ra)
        last = half * a + q * (2 * rb - r0)
        c = whole * c + f1 * r0 + 2 * f2 * (ra + rb) + f3 * rate(last)
    return c

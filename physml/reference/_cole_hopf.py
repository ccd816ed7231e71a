"""Burgers' equation in closed form, by a quadrature that follows the exponent."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from physml._numerics import checks
from physml._numerics.calls import checked
from physml._numerics.quadrature import gauss
from physml._types import Numbers

_CUT = 50.0  # e^-50 of the integrand's largest value does not count
_NODES = 16  # in a panel
_PANELS = (2, 4, 8, 16, 32, 64, 128)  # in a section, until two of these agree
_AGREEMENT = 1e-13
_VALUES = 1 << 20  # of the integrand, at once
_WIDEST = 1e3  # from x to where the integrand ends


@checked
def cole_hopf(x: Numbers, t: Numbers, viscosity: float) -> np.ndarray:
    r"""Burgers' equation $u_t + u u_x = \nu u_{xx}$ from $u(x, 0) = -\sin \pi x$, in closed form.

    $$u(x, t) = -\frac{\int \sin(\pi y)\, e^{-G(y) / 2\nu} dy}{\int e^{-G(y) / 2\nu} dy}, \quad
    G(y) = \frac{\cos \pi y}{\pi} + \frac{(x - y)^2}{2t}$$

    The line is cut at the stationary points of G. In each section between two of them G is
    monotone, and Gauss panels cover the part in which the integrand is not negligible, however
    small the viscosity. Panels are halved until two results agree.

    Where two minima of G are equally deep, at a shock, the rounding of x and t alone changes u by
    about 1e-16 / viscosity.

    Args:
        x, t: points, arrays of one shape or broadcast to it; t at least 0.
        viscosity: $\nu$.

    Raises:
        ValueError: a time is negative, the viscosity is not positive, a number is not finite, or
            viscosity times t is so large that the integrand spans a thousand periods of u.
        RuntimeError: the quadrature did not converge.

    Source: Basdevant et al., Computers & Fluids 14 (1986) 23.
    """
    checks.require_positive(viscosity=viscosity)
    checks.require_not_empty(x=x, t=t)
    x, t = np.asarray(x, float), np.asarray(t, float)
    checks.require_finite("x", x)
    checks.require_finite("t", t)
    if np.any(t < 0):
        raise ValueError(f"t must not be negative, got {t.min()}")
    reach = _reach(float(t.max(initial=0.0)), viscosity)
    if reach > _WIDEST:
        raise ValueError(
            f"viscosity * t must be at most {_WIDEST**2 / (4 * _CUT):.0f}, beyond which u has "
            f"decayed to zero, got {viscosity * t.max()}"
        )
    x, t = np.broadcast_arrays(x, t)
    u = np.array(-np.sin(np.pi * x))
    later = np.flatnonzero(t.ravel() > 0)
    chunk = max(1, _VALUES // int(_NODES * _PANELS[1] * (2 * reach + 5)))
    for first in range(0, len(later), chunk):
        index = later[first : first + chunk]
        u.flat[index] = _after_start(x.flat[index], t.flat[index], viscosity)
    return u


def _reach(t: float, viscosity: float) -> float:
    """How far from x the integrand can count.

    An odd number, at which G is at most -1 / pi + 1 / 2t, lies within a distance of 1.
    """
    return float(np.sqrt(1 + 4 * _CUT * viscosity * t))


def _after_start(x: np.ndarray, t: np.ndarray, viscosity: float) -> np.ndarray:
    """u at points (points,) with t > 0."""
    sections = _sections(x, t, viscosity)
    scale = 1 + np.finfo(float).eps / (viscosity * _AGREEMENT)
    u, before, left = np.zeros_like(x), np.full_like(x, np.inf), np.arange(len(x))
    for panels in _PANELS:
        u[left] = sections.ratio(panels)
        agreed = np.abs(u[left] - before) <= _AGREEMENT * scale
        before, left = u[left][~agreed], left[~agreed]
        sections = sections.at(~agreed)
        if not len(left):
            return u
    raise RuntimeError(
        f"reference.cole_hopf did not converge at x = {x[left[0]]}, t = {t[left[0]]}: use "
        "pinn.pde, or a larger viscosity"
    )


class _Sections(NamedTuple):
    """The parts of the line on which G is monotone, as far as the integrand counts there."""

    x: Float[np.ndarray, " points"]
    t: Float[np.ndarray, " points"]
    low: Float[np.ndarray, "points sections"]  # where G is lowest in the section
    end: Float[np.ndarray, "points sections"]  # where the integrand ends; may be left of low
    depth: Float[np.ndarray, "points sections"]  # G at low, above its minimum
    viscosity: float

    def at(self, some: np.ndarray) -> "_Sections":
        """Those of some of the points."""
        x, t, low, end, depth, viscosity = self
        return _Sections(x[some], t[some], low[some], end[some], depth[some], viscosity)

    def ratio(self, panels: int) -> Float[np.ndarray, " points"]:
        """u, with a number of panels in each section."""
        points, weights, _ = gauss(_NODES)
        s = ((points + 1) / 2 + np.arange(panels)[:, None]).ravel() / panels
        length = (self.end - self.low)[..., None]
        z = length * s
        rise = _rise(self.low[..., None], z, self.x[:, None, None], self.t[:, None, None])
        exponent = (self.depth[..., None] + rise) / (2 * self.viscosity)
        values = np.tile(weights, panels) * np.abs(length) * np.exp(-np.maximum(exponent, 0.0))
        top = np.sum(np.sin(np.pi * (self.low[..., None] + z)) * values, axis=(1, 2))
        return -top / np.sum(values, axis=(1, 2))


def _sections(x: np.ndarray, t: np.ndarray, viscosity: float) -> _Sections:
    """The sections for each point."""
    edges = _stationary(x, t, viscosity)
    column, times = x[:, None], t[:, None]
    heights = np.cos(np.pi * edges) / np.pi + (column - edges) ** 2 / (2 * times)
    left, right = edges[:, :-1], edges[:, 1:]
    up = heights[:, :-1] <= heights[:, 1:]
    low, high = np.where(up, left, right), np.where(up, right, left)
    depth = np.minimum(heights[:, :-1], heights[:, 1:])
    depth = depth - depth.min(axis=1, keepdims=True)
    room = 2 * viscosity * _CUT - depth  # how much G may rise until the integrand is negligible
    counts = np.flatnonzero((room > 0).any(axis=0))
    low, high, depth, room = (a[:, counts] for a in (low, high, depth, room))
    # Bisect in the share of the section; sections that do not count have no length.
    inside, outside = np.zeros_like(low), np.ones_like(low)
    whole = _rise(low, high - low, column, times) <= room
    for _ in range(50):
        middle = (inside + outside) / 2
        under = _rise(low, middle * (high - low), column, times) <= room
        inside, outside = np.where(under, middle, inside), np.where(under, outside, middle)
    share = np.where(room > 0, np.where(whole, 1.0, outside), 0.0)
    return _Sections(x, t, low, low + share * (high - low), depth, viscosity)


def _stationary(
    x: np.ndarray, t: np.ndarray, viscosity: float
) -> Float[np.ndarray, "points edges"]:
    """Edges between which G is monotone: its stationary points, and where the integrand ends.

    y - t sin(pi y) = x at these. The left side is monotone between its turning points, so that
    each piece has one solution at most; where it has none, bisection ends at a turning point.
    """
    reach = np.maximum(_reach(t.max(), viscosity), 1.0)
    steep = np.pi * t > 1
    turn = np.where(steep, np.arccos(1 / np.where(steep, np.pi * t, 1.0)) / np.pi, 0.0)
    middle = 2 * np.round(x / 2)
    periods = 2 * np.arange(-int(np.ceil(reach / 2)) - 1, int(np.ceil(reach / 2)) + 2)
    turns = (middle[:, None] + periods)[..., None] + turn[:, None, None] * np.array([-1.0, 1.0])
    turns = turns.reshape(len(x), -1)
    column, times = x[:, None], t[:, None]

    def slope(y: np.ndarray) -> np.ndarray:
        return y - times * np.sin(np.pi * y) - column

    low, high = turns[:, :-1], turns[:, 1:]
    falls = slope(low) > slope(high)
    for _ in range(60):
        half = (low + high) / 2
        right = (slope(half) < 0) != falls
        low, high = np.where(right, half, low), np.where(right, high, half)
    ends = column + 2 * np.ceil(reach + 1) * np.array([-1.0, 1.0])
    return np.sort(np.concatenate([ends, (low + high) / 2], axis=1), axis=1)


def _rise(low: np.ndarray, z: np.ndarray, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """G(low + z) - G(low), without the difference of two large numbers."""
    slope = (low - x) / t - np.sin(np.pi * low)
    bend = np.sin(np.pi * low) * (z - np.sin(np.pi * z) / np.pi)
    bend = bend - np.cos(np.pi * low) * (2 / np.pi) * np.sin(np.pi * z / 2) ** 2
    return slope * z + bend + z**2 / (2 * t)

"""The points of one coordinate of space, and the polynomials or waves through values there."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class GridAxis(NamedTuple):
    """A grid on an interval: Chebyshev-Lobatto points, or even ones of a periodic coordinate.

    Attributes:
        low, high: the ends of the interval.
        periodic: whether its ends are one point, of which the grid has the left one only.
        points: those of the grid, which increase.
        modes: the map from values at the points to coefficients, of Chebyshev polynomials or of
            the constant and then cosines and sines in pairs.
    """

    low: float
    high: float
    periodic: bool
    points: Float[np.ndarray, " points"]
    modes: Float[np.ndarray, "points points"]

    @property
    def size(self) -> int:
        """The number of points."""
        return len(self.points)

    def functions(self, x: Float[Array, ""]) -> Float[Array, " points"]:
        """The polynomials or waves at a place, differentiable by JAX to any order."""
        scaled = (x - self.low) / (self.high - self.low)
        if self.periodic:
            # Products of the first wave with itself, of which one sine and one cosine are taken.
            angle = 2 * np.pi * scaled
            wave = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
            found, now = [jnp.ones_like(x)], jnp.stack([jnp.ones_like(x), jnp.zeros_like(x)])
            for _ in range(self.size // 2):
                turned = now[0] * wave[0] - now[1] * wave[1], now[0] * wave[1] + now[1] * wave[0]
                now = jnp.stack(turned)
                found.extend(now)
            return jnp.stack(found)
        s = 2 * scaled - 1
        found = [jnp.ones_like(x), s]
        while len(found) < self.size:
            found.append(2 * s * found[-1] - found[-2])
        return jnp.stack(found[: self.size])

    def at(self, x: Float[np.ndarray, " at"]) -> Float[np.ndarray, "at points"]:
        """The map from values at the points to values at other places."""
        scaled = (x - self.low) / (self.high - self.low)
        if self.periodic:
            table = _waves(2 * np.pi * scaled, self.size)
        else:
            table = np.polynomial.chebyshev.chebvander(2 * scaled - 1, self.size - 1)
        return table @ self.modes

    def derivative(self, order: int) -> Float[np.ndarray, "points points"]:
        """The map from values at the points to those of a derivative, rounded once."""
        first = _periodic_slopes(self.size) if self.periodic else _polynomial_slopes(self.size)
        first = first * (np.longdouble(2) / (np.longdouble(self.high) - np.longdouble(self.low)))
        found = np.eye(self.size, dtype=np.longdouble)
        for _ in range(order):
            found = first @ found
        if order and not self.periodic:
            # The derivative of a constant is zero: so the diagonal holds what rounding spoilt.
            np.fill_diagonal(found, 0)
            np.fill_diagonal(found, -found.sum(axis=1))
        return found.astype(float)

    def tail(self, values: Float[np.ndarray, "... points"]) -> float:
        """The largest of the last coefficients: what a grid that is a little finer would add.

        Two are looked at, because a function may be even or odd.
        """
        coefficients = values @ self.modes.T
        return float(np.abs(coefficients[..., -2:]).max(initial=0.0))


def grid_axis(low: float, high: float, periodic: bool, size: int) -> GridAxis:
    """A grid of a coordinate; a periodic one has an odd number of points, at least `size`."""
    if periodic:
        size += 1 - size % 2
        s = np.arange(size) / size
        modes = np.linalg.inv(_waves(2 * np.pi * s, size))
        return GridAxis(low, high, True, low + (high - low) * s, modes)
    s = _lobatto(size).astype(float)
    modes = np.linalg.inv(np.polynomial.chebyshev.chebvander(s, size - 1))
    points = (low + high) / 2 + (high - low) / 2 * s
    points[[0, -1]] = low, high
    return GridAxis(low, high, False, points, modes)


def _lobatto(size: int) -> np.ndarray:
    """Chebyshev-Lobatto points of [-1, 1], in extended precision."""
    pi = 4 * np.arctan(np.longdouble(1))
    angles = pi * np.arange(size).astype(np.longdouble) / (2 * (size - 1))
    return np.sin(2 * angles - pi / 2)


def _polynomial_slopes(size: int) -> np.ndarray:
    """The derivative of the polynomial through values at the points of [-1, 1].

    By barycentric weights: J.-P. Berrut, L. N. Trefethen, SIAM Review 46 (2004), section 9.3.
    """
    s = _lobatto(size)
    weights = np.where(np.arange(size) % 2, -1, 1).astype(np.longdouble)
    weights[[0, -1]] /= 2
    gaps = s[:, None] - s
    np.fill_diagonal(gaps, 1)
    slopes = weights / weights[:, None] / gaps
    np.fill_diagonal(slopes, 0)
    np.fill_diagonal(slopes, -slopes.sum(axis=1))
    return slopes


def _periodic_slopes(size: int) -> np.ndarray:
    """The derivative of the trigonometric polynomial through values at even points of [-1, 1].

    L. N. Trefethen, Spectral Methods in MATLAB (2000), chapter 3, for an odd number of points.
    """
    pi = 4 * np.arctan(np.longdouble(1))
    steps = np.subtract.outer(np.arange(size), np.arange(size))
    angles = pi * steps.astype(np.longdouble) / size
    np.fill_diagonal(angles, 1)
    slopes = np.where(steps % 2, -1, 1) * pi / (2 * np.sin(angles))
    np.fill_diagonal(slopes, 0)
    return slopes


def _waves(angles: np.ndarray, size: int) -> np.ndarray:
    """The constant, then the cosine and the sine of each wave number, (points, size)."""
    numbers = np.arange(1, size // 2 + 1)
    products = np.multiply.outer(angles, numbers)
    pairs = np.stack([np.cos(products), np.sin(products)], axis=-1).reshape(len(angles), -1)
    return np.concatenate([np.ones((len(angles), 1)), pairs], axis=1)

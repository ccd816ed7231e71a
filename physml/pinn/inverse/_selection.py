"""Monomials up to a degree, and the fewest of them that values or an estimate need."""

import itertools
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

SIGNIFICANT = 3.0  # standard deviations that a coefficient must be away from zero
_BEAM = 200  # sets of each size that are kept, the nearest to the estimate


def choose(
    estimate: Float[np.ndarray, " n"], root: Float[np.ndarray, "n n"]
) -> Float[np.ndarray, "choices n"]:
    r"""The coefficients that an estimate needs, with all others at zero.

    Setting those outside a set S to zero raises $|R (\beta - \hat\beta)|^2$ from zero to the least
    that the coefficients in S allow. Each of them must lower this by 3 squared. Whole sets are
    compared because coefficients may be correlated: dropping one after the other may drop those
    that matter first. Sets grow by one coefficient at a time, from the best of each size.

    Args:
        estimate: all coefficients.
        root: R, with R^T R the inverse of their covariance.

    Returns:
        The best choice, then the others of as many coefficients that are less than 3 standard
        deviations behind it.
    """
    n, price, pull = len(estimate), SIGNIFICANT**2, root @ estimate
    sets, best = [()], [()]
    lowest = float(pull @ pull)

    def constrained(kept: tuple[int, ...]) -> Float[np.ndarray, " kept"]:
        return np.linalg.lstsq(root[:, list(kept)], pull)[0]

    def rise(kept: tuple[int, ...]) -> float:
        left = pull - root[:, list(kept)] @ constrained(kept)
        return float(left @ left)

    for size in range(1, n + 1):
        if price * size >= lowest:  # no larger set is better
            break
        longer = {tuple(sorted((*s, i))) for s in sets for i in range(n) if i not in s}
        rises = {s: rise(s) for s in sorted(longer)}
        sets = sorted(rises, key=rises.__getitem__)[:_BEAM]
        least = rises[sets[0]]
        if least + price * size < lowest:
            lowest = least + price * size
            best = [s for s in sets if rises[s] < least + price]
    choices = np.zeros((len(best), n))
    for row, kept in zip(choices, best, strict=True):
        if kept:
            row[list(kept)] = constrained(kept)
    return choices


def exponents_up_to(degree: int, num_inputs: int) -> Int[np.ndarray, "terms inputs"]:
    """The exponents of all monomials up to a degree, lowest first."""
    rows = itertools.product(range(degree + 1), repeat=num_inputs)
    return np.array(sorted((r for r in rows if sum(r) <= degree), key=lambda r: (sum(r), r[::-1])))


def sparse(
    library: Float[np.ndarray, "n terms"], values: Float[np.ndarray, " n"], threshold: float
) -> Float[np.ndarray, " terms"]:
    """Coefficients by sequentially thresholded least squares, columns scaled to equal size."""
    sizes = np.sqrt(np.mean(library**2, axis=0))
    bound = threshold * np.sqrt(np.mean(values**2))
    kept, coefficients = np.ones(len(sizes), bool), np.zeros(len(sizes))
    while kept.any():
        coefficients[:] = 0.0
        coefficients[kept] = np.linalg.lstsq(library[:, kept] / sizes[kept], values)[0]
        small = kept & (np.abs(coefficients) < bound)
        if not small.any():
            break
        kept &= ~small
    return np.where(kept, coefficients / sizes, 0.0)


class Scaled(eqx.Module):
    """Features in units of their own sizes."""

    features: Callable
    sizes: tuple[float, ...] = eqx.field(static=True)

    def __call__(self, y: Float[Array, " inputs"]) -> Float[Array, " terms"]:
        return self.features(y) / jnp.array(self.sizes)

"""Which directions of a readout take part in a fit: combinations of its features, few or many."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physml.reference import runge_kutta
from physml.surrogate._design import Design
from physml.surrogate._stepper import Stepper


class Rows(NamedTuple):
    """What the filter goes along: rows of every trajectory, their start times and step counts."""

    ys: Float[Array, "num time dim"]
    t0s: Float[Array, " num"]
    counts: Float[Array, " steps"]


class Basis(eqx.Module):
    """The directions of the readout that the data determine: increments are B(y) theta.

    Attributes:
        stepper: its network's features are combined.
        mixes: for each parity, the combinations of features (features and 1, directions).
        sides: for each parity, where these may point to (dim, rank).
    """

    stepper: Stepper
    mixes: tuple[Float[Array, "columns _"], ...]
    sides: tuple[Float[Array, "dim _"], ...]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        pairs = zip(self.mixes, self.sides, strict=True)
        return [(mix.shape[1], side.shape[1]) for mix, side in pairs]

    @property
    def size(self) -> int:
        return sum(m * n for m, n in self.shapes)

    def kept(self, fewer: "Basis") -> np.ndarray:
        """Which of the unknowns another basis of fewer directions has too."""
        pairs = zip(self.shapes, fewer.shapes, strict=True)
        return np.concatenate([np.arange(m * n) < k * n for (m, n), (k, _) in pairs])

    def rows(self, y: Array, t0: Array, count: Array) -> Float[Array, "dim unknowns"]:
        """B(y), whose columns are directions of theta."""
        blocks = []
        for parity, mix, side in zip((1.0, -1.0), self.mixes, self.sides, strict=False):
            design = Design(self.stepper, jnp.asarray(parity, y.dtype))
            (features,) = design((y[None], t0[None], count[None]))
            blocks.append(jnp.kron((features @ mix)[None], side))
        return jnp.concatenate(blocks, axis=1)

    def increment(self, theta: Array, y: Array, t0: Array, count: Array) -> Float[Array, " dim"]:
        known, dt = self.stepper.known, self.stepper.dt
        learned = self.rows(y, t0, count) @ theta
        if known is None:
            return learned
        return learned + runge_kutta(known, t0 + count.astype(y.dtype) * dt, y, dt)

    def weights(self, theta: np.ndarray) -> np.ndarray:
        """The readout's matrix and bias (features + 1, dim), in units of the increments."""
        weights, start = 0.0, 0
        for mix, side, shape in zip(self.mixes, self.sides, self.shapes, strict=True):
            block = theta[start : start + shape[0] * shape[1]].reshape(shape)
            weights = weights + np.asarray(mix) @ block @ np.asarray(side).T
            start += block.size
        return np.asarray(weights)


def directions_of(
    stepper: Stepper, rows: Rows, path: Array
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each parity: singular values of the features, combinations of these, and sides."""
    dim, dtype = path.shape[2], path.dtype
    num, steps = path.shape[0], len(rows.counts)
    stride = max(1, num * steps // 20_000)
    ys = path[:, :-1].reshape(-1, dim)[::stride]
    t0s, counts = jnp.repeat(rows.t0s, steps)[::stride], jnp.tile(rows.counts, num)[::stride]
    scale, one = np.asarray(stepper.scale), np.eye(dim)
    S = None if stepper.symmetry is None else np.asarray(stepper.symmetry, float)
    parts = []
    for parity in (1.0,) if S is None else (1.0, -1.0):
        design = np.asarray(_design(stepper, jnp.asarray(parity, dtype), ys, t0s, counts))
        norms = np.linalg.norm(design, axis=0)
        norms = np.where(norms > 0, norms, 1.0)
        _, values, vt = np.linalg.svd(np.linalg.qr(design / norms, mode="r"))
        # Each combination of the features has unit mean square over the rows.
        mixes = vt.T / norms[:, None] / np.where(values > 0, values, 1.0) * len(design) ** 0.5
        side = one if S is None else 0.5 * (one + parity * S)
        u, s, _ = np.linalg.svd(side * scale[None, :] / scale[:, None])
        parts.append((values, mixes, scale[:, None] * u[:, s > 1e-6]))
    return parts


def basis_above(
    stepper: Stepper, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], cutoff: float
) -> Basis:
    """The directions whose singular values exceed a share of the largest."""
    largest = max(values[0] for values, _, _ in parts)
    kept = [max(1, int((values > cutoff * largest).sum())) for values, _, _ in parts]
    dtype = stepper.scale.dtype
    mixes = [jnp.asarray(mix[:, :k], dtype) for (_, mix, _), k in zip(parts, kept, strict=True)]
    return Basis(stepper, tuple(mixes), tuple(jnp.asarray(part[2], dtype) for part in parts))


@eqx.filter_jit
def _design(stepper: Stepper, parity: Array, ys: Array, t0s: Array, counts: Array) -> Array:
    return Design(stepper, parity)((ys, t0s, counts))

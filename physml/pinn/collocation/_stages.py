r"""Linear systems of many stages that share one Jacobian, by the small matrix that couples them.

With one Jacobian J for a whole window, the equations of its stages (coefficients or Gauss points)
are $X - h\, J X M^T = B$ with a small matrix M. Its real Schur form uncouples them: each conjugate
pair of eigenvalues leaves one complex system $(1 - h \mu J)\, z = r$ of the size of J, and the
stages follow one pair after the other.

The eigenvectors of an integration matrix are parallel to within rounding (those of 30 Gauss points
have a condition number of 1e16), so that a diagonal form, as RADAU5 uses it for its three stages,
would lose everything.

Source: E. Hairer, G. Wanner, Solving Ordinary Differential Equations II (1996), section IV.8.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, DTypeLike, Float

from physml._numerics.compiled import constant
from physml._numerics.quadrature import gauss
from physml.pinn.collocation import _jacobian
from physml.pinn.collocation._jacobian import BlockFactors, Blocks, DenseFactors


class Stages(NamedTuple):
    r"""The matrix M in a basis in which it is block triangular, one block for a pair of rows.

    A block on the diagonal is $(\alpha, -\omega; \omega, \alpha)$, which acts on a pair of real
    numbers as $\mu = \alpha + i \omega$ on a complex one. A real eigenvalue has a pair of its own,
    whose second number is not used.
    """

    forward: Float[Array, "rows stages"]
    back: Float[Array, "stages rows"]
    coupling: Float[Array, "pairs 2 rows"]  # M above its diagonal blocks
    eigenvalues: Complex[Array, " pairs"]


def stages(matrix: Float[np.ndarray, "stages stages"], dtype: DTypeLike) -> Stages:
    """The block triangular form of a small matrix, computed on the host in float64."""
    from scipy.linalg import schur  # here, because it takes time to load and few problems need it

    triangle, vectors, *_ = schur(matrix, output="real")
    size = len(matrix)
    columns, scales, eigenvalues, first = [], [], [], 0
    while first < size:
        if first + 1 < size and triangle[first + 1, first] != 0:
            above, below = triangle[first, first + 1], triangle[first + 1, first]
            scale = np.sqrt(-below / above)  # makes the two numbers off the diagonal opposite
            columns += [vectors[:, first], vectors[:, first + 1]]
            scales += [1.0, scale]
            eigenvalues.append(complex(triangle[first, first], -above * scale))
            first += 2
        else:
            columns += [vectors[:, first], np.zeros(size)]
            scales += [1.0, 1.0]
            eigenvalues.append(complex(triangle[first, first]))
            first += 1
    basis, scales = np.stack(columns, axis=1), np.array(scales)
    forward, back = basis.T / scales[:, None], basis * scales
    coupling, rows = forward @ matrix @ back, np.arange(len(scales)) // 2
    coupling = np.where(rows[:, None] < rows[None], coupling, 0.0)
    return Stages(
        constant(forward, dtype),
        constant(back, dtype),
        constant(coupling.reshape(-1, 2, len(scales)), dtype),
        constant(np.array(eigenvalues), np.result_type(dtype, np.complex64)),
    )


@functools.cache
def gauss_stages(num_points: int, dtype: DTypeLike) -> Stages:
    """The stages of collocation at Gauss points."""
    return stages(gauss(num_points).integrals[:-1].astype(float), dtype)


def factorise(
    stages: Stages, jacobian: Array | Blocks, h: Float[Array, ""]
) -> DenseFactors | BlockFactors:
    """One factorisation for each pair of stages."""
    return _jacobian.factorise(jacobian, h.astype(stages.eigenvalues.dtype) * stages.eigenvalues)


def solve_stages(
    stages: Stages, factors: DenseFactors | BlockFactors, known: Float[Array, "dim stages"]
) -> Float[Array, "dim stages"]:
    r"""X with $X - h\, J X M^T = B$."""
    pairs = (known @ stages.forward.T).T.reshape(-1, 2, len(known))
    arrays, solve_one = _jacobian.solver(factors)

    def advance(changes: Array, pair: tuple) -> tuple[Array, Array]:
        """Returns h J X as far as it is known, and one more row of X."""
        index, known, coupling, eigenvalue, arrays = pair
        real, imaginary = known + coupling @ changes
        known = jax.lax.complex(real, imaginary)
        solution = solve_one(arrays, known)
        change = (solution - known) / eigenvalue  # h J times the solution, without J
        rows = jnp.stack([change.real, change.imag])
        return jax.lax.dynamic_update_slice(changes, rows, (2 * index, 0)), solution

    indices = jnp.arange(len(pairs))
    steps = indices, pairs, stages.coupling, stages.eigenvalues, arrays
    changes = jnp.zeros((2 * len(pairs), len(known)), known.dtype)
    _, rows = jax.lax.scan(advance, changes, steps, reverse=True)
    rows = jnp.stack([rows.real, rows.imag], axis=1).reshape(2 * len(pairs), -1)
    return rows.T @ stages.back.T

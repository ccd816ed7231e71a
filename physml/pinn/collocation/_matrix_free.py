"""The linearised equation of a window for many components, without a matrix of all its points."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from physml._numerics.units import max_of, powers_of_two
from physml.pinn.collocation import _stages
from physml.pinn.collocation._iteration import accelerate
from physml.pinn.collocation._jacobian import Band, Blocks, jacobian_of
from physml.pinn.collocation._linearised import Nodes, VectorField

FEW_COMPONENTS = 12
"""Up to so many components, a matrix of all points is three times faster than iterations."""


class MatrixFree(NamedTuple):
    """`Linearised` for many components: the Jacobians are applied, and one alone is formed.

    Attributes:
        half, integrals, rates, size: as for `Linearised`.
        terms: as for `Linearised`, but added up with random signs.
        tangent: maps c at the Gauss points to $f_y(t_j, u_j)\\, c_j$.
        jacobian_at: maps the index of a Gauss point, and the components' units, to the Jacobian.
    """

    half: Float[Array, ""]
    integrals: Float[Array, "nodes points"]
    rates: Float[Array, "dim points"]
    size: Float[Array, " dim"]
    terms: Float[Array, " dim"]
    tangent: Callable[[Float[Array, "dim points"]], Float[Array, "dim points"]]
    jacobian_at: Callable[[Int[ArrayLike, ""], Float[Array, " dim"]], Array | Blocks]

    @property
    def units(self) -> Float[Array, " dim"]:
        """Powers of two near the size of each component."""
        return powers_of_two(self.size, 2 * self.half * self.terms)

    def change(
        self, c: Float[Array, "dim points"], integrals: Float[Array, "rows points"]
    ) -> Float[Array, "dim rows"]:
        """The sum on the right, for some rows of W."""
        return self.half * self.tangent(c) @ integrals.T

    def solve(self, known: Float[Array, "dim nodes"]) -> Float[Array, "dim nodes"]:
        """c at the Gauss points and at the end, by iterations.

        They are preconditioned by the equation with the Jacobian in the middle at all points. Where
        they do not converge, c is not finite.
        """
        num_points, inside = self.integrals.shape[1], known[:, :-1]
        units = self.units
        stages = _stages.gauss_stages(num_points, known.dtype)
        jacobian = self.jacobian_at(num_points // 2, units)
        factors = _stages.factorise(stages, jacobian, self.half)

        def step(c: Array) -> tuple[Array, Array]:
            missing = c - inside - self.change(c, self.integrals[:-1])
            step = _stages.solve_stages(stages, factors, missing / units[:, None])
            return c - units[:, None] * step, max_of(jnp.abs(step))

        root = jnp.sqrt(jnp.finfo(known.dtype).eps)
        largest = max_of(jnp.abs(known) / units[:, None])
        enough = root * largest  # the next pass sees what this leaves
        c, last, _ = accelerate(step, inside, 1 / units, enough=enough, limit=largest / root)
        c = jnp.where(last <= enough, c, jnp.inf)
        at_end = known[:, -1:] + self.change(c, self.integrals[-1:])
        return jnp.concatenate([c, at_end], axis=1)


def apply_linearised(
    field: VectorField, nodes: Nodes, values: Float[Array, "dim all_nodes"], band: Band | None
) -> MatrixFree:
    """The equation linearised about values at the start, the Gauss points and the end."""
    u, size = values[:, 1:-1], max_of(jnp.abs(values), axis=1)
    rates, tangent = jax.linearize(lambda u: field(nodes.times, u), u)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], u.shape)
    terms = max_of(jnp.abs(tangent(size[:, None] * jnp.asarray(signs, u.dtype))), axis=1)

    def jacobian_at(index: Int[ArrayLike, ""], units: Float[Array, " dim"]) -> Array | Blocks:
        _, tangent = jax.linearize(lambda u: field(nodes.times[index], u), u[:, index])
        return jacobian_of(tangent, units, band)

    return MatrixFree(nodes.half, nodes.integrals, rates, size, terms, tangent, jacobian_at)

"""The solution of a partial differential equation, as a function of space and time."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from physml._numerics.quadrature import piece_at
from physml.pinn.space_time._elements import Basis
from physml.pinn.space_time._jets import PointResidual
from physml.pinn.space_time._pointwise import Pointwise
from physml.results import RESULTS


class PDESolution(Pointwise):
    """What `pinn.pde` returns: networks side by side in space and one after another in time.

    `solution(x, t)` is u at points whose coordinates, in the domain's order, are arrays that
    broadcast to one shape. `solution.field` is u as a function of scalar coordinates that JAX can
    differentiate, as residuals get it.

    The estimate of the error is one number for each element of a window, the sum of three parts:
    truncation, which is the change of u that would remove the residual between the points of the
    fit; the errors of the windows before, carried along by the linearised equation, where each
    window adds its own truncation with random signs; and rounding.

    Attributes:
        coordinates: the names of the coordinates, a letter each.
        domain: the interval of each coordinate; that of t ends at the time that was reached.
        result: how the solve ended, one of `RESULTS`.
        stats: what the solver counted.
    """

    coordinates: str = eqx.field(static=True)
    equation: PointResidual = eqx.field(static=True)
    components: int | None = eqx.field(static=True)
    axis: int = eqx.field(static=True)  # the coordinate that is cut into elements
    bases: tuple[Basis, ...]  # of each coordinate
    domain: Float[Array, "dim 2"]
    starts: Float[Array, " windows"]  # in t, or one window
    spans: Float[Array, " windows"]
    edges: Float[Array, "windows edges"]  # of the elements; those missing are infinite
    readouts: Float[Array, "windows elements across along components"]  # in the bases
    errors: Float[Array, "windows elements components"]  # of u, estimated
    result: RESULTS
    stats: dict[str, PyTree]

    def _piece(self, point: tuple[Array, ...]) -> tuple[Array, Array, Array, Array]:
        """The window and the element of a point, and their lows and spans in all coordinates."""
        low, span = self.domain[:, 0], self.domain[:, 1] - self.domain[:, 0]
        window = jnp.asarray(0)
        if "t" in self.coordinates:
            index = self.coordinates.index("t")
            window = piece_at(self.starts, point[index])
            low = low.at[index].set(self.starts[window])
            span = span.at[index].set(self.spans[window])
        edges = self.edges[window]
        # No element starts at the last edge, nor at the infinite ones that fill the buffer.
        inner = jnp.where(jnp.isfinite(jnp.roll(edges, -1)), edges, jnp.inf).at[-1].set(jnp.inf)
        element = piece_at(inner, point[self.axis])
        low = low.at[self.axis].set(edges[element])
        span = span.at[self.axis].set(edges[element + 1] - edges[element])
        return window, element, low, span

    def _evaluate(self, *point: Array) -> Array:
        window, element, low, span = self._piece(point)
        across = jnp.ones((1,), self.readouts.dtype)
        along = across
        for i, (basis, coordinate) in enumerate(zip(self.bases, point, strict=True)):
            functions = basis(2 * (coordinate - low[i]) / span[i] - 1)
            if i == self.axis:
                along = functions
            else:
                across = jnp.kron(across, functions)
        with jax.default_matmul_precision("highest"):
            u = along @ jnp.tensordot(across, self.readouts[window, element], 1)
        return u[0] if self.components is None else u

    def _error(self, point: Float[Array, " dim"]) -> Array:
        window, element, *_ = self._piece(tuple(point))
        error = self.errors[window, element]
        return error[0] if self.components is None else error

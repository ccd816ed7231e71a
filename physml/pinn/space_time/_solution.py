"""The solution of a partial differential equation, as a function of space and time."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import checked, numbers_in, summary
from physml._numerics.checks import is_concrete, require_installed
from physml._numerics.quadrature import piece_at
from physml._types import Numbers
from physml.pinn.space_time._elements import Basis
from physml.pinn.space_time._jets import Field, PointResidual, stacked
from physml.results import RESULTS

_BATCH = 4096  # points evaluated together; each gathers the readout of its element


class PDESolution(eqx.Module):
    """What `pinn.pde` returns: networks side by side in space and one after another in time.

    `solution(x, t)` is u at points whose coordinates, in the domain's order, are arrays that
    broadcast to one shape. `solution.field` is u as a function of scalar coordinates that JAX can
    differentiate, as residuals get it.

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

    def __repr__(self) -> str:
        if not (isinstance(self.domain, jax.Array) and is_concrete(self.domain)):
            return super().__repr__()
        intervals = (", ".join(f"{x:.6g}" for x in np.asarray(i)) for i in self.domain)
        facts = {
            **{f"{c} in": f"[{i}]" for c, i in zip(self.coordinates, intervals, strict=True)},
            **numbers_in(self.stats),
            "result": RESULTS[self.result],
        }
        return summary(f"PDESolution with {self.components or 1} components", facts)

    @property
    def field(self) -> Field:
        """u as a function of scalar coordinates: `field(x, t)`, `field.xx(x, t)`."""
        return Field(self.coordinates, self._evaluate)

    @checked
    def __call__(self, *point: Numbers) -> Float[Array, "*shape"]:
        """u at points: of the coordinates' shape, and a last axis for several components.

        Raises:
            ValueError: a point lies outside the domain, or a coordinate is missing.
        """
        return self.derivative("", *point)

    @checked
    def derivative(self, letters: str, *point: Numbers) -> Float[Array, "*shape"]:
        """A partial derivative of u, such as "xx": shapes and errors as for `solution(x, t)`."""
        return self._map(Partial(_derivative, letters), point)

    @checked
    def residual(self, *point: Numbers) -> Float[Array, "*shape rows"]:
        """The equation's residual, its rows along the last axis: errors as for `solution(x, t)`."""
        return self._map(Partial(_residual), point)

    def error_estimate(self, *point: Numbers) -> Float[Array, "*shape"]:
        """The absolute error of u, as estimated: shapes and errors as for `solution(x, t)`.

        It is one number for each element of a window, the sum of three parts: truncation, which is
        the change of u that would remove the residual between the points of the fit; the errors of
        the windows before, carried along by the linearised equation, where each window adds its own
        truncation with random signs; and rounding.
        """
        return self._map(Partial(_error), point)

    @checked
    def to_xarray(self, **coordinates: Numbers) -> Any:
        """u and its estimated error on a grid, as the variables of a data set of xarray.

        For example `solution.to_xarray(x=np.linspace(0, 1, 101), t=[0.0, 0.5]).u.plot()`.

        Args:
            coordinates: for each coordinate its values on the grid, of shape (k,).

        Returns:
            A data set with "u" and "u_error", which have an axis for each coordinate, in the
            domain's order, and a last one named "component" if there are several.

        Raises:
            ValueError: a coordinate is missing, or a value lies outside the domain.
            ImportError: xarray is not installed (`pip install "physml[frames]"`).
        """
        if {*coordinates} != {*self.coordinates}:
            raise ValueError(
                f"coordinates must be {', '.join(self.coordinates)}, got {', '.join(coordinates)}"
            )
        axes = {name: np.atleast_1d(coordinates[name]) for name in self.coordinates}
        points = np.meshgrid(*axes.values(), indexing="ij")
        dims = [*axes, *([] if self.components is None else ["component"])]
        found = {"u": self(*points), "u_error": self.error_estimate(*points)}
        return require_installed("xarray", "frames").Dataset(
            {name: (dims, np.asarray(values)) for name, values in found.items()},
            coords=axes,
            attrs={"result": RESULTS[self.result]},
        )

    def _map(self, function: Partial, point: tuple) -> Array:
        if len(point) != len(self.coordinates):
            raise ValueError(
                f"a point must have the coordinates {', '.join(self.coordinates)}, got {len(point)}"
            )
        dtype = self.readouts.dtype
        columns = jnp.broadcast_arrays(*(jnp.asarray(x, dtype) for x in point))
        if all(map(is_concrete, columns)):
            for name, x, (low, high) in zip(
                self.coordinates, columns, np.asarray(self.domain), strict=True
            ):
                if not np.all((np.asarray(x) >= low) & (np.asarray(x) <= high)):
                    raise ValueError(
                        f"{name} must lie in [{low}, {high}], where u is known, got {x}"
                    )
        points = jnp.stack([x.ravel() for x in columns], axis=-1)
        values = _evaluate_all(self, function, points)
        return values.reshape(*columns[0].shape, *values.shape[1:])

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


def _derivative(letters: str, solution: PDESolution, point: Float[Array, " dim"]) -> Array:
    """A partial derivative of u; u itself without letters."""
    return getattr(solution.field, letters)(*point)


def _error(solution: PDESolution, point: Float[Array, " dim"]) -> Array:
    """The error estimated for the piece of a point."""
    window, element, *_ = solution._piece(tuple(point))
    error = solution.errors[window, element]
    return error[0] if solution.components is None else error


def _residual(solution: PDESolution, point: Float[Array, " dim"]) -> Array:
    """The equation's residual."""
    return stacked(solution.equation(solution.field, *point))


@eqx.filter_jit
def _evaluate_all(
    solution: PDESolution, function: Partial, points: Float[Array, "points dim"]
) -> Float[Array, "points *shape"]:
    return jax.lax.map(lambda point: function(solution, point), points, batch_size=_BATCH)

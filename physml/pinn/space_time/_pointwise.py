"""A function of named coordinates on a box: u, its derivatives and its error at any points."""

import abc
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import checked, numbers_in, summary
from physml._numerics.checks import is_concrete, require_installed
from physml._numerics.compiled import watched
from physml._types import Numbers
from physml.pinn.space_time._jets import Field, PointResidual, stacked
from physml.results import RESULTS

if TYPE_CHECKING:
    # A type checker would take an AbstractVar for the first argument of every constructor.
    from typing import ClassVar as Fact
else:
    from equinox import AbstractVar as Fact

_BATCH = 4096  # points evaluated together; each gathers the readout of its element


class Pointwise(eqx.Module):
    """u(x, t) or u(x, y, t), known in a box: what the solutions of partial equations share."""

    coordinates: Fact[str]
    equation: Fact[PointResidual]
    components: Fact[int | None]
    domain: Fact[Float[Array, "dim 2"]]
    result: Fact[RESULTS]
    stats: Fact[dict[str, PyTree]]

    def __repr__(self) -> str:
        if not (isinstance(self.domain, jax.Array) and is_concrete(self.domain)):
            return super().__repr__()
        intervals = (", ".join(f"{x:.6g}" for x in np.asarray(i)) for i in self.domain)
        facts = {
            **{f"{c} in": f"[{i}]" for c, i in zip(self.coordinates, intervals, strict=True)},
            **numbers_in(self.stats),
            "result": RESULTS[self.result],
        }
        return summary(f"{type(self).__name__} with {self.components or 1} components", facts)

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
        """The absolute error of u, as estimated: shapes and errors as for `solution(x, t)`."""
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
        dtype = self.domain.dtype
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

    @abc.abstractmethod
    def _evaluate(self, *point: Array) -> Array:
        """u at a point."""

    @abc.abstractmethod
    def _error(self, point: Float[Array, " dim"]) -> Array:
        """The error estimated at a point."""


def _derivative(letters: str, solution: Pointwise, point: Float[Array, " dim"]) -> Array:
    """A partial derivative of u; u itself without letters."""
    return getattr(solution.field, letters)(*point)


def _error(solution: Pointwise, point: Float[Array, " dim"]) -> Array:
    """The error estimated at a point."""
    return solution._error(point)


def _residual(solution: Pointwise, point: Float[Array, " dim"]) -> Array:
    """The equation's residual."""
    return stacked(solution.equation(solution.field, *point))


@watched
@eqx.filter_jit
def _evaluate_all(
    solution: Pointwise, function: Partial, points: Float[Array, "points dim"]
) -> Float[Array, "points *shape"]:
    return jax.lax.map(lambda point: function(solution, point), points, batch_size=_BATCH)

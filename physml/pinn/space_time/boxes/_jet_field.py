"""A function known by its derivatives at one point, in few operations."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from physml.pinn.space_time._jets import Derivative, Field


class JetField(Field):
    """What `taylor` makes, for residuals that are compiled in double-double.

    There every operation becomes some twenty, and those of a polynomial are many: here a
    derivative that a residual asks for by its name is looked up. What JAX differentiates itself
    is found in the same table.
    """

    def __init__(
        self,
        coordinates: str,
        derivatives: tuple[Derivative, ...],
        jet: Float[Array, "derivatives *components"],
        of: Derivative | None = None,
    ):
        of = (0,) * len(coordinates) if of is None else of

        def function(*at: ArrayLike) -> Array:
            return _entry(derivatives, of, jet, [jnp.asarray(x, jet.dtype) for x in at])

        super().__init__(coordinates, function)
        self._table = derivatives, jet, of

    def __getattr__(self, letters: str) -> "JetField":
        super().__getattr__(letters)  # refuses what is no derivative
        derivatives, jet, of = self._table
        counts = (letters.count(c) for c in self._coordinates)
        raised = tuple(n + more for n, more in zip(of, counts, strict=True))
        return JetField(self._coordinates, derivatives, jet, raised)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _entry(
    derivatives: tuple[Derivative, ...], of: Derivative, jet: Array, point: list[Array]
) -> Array:
    """A derivative at the point: zero if it is not known."""
    return jet[derivatives.index(of)] if of in derivatives else jnp.zeros_like(jet[0])


@_entry.defjvp
def _entry_jvp(
    derivatives: tuple[Derivative, ...], of: Derivative, primals: tuple, tangents: tuple
) -> tuple[Array, Array]:
    (jet, point), (jet_change, moves) = primals, tangents
    change = _entry(derivatives, of, jet_change, point)
    if sum(of) < max(map(sum, derivatives)):
        for i, move in enumerate(moves):
            raised = tuple(n + (j == i) for j, n in enumerate(of))
            change = change + move * _entry(derivatives, raised, jet, point)
    return _entry(derivatives, of, jet, point), change

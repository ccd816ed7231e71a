"""The types that the whole package speaks: residuals and losses."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, PRNGKeyArray, PyTree, Scalar

Residual = Callable[[Any, Any, PRNGKeyArray | None], PyTree[Array]]
"""`residual(model, batch, key) -> blocks`: arrays that are zero where the model is right."""

Loss = Callable[[Any, Any, PRNGKeyArray | None], tuple[Scalar, dict[str, Array]]]
"""`loss(model, batch, key) -> (value, aux)`: what has no residual (a classifier, a game)."""

"""A noise as users say it: a model, a model for each column, or standard deviations."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from physml._numerics import checks
from physml._numerics.calls import retraced
from physml._numerics.compiled import watched
from physml._numerics.parts import as_pytree
from physml._types import Numbers
from physml.noises import Noise, NormalNoise

AnyNoise = Noise | Sequence[Noise] | Numbers | Callable[[Array], Array] | None
"""A noise for all columns, one for each, or the standard deviation of normal noise: a number, one
for each column or for each observation, or a function of the observed values, (n, obs) to
(n, obs)."""

_LEAST_SHARE = 1e-3  # of its usual size that a noise has which is a function of the value


def is_record(noise: Any) -> bool:
    """Whether a noise is one of `physml.noises`, or a sequence of such."""
    if isinstance(noise, Noise):
        return True
    several = isinstance(noise, list | tuple) and len(noise) > 0
    return several and all(isinstance(x, Noise) for x in noise)


def noise_parts(
    name: str, noise: AnyNoise, ys: Float[Array, "rows obs"], seen: Bool[np.ndarray, "rows obs"]
) -> list[tuple[Noise, Any, list[int]]]:
    """A noise taken apart: (record, scale, columns), the scale None where it is estimated.

    A known scale is an array (rows, obs) or a function of the values.

    Raises:
        TypeError, ValueError: it is none of these, has another shape than the observations, is not
            positive, or cannot have given them.
    """
    columns, given = list(range(ys.shape[1])), jnp.where(seen, ys, jnp.nan)
    if not is_record(noise):
        return [(NormalNoise(), _deviation(name, noise, ys, seen), columns)]
    records: Any = [noise] * len(columns) if isinstance(noise, Noise) else noise
    if len(records) != len(columns):
        raise ValueError(f"{name} must be one, or one for each of {len(columns)} columns")
    for i, record in enumerate(records):
        record.check(given[:, i : i + 1])
    if isinstance(noise, Noise):
        return [(noise, _broadcast(name, noise.scale, ys, seen), columns)]
    return [
        (x, _broadcast(name, x.scale, ys[:, i : i + 1], seen[:, i : i + 1]), [i])
        for i, x in enumerate(records)
    ]


def _deviation(
    name: str, noise: Any, ys: Float[Array, "rows obs"], seen: Bool[np.ndarray, "rows obs"]
) -> Any:
    """A standard deviation as an array of the shape of ys, as a function, or None."""
    if not callable(noise):
        return _broadcast(name, noise, ys, seen)
    model, name = as_pytree(noise), f"{name} at the observations"
    counts = np.maximum(seen.sum(axis=0), 1).astype(float)
    typical = jnp.where(seen, ys, 0.0).sum(axis=0) / counts
    given = jnp.where(seen, ys, typical[None])
    model = retraced(model, given)
    found = _noise_at(model, given)
    if found.shape != ys.shape:
        raise ValueError(f"{name} must have their shape {ys.shape}, got {found.shape}")
    found = checks.floating_array(name, found, jnp.float64)
    checks.require_finite(name, found)
    return _AtLeast(model, _LEAST_SHARE * jnp.sqrt(jnp.mean(found**2, axis=0)))


def _broadcast(
    name: str, scale: Any, ys: Float[Array, "rows obs"], seen: Bool[np.ndarray, "rows obs"]
) -> Array | None:
    """A scale of all columns, of each, or of each observation, in the shape of ys."""
    if scale is None:
        return None
    scale = checks.floating_array(name, scale, jnp.float64)
    if scale.shape not in ((), ys.shape[1:], ys.shape):
        raise ValueError(
            f"{name} must be a number, {ys.shape[1]}, or an array of the shape of ys, {ys.shape}, "
            f"got shape {scale.shape}"
        )
    if scale.shape == ys.shape:  # what was not seen needs none
        scale = jnp.where(seen, scale, 1.0)
    checks.require_finite(name, scale)
    checks.require_positive(**{name: scale})
    return jnp.broadcast_to(jnp.atleast_2d(scale), ys.shape)


class _AtLeast(eqx.Module):
    """A noise as a function of the value, which is not far below its usual size anywhere."""

    model: Callable
    least: Float[Array, " obs"]

    def __call__(self, values: Float[Array, "n obs"]) -> Float[Array, "n obs"]:
        return jnp.maximum(self.model(values), self.least[None])


@watched
@eqx.filter_jit
def _noise_at(model: Callable, ys: Array) -> Array:
    return model(ys)

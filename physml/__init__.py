"""Physics-informed machine learning for ordinary differential equations, in JAX and Flax."""

from physml import (
    data,
    dynamics,
    fit,
    nn,
    pinn,
    reference,
    residuals,
    solution,
    surrogate,
    systems,
)

__all__ = [
    "data",
    "dynamics",
    "fit",
    "nn",
    "pinn",
    "reference",
    "residuals",
    "solution",
    "surrogate",
    "systems",
]

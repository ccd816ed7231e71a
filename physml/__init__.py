"""Physics-informed machine learning for ordinary differential equations, in JAX and Flax."""

from physml import (
    classify,
    convolution,
    data,
    dynamics,
    fit,
    neuron,
    nn,
    pinn,
    reference,
    residuals,
    results,
    solution,
    step_maps,
    surrogate,
    systems,
)

__all__ = [
    "classify",
    "convolution",
    "data",
    "dynamics",
    "fit",
    "neuron",
    "nn",
    "pinn",
    "reference",
    "residuals",
    "results",
    "solution",
    "step_maps",
    "surrogate",
    "systems",
]

"""Equations solved by neural networks."""

from physml.pinn.collocation import CorrectedNetworks, WindowNetworks
from physml.pinn.family import Bundle, bundle
from physml.pinn.inverse import Discovery, Identified, Profile, discover, identify, profile
from physml.pinn.ivp import solve
from physml.pinn.space_time import PDESolution, pde
from physml.pinn.training import (
    Even,
    Fixed,
    GradientNorm,
    Points,
    RandomLookback,
    Resampled,
    Scales,
    TrainedNetwork,
    Training,
    Weights,
    find_scales,
    train,
)

__all__ = [
    "Bundle",
    "CorrectedNetworks",
    "Discovery",
    "Even",
    "Fixed",
    "GradientNorm",
    "Identified",
    "PDESolution",
    "Points",
    "Profile",
    "RandomLookback",
    "Resampled",
    "Scales",
    "TrainedNetwork",
    "Training",
    "Weights",
    "WindowNetworks",
    "bundle",
    "discover",
    "find_scales",
    "identify",
    "pde",
    "profile",
    "solve",
    "train",
]

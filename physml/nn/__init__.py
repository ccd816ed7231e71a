"""Architectures: networks that can be fitted, and nothing about how they are fitted."""

from physml._types import FeatureNetwork, RecurrentNetwork
from physml.nn._cnn import ARCHITECTURES, CNN, Dense, Dropout, Filters, Pool
from physml.nn._common import (
    ACTIVATIONS,
    Frozen,
    absolute_norm,
    fourier,
    hidden_kernels,
    set_evaluation,
    square_norm,
)
from physml.nn._conv import Conv, correlate, correlate_max, pool
from physml.nn._features import FourierFeatures
from physml.nn._mlp import MLP
from physml.nn._recurrent import RNN

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "CNN",
    "MLP",
    "RNN",
    "Conv",
    "Dense",
    "Dropout",
    "FeatureNetwork",
    "Filters",
    "FourierFeatures",
    "Frozen",
    "Pool",
    "RecurrentNetwork",
    "absolute_norm",
    "correlate",
    "correlate_max",
    "fourier",
    "hidden_kernels",
    "pool",
    "set_evaluation",
    "square_norm",
]

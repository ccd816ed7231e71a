"""Architectures: networks that can be fitted, and nothing about how they are fitted."""

from physml._types import FeatureNetwork, RecurrentNetwork
from physml.nn._activations import ACTIVATIONS, Activation, fourier
from physml.nn._cnn import CNN
from physml.nn._conv import Conv, correlate, correlate_max
from physml.nn._features import FourierFeatures
from physml.nn._frozen import Frozen
from physml.nn._layers import ARCHITECTURES, Dense, Dropout, Filters, Layer, Pool
from physml.nn._mlp import MLP
from physml.nn._pool import pool
from physml.nn._recurrent import RNN, Cell
from physml.nn._weights import (
    Regularised,
    absolute_norm,
    hidden_kernels,
    set_evaluation,
    square_norm,
)

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "CNN",
    "MLP",
    "RNN",
    "Activation",
    "Cell",
    "Conv",
    "Dense",
    "Dropout",
    "FeatureNetwork",
    "Filters",
    "FourierFeatures",
    "Frozen",
    "Layer",
    "Pool",
    "RecurrentNetwork",
    "Regularised",
    "absolute_norm",
    "correlate",
    "correlate_max",
    "fourier",
    "hidden_kernels",
    "pool",
    "set_evaluation",
    "square_norm",
]

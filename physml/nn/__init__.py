"""Architectures: networks that can be fitted, and nothing about how they are fitted."""

from physml.nn.common import ACTIVATIONS, Frozen, fourier, hidden_kernels
from physml.nn.features import FourierFeatures
from physml.nn.mlp import MLP
from physml.nn.recurrent import RNN

__all__ = ["ACTIVATIONS", "MLP", "RNN", "FourierFeatures", "Frozen", "fourier", "hidden_kernels"]

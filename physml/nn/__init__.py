"""Architectures: networks that can be fitted, and nothing about how they are fitted."""

from physml._types import FeatureNetwork as FeatureNetwork
from physml._types import RecurrentNetwork as RecurrentNetwork
from physml.nn._activations import ACTIVATIONS as ACTIVATIONS
from physml.nn._activations import Activation as Activation
from physml.nn._activations import fourier as fourier
from physml.nn._cnn import CNN as CNN
from physml.nn._conv import Conv as Conv
from physml.nn._conv import correlate as correlate
from physml.nn._conv import correlate_max as correlate_max
from physml.nn._features import FourierFeatures as FourierFeatures
from physml.nn._frozen import Frozen as Frozen
from physml.nn._layers import ARCHITECTURES as ARCHITECTURES
from physml.nn._layers import Dense as Dense
from physml.nn._layers import Dropout as Dropout
from physml.nn._layers import Filters as Filters
from physml.nn._layers import Layer as Layer
from physml.nn._layers import Pool as Pool
from physml.nn._mlp import MLP as MLP
from physml.nn._pool import pool as pool
from physml.nn._recurrent import RNN as RNN
from physml.nn._recurrent import Cell as Cell
from physml.nn._weights import Regularised as Regularised
from physml.nn._weights import absolute_norm as absolute_norm
from physml.nn._weights import hidden_kernels as hidden_kernels
from physml.nn._weights import set_evaluation as set_evaluation
from physml.nn._weights import square_norm as square_norm

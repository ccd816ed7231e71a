"""Beliefs: posteriors of an equation's unknowns, networks that say how far to trust them."""

from physml.bayes._comparison import Comparison as Comparison
from physml.bayes._comparison import LeaveOneOut as LeaveOneOut
from physml.bayes._comparison import compare as compare
from physml.bayes._comparison import leave_one_out as leave_one_out
from physml.bayes._diagnostics import Coverage as Coverage
from physml.bayes._diagnostics import coverage_of_draws as coverage_of_draws
from physml.bayes._diagnostics import coverage_of_normals as coverage_of_normals
from physml.bayes._diagnostics import effective_sample_size as effective_sample_size
from physml.bayes._diagnostics import split_rhat as split_rhat
from physml.bayes._networks import LinearBelief as LinearBelief
from physml.bayes._networks import NetworkBelief as NetworkBelief
from physml.bayes._networks import Prediction as Prediction
from physml.bayes._networks import SampledNetwork as SampledNetwork
from physml.bayes._networks import ensemble as ensemble
from physml.bayes._networks import laplace_network as laplace_network
from physml.bayes._networks import last_layer as last_layer
from physml.bayes._networks import linear as linear
from physml.bayes._networks import sample_network as sample_network
from physml.bayes._noise import LogNormalNoise as LogNormalNoise
from physml.bayes._noise import Noise as Noise
from physml.bayes._noise import NormalNoise as NormalNoise
from physml.bayes._noise import PoissonNoise as PoissonNoise
from physml.bayes._noise import StudentNoise as StudentNoise
from physml.bayes._posterior import Posterior as Posterior
from physml.bayes._posterior import posterior as posterior

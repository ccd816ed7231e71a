"""Beliefs: posteriors of an equation's unknowns, networks that know how far to trust themselves."""

from physml.bayes._diagnostics import Coverage as Coverage
from physml.bayes._diagnostics import coverage_of_draws as coverage_of_draws
from physml.bayes._diagnostics import coverage_of_normals as coverage_of_normals
from physml.bayes._diagnostics import effective_sample_size as effective_sample_size
from physml.bayes._diagnostics import split_rhat as split_rhat
from physml.bayes._noise import LogNormalNoise as LogNormalNoise
from physml.bayes._noise import Noise as Noise
from physml.bayes._noise import NormalNoise as NormalNoise
from physml.bayes._noise import PoissonNoise as PoissonNoise
from physml.bayes._noise import StudentNoise as StudentNoise
from physml.bayes._posterior import Posterior as Posterior
from physml.bayes._posterior import posterior as posterior

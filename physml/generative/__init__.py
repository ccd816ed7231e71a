"""Autoencoders: a few latent numbers for data of many, what they obey, and what does not fit."""

from physml.generative._anomaly import AnomalyScore as AnomalyScore
from physml.generative._codec import Codec as Codec
from physml.generative._codec import Network as Network
from physml.generative._codec import principal_components as principal_components
from physml.generative._dimension import Dimension as Dimension
from physml.generative._dimension import latent_dimension as latent_dimension
from physml.generative._dimension import latent_spectrum as latent_spectrum
from physml.generative._dynamic import LatentStepper as LatentStepper
from physml.generative._dynamic import encode_trajectories as encode_trajectories
from physml.generative._equations import LatentEquations as LatentEquations
from physml.generative._equations import Polynomials as Polynomials
from physml.generative._equations import discover_equations as discover_equations
from physml.generative._lift import legendre_lift as legendre_lift
from physml.generative._projection import ProjectionFit as ProjectionFit
from physml.generative._projection import fit_projection as fit_projection
from physml.generative._training import CodecFit as CodecFit
from physml.generative._training import fit_autoencoder as fit_autoencoder
from physml.generative._variational import evidence_bound as evidence_bound
from physml.generative._variational import interpolate as interpolate
from physml.generative._variational import sample as sample

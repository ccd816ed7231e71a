"""Equations solved by neural networks."""

from physml.pinn.collocation import CorrectedNetworks as CorrectedNetworks
from physml.pinn.collocation import WindowNetworks as WindowNetworks
from physml.pinn.family import Bundle as Bundle
from physml.pinn.family import bundle as bundle
from physml.pinn.inverse import Discovery as Discovery
from physml.pinn.inverse import Identified as Identified
from physml.pinn.inverse import Profile as Profile
from physml.pinn.inverse import discover as discover
from physml.pinn.inverse import identify as identify
from physml.pinn.inverse import profile as profile
from physml.pinn.ivp import solve as solve
from physml.pinn.space_time import PDESolution as PDESolution
from physml.pinn.space_time import pde as pde
from physml.pinn.training import Adversarial as Adversarial
from physml.pinn.training import Even as Even
from physml.pinn.training import Fixed as Fixed
from physml.pinn.training import GradientNorm as GradientNorm
from physml.pinn.training import Points as Points
from physml.pinn.training import RandomLookback as RandomLookback
from physml.pinn.training import Resampled as Resampled
from physml.pinn.training import Scales as Scales
from physml.pinn.training import TrainedNetwork as TrainedNetwork
from physml.pinn.training import Training as Training
from physml.pinn.training import Weights as Weights
from physml.pinn.training import find_scales as find_scales
from physml.pinn.training import train as train

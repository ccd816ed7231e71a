"""Equations solved by neural networks."""

from physml.pinn.bundle import bundle as bundle
from physml.pinn.dense import CorrectedNetworks as CorrectedNetworks
from physml.pinn.dense import WindowNetworks as WindowNetworks
from physml.pinn.discover import Discovery as Discovery
from physml.pinn.discover import discover as discover
from physml.pinn.family import Bundle as Bundle
from physml.pinn.identify import identify as identify
from physml.pinn.ivp import solve as solve
from physml.pinn.pde import pde as pde
from physml.pinn.sampling import Even as Even
from physml.pinn.sampling import Resampled as Resampled
from physml.pinn.scales import Scales as Scales
from physml.pinn.scales import find_scales as find_scales
from physml.pinn.space_time import PDESolution as PDESolution
from physml.pinn.train import TrainedNetwork as TrainedNetwork
from physml.pinn.train import Training as Training
from physml.pinn.train import train as train
from physml.pinn.uncertainty import VERDICTS as VERDICTS
from physml.pinn.uncertainty import Identified as Identified
from physml.pinn.uncertainty import Profile as Profile
from physml.pinn.uncertainty import profile as profile
from physml.pinn.weights import Fixed as Fixed
from physml.pinn.weights import GradientNorm as GradientNorm
from physml.pinn.weights import RandomLookback as RandomLookback

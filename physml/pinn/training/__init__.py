"""Classic training: a whole network made to fulfil an equation by descent on its residual."""

from physml.pinn.training._adversarial import Adversarial as Adversarial
from physml.pinn.training._network import TrainedNetwork as TrainedNetwork
from physml.pinn.training._points import Even as Even
from physml.pinn.training._points import Points as Points
from physml.pinn.training._points import Resampled as Resampled
from physml.pinn.training._scales import Scales as Scales
from physml.pinn.training._scales import find_scales as find_scales
from physml.pinn.training._train import Training as Training
from physml.pinn.training._train import train as train
from physml.pinn.training._weights import Fixed as Fixed
from physml.pinn.training._weights import GradientNorm as GradientNorm
from physml.pinn.training._weights import RandomLookback as RandomLookback
from physml.pinn.training._weights import Weights as Weights

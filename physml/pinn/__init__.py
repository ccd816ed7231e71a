"""Equations solved by neural networks."""

from physml.pinn.dense import CorrectedNetworks as CorrectedNetworks
from physml.pinn.dense import WindowNetworks as WindowNetworks
from physml.pinn.ivp import solve as solve
from physml.pinn.train import TrainedNetwork as TrainedNetwork
from physml.pinn.train import Training as Training
from physml.pinn.train import train as train

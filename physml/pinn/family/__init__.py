"""One network for the solutions from a whole box of starts and parameters."""

from physml.pinn.family._bundle import Bundle as Bundle
from physml.pinn.family._train import bundle as bundle

"""Parameters, starts and unknown terms of an equation from observations of its solution."""

from physml.pinn.inverse._discover import Discovery as Discovery
from physml.pinn.inverse._discover import discover as discover
from physml.pinn.inverse._experiments import Experiment as Experiment
from physml.pinn.inverse._experiments import (
    experiments_from_dataframe as experiments_from_dataframe,
)
from physml.pinn.inverse._identified import FittedExperiment as FittedExperiment
from physml.pinn.inverse._identified import Identified as Identified
from physml.pinn.inverse._identify import identify as identify
from physml.pinn.inverse._profile import Profile as Profile
from physml.pinn.inverse._profile import profile as profile

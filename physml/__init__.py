"""Physics-informed machine learning for ordinary differential equations, in JAX and Flax.

A room is loaded when it is first asked for, by `from physml import pinn` or as `physml.pinn`.
`physml.save` and `physml.load` keep whatever the rooms return.
"""

import typing

if typing.TYPE_CHECKING:
    from physml import bayes as bayes
    from physml import classify as classify
    from physml import convolution as convolution
    from physml import data as data
    from physml import dynamics as dynamics
    from physml import experiment as experiment
    from physml import fit as fit
    from physml import fourier as fourier
    from physml import generative as generative
    from physml import neuron as neuron
    from physml import nn as nn
    from physml import noises as noises
    from physml import pinn as pinn
    from physml import plots as plots
    from physml import reference as reference
    from physml import residuals as residuals
    from physml import results as results
    from physml import saving as saving
    from physml import solution as solution
    from physml import step_maps as step_maps
    from physml import surrogate as surrogate
    from physml import systems as systems
    from physml.saving import load as load
    from physml.saving import save as save
else:
    import importlib
    import pkgutil

    _SAVING = ("load", "save")  # at hand without the name of their room

    def __getattr__(name):
        if name not in __dir__():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in _SAVING:
            return getattr(importlib.import_module(f"{__name__}.saving"), name)
        return importlib.import_module(f"{__name__}.{name}")

    def __dir__():
        names = (module.name for module in pkgutil.iter_modules(__path__))
        return sorted([*(name for name in names if not name.startswith("_")), *_SAVING])

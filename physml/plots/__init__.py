"""Figures of a run: arrays in, a Matplotlib `Figure` out, with no pyplot state.

The colours are Okabe and Ito's, which colour-blind readers tell apart. Truth is black; the order of
the names gives every other curve its colour. With `lambda1`, the leading Lyapunov exponent in
inverse time units, a second axis counts Lyapunov times, t * lambda1.
"""

from physml.plots._classification import accuracy_curves, confusion_matrix, reliability
from physml.plots._fields import field_and_error
from physml.plots._images import feature_maps, filters, image_grid
from physml.plots._inverse import fit_to_data, intervals, likelihood_profiles, recovered_term
from physml.plots._reports import evaluation_figures, labelled_images
from physml.plots._solutions import (
    attractor_3d,
    compare_solutions,
    error_growth,
    forecast_series,
    partial_sums,
    phase_portrait,
    solution_error,
)
from physml.plots._statistics import climate, parameter_scan
from physml.plots._training import bands, convergence, heat_map, loss_curves, work_precision

__all__ = [
    "accuracy_curves",
    "attractor_3d",
    "bands",
    "climate",
    "compare_solutions",
    "confusion_matrix",
    "convergence",
    "error_growth",
    "evaluation_figures",
    "feature_maps",
    "field_and_error",
    "filters",
    "fit_to_data",
    "forecast_series",
    "heat_map",
    "image_grid",
    "intervals",
    "labelled_images",
    "likelihood_profiles",
    "loss_curves",
    "parameter_scan",
    "partial_sums",
    "phase_portrait",
    "recovered_term",
    "reliability",
    "solution_error",
    "work_precision",
]

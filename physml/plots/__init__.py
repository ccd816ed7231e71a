"""Figures of a run: arrays in, a Matplotlib `Figure` or animation out, with no pyplot state.

The colours are Okabe and Ito's, which colour-blind readers tell apart. Truth is black; the order of
the names gives every other curve its colour. With `lambda1`, the leading Lyapunov exponent in
inverse time units, a second axis counts Lyapunov times, t * lambda1.
"""

from physml.plots._animations import marching_windows as marching_windows
from physml.plots._animations import parting_forecasts as parting_forecasts
from physml.plots._beliefs import belief_bands as belief_bands
from physml.plots._beliefs import marginals as marginals
from physml.plots._beliefs import predictive as predictive
from physml.plots._classification import accuracy_curves as accuracy_curves
from physml.plots._classification import confusion_matrix as confusion_matrix
from physml.plots._classification import reliability as reliability
from physml.plots._fields import field_and_error as field_and_error
from physml.plots._fourier import resonance_curves as resonance_curves
from physml.plots._fourier import spectra as spectra
from physml.plots._images import feature_maps as feature_maps
from physml.plots._images import filters as filters
from physml.plots._images import image_grid as image_grid
from physml.plots._inverse import fit_to_data as fit_to_data
from physml.plots._inverse import intervals as intervals
from physml.plots._inverse import likelihood_profiles as likelihood_profiles
from physml.plots._inverse import recovered_term as recovered_term
from physml.plots._processes import function_bands as function_bands
from physml.plots._reports import evaluation_figures as evaluation_figures
from physml.plots._reports import labelled_images as labelled_images
from physml.plots._solutions import attractor_3d as attractor_3d
from physml.plots._solutions import compare_solutions as compare_solutions
from physml.plots._solutions import error_growth as error_growth
from physml.plots._solutions import forecast_series as forecast_series
from physml.plots._solutions import partial_sums as partial_sums
from physml.plots._solutions import phase_portrait as phase_portrait
from physml.plots._solutions import solution_error as solution_error
from physml.plots._statistics import climate as climate
from physml.plots._statistics import parameter_scan as parameter_scan
from physml.plots._statistics import windows as windows
from physml.plots._training import bands as bands
from physml.plots._training import convergence as convergence
from physml.plots._training import heat_map as heat_map
from physml.plots._training import loss_curves as loss_curves
from physml.plots._training import work_precision as work_precision

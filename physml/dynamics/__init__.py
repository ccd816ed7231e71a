"""What a step map does over time: rollouts, valid prediction time, Lyapunov spectra, climate.

The functions need only what a `StepMap` offers: `init`, `step`, `observe` and `dt`. They take any
leading axes as a batch and are compiled once for each set of shapes.
"""

from physml.dynamics._climate import Climate as Climate
from physml.dynamics._climate import Distances as Distances
from physml.dynamics._climate import climate_distances as climate_distances
from physml.dynamics._climate import climate_floor as climate_floor
from physml.dynamics._climate import measure_climate as measure_climate
from physml.dynamics._forecast import ValidTime as ValidTime
from physml.dynamics._forecast import error_growth as error_growth
from physml.dynamics._forecast import growth_rate as growth_rate
from physml.dynamics._forecast import normalised_error as normalised_error
from physml.dynamics._forecast import one_step_error as one_step_error
from physml.dynamics._forecast import relative_l2 as relative_l2
from physml.dynamics._forecast import relative_l2_until as relative_l2_until
from physml.dynamics._forecast import rollout as rollout
from physml.dynamics._forecast import valid_prediction_time as valid_prediction_time
from physml.dynamics._lyapunov import LyapunovSpectrum as LyapunovSpectrum
from physml.dynamics._lyapunov import kaplan_yorke_dimension as kaplan_yorke_dimension
from physml.dynamics._lyapunov import lyapunov_spectrum as lyapunov_spectrum
from physml.dynamics._pooled import pool_climate as pool_climate
from physml.dynamics._skill import Skill as Skill
from physml.dynamics._skill import bootstrap as bootstrap
from physml.dynamics._skill import forecast_skill as forecast_skill
from physml.dynamics._statistics import hellinger as hellinger
from physml.dynamics._statistics import jensen_shannon as jensen_shannon
from physml.dynamics._statistics import kullback_leibler as kullback_leibler
from physml.dynamics._statistics import maxima as maxima
from physml.dynamics._statistics import power_spectrum as power_spectrum
from physml.dynamics._statistics import return_map_error as return_map_error

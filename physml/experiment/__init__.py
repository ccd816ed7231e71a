"""One run of an experiment: its configuration, folder, timings and tables."""

from physml.experiment._config import Config, cli
from physml.experiment._files import slug
from physml.experiment._run import Row, Run
from physml.experiment._statistics import error_factors
from physml.experiment._table import TIMES, format_table
from physml.experiment._timing import Timing, best_of

__all__ = [
    "TIMES",
    "Config",
    "Row",
    "Run",
    "Timing",
    "best_of",
    "cli",
    "error_factors",
    "format_table",
    "slug",
]

"""One run of an experiment: its configuration, folder, timings and tables."""

from physml.experiment._beside import beside as beside
from physml.experiment._cache import use_compilation_cache as use_compilation_cache
from physml.experiment._claim import record_of as record_of
from physml.experiment._config import Config as Config
from physml.experiment._config import cli as cli
from physml.experiment._config import read_options as read_options
from physml.experiment._files import slug as slug
from physml.experiment._run import Row as Row
from physml.experiment._run import Run as Run
from physml.experiment._statistics import error_factors as error_factors
from physml.experiment._table import TIMES as TIMES
from physml.experiment._table import format_table as format_table
from physml.experiment._table import print_table as print_table
from physml.experiment._timing import Timing as Timing
from physml.experiment._timing import best_of as best_of

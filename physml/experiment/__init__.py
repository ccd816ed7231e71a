"""One run of an experiment: its configuration, folder, timings and tables."""

from physml.experiment._config import Config, cli
from physml.experiment._files import slug
from physml.experiment._run import Row, Run
from physml.experiment._table import format_table
from physml.experiment._timing import Timing, best_of

__all__ = ["Config", "Row", "Run", "Timing", "best_of", "cli", "format_table", "slug"]

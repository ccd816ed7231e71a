"""One run of an experiment: its folder, timings and tables."""

from physml.experiment._run import Run, Timing, best_of, format_table, slug

__all__ = ["Run", "Timing", "best_of", "format_table", "slug"]

"""How a solve ended, in a word for a table."""

from typing import Any

from physml.results import RESULTS


def verdict(result: Any) -> str:
    """Successful; suspect, if the solution itself says so; or stopped before the end."""
    if result == RESULTS.successful:
        return "successful"
    return "suspect" if result == RESULTS.suspect else "stopped"

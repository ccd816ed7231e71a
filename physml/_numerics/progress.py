"""Bars that show how far a long work is, how fast it goes and how long it still takes."""

import sys
from typing import Any


def bar(wanted: bool = True, /, **options: Any) -> Any:
    """A progress bar of tqdm, shown if it is wanted and somebody sees it move.

    That is at a terminal and in a notebook. A file would get a line for each move.
    """
    from tqdm import tqdm  # takes a moment, and few need it

    return tqdm(disable=not (wanted and _is_watched()), **options)


def _is_watched() -> bool:
    # A notebook's stream says that it is no terminal.
    return sys.stderr.isatty() or "ipykernel" in sys.modules

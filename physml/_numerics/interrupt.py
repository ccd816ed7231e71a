"""Where Ctrl-C is caught: a flag for work that looks at it between its pieces."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NamedTuple


class _Watch(NamedTuple):
    """What the open blocks of the main thread share."""

    pressed: threading.Event
    in_script: bool


_watch: _Watch | None = None


@contextlib.contextmanager
def ctrl_c() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag; a second one does what Ctrl-C did before.

    The flag can still be read after the block. A block inside another one has the same flag, so
    that work of several parts ends as a whole. Signals reach the main thread only; what runs in
    another thread sees the flag of the main thread's block, if it has one.
    """
    with _watching(in_script=False) as pressed:
        yield pressed.is_set


@contextlib.contextmanager
def script() -> Iterator[Callable[[], bool]]:
    """A script's block: Ctrl-C raises KeyboardInterrupt, and a flag remembers that it came.

    Python drops an exception that is raised while it collects garbage, and Ctrl-C often comes there
    after a long computation. Within `ctrl_c` the flag alone is set, as everywhere.
    """
    with _watching(in_script=True) as pressed:
        yield pressed.is_set


def in_script() -> bool:
    """Whether a script's block is open: nobody is there to look at what was interrupted."""
    return _watch is not None and _watch.in_script


@contextlib.contextmanager
def _watching(in_script: bool) -> Iterator[threading.Event]:
    global _watch
    outer = _watch
    if threading.current_thread() is not threading.main_thread():
        yield threading.Event() if outer is None else outer.pressed
        return
    pressed = threading.Event() if outer is None else outer.pressed
    before = signal.getsignal(signal.SIGINT)

    def restore() -> None:
        # None: the handler was not set from Python, and can't be set back.
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)

    def handle(number: int, frame: FrameType | None) -> None:
        if pressed.is_set():
            restore()
            signal.raise_signal(number)
        pressed.set()
        if in_script:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    _watch = _Watch(pressed, in_script or (outer is not None and outer.in_script))
    try:
        yield pressed
    finally:
        _watch = outer
        restore()

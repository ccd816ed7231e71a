"""Where Ctrl-C is caught: a flag for work that looks at it between its pieces."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def ctrl_c() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag; a second one does what Ctrl-C did before.

    The flag can still be read after the block. Signals reach the main thread only; in other
    threads the flag stays down.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    raised = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def restore() -> None:
        # None: the handler was not set from Python, and can't be set back.
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)

    def handle(number: int, frame: FrameType | None) -> None:
        raised.set()
        restore()

    signal.signal(signal.SIGINT, handle)
    try:
        yield raised.is_set
    finally:
        restore()

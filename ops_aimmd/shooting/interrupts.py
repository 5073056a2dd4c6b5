"""Ctrl-C while shots are under way: the first one ends the run in order, the second one at once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupts:
    """Inside the block the first Ctrl-C only sets `asked`; a second one interrupts the current wait.

    Work between two waits is never interrupted. Outside the main thread python receives no Ctrl-C, and the block changes
    nothing.

    Attributes
    ----------
    asked : bool
        Whether there was a Ctrl-C.
    """

    def __init__(self):
        self.asked = False
        self._at_once = False
        self._waiting = False
        self._before = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *exception) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number, frame) -> None:
        if not self.asked:
            self.asked = True
            print(
                "\nCtrl-C: no new shots; waiting for those under way. Again: leave at once, they are run again later",
                file=sys.stderr,
            )
            return
        self._at_once = True
        if self._waiting:
            raise KeyboardInterrupt

    @contextmanager
    def wait(self) -> Iterator[None]:
        """The block may be ended by a KeyboardInterrupt."""
        if self._at_once:
            raise KeyboardInterrupt
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

"""The right to write a checkpoint: a lock on an empty file beside it, ``run.aimmd-lock``, held from opening to closing.

The write lock of the checkpoint itself is given up between any two transactions, for microseconds on an idle machine and
for longer if the process is put to sleep just there. This one never is. It is sqlite's own lock on a file without
content, so it works wherever the checkpoint works, and the operating system drops it when the process dies: a file that
a killed process left is not locked, and is in nobody's way.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path


class WriteLock:
    """Hold the right to write the checkpoint at `path` until :meth:`release`.

    Raises sqlite3.OperationalError, "database is locked", if this process or another has it.
    """

    def __init__(self, path: Path):
        self.file = Path(f"{path}-lock")
        self._connection = sqlite3.connect(self.file, timeout=0, isolation_level=None)
        try:
            self._connection.execute("PRAGMA journal_mode=MEMORY")  # no second file: nothing is ever written
            self._connection.execute("BEGIN EXCLUSIVE")
        except BaseException:
            self._connection.close()
            raise
        self._held = True

    def release(self) -> None:
        """Let go, and remove the file; twice is allowed."""
        if self._held:
            self._held = False
            with contextlib.suppress(OSError):  # where an open file cannot be removed, it stays
                os.unlink(self.file)
            self._connection.close()

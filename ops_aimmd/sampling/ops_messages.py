"""What OPS and the packages that it imports write to the terminal."""

from __future__ import annotations

import ctypes
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import openpathsampling as paths
from openpathsampling import tools


@contextmanager
def ops_is_quiet() -> Iterator[None]:
    """Within the block nothing is written to the standard output, and OPS erases no lines after it.

    OPS moves the cursor up over what it takes for its own last message, also if nobody has seen that.
    """
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        tools.last_output = None


def leave_cursor_alone(simulation) -> None:
    """Let OPS write its messages one below the other where its output is no terminal and no notebook: a file, a pipe."""
    is_terminal = getattr(simulation.output_stream, "isatty", lambda: False)()
    if not (is_terminal or tools.is_ipynb):
        simulation.allow_refresh = False


# A file and its stores refer to each other, so python deletes those that are left at its very end, with OPS's class of
# netCDF files, in any order. Without its class netCDF4 does not find the attributes of a file: it does not close it, and
# writes "Error in sys.excepthook: Original exception was:". One reference that python does not know of keeps the class.
ctypes.pythonapi.Py_IncRef(ctypes.py_object(paths.Storage))


class _WithoutAdvertisement(logging.Filter):
    """Drops what pymbar says when it is imported, which OPS makes happen when it reads an integrator of openmmtools."""

    texts = ("JAX NOT FOUND", "Warning on use of the timeseries module")

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(text in record.getMessage() for text in self.texts)


for _name in ("pymbar.mbar_solvers", "pymbar.timeseries"):
    logging.getLogger(_name).addFilter(_WithoutAdvertisement())

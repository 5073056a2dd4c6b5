"""Importing this module makes new netCDF files of OPS small, 1 MB instead of 100 MB; `in_memory` makes them quick to read.

OPS makes room for 65536 entries in each of its tables of text when a file begins, which takes a second of each test that
writes a file. Here there is room for 256 at first; more is made as it is needed, as in OPS's own files. Tests that kill
processes, those of files of older versions, and the examples write OPS's own files.
"""

from openpathsampling.netcdfplus import NetCDFPlus

MAX_CHUNK = 256

_create_variable = NetCDFPlus.create_variable


def _create_small_variable(self, *arguments, chunksizes=None, **options):
    if chunksizes is not None:
        chunksizes = (min(chunksizes[0], MAX_CHUNK), *chunksizes[1:])
    return _create_variable(self, *arguments, chunksizes=chunksizes, **options)


NetCDFPlus.create_variable = _create_small_variable


def in_memory(storage):
    """The storage, a file open to read; a netCDF file is read as a whole, not number by number as OPS asks for them.

    For all frames of a run that takes a quarter of the time.
    """
    for delegate in getattr(storage, "vars", {}).values():
        delegate.variable = delegate.variable[:]
    return storage

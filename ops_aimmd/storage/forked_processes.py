"""A forked process gives its OPS objects numbers of its own.

OPS numbers objects from one that it draws when it is imported. Processes that are forked after the import go on from the
same number. If one writes a file and another one goes on with it, as in a job that runs each piece in a
`multiprocessing.Process`, two objects of the file have one number, and OPS reads one in place of the other.
"""

from __future__ import annotations

import os
import uuid

from openpathsampling.netcdfplus import StorableObject

COUNTED = 48
"""Bits at the end of a number by which OPS counts."""


def _begin_with_another_number() -> None:
    StorableObject.ACTIVE_LONG = uuid.uuid4().int >> COUNTED << COUNTED


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_begin_with_another_number)

"""The checkpoint of a run that is no path sampling: the same call makes it, and goes on with it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ops_aimmd.checkpoint import Checkpoint


@contextlib.contextmanager
def own_checkpoint(path, setup: dict, check: Callable[[Checkpoint, dict], None]) -> Iterator[Checkpoint | None]:
    """The checkpoint at a path, a new one where there is none; None without a path.

    ``check(file, setup)`` raises where the file holds something else than `setup` describes.
    """
    if path is None:
        yield None
        return
    exists = Path(path).exists() and Path(path).stat().st_size > 0  # empty: creation was interrupted
    with Checkpoint.open(path) if exists else Checkpoint.create(path, setup) as file:
        check(file, setup)
        yield file

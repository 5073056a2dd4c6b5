"""The seed of shots that run elsewhere: a shot that was interrupted must be run again as it was, since those that take
long are interrupted most."""

from __future__ import annotations

import numpy as np

from ops_aimmd.checkpoint import Checkpoint


def settled_seed(given: int | None, file: Checkpoint | None, name: str) -> int:
    """The seed that was given, or one that is drawn once and kept as the file `name` of the checkpoint, if there is one."""
    if given is not None:
        return given
    if file is not None and name in file.file_names():
        return int(file.file(name))
    seed = int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> np.uint64(1))
    if file is not None:
        file.store_file(name, str(seed).encode())
    return seed

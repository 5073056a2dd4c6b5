"""A run on disk: one file that loses no finished step and executes nothing when read; knows neither OPS nor torch.

Files
-----
errors
    What can be wrong with the file.
documents
    Nested python values and arrays <-> strict JSON and a safetensors block.
rows
    The tables; shots, frames, model versions and documents <-> their rows.
journal
    :class:`Checkpoint`: opening, locks, one transaction per MC step.
"""

from ops_aimmd.checkpoint.errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointLockedError,
    CheckpointVersionError,
    NotACheckpointError,
)
from ops_aimmd.checkpoint.journal import Checkpoint
from ops_aimmd.checkpoint.rows import DensityPath, LegFrameColumns, ShotColumns

__all__ = [
    "Checkpoint",
    "CheckpointCorruptError",
    "CheckpointError",
    "CheckpointLockedError",
    "CheckpointVersionError",
    "DensityPath",
    "LegFrameColumns",
    "NotACheckpointError",
    "ShotColumns",
]

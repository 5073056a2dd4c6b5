"""A run on disk: one file that loses no finished step and executes nothing when read; knows neither OPS nor torch.

Files
-----
errors
    What can be wrong with the file.
documents
    Nested python values and arrays <-> strict JSON and a safetensors block.
rows
    The tables of the learning; shots, frames, model versions and documents <-> their rows.
step_log
    The tables of the step log: blocks of frames, paths, a document per step; bytes kept whole.
conversion
    Files of older formats.
journal
    :class:`Checkpoint`: opening, locks, one transaction per MC step.
"""

from ops_aimmd.checkpoint.errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointLockedError,
    CheckpointUnavailableError,
    CheckpointVersionError,
    FileUnavailableError,
    NotACheckpointError,
)
from ops_aimmd.checkpoint.journal import Checkpoint, is_checkpoint
from ops_aimmd.checkpoint.rows import DensityPath, LegFrameColumns, ShotColumns
from ops_aimmd.checkpoint.step_log import FrameBlock, StepLog

__all__ = [
    "Checkpoint",
    "CheckpointCorruptError",
    "CheckpointError",
    "CheckpointLockedError",
    "CheckpointUnavailableError",
    "CheckpointVersionError",
    "DensityPath",
    "FileUnavailableError",
    "FrameBlock",
    "LegFrameColumns",
    "NotACheckpointError",
    "ShotColumns",
    "StepLog",
    "is_checkpoint",
]

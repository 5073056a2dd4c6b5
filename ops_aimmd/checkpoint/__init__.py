"""A run on disk: one file that loses no finished step and executes nothing when read; knows neither OPS nor torch.

Files
-----
errors
    What can be wrong with the file.
documents
    Nested python values and arrays <-> strict JSON and a safetensors block.
rows
    Rows with their checksums.
learning_tables
    The tables of the learning: shots, frames of legs, the density, model versions.
step_log
    The tables of the step log: blocks of frames, paths, a document per step; bytes kept whole.
shot_journal
    The tables of shots under way.
conversion
    Files of older formats.
checkpoint_file
    :class:`Checkpoint`: opening, locks, one transaction per MC step.
"""

from ops_aimmd.checkpoint.checkpoint_file import Checkpoint, is_checkpoint
from ops_aimmd.checkpoint.errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointLockedError,
    CheckpointUnavailableError,
    CheckpointVersionError,
    FileUnavailableError,
    NotACheckpointError,
)
from ops_aimmd.checkpoint.learning_tables import DensityPath, ShotColumns
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
    "NotACheckpointError",
    "ShotColumns",
    "StepLog",
    "is_checkpoint",
]

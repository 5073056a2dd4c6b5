"""Less than everything in OPS's file: ends of rejected trials, every n-th frame of paths.

What is left out is marked in the details of the step, ``stored_trial = "ends"`` and ``stored_stride = n`` (with the
``path_length`` of the current path), so that whoever needs whole paths can refuse. Shooting points, end frames and the
outcomes and lengths of the legs are always stored, and with them all that learning and the analysis of acceptance need.
"""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral

import openpathsampling as paths

from ops_aimmd.bounded_memory import BoundedMemory
from ops_aimmd.sampling.movers import ShootingMover
from ops_aimmd.sampling.shooting_results import samples_of
from ops_aimmd.shooting.frame_blocks import frame_key

REJECTED_TRIALS = ("whole", "ends")

PATHS_REMEMBERED = 64
"""Thinned paths whose identity is kept; enough for the replicas of a run."""


def thinned(trajectory: paths.Trajectory, details, stride: int | None = None) -> paths.Trajectory:
    """First frame, shooting points and last frame of a path, and every `stride`-th frame (None: no others).

    The shooting points are those in the details of the move that made the path.
    """
    known = {} if details is None else vars(details)
    points = [known.get(name) for name in ("modified_shooting_snapshot", "shooting_snapshot")]
    keys = {frame_key(point) for point in points if point is not None}
    wanted = {0, len(trajectory) - 1}
    wanted |= {index for index, frame in enumerate(trajectory.iter_proxies()) if frame_key(frame) in keys}
    if stride is not None:
        wanted |= set(range(0, len(trajectory), stride))
    return paths.Trajectory([trajectory[index] for index in sorted(wanted)])


class Thinning:
    """Replaces, in a finished step that OPS is about to store, what shall not be stored.

    The simulation itself goes on from the whole paths.

    Parameters
    ----------
    rejected_trials : {"whole", "ends"}
        "ends": of rejected trials of this package's moves only the first frame, the shooting point and the last frame.
    path_stride : int
        Of all paths every n-th frame is stored, the ends, and the shooting point that made the path.
    """

    def __init__(self, rejected_trials: str = "whole", path_stride: int = 1):
        self.rejected_trials = rejected_trials
        self.path_stride = path_stride
        if rejected_trials not in REJECTED_TRIALS:
            raise ValueError(f"rejected_trials must be one of {REJECTED_TRIALS}; got {rejected_trials!r}")
        if not isinstance(path_stride, Integral) or path_stride < 1:
            raise ValueError(f"path_stride must be a positive integer, 1 to store all frames; got {path_stride!r}")
        self._thinned = BoundedMemory(PATHS_REMEMBERED)
        self._samples: dict[int, paths.Sample] = {}
        self._stored: dict[frozenset, paths.SampleSet] = {}
        """What was stored last of each set of replicas."""

    def apply(self, step: paths.MCStep) -> None:
        """Change a step in place."""
        self._samples = {}
        if self.rejected_trials == "ends":
            for change in step.change:
                self._cut_rejected(change)
        if self.path_stride > 1:
            lengths = {sample.replica: len(sample.trajectory) for sample in step.active}
            for change in step.change:
                self._stride(change, lengths)
            step.previous = self._stored.get(_replicas(step.previous)) or self._sample_set(step.previous)
            step.active = self._stored[_replicas(step.active)] = self._sample_set(step.active)

    def recognise(self, whole: paths.SampleSet, stored: paths.SampleSet) -> None:
        """Take what a file has stored of the current paths for their thinned form, so that they are not stored again."""
        if self.path_stride == 1:  # hold nothing: frames of the file, in single precision, would replace exact ones
            return
        self._stored[_replicas(stored)] = stored
        found = {sample.replica: sample.trajectory for sample in stored}
        for sample in whole:
            trajectory = found[sample.replica]
            if trajectory.__uuid__ != sample.trajectory.__uuid__:  # initial paths are stored whole
                self._thinned[sample.trajectory.__uuid__] = trajectory

    def _cut_rejected(self, change) -> None:
        if not isinstance(change.mover, ShootingMover) or change.accepted or not change.samples:
            return
        cut = [
            _with_trajectory(sample, thinned(sample.trajectory, change.details), sample.parent)
            for sample in samples_of(change)
        ]
        change.samples = cut[0] if isinstance(change.samples, paths.Sample) else cut
        change.details.stored_trial = "ends"

    def _stride(self, change, lengths: dict) -> None:
        if change.details is not None and change.samples:
            change.details.stored_stride = int(self.path_stride)
            change.details.path_length = lengths.get(samples_of(change)[0].replica)
            for name, value in vars(change.details).items():
                if isinstance(value, paths.Trajectory):
                    setattr(change.details, name, self._path(value, None))
        made = [self._sample(sample, change.details) for sample in samples_of(change)]
        change.samples = made[0] if isinstance(change.samples, paths.Sample) else made
        change.input_samples = [self._sample(sample, None) for sample in change.input_samples or []]

    def _sample_set(self, samples: paths.SampleSet) -> paths.SampleSet:
        return paths.SampleSet([self._sample(sample, None) for sample in samples])

    def _sample(self, sample: paths.Sample, details) -> paths.Sample:
        if sample.__uuid__ not in self._samples:
            self._samples[sample.__uuid__] = _with_trajectory(sample, self._path(sample.trajectory, details), None)
        return self._samples[sample.__uuid__]

    def _path(self, trajectory: paths.Trajectory, details) -> paths.Trajectory:
        return self._thinned.recall(trajectory.__uuid__, lambda: thinned(trajectory, details, self.path_stride))


def _replicas(samples: Iterable[paths.Sample]) -> frozenset:
    return frozenset(int(sample.replica) for sample in samples)


def _with_trajectory(sample: paths.Sample, trajectory: paths.Trajectory, parent) -> paths.Sample:
    """A copy of the sample; a parent would be stored with it, and with that the parent's whole path."""
    return paths.Sample(
        replica=sample.replica,
        trajectory=trajectory,
        ensemble=sample.ensemble,
        bias=sample.bias,
        parent=parent,
        mover=sample.mover,
    )

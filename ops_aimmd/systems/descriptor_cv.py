"""Descriptors of this package as OPS collective variables."""

import numpy as np

from ops_aimmd.descriptors import internal, symmetry  # noqa: F401 - only imported classes can be rebuilt
from ops_aimmd.descriptors.descriptor_set import Descriptors, descriptors_from_dict, descriptors_to_dict
from ops_aimmd.engines.frames import boxes_of, positions_of
from ops_aimmd.systems.batched_cv import BatchedCV


class DescriptorCV(BatchedCV):
    """Collective variable of the descriptors of this package; OPS stores it with all parameters, and no code.

    Serves as ``descriptors=`` of `CommittorLearner`, and to define states: a trajectory is evaluated in one batch, the
    single frame of a running leg in the fastest way that the descriptors know.

    Parameters
    ----------
    name : str
        OPS takes two collective variables of the same class and name for the same one: names must differ.
    descriptors : ops_aimmd.descriptors.descriptor_set.Descriptors
        With lengths in nm. Where they are periodic, the boxes of the frames are used.

    Returns
    -------
    array (n_frames, n_descriptors) for a trajectory, (n_descriptors,) for a snapshot; a single descriptor gives one number
    per frame.
    """

    def __init__(self, name, descriptors):
        if not isinstance(name, str) or not isinstance(descriptors, Descriptors):
            raise TypeError(
                "DescriptorCV takes a name and descriptors of this package (InternalCoordinates, SymmetryFunctions, "
                f"JoinedDescriptors); got {name!r} and {descriptors!r}"
            )
        super().__init__(name)
        self.descriptors = descriptors
        self._single = len(descriptors.names) == 1

    @property
    def names(self):
        return self.descriptors.names

    def to_dict(self):
        return {"name": self.name, "descriptors": descriptors_to_dict(self.descriptors)}

    @classmethod
    def from_dict(cls, dct):
        return cls(dct["name"], descriptors_from_dict(dct["descriptors"]))

    def _values(self, snapshots):
        periodic = self.descriptors.periodic
        if len(snapshots) == 1:
            (snapshot,) = snapshots
            boxes = boxes_of(snapshots) if periodic else None
            values = self.descriptors.of_frame(snapshot.xyz, None if boxes is None else boxes[0])
            return np.array(values if self._single else [values], dtype=np.float64)
        values = self.descriptors(positions_of(snapshots), boxes_of(snapshots) if periodic else None)
        return values[:, 0] if self._single else values

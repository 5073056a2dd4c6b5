"""What all descriptors have in common: columns with names, a batched call, and a dictionary from which they are rebuilt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from ops_aimmd.descriptors.boxes import as_frames, missing_box


class Descriptors(ABC):
    """A function from molecular coordinates to a vector of numbers for each frame.

    Subclasses define `names`, `atoms`, `periodic`, `evaluate` and `to_dict`. The keys of `to_dict` are the arguments
    of the class.
    """

    periodic: bool
    """Whether distances are those between nearest periodic images, so that a box is needed."""

    _classes: dict[str, type[Descriptors]] = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        Descriptors._classes[cls.__name__] = cls

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """Name of each column."""

    @property
    @abstractmethod
    def atoms(self) -> np.ndarray:
        """Indices of all atoms that enter, sorted."""

    @abstractmethod
    def evaluate(self, positions: torch.Tensor, box: torch.Tensor | None) -> torch.Tensor:
        """The columns (n_frames, n_descriptors) of checked tensors; differentiable with respect to the positions."""

    @abstractmethod
    def to_dict(self) -> dict:
        """Lists, numbers and strings from which `descriptors_from_dict` rebuilds the descriptors."""

    @classmethod
    def from_dict(cls, dct: dict) -> Descriptors:
        """Rebuild from `to_dict`."""
        return cls(**dct)

    def __call__(self, positions, box=None):
        """Evaluate on frames.

        Parameters
        ----------
        positions : array or tensor, shape (n_frames, n_atoms, 3)
            In nm, if the parameters are. Molecules must be whole, unless the descriptors are periodic.
        box : array or tensor, shape (n_frames, 3, 3) or (3, 3), optional
            Rows are the box vectors, in the unit of the positions.

        Returns
        -------
        array or tensor, shape (n_frames, n_descriptors)
            Same kind, dtype and device as `positions` (arrays: float64); tensors carry gradients.

        Raises
        ------
        ValueError
            For wrong shapes, a missing box, atoms out of range, and positions that are not finite or for which a
            descriptor is undefined. The message names atoms and frames.
        """
        if isinstance(positions, torch.Tensor):
            return self._checked(positions, None if box is None else torch.as_tensor(box).to(positions))
        with torch.no_grad():
            tensors = (
                None if part is None else torch.tensor(np.asarray(part, dtype=np.float64)) for part in (positions, box)
            )
            return self._checked(*tensors).numpy()

    def _checked(self, positions, box):
        if self.periodic and box is None:
            raise missing_box(type(self).__name__)
        box = as_frames(positions, box, torch.as_tensor(self.atoms, device=positions.device))
        return self.evaluate(positions, box if self.periodic else None)

    def of_frame(self, positions: np.ndarray, box: np.ndarray | None) -> list[float]:
        """Columns of one frame (n_atoms, 3); subclasses with a faster way for a single frame replace it."""
        return self(positions[None], None if box is None else box[None])[0].tolist()


class JoinedDescriptors(Descriptors):
    """Several descriptors side by side, column by column.

    Raises
    ------
    ValueError
        If there are no parts, or two columns have the same name.
    """

    def __init__(self, parts: Sequence[Descriptors]):
        self.parts = parts
        if not parts:
            raise ValueError("nothing to join: got no descriptors")
        twice = [name for name, number in Counter(self.names).items() if number > 1]
        if twice:
            raise ValueError(f"several columns have the names {twice[:10]}: names must differ")

    @property
    def names(self) -> list[str]:
        return [name for part in self.parts for name in part.names]

    @property
    def atoms(self) -> np.ndarray:
        return np.unique(np.concatenate([part.atoms for part in self.parts]))

    @property
    def periodic(self) -> bool:
        return any(part.periodic for part in self.parts)

    def evaluate(self, positions, box):
        return torch.cat([part.evaluate(positions, box if part.periodic else None) for part in self.parts], dim=1)

    def of_frame(self, positions, box):
        return [value for part in self.parts for value in part.of_frame(positions, box)]

    def to_dict(self) -> dict:
        return {"parts": [descriptors_to_dict(part) for part in self.parts]}

    @classmethod
    def from_dict(cls, dct):
        return cls([descriptors_from_dict(part) for part in dct["parts"]])


class StandardisedDescriptors(Descriptors):
    r"""Descriptors shifted and scaled column by column, :math:`(x - m) / s`; names are kept.

    A `CommittorModel` scales its inputs itself; use this class where the columns serve another purpose.

    Parameters
    ----------
    descriptors : Descriptors
    mean, scale : sequence of float, shape (n_descriptors,)

    Raises
    ------
    ValueError
        For wrong shapes, or scales that are not positive and finite.
    """

    def __init__(self, descriptors: Descriptors, mean: Sequence[float], scale: Sequence[float]):
        self.descriptors = descriptors
        self.periodic = descriptors.periodic
        self.mean = mean
        self.scale = scale
        n = len(descriptors.names)
        if np.shape(mean) != (n,) or np.shape(scale) != (n,):
            raise ValueError(
                f"mean and scale have shapes {np.shape(mean)} and {np.shape(scale)}, expected ({n},) for each column"
            )
        bad = np.flatnonzero(~((np.asarray(scale) > 0) & np.isfinite(scale) & np.isfinite(mean)))
        if len(bad):
            raise ValueError(f"the columns {[self.names[i] for i in bad[:10]]} have no finite mean and positive scale")

    @classmethod
    def from_frames(cls, descriptors: Descriptors, positions, box=None) -> StandardisedDescriptors:
        """With mean and standard deviation of some frames; columns that are constant there are only shifted."""
        values = np.asarray(descriptors(np.asarray(positions), box))
        scale = values.std(axis=0)
        # a constant column has a standard deviation of rounding noise
        constant = scale <= 1e-12 * np.abs(values).max(axis=0)
        return cls(descriptors, values.mean(axis=0).tolist(), np.where(constant, 1.0, scale).tolist())

    @property
    def names(self) -> list[str]:
        return self.descriptors.names

    @property
    def atoms(self) -> np.ndarray:
        return self.descriptors.atoms

    def evaluate(self, positions, box):
        values = self.descriptors.evaluate(positions, box)
        mean, scale = (torch.as_tensor(part, dtype=values.dtype, device=values.device) for part in (self.mean, self.scale))
        return (values - mean) / scale

    def to_dict(self) -> dict:
        return {
            "descriptors": descriptors_to_dict(self.descriptors),
            "mean": [float(value) for value in self.mean],
            "scale": [float(value) for value in self.scale],
        }

    @classmethod
    def from_dict(cls, dct):
        return cls(descriptors_from_dict(dct["descriptors"]), dct["mean"], dct["scale"])


def descriptors_from_dict(dct: dict) -> Descriptors:
    """Rebuild descriptors from ``{"class": name, **to_dict()}``.

    Raises
    ------
    ValueError
        For a class that is no descriptor of this package.
    """
    options = dict(dct)
    name = options.pop("class")
    if name not in Descriptors._classes:
        raise ValueError(f"there are no descriptors {name!r}; known are {sorted(Descriptors._classes)}")
    return Descriptors._classes[name].from_dict(options)


def descriptors_to_dict(descriptors: Descriptors) -> dict:
    """Dictionary of plain types for `descriptors_from_dict`."""
    return {"class": type(descriptors).__name__, **descriptors.to_dict()}

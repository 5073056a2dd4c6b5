r"""The committor is a martingale: what every frame of a leg says about it, not only the state that the leg reached.

Along free dynamics :math:`p(x_t) = E[p(x_{t+\tau}) | x_t]`, also where the leg is stopped on reaching a state. So a frame
is told what the model believes of the frames after it, and of the state at the end (temporal differences; Sutton,
Machine Learning 3, 9 (1988), doi:10.1007/BF00115009; committors and stopped processes: Strahan, Finkel, Dinner, Weare,
J. Comput. Phys. 488, 112152 (2023), doi:10.1016/j.jcp.2023.112152). The target of frame k of a leg of K frames that
reached state z is

.. math:: y_k = (1-\lambda) \sum_{j=1}^{K-1-k} \lambda^{j-1} p(x_{k+j}) + \lambda^{K-1-k} z .

It is unbiased only if nothing of the future decides which frames are used and how much they weigh: they are taken at fixed
intervals, each with the same weight. Frames at fixed *fractions* of a leg, or a weight per leg shared by its frames, know
how long the leg will be, and with that where it goes.

**Inertia.** Legs move outwards, so at a frame of a leg the velocities are not the equilibrium ones over which a
committor of positions is averaged. To first order in the mean free path a moving system stands where it would come to rest,
:math:`p(x, v) = p(x + c\,\Delta x)` with :math:`\Delta x` the displacement since the frame before: in the limit of high
friction c is the time in which velocities are forgotten, in frames. c is learned with the weights; where there is no
inertia it comes out as zero. Shooting points themselves have velocities from equilibrium and need no correction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ops_aimmd.committor.input_scaling import WIDTHS
from ops_aimmd.committor.training_set import AuxiliaryFrames

LAMBDA = 0.2
"""Share of a target that looks further than the next frame."""

MAX_BATCHES = 100
"""Batches of legs that one training uses at most."""


@dataclass(frozen=True)
class Legs:
    """Frames of some legs, in the order of generation, without their ends.

    Attributes
    ----------
    frames : AuxiliaryFrames
        All frames of the training set.
    rows : int array, shape (m,)
        Those of these legs.
    leg, place : int tensor, shape (m,)
        Number of the leg, and of the frame in it.
    of_later : tensor, shape (longest, longest)
        Weight of the prediction at the frame in the column in the target of the frame in the row.
    of_outcome : tensor, shape (m, n_states)
        What the state that was reached contributes to the target of each frame.
    """

    frames: AuxiliaryFrames
    rows: np.ndarray
    leg: Tensor
    place: Tensor
    of_later: Tensor
    of_outcome: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shot(self) -> np.ndarray:
        """Row of the shot that each frame belongs to, shape (m,)."""
        return self.frames.shot[self.rows]

    @property
    def descriptors(self) -> np.ndarray:
        """Shape (m, d), float64. A new copy each time, as all of them at once may need much memory."""
        return self.frames.descriptors[self.rows]

    @property
    def displacements(self) -> np.ndarray:
        """Change of the descriptors since the frame before, shape (m, d)."""
        return self.frames.displacements[self.rows].astype(np.float64)

    def targets(self, committor: Tensor) -> Tensor:
        """What each frame should predict, given what the model predicts now.

        Parameters
        ----------
        committor : tensor, shape (n_members, m, n_states)

        Returns
        -------
        tensor, shape (n_members, m, n_states)
        """
        n_members, _, n_states = committor.shape
        padded = committor.new_zeros(n_members, int(self.leg[-1]) + 1, len(self.of_later), n_states)
        padded[:, self.leg, self.place] = committor
        return torch.einsum("kj,mljs->mlks", self.of_later, padded)[:, self.leg, self.place] + self.of_outcome

    @property
    def typical_memory(self) -> float:
        """Scale of the memory c: distance to the next frame used over the displacement in one frame of dynamics."""
        descriptors, leg = torch.from_numpy(self.descriptors), self.leg.cpu()
        steps = _typical_size((descriptors[1:] - descriptors[:-1])[leg[1:] == leg[:-1]])
        moved = _typical_size(torch.from_numpy(self.displacements))
        known = (moved > 0) & torch.isfinite(steps)
        return float((steps[known] / moved[known]).square().mean().sqrt()) if known.any() else 0.0


def _typical_size(changes: Tensor) -> Tensor:
    """Root mean square of each column (m, d); sizes count as ten times the median of those above 0 at most."""
    if not len(changes):
        return torch.full_like(changes.sum(dim=0), torch.nan)
    size = changes.abs()
    median = torch.where(size > 0, size, torch.nan).nanmedian(dim=0).values.nan_to_num(0.0)
    unit = torch.where(median > 0, median, 1.0)
    return (size / unit).clamp(max=WIDTHS).square().mean(dim=0).sqrt() * median


def batches_of_legs(frames: AuxiliaryFrames, n_states: int, max_frames: int, rng, tensor) -> list[Legs]:
    """The legs of a training set in random order, in batches of nearly the same size, about ``max_frames`` at most.

    Parameters
    ----------
    frames : AuxiliaryFrames
        Frames of unknown displacement were not taken at fixed intervals and are left out.
    rng : numpy.random.Generator
    tensor : callable
        Makes a tensor of the type and on the device of the model.

    Returns
    -------
    list of Legs
        Empty where there are no frames to learn from; never more than ``MAX_BATCHES``, of legs chosen at random.
    """
    leg = np.cumsum(frames.is_end) - frames.is_end  # the end is the last frame of its leg
    rows = np.flatnonzero(~frames.is_end & np.isfinite(frames.displacements).all(axis=1))
    if not len(rows):
        return []
    _, leg, size = np.unique(leg[rows], return_inverse=True, return_counts=True)
    order = rng.permutation(len(size))
    frames_before = np.empty(len(size), dtype=np.int64)
    frames_before[order] = np.cumsum(size[order]) - size[order]
    n_batches = -(-len(rows) // max_frames)
    batch = (frames_before * n_batches // len(rows))[leg]
    chosen = (np.flatnonzero(batch == number) for number in range(min(n_batches, MAX_BATCHES)))
    return [_make_legs(frames, rows[c], leg[c], n_states, tensor) for c in chosen if len(c)]


def _make_legs(frames: AuxiliaryFrames, rows: np.ndarray, leg: np.ndarray, n_states: int, tensor) -> Legs:
    _, first, leg = np.unique(leg, return_index=True, return_inverse=True)
    place = np.arange(len(rows)) - first[leg]
    longest = int(place.max()) + 1
    lag = np.arange(longest) - np.arange(longest)[:, None]
    of_later = np.where(lag > 0, (1 - LAMBDA) * LAMBDA ** np.maximum(lag - 1.0, 0.0), 0.0)
    to_go = np.bincount(leg)[leg] - 1 - place
    of_outcome = LAMBDA ** to_go[:, None].astype(float) * np.eye(n_states)[frames.outcomes[rows]]
    device = tensor(of_later).device
    return Legs(
        frames,
        rows,
        torch.as_tensor(leg, device=device),
        torch.as_tensor(place, device=device),
        tensor(of_later),
        tensor(of_outcome),
    )

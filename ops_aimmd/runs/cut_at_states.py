"""Free trajectories cut at the states: stretches inside a state, and excursions between leaving a state and entering one.

Cutting needs the state of each frame and the descriptors of those that are kept, no frames. What is kept of an excursion
does not depend on how it ends, so that a trajectory can be cut while it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

OUTSIDE = -1
"""State of a frame that lies in none."""


@dataclass(frozen=True, eq=False)
class Stretch:
    """Frames one after another of a free run, in order.

    Attributes
    ----------
    states : int8 array, shape (n,)
        State of each frame; -1 outside of all.
    kept : int array, shape (m,)
        Which of the frames have descriptors.
    descriptors : float32 array, shape (m, d)
    """

    states: np.ndarray
    kept: np.ndarray
    descriptors: np.ndarray


@dataclass(frozen=True, eq=False)
class Excursion:
    """An excursion of a free run.

    Attributes
    ----------
    ends : (int, int)
        The state that it left, and the one that it entered.
    length : int
        Frames between, outside of all states; 0 for a step from one state into another.
    descriptors : float32 array, shape (m, d)
        Descriptors of every k-th of these frames, or of the middle one if there are few.
    internal_frames : int
        Frames in the state before, since it was entered.
    internal_descriptors : float32 array, shape (l, d)
        Descriptors of some of these frames, evenly spaced.
    """

    ends: tuple[int, int]
    length: int
    descriptors: np.ndarray
    internal_frames: int
    internal_descriptors: np.ndarray


def frames_to_keep(states: np.ndarray, before: int, first: int, stride: int, internal_stride: int) -> np.ndarray:
    """Which frames of a stretch are to have descriptors; int array.

    Parameters
    ----------
    states : int array, shape (n,)
        State of each frame.
    before : int
        Frames outside of all states directly before the stretch.
    first : int
        Number of the first frame in its run.
    stride : int
        Every so many frames of an excursion: number stride // 2 from its beginning, and so on; those before, too, as one of
        them stands for an excursion that ends early.
    internal_stride : int
        Every so many frames of the run, where they lie in a state.
    """
    frames = np.arange(len(states))
    inside = np.flatnonzero(states != OUTSIDE)
    last_inside = np.full(len(states), -1 - before)
    last_inside[inside] = inside
    position = frames - np.maximum.accumulate(last_inside) - 1  # from the beginning of the excursion
    return np.flatnonzero(
        np.where(
            states == OUTSIDE,
            (position < stride // 2) | ((position - stride // 2) % stride == 0),
            (first + frames) % internal_stride == 0,
        )
    )


def has_ended(stretches: Sequence[Stretch], n_frames: int) -> bool:
    """Whether a run has entered a state after so many frames."""
    states = np.concatenate([np.zeros(0, np.int8), *(stretch.states for stretch in stretches)])
    first = max(n_frames, 1)
    later, before = states[first:], states[first - 1 : -1]
    return bool(((later != before) & (later != OUTSIDE)).any())


def cut(stretches: Sequence[Stretch], n_frames: int, stride: int) -> tuple[list[Excursion], bool]:
    """Excursions of a run, and whether it has ended.

    What lies before the first entry into a state is left out. A run ends with the first entry into a state after `n_frames`
    frames; an end at any other moment would leave out long excursions more often than short ones.
    """
    states = np.concatenate([stretch.states for stretch in stretches]) if stretches else np.zeros(0, np.int8)
    if not len(states):
        return [], False
    offsets = np.cumsum([0, *(len(stretch.states) for stretch in stretches)])
    kept = np.concatenate([offset + stretch.kept for offset, stretch in zip(offsets, stretches, strict=False)])
    descriptors = np.concatenate([stretch.descriptors for stretch in stretches])
    begins = np.flatnonzero(np.append(True, states[1:] != states[:-1]))
    ends, state_of = np.append(begins[1:], len(states)), states[begins].astype(int)
    entries = np.flatnonzero(state_of != OUTSIDE)
    entries = entries[entries > 0]  # the first stretch may have begun before the run
    last = entries[begins[entries] >= n_frames]
    used = entries[begins[entries] <= begins[last[0]]] if len(last) else entries
    found = []
    for one, another in zip(used[:-1], used[1:], strict=True):
        outside = slice(ends[one], begins[another])
        of_state = slice(begins[one], ends[one])
        inner, outer = (slice(*np.searchsorted(kept, [part.start, part.stop])) for part in (of_state, outside))
        length = int(outside.stop - outside.start)
        position = kept[outer] - outside.start
        rows = (position - stride // 2) % stride == 0 if length > stride // 2 else position == length // 2
        rows &= (position >= stride // 2) | (length <= stride // 2)
        found.append(
            Excursion(
                (int(state_of[one]), int(state_of[another])),
                length,
                descriptors[outer][rows],
                int(of_state.stop - of_state.start),
                descriptors[inner],
            )
        )
    return found, bool(len(last))

"""Which state is a frame in? States are volumes in the order of the learner; -1 stands for none of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def state_index(snapshot, states: Sequence) -> int:
    """Index of the state that holds a frame, -1 if none does.

    Raises
    ------
    ValueError
        If two states hold it: overlapping states have no committor.
    """
    for index, state in enumerate(states):
        if state(snapshot):
            also = [i for i in range(index + 1, len(states)) if states[i](snapshot)]
            if also:
                raise ValueError(
                    f"states overlap: a frame lies in states {[index, *also]} "
                    f"({', '.join(states[i].name for i in [index, *also])}); a committor needs states that exclude "
                    "each other: make them smaller"
                )
            return index
    return -1


def selectable_frames(trajectory, states: Sequence) -> np.ndarray:
    """Which frames may be shooting points: interior frames outside of all states; bool array, shape (n_frames,)."""
    selectable = np.zeros(len(trajectory), dtype=bool)
    for index, snapshot in enumerate(trajectory[1:-1] if len(trajectory) > 2 else [], start=1):
        selectable[index] = state_index(snapshot, states) < 0
    return selectable

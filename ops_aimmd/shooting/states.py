"""Which state is a frame in? States are volumes in the order of the learner; -1 stands for none of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np


def check_states(states) -> None:
    """Raise a ValueError unless the states are at least two different volumes."""
    if not isinstance(states, Sequence) or len(states) < 2 or not all(callable(state) for state in states):
        raise ValueError(f"states must be a list of at least two OPS volumes, [state_A, state_B, ...]; got {states!r}")
    for (first, one), (second, other) in combinations(enumerate(states), 2):
        if one is other or one == other:
            raise ValueError(
                f"states {first} and {second} are the same volume ({one}); states must exclude each other, and print as "
                "different strings, by which OPS tells volumes apart"
            )


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

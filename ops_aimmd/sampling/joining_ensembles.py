"""Ensembles of all paths that join two states: whether a path is in one is known from where its legs ended.

OPS asks the collective variables of each frame, several times. For a path whose legs were stopped at the first frame in
any state that says nothing new: only its ends matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import openpathsampling as paths


def joined_states(ensemble, states: Sequence) -> set[tuple[int, int]] | None:
    """Pairs of states (first frame in, last frame in) whose direct paths are the ensemble; None if it asks for more.

    Of a direct path all frames between the ends are outside of all `states`. The ensembles of transition path sampling
    are of this kind, those of transition interface sampling are not.

    Parameters
    ----------
    ensemble : openpathsampling.Ensemble
    states : sequence of openpathsampling.Volume
    """
    if isinstance(ensemble, paths.UnionEnsemble):
        parts = [joined_states(part, states) for part in (ensemble.ensemble1, ensemble.ensemble2)]
        return None if None in parts else parts[0] | parts[1]
    if not isinstance(ensemble, paths.SequentialEnsemble) or len(ensemble.ensembles) != 3:
        return None
    if any(ensemble.min_overlap) or any(ensemble.max_overlap):
        return None
    first, between, last = ensemble.ensembles
    ends = [_volume_of_one_frame(end) for end in (first, last)]
    if None in ends or type(between) is not paths.AllOutXEnsemble:
        return None
    begins, finishes, avoided = ([_index(volume, states) for volume in _united(union)] for union in (*ends, between.volume))
    if None in (*begins, *finishes, *avoided):
        return None
    return set(product(begins, finishes))


def _index(volume, states: Sequence) -> int | None:
    """Which state a volume is, None if none. OPS makes copies of volumes of one collective variable when it unites them."""
    for index, state in enumerate(states):
        if volume.__uuid__ == state.__uuid__:
            return index
        same_kind = type(volume) is type(state) and isinstance(volume, paths.CVDefinedVolume)
        if same_kind and volume.to_dict() == state.to_dict():
            return index
    return None


def _volume_of_one_frame(ensemble):
    """The volume in which the only frame of the paths of an ensemble lies; None for other ensembles."""
    if not isinstance(ensemble, paths.IntersectionEnsemble):
        return None
    parts = (ensemble.ensemble1, ensemble.ensemble2)
    volumes = [part.volume for part in parts if type(part) is paths.AllInXEnsemble]
    lengths = [part.length for part in parts if type(part) is paths.LengthEnsemble]
    return volumes[0] if len(volumes) == 1 and lengths == [1] else None


def _united(volume) -> Iterator[paths.Volume]:
    """The volumes whose union a volume is."""
    if isinstance(volume, paths.UnionVolume):
        yield from _united(volume.volume1)
        yield from _united(volume.volume2)
    else:
        yield volume

"""Ensembles of all paths that join two states: whether a path is in one is known from where its legs ended.

OPS asks the collective variables of each frame, several times. Where legs were stopped at the first frame in any
state, that says nothing new: only the ends of the path matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import openpathsampling as paths


def joined_states(ensemble, states: Sequence) -> set[tuple[int, int]] | None:
    """Pairs of states (first frame in, last frame in) with direct paths that are the ensemble; None if it asks for more.

    On a direct path only the two end frames lie in one of the `states`. The ensembles of transition path sampling
    are of this kind, those of transition interface sampling are not.
    """
    if isinstance(ensemble, paths.UnionEnsemble):
        parts = [joined_states(part, states) for part in _united(ensemble, paths.UnionEnsemble)]
        return None if None in parts else set.union(*parts)
    volumes = _volumes(ensemble)
    if volumes is None:
        return None
    begins, avoided, finishes = ([_index(volume, states) for volume in part] for part in volumes)
    if None in (*begins, *avoided, *finishes):
        return None
    return set(product(begins, finishes))


def allowed_ends(ensemble) -> tuple[set[int], set[int], set[int]] | None:
    """Volumes in which the legs of OPS's shooting moves stop, and those in which paths may begin and end.

    Known for the ensembles of transition path sampling with flexible length, of transition interface sampling, and unions
    of these that stop in the same volumes. OPS's `can_append` and `can_prepend` then stop every leg at its first frame in
    any of these volumes, and nowhere else, wherever the other end of the path is.

    Returns
    -------
    stops, begins, ends : set of int, or None
        Volumes by number: where legs stop; where the first frame of a path may be; where its last frame may be. None if
        legs stop by another rule (fixed length, minus interface, states that some paths of the ensemble pass through).
    """
    parts = [_volumes(part, interfaces=True) for part in _united(ensemble, paths.UnionEnsemble)]
    if None in parts:
        return None
    known = parts[0][1]
    begins, stops, ends = zip(*([{_index(volume, known) for volume in end} for end in part] for part in parts), strict=True)
    if any(other != stops[0] for other in stops) or not set.union(*begins, *ends) <= stops[0]:
        return None
    return stops[0], set.union(*begins), set.union(*ends)


def _volumes(ensemble, interfaces: bool = False) -> tuple[list, list, list] | None:
    """Volumes of the first frame, those that the frames between avoid, those of the last frame; None for other ensembles.

    With `interfaces` a path may have to leave a volume too, and need not have frames between: neither stops a leg.
    """
    if interfaces and type(ensemble) is paths.TISEnsemble:
        ensemble = ensemble.ensemble
    if interfaces and type(ensemble) is paths.IntersectionEnsemble and type(ensemble.ensemble2) is paths.PartOutXEnsemble:
        ensemble = ensemble.ensemble1
    if not isinstance(ensemble, paths.SequentialEnsemble) or len(ensemble.ensembles) != 3:
        return None
    if any(ensemble.min_overlap) or any(ensemble.max_overlap):
        return None
    first, between, last = ensemble.ensembles
    if interfaces and type(between) is paths.OptionalEnsemble:
        between = between.ensemble
    ends = [_volume_of_one_frame(end) for end in (first, last)]
    if None in ends or type(between) is not paths.AllOutXEnsemble:
        return None
    return tuple(list(_united(volume, paths.UnionVolume)) for volume in (ends[0], between.volume, ends[1]))


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


def _united(whole, union: type) -> Iterator:
    """The volumes, or ensembles, that a union joins."""
    if not isinstance(whole, union):
        yield whole
        return
    one, other = (whole.volume1, whole.volume2) if union is paths.UnionVolume else (whole.ensemble1, whole.ensemble2)
    yield from _united(one, union)
    yield from _united(other, union)

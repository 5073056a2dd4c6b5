"""Groups of inputs that are judged together: a mapping of group name to columns.

Sine and cosine of one angle, dihedral angles about one bond, the symmetry functions of one ion, or inputs so correlated
that no data can tell which of them matters. Every function here takes the names of all inputs and gives groups that
cover each input once; inputs that a rule does not concern stay alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral

import numpy as np

SINE_OR_COSINE = re.compile(r"(?P<angle>.+) (?:sin|cos)")

SYMMETRY_FUNCTION = re.compile(r"(?P<centre>.+) (?P<neighbours>\S+) (?P<function>G[25]) r=(?P<shell>\S+)(?: .*)?")

CORRELATED = 0.7
"""Absolute rank correlation from which inputs count as correlated: they share half of their variance."""


def by_input(names: Sequence[str]) -> dict[str, list[int]]:
    """Each input alone."""
    return {name: [column] for column, name in enumerate(names)}


def by_angle(names: Sequence[str]) -> dict[str, list[int]]:
    """Sine and cosine of one angle together: "phi ALA 2 sin" and "phi ALA 2 cos" are the group "phi ALA 2"."""
    matches = map(SINE_OR_COSINE.fullmatch, names)
    return _collect(name if match is None else match["angle"] for match, name in zip(matches, names, strict=True))


def by_central_bond(names: Sequence[str], dihedrals: Mapping[str, Sequence[int]] | None = None) -> dict[str, list[int]]:
    """Dihedral angles about one bond together, since they are nearly the same coordinate.

    ``dihedrals`` maps the name of each angle to its four atoms, as `InternalCoordinates.dihedrals` does; sines and cosines
    are found by the end of their names, and groups are named after their members, "theta, omega1". Without it the central
    bond is read from names such as "ALA 2 N - ALA 2 CA - ALA 2 C - NME 3 N sin", and is the name of the group. Raises
    ValueError if the bond of no dihedral angle is known.
    """
    angles = list(by_angle(names))
    bonds = {angle: _central_bond(angle, dihedrals) for angle in angles}
    if not any(bonds.values()):
        raise ValueError(
            f"none of the inputs {angles[:10]} is a dihedral angle with known atoms: pass "
            "dihedrals={name: four atoms}, for instance InternalCoordinates.dihedrals"
        )
    members: dict = {}
    for angle, bond in bonds.items():
        members.setdefault((bond or (angle,), bond is None), []).append(angle)
    columns = by_angle(names)
    return {
        (f"about {bond}" if isinstance(bond, str) else ", ".join(about)): sorted(sum((columns[a] for a in about), []))
        for (bond, _), about in members.items()
    }


def by_symmetry_function(names: Sequence[str], parts: Sequence[str] = ("centre",)) -> dict[str, list[int]]:
    """Symmetry functions that agree in some parts of their names, such as "Li O G5 r=0.25 zeta=16 lambda=-1".

    Parts are "centre", "neighbours", "function" and "shell"; ("centre", "neighbours") groups by ion and element: "Li O",
    "Li H", ... Raises ValueError for an unknown part, or if no input is a symmetry function.
    """
    parts = [parts] if isinstance(parts, str) else list(parts)
    unknown = set(parts) - set(SYMMETRY_FUNCTION.groupindex)
    if unknown or not parts:
        raise ValueError(f"parts must be some of {list(SYMMETRY_FUNCTION.groupindex)}; got {parts}")
    matches = [SYMMETRY_FUNCTION.fullmatch(name) for name in names]
    if not any(matches):
        raise ValueError(
            f"none of the inputs {list(names)[:5]} has the name of a symmetry function, such as 'Li O G2 r=0.25'"
        )

    def label(match):
        return " ".join(("r=" if part == "shell" else "") + match[part] for part in parts)

    return _collect(name if match is None else label(match) for match, name in zip(matches, names, strict=True))


def by_correlation(names: Sequence[str], descriptors, threshold: float = CORRELATED) -> dict[str, list[int]]:
    """Correlated inputs together: average linkage of absolute rank correlations (Spearman) of the descriptors (n, d).

    Two groups with a mean absolute correlation above the threshold become one, named after its first members, "a, b, c".
    """
    labels = correlated(descriptors, [[column] for column in range(len(names))], threshold)
    return {_joined([names[column] for column in columns]): columns for columns in _collect(labels.tolist()).values()}


def correlated(descriptors, groups: Iterable[Sequence[int]], threshold: float = CORRELATED) -> np.ndarray:
    """Label of each group of columns, (n_groups,), counted from 0 in their order; correlated groups have the same.

    The correlation of two groups is the largest absolute rank correlation between a column of one and one of the other.
    """
    from scipy.cluster.hierarchy import average, fcluster  # these take a second to import
    from scipy.spatial.distance import squareform
    from scipy.stats import rankdata

    groups = list(groups)
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold is an absolute correlation in (0, 1]; got {threshold}")
    if len(groups) < 2:
        return np.zeros(len(groups), dtype=int)
    ranks = rankdata(np.asarray(descriptors, dtype=np.float64), axis=0)
    ranks = ranks - ranks.mean(axis=0)
    lengths = np.linalg.norm(ranks, axis=0)
    ranks = ranks / np.where(lengths > 0, lengths, 1)  # a constant column correlates with nothing
    correlation = np.abs(ranks.T @ ranks)
    starts = np.cumsum([0] + [len(group) for group in groups])[:-1]
    order = np.concatenate([np.asarray(group) for group in groups])
    correlation = np.maximum.reduceat(correlation[np.ix_(order, order)], starts, axis=0)
    correlation = np.maximum.reduceat(correlation, starts, axis=1)
    distance = np.clip(1 - correlation, 0, 1)
    np.fill_diagonal(distance, 0)
    tree = average(squareform(distance, checks=False))
    labels = fcluster(tree, 1 - threshold + 1e-12, criterion="distance")
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


GROUPINGS = {"inputs": by_input, "angles": by_angle, "bonds": by_central_bond, "centres": by_symmetry_function}
"""Rules that need nothing but names."""


def resolve_groups(groups, names: Sequence[str], descriptors) -> dict[str, list[int]]:
    """Groups as columns, each column in exactly one; see `input_relevance` for what ``groups`` may be.

    Raises ValueError for an unknown rule or input, an empty group, or inputs in several groups.
    """
    if groups is None:
        return by_angle(names)
    if isinstance(groups, str):
        if groups == "correlation":
            return by_correlation(names, descriptors)
        if groups not in GROUPINGS:
            raise ValueError(f"groups must be one of {[*GROUPINGS, 'correlation']}, or a mapping; got {groups!r}")
        return GROUPINGS[groups](names)
    found = {name: columns_of(members, names) for name, members in groups.items()}
    taken = [column for columns in found.values() for column in columns]
    twice = sorted({names[column] for column in taken if taken.count(column) > 1})
    empty = [name for name, columns in found.items() if not columns]
    if twice or empty:
        raise ValueError(f"each input must be in one group, and no group empty: in several are {twice}, empty are {empty}")
    alone = {names[column]: [column] for column in sorted(set(range(len(names))) - set(taken))}
    clash = sorted(set(alone) & set(found))
    if clash:
        raise ValueError(f"the names {clash} are those of groups, and of inputs that are in no group: rename the groups")
    return {**{str(name): sorted(columns) for name, columns in found.items()}, **alone}


def columns_of(inputs, names: Sequence[str]) -> list[int]:
    """Columns of inputs that are given by name or number; raises ValueError for others."""
    is_list = isinstance(inputs, Iterable) and not isinstance(inputs, str)
    if not is_list or any(isinstance(i, bool) or not isinstance(i, (str, Integral)) for i in inputs):
        raise ValueError(f"inputs must be a list of names or numbers, such as {list(names[:2])}; got {inputs!r}")
    for i in inputs:
        if (i not in names) if isinstance(i, str) else not 0 <= i < len(names):
            raise ValueError(f"there is no input {i!r}; they count from 0 to {len(names) - 1}: {list(names)[:20]}")
    return [list(names).index(i) if isinstance(i, str) else int(i) for i in inputs]


def check_names(names, n_inputs: int, default: str = "input {}") -> list[str]:
    """Names of the inputs, by default "input 0", "input 1", ...; raises ValueError unless there is one for each input."""
    if names is None:
        return [default.format(column) for column in range(n_inputs)]
    if isinstance(names, str):
        raise ValueError(f"names must be a list with one name per input; got the string {names!r}")
    names = [str(name) for name in names]
    if len(names) != n_inputs:
        raise ValueError(f"got {len(names)} names for {n_inputs} inputs: {names[:10]}")
    if len(set(names)) < n_inputs:
        raise ValueError(
            f"names of inputs must differ; repeated are {sorted({n for n in names if names.count(n) > 1})[:10]}"
        )
    return names


def _central_bond(angle: str, dihedrals):
    """Central atoms as a sorted pair of numbers, or in words; None where they are not known."""
    if dihedrals is not None:
        return tuple(sorted(dihedrals[angle][1:3])) if angle in dihedrals else None
    atoms = angle.split(" - ")
    return " - ".join(sorted(atoms[1:3])) if len(atoms) == 4 else None


def _collect(labels: Iterable) -> dict:
    """Columns by their label, in the order of the first column of each."""
    groups: dict = {}
    for column, label in enumerate(labels):
        groups.setdefault(label, []).append(column)
    return groups


def _joined(names: Sequence[str], at_most: int = 4) -> str:
    rest = len(names) - at_most
    return ", ".join(names) if rest <= 0 else ", ".join(names[:at_most]) + f" and {rest} more"

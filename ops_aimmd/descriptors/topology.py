"""Internal coordinates chosen by name: selections in MDTraj's language on a topology of MDTraj or OpenMM.

::

    topology = engine.topology.mdtraj                                     # of an OPS engine, or an OpenMM topology
    descriptors = JoinedDescriptors([
        backbone_dihedrals(topology, ["phi", "psi"]),                     # "phi ALA 2 sin", "phi ALA 2 cos", ...
        pair_distances(topology, "resname LI", "resname CL", periodic=True),
    ])

Names are unique. Where several atoms are called "ALA 2 CA", because chains are numbered alike, molecules are copies, or a
ligand calls all its carbon atoms C, MDTraj's own words tell them apart: "ALA 2 CA chainid 1", "HOH 1 O resid 10203",
"LIG 1 C index 2" (all count from 0).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from ops_aimmd.descriptors.internal import InternalCoordinates

BACKBONE = ("phi", "psi", "omega")
SIDE_CHAIN = ("chi1", "chi2", "chi3", "chi4", "chi5")

PLACES = {
    "chainid": lambda atom: atom.residue.chain.index,
    "resid": lambda atom: atom.residue.index,
    "index": lambda atom: atom.index,
}
"""Words of MDTraj's selection language that tell atoms of one name apart, in the order in which they are tried."""


def select(topology, selection: str) -> np.ndarray:
    """Atoms of a selection.

    Parameters
    ----------
    topology : mdtraj.Topology or openmm.app.Topology
    selection : str
        In MDTraj's language: "protein and not element H", "resname LI", "name CA and resSeq 1 to 5".

    Returns
    -------
    array of int, sorted

    Raises
    ------
    ValueError
        If the selection cannot be read or selects nothing.
    """
    topology = as_mdtraj(topology)
    try:
        atoms = topology.select(selection)
    except Exception as error:  # the parser raises many kinds
        raise ValueError(f"MDTraj cannot read the selection {selection!r}: {error}") from error
    if len(atoms) == 0:
        residues = sorted({residue.name for residue in topology.residues})[:20]
        raise ValueError(
            f"the selection {selection!r} is empty; the topology has {topology.n_atoms} atoms in the residues {residues}"
        )
    return np.sort(atoms)


def as_mdtraj(topology):
    """MDTraj topology of a topology of MDTraj or OpenMM."""
    import mdtraj

    if isinstance(topology, mdtraj.Topology):
        return topology
    try:
        return mdtraj.Topology.from_openmm(topology)
    except TypeError as error:
        raise TypeError(
            f"got a {type(topology).__name__}, expected a topology of MDTraj or OpenMM; of an OPS engine it is "
            "engine.topology.mdtraj"
        ) from error


def pair_distances(
    topology, selection: str, other_selection: str | None = None, periodic: bool = False
) -> InternalCoordinates:
    """All distances between the atoms of two selections, or within one; named "ALA 2 CA - NME 3 N" (see `labels`).

    Parameters
    ----------
    topology : mdtraj.Topology or openmm.app.Topology
    selection, other_selection : str
        In MDTraj's language.
    periodic : bool
        Between nearest periodic images.

    Raises
    ------
    ValueError
        For a selection that is empty or leaves no pair.
    """
    topology = as_mdtraj(topology)
    first = select(topology, selection)
    if other_selection is None:
        pairs: Iterable = itertools.combinations(first, 2)
    else:
        pairs = itertools.product(first, select(topology, other_selection))
    chosen = dict.fromkeys(tuple(sorted(map(int, pair))) for pair in pairs if pair[0] != pair[1])
    if not chosen:
        raise ValueError(f"the selection {selection!r} holds the only atom {first.tolist()}: there is no distance in it")
    return InternalCoordinates(distances=_named(topology, chosen), periodic=periodic)


def heavy_atom_distances(topology, selection: str = "not water", periodic: bool = False) -> InternalCoordinates:
    """Distances of all pairs of atoms heavier than hydrogen in a selection; virtual sites have no mass and are left out."""
    return pair_distances(topology, f"({selection}) and not (element H or element VS)", periodic=periodic)


def bond_angles(topology, selection: str = "not water", periodic: bool = False) -> InternalCoordinates:
    """All angles between bonds of atoms of a selection, in radians; named "ALA 2 N - ALA 2 CA - ALA 2 C".

    Parameters and errors as in :func:`pair_distances`.
    """
    topology = as_mdtraj(topology)
    neighbours = _bonded(topology, select(topology, selection))
    triples = [
        (i, centre, j) for centre, around in neighbours.items() for i, j in itertools.combinations(sorted(around), 2)
    ]
    if not triples:
        raise ValueError(f"there are no three bonded atoms in the selection {selection!r}")
    return InternalCoordinates(angles=_named(topology, triples), periodic=periodic)


def bond_dihedrals(topology, selection: str = "not water", periodic: bool = False) -> InternalCoordinates:
    """Sines and cosines of all dihedral angles along bonds; named "ALA 2 N - ALA 2 CA - ALA 2 C - NME 3 N sin".

    Several turn about the same central bond: give their columns as one group where their importance is asked for.
    Parameters and errors as in :func:`pair_distances`.
    """
    topology = as_mdtraj(topology)
    neighbours = _bonded(topology, select(topology, selection))
    quadruples = [
        (i, j, k, l)
        for j in neighbours
        for k in sorted(neighbours[j])
        if j < k
        for i in sorted(neighbours[j] - {k})
        for l in sorted(neighbours[k] - {i, j})  # noqa: E741
    ]
    if not quadruples:
        raise ValueError(f"there are no four bonded atoms in the selection {selection!r}")
    return InternalCoordinates(dihedrals=_named(topology, quadruples), periodic=periodic)


def backbone_dihedrals(topology, kinds: Sequence[str] = BACKBONE, periodic: bool = False) -> InternalCoordinates:
    """Sines and cosines of the dihedral angles of a protein that have names: "phi ALA 2 sin", "phi ALA 2 cos".

    Parameters
    ----------
    topology : mdtraj.Topology or openmm.app.Topology
    kinds : sequence of str
        Among phi, psi, omega and chi1 to chi5. The residue is that of the atom CA that turns; for omega, of the first.
    periodic : bool

    Raises
    ------
    ValueError
        For an unknown kind, or where the topology has none of them.
    """
    from mdtraj.geometry import dihedral

    topology = as_mdtraj(topology)
    names, turning, found = [], [], []
    for kind in dict.fromkeys(kinds):
        if kind not in BACKBONE + SIDE_CHAIN:
            raise ValueError(f"got the dihedral {kind!r}, expected some of {BACKBONE + SIDE_CHAIN}")
        for atoms in getattr(dihedral, f"indices_{kind}")(topology):
            turning.append(topology.atom(int(atoms[1 if kind != "phi" else 2])))
            names.append(f"{kind} {turning[-1].residue.name} {turning[-1].residue.resSeq}")
            found.append([int(atom) for atom in atoms])
    if not found:
        raise ValueError(f"the topology has no dihedral angles {list(kinds)}: is it a protein?")
    return InternalCoordinates(dihedrals=dict(zip(_told_apart(names, turning), found, strict=True)), periodic=periodic)


def labels(topology) -> list[str]:
    """Name of each atom: "ALA 2 CA", with "chainid 1", "resid 7" or "index 30" behind it where several have this name."""
    atoms = list(as_mdtraj(topology).atoms)
    return _told_apart([f"{atom.residue.name} {atom.residue.resSeq} {atom.name}" for atom in atoms], atoms)


def _told_apart(names: Sequence[str], atoms: Sequence) -> list[str]:
    """Names that are unique: equal ones get the first of `PLACES` in which all of their atoms differ."""
    alike: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        alike.setdefault(name, []).append(number)
    names = list(names)
    for numbers in alike.values():
        if len(numbers) == 1:
            continue
        places = {word: [place_of(atoms[number]) for number in numbers] for word, place_of in PLACES.items()}
        word = next((word for word in places if len(set(places[word])) == len(numbers)), "index")
        for number, place in zip(numbers, places[word], strict=True):
            names[number] += f" {word} {place}"
    return names


def _named(topology, tuples: Iterable[Sequence[int]]) -> dict:
    names = labels(topology)
    return {" - ".join(names[atom] for atom in atoms): atoms for atoms in tuples}


def _bonded(topology, atoms):
    chosen = set(atoms.tolist())
    neighbours: dict[int, set[int]] = {atom: set() for atom in sorted(chosen)}
    for bond in topology.bonds:
        i, j = bond.atom1.index, bond.atom2.index
        if i in chosen and j in chosen:
            neighbours[i].add(j)
            neighbours[j].add(i)
    return neighbours

"""Internal coordinates chosen by name: selections in MDTraj's language on a topology of MDTraj or OpenMM.

::

    topology = engine.topology.mdtraj                                     # of an OPS engine, or an OpenMM topology
    descriptors = JoinedDescriptors([
        backbone_dihedrals(topology, ["phi", "psi"]),                     # "phi ALA 2 sin", "phi ALA 2 cos", ...
        pair_distances(topology, "resname LI", "resname CL", periodic=True),
    ])
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from .internal import InternalCoordinates

BACKBONE = ("phi", "psi", "omega")
SIDE_CHAIN = ("chi1", "chi2", "chi3", "chi4", "chi5")


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
    """All distances between the atoms of two selections, or within one; named "ALA 2 CA - NME 3 N".

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
        pairs = itertools.combinations(first, 2)
    else:
        pairs = itertools.product(first, select(topology, other_selection))
    chosen = dict.fromkeys(tuple(sorted(map(int, pair))) for pair in pairs if pair[0] != pair[1])
    if not chosen:
        raise ValueError(f"the selection {selection!r} holds the only atom {first.tolist()}: there is no distance in it")
    return InternalCoordinates(
        distances={" - ".join(label(topology, atom) for atom in pair): pair for pair in chosen}, periodic=periodic
    )


def heavy_atom_distances(topology, selection: str = "not water", periodic: bool = False) -> InternalCoordinates:
    """Distances of all pairs of atoms heavier than hydrogen in a selection."""
    return pair_distances(topology, f"({selection}) and not element H", periodic=periodic)


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
    found = {}
    for kind in kinds:
        if kind not in BACKBONE + SIDE_CHAIN:
            raise ValueError(f"got the dihedral {kind!r}, expected some of {BACKBONE + SIDE_CHAIN}")
        for atoms in getattr(dihedral, f"indices_{kind}")(topology):
            residue = topology.atom(int(atoms[1 if kind != "phi" else 2])).residue
            found[f"{kind} {residue.name} {residue.resSeq}"] = [int(atom) for atom in atoms]
    if not found:
        raise ValueError(f"the topology has no dihedral angles {list(kinds)}: is it a protein?")
    return InternalCoordinates(dihedrals=found, periodic=periodic)


def label(topology, atom: int) -> str:
    """Name of an atom: "ALA 2 CA"."""
    atom = topology.atom(int(atom))
    return f"{atom.residue.name} {atom.residue.resSeq} {atom.name}"


def _named(topology, tuples):
    return {" - ".join(label(topology, atom) for atom in atoms): atoms for atoms in tuples}


def _bonded(topology, atoms):
    chosen = set(atoms.tolist())
    neighbours: dict[int, set[int]] = {atom: set() for atom in sorted(chosen)}
    for bond in topology.bonds:
        i, j = bond.atom1.index, bond.atom2.index
        if i in chosen and j in chosen:
            neighbours[i].add(j)
            neighbours[j].add(i)
    return neighbours

"""Cubic boxes of TIP3P water with the density of 1 bar."""

import numpy as np
from openmm import unit

VOLUME_PER_WATER = 0.0304
"""nm^3: the mean volume of a box of 270 waters and an ion pair at 300 K and 1 bar over the number of waters, as
`benchmarks/licl.py volume` prints it."""


def edge_of_box(n_waters, volume_of_solute=0.0):
    """Edge in nm of a cubic box of `n_waters` waters and a solute of `volume_of_solute` nm^3."""
    return (n_waters * VOLUME_PER_WATER + volume_of_solute) ** (1 / 3)


def to_normal_density(topology, positions, edge):
    """Shrink a cubic box as OpenMM fills it, too thinly; molecules move as a whole, and so does the solute.

    Sets the box of the topology, in which residues HOH are the water and everything else is the solute. Minimise the energy
    afterwards.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : numpy.ndarray, shape (n_atoms, 3)
        nm; molecules are whole.
    edge : float
        nm.

    Returns
    -------
    positions, box : numpy.ndarray, shapes (n_atoms, 3) and (3, 3)
    """
    old_edge = topology.getPeriodicBoxVectors()[0][0].value_in_unit(unit.nanometer)
    shift = edge / old_edge - 1.0
    moved = np.empty_like(positions)
    residues = [(residue.name, [atom.index for atom in residue.atoms()]) for residue in topology.residues()]
    solute = [index for name, atoms in residues if name != "HOH" for index in atoms]
    moved[solute] = positions[solute] + shift * positions[solute].mean(axis=0)
    for name, atoms in residues:
        if name == "HOH":
            moved[atoms] = positions[atoms] + shift * positions[atoms[0]]
    box = np.eye(3) * edge
    topology.setPeriodicBoxVectors(box * unit.nanometer)
    return moved, box

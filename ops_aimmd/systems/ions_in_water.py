r"""Dissociation of an ion pair in water, LiCl or NaCl, ready for OPS: a reaction in which the solvent takes part.

::

    system = lithium_chloride()
    network = system.network()
    trajectory = ops_aimmd.initial_path(system.start(seed=1), system.distance, system.states, seed=1)

One cation and one chloride in TIP3P water with the ions of Joung and Cheatham (J. Phys. Chem. B 112, 9020 (2008),
doi:10.1021/jp8001614; OpenMM's ``amber14/tip3p.xml``), particle-mesh Ewald with a cut-off of 1.0 nm, rigid water, constant
volume, 300 K, BAOAB Langevin dynamics with friction 1/ps and steps of 2 fs, a frame every 10 steps. The states are
intervals of the distance of the ions between nearest periodic images. The descriptors are this distance and, of the
oxygen and the hydrogen atoms around each ion, the symmetry functions of
`ops_aimmd.descriptors.symmetry.SymmetryFunctions`: 221 in all.

The box has 270 waters because OpenMM demands half an edge to be no shorter than the cut-off, which 244 waters at 1 bar
would miss. Its volume is the mean at 1 bar (`ops_aimmd.systems.water_box`).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import openmm
import openpathsampling as paths
from openmm import app, unit

from ops_aimmd.descriptors.descriptor_set import JoinedDescriptors
from ops_aimmd.descriptors.internal import InternalCoordinates
from ops_aimmd.descriptors.symmetry import SymmetryFunctions
from ops_aimmd.systems.descriptor_cv import DescriptorCV
from ops_aimmd.systems.molecular_system import MolecularSystem, minimised, molecular_engine
from ops_aimmd.systems.water_box import VOLUME_PER_WATER, edge_of_box, to_normal_density

CUTOFF = 1.0
"""Cutoff of the direct-space interactions and of the symmetry functions, nm."""


@dataclasses.dataclass(frozen=True, eq=False)
class IonPair(MolecularSystem):
    """An ion pair in water with everything that path sampling needs; made by :func:`lithium_chloride`, `sodium_chloride`.

    Parameters
    ----------
    distance : DescriptorCV
        Distance of the ions in nm, between nearest periodic images.
    **others
        As in `MolecularSystem`. The states, bound and unbound, are intervals of the distance; the 221 descriptors are the
        distance and 220 symmetry functions, "r", "Li O G2 r=0.25", ...
    """

    distance: DescriptorCV


def lithium_chloride(n_waters=270, temperature=300.0, platform=None, n_frames_max=5000) -> IonPair:
    """LiCl in TIP3P water with an initialised OPS engine, states and descriptors.

    Bound: r < 0.23 nm, about the mean distance of the contact pair; unbound: r > 0.48 nm.

    Parameters
    ----------
    n_waters : int
        At least 264, see `VOLUME_PER_WATER`.
    temperature : float
        In kelvin.
    platform : str, optional
        OpenMM platform; the fastest that works here, if left out: CUDA, OpenCL, CPU.
    n_frames_max : int
        Length limit of the engine.

    Raises
    ------
    ValueError
        For too few waters, or a platform that OpenMM does not have.
    """
    return _ion_pair("Li", (0.23, 0.48), n_waters, temperature, platform, n_frames_max)


def sodium_chloride(n_waters=270, temperature=300.0, platform=None, n_frames_max=5000):
    """NaCl in TIP3P water with an initialised OPS engine, states and descriptors.

    Bound: r < 0.30 nm; unbound: r > 0.50 nm, with water between the ions. The potential of mean force has its minima at
    0.27 and 0.53 nm, 2.6 kT apart, and a barrier at 0.37 nm of 5 kT (`benchmarks/licl.py profile --cation Na`). Another
    barrier, at 0.61 nm, is 2.6 kT above the second minimum: "unbound" from 0.60 nm on would make that minimum a part of
    every path. Arguments, result and errors as in :func:`lithium_chloride`.
    """
    return _ion_pair("Na", (0.30, 0.50), n_waters, temperature, platform, n_frames_max)


def _ion_pair(cation, limits, n_waters, temperature, platform, n_frames_max):
    topology, positions = solvated_pair(cation, n_waters)
    edge = edge_of_box(n_waters)
    if edge < 2 * CUTOFF:
        raise ValueError(
            f"{n_waters} waters at 1 bar fill a box with edges of {edge:.3f} nm, less than two cut-offs of {CUTOFF} nm: "
            f"take at least {int(np.ceil((2 * CUTOFF) ** 3 / VOLUME_PER_WATER))} waters"
        )
    positions, box = to_normal_density(topology, positions, edge)
    system = force_field_system(topology, CUTOFF)
    engine = molecular_engine(f"{cation}Cl in water", topology, system, temperature, platform, n_frames_max)
    distance, descriptors = pair_descriptors(topology)
    # OPS compares collective variables and volumes by their names: those of different systems must differ
    distance = DescriptorCV(f"{cation}Cl distance", distance)
    states = [
        paths.CVDefinedVolume(distance, 0.0, limits[0]).named(f"{cation}Cl bound"),
        paths.CVDefinedVolume(distance, limits[1], float("inf")).named(f"{cation}Cl unbound"),
    ]
    return IonPair(
        name=f"{cation}Cl",
        engine=engine,
        states=states,
        distance=distance,
        descriptors=DescriptorCV(f"{cation}Cl descriptors", descriptors),
        temperature=float(temperature),
        positions=minimised(engine, positions, box),
        box=box,
    )


def solvated_pair(cation, n_waters, separation=0.25):
    """Topology and positions of an ion pair in OpenMM's own water box, in the order cation, chloride, waters.

    The cation is "Li" or "Na", `separation` nm from the chloride. The positions (n_atoms, 3) are in nm, and molecules are
    whole; the density is below that at 1 bar, see `to_normal_density`.
    """
    topology = app.Topology()
    chain = topology.addChain()
    for symbol in (cation, "Cl"):
        residue = topology.addResidue(symbol.upper(), chain)
        topology.addAtom(symbol.upper(), app.Element.getBySymbol(symbol), residue)
    modeller = app.Modeller(topology, [openmm.Vec3(0, 0, 0), openmm.Vec3(separation, 0, 0)] * unit.nanometer)
    modeller.addSolvent(app.ForceField("amber14/tip3p.xml"), model="tip3p", numAdded=n_waters, neutralize=False)
    return modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer))


def force_field_system(topology, cutoff):
    """OpenMM system with particle-mesh Ewald, a cut-off in nm, and rigid water."""
    return app.ForceField("amber14/tip3p.xml").createSystem(
        topology, nonbondedMethod=app.PME, nonbondedCutoff=cutoff * unit.nanometer, constraints=app.HBonds, rigidWater=True
    )


def pair_descriptors(topology):
    """Distance of the ions, and all 221 descriptors, for a topology of `solvated_pair`."""
    ions = {atom.element.symbol: atom.index for atom in topology.atoms() if atom.residue.name != "HOH"}
    waters = [atom for atom in topology.atoms() if atom.residue.name == "HOH"]
    neighbours = {kind: [atom.index for atom in waters if atom.element.symbol == kind] for kind in ("O", "H")}
    distance = InternalCoordinates(distances={"r": list(ions.values())}, periodic=True)
    return distance, JoinedDescriptors([distance, SymmetryFunctions(ions, neighbours, cutoff=CUTOFF)])

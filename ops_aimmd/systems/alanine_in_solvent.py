r"""Alanine dipeptide in water or implicit solvent, C7eq to alpha_R, ready for OPS.

::

    system = alanine_in_solvent("implicit")         # or "water"
    network = system.network()
    trajectory = ops_aimmd.initial_path(system.start(seed=1), system.progress, system.states, seed=1)

The easier sister of the transition in vacuum (`ops_aimmd.systems.alanine_dipeptide`): psi turns, and hardly anything else
matters. In vacuum alpha_R is no state, so this needs a solvent.

Force field AMBER99SB-ILDN (Lindorff-Larsen et al., Proteins 78, 1950 (2010), doi:10.1002/prot.22711; OpenMM's own files)
with TIP3P water, particle-mesh Ewald and constant volume, or with the implicit solvent of Onufriev, Bashford and Case
(Proteins 55, 383 (2004), doi:10.1002/prot.20033); bonds to H constrained, 300 K, BAOAB Langevin dynamics with friction 1/ps
and steps of 2 fs, a frame every 10 steps. C7eq: phi in [-180, 0], psi in [120, 200] degrees; alpha_R: phi in [-180, 0], psi
in [-50, 30] degrees.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import openpathsampling as paths
from openmm import app, unit

from ops_aimmd.descriptors.internal import InternalCoordinates
from ops_aimmd.systems.alanine_dipeptide import DIHEDRALS, alanine_testsystem
from ops_aimmd.systems.descriptor_cv import DescriptorCV
from ops_aimmd.systems.dihedrals import DihedralAngleCV, PeriodicDistanceCV
from ops_aimmd.systems.molecular_system import MolecularSystem, minimised, molecular_engine
from ops_aimmd.systems.water_box import edge_of_box, to_normal_density

PHI, PHI_HALF_WIDTH = -90.0, 90.0
PSI = {"C7eq": 160.0, "alpha_R": -10.0}
PSI_HALF_WIDTH = 40.0
"""States: (phi, psi) within these half widths around these centres, degrees."""

PADDING = 1.0
"""Water on each side of the molecule in the box of OpenMM, nm; makes some 230 waters."""

CUTOFF = 0.9
"""nm"""

VOLUME = 0.21
"""nm^3: of the molecule in water, from its mass and a density of 1.15 g/cm^3; the box has 35 times as much."""


@dataclasses.dataclass(frozen=True, eq=False)
class AlanineInSolvent(MolecularSystem):
    """Alanine dipeptide in solvent with everything that path sampling needs; made by :func:`alanine_in_solvent`.

    Parameters
    ----------
    phi_psi : openpathsampling.CollectiveVariable
        phi and psi in degrees, (n_frames, 2).
    **others
        As in `MolecularSystem`. The descriptors "phi sin", "phi cos", ... are the sines and cosines of all dihedral angles
        of the molecule; no descriptor sees the water.
    """

    phi_psi: paths.CollectiveVariable

    def progress(self, snapshot):
        """How far psi has turned towards alpha_R, for `initial_path`: minus the distance in degrees."""
        return -abs((float(self.phi_psi(snapshot)[1]) - PSI["alpha_R"] + 180.0) % 360.0 - 180.0)


def alanine_in_solvent(solvent="implicit", temperature=300.0, platform=None, n_frames_max=5000) -> AlanineInSolvent:
    """Alanine dipeptide in solvent with an initialised OPS engine, states and descriptors.

    Parameters
    ----------
    solvent : {"implicit", "water"}
        Generalised Born, or TIP3P molecules.
    temperature : float
        In kelvin.
    platform : str, optional
        OpenMM platform; left out: "Reference" for the 22 atoms in implicit solvent, else the fastest that works here
        (CUDA, OpenCL, CPU).
    n_frames_max : int
        Length limit of the engine.

    Raises
    ------
    ValueError
        For another solvent.
    """
    if solvent not in ("implicit", "water"):
        raise ValueError(f"got the solvent {solvent!r}, expected 'implicit' or 'water'")
    testsystem = alanine_testsystem()
    if solvent == "implicit":
        topology, positions, box = testsystem.topology, testsystem.positions, None
        system = app.ForceField("amber99sbildn.xml", "amber99_obc.xml").createSystem(
            topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds
        )
        platform = "Reference" if platform is None else platform
    else:
        topology, positions, box, system = _in_water(testsystem)
    name = f"alanine dipeptide, {solvent}"
    engine = molecular_engine(name, topology, system, temperature, platform, n_frames_max)
    phi_psi = DihedralAngleCV("phi_psi", [DIHEDRALS["phi"], DIHEDRALS["psi"]])
    phi, psi = (DihedralAngleCV(angle, [DIHEDRALS[angle]]) for angle in ("phi", "psi"))
    left = _near(phi, PHI, PHI_HALF_WIDTH)
    return AlanineInSolvent(
        name=name,
        engine=engine,
        states=[(left & _near(psi, centre, PSI_HALF_WIDTH)).named(state) for state, centre in PSI.items()],
        descriptors=DescriptorCV("descriptors", InternalCoordinates(dihedrals=DIHEDRALS)),
        temperature=float(temperature),
        positions=minimised(engine, positions, box),
        box=box,
        phi_psi=phi_psi,
    )


def _near(angle, centre, half_width):
    """Volume in which a dihedral angle is near a centre."""
    distance = PeriodicDistanceCV(f"{angle.name} from {centre:g}", angle, [centre])
    return paths.CVDefinedVolume(distance, 0.0, half_width)


def _in_water(testsystem):
    force_field = app.ForceField("amber99sbildn.xml", "tip3p.xml")
    modeller = app.Modeller(testsystem.topology, testsystem.positions)
    modeller.addSolvent(force_field, model="tip3p", padding=PADDING * unit.nanometer)
    topology = modeller.topology
    n_waters = sum(residue.name == "HOH" for residue in topology.residues())
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    positions, box = to_normal_density(topology, positions, edge_of_box(n_waters, VOLUME))
    system = force_field.createSystem(
        topology, nonbondedMethod=app.PME, nonbondedCutoff=CUTOFF * unit.nanometer, constraints=app.HBonds
    )
    return topology, positions, box, system

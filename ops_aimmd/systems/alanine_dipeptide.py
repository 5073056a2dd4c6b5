r"""Alanine dipeptide in vacuum, C7eq to C7ax, ready for OPS: the standard test of a method that finds reaction coordinates.

::

    system = alanine_dipeptide()
    network = system.network()
    trajectory = system.initial_trajectory(seed=1)

The two dihedral angles of the Ramachandran plot, phi and psi, tell the states apart but do not describe the transition:
theta, the angle O-C-N-CA before phi, is needed too (Bolhuis, Dellago, Chandler, PNAS 97, 5877 (2000),
doi:10.1073/pnas.100127697). The descriptors here hold these three among others.

Force field and states: `openmmtools.testsystems.AlanineDipeptideVacuum` (AMBER ff96, bonds to H constrained), 300 K,
BAOAB Langevin dynamics with friction 1/ps and steps of 2 fs, a frame every 10 steps. Minimising 150 frames of a run at
1000 K gives three minima of the potential energy, (phi, psi) in degrees and the energy above the lowest in kJ/mol: C7eq
(-74, 75) 0.0, C5 (-148, 160) 0.9, C7ax (62, -66) 7.8. The states are the disks of 30 degrees around (-80, 75) for C7eq
and (65, -60) for C7ax. In 400 ps at 300 K from each, the frames inside the disks scatter around (-77 +- 9, 79 +- 13) and
(62 +- 9, -65 +- 12); C7ax keeps to its disk for 85 % of the time, the left half is shared between the disk of C7eq (30 %)
and C5 (63 %), which belongs to no state: transition paths may pass through it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openmm
import openpathsampling as paths
from openmm import app, unit

from ops_aimmd.descriptors.internal import InternalCoordinates
from ops_aimmd.systems.descriptor_cv import DescriptorCV
from ops_aimmd.systems.dihedrals import DihedralAngleCV, PeriodicDistanceCV
from ops_aimmd.systems.molecular_system import MolecularSystem, minimised, molecular_engine

# atoms: 0-5 H1 CH3 H2 H3 C O of ACE, 6-15 N H CA HA CB HB1 HB2 HB3 C O of ALA, 16-21 N H C H1 H2 H3 of NME
DIHEDRALS = {
    "phi": [4, 6, 8, 14],  # C-N-CA-C
    "psi": [6, 8, 14, 16],  # N-CA-C-N
    "theta": [5, 4, 6, 8],  # O-C-N-CA, before phi
    "omega1": [1, 4, 6, 8],  # CH3-C-N-CA: the bond of theta, from the other side
    "theta2": [15, 14, 16, 18],  # O-C-N-CH3, after psi
    "omega2": [8, 14, 16, 18],  # CA-C-N-CH3: the bond of theta2, from the other side
    "chi": [6, 8, 10, 11],  # N-CA-CB-HB1, the side chain
    "methyl ACE": [0, 1, 4, 6],  # H1-CH3-C-N
    "methyl NME": [14, 16, 18, 19],  # C-N-CH3-H1
}
CENTRES = {"C7eq": [-80.0, 75.0], "C7ax": [65.0, -60.0]}
RADIUS = 30.0


class AlanineFiles(NamedTuple):
    """Topology, OpenMM system and positions of the test system."""

    topology: app.Topology
    system: openmm.System
    positions: unit.Quantity


@dataclasses.dataclass(frozen=True, eq=False)
class AlanineDipeptide(MolecularSystem):
    """Alanine dipeptide with everything that path sampling needs; made by :func:`alanine_dipeptide`.

    Parameters
    ----------
    phi_psi : openpathsampling.CollectiveVariable
        phi and psi in degrees, (n_frames, 2).
    **others
        As in `MolecularSystem`. The states C7eq and C7ax are disks in (phi, psi); the descriptors "phi sin", "phi cos", ...
        are the sines and cosines of all dihedral angles; the positions are those of the test system, minimised (in C5).
    """

    phi_psi: paths.CollectiveVariable

    def channel(self, trajectory):
        """Where a transition path goes from phi < 0 to phi > 0: its last change of sign.

        There are several channels with little exchange between them; only chains from different initial paths show all.

        Parameters
        ----------
        trajectory : openpathsampling.Trajectory
            from C7eq to C7ax or back.

        Returns
        -------
        phi : int
            0 or 180: where phi changes sign.
        psi : float
            psi in degrees at the first frame with phi > 0 (of the last crossing, in the direction C7eq to C7ax).

        Raises
        ------
        ValueError
            if the trajectory does not change sides.
        """
        angles = np.asarray(self.phi_psi(trajectory))
        right = angles[:, 0] > 0.0
        if right[0] == right[-1]:
            raise ValueError(
                "the trajectory begins and ends on the same side of phi = 0, expected a path between C7eq and C7ax"
            )
        if right[0]:
            angles, right = angles[::-1], right[::-1]
        first = np.flatnonzero(~right)[-1] + 1
        return (0 if abs(angles[first, 0]) < 90.0 else 180), float(angles[first, 1])

    def initial_trajectory(self, seed, temperature=800.0, n_frames=200_000) -> paths.Trajectory:
        """A transition path from C7eq to C7ax out of hot dynamics.

        Dynamics at a high temperature run until they have been in C7eq and reach C7ax; the piece between the last frame in
        C7eq and the first in C7ax is the path: all its frames but the two ends lie outside of the states, and its length
        is within the engine's ``n_frames_max``. It has the frame spacing of the engine, which owns the frames, but the
        velocities and the channel of the high temperature: let the sampling forget it, and start several chains from
        different seeds. On the way about one seed in two crosses phi = 180 instead of phi = 0 (`channel`).

        Parameters
        ----------
        seed : int or numpy.random.Generator
            fixes the path; no global generator and no engine is touched.
        temperature : float
            in kelvin; higher is faster and less like the paths at the temperature of the engine.
        n_frames : int
            frames of hot dynamics before giving up. The default takes seconds, at most a minute.

        Raises
        ------
        RuntimeError
            if C7ax was not reached.
        """
        state_A, state_B = self.states
        path = []
        # the Reference platform is the fastest for 22 atoms, and gives the same path everywhere
        for snapshot in self._fresh_frames(np.random.default_rng(seed), temperature, n_frames, platform="Reference"):
            if state_A(snapshot):
                path = [snapshot]
            elif path:
                path.append(snapshot)
                if state_B(snapshot):
                    if len(path) <= self.engine.options["n_frames_max"]:
                        return paths.Trajectory(path)
                    path = []
        raise RuntimeError(
            f"{n_frames} frames of dynamics at {temperature} K gave no path from C7eq to C7ax of at most "
            f"{self.engine.options['n_frames_max']} frames; raise temperature, n_frames or the engine's n_frames_max"
        )


def alanine_dipeptide(temperature=300.0, platform="Reference", n_frames_max=2000) -> AlanineDipeptide:
    """Alanine dipeptide in vacuum with an initialised OPS engine, states and descriptors.

    Parameters
    ----------
    temperature : float
        in kelvin.
    platform : str or None
        OpenMM platform. "Reference" is the fastest for 22 atoms in vacuum; None: the one OpenMM takes for the fastest.
    n_frames_max : int
        length limit of the engine; mean path lengths are 40-90 frames.
    """
    testsystem = alanine_testsystem()
    engine = molecular_engine(
        "alanine dipeptide", testsystem.topology, testsystem.system, temperature, platform, n_frames_max
    )
    phi_psi = DihedralAngleCV("phi_psi", [DIHEDRALS["phi"], DIHEDRALS["psi"]])
    states = [
        paths.CVDefinedVolume(PeriodicDistanceCV(f"distance_{name}", phi_psi, centre), 0.0, RADIUS).named(name)
        for name, centre in CENTRES.items()
    ]
    return AlanineDipeptide(
        name="alanine dipeptide",
        engine=engine,
        states=states,
        descriptors=DescriptorCV("descriptors", InternalCoordinates(dihedrals=DIHEDRALS)),
        phi_psi=phi_psi,
        temperature=float(temperature),
        positions=minimised(engine, testsystem.positions, None, tolerance=10.0, max_iterations=0),
        box=None,
    )


def alanine_testsystem() -> AlanineFiles:
    """`openmmtools.testsystems.AlanineDipeptideVacuum` from its files: the package itself takes seconds to import."""
    package = importlib.util.find_spec("openmmtools")
    if package is None:
        raise ModuleNotFoundError("alanine dipeptide comes with openmmtools, which is not installed", name="openmmtools")
    name = str(Path(package.origin).parent / "data" / "alanine-dipeptide-gbsa" / "alanine-dipeptide")
    parameters = app.AmberPrmtopFile(f"{name}.prmtop")
    system = parameters.createSystem(constraints=app.HBonds)
    return AlanineFiles(parameters.topology, system, app.AmberInpcrdFile(f"{name}.crd").getPositions(asNumpy=True))

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
would miss. Its volume is `VOLUME_PER_WATER` for each water, the mean at 1 bar.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import openmm
import openpathsampling as paths
from openmm import app, unit
from openpathsampling.engines import openmm as ops_openmm
from openpathsampling.engines.topology import MDTrajTopology

from ops_aimmd.descriptors.descriptor_set import JoinedDescriptors
from ops_aimmd.descriptors.internal import InternalCoordinates
from ops_aimmd.descriptors.symmetry import SymmetryFunctions
from ops_aimmd.systems.descriptor_cv import DescriptorCV
from ops_aimmd.systems.integrators import baoab_integrator

CUTOFF = 1.0
"""Of the direct-space interactions and of the symmetry functions, nm."""

VOLUME_PER_WATER = 0.0304
"""nm^3: the mean volume of a box of 270 waters and the ions at 300 K and 1 bar over the number of waters, as
`benchmarks/licl.py --volume` prints it."""


@dataclasses.dataclass(frozen=True, eq=False)
class IonPair:
    """An ion pair in water with everything that path sampling needs; made by :func:`lithium_chloride`, `sodium_chloride`.

    Parameters
    ----------
    name : str
    engine : openpathsampling.engines.openmm.Engine
    states : list of two OPS volumes
        bound and unbound: intervals of the distance, defined through a storable collective variable.
    distance : DescriptorCV
        Distance of the ions in nm, between nearest periodic images.
    descriptors : DescriptorCV
        The distance and 220 symmetry functions, (n_frames, 221).
    temperature : float
        In kelvin.
    positions : numpy.ndarray, shape (n_atoms, 3)
        nm; ions in contact in minimised, not yet equilibrated water.
    box : numpy.ndarray, shape (3, 3)
        nm.
    """

    name: str
    engine: ops_openmm.Engine
    states: list
    distance: DescriptorCV
    descriptors: DescriptorCV
    temperature: float
    positions: np.ndarray
    box: np.ndarray

    @property
    def descriptor_names(self) -> list[str]:
        """Name of each descriptor: "r", "Li O G2 r=0.25", ..."""
        return self.descriptors.names

    def network(self, all_to_all=False):
        """A fresh OPS network: paths from bound to unbound, or (``all_to_all``) also back.

        Returns
        -------
        openpathsampling.TPSNetwork
        """
        if all_to_all:
            return paths.TPSNetwork.from_states_all_to_all(self.states)
        return paths.TPSNetwork(*self.states)

    def start(self, seed, n_frames=1000):
        """A frame of the bound pair in equilibrated water.

        Dynamics at the temperature of the engine from the minimised positions, in a context of its own: the engine is left
        alone. The last bound frame is taken, should the pair dissociate on the way.

        Parameters
        ----------
        seed : int or numpy.random.Generator
            Fixes the frame, as far as the platform gives the same forces twice.
        n_frames : int
            Frames of dynamics, 20 fs each. The default takes about half a minute on one core.

        Returns
        -------
        openpathsampling snapshot, which belongs to the engine

        Raises
        ------
        RuntimeError
            If no frame of the second half was bound.
        """
        rng = np.random.default_rng(seed)
        integrator = _integrator(self.temperature)
        integrator_seed, velocity_seed = (int(number) for number in rng.integers(1, 2**31 - 1, size=2))
        integrator.setRandomNumberSeed(integrator_seed)
        platform = openmm.Platform.getPlatformByName(self.engine.platform)
        context = openmm.Context(self.engine.system, integrator, platform, self.engine.openmm_properties)
        context.setPeriodicBoxVectors(*self.box)
        context.setPositions(self.positions)
        context.setVelocitiesToTemperature(self.temperature * unit.kelvin, velocity_seed)
        n_steps = self.engine.options["n_steps_per_frame"]
        integrator.step(n_steps * (n_frames // 2))
        start = None
        for _ in range(n_frames - n_frames // 2):
            integrator.step(n_steps)
            snapshot = self._snapshot(context.getState(positions=True, velocities=True))
            if self.states[0](snapshot):
                start = snapshot
        if start is None:
            raise RuntimeError(
                f"no bound frame in the second half of {n_frames} frames: the last distance is "
                f"{self.distance(snapshot):.3f} nm; take another seed"
            )
        return start

    def _snapshot(self, state):
        return ops_openmm.Snapshot.construct(
            coordinates=state.getPositions(asNumpy=True),
            box_vectors=state.getPeriodicBoxVectors(asNumpy=True),
            velocities=state.getVelocities(asNumpy=True),
            engine=self.engine,
        )


def lithium_chloride(n_waters=270, temperature=300.0, platform=None, n_frames_max=5000):
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

    Returns
    -------
    IonPair

    Raises
    ------
    ValueError
        For too few waters, or a platform that OpenMM does not have.
    """
    return _ion_pair("Li", (0.23, 0.48), n_waters, temperature, platform, n_frames_max)


def sodium_chloride(n_waters=270, temperature=300.0, platform=None, n_frames_max=5000):
    """NaCl in TIP3P water with an initialised OPS engine, states and descriptors.

    Bound: r < 0.30 nm; unbound: r > 0.60 nm. Arguments, result and errors as in :func:`lithium_chloride`.
    """
    return _ion_pair("Na", (0.30, 0.60), n_waters, temperature, platform, n_frames_max)


def _ion_pair(cation, limits, n_waters, temperature, platform, n_frames_max):
    topology, positions = solvated_pair(cation, n_waters)
    edge = (n_waters * VOLUME_PER_WATER) ** (1 / 3)
    if edge < 2 * CUTOFF:
        raise ValueError(
            f"{n_waters} waters at 1 bar fill a box with edges of {edge:.3f} nm, less than two cut-offs of {CUTOFF} nm: "
            f"take at least {int(np.ceil((2 * CUTOFF) ** 3 / VOLUME_PER_WATER))} waters"
        )
    positions, box = rescaled(topology, positions, edge)
    system = force_field_system(topology, CUTOFF)
    platform, properties = fastest_platform() if platform is None else (platform, PLATFORM_PROPERTIES.get(platform, {}))
    engine = ops_openmm.Engine(
        ops_topology(topology),
        system,
        _integrator(temperature),
        openmm_properties=properties,
        options={"n_steps_per_frame": 10, "n_frames_max": n_frames_max},
    ).named(f"{cation}Cl in water")
    engine.initialize(platform)
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
        positions=_minimum(system, positions, box, platform, properties),
        box=box,
    )


def solvated_pair(cation, n_waters, separation=0.25):
    """Topology and positions of an ion pair in OpenMM's own water box, in the order cation, chloride, waters.

    Parameters
    ----------
    cation : {"Li", "Na"}
    n_waters : int
    separation : float
        Of the ions, nm.

    Returns
    -------
    topology : openmm.app.Topology
    positions : numpy.ndarray, shape (n_atoms, 3)
        nm; molecules are whole. The density is below that at 1 bar, see `rescaled`.
    """
    topology = app.Topology()
    chain = topology.addChain()
    for symbol in (cation, "Cl"):
        residue = topology.addResidue(symbol.upper(), chain)
        topology.addAtom(symbol.upper(), app.Element.getBySymbol(symbol), residue)
    modeller = app.Modeller(topology, [openmm.Vec3(0, 0, 0), openmm.Vec3(separation, 0, 0)] * unit.nanometer)
    modeller.addSolvent(app.ForceField("amber14/tip3p.xml"), model="tip3p", numAdded=n_waters, neutralize=False)
    return modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer))


def rescaled(topology, positions, edge):
    """Shrink a cubic box: molecules move as a whole, and the ions keep their distance.

    Sets the box of the topology.

    Returns
    -------
    positions : numpy.ndarray, shape (n_atoms, 3)
    box : numpy.ndarray, shape (3, 3)
    """
    old_edge = topology.getPeriodicBoxVectors()[0][0].value_in_unit(unit.nanometer)
    positions = positions.copy()
    pair = positions[:2].mean(axis=0)
    for residue in topology.residues():
        atoms = [atom.index for atom in residue.atoms()]
        centre = pair if residue.name != "HOH" else positions[atoms[0]].copy()
        positions[atoms] += centre * (edge / old_edge - 1.0)
    box = np.eye(3) * edge
    topology.setPeriodicBoxVectors(box * unit.nanometer)
    return positions, box


def force_field_system(topology, cutoff):
    """OpenMM system with particle-mesh Ewald and rigid water.

    Returns
    -------
    openmm.System
    """
    return app.ForceField("amber14/tip3p.xml").createSystem(
        topology, nonbondedMethod=app.PME, nonbondedCutoff=cutoff * unit.nanometer, constraints=app.HBonds, rigidWater=True
    )


def pair_descriptors(topology):
    """Distance of the ions, and all 221 descriptors.

    Parameters
    ----------
    topology : openmm.app.Topology
        Of `solvated_pair`.

    Returns
    -------
    distance : InternalCoordinates
    descriptors : JoinedDescriptors
    """
    ions = {atom.element.symbol: atom.index for atom in topology.atoms() if atom.residue.name != "HOH"}
    waters = [atom for atom in topology.atoms() if atom.residue.name == "HOH"]
    neighbours = {kind: [atom.index for atom in waters if atom.element.symbol == kind] for kind in ("O", "H")}
    distance = InternalCoordinates(distances={"r": list(ions.values())}, periodic=True)
    return distance, JoinedDescriptors([distance, SymmetryFunctions(ions, neighbours, cutoff=CUTOFF)])


def ops_topology(topology):
    """OPS topology of an OpenMM topology."""
    import mdtraj

    return MDTrajTopology(mdtraj.Topology.from_openmm(topology))


PLATFORM_PROPERTIES = {"CUDA": {"Precision": "mixed"}, "OpenCL": {"Precision": "mixed"}}
"""Positions and velocities in double precision, as the reversal of paths needs them."""


def fastest_platform():
    """The first of CUDA, OpenCL and CPU on which a context can be made, with its properties.

    A platform that OpenMM lists may still lack a device.

    Returns
    -------
    name : str
    properties : dict
    """
    system = openmm.System()
    system.addParticle(1.0)
    available = {openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())}
    for name in ("CUDA", "OpenCL", "CPU"):
        if name not in available:
            continue
        try:
            openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(name))
        except openmm.OpenMMException:
            continue
        return name, PLATFORM_PROPERTIES.get(name, {})
    return "Reference", {}


def _integrator(temperature):
    return baoab_integrator(temperature * unit.kelvin, 1.0 / unit.picosecond, 2.0 * unit.femtosecond)


def _minimum(system, positions, box, platform, properties):
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform), properties
    )
    context.setPeriodicBoxVectors(*box)
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, 100.0, 200)
    return context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)

"""What ready-made molecular systems have in common: OPS engine, platform, states, a frame to start from."""

from __future__ import annotations

import dataclasses

import numpy as np
import openmm
from openmm import unit
from openpathsampling.engines import openmm as ops_openmm
from openpathsampling.engines.topology import MDTrajTopology

from ops_aimmd.engines.integrators import baoab_integrator
from ops_aimmd.systems.descriptor_cv import DescriptorCV
from ops_aimmd.systems.two_states import TwoStates

PLATFORM_PROPERTIES = {"CUDA": {"Precision": "mixed"}, "OpenCL": {"Precision": "mixed"}}
"""Positions and velocities in double precision, as the reversal of paths needs them."""

N_STEPS_PER_FRAME = 10
"""Steps of 2 fs between two frames."""

ATTEMPTS = 5
"""Runs from which a frame of the first state is wanted before giving up."""


@dataclasses.dataclass(frozen=True, eq=False)
class MolecularSystem(TwoStates):
    """A molecular system with everything that path sampling needs.

    Parameters
    ----------
    engine : openpathsampling.engines.openmm.Engine
    states : list of two OPS volumes
    descriptors : DescriptorCV
        Shape (n_frames, n_descriptors); the name of each column is in ``descriptors.names``.
    temperature : float
        In kelvin.
    positions : numpy.ndarray, shape (n_atoms, 3)
        nm; in the first state, minimised, not yet equilibrated.
    box : numpy.ndarray, shape (3, 3), or None
        nm; None where nothing is periodic.
    """

    name: str
    engine: ops_openmm.Engine
    states: list
    descriptors: DescriptorCV
    temperature: float
    positions: np.ndarray
    box: np.ndarray | None

    def start(self, seed, n_frames=1000):
        """A frame of the first state, from dynamics in which the surroundings relax.

        Dynamics at the temperature of the engine from the minimised positions, in a context of its own: the engine is left
        alone. The last frame in the first state is taken, should the system leave it on the way; where it left too early,
        the dynamics start again.

        Parameters
        ----------
        seed : int or numpy.random.Generator
            Fixes the frame, as far as the platform gives the same forces twice.
        n_frames : int
            Frames of dynamics, 20 fs each. The default takes about half a minute for 800 atoms on one core.

        Returns
        -------
        openpathsampling snapshot, which belongs to the engine

        Raises
        ------
        RuntimeError
            If, several times, no frame of the second half was in the first state.
        """
        rng = np.random.default_rng(seed)
        for _ in range(ATTEMPTS):
            frames = self._fresh_frames(rng, self.temperature, n_frames, skip=n_frames // 2)
            inside = [frame for frame in frames if self.states[0](frame)]
            if inside:
                return inside[-1]
        raise RuntimeError(
            f"{ATTEMPTS} times no frame of the second half of {n_frames} frames was in {self.states[0].name!r}: is it "
            "metastable? Take fewer frames or another seed"
        )

    def _fresh_frames(self, rng, temperature, n_frames, skip=0, platform=None):
        """Frames of dynamics from the minimised positions, in a context of its own; the first `skip` are left out."""
        integrator = langevin(temperature)
        integrator_seed, velocity_seed = (int(number) for number in rng.integers(1, 2**31 - 1, size=2))
        integrator.setRandomNumberSeed(integrator_seed)
        properties = self.engine.openmm_properties if platform is None else {}
        platform = openmm.Platform.getPlatformByName(self.engine.platform if platform is None else platform)
        context = openmm.Context(self.engine.system, integrator, platform, properties)
        if self.box is not None:
            context.setPeriodicBoxVectors(*self.box)
        context.setPositions(self.positions)
        context.setVelocitiesToTemperature(temperature * unit.kelvin, velocity_seed)
        integrator.step(N_STEPS_PER_FRAME * skip)
        for _ in range(n_frames - skip):
            integrator.step(N_STEPS_PER_FRAME)
            yield self.snapshot(context.getState(positions=True, velocities=True))

    def snapshot(self, state):
        """OPS snapshot of an OpenMM state with positions and velocities."""
        return ops_openmm.Snapshot.construct(
            coordinates=state.getPositions(asNumpy=True),
            box_vectors=state.getPeriodicBoxVectors(asNumpy=True),
            velocities=state.getVelocities(asNumpy=True),
            engine=self.engine,
        )


def molecular_engine(name, topology, system, temperature, platform, n_frames_max):
    """An initialised OPS engine with BAOAB Langevin dynamics, friction 1/ps, steps of 2 fs, a frame every 10 steps.

    Topology and system are those of OpenMM, the temperature is in kelvin; platform None: `fastest_platform`.
    """
    import mdtraj

    platform, properties = fastest_platform() if platform is None else (platform, PLATFORM_PROPERTIES.get(platform, {}))
    engine = ops_openmm.Engine(
        MDTrajTopology(mdtraj.Topology.from_openmm(topology)),
        system,
        langevin(temperature),
        openmm_properties=properties,
        options={"n_steps_per_frame": N_STEPS_PER_FRAME, "n_frames_max": n_frames_max},
    ).named(name)
    engine.initialize(platform)
    return engine


def langevin(temperature):
    """BAOAB integrator, friction 1/ps, steps of 2 fs, at a temperature in kelvin."""
    return baoab_integrator(temperature * unit.kelvin, 1.0 / unit.picosecond, 2.0 * unit.femtosecond)


def minimised(engine, positions, box, tolerance=100.0, max_iterations=200):
    """Positions (n_atoms, 3) in nm after minimising the energy of an engine's system; tolerance in kJ/mol/nm."""
    platform = openmm.Platform.getPlatformByName(engine.platform)
    context = openmm.Context(engine.system, openmm.VerletIntegrator(0.001), platform, engine.openmm_properties)
    if box is not None:
        context.setPeriodicBoxVectors(*box)
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, tolerance, max_iterations)
    return context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def fastest_platform():
    """Name and properties of the first of CUDA, OpenCL and CPU on which a context can be made.

    A platform that OpenMM lists may still lack a device.
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

"""How hot do the paths of alanine dipeptide become, if the velocities of the integrator leap behind the positions?

Mean kinetic energy in kT of the frames of the current path over MC steps, 25.5 for Boltzmann velocities (51 degrees of
freedom). Transition paths are somewhat hotter than plain dynamics, since they have come down from the barrier.

    python benchmarks/reversibility.py        # about five minutes
"""

import argparse
import contextlib
import io
import os
import warnings

import numpy as np
import openmm
import openpathsampling as paths
import pandas as pd
from openmm import unit
from openpathsampling.engines import openmm as ops_openmm

import ops_aimmd
from ops_aimmd.engines.integrators import baoab_integrator
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide

SETTINGS = 300.0 * unit.kelvin, 1.0 / unit.picosecond, 2.0 * unit.femtosecond
INTEGRATORS = {"LangevinMiddleIntegrator": openmm.LangevinMiddleIntegrator, "BAOAB": baoab_integrator}
THERMAL_ENERGY = (unit.MOLAR_GAS_CONSTANT_R * SETTINGS[0]).value_in_unit(unit.kilojoule_per_mole)


def kinetic_energies(frames, masses):
    """Kinetic energy of each frame in kT."""
    velocities = np.array([frame.velocities.value_in_unit(unit.nanometer / unit.picosecond) for frame in frames])
    return 0.5 * (masses[:, None] * velocities**2).sum(axis=(1, 2)) / THERMAL_ENERGY


def make_engine(system, integrator):
    """The engine of the system with another integrator."""
    engine = ops_openmm.Engine(
        system.engine.topology, system.engine.system, integrator, options=dict(system.engine.options)
    )
    engine.initialize("Reference")
    return engine


def path_energies(system, engine, masses, shooting, n_steps):
    """Mean kinetic energy of the current path after each step; ends where the molecule bursts."""
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=1)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=engine, shooting=shooting)
        conditions = scheme.initial_conditions_from_trajectories(system.initial_trajectory(seed=1))
    sampler = paths.PathSampling(None, scheme, conditions)
    sampler.output_stream = open(os.devnull, "w")
    sampler.attach_hook(ops_aimmd.TrainingHook(learner))
    energies = []
    for _ in range(n_steps):
        sampler.run(1)
        energies.append(kinetic_energies(sampler.sample_set[0].trajectory[1:-1], masses).mean())
    return np.array(energies)


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    n_steps = parser.parse_args().steps
    system = alanine_dipeptide()
    openmm_system = system.engine.system
    masses = np.array([openmm_system.getParticleMass(i)._value for i in range(openmm_system.getNumParticles())])
    rows = []
    for name, make_integrator in INTEGRATORS.items():
        for shooting in ("two-way", "one-way"):
            energies = path_energies(system, make_engine(system, make_integrator(*SETTINGS)), masses, shooting, n_steps)
            thirds = [part.mean() for part in np.array_split(energies, 3)]
            rows.append([name, shooting, *thirds])
    print(pd.DataFrame(rows, columns=["integrator", "shooting", "first third", "second", "last"]).to_string(index=False))


if __name__ == "__main__":
    main()

"""Path sampling on a machine-learned potential: the forces of the engine come from a torch model.

Hot dynamics of alanine dipeptide in vacuum give energies and forces; a small network of inverse distances learns them; an
OpenMM system whose only force is this network (`openmm.PythonForce`) makes an OPS engine. From there on nothing differs
from a run with a force field: guided path sampling of C7eq -> C7ax, learning of the committor, files, resume.

Takes about six minutes on one core (`--quick`: half a minute). Writes learned_potential.nc (an OPS file),
learned_potential.aimmd (what was learned) and learned_potential.png. When the files of an earlier call are there, the run
goes on from them: OPS keeps the engine, OpenMM pickles the function of the force, weights included, with it. What reads
the engine from the OPS file needs this script's class `TorchForce`; put it in a module of your own to use the file
elsewhere, and open no file that you do not trust, since unpickling runs code.
Expected: a force error of 110 kJ/mol/nm on frames of 500 and 900 K, whose forces are about 1000; dynamics that keep bonds
within 0.02 nm of their mean in 50 ps; 0.5 to 0.6 of the shots give a transition path. The paths are those of the learned
potential; how well it describes the barrier, of which hot dynamics show few frames, is not checked here.
"""

import argparse
import os
import time

import matplotlib.pyplot as plt
import numpy as np
import openmm
import openpathsampling as paths
import torch
from openmm import unit
from openpathsampling.engines import openmm as ops_openmm

import ops_aimmd
from ops_aimmd.analysis import plots, step_table
from ops_aimmd.systems import langevin
from ops_aimmd.systems.alanine_dipeptide import CENTRES, RADIUS, alanine_dipeptide

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=100, help="MC steps of the whole run, those of earlier calls included")
parser.add_argument("--quick", action="store_true", help="a rough potential, and only 5 steps")
arguments = parser.parse_args()
n_steps = 5 if arguments.quick else arguments.steps
n_frames, n_epochs = (1500, 800) if arguments.quick else (8000, 8000)
torch.set_num_threads(1)  # the network is small
torch.manual_seed(1)


class LearnedPotential(torch.nn.Module):
    """Energy as a function of all inverse distances, which know nothing of translations and rotations."""

    def __init__(self, positions, energies, width=96):
        super().__init__()
        self.register_buffer("pairs", torch.triu_indices(positions.shape[1], positions.shape[1], 1))
        inverse = self.inverse_distances(positions)
        self.register_buffer("mean", inverse.mean(dim=0))
        self.register_buffer("std", inverse.std(dim=0).clamp(min=0.02))  # constraints keep some distances constant
        self.register_buffer("mean_energy", energies.mean())
        self.register_buffer("std_energy", energies.std())
        self.network = torch.nn.Sequential(
            torch.nn.Linear(len(self.mean), width),
            torch.nn.SiLU(),
            torch.nn.Linear(width, width),
            torch.nn.SiLU(),
            torch.nn.Linear(width, 1),
        )

    def inverse_distances(self, positions):
        first, second = self.pairs
        return (positions[:, first] - positions[:, second]).square().sum(dim=-1).rsqrt()

    def forward(self, positions):
        inputs = (self.inverse_distances(positions) - self.mean) / self.std
        return self.mean_energy + self.std_energy * self.network(inputs)[:, 0]

    def energies_and_forces(self, positions, differentiable=False):
        """kJ/mol (n,) and kJ/mol/nm (n, n_atoms, 3)."""
        positions = positions.detach().requires_grad_(True)
        energies = self(positions)
        (gradient,) = torch.autograd.grad(energies.sum(), positions, create_graph=differentiable)
        return energies, -gradient


class TorchForce:
    """What OpenMM calls in each step of the dynamics; it is pickled with the engine."""

    def __init__(self, potential):
        self.potential = potential

    def __call__(self, state):
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        energy, forces = self.potential.energies_and_forces(torch.tensor(positions[None], dtype=torch.float32))
        return float(energy.detach()), forces[0].numpy().astype(float)


def langevin_context(system, temperature, seed, positions):
    integrator = langevin(temperature)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    context.setVelocitiesToTemperature(temperature * unit.kelvin, seed)
    return context


def reference_data(system, n_frames):
    """Positions, energies and forces of hot dynamics, as float32 tensors."""
    frames = []
    for seed, temperature in enumerate((500.0, 900.0), start=1):
        context = langevin_context(system.engine.system, temperature, seed, system.positions)
        context.getIntegrator().step(1000)
        for _ in range(n_frames // 2):
            context.getIntegrator().step(25)
            state = context.getState(positions=True, energy=True, forces=True)
            frames.append((state.getPositions(asNumpy=True), state.getPotentialEnergy(), state.getForces(asNumpy=True)))
    values = [np.array([part._value for part in column]) for column in zip(*frames, strict=True)]
    return [torch.tensor(value, dtype=torch.float32) for value in values]


def train(positions, energies, forces, n_epochs, batch=50, learning_rate=3e-3):
    """Learn from energies and forces with Adam."""
    potential = LearnedPotential(positions, energies)
    optimiser = torch.optim.Adam(potential.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=n_epochs, pct_start=0.1)
    for _ in range(n_epochs):
        rows = torch.randint(len(positions), (batch,))
        predicted, of_forces = potential.energies_and_forces(positions[rows], differentiable=True)
        loss = ((of_forces - forces[rows]) / forces.std()).square().mean()
        loss = loss + 0.1 * ((predicted - energies[rows]) / energies.std()).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return potential.requires_grad_(False)


def learned_engine(system, potential):
    """The engine of the system with other forces."""
    learned = openmm.System()
    for atom in range(system.engine.system.getNumParticles()):
        learned.addParticle(system.engine.system.getParticleMass(atom))
    for constraint in range(system.engine.system.getNumConstraints()):
        learned.addConstraint(*system.engine.system.getConstraintParameters(constraint))
    learned.addForce(openmm.PythonForce(TorchForce(potential)))
    learned.addForce(openmm.CMMotionRemover())
    options = {name: system.engine.options[name] for name in ("n_steps_per_frame", "n_frames_max")}
    engine = ops_openmm.Engine(system.engine.topology, learned, langevin(system.temperature), options=options)
    engine.initialize("Reference")
    return engine.named("alanine dipeptide, learned forces")


def free_dynamics(system, engine, n_ps):
    """Mean kinetic temperature, and the largest distance of a bond length from its mean in nm."""
    context = langevin_context(engine.system, system.temperature, 3, system.positions)
    bonds = np.array([(first.index, second.index) for first, second in engine.topology.mdtraj.bonds])
    kinetic, lengths = [], []
    for _ in range(10 * n_ps):
        context.getIntegrator().step(50)
        state = context.getState(positions=True, energy=True)
        x = state.getPositions(asNumpy=True)._value
        kinetic.append(state.getKineticEnergy()._value)
        lengths.append(np.linalg.norm(x[bonds[:, 0]] - x[bonds[:, 1]], axis=1))
    freedom = 3 * len(x) - engine.system.getNumConstraints() - 3
    stray = np.abs(np.array(lengths) - np.mean(lengths, axis=0)).max()
    return 2 * np.mean(kinetic) / freedom / unit.MOLAR_GAS_CONSTANT_R._value * 1000, stray


def new_run():
    """Learn the potential, and prepare path sampling on it."""
    system = alanine_dipeptide()
    print("energies and forces of hot dynamics ...")
    positions, energies, forces = reference_data(system, n_frames + 500)
    order = torch.randperm(len(positions))
    known, held_out = order[500:], order[:500]
    print(f"learning the potential from {n_frames} frames ...")
    begin = time.time()
    potential = train(positions[known], energies[known], forces[known], n_epochs)
    error = potential.energies_and_forces(positions[held_out])[1] - forces[held_out]
    rmse, scatter = (float(f.square().mean().sqrt()) for f in (error, forces[held_out]))
    print(f"{time.time() - begin:.0f} s; force RMSE on 500 other frames {rmse:.0f} kJ/mol/nm (the forces: {scatter:.0f})")
    engine = learned_engine(system, potential)
    n_ps = 5 if arguments.quick else 50
    temperature, stray = free_dynamics(system, engine, n_ps)
    expected = free_dynamics(system, system.engine, n_ps)
    print(f"{n_ps} ps of free dynamics: kinetic temperature {temperature:.0f} K, bonds within {stray:.4f} nm of their mean")
    print("with the force field: {:.0f} K, {:.4f} nm".format(*expected))
    if not stray < 0.03:
        raise SystemExit("the learned potential does not hold the molecule together: more frames, or a longer training")
    frames = [  # a path of the force field, from which sampling moves away
        ops_openmm.Snapshot.construct(
            coordinates=frame.coordinates, box_vectors=frame.box_vectors, velocities=frame.velocities, engine=engine
        )
        for frame in system.initial_trajectory(seed=1)
    ]
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=1)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=engine)
    sampler = paths.PathSampling(
        storage=paths.Storage("learned_potential.nc", "w"),
        move_scheme=scheme,
        sample_set=scheme.initial_conditions_from_trajectories(paths.Trajectory(frames)),
    )
    sampler.attach_hook(ops_aimmd.TrainingHook(learner, checkpoint="learned_potential.aimmd"))
    return sampler


def main():
    if os.path.exists("learned_potential.aimmd"):
        sampler = ops_aimmd.resume("learned_potential.nc", checkpoint="learned_potential.aimmd")
    else:
        sampler = new_run()
    learner = sampler.move_scheme.learner
    sampler.attach_hook(ops_aimmd.ProgressBar(learner))
    sampler.run(max(0, n_steps - sampler.step))

    table = step_table(sampler.storage.steps, learner.states)
    late = table[len(table) // 3 :]
    print(f"generated {late.generated.mean():.2f}, accepted {late.accepted.mean():.2f} after the first third")
    print(f"mean path length {late.path_length.mean():.0f} frames")
    print("last training:", learner.last_report)

    phi_psi = learner.states[0].collectivevariable.angles
    accepted = [step.active[0].trajectory for step in sampler.storage.steps if step.change.canonical.accepted][-60:]
    degrees = [np.asarray(phi_psi(path)) for path in accepted]
    committor = np.concatenate([learner.committor(path) for path in accepted])
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    hexagons = plots.plot_committor_map(axes[0], *np.concatenate(degrees).T, committor)
    for name, centre in CENTRES.items():
        plots.plot_disk(axes[0], centre, RADIUS, name)
    figure.colorbar(hexagons, ax=axes[0], label="learned committor of C7ax")
    axes[0].set(xlabel="phi (degrees)", ylabel="psi (degrees)", xlim=(-180, 180), ylim=(-180, 180))
    axes[0].set_title("transition paths on the learned potential")
    plots.plot_counts(axes[1], table)
    axes[1].set_title("expected and generated transition paths")
    figure.savefig("learned_potential.png", dpi=150)
    sampler.storage.close()
    print("wrote learned_potential.nc, learned_potential.aimmd and learned_potential.png")


main()

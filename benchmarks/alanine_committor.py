"""Does the committor that guided sampling of alanine dipeptide has learned predict fresh shots?

Learns in guided chains from several initial paths, one after another, each beginning with all shots of those before, and at
last from all shots together. Descriptors are the sines and cosines of all dihedral angles and, unless told otherwise, the
distances of all heavy atoms and between the oxygens and the amide hydrogens.
Held-out configurations come from plain one-way runs that never informed the model, from other initial paths, one in each
reaction channel. They are spread evenly along the predicted committor, and each is shot with Boltzmann velocities through
the OPS engine. Prints the calibration: slope and intercept of observed against predicted log-odds (1 and 0 are right), and
the error of the committor with the shot noise subtracted; then the same for the configurations of each plain run.

    python benchmarks/alanine_committor.py                 # about half an hour
    python benchmarks/alanine_committor.py --chains 1 --steps 600          # one chain knows one channel
    python benchmarks/alanine_committor.py --dihedrals-only
    python benchmarks/alanine_committor.py --checkpoint alanine_dipeptide.aimmd    # a learner of the example
"""

import argparse
import contextlib
import io
import itertools
import os

import numpy as np
import openpathsampling as paths
from alanine_dipeptide import make_scheme

import ops_aimmd
from ops_aimmd import committor_simulation
from ops_aimmd.engines.frames import positions_of
from ops_aimmd.runs import spread_along_committor
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide

LEARNING = (1, 5, 10, 4)
"""Initial paths across phi 0 at psi -79 and +72, across phi 180 at psi -135 and -42 degrees."""

HELD_OUT = (2, 7, 12)
"""Initial paths across phi 0 at psi -94 and +121, across phi 180 at psi 174 degrees."""


HEAVY = (1, 4, 5, 6, 8, 10, 14, 15, 16, 18)
POLAR = ((5, 7), (5, 17), (15, 7), (15, 17), (5, 15), (7, 17))
"""Heavy atoms; oxygens and amide hydrogens among each other."""

LAST_FIT = {"weight_decay": 0.1}
"""Of the last fit: the default prior is made for hundreds of shots, not for thousands."""


class DihedralsAndDistances:
    """Descriptors of a trajectory: sines and cosines of the dihedral angles, and distances in nm."""

    def __init__(self, system):
        self.dihedrals = system.descriptors
        self.first, self.second = np.array([*itertools.combinations(HEAVY, 2), *POLAR]).T

    def __call__(self, trajectory):
        """Array (n_frames, n_descriptors)."""
        positions = positions_of(trajectory)
        distances = np.linalg.norm(positions[:, self.first] - positions[:, self.second], axis=-1)
        return np.concatenate([np.asarray(self.dihedrals(trajectory)), distances], axis=1)


def sample(system, scheme, seed, n_steps, learner=None):
    """Run a scheme; returns its current path after every fifth step."""
    with contextlib.redirect_stdout(io.StringIO()):
        conditions = scheme.initial_conditions_from_trajectories(system.initial_trajectory(seed))
    sampler = paths.PathSampling(None, scheme, conditions)
    sampler.output_stream = open(os.devnull, "w")
    if learner is not None:
        sampler.attach_hook(ops_aimmd.TrainingHook(learner))
    trajectories = []
    for _ in range(n_steps // 5):
        sampler.run(5)
        trajectories.append(sampler.sample_set[0].trajectory)
    return trajectories


def learn(system, descriptors, method, n_chains, n_steps):
    """A learner of several chains."""
    known = None
    for seed in LEARNING[:n_chains]:
        learner = ops_aimmd.CommittorLearner(descriptors, states=system.states, seed=seed, training_set=known)
        if known is not None:
            learner.fit()
        sample(system, make_scheme(method, system, learner), seed, n_steps, learner)
        known = learner.training_set
    learner = ops_aimmd.CommittorLearner(descriptors, system.states, seed=1, training_set=known, fit_options=LAST_FIT)
    learner.fit()
    return learner


def main():
    """Learn, shoot, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", help="use the learner of this run instead of a new one")
    parser.add_argument("--method", default="guided two-way", help="of the chains that are learned from")
    parser.add_argument("--chains", type=int, default=4, choices=range(1, len(LEARNING) + 1))
    parser.add_argument("--steps", type=int, default=600, help="MC steps of each guided chain")
    parser.add_argument("--dihedrals-only", action="store_true", help="no distances")
    parser.add_argument("--plain-steps", type=int, default=300, help="MC steps of the plain runs")
    parser.add_argument("--configurations", type=int, default=60)
    parser.add_argument("--shots", type=int, default=50)
    arguments = parser.parse_args()
    system = alanine_dipeptide()
    descriptors = system.descriptors if arguments.dihedrals_only else DihedralsAndDistances(system)
    if arguments.checkpoint:
        learner = ops_aimmd.load_learner(arguments.checkpoint, system.descriptors, system.states)
    else:
        learner = learn(system, descriptors, arguments.method, arguments.chains, arguments.steps)
    print(learner.last_report)

    plain = []
    for seed in HELD_OUT:
        scheme = paths.OneWayShootingMoveScheme(system.network(), engine=system.engine)
        plain.append(sample(system, scheme, seed, arguments.plain_steps))
    pooled = [trajectory for trajectories in plain for trajectory in trajectories]
    chosen = spread_along_committor(pooled, learner, arguments.configurations, seed=1)
    result = committor_simulation(chosen, learner, system.engine, arguments.shots, seed=1, progress=False)
    print(f"\n{len(chosen)} configurations of {len(plain)} plain runs x {arguments.shots} shots")
    print(result, flush=True)
    for seed, trajectories in zip(HELD_OUT, plain, strict=True):
        frames = {frame.__uuid__ for trajectory in trajectories for frame in trajectory}
        mine = np.array([snapshot.__uuid__ in frames for snapshot in chosen])
        phi, psi = system.channel(system.initial_trajectory(seed))
        print(f"\nof these {mine.sum()} of the run whose first path went across phi {phi}, psi {psi:.0f}")
        print(ops_aimmd.calibration(result.predicted[mine], result.counts[mine], legs_are_shots=True))


if __name__ == "__main__":
    main()

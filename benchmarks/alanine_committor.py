"""Does the committor that guided sampling of alanine dipeptide has learned predict fresh shots?

Learns in a guided run. Held-out configurations come from plain one-way runs that never informed the model, one that
started from the same path as the guided run and one from another path, maybe in a reaction channel that the model has not
seen. They are spread evenly along the predicted committor, and each is shot with Boltzmann velocities through the OPS
engine. Prints the calibration for both: slope and intercept of observed against predicted log-odds (1 and 0 are right),
and the error of the committor with the shot noise subtracted.

    python benchmarks/alanine_committor.py                 # about 10 minutes on two cores
    python benchmarks/alanine_committor.py --checkpoint alanine_dipeptide.aimmd    # a learner of the example
"""

import argparse
import contextlib
import io
import os

import openpathsampling as paths

import ops_aimmd
from ops_aimmd.sampling.committor_simulation import committor_simulation, spread_along_committor
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide


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


def main():
    """Learn, shoot, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", help="use the learner of this run instead of a new one")
    parser.add_argument("--steps", type=int, default=600, help="MC steps of the guided run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain-steps", type=int, default=500, help="MC steps of the plain runs")
    parser.add_argument("--configurations", type=int, default=50)
    parser.add_argument("--shots", type=int, default=50)
    arguments = parser.parse_args()
    system = alanine_dipeptide()
    if arguments.checkpoint:
        learner = ops_aimmd.load_learner(arguments.checkpoint, system.descriptors, system.states)
    else:
        learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=arguments.seed)
        scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=system.engine)
        sample(system, scheme, arguments.seed, arguments.steps, learner)
    print(learner.last_report)

    for origin, path_seed in (("the same path", arguments.seed), ("another path", arguments.seed + 100)):
        scheme = paths.OneWayShootingMoveScheme(system.network(), engine=system.engine)
        trajectories = sample(system, scheme, path_seed, arguments.plain_steps)
        chosen = spread_along_committor(trajectories, learner, arguments.configurations, seed=arguments.seed)
        result = committor_simulation(chosen, learner, system.engine, arguments.shots, seed=path_seed, progress=False)
        phi, psi = system.channel(system.initial_trajectory(path_seed))
        print(f"\n{len(chosen)} configurations of a run from {origin} (phi {phi}, psi {psi:.0f}) x {arguments.shots} shots")
        print(result, flush=True)


if __name__ == "__main__":
    main()

"""Does a formula guide path sampling as well as a network? Two Gaussian wells, Langevin dynamics, bath of 20 oscillators.

For each seed a network and formulas of all 22 inputs are fitted to the same two-way shots, from random points of low
potential energy. The network, the picked formula alone (no network outside of its range) and, as a control, the constant
of the front, which selects uniformly, then guide one frozen run each, from the same first path. A new learner knows no
density of transition-path frames, so all of them weigh frames by the Lorentzian alone.

Prints the formulas; the root mean square error (RMSE) of formula and network against brute-force committors of the same
integrator (target 0.03); and the fractions of shots that generated a transition path and that were accepted.

    python benchmarks/formula_guided.py [--seeds 1 2 3 4 5] [--shots 2000] [--steps 300] [--seconds 20]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import openpathsampling as paths
from relevance import fitted, random_shots
from toy_learning import Reference
from toy_sampling import over_runs

import ops_aimmd
from ops_aimmd.analysis.series import StepRecorder
from ops_aimmd.systems import toy

N_BATH = 20
NAMES = ["x", "y"] + [f"bath_{i}" for i in range(1, N_BATH + 1)]
TARGET = 0.03
GUIDES = ("network", "formula", "constant")


def guided(system, model, n_steps, seed):
    """The steps of a run with a model that is not trained."""
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, model=model, seed=seed)
    learner.freeze()
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=system.engine)
    with contextlib.redirect_stdout(io.StringIO()):  # what OPS says about the initial conditions
        start = scheme.initial_conditions_from_trajectories(system.initial_trajectory(seed))
    sampler = paths.PathSampling(storage=None, move_scheme=scheme, sample_set=start)
    recorder = StepRecorder(system.states)
    sampler.attach_hook(ops_aimmd.TrainingHook(learner))
    sampler.attach_hook(recorder)
    with open(os.devnull, "w") as sampler.output_stream:
        sampler.run(n_steps)
    return recorder.table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--shots", type=int, default=2000, help="two-way shots that network and formula learn from")
    parser.add_argument("--steps", type=int, default=300, help="steps of each run, of which the first fifth is left out")
    parser.add_argument("--seconds", type=float, default=20, help="CPU seconds of the search for formulas")
    parser.add_argument("--reference-shots", type=int, default=1000, help="shots per point of the brute-force committors")
    options = parser.parse_args()
    reference = Reference.of(toy.two_gaussian_wells(), n_shots=options.reference_shots)
    system = toy.two_gaussian_wells(n_bath=N_BATH)
    runs = {name: [] for name in GUIDES}
    errors = {name: [] for name in GUIDES}
    for seed in options.seeds:
        start = time.perf_counter()
        shots = random_shots(system, options.shots, np.random.default_rng([seed, 7]))
        network, _ = fitted(shots, seed)
        front = ops_aimmd.fit_expressions(shots, names=NAMES, time_limit=options.seconds, seed=seed, progress=False)
        models = {"network": network, "formula": front.best.to_model(), "constant": front[0].to_model()}
        for name, model in models.items():
            errors[name].append(reference.rmse(model, system))
            table = guided(system, model, options.steps, seed)
            runs[name].append(table[table.step > options.steps // 5])
        print(
            f"seed {seed}: RMSE network {errors['network'][-1]:.4f}, formula {errors['formula'][-1]:.4f} "
            f"of size {front.best.size}; {time.perf_counter() - start:.0f} s\n    q = {front.best}",
            flush=True,
        )
    print(f"\n{len(options.seeds)} runs of {options.steps} steps each, models of {options.shots} shots")
    print(f"{'':9} RMSE: median (range), target {TARGET}   generated        accepted         expected")
    for name in GUIDES:
        rmse = f"{np.median(errors[name]):.4f} ({min(errors[name]):.4f} - {max(errors[name]):.4f})"
        fractions = f"{over_runs(runs[name], 'generated')}   {over_runs(runs[name], 'accepted')}"
        print(f"{name:9} {rmse:37} {fractions}   {np.mean([run.expected.mean() for run in runs[name]]):.3f}")


if __name__ == "__main__":
    main()

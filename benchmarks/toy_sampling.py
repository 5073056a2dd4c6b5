"""Does a committor learned on the fly sample as well as the exact one? Two-way shooting on three potentials.

Prints, for each selection of the shooting points, the fraction of shots that generated a transition path, the fraction
that was accepted (`expected`: what the model predicted for the first) and the integrated autocorrelation time tau of
ln(path length) within the runs with its 95 % interval, beside the values that the *exact* committor gives. The first
steps, in which the model is learned and the initial path forgotten, are left out; they do count in the cost of the
effective paths, n / (2 tau), 95 % interval.

    python benchmarks/toy_sampling.py [--quick] [--seeds 1 2 3] [--steps 1000] [--discard 300]

A second channel (Wolfe-Quapp) is found by luck only: tau is that of the channel where the run was.
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
import pandas as pd

import ops_aimmd
from ops_aimmd.analysis.series import StepRecorder
from ops_aimmd.committor.autocorrelation import integrated_autocorrelation
from ops_aimmd.systems import toy

SYSTEMS = {"Wolfe-Quapp": toy.wolfe_quapp, "Mueller-Brown": toy.mueller_brown, "two wells": toy.two_gaussian_wells}
"""Overdamped but for the wells, which have inertia."""

WINDOW = 100
"""Steps over which the acceptance is printed."""

SELECTIONS = {
    "uniform": lambda learner: paths.UniformSelector(),
    "Lorentzian": lambda learner: ops_aimmd.CommittorSelector(learner, density_adaptation=False),
    "Lorentzian, density": ops_aimmd.CommittorSelector,
}

WITH_EXACT_COMMITTOR = {
    ("Wolfe-Quapp", "uniform"): "0.068    0.046    >= 53",
    ("Wolfe-Quapp", "Lorentzian"): "0.259    0.190    24",
    ("Wolfe-Quapp", "Lorentzian, density"): "0.417    0.278    12",
    ("Mueller-Brown", "uniform"): "0.122    0.083    >= 30",
    ("Mueller-Brown", "Lorentzian, density"): "0.404    0.251    8",
}
"""generated, accepted, tau of 100 chains of 60 steps, 25 % burn-in."""


def sample(system, selection, n_steps, seed):
    """The steps of one run, as a table."""
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=seed)
    selector = SELECTIONS[selection](learner)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=system.engine, selector=selector)
    with contextlib.redirect_stdout(io.StringIO()):  # what OPS says about the initial conditions
        start = scheme.initial_conditions_from_trajectories(system.initial_trajectory(seed))
    sampler = paths.PathSampling(storage=None, move_scheme=scheme, sample_set=start)
    if selection == "uniform":  # for the random numbers: nobody asks the model
        learner.freeze()
    recorder = StepRecorder(system.states)
    sampler.attach_hook(ops_aimmd.TrainingHook(learner))
    sampler.attach_hook(recorder)
    with open(os.devnull, "w") as sampler.output_stream:
        sampler.run(n_steps)
    return recorder.table


def together(tables, discard):
    """Autocorrelation of ln(path length) within the runs, all runs together; no run by itself needs to be long enough."""
    late = pd.concat([table.assign(run=run) for run, table in enumerate(tables)]).query("step > @discard")
    return integrated_autocorrelation(np.log(late.path_length), late.run, late.step, common_mean=False)


def mean_and_error(series):
    found = integrated_autocorrelation(np.asarray(series, dtype=float))
    return found.mean, found.mean_error()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--selections", nargs="+", choices=SELECTIONS, default=list(SELECTIONS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--discard", type=int, default=300, help="first steps that are left out")
    parser.add_argument("--quick", action="store_true", help="one seed, 300 steps of which 100 are left out")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.steps, options.discard = options.seeds[:1], 300, 100
    n = len(options.seeds)
    print(f"steps {options.discard + 1} to {options.steps} of {n} run(s)")
    print(
        f"{'':13} {'':19}  generated       accepted         expected  tau               frames  | with the exact committor"
    )
    for name in options.systems:
        for selection in options.selections:
            start = time.perf_counter()
            tables = [sample(SYSTEMS[name](), selection, options.steps, seed) for seed in options.seeds]
            seconds = (time.perf_counter() - start) / n / options.steps
            late, found = [table[table.step > options.discard] for table in tables], together(tables, options.discard)
            print(
                f"{name:13} {selection:19} ",
                over_runs(late, "generated"),
                over_runs(late, "accepted"),
                f"  {np.mean([table.expected.mean() for table in late]):5.3f}  ",
                f"{found.tau:5.1f} ({between(found.tau_interval())})",
                f"  {np.mean([table.path_length.mean() for table in late]):6.0f}",
                f" | {WITH_EXACT_COMMITTOR.get((name, selection), ''):25} {seconds:.3f} s/step",
                flush=True,
            )
            per_frame = 1e6 / sum(table.frames.sum() for table in tables)
            interval = between(per_frame * number for number in found.n_effective_interval())
            rate = f"{per_frame * found.n_effective:.0f} ({interval})"
            print(f"{'':13} effective paths per 1e6 frames of all steps: {rate}")
            print(f"{'':13} accepted, every {WINDOW} steps:", *windows(tables), flush=True)


def windows(tables):
    """Acceptance in consecutive windows of steps, all runs together, with the error of independent steps."""
    accepted = np.mean([np.asarray(table.accepted[table.step > 0], dtype=float) for table in tables], axis=0)
    n_windows = len(accepted) // WINDOW
    means = accepted[: n_windows * WINDOW].reshape(n_windows, WINDOW).mean(axis=1)
    errors = np.sqrt(means * (1 - means) / (WINDOW * len(tables)))
    return [f"{mean:.3f}+-{error:.3f}" for mean, error in zip(means, errors, strict=True)]


def over_runs(tables, name):
    """Mean over runs and its error."""
    means, errors = np.transpose([mean_and_error(table[name]) for table in tables])
    return f"{means.mean():.3f} +- {np.sqrt(np.sum(errors**2)) / len(errors):.3f}"


def between(interval):
    return " to ".join(f"{end:.3g}" for end in interval)


if __name__ == "__main__":
    main()

"""Alanine dipeptide in vacuum, C7eq -> C7ax: guided shooting side by side with uniform selection and with stock OPS.

Every method starts from the same initial paths (one run per path) and makes the same number of MC steps without a
storage. The table shows, over all steps after the first fifth of each run,

generated, accepted   fraction of the shots that joined both states, and that were accepted
tau                   integrated autocorrelation time of ln(path length) in MC steps, mean over the runs
paths per 1e6 steps   effective independent transition paths, n / (2 tau), per 1e6 steps of molecular dynamics of the
                      *whole* run, the first fifth and all training included; with a 95 % confidence interval
s per step            wall time without a storage

    python benchmarks/alanine_dipeptide.py                # about 40 minutes on two cores
    python benchmarks/alanine_dipeptide.py --quick        # a check that it runs
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import time

import numpy as np
import openpathsampling as paths
import pandas as pd

import ops_aimmd
from ops_aimmd.analysis.series import StepRecorder
from ops_aimmd.committor.autocorrelation import integrated_autocorrelation
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide

METHODS = {
    "guided two-way": "guided, both legs to a state",
    "guided one-way": "guided, one leg to a state",
    "uniform, our move": "uniform selection, both legs to a state",
    "stock two-way": "OPS TwoWayShooting, all-to-all network, uniform selection",
    "stock one-way": "OPS OneWayShooting, uniform selection",
}
N_STEPS_PER_FRAME = 10
EXCHANGE_TEMPERATURES = [380, 480, 610, 780, 1000, 1300]
"""Of replicas of the configuration beside the path, in kelvin."""


def make_scheme(method, system, learner):
    """Move scheme of a method."""
    engine = system.engine
    if method == "guided two-way":
        return ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=engine)
    if method == "guided one-way":
        return ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=engine, shooting="one-way")
    if method.endswith("exchange"):
        return ops_aimmd.CommittorShootingScheme(
            system.network(), learner, engine=engine, exchange_temperatures=EXCHANGE_TEMPERATURES
        )
    if method == "uniform, our move":
        return ops_aimmd.CommittorShootingScheme(system.network(), learner, engine, selector=paths.UniformSelector())
    if method == "stock one-way":
        return paths.OneWayShootingMoveScheme(system.network(), engine=engine)
    scheme = paths.MoveScheme(system.network(all_to_all=True))
    modifier = ops_aimmd.BoltzmannVelocities(engine)
    scheme.append(paths.strategies.TwoWayShootingStrategy(modifier=modifier, engine=engine))
    scheme.append(paths.strategies.OrganizeByMoveGroupStrategy())
    return scheme


def run(arguments):
    """One run; returns its step table and its cost."""
    method, seed, n_steps = arguments
    system = alanine_dipeptide()
    initial_trajectory = system.initial_trajectory(seed)
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=seed)
    with contextlib.redirect_stdout(io.StringIO()):
        scheme = make_scheme(method, system, learner)
        conditions = scheme.initial_conditions_from_trajectories(initial_trajectory)
    sampler = paths.PathSampling(None, scheme, conditions)
    sampler.output_stream = open(os.devnull, "w")
    recorder = StepRecorder(system.states)
    sampler.attach_hook(recorder)
    if method.startswith("guided"):
        sampler.attach_hook(ops_aimmd.TrainingHook(learner))
    start = time.perf_counter()
    sampler.run(n_steps)
    wall = time.perf_counter() - start
    phi, psi = system.channel(initial_trajectory)
    return recorder.table.assign(method=method, seed=seed), {
        "method": method,
        "seed": seed,
        "wall": wall / n_steps,
        "initial channel": f"phi {phi}, psi {psi:.0f}",
    }


def summarise(table, costs, n_runs):
    """One row per method."""
    rows = []
    for method in METHODS:
        mine = table[table.method == method]
        if mine.empty:
            continue
        md_steps = mine.frames.sum() * N_STEPS_PER_FRAME
        late = pd.concat([one[one.step > 0.2 * one.step.max()] for _, one in mine.groupby("seed")])
        found = integrated_autocorrelation(np.log(late.path_length), late.seed, late.step, common_mean=False)
        per_step = 1e6 / md_steps
        cost = costs[costs.method == method]
        rows.append(
            {
                "method": method,
                "generated": late.generated.mean(),
                "accepted": late.accepted.mean(),
                "tau": found.tau,
                "paths per 1e6 steps": found.n_effective * per_step,
                "low": found.n_effective_interval()[0] * per_step,
                "high": found.n_effective_interval()[1] * per_step,
                "length": late.path_length.mean(),
                "length of runs": " ".join(f"{v:.0f}" for v in late.groupby("seed").path_length.mean()),
                "1e6 steps": md_steps / 1e6,
                "s per step": cost.wall.mean(),
            }
        )
    return pd.DataFrame(rows).set_index("method")


def main():
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    n_steps, n_runs = (40, 1) if arguments.quick else (arguments.steps, arguments.runs)
    jobs = [(method, seed, n_steps) for seed in range(1, n_runs + 1) for method in arguments.methods]
    tables, costs = [], []
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for table, cost in pool.imap_unordered(run, jobs):
            tables.append(table)
            costs.append(cost)
            print(
                f"{cost['method']:18} path {cost['seed']} ({cost['initial channel']}): generated "
                f"{table.generated.mean():.2f}, accepted {table.accepted.mean():.2f}, {cost['wall']:.3f} s per step",
                flush=True,
            )
    result = summarise(pd.concat(tables), pd.DataFrame(costs), n_runs)
    print(f"\n{n_runs} runs of {n_steps} steps for each method")
    print(result.to_string(float_format=lambda value: f"{value:.3g}"))
    if {"guided two-way", "uniform, our move"} <= set(result.index):
        gain = result.generated["guided two-way"] / result.generated["uniform, our move"]
        print(f"\ngenerated, guided over uniform selection in our own move: {gain:.1f}x")
    stock = [name for name in ("stock two-way", "stock one-way") if name in result.index]
    for method in ("guided two-way", "guided one-way"):
        for other in stock if method in result.index else ():
            ratio = result["paths per 1e6 steps"][method] / result["paths per 1e6 steps"][other]
            errors = [np.log(result.high[name] / result["paths per 1e6 steps"][name]) for name in (method, other)]
            factor = np.exp(np.hypot(*errors))
            interval = f"{ratio / factor:.1f} to {ratio * factor:.1f}"
            print(f"effective paths per MD step, {method} over {other}: {ratio:.1f} ({interval})")


if __name__ == "__main__":
    main()

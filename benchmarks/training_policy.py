"""Which way of training gives the best committor for its price? Shots of path sampling under several training policies.

Many chains of two-way shooting are run at once, guided by the exact overdamped committor so that all policies learn
from the same shots. Each chain is then replayed: a model is trained whenever the default schedule asks for it. Printed
are the median over chains of the root mean square error (RMSE) of the committor after 150, 300 and 1000 shots, over
frames of the legs, as many from each tenth of the committor, against brute force, and the CPU time of all trainings.

    python benchmarks/training_policy.py [--systems "Wolfe-Quapp" "two wells, inertia"] [--chains 5] [--quick]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from shot_collection import SYSTEMS, Reference, collect

from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.schedule import DiminishingSchedule
from ops_aimmd.committor.training import fit
from ops_aimmd.committor.training_set import TrainingSet

POLICIES = {
    "default": {},
    "decided anew at each training": {"previous": None},
    "descriptors of equal variance": {"relevance": None},
    "shooting points and ends": {"auxiliary_weights": (0.15, 0.0)},
    "frames of legs, 3 trials": {"auxiliary_weights": (0.15, 3.0)},
    "half the epochs": {"max_epochs": 75},
    "weaker prior": {"weight_decay": 0.1},
}


def replay(results, seed, marks, reference, options):
    """Train on a growing set by the default schedule; RMSE at the marks, CPU seconds in all, last training's."""
    model = CommittorModel.for_descriptors(len(results[0].descriptors), seed=seed)
    training_set = TrainingSet.empty(model.n_descriptors, 2)
    schedule, last, report, seconds = DiminishingSchedule(), 0, None, [0.0]
    rmse = []
    for result in results[: max(marks)]:
        training_set.append(result)
        if schedule.due(len(training_set), last):
            last = len(training_set)
            start = time.process_time()
            report = fit(model, training_set, seed=last, **{"previous": report, **options})
            seconds.append(time.process_time() - start)
        if len(training_set) in marks:
            rmse.append(reference.rmse(model))
    return [*rmse, sum(seconds), np.median(seconds[-5:])]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", nargs="+", default=["two wells, inertia", "Wolfe-Quapp"], choices=list(SYSTEMS))
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=list(POLICIES))
    parser.add_argument("--chains", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="150 and 300 shots only")
    arguments = parser.parse_args()
    marks = (150, 300) if arguments.quick else (150, 300, 1000)
    for name in arguments.systems:
        system = SYSTEMS[name]()
        start = time.perf_counter()
        chains = collect(system, arguments.chains, max(marks), seed=1)
        reference = Reference.visited(system, chains, 500 if arguments.quick else 2000, np.random.default_rng(0))
        print(
            f"\n{name}: {arguments.chains} chains, {time.perf_counter() - start:.0f} s; RMSE after shots, CPU of trainings"
        )
        print(f"{'policy':32}" + "".join(f"{m:>9}" for m in marks) + f"{'worst':>9}{'all/s':>9}{'last/ms':>9}")
        for policy in arguments.policies:
            table = np.array([replay(r, k, marks, reference, POLICIES[policy]) for k, r in enumerate(chains)])
            rmse, worst = np.median(table[:, : len(marks)], axis=0), table[:, len(marks) - 1].max()
            total, last = table[:, -2:].mean(axis=0)
            print(
                f"{policy:32}" + "".join(f"{r:9.3f}" for r in rmse) + f"{worst:9.3f}{total:9.1f}{1e3 * last:9.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

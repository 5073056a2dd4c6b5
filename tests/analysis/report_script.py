"""Writes short runs and reports about them, each kind of OPS file in a process of its own.

usage: report_script.py simstore DIRECTORY       write a SimStore run and a report
       report_script.py report FILE CHECKPOINT   a report about a run that another process may be writing
Prints JSON in its last line.
"""

import json
import os
import sys
from pathlib import Path

import openpathsampling as paths
from plain_integrators import plain

import ops_aimmd
from ops_aimmd.analysis.health import assess
from ops_aimmd.analysis.report import report
from ops_aimmd.analysis.run_data import read_run
from ops_aimmd.systems import toy


def two_wells(n_steps_per_frame=60):
    """Legs of some twenty frames, or of eight: quick to make, and to store, where a frame takes milliseconds."""
    return plain(toy.hummer_szabo(n_steps_per_frame=n_steps_per_frame))


QUICK = {"max_epochs": 40, "relevance": None}
"""Quick training, for runs in which the model does not matter."""


def write_run(
    system, storage, checkpoint, n_steps, seed=1, states=None, path=None, model=None, hooks=(), fit_options=None, **options
):
    """A guided run; `options` are those of `TrainingHook` and, `shooting`, of the scheme."""
    states = system.states if states is None else states
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=states, seed=seed, model=model, fit_options=fit_options)
    if model is not None:
        learner.freeze()
    network = paths.TPSNetwork(*states)
    scheme = ops_aimmd.CommittorShootingScheme(
        network, learner, engine=system.engine, shooting=options.pop("shooting", "two-way")
    )
    path = system.initial_trajectory(seed=seed) if path is None else path
    sampler = paths.PathSampling(storage, scheme, scheme.initial_conditions_from_trajectories(path))
    sampler.output_stream = open(os.devnull, "w")
    for hook in [ops_aimmd.TrainingHook(learner, checkpoint=checkpoint, **options), *hooks]:
        sampler.attach_hook(hook)
    sampler.run(n_steps)
    return sampler


def simstore(directory):
    from openpathsampling.experimental.storage import Storage, monkey_patch_all

    monkey_patch_all(paths)
    file, checkpoint = directory / "run.db", directory / "run.aimmd"
    storage = Storage(str(file), "w")
    write_run(two_wells(150), storage, checkpoint, 20, fit_options=QUICK)
    open_storage = assess(read_run(storage))
    storage.close()
    both = report(file, checkpoint, directory / "both.html", directory / "png")
    alone = assess(read_run(file))
    return [summary(health) for health in (both, open_storage, alone)]


def summary(health):
    """What must not depend on the files that a report was made from."""
    return {
        "shots": len(health.run.table),
        "acceptance": health.acceptance,
        "generated": health.efficiency.generated,
        "expected": round(health.efficiency.expected, 6),
        "time": round(health.transition_time.value, 9),
        "unit": health.run.time_unit,
        "legs": [health.n_legs, health.n_lost_legs],
        "versions": health.adaptation.n_versions,
        "slope": [round(c.slope, 5) for c in health.on_the_fly.values()],
        "paths": len(health.channels.points),
        "known rows": int((health.channels.series >= 0).sum()),
    }


if __name__ == "__main__":
    if sys.argv[1] == "simstore":
        result = simstore(Path(sys.argv[2]))
    else:
        health = report(sys.argv[2], sys.argv[3], Path(sys.argv[3]).with_suffix(".html"))
        result = {"shots": len(health.run.table), "notes": list(health.run.notes)}
    print(json.dumps(result))

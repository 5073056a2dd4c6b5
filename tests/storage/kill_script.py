"""A run that starts or resumes, whichever is possible, and goes on until it is killed or has made enough steps.

usage: kill_script.py OPS_FILE CHECKPOINT [N_STEPS]
       kill_script.py "steps of" OPS_FILE

The first says "ready" when sampling begins, and "storing" in each step when OPS is about to write to its file.
The second prints the numbers of the steps in the file, as OPS and as we read them.
"""

import json
import os
import sys
import warnings
from pathlib import Path

import openpathsampling as paths

sys.path.insert(0, str(Path(__file__).parents[1] / "sampling"))

from sampling_support import QUICK_WITH_FRAMES  # noqa: E402

import ops_aimmd  # noqa: E402
from ops_aimmd.checkpoint import Checkpoint, NotACheckpointError  # noqa: E402
from ops_aimmd.shooting.streams import seed_step  # noqa: E402
from ops_aimmd.storage.ops_files import check_steps, open_storage, step_numbers  # noqa: E402
from ops_aimmd.systems import toy  # noqa: E402


def new_storage(file):
    if file.endswith(".nc"):
        return paths.Storage(file, "w")
    from openpathsampling.experimental.storage import Storage, monkey_patch_all

    monkey_patch_all(paths)
    return Storage(file, "w")


def start(storage, checkpoint):
    system = toy.wolfe_quapp()
    seed_step(1, 0)
    learner = ops_aimmd.CommittorLearner([system.descriptors], system.states, seed=1, fit_options=QUICK_WITH_FRAMES)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, system.engine)
    conditions = scheme.initial_conditions_from_trajectories(system.initial_trajectory(1))
    sampler = paths.PathSampling(storage, scheme, conditions)
    sampler.attach_hook(ops_aimmd.TrainingHook(learner, checkpoint))
    return sampler


def has_begun(checkpoint):
    if not os.path.exists(checkpoint):
        return False
    try:
        with Checkpoint.open(checkpoint) as file:
            return file.step >= 0
    except NotACheckpointError:
        return False


def start_or_resume(file, checkpoint, start=start):
    if has_begun(checkpoint):
        return ops_aimmd.resume(file, checkpoint, progress=False)
    for leftover in (file, *(f"{checkpoint}{suffix}" for suffix in ("", "-wal", "-shm", "-journal", "-lock"))):
        if os.path.exists(leftover):
            os.remove(leftover)
    return start(new_storage(file), checkpoint)


def print_steps(file):
    storage = open_storage(file)
    check_steps(iter(storage.steps))
    (simulation,) = storage.pathsimulators
    by_ops = [int(step.mccycle) for step in storage.steps]
    print(json.dumps([by_ops, [int(number) for number in step_numbers(storage, str(simulation.__uuid__))]]))


def main(file, checkpoint, n_steps=None):
    out, sys.stdout = sys.stdout, open(os.devnull, "w")
    warnings.simplefilter("always")
    sampler = start_or_resume(file, checkpoint)
    sampler.output_stream = sys.stdout

    def announce(**kwargs):
        print("storing", file=out, flush=True)

    sampler.hooks["after_step"].insert(0, announce)  # the training hook will step in front of it
    print("ready", file=out, flush=True)
    sampler.run(int(n_steps) - sampler.step if n_steps else 10**6)


if __name__ == "__main__":
    if sys.argv[1] == "steps of":
        print_steps(sys.argv[2])
    else:
        main(*sys.argv[1:])

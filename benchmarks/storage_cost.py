"""CPU time that storing a new frame in OPS's netCDF file takes: as OPS writes it, and in blocks.

Both ways take turns in one run and one file. A turn is some steps, with all that a step writes and a sync for each;
printed are the medians over the turns, and the fastest.

    python benchmarks/storage_cost.py               # some minutes
    python benchmarks/storage_cost.py --turns 3
"""

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time

import openpathsampling as paths
from openpathsampling.beta.hooks import StorageHook

import ops_aimmd
from ops_aimmd.systems import toy
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide

SYSTEMS = {"toy": toy.wolfe_quapp, "alanine": alanine_dipeptide}
WAYS = {"OPS": False, "in blocks": True}


class TimedStorage:
    """OPS's storage hook, with the CPU time that it takes."""

    def __init__(self, hooks):
        (place,) = [place for place, hook in enumerate(hooks) if isinstance(getattr(hook, "__self__", None), StorageHook)]
        self._store = hooks[place]
        self.seconds = 0.0
        hooks[place] = self.store

    def store(self, **step):
        """Store a step."""
        start = time.process_time()
        self._store(**step)
        self.seconds += time.process_time() - start


def measure(system, folder, n_turns, n_steps):
    """Microseconds per new frame, of each turn, for both ways."""
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=1)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=system.engine)
    with contextlib.redirect_stdout(io.StringIO()):
        conditions = scheme.initial_conditions_from_trajectories(system.initial_trajectory(seed=1))
    storage = paths.Storage(os.path.join(folder, "run.nc"), "w")
    sampler = paths.PathSampling(storage, scheme, conditions)
    sampler.output_stream = open(os.devnull, "w")
    hook = ops_aimmd.TrainingHook(learner)
    sampler.attach_hook(hook)
    timed = TimedStorage(sampler.hooks["after_step"])
    sampler.run(1)
    costs = {way: [] for way in WAYS}
    for _ in range(n_turns):
        for way, hook.write_in_blocks in WAYS.items():
            before, timed.seconds = len(storage.snapshots), 0.0
            sampler.run(n_steps)
            costs[way].append(timed.seconds / max(1, (len(storage.snapshots) - before) / 2) * 1e6)
    storage.close()
    return costs


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps of a turn")
    arguments = parser.parse_args()
    print(f"{'CPU per new frame [us]':24} {'median':>8} {'fastest':>8}")
    for name, make in SYSTEMS.items():
        with tempfile.TemporaryDirectory() as folder:
            costs = measure(make(), folder, arguments.turns, arguments.steps)
        middle = {way: statistics.median(turns) for way, turns in costs.items()}
        for way, turns in costs.items():
            print(f"{name + ', ' + way:24} {middle[way]:8.0f} {min(turns):8.0f}")
        print(f"{name + ', ratio':24} {middle['in blocks'] / middle['OPS']:8.3f}", flush=True)


if __name__ == "__main__":
    main()

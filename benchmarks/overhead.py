"""What guidance costs: wall time of hook, selector and training in the README's alanine run, with its OPS storage.

Prints wall and CPU seconds per part and their shares of the run. On a shared machine the CPU time is the one to trust.

    python benchmarks/overhead.py            # about five minutes
    python benchmarks/overhead.py --steps 60
"""

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections import defaultdict

import numpy as np
import openpathsampling as paths

import ops_aimmd
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide


def clocks():
    """Wall time and CPU time."""
    return np.array([time.perf_counter(), time.process_time()])


class Stopwatch:
    """Wall and CPU time per part; time inside an inner part is not counted in the outer one."""

    def __init__(self):
        self.seconds = defaultdict(lambda: np.zeros(2))
        self._running = []

    def around(self, owner, name, part):
        """Replace a method of an object by one that is timed."""
        method = getattr(owner, name)

        def timed(*args, **kwargs):
            start = clocks()
            self._running.append(np.zeros(2))
            try:
                return method(*args, **kwargs)
            finally:
                elapsed = clocks() - start
                self.seconds[part] += elapsed - self._running.pop()
                if self._running:
                    self._running[-1] += elapsed

        setattr(owner, name, timed)


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    system = alanine_dipeptide()
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=1)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=system.engine)
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(io.StringIO()):
            conditions = scheme.initial_conditions_from_trajectories(system.initial_trajectory(seed=1))
        storage = paths.Storage(os.path.join(folder, "run.nc"), "w")
        sampler = paths.PathSampling(storage, scheme, conditions)
        sampler.output_stream = open(os.devnull, "w")
        hook = ops_aimmd.TrainingHook(learner, checkpoint=os.path.join(folder, "run.aimmd"))
        watch = Stopwatch()
        mover = scheme.movers["shooting"][0]
        watch.around(mover.selector, "path_weights", "selector")
        watch.around(learner, "fit", "training")
        watch.around(hook, "before_step", "hook: seeds")
        watch.around(hook._learning, "learn", "hook: shooting results, density")
        watch.around(hook._files, "record", "hook: checkpoint")
        watch.around(hook, "prepare_for_storage", "hook: series")
        watch.around(system.engine, "generate", "dynamics")
        watch.around(storage, "save", "storage")
        watch.around(storage, "sync_all", "storage")
        sampler.attach_hook(hook)
        start = clocks()
        sampler.run(arguments.steps)
        total = clocks() - start
        storage.close()
    rest = total - sum(watch.seconds.values())
    print(f"{arguments.steps} steps, {total[0] / arguments.steps:.3f} s per step, model version {learner.version.number}\n")
    ours = np.zeros(2)
    for part, seconds in [*sorted(watch.seconds.items()), ("rest of OPS", rest)]:
        share = 100 * seconds / total
        print(f"{part:34} wall {seconds[0]:7.1f} s {share[0]:5.1f} %   CPU {seconds[1]:7.1f} s {share[1]:5.1f} %")
        ours += seconds if part.startswith(("hook", "selector", "training")) else 0.0
    wall, cpu = 100 * ours / total
    print(f"\nhook, selector and training: {wall:.1f} % of the wall time, {cpu:.1f} % of the CPU time")


if __name__ == "__main__":
    main()

"""What guidance costs: wall time of hook, selector and training in the README's alanine run, with its OPS storage.

Prints seconds per part and its share of the wall time of the run.

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

import openpathsampling as paths

import ops_aimmd
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide


class Stopwatch:
    """Wall time per part; time inside an inner part is not counted in the outer one."""

    def __init__(self):
        self.seconds = defaultdict(float)
        self._running = []

    def around(self, owner, name, part):
        """Replace a method of an object by one that is timed."""
        method = getattr(owner, name)

        def timed(*args, **kwargs):
            start = time.perf_counter()
            self._running.append(0.0)
            try:
                return method(*args, **kwargs)
            finally:
                elapsed = time.perf_counter() - start
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
        watch.around(hook, "_observe", "hook: shooting results, density")
        watch.around(hook, "before_step", "hook: seeds")
        watch.around(hook, "after_step", "hook: checkpoint")
        watch.around(system.engine, "generate", "dynamics")
        watch.around(storage, "save", "storage")
        watch.around(storage, "sync_all", "storage")
        sampler.attach_hook(hook)
        start = time.perf_counter()
        sampler.run(arguments.steps)
        wall = time.perf_counter() - start
        storage.close()
    rest = wall - sum(watch.seconds.values())
    print(f"{arguments.steps} steps, {wall / arguments.steps:.3f} s per step, model version {learner.version.number}\n")
    ours = 0.0
    for part, seconds in [*sorted(watch.seconds.items()), ("rest of OPS", rest)]:
        print(f"{part:34} {seconds:8.1f} s {100 * seconds / wall:6.1f} %")
        ours += seconds if part.startswith(("hook", "selector", "training")) else 0.0
    print(f"\nhook, selector and training {100 * ours / wall:.1f} %")


if __name__ == "__main__":
    main()

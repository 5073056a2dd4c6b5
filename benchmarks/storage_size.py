"""What a run of alanine dipeptide costs on disk, per storage option, and how long OPS's file takes to be made again.

The same steps with every option: bytes per step in OPS's file and in the checkpoint, milliseconds per step of OPS's
storage, and, with the checkpoint alone, milliseconds per step until the file is there again.

    python benchmarks/storage_size.py              # about ten minutes
    python benchmarks/storage_size.py --steps 20
"""

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
import warnings

import openpathsampling as paths

import ops_aimmd
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide

OPTIONS = {
    "everything": {},
    "paths not in the checkpoint": {"keep_paths": False},
    "ends of rejected trials": {"rejected_trials": "ends"},
    "ends, every 5th frame of paths": {"rejected_trials": "ends", "path_stride": 5},
}


class Seconds:
    """Time spent in a method of an object."""

    def __init__(self):
        self.total = 0.0

    def around(self, owner, name):
        """Replace the method by one that is timed."""
        method = getattr(owner, name)

        def timed(*args, **kwargs):
            start = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self.total += time.perf_counter() - start

        setattr(owner, name, timed)


def new_storage(file):
    """A netCDF or SimStore file, by its name."""
    if file.endswith(".nc"):
        return paths.Storage(file, "w")
    from openpathsampling.experimental.storage import Storage, monkey_patch_all

    monkey_patch_all(paths)
    return Storage(file, "w")


def measure(suffix, option, n_steps):
    """One row of the table."""
    system = alanine_dipeptide()
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=1)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=system.engine)
    with tempfile.TemporaryDirectory() as folder:
        file, checkpoint = os.path.join(folder, f"run.{suffix}"), os.path.join(folder, "run.aimmd")
        with contextlib.redirect_stdout(io.StringIO()):
            conditions = scheme.initial_conditions_from_trajectories(system.initial_trajectory(seed=1))
        storage = new_storage(file)
        sampler = paths.PathSampling(storage, scheme, conditions)
        sampler.output_stream = open(os.devnull, "w")
        sampler.attach_hook(ops_aimmd.TrainingHook(learner, checkpoint, **OPTIONS[option]))
        sampler.run(0)
        before = [os.path.getsize(name) for name in (file, checkpoint)]
        storing = Seconds()
        for name in ("save", "sync_all"):
            storing.around(storage, name)
        sampler.run(n_steps)
        after = [os.path.getsize(name) for name in (file, checkpoint)]
        storage.close()
        per_step = [(new - old) / n_steps / 1024 for new, old in zip(after, before, strict=True)]
        again = float("nan")
        if OPTIONS[option].get("keep_paths", True):
            os.rename(file, file + ".lost")
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ops_aimmd.runs.ResumeWarning)
                ops_aimmd.resume(file, checkpoint, progress=False)
            again = (time.perf_counter() - start) / n_steps * 1e3
        print(
            f"{suffix:4} {option:32} {before[0] / 2**20:10.1f} {per_step[0]:10.0f} {per_step[1]:12.0f} "
            f"{storing.total / n_steps * 1e3:14.0f} {again:14.0f}",
            flush=True,
        )


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        measure(*arguments.row, arguments.steps)
        return
    print(
        f"{'OPS file':37} {'at first':>10} {'per step':>10} {'checkpoint':>12} {'storing':>14} {'made again':>14}\n"
        f"{'':37} {'[MiB]':>10} {'[KiB]':>10} {'[KiB/step]':>12} {'[ms/step]':>14} {'[ms/step]':>14}"
    )
    for suffix in ("nc", "db"):  # OPS cannot use both kinds in one process
        for option in OPTIONS:
            subprocess.run([sys.executable, __file__, "--steps", str(arguments.steps), "--row", suffix, option], check=True)


if __name__ == "__main__":
    main()

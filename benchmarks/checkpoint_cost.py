"""What a checkpoint costs per MC step, and whether that stays the same however long the run is.

Prints two tables: milliseconds per recorded step and bytes per shot with 100, 10 000 and 1 000 000 shots already in the
file; and the same step under each of sqlite's ways to commit, from which the one of the checkpoint was chosen.

    python benchmarks/checkpoint_cost.py [--sizes 100 10000 1000000] [--steps 200] [--directory .]

Disks differ more than anything else here, and so does what else they are doing: run it where the run will write. Each
synchronisation with the disk is timed by itself at the end.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ops_aimmd.checkpoint import Checkpoint

N_DESCRIPTORS, N_FRAMES, N_STATES = 20, 20, 2
PAUSE = 0.01  # the dynamics between two steps; without a pause the disk's own write cache fills up


def shot(rng, step, n_frames):
    frames = None
    if n_frames:
        frames = SimpleNamespace(
            descriptors=rng.normal(size=(n_frames, N_DESCRIPTORS)),
            outcomes=rng.integers(N_STATES, size=n_frames),
            is_end=np.arange(n_frames) == n_frames - 1,
        )
    return SimpleNamespace(
        descriptors=rng.normal(size=N_DESCRIPTORS),
        counts=np.array([1.0, 1.0]),
        weight=1.0,
        step=step,
        chain=0,
        velocity_origin="boltzmann",
        predicted_committor=rng.random(N_STATES),
        leg_frames=frames,
    )


def fill(path, n_shots, n_frames, rng):
    """A checkpoint that has many shots already, 10 000 in each transaction."""
    with Checkpoint.create(path) as checkpoint:
        for step, start in enumerate(range(0, n_shots, 10_000)):
            n = min(10_000, n_shots - start)
            checkpoint.record_step(step, [shot(rng, step, n_frames) for _ in range(n)])


def milliseconds_per_step(path, n_frames, n_steps, rng):
    """Sorted times of steps that each bring one shot, the count of a path of 50 frames, and the generator's state."""
    times = []
    with Checkpoint.open(path) as checkpoint:
        first = checkpoint.step + 1
        for step in range(first, first + n_steps):
            new = shot(rng, step, n_frames)
            frames = rng.normal(size=(50, N_DESCRIPTORS)) if (step - first) % 3 == 0 else None  # one step in 3 accepted
            path_name = f"path {(step - first) // 3} of {first}"
            time.sleep(PAUSE)
            start = time.perf_counter()
            checkpoint.record_step(
                step,
                [new],
                density_paths={path_name: ((step - first) % 3 + 1, 1, frames)},
                state={"generator": rng.bit_generator.state, "schedule": {"last_trained": step, "loss": 0.5}},
            )
            times.append(1e3 * (time.perf_counter() - start))
    return sorted(times)


def row(label, times, extra=""):
    print(
        f"{label:<34} {statistics.median(times):7.2f} {statistics.fmean(times):7.2f} "
        f"{times[int(0.95 * len(times))]:7.2f} {times[-1]:7.2f} {extra}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 10_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--directory", default=".", help="a directory on the disk to be measured")
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        path = Path(directory) / "run.aimmd"
        print(f"{'ms per record_step':<34}  median    mean     95%     max   bytes per shot   open [s]   read all [s]")
        for n_frames in (0, N_FRAMES):
            for n_shots in options.sizes:
                fill(path, n_shots, n_frames, rng)
                size = path.stat().st_size / n_shots
                times = milliseconds_per_step(path, n_frames, options.steps, rng)
                start = time.perf_counter()
                with Checkpoint.open(path, read_only=True) as checkpoint:
                    opened = time.perf_counter()
                    assert len(checkpoint.shots()) == n_shots + options.steps
                read = time.perf_counter()
                label = f"{n_shots:>9,} shots, {n_frames or 'no'} leg frames"
                row(label, times, f"{size:15.0f} {opened - start:10.2f} {read - opened:14.2f}")
                path.unlink()
        print(f"\n{'ways to commit, 10 000 shots':<34}  median    mean     95%     max")
        fill(path, 10_000, N_FRAMES, rng)
        for mode in ("DELETE", "TRUNCATE", "PERSIST", "WAL"):
            for synchronous in ("OFF", "NORMAL", "FULL", "EXTRA"):
                row(f"{mode} {synchronous}", times_under(path, mode, synchronous, options.steps, rng))
        print(f"\n{'one fsync of 4096 bytes':<34}  median    mean     95%     max")
        row("", milliseconds_per_fsync(Path(directory) / "plain", options.steps))


def milliseconds_per_fsync(path, n):
    times = []
    with open(path, "wb") as file:
        for _ in range(n):
            time.sleep(PAUSE)
            file.write(bytes(4096))
            file.flush()
            start = time.perf_counter()
            os.fsync(file.fileno())
            times.append(1e3 * (time.perf_counter() - start))
    return sorted(times)


def times_under(path, mode, synchronous, n_steps, rng):
    """The same steps with another way to commit."""
    settings = "PRAGMA journal_mode=DELETE", f"PRAGMA journal_mode={mode}", f"PRAGMA synchronous={synchronous}"
    original = Checkpoint.__dict__["open"]

    def open_with_settings(path, read_only=False):
        checkpoint = original.__func__(Checkpoint, path, read_only)
        checkpoint._connection.execute("ROLLBACK")  # neither setting changes inside a transaction
        for setting in settings:
            checkpoint._connection.execute(setting)
        checkpoint._connection.execute("BEGIN IMMEDIATE")
        checkpoint._data_version = checkpoint._connection.execute("PRAGMA data_version").fetchone()[0]
        return checkpoint

    try:
        Checkpoint.open = staticmethod(open_with_settings)
        return milliseconds_per_step(path, N_FRAMES, n_steps, rng)
    finally:
        Checkpoint.open = original


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

"""What a checkpoint costs per MC step, and whether that stays the same however long the run is.

Prints three tables: milliseconds per recorded step and bytes per shot with 100, 10 000 and 1 000 000 shots already in the
file; the same with the step log of an alanine run, after as many blocks of frames and paths; and the first step
under each of sqlite's ways to commit, from which the one of the checkpoint was chosen (left out with --no-ways).

    python benchmarks/checkpoint_cost.py [--sizes 100 10000 1000000] [--steps 200] [--directory .] [--no-ways]

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

from ops_aimmd.checkpoint import Checkpoint, FrameBlock, StepLog

N_DESCRIPTORS, N_FRAMES, N_STATES = 20, 20, 2
N_PATH_FRAMES, N_ATOMS = 100, 22  # alanine dipeptide in vacuum
PAUSE = 0.01  # the dynamics between two steps; without a pause the disk's own write cache fills up


def shot(rng, step, n_frames):
    frames = None
    if n_frames:
        frames = SimpleNamespace(
            descriptors=rng.normal(size=(n_frames, N_DESCRIPTORS)),
            outcomes=rng.integers(N_STATES, size=n_frames),
            is_end=np.arange(n_frames) == n_frames - 1,
            displacements=rng.normal(size=(n_frames, N_DESCRIPTORS)),
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


def fill_log(path, n_rows):
    """As many blocks and paths, of one frame each, as a run that has kept them all: 10 000 in each transaction."""
    block = FrameBlock({}, {"coordinates": np.zeros((1, 1, 3))})
    with Checkpoint.open(path) as checkpoint:
        for start in range(0, n_rows, 10_000):
            numbers = range(start, min(start + 10_000, n_rows))
            paths = {f"filled {i}": [[i, 0, 0]] for i in numbers}
            checkpoint.record_step(checkpoint.step + 1, log=StepLog({}, dict.fromkeys(numbers, block), paths))


class AlanineLog:
    """Logs of steps that each generate a path, in float64; every third is accepted. What is no active path is reduced."""

    def __init__(self, rng, first_step, first_block):
        self.rng = rng
        self.first_step, self.first_block = first_step, first_block
        self.active = self.rejected = None

    def __call__(self, step):
        i = step - self.first_step
        block, accepted = self.first_block + i, i % 3 == 0
        shape = N_PATH_FRAMES, N_ATOMS, 3
        arrays = {"coordinates": self.rng.normal(size=shape), "velocities": self.rng.normal(size=shape)}
        places = np.zeros((N_PATH_FRAMES, 3), int)
        places[:, 0], places[:, 1] = block, np.arange(N_PATH_FRAMES)
        reduce = [self.rejected, self.active if accepted else None]
        self.active, self.rejected = (block, None) if accepted else (self.active, block)
        return StepLog(
            document={"trial": f"path {step}", "accepted": accepted, "shooting_index": 40, "metropolis": 0.5},
            frame_blocks={block: FrameBlock({"engine": "alanine"}, arrays)},
            paths={f"path {step}": places},
            reduce_blocks=[number for number in reduce if number is not None],
        )


def milliseconds_per_step(path, n_frames, n_steps, rng, with_log=False):
    """Sorted times of steps that each bring one shot, the count of a path of 50 frames, the generator's state, a log."""
    times = []
    with Checkpoint.open(path) as checkpoint:
        first = checkpoint.step + 1
        log_of = AlanineLog(rng, first, checkpoint.last_frame_block + 1)
        for step in range(first, first + n_steps):
            new = shot(rng, step, n_frames)
            frames = rng.normal(size=(50, N_DESCRIPTORS)) if (step - first) % 3 == 0 else None  # one step in 3 accepted
            log = log_of(step) if with_log else None
            path_name = f"path {(step - first) // 3} of {first}"
            time.sleep(PAUSE)
            start = time.perf_counter()
            checkpoint.record_step(
                step,
                [new],
                density_paths={path_name: ((step - first) % 3 + 1, 1, frames)},
                state={"generator": rng.bit_generator.state, "schedule": {"last_trained": step, "loss": 0.5}},
                log=log,
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
    parser.add_argument("--no-ways", action="store_true", help="leave out the ways to commit")
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        path = Path(directory) / "run.aimmd"
        print(f"{'ms per record_step':<34}  median    mean     95%     max   bytes per shot   open [s]   read all [s]")
        for n_frames in (0, N_FRAMES):
            for n_shots in options.sizes:
                print_cost(path, n_shots, n_frames, options.steps, rng)
                path.unlink()
        print(f"\n{'with a step log':<34}  median    mean     95%     max   bytes per step   open [s]   read step [s]")
        for n_shots in options.sizes:
            print_cost_with_log(path, n_shots, options.steps, rng)
            path.unlink()
        if not options.no_ways:
            print(f"\n{'ways to commit, 10 000 shots':<34}  median    mean     95%     max")
            fill(path, 10_000, N_FRAMES, rng)
            for mode in ("DELETE", "TRUNCATE", "PERSIST", "WAL"):
                for synchronous in ("OFF", "NORMAL", "FULL", "EXTRA"):
                    row(f"{mode} {synchronous}", times_under(path, mode, synchronous, options.steps, rng))
        print(f"\n{'one fsync of 4096 bytes':<34}  median    mean     95%     max")
        row("", milliseconds_per_fsync(Path(directory) / "plain", options.steps))


def print_cost(path, n_shots, n_frames, n_steps, rng):
    fill(path, n_shots, n_frames, rng)
    size = path.stat().st_size / n_shots
    times = milliseconds_per_step(path, n_frames, n_steps, rng)
    start = time.perf_counter()
    with Checkpoint.open(path, read_only=True) as checkpoint:
        opened = time.perf_counter()
        assert len(checkpoint.shots()) == n_shots + n_steps
    read = time.perf_counter()
    label = f"{n_shots:>9,} shots, {n_frames or 'no'} leg frames"
    row(label, times, f"{size:15.0f} {opened - start:10.2f} {read - opened:14.2f}")


def print_cost_with_log(path, n_shots, n_steps, rng):
    fill(path, n_shots, N_FRAMES, rng)
    fill_log(path, n_shots)
    size = path.stat().st_size
    times = milliseconds_per_step(path, N_FRAMES, n_steps, rng, with_log=True)
    size = (path.stat().st_size - size) / n_steps
    start = time.perf_counter()
    with Checkpoint.open(path, read_only=True) as checkpoint:
        opened = time.perf_counter()
        places = checkpoint.path_frames(checkpoint.logged_step(checkpoint.step)["trial"])
        assert len(checkpoint.frame_block(places[0, 0]).arrays["coordinates"]) == N_PATH_FRAMES
    read = time.perf_counter()
    row(f"{n_shots:>9,} shots, blocks and paths", times, f"{size:15.0f} {opened - start:10.2f} {read - opened:15.4f}")


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

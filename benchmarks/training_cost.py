"""CPU time and memory of training: one decision, and one training that goes on.

Synthetic two-way shots with frames of their legs (`--frames 0`: without). A decision trains several times from new weights
(relevance, auxiliary data); afterwards the model is trained further. To compare versions, run this in both trees on the
same machine.

    python benchmarks/training_cost.py --descriptors 2000 --shots 100 --frames 100
    python benchmarks/training_cost.py --descriptors 2 --shots 100000 --frames 0
"""

import argparse
import os
import resource
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.training import fit
from ops_aimmd.committor.training_set import LegFrames, ShootingResult, TrainingSet


def synthetic_shots(n_descriptors, n_shots, n_frames, rng):
    """Shots from normally distributed points; two legs that move away from them."""
    shots = TrainingSet.empty(n_descriptors, 2)
    half = n_frames // 2
    is_end = np.isin(np.arange(2 * half), [half - 1, 2 * half - 1])
    if not n_frames:
        outcomes = rng.integers(0, 3, size=n_shots)
        counts = np.column_stack([2 - outcomes, outcomes])
        return TrainingSet(rng.normal(size=(n_shots, n_descriptors)), counts, steps=np.arange(n_shots))
    for step in range(n_shots):
        outcomes = rng.integers(0, 2, size=2)
        start = rng.normal(size=n_descriptors)
        moved = 0.1 * rng.normal(size=(2 * half, n_descriptors))
        positions = start + np.concatenate([np.cumsum(part, axis=0) for part in np.split(moved, 2)])
        frames = LegFrames(positions, np.repeat(outcomes, half), is_end, moved)
        shots.append(ShootingResult(start, np.bincount(outcomes, minlength=2), step=step, leg_frames=frames))
    return shots


def main():
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--descriptors", type=int, default=2000)
    parser.add_argument("--shots", type=int, default=100)
    parser.add_argument("--frames", type=int, default=100, help="of both legs of a shot")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shots = synthetic_shots(arguments.descriptors, arguments.shots, arguments.frames, np.random.default_rng(0))
    model, report = CommittorModel.for_descriptors(arguments.descriptors, seed=1), None
    for name in ("decision", "further training"):
        begin = time.process_time()
        report = fit(model, shots, 1, previous=report)
        print(f"{name:17} {time.process_time() - begin:6.1f} s CPU, {report.epochs} epochs")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    frames = shots.auxiliary
    of_frames = (frames.descriptors.nbytes + frames.displacements.nbytes) / 2**30
    print(f"peak memory       {peak:6.2f} GiB; frames of legs alone {of_frames:.2f} GiB")


if __name__ == "__main__":
    main()

"""Does the default network over-fit on real shots? Nucleation of methane clathrate, one-way shots at four temperatures.

The file holds for each temperature T the arrays `descriptors_TK` (n, 22) and `shot_results_TK` (n, 2); T is the 23rd
descriptor. Prints the cross-validated loss in nats per shot of the default model, of a linear one (logistic regression,
trained in the same way) and of a constant: five folds, each a block of consecutive shots of every temperature; mean over
the seeds of the training, their standard deviation, and the standard error from the number of shots.

    python benchmarks/methane_clathrate.py methane_clathrate_shots.npz [--seeds 1 2 3 4 5] [--shots 300] [--one-chain]
"""

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import ops_aimmd
from ops_aimmd.committor.networks import FeedForward

TEMPERATURES = (270, 275, 280, 285)
N_FOLDS = 5


def load(file):
    """Descriptors (n, 23), counts (n, 2), the chain of each shot (n,), which is its temperature, and fold (n,)."""
    with np.load(file) as data:
        x = [np.c_[data[f"descriptors_{T}K"], np.full(len(data[f"descriptors_{T}K"]), T)] for T in TEMPERATURES]
        counts = [data[f"shot_results_{T}K"] for T in TEMPERATURES]
    folds = [np.arange(len(part)) * N_FOLDS // len(part) for part in x]
    chains = np.repeat(np.arange(len(TEMPERATURES)), [len(part) for part in x])
    return np.concatenate(x), np.concatenate(counts).astype(float), chains, np.concatenate(folds)


def losses(make, x, counts, chains, fold, seed, n_shots):
    """Loss of every shot under a model that has not seen its block."""
    result = np.empty(len(x))
    for k in range(N_FOLDS):
        rows = np.flatnonzero(fold != k)
        if n_shots is not None:
            rows = np.sort(np.random.default_rng([seed, k]).choice(rows, n_shots, replace=False))
        model = make(x.shape[1], seed)
        ops_aimmd.fit(model, ops_aimmd.TrainingSet(x[rows], counts[rows], chains=chains[rows]), seed=seed)
        with torch.no_grad():
            q = model.reaction_coordinate(x[fold == k])
        of_fold = counts[fold == k]
        result[fold == k] = of_fold[:, 0] * np.logaddexp(0, q) + of_fold[:, 1] * np.logaddexp(0, -q)
    return result / counts.sum(axis=1)


def default(n_descriptors, seed):
    """What a learner takes."""
    return ops_aimmd.CommittorModel.for_descriptors(n_descriptors, n_states=2, seed=seed)


def linear(n_descriptors, seed):
    """Logistic regression as a network."""
    torch.manual_seed(seed)
    return ops_aimmd.CommittorModel(FeedForward(n_descriptors, 1, hidden=(), n_members=5), n_descriptors)


def main():
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--shots", type=int, help="train on so many shots of the other folds only")
    parser.add_argument("--one-chain", action="store_true", help="do not tell the trainer which shots follow each other")
    options = parser.parse_args()
    torch.set_num_threads(1)
    x, counts, chains, fold = load(options.file)
    if options.one_chain:
        chains = np.zeros(len(x), dtype=int)
    constant = np.mean([counts[fold != k].sum(axis=0) / counts[fold != k].sum() for k in range(N_FOLDS)], axis=0)
    print(f"{len(x)} shots; constant: {-(counts @ np.log(constant)).sum() / counts.sum():.4f}")
    kinds = {
        "default": lambda d, seed: ops_aimmd.CommittorModel.for_descriptors(d, n_states=2, seed=seed),
        "linear": linear,
    }
    for name, make in kinds.items():
        start = time.process_time()
        runs = np.array([losses(make, x, counts, chains, fold, seed, options.shots) for seed in options.seeds])
        error = runs.mean(axis=0).std() / np.sqrt(len(x))
        spread = runs.mean(axis=1).std(ddof=1) if len(runs) > 1 else np.nan
        seconds = (time.process_time() - start) / len(runs) / N_FOLDS
        print(f"{name:8} {runs.mean():.4f}, seeds {spread:.4f}, shots {error:.4f}; {seconds:.1f} s per fit", flush=True)


if __name__ == "__main__":
    main()

"""Formulas for the nucleation of methane clathrate hydrate, from all 22 descriptors and the temperature, without a network.

For each seed are printed the picked formula, its loss per leg on all shots and, constants fitted to the other blocks, on
held-out blocks; with --nested also the loss when the whole search never sees a held-out block. At the end: how often each
descriptor is in the pick. The data are shots at four temperatures (arrays descriptors_270K, shot_results_270K, ...).

    python benchmarks/symbolic_clathrate.py methane_clathrate_shots.npz [--seeds 5] [--seconds 20] [--nested]
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import numpy as np
from methane_clathrate import load

from ops_aimmd.committor.correlated_shots import Folds
from ops_aimmd.committor.likelihood import binomial_derivatives
from ops_aimmd.committor.training_set import TrainingSet
from ops_aimmd.explain.formulas.fit_expressions import fit_expressions

N_FOLDS, SHOTS_PER_BLOCK = 5, 40


def read(path: str) -> tuple[TrainingSet, list[str]]:
    """Shots of all temperatures, each a chain, and the names of the inputs."""
    inputs, counts, chains, _ = load(path)
    names = [f"d{i}" for i in range(inputs.shape[1] - 1)] + ["T"]
    return TrainingSet(inputs, counts, chains=chains), names


def part(shots: TrainingSet, rows: np.ndarray) -> TrainingSet:
    """Some of the shots."""
    return TrainingSet(shots.descriptors[rows], shots.counts[rows], chains=shots.chains[rows])


def nested_loss(shots: TrainingSet, names, options: dict) -> float:
    """Loss per leg of blocks that the search has not seen."""
    fold = Folds(N_FOLDS, SHOTS_PER_BLOCK).of(shots.chains, shots.steps)
    total = 0.0
    for k in range(N_FOLDS):
        front = fit_expressions(part(shots, fold != k), names=names, **options)
        held_out = part(shots, fold == k)
        q = front.best.to_model().reaction_coordinate(held_out.descriptors)
        total += binomial_derivatives(q, held_out.counts[:, 1], held_out.counts.sum(axis=1))[0].sum()
    return total / shots.counts.sum()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--engine", default="score")
    parser.add_argument("--pick", default="description_length")
    parser.add_argument("--nested", action="store_true")
    arguments = parser.parse_args()
    shots, names = read(arguments.data)
    legs = shots.counts.sum(axis=0)
    p = legs[1] / legs.sum()
    print(f"{len(shots)} shots; loss per leg of a constant {-(p * np.log(p) + (1 - p) * np.log(1 - p)):.4f}")
    used = Counter()
    for seed in range(arguments.seeds):
        options = {
            "engine": arguments.engine,
            "pick": arguments.pick,
            "time_limit": arguments.seconds,
            "seed": seed,
            "progress": False,
        }
        start = time.process_time()
        front = fit_expressions(shots, names=names, **options)
        seconds = time.process_time() - start
        best = front.best
        used.update(best.variables)
        nested = f", unseen {nested_loss(shots, names, options):.4f}" if arguments.nested else ""
        print(
            f"seed {seed}: {seconds:.0f} s, all shots {best.loss_per_leg:.4f}, held out {best.cross_validated_loss:.4f} +- "
            f"{best.cross_validated_error:.4f}{nested}, {front.effective_shots:.0f} effective shots: q = {best}",
            flush=True,
        )
    print("in the picks: " + ", ".join(f"{name} {count}" for name, count in used.most_common()))


if __name__ == "__main__":
    main()

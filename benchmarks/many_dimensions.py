"""Few shots and many inputs: the default committor beside ridge logistic regression.

Stand-ins for a small protein with 250 two-way shots and 2000 descriptors. Five guided chains of 50 shots on the Wolfe-Quapp
potential with inertia; the inputs are random smooth functions of x, y and 20 slow coordinates that do not matter.

dynamics     the outcomes of the shots; `fit` has the frames of the legs, too
linear       outcomes drawn from log-odds that are linear in the inputs, each leg on its own; no frames

Loss per leg on shots of other chains, for each of some data sets. The strength of the ridge is chosen by cross-validation
over blocks of the chains. A difference below zero says that `fit` is better.

    python benchmarks/many_dimensions.py                    # ten minutes
    python benchmarks/many_dimensions.py --quick
"""

import argparse
import os
import time
from dataclasses import replace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from scipy.special import expit
from shot_collection import SYSTEMS, collect

from ops_aimmd.committor.correlated_shots import Folds
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.training import fit
from ops_aimmd.committor.training_set import LegFrames, ShootingResult, TrainingSet

CHAINS, SHOTS_PER_CHAIN, TEST_CHAINS = 5, 50, 20
N_SLOW = 20
FRAMES_OF_SLOW = 2000.0
"""Correlation time of the slow coordinates in frames; legs have some hundred."""
KEPT_FROM_SHOT_TO_SHOT = 0.9
SPREAD_OF_LOG_ODDS = 1.5
STRENGTHS = 10.0 ** np.arange(-3, 2.1, 0.5)


class Inputs:
    """Random smooth functions of x, y and the slow coordinates."""

    def __init__(self, n_inputs, rng):
        self.weights = rng.normal(size=(2 + N_SLOW, n_inputs)) * 2.0 / np.sqrt(2 + N_SLOW)
        self.offsets = rng.normal(size=n_inputs)
        self.log_odds = rng.normal(size=n_inputs)

    def __call__(self, x, slow):
        return np.tanh(np.concatenate([x, slow], axis=1) @ self.weights + self.offsets)


def with_slow_coordinates(chain, inputs, rng):
    """The shots of a chain, their descriptors and those of the frames replaced by the inputs."""
    slow = rng.normal(size=(1, N_SLOW))
    shots = []
    for shot in chain:
        slow = propagated(slow, 1 - KEPT_FROM_SHOT_TO_SHOT, rng)
        frames = shot.leg_frames
        descriptors, moved, now, first = [], [], slow, True
        for x, change, is_end in zip(frames.descriptors, frames.displacements, frames.is_end, strict=True):
            if first:
                now, first = slow, False
            before = propagated(now, 20 / FRAMES_OF_SLOW, rng)  # some 20 frames between those that are kept
            now = propagated(before, 1 / FRAMES_OF_SLOW, rng)
            descriptors.append(inputs(x[None, :2], now)[0])
            moved.append(descriptors[-1] - inputs(x[None, :2] - change[None, :2], before)[0])
            first = is_end
        frames = LegFrames(np.array(descriptors), frames.outcomes, frames.is_end, np.array(moved))
        shots.append(ShootingResult(inputs(shot.descriptors[None, :2], slow)[0], shot.counts, leg_frames=frames))
    return shots


def propagated(slow, forgotten, rng):
    """The slow coordinates after they have forgotten a fraction of what they were."""
    return (1 - forgotten) * slow + np.sqrt(1 - (1 - forgotten) ** 2) * rng.normal(size=slow.shape)


def training_set(chains, counts=None):
    """Shots in the order of time, chain beside chain; with other outcomes, the frames are left out."""
    result = TrainingSet.empty(len(chains[0][0].descriptors), 2)
    for step in range(len(chains[0])):
        for name, chain in enumerate(chains):
            shot = replace(chain[step], step=step, chain=name)
            result.append(shot if counts is None else replace(shot, counts=counts[name][step], leg_frames=None))
    return result


def loss(log_odds, counts):
    """Negative log-likelihood per leg."""
    return float((np.logaddexp(0, log_odds) * counts.sum(axis=1) - log_odds * counts[:, 1]).sum() / counts.sum())


def ridge(x, counts, strength):
    """Offset and weights of the ridge logistic regression."""

    def target(w):
        z = w[0] + x @ w[1:]
        gradient = expit(z) * counts.sum(axis=1) - counts[:, 1]
        value = (np.logaddexp(0, z) * counts.sum(axis=1) - z * counts[:, 1]).sum() + strength / 2 * w[1:] @ w[1:]
        return value, np.concatenate([[gradient.sum()], x.T @ gradient + strength * w[1:]])

    return minimize(target, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x


def loss_of_ridge(shots, x_new, counts_new):
    """Loss on new shots, with the strength that cross-validation chooses."""
    mean, spread = shots.descriptors.mean(axis=0), shots.descriptors.std(axis=0)
    u, s, vt = np.linalg.svd((shots.descriptors - mean) / spread, full_matrices=False)
    x, counts = u * s / s[0], shots.counts  # the ridge does not change under the rotation
    fold = Folds(5, 10).of(shots.chains, shots.steps)
    held_out = []
    for strength in STRENGTHS:
        parts = [ridge(x[fold != k], counts[fold != k], strength) for k in range(5)]
        held_out.append(sum(loss(w[0] + x[fold == k] @ w[1:], counts[fold == k]) for k, w in enumerate(parts)))
    w = ridge(x, counts, STRENGTHS[np.argmin(held_out)])
    return loss(w[0] + (x_new - mean) / spread @ vt.T / s[0] @ w[1:], counts_new)


def loss_of_fit(shots, x_new, counts_new, seed):
    """Loss on new shots, CPU seconds of the training, and its report."""
    model, begin = CommittorModel.for_descriptors(shots.n_descriptors, seed=seed), time.process_time()
    report = fit(model, shots, seed)
    seconds = time.process_time() - begin
    p = np.clip(model.committor(x_new), 1e-12, 1 - 1e-12)
    return loss(np.log(p / (1 - p)), counts_new), seconds, report


def main():
    """Make the data sets, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--sets", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one data set, 200 inputs")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sets, arguments.inputs = 1, 200
    torch.set_num_threads(1)
    system = SYSTEMS["Wolfe-Quapp, inertia"]()
    rows = []
    for seed in range(arguments.sets):
        rng = np.random.default_rng(seed)
        inputs = Inputs(arguments.inputs, rng)
        chains = collect(system, CHAINS + TEST_CHAINS, SHOTS_PER_CHAIN, seed=seed + 1)
        chains = [with_slow_coordinates(chain, inputs, rng) for chain in chains]
        x = np.array([[shot.descriptors for shot in chain] for chain in chains])
        log_odds = (x - x.mean(axis=(0, 1))) @ inputs.log_odds
        linear = rng.binomial(2, expit(SPREAD_OF_LOG_ODDS * log_odds / log_odds.std()))
        linear = np.stack([2 - linear, linear], axis=-1)
        dynamics = np.array([[shot.counts for shot in chain] for chain in chains])
        x_new = x[CHAINS:].reshape(-1, x.shape[-1])
        for name, counts in (("dynamics", dynamics), ("linear", linear)):
            shots = training_set(chains[:CHAINS], None if name == "dynamics" else linear[:CHAINS])
            counts_new = counts[CHAINS:].reshape(-1, 2)
            of_ridge = loss_of_ridge(shots, x_new, counts_new)
            of_fit, seconds, report = loss_of_fit(shots, x_new, counts_new, seed)
            rows.append((name, seed, of_ridge, of_fit, of_fit - of_ridge, seconds))
            print(*rows[-1], report, flush=True)
    table = pd.DataFrame(rows, columns=["outcomes", "set", "ridge", "fit", "difference", "CPU s"])
    print(table.to_string(index=False, float_format="{:.3f}".format))
    means = table.groupby("outcomes")["difference"]
    for name, mean, error in zip(means.mean().index, means.mean(), means.sem(), strict=True):
        print(f"{name}: mean difference {mean:+.4f} +- {error:.4f}")


if __name__ == "__main__":
    main()

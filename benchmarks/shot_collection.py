"""Shots of many guided chains of a toy system at once, for the benchmarks of training; no script of its own.

Shooting points are picked with the exact overdamped committor, Lorentzian over the density of the path frames. All legs
advance together; a chain goes on as soon as its own two are back.
"""

import os
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from brute_force import brute_force_committor

from ops_aimmd.committor.training_set import LegFrames, ShootingResult
from ops_aimmd.sampling.shooting_results import FRAMES_PER_LEG, MAX_FRAMES_PER_LEG
from ops_aimmd.systems import toy
from ops_aimmd.systems.swarm import Swarm, boltzmann_velocities

SYSTEMS = {
    "Wolfe-Quapp": toy.wolfe_quapp,
    "Wolfe-Quapp, inertia": lambda: toy.wolfe_quapp(dynamics="langevin"),
    "Mueller-Brown": toy.mueller_brown,
    "Mueller-Brown, inertia": lambda: toy.mueller_brown(dynamics="langevin"),
    "two wells, inertia": toy.two_gaussian_wells,
    "two wells, inertia, 22-D": lambda: toy.two_gaussian_wells(n_bath=20),
}


def exact(system, x):
    """Exact overdamped committor; points outside of its box are moved to its border."""
    low, high = np.array(system.exact.box).T
    return system.committor(np.concatenate([np.clip(x[:, :2], low, high), x[:, 2:]], axis=1))


class Chain:
    """A guided two-way chain whose dynamics somebody else makes."""

    def __init__(self, system, path, rng):
        self.system, self.path, self.rng = system, path, rng
        self.density = np.ones(10)
        self.results = []

    def weights(self, path):
        p = np.clip(exact(self.system, path), 1e-9, 1 - 1e-9)
        density = self.density / self.density.sum()
        weights = 1 / (1 + np.log(p / (1 - p)) ** 2) / density[np.minimum((10 * p).astype(int), 9)]
        weights[[0, -1]] = 0
        return weights

    def next_shot(self):
        weights = self.weights(self.path)
        self.index = self.rng.choice(len(weights), p=weights / weights.sum())
        self.probability = weights[self.index] / weights.sum()
        velocity = boltzmann_velocities(1, self.system.engine.mass, self.system.temperature, self.rng)[0]
        return self.path[self.index], velocity

    def finish_shot(self, legs, outcomes):
        start = self.path[self.index]
        self.results.append(shooting_result(start, legs, outcomes, len(self.path), len(self.results)))
        if outcomes[0] != outcomes[1]:
            new = np.concatenate([legs[1][::-1], start[None], legs[0]])
            weights = self.weights(new)
            if self.rng.random() < weights[len(legs[1])] / weights.sum() / self.probability:
                self.path = new
        p = exact(self.system, self.path[1:-1])
        self.density += np.bincount(np.minimum((10 * p).astype(int), 9), minlength=10)


def shooting_result(start, legs, outcomes, path_length, step):
    """With frames of the legs as the package keeps them."""
    stride = max(1, round(path_length / 2 / FRAMES_PER_LEG))
    frames, before, outcome_of, is_end = [], [], [], []
    for leg, outcome in zip(legs, outcomes, strict=True):
        leg = np.concatenate([start[None], leg])
        last = len(leg) - 1
        chosen = [*range(stride, last, stride)[:MAX_FRAMES_PER_LEG], last]
        frames.append(leg[chosen])
        before.append(leg[np.array(chosen) - 1])
        outcome_of += [outcome] * len(chosen)
        is_end += [i == last for i in chosen]
    frames, before = np.concatenate(frames), np.concatenate(before)
    leg_frames = LegFrames(frames, np.array(outcome_of), np.array(is_end), frames - before)
    counts = np.bincount(outcomes, minlength=2)
    return ShootingResult(start, counts, step=step, velocity_origin="boltzmann", leg_frames=leg_frames)


def collect(system, n_chains, n_shots, seed):
    """List of shooting results for each chain."""
    rng = np.random.default_rng(seed)
    chains = []
    for number in range(n_chains):
        path = system.initial_trajectory(seed=1000 * seed + number).xyz[:, 0]
        chains.append(Chain(system, path.reshape(len(path), -1)[:, : system.n_dim], rng))
    starts = [chain.next_shot() for chain in chains]
    x = np.repeat([x for x, _ in starts], 2, axis=0)
    v = np.stack([velocity for _, v in starts for velocity in (v, -v)])
    swarm = Swarm(system.engine, system.potential, system.engine.mass, x, v)
    owner = np.repeat(np.arange(n_chains), 2)  # the two legs of a chain stay neighbours
    history, outcome = [[] for _ in owner], np.full(2 * n_chains, -1)
    while len(swarm):
        swarm.advance(rng)
        running = np.flatnonzero(outcome < 0)
        for leg in running:
            history[leg].append(swarm.positions[leg].copy())
        inside = np.stack([disk.contains(swarm.positions) for disk in system.disks], axis=1)
        stopped = running[inside[running].any(axis=1)]
        outcome[stopped] = inside[stopped, 1]
        for first in np.unique(stopped - stopped % 2):
            legs = slice(first, first + 2)
            if (outcome[legs] < 0).any():
                continue
            chain = chains[owner[first]]
            chain.finish_shot([np.array(h) for h in history[legs]], outcome[legs])
            if len(chain.results) < n_shots:
                x, v = chain.next_shot()
                swarm.replace(np.arange(first, first + 2), np.stack([x, x]), np.stack([v, -v]))
                history[legs], outcome[legs] = [[], []], -1
        over = np.array([len(chains[number].results) >= n_shots for number in owner])
        if over.any():
            swarm.keep(~over)
            owner, outcome = owner[~over], outcome[~over]
            history = [h for h, gone in zip(history, over, strict=True) if not gone]
    return [chain.results for chain in chains]


@dataclass(frozen=True)
class Reference:
    """Points, their committor, and the mean square of its statistical error."""

    points: np.ndarray
    committor: np.ndarray
    noise: float

    @classmethod
    def brute_force(cls, system, points, n_shots, rng):
        """Shots with the dynamics and the frame spacing of the engine."""
        counts = brute_force_committor(system, points, n_shots, rng)
        p = counts[:, 1] / counts.sum(axis=1)
        return cls(points, p, float(np.mean(p * (1 - p) / (counts.sum(axis=1) - 1))))

    @classmethod
    def visited(cls, system, chains, n_shots, rng, per_bin=40):
        """Frames of the legs of some chains, as many from each tenth of the committor."""
        frames = [shot.leg_frames for chain in chains for shot in chain]
        x = np.concatenate([f.descriptors[~f.is_end] for f in frames])
        x = x[rng.permutation(len(x))[:30_000]]
        tenth = np.minimum((10 * exact(system, x)).astype(int), 9)
        chosen = np.concatenate([np.flatnonzero(tenth == number)[:per_bin] for number in range(10)])
        return cls.brute_force(system, x[chosen], n_shots, rng)

    def rmse(self, model):
        square = np.mean((model.committor(self.points) - self.committor) ** 2) - self.noise
        return np.sqrt(max(square, 0.0))

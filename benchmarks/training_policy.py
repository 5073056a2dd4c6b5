"""Which way of training gives the best committor for its price? Shots of path sampling under several training policies.

Many chains of two-way shooting are run at once, guided by the exact overdamped committor so that all policies learn
from the same shots. Each chain is then replayed: a model is trained whenever the default schedule asks for it. Printed
are the median over chains of the root mean square error (RMSE) of the committor after 150, 300 and 1000 shots on a grid
of low potential energy, and the CPU time of all trainings. The reference is a brute-force committor where the dynamics
has inertia, else the exact one.

    python benchmarks/training_policy.py [--systems wells wells-22d wolfe-quapp mueller-brown] [--chains 5] [--quick]
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.training import DiminishingSchedule, fit
from ops_aimmd.committor.training_set import LegFrames, ShootingResult, TrainingSet
from ops_aimmd.systems import toy
from ops_aimmd.systems.brute_force import Swarm, boltzmann_velocities, brute_force_committor

SYSTEMS = {
    "wells": lambda: toy.two_gaussian_wells(dynamics="langevin"),
    "wells-22d": lambda: toy.two_gaussian_wells(dynamics="langevin", n_bath=20),
    "wolfe-quapp": lambda: toy.wolfe_quapp(),
    "mueller-brown": lambda: toy.mueller_brown(),
}

POLICIES = {
    "default": {},
    "decided anew at each training": {"previous": None},
    "descriptors of equal variance": {"relevance": None},
    "shooting points only": {"auxiliary_weights": (0.0, 0.0)},
    "with end frames": {"auxiliary_weights": (0.3, 0.0)},
    "with all frames of legs": {"auxiliary_weights": (0.3, 1.0)},
    "half the epochs": {"max_epochs": 30},
}

FRAMES_PER_LEG = 10


@dataclass(frozen=True)
class Leg:
    """Positions of a leg in its own time, without the shooting point, and the index of the state reached."""

    frames: np.ndarray
    outcome: int


def shoot(system, x, velocities, rng) -> list[Leg]:
    """Legs from many points at once."""
    swarm = Swarm(system.engine, system.potential, system.engine.mass, x, velocities)
    alive, history = np.arange(len(x)), [[] for _ in x]
    legs: list[Leg | None] = [None] * len(x)
    while len(swarm):
        swarm.advance(rng)
        for row, position in zip(alive, swarm.positions, strict=True):
            history[row].append(position.copy())
        inside = np.stack([disk.contains(swarm.positions) for disk in system.disks], axis=1)
        for row, where in zip(alive[inside.any(axis=1)], inside[inside.any(axis=1)], strict=True):
            legs[row] = Leg(np.array(history[row]), int(where[1]))
        swarm.keep(~inside.any(axis=1))
        alive = alive[~inside.any(axis=1)]
    return legs


def weights_along(system, path, density):
    """Lorentzian of the log-odds over the density in the committor; zero at the end frames."""
    p = np.clip(exact(system, path), 1e-9, 1 - 1e-9)
    weights = 1 / (1 + np.log(p / (1 - p)) ** 2) / density[np.minimum((10 * p).astype(int), 9)]
    weights[[0, -1]] = 0
    return weights


def exact(system, x):
    """Exact overdamped committor; points outside of its box are moved to its border."""
    low, high = np.array(system.exact.box).T
    return system.committor(np.concatenate([np.clip(x[:, :2], low, high), x[:, 2:]], axis=1))


def path_sampling(system, n_chains, n_steps, seed):
    """Two-way shooting in many chains at once; for each chain the list of its shooting results."""
    rng = np.random.default_rng(seed)
    paths = [system.initial_trajectory(seed=seed + chain).xyz[:, 0] for chain in range(n_chains)]
    paths = [path.reshape(len(path), -1)[:, : system.n_dim] for path in paths]
    counts = np.ones((n_chains, 10))
    results = [[] for _ in range(n_chains)]
    for step in range(n_steps):
        old = [weights_along(system, path, c / c.sum()) for path, c in zip(paths, counts, strict=True)]
        index = [rng.choice(len(w), p=w / w.sum()) for w in old]
        x = np.array([path[i] for path, i in zip(paths, index, strict=True)])
        v = boltzmann_velocities(n_chains, system.engine.mass, system.temperature, rng)
        legs = shoot(system, np.concatenate([x, x]), np.concatenate([v, -v]), rng)
        for chain in range(n_chains):
            pair = legs[chain], legs[chain + n_chains]
            results[chain].append(shooting_result(x[chain], pair, step))
            if pair[0].outcome != pair[1].outcome:
                path = np.concatenate([pair[0].frames[::-1], x[chain][None], pair[1].frames])
                new = weights_along(system, path, counts[chain] / counts[chain].sum())
                at = len(pair[0].frames)
                ratio = new[at] / new.sum() / (old[chain][index[chain]] / old[chain].sum())
                if rng.random() < ratio:
                    paths[chain] = path
            p = exact(system, paths[chain][1:-1])
            counts[chain] += np.bincount(np.minimum((10 * p).astype(int), 9), minlength=10)
    return results


def shooting_result(x, legs, step) -> ShootingResult:
    """With ten frames of each leg, the last one inside the state."""
    kept = [leg.frames[np.unique(np.linspace(0, len(leg.frames) - 1, FRAMES_PER_LEG + 1).astype(int))] for leg in legs]
    frames = LegFrames(
        np.concatenate(kept),
        np.repeat([leg.outcome for leg in legs], [len(k) for k in kept]),
        np.concatenate([np.arange(len(k)) == len(k) - 1 for k in kept]),
    )
    counts = np.bincount([leg.outcome for leg in legs], minlength=2)
    return ShootingResult(x, counts, step=step, velocity_origin="boltzmann", leg_frames=frames)


@dataclass(frozen=True)
class Reference:
    """Points, their committor, and the mean square of its statistical error."""

    points: np.ndarray
    committor: np.ndarray
    noise: float

    @classmethod
    def of(cls, name, system, n_shots):
        rng = np.random.default_rng(0)
        points = system.evaluation_points(rng=rng)
        if not name.startswith("wells"):
            return cls(points, system.committor(points), 0.0)
        counts = brute_force_committor(system, points, n_shots, rng)
        p = counts[:, 1] / counts.sum(axis=1)
        return cls(points, p, float(np.mean(p * (1 - p) / (counts.sum(axis=1) - 1))))

    def rmse(self, model):
        square = np.mean((model.committor(self.points) - self.committor) ** 2) - self.noise
        return np.sqrt(max(square, 0.0))


def replay(results, seed, marks, reference, options):
    """Train on a growing set by the default schedule; RMSE at the marks, CPU seconds in all, last training's."""
    model = CommittorModel.for_descriptors(len(results[0].descriptors), seed=seed)
    training_set = TrainingSet.empty(model.n_descriptors, 2)
    schedule, last, report, seconds = DiminishingSchedule(), 0, None, [0.0]
    rmse = []
    for result in results[: max(marks)]:
        training_set.append(result)
        if schedule.due(len(training_set), last):
            last = len(training_set)
            start = time.process_time()
            report = fit(model, training_set, seed=last, **{"previous": report, **options})
            seconds.append(time.process_time() - start)
        if len(training_set) in marks:
            rmse.append(reference.rmse(model))
    return [*rmse, sum(seconds), np.median(seconds[-5:])]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", nargs="+", default=["wells", "wells-22d", "wolfe-quapp"], choices=list(SYSTEMS))
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=list(POLICIES))
    parser.add_argument("--chains", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="150 and 300 shots only")
    arguments = parser.parse_args()
    marks = (150, 300) if arguments.quick else (150, 300, 1000)
    for name in arguments.systems:
        system = SYSTEMS[name]()
        start = time.perf_counter()
        reference = Reference.of(name, system, 500 if arguments.quick else 2000)
        chains = path_sampling(system, arguments.chains, max(marks), seed=1)
        print(
            f"\n{name}: {arguments.chains} chains, {time.perf_counter() - start:.0f} s; RMSE after shots, CPU of trainings"
        )
        print(f"{'policy':32}" + "".join(f"{m:>9}" for m in marks) + f"{'worst':>9}{'all/s':>9}{'last/ms':>9}")
        for policy in arguments.policies:
            table = np.array([replay(r, k, marks, reference, POLICIES[policy]) for k, r in enumerate(chains)])
            rmse, worst = np.median(table[:, : len(marks)], axis=0), table[:, len(marks) - 1].max()
            total, last = table[:, -2:].mean(axis=0)
            print(
                f"{policy:32}" + "".join(f"{r:9.3f}" for r in rmse) + f"{worst:9.3f}{total:9.1f}{1e3 * last:9.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

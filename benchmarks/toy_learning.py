"""How well is the committor known after so many MC steps? Two Gaussian wells, Langevin dynamics, with and without a bath.

Prints the root mean square error (RMSE) of a committor that a default learner has learned on the fly, and of a fresh
model fitted to the same shots afterwards, against brute-force committors of the same integrator and frame spacing. The
grid covers V < 0.25 outside the states, every point weighing the same; coordinates of a bath are drawn from their
Boltzmann distribution. The noise of the reference is subtracted.

    python benchmarks/toy_learning.py [--quick] [--seeds 1 2 3 4 5] [--n-bath 0 20]

The reference implementation reaches 0.086 after 300 steps and 0.066-0.076 after 1000, with a bath of 20 oscillators
0.130 after 300. To be reached here (median): 0.07 and 0.045, with the bath 0.09 after 1000.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import time
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import openpathsampling as paths
from brute_force import brute_force_committor

import ops_aimmd
from ops_aimmd.systems import toy

TARGETS = {(0, 300): 0.07, (0, 1000): 0.045, (20, 1000): 0.09}
"""Medians to be reached, by (oscillators of the bath, MC steps)."""


@dataclass(frozen=True)
class Reference:
    """Brute-force committors on a grid.

    Attributes
    ----------
    points : array, shape (n, 2)
    committor : array, shape (n,)
    noise : float
        Mean square of the statistical error of `committor`.
    """

    points: np.ndarray
    committor: np.ndarray
    noise: float

    @classmethod
    def of(cls, system, n_shots, seed=0):
        points = system.evaluation_points()
        counts = brute_force_committor(system, points, n_shots, np.random.default_rng(seed))
        p = counts[:, 1] / counts.sum(axis=1)
        return cls(points, p, float(np.mean(p * (1 - p) / (counts.sum(axis=1) - 1))))

    def rmse(self, model, system, seed=0):
        """RMSE of a model over the grid, the noise of the reference subtracted."""
        x = self.points
        if system.n_dim > 2:
            spread = np.sqrt(system.temperature / np.array(system.potential.stiffness))
            x = np.column_stack([x, spread * np.random.default_rng(seed).standard_normal((len(x), len(spread)))])
        return float(np.sqrt(max(np.mean((model.committor(x) - self.committor) ** 2) - self.noise, 0.0)))


def refit(training_set, seed):
    """A fresh model, fitted once to all shots."""
    model = ops_aimmd.CommittorModel.for_descriptors(training_set.n_descriptors, n_states=2, seed=seed)
    ops_aimmd.fit(model, training_set, seed=seed)
    return model


def learn(system, reference, n_steps, seed):
    """One run; yields (steps, RMSE on the fly, RMSE of a refit, generated so far) after each number of steps."""
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=seed)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=system.engine)
    with contextlib.redirect_stdout(io.StringIO()):  # what OPS says about the initial conditions
        start = scheme.initial_conditions_from_trajectories(system.initial_trajectory(seed))
    sampler = paths.PathSampling(storage=None, move_scheme=scheme, sample_set=start)
    sampler.attach_hook(ops_aimmd.TrainingHook(learner))
    done = 0
    with open(os.devnull, "w") as sampler.output_stream:
        for steps in n_steps:
            sampler.run(steps - done)
            done = steps
            shots = learner.training_set
            on_the_fly = reference.rmse(learner.model, system)
            refitted = reference.rmse(refit(shots, seed), system)
            yield steps, on_the_fly, refitted, float((shots.counts == 1).all(axis=1).mean())


def summary(values):
    return f"{np.median(values):.3f} ({min(values):.3f} - {max(values):.3f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--steps", type=int, nargs="+", default=[150, 300, 1000])
    parser.add_argument("--n-bath", type=int, nargs="+", default=[0, 20], help="oscillators that do not matter")
    parser.add_argument("--quick", action="store_true", help="two seeds, 300 steps, a coarser reference")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.steps = options.seeds[:2], [n for n in options.steps if n <= 300] or [300]
    start = time.perf_counter()
    reference = Reference.of(toy.two_gaussian_wells(), n_shots=200 if options.quick else 1000)
    print(
        f"reference: {len(reference.points)} points, standard error {np.sqrt(reference.noise):.4f}, "
        f"{time.perf_counter() - start:.0f} s; RMSE if p = 1/2 everywhere: "
        f"{np.sqrt(np.mean((reference.committor - 0.5) ** 2) - reference.noise):.3f}",
        flush=True,
    )
    for n_bath in options.n_bath:
        system = toy.two_gaussian_wells(n_bath=n_bath)
        rows = []
        for seed in options.seeds:
            start = time.perf_counter()
            for row in learn(system, reference, options.steps, seed):
                rows.append(row)
                print(
                    "bath {:2d}  seed {:2d}  {:5d} steps  on the fly {:.3f}  refit {:.3f}  generated {:.3f}".format(
                        n_bath, seed, *row
                    ),
                    f"  {time.perf_counter() - start:.0f} s",
                    flush=True,
                )
        print(f"\n{2 + n_bath} descriptors, {len(options.seeds)} seeds: median (range) of the RMSE")
        print(f"{'steps':>6}  {'on the fly':^21}  {'refit':^21}  {'target':>6}")
        for steps in options.steps:
            of_steps = [row for row in rows if row[0] == steps]
            on_the_fly, refitted = (summary([row[i] for row in of_steps]) for i in (1, 2))
            target = TARGETS.get((n_bath, steps))
            print(f"{steps:6d}  {on_the_fly}  {refitted}  {'' if target is None else f'{target:6.3f}'}")
        print(flush=True)


if __name__ == "__main__":
    main()

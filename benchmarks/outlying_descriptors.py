"""What outlying values, offsets and odd distributions of descriptors do to the committor that is learned from them.

400 shots of 3 descriptors, p = logistic(2 x0) unless stated. Printed is the root mean square error (RMSE) of the committor
over new points of the same distribution without outliers (mean over the seeds and its standard error), for damaged
descriptors its ratio to that of the same shots without the damage, and the worst of the seeds.

    python benchmarks/outlying_descriptors.py [--seeds 10] [--legs 2] [--cases ...]

With ``--legs 0`` the committor itself is the outcome of each shot: no noise, so that little damage shows.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
from scipy.special import expit

from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.training import fit
from ops_aimmd.committor.training_set import TrainingSet

N_SHOTS, N_NEW = 400, 4000


def normal(rng, n):
    x = rng.normal(size=(n, 3))
    return x, expit(2 * x[:, 0])


def student(rng, n):
    x = rng.standard_t(3, size=(n, 3))
    return x, expit(2 * x[:, 0])


def two_valued(rng, n):
    """An input that is 1 in 2 % and matters, beside a normal one."""
    x = rng.normal(size=(n, 3))
    x[:, 1] = rng.random(n) < 0.02
    return x, expit(1.5 * x[:, 0] + 3 * x[:, 1])


def mostly_zero(rng, n):
    """A coordination number that is 0 in 95 %."""
    x = rng.normal(size=(n, 3))
    x[:, 1] = np.where(rng.random(n) < 0.95, 0.0, rng.exponential(size=n))
    return x, expit(1.5 * x[:, 0] + 2 * x[:, 1])


def switching(rng, n):
    """A smooth contact: logistic function of a distance, from 1e-9 to 1."""
    x = rng.normal(size=(n, 3))
    x[:, 1] = expit(rng.uniform(-20, 4, size=n))
    return x, expit(1.5 * x[:, 0] + 4 * x[:, 1] - 1)


def far_peaks(share):
    def peaks(rng, n):
        x = rng.normal(size=(n, 3))
        second = rng.random(n) < share
        p = expit(np.where(second, -1, 1) * 2 * x[:, 0])
        x[:, 0] += 50 * second
        return x, p

    return peaks


DISTRIBUTIONS = {
    "normal": normal,
    "Student-t, 3 degrees": student,
    "two values, 2 %": two_valued,
    "95 % zeros": mostly_zero,
    "smooth contact": switching,
    "two far peaks, half each": far_peaks(0.5),
    "two far peaks, 20 %": far_peaks(0.2),
    "two far peaks, 4 %": far_peaks(0.04),
}


def outlier(size, share=1 / N_SHOTS, column=0):
    """Some values replaced after the outcomes were drawn."""

    def damage(x, rng):
        x = x.copy()
        x[rng.choice(len(x), round(share * len(x)), replace=False), column] = size
        return x

    return damage


def affine(offset, spread=1.0):
    return lambda x, rng: spread * x + offset


DAMAGES = {
    "none": None,
    **{f"one value at {size:.0e}": outlier(size) for size in (1e2, 1e3, 1e4, 1e6, 1e30, -1e300)},
    **{f"2 % at {size:.0e}": outlier(size, 0.02) for size in (1e2, 1e4, 1e30)},
    "one value at 1e6 elsewhere": outlier(1e6, column=1),
    **{f"offset {offset:.0e}": affine(offset) for offset in (3e6, 1e8, 1e10, 1e12)},
    **{f"spread {spread:.0e}": affine(0.0, spread) for spread in (1e-300, 1e30, 1e300)},
}
"""Changes of normal descriptors; offsets and spreads are also those of the new points."""


def rmse(x, hits, legs, new, p_new, seed) -> float:
    """Error of a model trained on shots."""
    model = CommittorModel.for_descriptors(x.shape[1], seed=seed)
    counts = np.stack([legs - hits, hits], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fit(model, TrainingSet(x, counts), seed=seed)
        except FloatingPointError:
            return np.nan
    return float(np.sqrt(np.mean((model.committor(new) - p_new) ** 2)))


def errors(distribution, damage, seeds, legs) -> np.ndarray:
    """RMSE for each seed; the same seed draws the same shots, whatever the damage."""
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 1])
        x, p = distribution(rng, N_SHOTS)
        hits = rng.binomial(legs, p) if legs else 2 * p
        new, p_new = distribution(rng, N_NEW)
        if damage is not None:
            is_affine = damage(np.zeros((1, 3)), rng)[0, 1] != 0 or damage(np.ones((1, 3)), rng)[0, 2] != 1
            x = damage(x, rng)
            new = damage(new, rng) if is_affine else new
        found.append(rmse(x, hits, legs or 2, new, p_new, seed))
    return np.array(found)


def mean_and_error(values) -> str:
    return f"{np.mean(values):8.4f} +-{np.std(values, ddof=1) / np.sqrt(len(values)):7.4f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--legs", type=int, default=2)
    parser.add_argument("--cases", nargs="+", default=[*DISTRIBUTIONS, *DAMAGES], choices=[*DISTRIBUTIONS, *DAMAGES])
    arguments = parser.parse_args()
    print(f"{'descriptors':28}{'RMSE':>9}{'':9}{'ratio':>11}   worst")
    whole = errors(normal, None, arguments.seeds, arguments.legs)
    for case in dict.fromkeys(arguments.cases):
        if case in DISTRIBUTIONS:
            found = whole if case == "normal" else errors(DISTRIBUTIONS[case], None, arguments.seeds, arguments.legs)
            print(f"{case:28}{mean_and_error(found)}", flush=True)
        elif case != "none":
            found = errors(normal, DAMAGES[case], arguments.seeds, arguments.legs)
            ratio = found.mean() / whole.mean()
            print(f"{case:28}{mean_and_error(found)}{ratio:10.2f}  {np.max(found):8.4f}", flush=True)


if __name__ == "__main__":
    main()

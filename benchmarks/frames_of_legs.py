"""What are the frames of the legs worth? Error of the committor against the number of shots, with and without them.

Shots of twelve guided chains per seed in turn, a fresh model for each number of shots, default settings but for

shooting points     outcomes at the shooting points alone
frames, at rest     and the frames of the legs, as if their velocities were those of equilibrium
default             and the frames of the legs, their velocities accounted for

on five systems with and without inertia. The error (RMSE) is over frames of legs, as many from each tenth of the committor,
against brute force with the dynamics of the engine; its noise is subtracted. Prints median and range over the seeds, the
number of shots with which the default is as good as shooting points alone are with 450, and draws a figure.

`--save` keeps the errors, `--against` compares with those that another version of the package kept for the same shots: the
difference of the mean error in each cell in units of its standard error, which comes from the pairs of the seeds.

    python benchmarks/frames_of_legs.py --figure frames_of_legs.png --save errors.npz       # about half an hour
    python benchmarks/frames_of_legs.py --against errors_of_another_version.npz
    python benchmarks/frames_of_legs.py --quick
"""

import argparse
import time

import numpy as np
from shot_collection import SYSTEMS, Reference, collect

from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.training import fit
from ops_aimmd.committor.training_set import LegFrames, ShootingResult, TrainingSet

CHAINS_PER_SEED = 12
VARIANTS = ("shooting points", "frames, at rest", "default")


def training_set(chains, n_shots, at_rest):
    """The first shots of the chains in turn."""
    shots = [(number, chain[step]) for step in range(len(chains[0])) for number, chain in enumerate(chains)][:n_shots]
    result = TrainingSet.empty(len(chains[0][0].descriptors), 2)
    for step, (chain, shot) in enumerate(shots):
        frames = shot.leg_frames
        if at_rest:
            frames = LegFrames(frames.descriptors, frames.outcomes, frames.is_end, np.zeros_like(frames.descriptors))
        result.append(ShootingResult(shot.descriptors, shot.counts, step=step, chain=chain, leg_frames=frames))
    return result


def errors_of(chains, reference, marks, variant, seed):
    """RMSE for each number of shots, and the memory of velocities at the last."""
    result = []
    for n_shots in marks:
        data = training_set(chains, n_shots, variant == "frames, at rest")
        model = CommittorModel.for_descriptors(data.n_descriptors, seed=seed)
        weights = (0.0, 0.0) if variant == "shooting points" else "auto"
        report = fit(model, data, seed=seed, auxiliary_weights=weights)
        result.append(reference.rmse(model))
    return result, report.velocity_memory


def shots_needed(marks, errors, goal):
    """Number of shots at which an error falls to a goal, between the marks on a logarithmic scale."""
    below = np.flatnonzero(errors <= goal)
    if not len(below):
        return np.inf
    first = below[0]
    if first == 0:
        return marks[0]
    x, y = np.log(marks[first - 1 : first + 1]), errors[first - 1 : first + 1]
    return float(np.exp(x[0] + (goal - y[0]) / (y[1] - y[0]) * (x[1] - x[0])))


def main():
    """Collect, fit, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS)[:5])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--marks", type=int, nargs="+", default=[50, 150, 450, 1000, 2000])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--figure", help="file to draw")
    parser.add_argument("--save", help="file (.npz) for the errors of each seed")
    parser.add_argument("--against", help="file of another version to compare with")
    parser.add_argument("--quick", action="store_true", help="two seeds, 150 shots at most")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.marks = 2, [50, 150]
    marks = np.array(options.marks)
    tables = {}
    for name in options.systems:
        system, start = SYSTEMS[name](), time.perf_counter()
        chains = collect(system, CHAINS_PER_SEED * options.seeds, -(-max(marks) // CHAINS_PER_SEED), seed=1)
        reference = Reference.visited(system, chains, 500 if options.quick else 1000, np.random.default_rng(0))
        print(f"\n{name}: {time.perf_counter() - start:.0f} s for shots and reference; median (range) of seeds")
        print(f"{'shots':17}" + "".join(f"{mark:^21d}" for mark in marks))
        medians = {}
        for variant in options.variants:
            runs = []
            for seed in range(options.seeds):
                mine = chains[seed * CHAINS_PER_SEED : (seed + 1) * CHAINS_PER_SEED]
                runs.append(errors_of(mine, reference, marks, variant, seed))
            table = np.array([errors for errors, _ in runs])
            tables[name, variant] = table
            medians[variant] = np.median(table, axis=0)
            cells = [f"{np.median(c):.3f} ({c.min():.3f}-{c.max():.3f})" for c in table.T]
            memory = np.median([memory for _, memory in runs])
            print(f"{variant:17}" + "".join(f"{cell:^21}" for cell in cells) + f" memory {memory:.1f} frames", flush=True)
        if 450 in marks and {"shooting points", "default"} <= set(options.variants):
            goal = medians["shooting points"][list(marks).index(450)]
            print(f"as good as 450 shots: default with {shots_needed(marks, medians['default'], goal):.0f}")
    errors = {f"{name}, {variant}": table for (name, variant), table in tables.items()}
    if options.save:
        np.savez(options.save, marks=marks, **errors)
    if options.against:
        compare(errors, marks, options.against)
    if options.figure:
        draw(tables, options.systems, options.variants, marks, options.figure)


def compare(errors, marks, file):
    """Print the difference of the mean errors to those of a file, in standard errors of the pairs."""
    with np.load(file) as other:
        if not np.array_equal(other["marks"], marks):
            raise ValueError(f"{file} has the numbers of shots {other['marks']}; asked for are {marks}")
        pairs = {name: table - other[name] for name, table in errors.items() if name in other}
    print(f"\ndifference to {file} in standard errors (a positive one is worse)")
    print(f"{'':42}" + "".join(f"{mark:>8d}" for mark in marks))
    z = {name: pair.mean(axis=0) / (pair.std(axis=0, ddof=1) / np.sqrt(len(pair))) for name, pair in pairs.items()}
    for name, row in z.items():
        print(f"{name:42}" + "".join(f"{value:8.1f}" for value in row))
    means = np.mean([pair.mean(axis=1) for pair in pairs.values()], axis=0)
    error = means.std(ddof=1) / np.sqrt(len(means))
    print(f"mean of all cells: {means.mean():+.4f} +- {error:.4f}")


def draw(tables, systems, variants, marks, file):
    """A panel for each system."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, all_axes = plt.subplots(1, len(systems), figsize=(3.1 * len(systems), 3.2), sharey=True, squeeze=False)
    for axes, name in zip(all_axes[0], systems, strict=True):
        for variant, marker in zip(variants, "osD", strict=False):
            table = tables[name, variant]
            (line,) = axes.plot(marks, np.median(table, axis=0), marker=marker, markersize=4, label=variant)
            axes.fill_between(marks, table.min(axis=0), table.max(axis=0), alpha=0.15, color=line.get_color(), linewidth=0)
        axes.set(xscale="log", yscale="log", title=name, xlabel="shots")
        axes.set_yticks([0.01, 0.02, 0.05, 0.1], ["0.01", "0.02", "0.05", "0.1"])
        axes.minorticks_off()
        axes.set_xticks(marks, [str(mark) for mark in marks])
        axes.grid(alpha=0.3)
    all_axes[0, 0].set_ylabel("error of the committor (RMSE)")
    all_axes[0, 0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    main()

"""Alanine dipeptide in vacuum: do chains from different initial paths agree, and after how much molecular dynamics?

Chains of each method start from initial paths in different reaction channels. Every chain is a table on disk, so that
chains can be added later and one that exists is not run again; the tables are printed from what is there. Channels are
told apart by where the path crosses from phi < 0 to phi > 0 (`AlanineDipeptide.channel`). "Learning exchange" learns on the
fly, each chain from its own shots; "guided exchange" is the production phase after it: the model has learned from the shots
of all learning chains on disk together, and is frozen as soon as the chain has seen some of its own paths.

    python benchmarks/alanine_channels.py OUTPUT                     # four chains of each method, about an hour
    python benchmarks/alanine_channels.py OUTPUT --print             # only what is there
    python benchmarks/alanine_channels.py OUTPUT --quick             # a check that it runs
"""

import argparse
import contextlib
import io
import itertools
import os
import pathlib

import matplotlib.pyplot as plt
import numpy as np
import openpathsampling as paths
import pandas as pd
from alanine_dipeptide import N_STEPS_PER_FRAME, make_scheme
from matplotlib.ticker import MaxNLocator
from openpathsampling.beta.hooks import PathSimulatorHook
from scipy.stats import chi2

import ops_aimmd
from ops_aimmd.analysis.series import StepRecorder
from ops_aimmd.committor.autocorrelation import chance_of_difference, integrated_autocorrelation
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide

METHODS = ("guided two-way", "guided one-way", "learning exchange", "guided exchange", "stock two-way", "stock one-way")
LEARNING, PRODUCTION = "learning exchange", "guided exchange"
CONTROL = "stock one-way"
CHANNELS = ("phi 0, psi -75", "phi 0, psi 75", "phi 180")
EARLY = 0.2
"""Fraction of the molecular dynamics of each chain that is left out of all averages, and counted as cost."""

SEEDS = (1, 5, 10, 4)
"""Initial paths across phi 0 at psi -79 and +72, across phi 180 at psi -135 and -42 degrees."""


PS_PER_FRAME = 0.02
STEPS_AT_A_TIME = 50
"""MC steps between two looks at the molecular dynamics spent."""

STEPS_BEFORE_PRODUCTION = 100
"""MC steps of a production chain until it is frozen: the density of frames along the committor is that of its own paths."""


class ChannelRecorder(PathSimulatorHook):
    """Where the current path crosses, after each step."""

    implemented_for = ["after_step"]

    def __init__(self, system):
        super().__init__()
        self.system = system
        self.rows = []
        self._known = {}

    def after_step(self, sim, step_number, step_info, state, results, hook_state):
        """Note the channel of the current path."""
        path = results.active[0].trajectory
        if path.__uuid__ not in self._known:
            self._known = {path.__uuid__: self.system.channel(path)}
        self.rows.append(self._known[path.__uuid__])


def known_shots(folder, system):
    """Training set of all learning chains on disk."""
    files = sorted(folder.glob(f"{LEARNING.replace(' ', '_')}_*.aimmd"))
    if not files:
        raise SystemExit(f"{folder} holds no checkpoints of {LEARNING!r} chains: run these first")
    learners = [ops_aimmd.load_learner(file, descriptors=system.descriptors, states=system.states) for file in files]
    shots = learners[0].training_set
    for learner in learners[1:]:
        for shot in learner.training_set:
            shots.append(shot)
    return shots


def run(method, seed, md_steps, folder):
    """Step table, with the channels, of one chain of so many steps of molecular dynamics."""
    system = alanine_dipeptide()
    known = known_shots(folder, system) if method == PRODUCTION else None
    learner = ops_aimmd.CommittorLearner(system.descriptors, system.states, seed, training_set=known)
    if known is not None:
        learner.fit()
    with contextlib.redirect_stdout(io.StringIO()):
        scheme = make_scheme(method, system, learner)
        conditions = scheme.initial_conditions_from_trajectories(system.initial_trajectory(seed))
    sampler = paths.PathSampling(None, scheme, conditions)
    sampler.output_stream = open(os.devnull, "w")
    recorder, channels = StepRecorder(system.states), ChannelRecorder(system)
    for hook in (recorder, channels):
        sampler.attach_hook(hook)
    if not method.startswith("stock"):
        file = folder / f"{method.replace(' ', '_')}_{seed}.aimmd"
        file.unlink(missing_ok=True)  # of a chain that was interrupted
        sampler.attach_hook(ops_aimmd.TrainingHook(learner, checkpoint=file, keep_paths=False))
    if method == PRODUCTION:
        sampler.run(STEPS_BEFORE_PRODUCTION)
        learner.fit()
        learner.freeze()
    spent = 0
    while spent < md_steps:
        sampler.run(STEPS_AT_A_TIME)
        table = recorder.table
        table[["phi", "psi"]] = channels.rows
        table["md_steps"] = table.frames * N_STEPS_PER_FRAME
        spent = table.md_steps.sum()
    return table.assign(method=method, seed=seed)


def channel_of(table):
    """Index into `CHANNELS` of the current path after each step."""
    across_zero_at_positive_psi = (table.psi > 15) & (table.psi < 170)
    return np.where(table.phi == 180, 2, across_zero_at_positive_psi.astype(int))


def late(table, md_steps=np.inf):
    """The steps of a chain within its first `md_steps`, without the early ones."""
    spent = table.md_steps.cumsum()
    end = min(spent.iloc[-1], md_steps)
    return table[(spent > EARLY * end) & (spent <= end)]


def mean_and_error(series):
    """Mean of a correlated series and its standard error; an error of 0 where it never changes."""
    series = np.asarray(series, dtype=float)
    if series.std() == 0:
        return series[0], 0.0
    found = integrated_autocorrelation(series)
    return found.mean, found.mean_error()


def chain_row(table, md_steps=np.inf):
    """Mean transition-path time, channel populations and switches of one chain."""
    steps = late(table, md_steps)
    channels = channel_of(steps)
    row = {
        "method": table.method.iloc[0],
        "seed": table.seed.iloc[0],
        "first channel": CHANNELS[channel_of(table)[0]],
        "MC steps": (table.md_steps.cumsum() <= md_steps).sum(),
        "1e6 MD steps": min(table.md_steps.sum(), md_steps) / 1e6,
        "generated": steps.generated.mean(),
        "accepted": steps.accepted.mean(),
    }
    row["time"], row["time error"] = mean_and_error((steps.path_length - 1) * PS_PER_FRAME)
    for index, name in enumerate(CHANNELS):
        row[name], row[f"{name} error"] = mean_and_error(channels == index)
    row["switches"] = np.count_nonzero(np.diff(channels))
    return row


def disagreement(series):
    """Probability that chains which agree differ as much in their means; 0 for chains that never moved and differ.

    Variance and autocorrelation are those within the chains, all chains together: a rare spell in one channel is not known
    to the chain that has not had it.
    """
    values = np.concatenate(series).astype(float)
    chain = np.repeat(np.arange(len(series)), [len(one) for one in series])
    chance, _ = chance_of_difference(values, chain, chain)
    return float(np.nan_to_num(chance, nan=0.0 if np.ptp(values) > 0 else 1.0)) if len(series) > 1 else 1.0


def disagreement_by_own_errors(values, errors):
    """The same by the error that each chain gives by itself: too small where it does not know of the spells of others.

    A chain that has seen nothing else would claim no error at all: it gets the smallest error of the others.
    """
    values, errors = np.asarray(values), np.asarray(errors)
    if np.ptp(values) == 0:
        return 1.0
    return _chance(values, np.maximum(errors, errors[errors > 0].min() if (errors > 0).any() else 1e-6))


def _chance(values, errors):
    weights = errors**-2
    mean = np.sum(weights * values) / weights.sum()
    return float(chi2.sf(np.sum(weights * (values - mean) ** 2), len(values) - 1))


def control_time(chains):
    """What others are held against: mean transition-path time of all plain chains, its error, their 1e6 MD steps."""
    rows = [chain_row(table) for (method, _), table in chains.items() if method == CONTROL]
    times, errors, steps = (np.array([row[name] for row in rows]) for name in ("time", "time error", "1e6 MD steps"))
    weights = steps / steps.sum()
    return float(weights @ times), float(np.sqrt(weights**2 @ errors**2)), steps.sum()


def method_row(chains, md_steps, control, learning):
    """Do the chains of a method agree after so many steps of molecular dynamics each, beside those of learning chains?"""
    rows = pd.DataFrame([chain_row(table, md_steps) for table in chains])
    times, populations = rows["time"], rows[list(CHANNELS)].to_numpy()
    of_chains = [late(table, md_steps) for table in chains]
    channels = [channel_of(steps) for steps in of_chains]
    of_channels = [disagreement([one == k for one in channels]) for k in range(len(CHANNELS))]
    effective, interval = effective_paths(of_chains)
    spent = rows["1e6 MD steps"].sum()
    relative = np.concatenate([steps.path_length for steps in of_chains])
    per_path = (relative.std() / relative.mean() / 0.05) ** 2  # independent paths for a standard error of 5 %
    return {
        "method": rows.method[0],
        "chains": len(rows),
        "1e6 MD steps each": rows["1e6 MD steps"].mean(),
        "time": times.mean(),
        "of chains": " ".join(f"{time:.2f}" for time in times),
        "p(time)": disagreement([steps.path_length for steps in of_chains]),
        "from control, %": 100 * np.sqrt(np.mean((times / control - 1) ** 2)),
        "phi 180": rows[CHANNELS[2]].mean(),
        "its error by the spread": rows[CHANNELS[2]].std() / np.sqrt(len(rows)),
        "p(populations)": _of_worst_channel(of_channels),
        "p(time), own errors": disagreement_by_own_errors(times, rows["time error"]),
        "p(populations), own errors": _of_worst_channel(
            [disagreement_by_own_errors(rows[name], rows[f"{name} error"]) for name in CHANNELS]
        ),
        "distance of populations": total_variation(populations),
        "switches per 1e6": rows.switches.sum() / spent,
        "paths per 1e6": effective / spent,
        "low": interval[0] / spent,
        "high": interval[1] / spent,
        "1e6 MD steps to 5 %": per_path / effective * spent + learning if effective else np.nan,
    }


def _of_worst_channel(chances):
    """Bonferroni: the smallest of them, times their number."""
    return min(1.0, len(chances) * min(chances))


def total_variation(populations):
    """Mean over pairs of chains of half the sum of the differences of their populations: 0 alike, 1 nothing in common."""
    pairs = itertools.combinations(populations, 2)
    return float(np.mean([np.abs(a - b).sum() / 2 for a, b in pairs])) if len(populations) > 1 else np.nan


def effective_paths(chains):
    """Independent paths by the autocorrelation of ln(length) within the chains, and a 95 % interval."""
    steps = pd.concat([steps.assign(chain=chain) for chain, steps in enumerate(chains)])
    if steps.path_length.nunique() == 1:
        return 0.0, (0.0, 0.0)
    found = integrated_autocorrelation(np.log(steps.path_length), steps.chain, steps.index, common_mean=False)
    return found.n_effective, found.n_effective_interval()


def tables_in(folder):
    """All chains on disk, by method and seed."""
    return {(table.method[0], table.seed[0]): table for table in map(pd.read_csv, sorted(folder.glob("*.csv")))}


def print_tables(chains, budgets):
    """Print what every chain says, and whether the chains of a method agree."""

    def text(rows):
        return pd.DataFrame(rows).to_string(index=False, float_format=lambda value: f"{value:.3g}")

    by_method = {m: [t for (method, _), t in chains.items() if method == m] for m in METHODS}
    print(text([chain_row(table) for tables in by_method.values() for table in tables]))
    control, error, steps = control_time(chains) if by_method[CONTROL] else (np.nan, np.nan, 0.0)
    print(f"\ncontrol, all {CONTROL} chains, {steps:.1f}e6 MD steps: {control:.2f} +- {error:.2f} ps")
    print("\ndo the chains of a method agree after so many steps of molecular dynamics?")
    learning = sum(table.md_steps.sum() for table in by_method[LEARNING]) / 1e6
    pairs = [(md, method) for md in budgets for method, tables in by_method.items() if tables]
    print(text([method_row(by_method[m], md, control, learning if m == PRODUCTION else 0.0) for md, m in pairs]))
    print(f"the dynamics of the learning chains, {learning:.1f}e6 steps, are in the last column of {PRODUCTION!r}")


def main():
    """Run what is missing, print everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=pathlib.Path, help="folder of the tables")
    parser.add_argument("--md-steps", type=float, default=1.05e6, help="steps of molecular dynamics of each chain")
    parser.add_argument("--budgets", type=float, nargs="*", default=[0.5e6, 1.0e6], help="where chains are compared")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    parser.add_argument("--print", action="store_true", help="run nothing")
    parser.add_argument("--figure", type=pathlib.Path, help="write a figure of the channels of all chains")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.md_steps, options.budgets, options.seeds = 5e4, [5e4], [4]
    options.output.mkdir(parents=True, exist_ok=True)
    for method, seed in itertools.product(options.methods, () if options.print else options.seeds):
        file = options.output / f"{method.replace(' ', '_')}_{seed}.csv"
        if not file.exists():
            table = run(method, seed, options.md_steps, options.output)
            table.to_csv(file, index=False)
            print(f"{method}, seed {seed}: {len(table)} MC steps", flush=True)
    chains = tables_in(options.output)
    print_tables(chains, options.budgets)
    if options.figure:
        draw(chains, options.figure)


def draw(chains, file):
    """Channel of the current path against molecular dynamics, one line for each chain."""
    methods = [method for method in METHODS if any(key[0] == method for key in chains)]
    columns = min(len(methods), 3)
    rows = -(-len(methods) // columns)
    size = (3.3 * columns, 1.9 * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis in axes.flat[len(methods) :]:
        axis.set_visible(False)
    for axis, method in zip(axes.flat, methods, strict=False):
        mine = [table for (name, _), table in chains.items() if name == method]
        for row, table in enumerate(mine):
            cost, channels = table.md_steps / 1e6, channel_of(table)
            bars = np.column_stack([cost.cumsum() - cost, cost])
            for index in range(len(CHANNELS)):
                axis.broken_barh(bars[channels == index], (-row - 0.35, 0.7), color=f"C{index}", linewidth=0)
        axis.set(title=method, xlabel="MD steps / 1e6", yticks=[], xlim=(0, None), ylim=(-len(mine) + 0.4, 0.6))
        axis.xaxis.set_major_locator(MaxNLocator(4))
    for axis in axes[:, 0]:
        axis.set_ylabel("chains")
    handles = [plt.Line2D([], [], color=f"C{index}", linewidth=6) for index in range(len(CHANNELS))]
    figure.legend(handles, CHANNELS, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(file, dpi=130)


if __name__ == "__main__":
    main()

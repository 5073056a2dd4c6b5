"""How many shots does a model of another system save? Replays of one collection of shots, begun with it and without.

The shots of the target are put into a random order, once for each seed, and learned from by the default schedule as a
run would: from scratch, and transferred from the source. Printed are the loss per leg (nats) on common shots that nobody
learned from, and the shots that it takes until this loss stays below a level, with the ratio of the shots needed:
geometric mean over seeds, paired 95 % interval. The levels, if not given, are those where 50, 80 and 90 % of what all shots
teach from scratch, counted from ln 2, is reached. A replay that does not get there counts with all its shots, one that
begins there with 3, those of the first training.

    python benchmarks/transfer.py shots licl.aimmd nacl.aimmd --rename Li=Na   # checkpoints: source, target
    python benchmarks/transfer.py shots --toy temperature                      # also: rotated, flipped
    python benchmarks/transfer.py alternatives licl.aimmd nacl.aimmd --rename Li=Na

`alternatives` compares ways to train a transferred model, each from the source at every number of shots: learning rates,
frozen first layers, inputs that keep the scale of the source.
"""

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import t as student

import ops_aimmd
from ops_aimmd.committor.schedule import DiminishingSchedule
from ops_aimmd.committor.training import LEARNING_RATE, fit
from ops_aimmd.committor.training_set import TrainingSet
from ops_aimmd.committor.transferred_start import TransferredStart, fit_transferred, match_columns, start_for
from ops_aimmd.systems import toy

FIRST = 3
"""Shots at the first training; fewer are not told apart."""


@dataclass(frozen=True)
class Case:
    """A source as a function of the target's descriptors, and the shots of the target."""

    start: TransferredStart
    shots: list
    held_out: TrainingSet

    @classmethod
    def of(cls, start, shots, n_held_out):
        """Hold out some shots, the same for all seeds."""
        order = np.random.default_rng(0).permutation(len(shots))
        if len(shots) < 1.2 * n_held_out:
            raise SystemExit(f"the target has {len(shots)} shots, too few to hold out {n_held_out}: see --held-out")
        return cls(start, [shots[i] for i in order[n_held_out:]], as_set(shots[i] for i in order[:n_held_out]))

    def loss(self, model):
        """Per leg of the held-out shots."""
        counts = self.held_out.counts
        return -(counts * model.log_committor(self.held_out.descriptors)).sum() / counts.sum()

    def permutation(self, seed):
        """The shots to learn from in the order of a seed."""
        return [self.shots[i] for i in np.random.default_rng(seed).permutation(len(self.shots))]


def as_set(shots):
    """A training set."""
    shots = list(shots)
    result = TrainingSet.empty(len(shots[0].descriptors), len(shots[0].counts))
    for shot in shots:
        result.append(shot)
    return result


def from_checkpoints(arguments):
    """The case of two runs."""
    source, target = (ops_aimmd.load_learner(path) for path in (arguments.source, arguments.target))
    columns = range(source.model.n_descriptors)
    if source.descriptor_names and target.descriptor_names:
        mapped = match_columns(source.descriptor_names, target.descriptor_names, dict(arguments.rename))
        print(mapped)
        columns = mapped.columns
    print("source:", source.last_report)
    start = TransferredStart.of(source.model, source.training_set, columns)
    return Case.of(start, list(target.training_set), arguments.held_out)


def toy_case(arguments):
    """Wolfe-Quapp among 20 irrelevant numbers, from one temperature to another."""
    hot, cold = toy.wolfe_quapp(temperature=2.0), toy.wolfe_quapp()
    rng = np.random.default_rng(1)
    training_set = exact_shots(hot, 600, rng)
    target = exact_shots(cold, arguments.held_out + arguments.shots, rng)
    if arguments.toy == "rotated":
        turn = np.array([[np.cos(0.5), np.sin(0.5)], [-np.sin(0.5), np.cos(0.5)]])
        x = np.concatenate([target.descriptors[:, :2] @ turn, target.descriptors[:, 2:]], axis=1)
        target = TrainingSet(x, target.counts)
    if arguments.toy == "flipped":
        training_set = TrainingSet(training_set.descriptors, training_set.counts[:, ::-1])
    model = ops_aimmd.CommittorModel.for_descriptors(training_set.n_descriptors, seed=0)
    print("source:", fit(model, training_set, seed=0))
    start = TransferredStart.of(model, training_set, range(training_set.n_descriptors))
    return Case.of(start, list(target), arguments.held_out)


def exact_shots(system, n_shots, rng, n_irrelevant=20):
    """Outcomes drawn from the exact committor, at points where it is neither 0 nor 1."""
    low, high = np.array(system.exact.box).T
    x = rng.uniform(low, high, (50 * n_shots, 2))
    p = system.committor(x)
    wanted = (p > 0.03) & (p < 0.97)
    x, p = x[wanted][:n_shots], p[wanted][:n_shots]
    hits = rng.binomial(2, p)
    x = np.concatenate([x, rng.normal(size=(len(x), n_irrelevant))], axis=1)
    return TrainingSet(x, np.stack([2 - hits, hits], axis=1))


def replay(case, seed, n_shots, with_transfer):
    """Learn like a run. Returns shots and loss at each training, and the reports."""
    n_descriptors = case.start.model.n_descriptors
    model = case.start.recalibrated(TrainingSet.empty(n_descriptors, 2)).model
    if not with_transfer:
        model = ops_aimmd.CommittorModel.for_descriptors(n_descriptors, seed=seed)
    training_set = TrainingSet.empty(n_descriptors, 2)
    schedule, reports = DiminishingSchedule(), []
    curve = [(0, case.loss(model))]
    for shot in case.permutation(seed)[:n_shots]:
        training_set.append(shot)
        if not schedule.due(len(training_set), curve[-1][0]):
            continue
        previous = reports[-1] if reports else None
        if with_transfer:
            model, report = fit_transferred(case.start, model, training_set, seed=len(training_set), previous=previous)
        else:
            report = fit(model, training_set, seed=len(training_set), previous=previous)
        reports.append(report)
        curve.append((len(training_set), case.loss(model)))
    return np.array(curve), reports


def shots_needed(curve, level):
    """Shots after which the loss stays below a level; all shots, if it does not."""
    above = np.flatnonzero(curve[:, 1] > level)
    first = 0 if len(above) == 0 else min(above[-1] + 1, len(curve) - 1)
    return max(curve[first, 0], FIRST)


def geometric_mean(values):
    """With the 95 % interval of Student's t."""
    logs = np.log(values)
    half = student.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    return np.exp([logs.mean(), logs.mean() - half, logs.mean() + half])


def compare_shots(case, arguments):
    """The main table."""
    n_shots = min(arguments.shots, len(case.shots))
    names = ("from scratch", "transferred")
    curves = {name: [] for name in names}
    starts, seconds = [], dict.fromkeys(names, 0.0)
    for seed in range(arguments.seeds):
        for name in names:
            curve, reports = replay(case, seed, n_shots, name == "transferred")
            curves[name].append(curve)
            seconds[name] += sum(report.seconds for report in reports)
        starts.append([report.start for report in reports])
    shots = curves[names[0]][0][:, 0].astype(int)
    means = {name: np.mean([curve[:, 1] for curve in curves[name]], axis=0) for name in names}
    print(f"\n{len(case.held_out)} held-out shots, {arguments.seeds} seeds; loss per leg, mean and error of the difference")
    print("   shots" + "".join(f"{name:>14}" for name in names) + "   difference           transferred start kept")
    for i in np.unique(np.linspace(0, len(shots) - 1, 16).round().astype(int)):
        difference = [b[i, 1] - a[i, 1] for a, b in zip(curves[names[0]], curves[names[1]], strict=True)]
        error = np.std(difference, ddof=1) / np.sqrt(len(difference))
        kept = "" if i == 0 else f"{np.mean([s[i - 1] == 'transferred' for s in starts]):20.2f}"
        values = "".join(f"{means[name][i]:14.3f}" for name in names)
        print(f"{shots[i]:8}" + values + f"{np.mean(difference):11.3f} +- {error:.3f}" + kept)
    print("seconds of all trainings of a run: " + ", ".join(f"{n} {s / arguments.seeds:.0f}" for n, s in seconds.items()))
    end = means[names[0]][-1]
    levels = [arguments.level] if arguments.level else [end + share * (np.log(2) - end) for share in (0.5, 0.2, 0.1)]
    for level in levels:
        needed = {name: np.array([shots_needed(curve, level) for curve in curves[name]]) for name in names}
        mean, low, high = geometric_mean(needed[names[1]] / needed[names[0]])
        medians = ", ".join(f"{name} {np.median(n):.0f}" for name, n in needed.items())
        never = sum(curve[-1, 1] > level for curve in curves[names[0]])
        text = f"loss {level:.3f}: shots needed (median) {medians}; ratio {mean:.2f}, 95 % interval {low:.2f} to {high:.2f}"
        print(text + f"; not reached from scratch by {never}" if never else text)


def fine_tuned(case, shots, seed, rate=0.1, frozen=False, epochs=150, keep_scale=False):
    """The transferred model after one training from the source."""
    training_set = as_set(shots)
    start = case.start.recalibrated(training_set) if keep_scale else start_for(case.start, training_set)
    model = start.model.copy().requires_grad_(True)
    if frozen:
        model.network.layers.requires_grad_(False)
    fit(model, training_set, seed=seed, start_anew=False, learning_rate=rate * LEARNING_RATE, max_epochs=epochs)
    return case.loss(model)


def from_scratch(case, shots, seed):
    """A model without the source."""
    model = ops_aimmd.CommittorModel.for_descriptors(case.start.model.n_descriptors, seed=seed)
    fit(model, as_set(shots), seed=seed)
    return case.loss(model)


def calibrated(case, shots, seed):
    """The source with scaled inputs and calibrated log-odds, no weight trained further."""
    return case.loss(start_for(case.start, as_set(shots)).model)


ALTERNATIVES = {
    "from scratch": from_scratch,
    "calibrated alone": calibrated,
    "rate 1": lambda *a: fine_tuned(*a, rate=1.0),
    "rate 0.3": lambda *a: fine_tuned(*a, rate=0.3),
    "rate 0.1": lambda *a: fine_tuned(*a, rate=0.1),
    "rate 0.03": lambda *a: fine_tuned(*a, rate=0.03),
    "rate 0.01": lambda *a: fine_tuned(*a, rate=0.01),
    "rate 0.1, three times the epochs": lambda *a: fine_tuned(*a, epochs=450),
    "rate 1, first layers frozen": lambda *a: fine_tuned(*a, rate=1.0, frozen=True),
    "rate 0.1, old scale of inputs": lambda *a: fine_tuned(*a, keep_scale=True),
}


def compare_alternatives(case, arguments):
    """Mean loss over seeds."""
    marks = [n for n in (3, 10, 30, 100, 300, 1000) if n <= len(case.shots)]
    print(f"\n{len(case.held_out)} held-out shots, {arguments.seeds} seeds; loss per leg of the source as it is: ", end="")
    print(f"{case.loss(case.start.model):.3f}\n{'shots':34}" + "".join(f"{n:>9}" for n in marks))
    for name, train in ALTERNATIVES.items():
        losses = [[train(case, case.permutation(seed)[:n], seed) for n in marks] for seed in range(arguments.seeds)]
        print(f"{name:34}" + "".join(f"{loss:9.3f}" for loss in np.mean(losses, axis=0)), flush=True)


def main():
    """Parse and do."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["shots", "alternatives"])
    parser.add_argument("source", nargs="?", help="checkpoint of a run of the old system")
    parser.add_argument("target", nargs="?", help="checkpoint of a run of the new system")
    parser.add_argument("--toy", choices=["temperature", "rotated", "flipped"], help="instead of checkpoints")
    parser.add_argument("--rename", nargs="+", type=lambda pair: tuple(pair.split("=")), default=[], metavar="OLD=NEW")
    parser.add_argument("--held-out", type=int, default=1000, help="shots that nobody learns from")
    parser.add_argument("--shots", type=int, default=500, help="length of a replay")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--level", type=float, help="loss per leg to reach")
    arguments = parser.parse_args()
    if bool(arguments.toy) == bool(arguments.target):
        parser.error("give two checkpoints, or --toy")
    torch.set_num_threads(1)
    case = toy_case(arguments) if arguments.toy else from_checkpoints(arguments)
    {"shots": compare_shots, "alternatives": compare_alternatives}[arguments.what](case, arguments)


if __name__ == "__main__":
    main()

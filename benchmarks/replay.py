"""Is the committor calibrated while it is learned? Guided runs of alanine dipeptide, recorded once and replayed.

`record` makes guided runs like that of the README, each from another first path, without an OPS file. `replay` learns from
the recorded shots as the run did: it trains whenever the schedule asks for it, and predicts the shots until the next
training. Options of `fit` may be changed, and versions of this package compared on the same shots.

For the last 300 shots of each run `replay` prints slope and intercept of the outcomes against the predictions (1 and 0 are
right; errors from blocks of 15 shots), the loss per leg beside that of a constant, and the CPU seconds of all trainings.
The same for the predictions that were made in the run itself.

`cross-validate` asks whether the choices that the held-out shots make are as good as fixed ones: the loss per leg of blocks
of 30 shots, a fifth of them at a time, that no member of the model was trained on.

`validate` learns from all shots of a run again and asks committor simulations of configurations from other runs: slope,
intercept, RMSE without shot noise, and by how much the loss per leg is above that of the sampled committors (these fit the
m shots of a configuration by 1/2m too well, which is added). The same for the last model of the run.

    python benchmarks/replay.py record runs --seeds 1 2 3 4 5     # 3 minutes each on an idle core; may be killed, goes on
    python benchmarks/replay.py replay runs/*.aimmd               # half a minute each
    python benchmarks/replay.py replay runs/*.aimmd --options '{"auxiliary_weights": [0, 0]}'
    python benchmarks/replay.py cross-validate runs/*.aimmd       # three minutes each
    python benchmarks/replay.py validate run_1.aimmd simulation_1.aimmd simulation_2.aimmd --figure committor.png
"""

import argparse
import contextlib
import io
import json
import os
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import openpathsampling as paths
import pandas as pd

import ops_aimmd
from ops_aimmd.committor.correlated_shots import blocks
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.schedule import DiminishingSchedule
from ops_aimmd.committor.training import fit
from ops_aimmd.committor.training_set import TrainingSet
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide

LAST = 300
BLOCK = 15
BLOCK_LEFT_OUT = 30
CHOICES = {
    "default": {},
    "weights of frames 0.15, 10": {"auxiliary_weights": (0.15, 10.0)},
    "weights of frames 0.15, 1": {"auxiliary_weights": (0.15, 1.0)},
    "shooting points alone": {"auxiliary_weights": (0.0, 0.0)},
}


def seed_of(file):
    """The number at the end of the name of a run."""
    return int(file.stem.split("_")[-1])


def record(folder, seeds, n_steps):
    """One checkpoint for each seed, of learner and first path."""
    folder.mkdir(parents=True, exist_ok=True)
    system = alanine_dipeptide()
    for seed in seeds:
        file = folder / f"run_{seed}.aimmd"
        if file.exists():
            continue
        unfinished = file.with_suffix(".part")
        unfinished.unlink(missing_ok=True)
        learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=seed)
        scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=system.engine)
        with contextlib.redirect_stdout(io.StringIO()):
            first = scheme.initial_conditions_from_trajectories(system.initial_trajectory(seed=seed))
        sampler = paths.PathSampling(None, scheme, first)
        sampler.output_stream = open(os.devnull, "w")
        sampler.attach_hook(ops_aimmd.TrainingHook(learner, str(unfinished), keep_paths=False))
        sampler.run(n_steps)
        unfinished.rename(file)
        print(f"{file}: {len(learner.training_set)} shots", flush=True)


def replay(shots, seed, first, options):
    """Predictions (n,) of the last state, NaN before the first training; the last model; CPU seconds of the trainings."""
    n, schedule = len(shots), DiminishingSchedule()
    predicted, known, trained_at = np.full(n, np.nan), TrainingSet.empty(shots.n_descriptors, shots.n_states), 0
    model = CommittorModel.for_descriptors(shots.n_descriptors, seed=seed)
    report, begin = None, time.process_time()
    for row, shot in enumerate(shots):
        if schedule.due(row, trained_at):
            trained_at = row
            if row >= first:
                seed_of_fit = int(np.random.SeedSequence([seed, row]).generate_state(1)[0])
                report = fit(model, known, seed_of_fit, previous=report, **options)
        before = None
        if report is not None:
            predicted[row] = model.committor(shot.descriptors[None])[0]
            before = np.array([1 - predicted[row], predicted[row]])
        known.append(replace(shot, predicted_committor=before))
    return predicted, model, time.process_time() - begin


def row_of(shots, predicted):
    """Calibration of the last predictions."""
    late = np.isfinite(predicted) & (np.arange(len(shots)) >= len(shots) - LAST)
    counts = shots.counts[late]
    verdict = ops_aimmd.calibration(predicted[late], counts, clusters=blocks(shots.chains[late], shots.steps[late], BLOCK))
    fraction = counts.sum(axis=0) / counts.sum()
    return {
        "slope": verdict.slope,
        "+-": verdict.slope_error,
        "intercept": verdict.intercept,
        "loss": verdict.loss_per_leg,
        "of a constant": -(fraction * np.log(fraction)).sum(),
    }


def loss_left_out(shots, seed, options):
    """Loss per leg of the blocks that were left out, a fifth at a time."""
    part = blocks(shots.chains, shots.steps, BLOCK_LEFT_OUT) % 5
    log_likelihood = 0.0
    for number in range(5):
        known = TrainingSet.empty(shots.n_descriptors, shots.n_states)
        for row, shot in enumerate(shots):
            if part[row] != number:
                known.append(shot)
        model = CommittorModel.for_descriptors(shots.n_descriptors, seed=seed)
        fit(model, known, seed, **options)
        left_out = part == number
        p = np.clip(model.committor(shots.descriptors[left_out]), 1e-12, 1 - 1e-12)
        log_likelihood += (shots.counts[left_out] * np.log(np.stack([1 - p, p], axis=1))).sum()
    return -log_likelihood / shots.counts.sum()


def cross_validate(files):
    """Losses of the default and of fixed choices, and the mean difference with its standard error."""
    rows = {}
    for file in files:
        shots = ops_aimmd.load_learner(file).training_set
        seed = seed_of(file)
        rows[file.stem] = {name: loss_left_out(shots, seed, options) for name, options in CHOICES.items()}
        print(file.stem, *(f"{name} {loss:.4f}" for name, loss in rows[file.stem].items()), sep="  ", flush=True)
    table = pd.DataFrame(rows).T
    for name in table:
        difference = table["default"] - table[name]
        print(f"{name:28} {table[name].mean():.4f}; default less this {difference.mean():+.4f} +- {difference.sem():.4f}")


def validate(file, simulations, first, options, figure):
    """Print, and draw, how right the models are for configurations of other runs."""
    learner = ops_aimmd.load_learner(file)
    _, replayed, _ = replay(learner.training_set, seed_of(file), first, options)
    results = [ops_aimmd.runs.CommittorSimulation.load(simulation) for simulation in simulations]
    descriptors, counts = (np.concatenate([getattr(r, name) for r in results]) for name in ("descriptors", "counts"))
    shots = counts.sum(axis=1)
    sampled = counts / shots[:, None]
    own = -np.sum(counts * np.log(np.where(counts > 0, sampled, 1.0))) / shots.sum() + len(counts) / (2 * shots.sum())
    print(f"{len(counts)} configurations, {shots.sum()} shots; sampled committors lose {own:.3f} per leg")
    for name, model in (("in the run", learner.model), ("replayed", replayed)):
        verdict = ops_aimmd.calibration(model.committor(descriptors), counts, legs_are_shots=True)
        print(f"{name}: {verdict}; above the sampled committors {verdict.loss_per_leg - own:.3f}")
    if figure:
        draw(replayed.committor(descriptors), sampled[:, -1], shots, figure)


def draw(predicted, sampled, shots, file):
    """Sampled committors beside the learned ones."""
    import matplotlib.pyplot as plt

    axes = plt.subplots(figsize=(4, 4), layout="constrained")[1]
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.errorbar(predicted, sampled, np.sqrt(sampled * (1 - sampled) / shots), fmt="o", markersize=4, linewidth=1)
    axes.set(xlabel="learned committor", ylabel=f"sampled committor ({int(np.median(shots))} shots each)")
    axes.figure.savefig(file, dpi=110)


def main():
    """Parse and do."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    of_record = commands.add_parser("record", help="make runs")
    of_record.add_argument("folder", type=Path)
    of_record.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 11)))
    of_record.add_argument("--steps", type=int, default=600)
    of_replay = commands.add_parser("replay", help="learn from recorded runs again")
    of_replay.add_argument("runs", type=Path, nargs="+")
    of_validate = commands.add_parser("cross-validate", help="the default beside fixed choices")
    of_validate.add_argument("runs", type=Path, nargs="+")
    of_simulations = commands.add_parser("validate", help="the committor against shots from configurations of other runs")
    of_simulations.add_argument("run", type=Path)
    of_simulations.add_argument("simulations", nargs="+", help="checkpoints of committor simulations")
    of_simulations.add_argument("--figure", help="file to draw")
    for command in (of_replay, of_simulations):
        command.add_argument("--first", type=int, default=150, help="shots of the first training")
        command.add_argument("--options", type=json.loads, default={}, help="keyword arguments of fit, in JSON")
    arguments = parser.parse_args()
    if arguments.command == "record":
        record(arguments.folder, arguments.seeds, arguments.steps)
        return
    if arguments.command == "cross-validate":
        cross_validate(arguments.runs)
        return
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in arguments.options.items()}
    if arguments.command == "validate":
        validate(arguments.run, arguments.simulations, arguments.first, options, arguments.figure)
        return
    tables = {"in the run": {}, "replayed": {}}
    for file in arguments.runs:
        shots = ops_aimmd.load_learner(file).training_set
        predicted, _, seconds = replay(shots, seed_of(file), arguments.first, options)
        tables["in the run"][file.stem] = row_of(shots, shots.predicted_committor[:, -1])
        tables["replayed"][file.stem] = row_of(shots, predicted) | {"CPU s": seconds}
    for name, rows in tables.items():
        table = pd.DataFrame(rows).T
        slope = table["slope"]
        error = slope.std(ddof=1) / np.sqrt(len(slope))
        print(f"\n{name}\n{table.to_string(float_format='{:.3f}'.format)}")
        print(f"mean slope {slope.mean():.3f} +- {error:.3f}, lowest {slope.min():.2f}, loss {table['loss'].mean():.4f}")


if __name__ == "__main__":
    main()

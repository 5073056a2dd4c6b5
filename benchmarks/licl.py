"""LiCl (or NaCl) in water, bound -> unbound: guided shooting next to plain two-way shooting, in runs of hours.

A run writes to a folder and goes on from there when it is started again; it may be killed at any moment. The table may be
printed while runs go on. Its columns, over all steps of a run after the first fifth:

generated, accepted   fraction of the shots that joined both states, and that were accepted
last 300              fraction of the last 300 shots that joined both states
expected              mean probability of that which the model gave before each shot
tau                   integrated autocorrelation time of ln(path length) in MC steps
paths per 1e6 steps   effective independent transition paths, n / (2 tau), per 1e6 steps of molecular dynamics of the whole
                      run, the first fifth included; with a standard error
time                  mean transition-path time in ps, with a standard error
s per step            wall time

    python benchmarks/licl.py run guided runs/guided_1 --seed 1 --steps 1000
    python benchmarks/licl.py run plain runs/plain_1 --seed 1 --steps 300
    python benchmarks/licl.py run guided runs/sodium_1 --cation Na --seed 1 --steps 1000
    python benchmarks/licl.py table runs/*
    python benchmarks/licl.py calibration runs/guided_1/run.aimmd
    python benchmarks/licl.py committor runs/guided_1/run.aimmd runs/guided_2/run.nc validation.aimmd
    python benchmarks/licl.py volume                # the volume of a water in the box at 1 bar
    python benchmarks/licl.py profile --cation Na   # where states may end: the potential of mean force of the distance
"""

import argparse
import os
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import openmm
import openpathsampling as paths
import pandas as pd
from openmm import unit
from openpathsampling.beta.hooks import PathSimulatorHook
from openpathsampling.engines import openmm as ops_openmm

import ops_aimmd
from ops_aimmd.committor.autocorrelation import integrated_autocorrelation
from ops_aimmd.sampling.step_records import step_records
from ops_aimmd.shooting.streams import seed_step
from ops_aimmd.systems import ions_in_water

MD_STEPS_PER_FRAME = 10
PS_PER_FRAME = 0.02
PATH_STRIDE = 20
PAIRS = {"Li": ions_in_water.lithium_chloride, "Na": ions_in_water.sodium_chloride}


class RowWriter(PathSimulatorHook):
    """Appends the row of each step to a table on disk."""

    implemented_for = ["after_step"]

    def __init__(self, folder, states):
        super().__init__()
        self.file = folder / "steps.csv"
        self.states = states
        self.last_time = time.time()

    def after_step(self, sim, step_number, step_info, state, results, hook_state):
        """Append."""
        rows = pd.DataFrame(step_records(results, self.states)).assign(wall=time.time() - self.last_time)
        self.last_time = time.time()
        rows.to_csv(self.file, mode="a", header=not self.file.exists(), index=False)


def first_path(system, seed):
    """Start in contact, climb, and say what came."""
    begin = time.time()
    path = ops_aimmd.initial_path(system.start(seed), system.distance, system.states, seed=seed)
    print(f"first path: {len(path)} frames, found in {time.time() - begin:.0f} s", flush=True)
    return path


def guided_sampler(folder, system, seed):
    """A new guided run, or the one of the folder."""
    files = folder / "run.nc", folder / "run.aimmd"
    if files[0].exists():
        return ops_aimmd.resume(*map(str, files))
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=seed)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=system.engine)
    path = first_path(system, seed)
    sampler = paths.PathSampling(
        paths.Storage(str(files[0]), "w"), scheme, scheme.initial_conditions_from_trajectories(path)
    )
    sampler.attach_hook(ops_aimmd.TrainingHook(learner, str(files[1]), rejected_trials="ends", path_stride=PATH_STRIDE))
    return sampler


def run_guided(folder, system, seed, n_steps):
    """Go on until the run has `n_steps` steps."""
    sampler = guided_sampler(folder, system, seed)
    sampler.output_stream = open(os.devnull, "w")
    sampler.attach_hook(RowWriter(folder, sampler.move_scheme.learner.states))
    sampler.run(n_steps - sampler.step)
    sampler.storage.close()


def run_plain(folder, system, seed, n_steps):
    """Stock two-way shooting; its state is the current path, which is kept in full precision."""
    file = folder / "path.npz"
    engine = system.engine
    scheme = paths.MoveScheme(system.network(all_to_all=True))
    modifier = ops_aimmd.BoltzmannVelocities(engine)
    scheme.append(paths.strategies.TwoWayShootingStrategy(modifier=modifier, engine=engine))
    scheme.append(paths.strategies.OrganizeByMoveGroupStrategy())
    if file.exists():
        path, first = load_path(file, engine)
    else:
        path, first = first_path(system, seed), 0
        save_path(file, path, 0)
    sampler = paths.PathSampling(None, scheme, scheme.initial_conditions_from_trajectories(path))
    sampler.step = first
    sampler.output_stream = open(os.devnull, "w")
    sampler.attach_hook(RowWriter(folder, system.states))
    for step in range(first + 1, n_steps + 1):
        seed_step(seed, step, [engine])
        sampler.run(1)
        save_path(file, sampler.sample_set[0].trajectory, step)


def save_path(file, path, step):
    """Write a path in full precision; a kill leaves the old file or the new one."""
    positions, velocities = (np.array([getattr(f, name)._value for f in path]) for name in ("coordinates", "velocities"))
    box = path[0].box_vectors.value_in_unit(unit.nanometer)
    with open(file.with_suffix(".tmp"), "wb") as handle:
        np.savez(handle, positions=positions, velocities=velocities, box=box, step=step)
    os.replace(file.with_suffix(".tmp"), file)


def load_path(file, engine):
    """The path of `save_path` and its step."""
    with np.load(file) as data:
        frames = [
            ops_openmm.Snapshot.construct(
                coordinates=x * unit.nanometer,
                box_vectors=data["box"] * unit.nanometer,
                velocities=v * unit.nanometer / unit.picosecond,
                engine=engine,
            )
            for x, v in zip(data["positions"], data["velocities"], strict=True)
        ]
        return paths.Trajectory(frames), int(data["step"])


def summarise(folder):
    """One row of the table."""
    table = pd.read_csv(folder / "steps.csv").drop_duplicates("step", keep="last")
    md_steps = table.frames.sum() * MD_STEPS_PER_FRAME
    late = table[table.step > 0.2 * table.step.max()]
    row = {
        "run": folder.name,
        "steps": len(table),
        "1e6 MD steps": md_steps / 1e6,
        "generated": late.generated.mean(),
        "last 300": table.generated[-300:].mean(),
        "expected": late.expected.mean(),
        "accepted": late.accepted.mean(),
        "s per step": table.wall.mean(),
    }
    if late.path_length.nunique() > 1:
        correlation = integrated_autocorrelation(np.log(late.path_length))
        low, high = (number / md_steps * 1e6 for number in correlation.n_effective_interval())
        times = (late.path_length - 1) * PS_PER_FRAME
        row |= {
            "tau": correlation.tau,
            "paths per 1e6 steps": correlation.n_effective / md_steps * 1e6,
            "low": low,
            "high": high,
            "time": times.mean(),
            "+-": integrated_autocorrelation(times).mean_error(),
        }
    return row


def draw(folders, file):
    """Transition-path times, and the efficiency of shooting, of some runs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for folder in folders:
        table = pd.read_csv(folder / "steps.csv").drop_duplicates("step", keep="last")
        late = table[table.step > 0.2 * table.step.max()]
        times = (late.path_length - 1) * PS_PER_FRAME
        left.hist(times, bins=np.arange(0, 6.01, 0.25), density=True, histtype="step", linewidth=1.5, label=folder.name)
        window = max(len(table) // 10, 1)
        means = table.generated.groupby((table.step - 1) // window).mean()
        right.plot((means.index + 0.5) * window, means, marker="o", label=folder.name)
    left.set(xlabel="transition-path time (ps)", ylabel="density (1/ps)", xlim=(0, 6))
    right.set(xlabel="MC step", ylabel="shots that join the states", ylim=(0, None))
    right.legend(frameon=False)
    figure.savefig(file, dpi=110)


def print_volume(n_waters=270, n_ps=200):
    """Mean volume of a water in the box at 1 bar, from constant-pressure dynamics; about ten minutes."""
    topology, positions = ions_in_water.solvated_pair("Li", n_waters)
    system = ions_in_water.force_field_system(topology, cutoff=0.9)  # the box fluctuates below two cut-offs of 1.0 nm
    system.addForce(openmm.MonteCarloBarostat(1.0 * unit.bar, 300.0 * unit.kelvin))
    integrator = openmm.LangevinMiddleIntegrator(300.0 * unit.kelvin, 1.0 / unit.picosecond, 2.0 * unit.femtosecond)
    integrator.setRandomNumberSeed(1)
    platform, properties = ions_in_water.fastest_platform()
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform), properties)
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, 100.0, 200)
    integrator.step(500 * n_ps // 4)
    volumes = []
    for _ in range(n_ps * 10):
        integrator.step(50)
        volumes.append(context.getState().getPeriodicBoxVolume().value_in_unit(unit.nanometer**3) / n_waters)
    correlation = integrated_autocorrelation(volumes)
    print(f"volume per water at 300 K and 1 bar: {correlation.mean:.5f} +- {correlation.mean_error():.5f} nm^3")


def print_profile(system, n_ps):
    """Potential of mean force along the distance from plain dynamics, which must cross the barrier many times."""
    frame = system.start(seed=1)
    context = system.engine.simulation.context
    system.engine.current_snapshot = frame
    positions = []
    for _ in range(int(n_ps / PS_PER_FRAME)):
        context.getIntegrator().step(MD_STEPS_PER_FRAME)
        ions = context.getState(positions=True).getPositions(asNumpy=True)[:2].value_in_unit(unit.nanometer)
        positions.append(ions)
    distances = system.distance.descriptors(np.array(positions), system.box)[:, 0]
    bound, unbound = system.states
    state, crossings = "bound", 0
    low, high = bound.lambda_max, unbound.lambda_min
    for distance in distances:
        now = "bound" if distance < low else "unbound" if distance > high else state
        crossings += now != state
        state = now
    counts, edges = np.histogram(distances, bins=np.arange(0.22, 0.9, 0.02))
    volumes = np.diff(edges**3)
    with np.errstate(divide="ignore"):
        pmf = -np.log(counts / volumes)
    print(f"{n_ps} ps, {crossings} passages between r < {low} and r > {high} nm")
    for left, value, n in zip(edges, pmf - pmf[np.isfinite(pmf)].min(), counts, strict=False):
        print(f"{left:.2f} - {left + 0.02:.2f} nm  {value:5.2f} kT  {n:6d} frames")


def print_calibration(checkpoint, after):
    """Predictions made before each shot against what the shots did."""
    shots = ops_aimmd.load_learner(checkpoint).training_set
    late = shots.steps > after
    print(f"after step {after}: {ops_aimmd.calibration(shots.predicted_committor[late], shots.counts[late])}")


def print_committor(checkpoint, other_run, output, n_configurations, n_shots, system):
    """Shots from configurations of the paths of another run, from which the model has not learned; may be interrupted."""
    learner = ops_aimmd.load_learner(checkpoint, system.descriptors, system.states)
    storage = paths.Storage(str(other_run), "r")
    later = range(len(storage.steps) // 5, len(storage.steps), 10)
    trajectories = [sample.trajectory for index in later for sample in storage.steps[index].active]
    snapshots = ops_aimmd.runs.spread_along_committor(trajectories, learner, n_configurations, seed=1)
    result = ops_aimmd.committor_simulation(snapshots, learner, system.engine, n_shots, checkpoint=output, seed=1)
    print(f"model version {learner.version.number}, {len(learner.training_set)} shots\n{result}\n{result.calibration}")
    print(result.calibration.table.to_string(float_format=lambda value: f"{value:.3f}"))


def main():
    """Parse and do."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="begin a run, or go on with it")
    run.add_argument("method", choices=["guided", "plain"])
    run.add_argument("folder", type=Path)
    run.add_argument("--seed", type=int, default=1)
    run.add_argument("--steps", type=int, default=1000, help="of the whole run")
    table = commands.add_parser("table", help="print the table of some runs")
    table.add_argument("folders", type=Path, nargs="+")
    table.add_argument("--figure", type=Path, help="draw transition-path times and the efficiency of shooting")
    commands.add_parser("volume", help="print the volume of a water")
    calibration = commands.add_parser("calibration", help="print how right the predictions of a run were")
    calibration.add_argument("checkpoint", type=Path)
    calibration.add_argument("--after", type=int, default=200, help="leave out the first steps")
    profile = commands.add_parser("profile", help="print the potential of mean force of plain dynamics")
    profile.add_argument("--ps", type=float, default=400.0)
    committor = commands.add_parser("committor", help="compare the learned committor with shots from another run")
    committor.add_argument("checkpoint", type=Path)
    committor.add_argument("other_run", type=Path, help="OPS file with paths")
    committor.add_argument("output", type=Path, help="checkpoint of the shots; gone on with if it is there")
    committor.add_argument("--configurations", type=int, default=30)
    committor.add_argument("--shots", type=int, default=20)
    for command in (run, profile, committor):
        command.add_argument("--cation", choices=PAIRS, default="Li")
        command.add_argument("--platform", help="OpenMM platform; the fastest, if left out")
    arguments = parser.parse_args()
    if arguments.command == "volume":
        print_volume()
    elif arguments.command == "calibration":
        print_calibration(arguments.checkpoint, arguments.after)
    elif arguments.command == "committor":
        system = PAIRS[arguments.cation](platform=arguments.platform)
        a = arguments
        print_committor(a.checkpoint, a.other_run, a.output, a.configurations, a.shots, system)
    elif arguments.command == "profile":
        print_profile(PAIRS[arguments.cation](platform=arguments.platform), arguments.ps)
    elif arguments.command == "table":
        folders = [folder for folder in arguments.folders if (folder / "steps.csv").exists()]
        rows = [summarise(folder) for folder in folders]
        if arguments.figure:
            draw(folders, arguments.figure)
        print(pd.DataFrame(rows).set_index("run").to_string(float_format=lambda value: f"{value:.3g}"))
    else:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        system = PAIRS[arguments.cation](platform=arguments.platform)
        {"guided": run_guided, "plain": run_plain}[arguments.method](
            arguments.folder, system, arguments.seed, arguments.steps
        )


if __name__ == "__main__":
    main()

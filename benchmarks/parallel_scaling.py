"""How many chains does one coordinator sustain, and are two workers twice as fast as one?

1. Runs many chains of alanine dipeptide in vacuum in this process, and takes the time that the coordinator needs for a
   shot, apart from that of dynamics, training, checkpoint and OPS's file. CPU time, for the machine may be shared.
2. Simulates 16, 128, 1024 chains, each with a worker of its own. Shots are waits, as unequal as the shots of 1; one
   coordinator serves one chain after another, for as long as it took in 1. Prints the throughput, also as a fraction of
   that with a coordinator that takes no time, the fraction of the time for which the coordinator is busy, and the
   largest number of chains at 90 % of the ideal throughput.
   Whether it is right that the coordinator's time per shot does not depend on the number of chains is measured, too.
3. Samples with shots that wait, with one and with two worker processes, and prints the ratio of the times.

    python benchmarks/parallel_scaling.py [--figure docs/figures/parallel_scaling.png] [--chains 16] [--steps 10]
"""

from __future__ import annotations

import argparse
import heapq
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib
import numpy as np
import openpathsampling as paths
import torch
from openpathsampling.beta.hooks import PathSimulatorHook
from overhead import Stopwatch

import ops_aimmd
from ops_aimmd.committor.schedule import DiminishingSchedule
from ops_aimmd.runs.parallel_path_sampling import ParallelPathSampling
from ops_aimmd.runs.shots_under_way import ShotLog
from ops_aimmd.shooting.executors.choose import InThisProcess, SpawnedProcesses
from ops_aimmd.storage.series_block import SeriesBlock
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide
from ops_aimmd.systems.markov_chain import MarkovChainEngine, reversible_transition_matrix, site_indices

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

SHOT_TIMES = (1.0, 10.0, 60.0, 600.0)
"""Mean wall seconds of a shot: from a small molecule on a GPU to a protein in water."""

SUSTAINED = 0.9
"""Fraction of the ideal throughput at which a number of chains still counts as sustained."""

STEPS_PER_CHAIN = 50
"""Of a simulated run; it begins with an untrained model."""


# ---- 1. the cost of a shot ------------------------------------------------------------------------------------------


class FramesNoted(InThisProcess):
    """Notes how many frames each shot has made."""

    def __init__(self):
        super().__init__()
        self.frames: list[int] = []

    def results(self, timeout=None):
        done = super().results(timeout)
        self.frames += [sum(len(leg.coordinates) for leg in result.legs) for result in done]
        return done


@dataclass(frozen=True)
class Costs:
    """CPU seconds that the coordinator spends.

    Attributes
    ----------
    bookkeeping : float
        Per shot, on picking, specifying, rebuilding the legs, accepting and learning but for the training.
    checkpoint, ops_file : float
        Per shot, on writing.
    training : float
        Per training, the mean of the last ten.
    relative_times : array
        Frames of each shot over their mean.
    """

    bookkeeping: float
    checkpoint: float
    ops_file: float
    training: float
    relative_times: np.ndarray


def measured_costs(n_chains: int, n_steps: int) -> Costs:
    """Of a real run, in which every part writes what it writes by default."""
    system = alanine_dipeptide()
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=1)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=system.engine)
    executor, watch, trainings = FramesNoted(), Stopwatch(), []
    with tempfile.TemporaryDirectory() as folder:
        storage = paths.Storage(os.path.join(folder, "run.nc"), "w")
        hook = ops_aimmd.TrainingHook(learner, checkpoint=os.path.join(folder, "run.aimmd"))
        sampler = ParallelPathSampling(storage, scheme, [system.initial_trajectory(seed=1)] * n_chains, executor)
        sampler.show_progress = False
        sampler.attach_hook(hook)
        sampler.run(1)  # builds what is built once
        executor.frames.clear()
        watch.around(executor, "results", "dynamics")
        watch.around(learner, "fit", "training")
        watch.around(hook._files, "record", "checkpoint")
        for method in ("note_specification", "note_result", "forget"):
            watch.around(ShotLog, method, "checkpoint")
        watch.around(storage, "save", "OPS file")
        watch.around(storage, "sync_all", "OPS file")
        watch.around(SeriesBlock, "flush", "OPS file")
        began, n_trained = time.process_time(), len(learner.reports)
        sampler.run(n_steps)
        total = time.process_time() - began
        storage.close()
    n_shots = len(executor.frames)
    cpu = {part: seconds[1] for part, seconds in watch.seconds.items()}
    trainings = len(learner.reports) - n_trained
    frames = np.array(executor.frames, dtype=float)
    print(
        f"{n_chains} chains of alanine dipeptide, {n_shots} shots, {frames.mean():.0f} frames per shot; CPU per shot, ms:"
    )
    rest = total - sum(cpu.values())
    for part, seconds in [("coordinator, nothing of the following", rest), *cpu.items()]:
        print(f"  {part:40} {1000 * seconds / n_shots:8.1f}")
    per_training = cpu["training"] / max(trainings, 1)
    print(f"  {trainings} trainings, {per_training:.2f} s each")
    return Costs(
        rest / n_shots, cpu["checkpoint"] / n_shots, cpu["OPS file"] / n_shots, per_training, frames / frames.mean()
    )


# ---- chains that cost little ----------------------------------------------------------------------------------------


def site(snapshot):
    return snapshot.coordinates[0, 0]


def chains_of_sites(engine_class, n_chains: int, executor, checkpoint=None) -> ParallelPathSampling:
    """Sampling on four sites, with shots of a dozen frames and a model that nothing trains."""
    links, stays = [1.7, 0.2, 0.2], [0.0, 12.0, 0.1, 0.0]
    engine = engine_class(reversible_transition_matrix(np.diag(links, 1) + np.diag(links, -1) + np.diag(stays)))
    cv = paths.FunctionCV("site", site)
    states = [paths.CVDefinedVolume(cv, where - 0.5, where + 0.5).named(name) for where, name in ((0, "A"), (3, "B"))]
    learner = ops_aimmd.CommittorLearner(lambda path: site_indices(path)[:, None], states, seed=1)
    scheme = ops_aimmd.CommittorShootingScheme(
        paths.TPSNetwork(*states), learner, engine, modifier=paths.NoModification(as_copy=True)
    )
    learner.freeze()
    sampler = ParallelPathSampling(None, scheme, [engine.trajectory(range(4))] * n_chains, executor, checkpoint)
    sampler.show_progress = False
    return sampler


def print_cost_of_many_chains() -> None:
    print("\nCPU per shot with its checkpoint, paths of a dozen frames, dynamics included")
    for n_chains in (16, 128, 1024):
        with tempfile.TemporaryDirectory() as folder:
            sampler = chains_of_sites(MarkovChainEngine, n_chains, None, os.path.join(folder, "run.aimmd"))
            sampler.run(1)
            n_steps = max(1, 512 // n_chains)
            began = time.process_time()
            sampler.run(n_steps)
            per_shot = (time.process_time() - began) / (n_chains * n_steps)
        print(f"  {n_chains:4} chains {1000 * per_shot:6.1f} ms", flush=True)


# ---- 2. simulation --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    """What a coordinator achieves: throughput over the ideal one, shots per second, fraction of the time it is busy."""

    efficiency: float
    shots_per_second: float
    occupancy: float


def simulate(
    n_chains: int,
    relative_times: Sequence[float],
    shot_time: float,
    per_shot: float,
    training: float,
    n_steps=STEPS_PER_CHAIN,
):
    """One coordinator, first come first served, and a worker for each chain.

    Parameters
    ----------
    n_chains : int
    relative_times : sequence of float
        From which the times of shots are drawn, in units of their mean.
    shot_time : float
        Mean time of a shot, s.
    per_shot, training : float
        Time of the coordinator for each shot and for each training, s. It trains by the default schedule.
    n_steps : int
        Of each chain, on average.

    Returns
    -------
    Served
    """
    times = shot_time * np.random.default_rng(1).choice(relative_times, (n_chains, n_steps))
    ideal, _ = _serve(times, 0.0, 0.0)
    end, busy = _serve(times, per_shot, training)
    return Served(ideal / end, times.size / end, busy / end)


def _serve(times, per_shot: float, training: float) -> tuple[float, float]:
    """When as many shots as there are times have been served, and how long the coordinator was busy until then."""
    n_chains, n_steps = times.shape
    arrivals = [(time, chain, 1) for chain, time in enumerate(times[:, 0].tolist())]
    heapq.heapify(arrivals)
    schedule, trained_at = DiminishingSchedule(), 0
    free = busy = 0.0
    for shot in range(1, times.size + 1):
        arrival, chain, n_made = heapq.heappop(arrivals)
        cost = per_shot
        if training and schedule.due(shot, trained_at):
            trained_at = shot
            cost += training
        free = max(arrival, free) + cost
        busy += cost
        heapq.heappush(arrivals, (free + times[chain, n_made % n_steps], chain, n_made + 1))
    return free, busy


def largest_number(relative_times, shot_time: float, per_shot: float) -> int:
    """Of chains that are sustained, within three per cent, by bisection; without the trainings, which become ever rarer."""

    def is_sustained(n_chains):
        n_steps = max(10, 5000 // n_chains)
        return simulate(n_chains, relative_times, shot_time, per_shot, 0.0, n_steps).efficiency >= SUSTAINED

    few, many = 0, 1
    while is_sustained(many):
        few, many = many, 2 * many
    while many - few > max(0.03 * many, 1):
        middle = (few + many) // 2
        few, many = (middle, many) if is_sustained(middle) else (few, middle)
    return few


def limits(costs: Costs) -> dict[str, float]:
    """Time of the coordinator for a shot, s, by what is written."""
    checkpoint = costs.bookkeeping + costs.checkpoint
    return {"nothing": costs.bookkeeping, "checkpoint": checkpoint, "checkpoint, OPS file": checkpoint + costs.ops_file}


def print_simulations(costs: Costs) -> None:
    print(f"\nsimulated, {STEPS_PER_CHAIN} steps per chain from an untrained model on")
    print(f"{'written':22} {'s/shot':>6}  {'chains':>6}  {'shots/s':>8}  {'of ideal':>8}  {'occupied':>8}")
    for written, per_shot in limits(costs).items():
        for shot_time in SHOT_TIMES:
            for n_chains in (16, 128, 1024):
                served = simulate(n_chains, costs.relative_times, shot_time, per_shot, costs.training)
                print(
                    f"{written:22} {shot_time:6.0f}  {n_chains:6}  {served.shots_per_second:8.2f}  {served.efficiency:8.2f}"
                    f"  {served.occupancy:8.2f}"
                )
    print(f"\nlargest number of chains at {SUSTAINED:.0%} of the ideal throughput, without the trainings; 0: not even one")
    print(f"{'written':22} {'ms/shot':>8} ", *(f"{f'{shot_time:.0f} s/shot':>12}" for shot_time in SHOT_TIMES))
    for written, per_shot in limits(costs).items():
        numbers = [largest_number(costs.relative_times, shot_time, per_shot) for shot_time in SHOT_TIMES]
        print(f"{written:22} {1000 * per_shot:8.1f} ", *(f"{number:12}" for number in numbers))


def draw(costs: Costs, file: str) -> None:
    """Throughput and occupancy against the number of chains, where the checkpoint is written; largest numbers of chains."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    numbers = np.unique(np.geomspace(1, 4096, 17).astype(int))
    for index, shot_time in enumerate(SHOT_TIMES):
        served = [
            simulate(n, costs.relative_times, shot_time, limits(costs)["checkpoint"], costs.training) for n in numbers
        ]
        left.plot(numbers, [s.efficiency for s in served], color=f"C{index}", label=f"{shot_time:.0f} s per shot")
        left.plot(numbers, [s.occupancy for s in served], color=f"C{index}", linestyle=":")
    left.plot([], [], color="grey", linestyle=":", label="coordinator busy")
    left.set(xscale="log", xlabel="chains", ylabel="fraction", ylim=(0, 1.05))
    left.set_title("throughput over the ideal one, with checkpoint", fontsize=10)
    left.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncol=3)
    times = np.geomspace(1, 600, 6)
    for written, per_shot in limits(costs).items():
        largest = [largest_number(costs.relative_times, shot_time, per_shot) for shot_time in times]
        largest = [number or np.nan for number in largest]  # none has no place on a logarithmic axis
        right.plot(times, largest, "o-", markersize=3, label=f"{written}: {1000 * per_shot:.0f} ms per shot")
    for n in (16, 128, 1024):
        right.axhline(n, color="lightgrey", linewidth=0.8, zorder=0)
    right.set(xscale="log", yscale="log", xlabel="mean time of a shot, s", ylabel="chains")
    right.set_title(f"largest number at {SUSTAINED:.0%} of the ideal throughput", fontsize=10)
    right.legend(fontsize=8, title="written", title_fontsize=8)
    figure.savefig(file, dpi=130)


# ---- 3. two workers -------------------------------------------------------------------------------------------------


class WaitingEngine(MarkovChainEngine):
    """A chain whose frames take their time, as if a GPU made them."""

    seconds_per_frame = 0.02

    def generate_next_frame(self):
        time.sleep(self.seconds_per_frame)
        return super().generate_next_frame()


def seconds_with(n_workers: int, n_chains: int = 8, n_steps: int = 16) -> tuple[float, float]:
    """Wall seconds of the run, and seconds that its shots took."""
    with SpawnedProcesses(n_workers) as executor:
        sampler = chains_of_sites(WaitingEngine, n_chains, executor)
        sampler.run(1)  # until then the workers have started
        watch = ShotSeconds()
        sampler.attach_hook(watch)
        began = time.perf_counter()
        sampler.run(n_steps)
        return time.perf_counter() - began, watch.seconds


class ShotSeconds(PathSimulatorHook):
    """Adds up the wall time of the dynamics."""

    implemented_for = ["after_step"]

    def __init__(self):
        super().__init__()
        self.seconds = 0.0

    def after_step(self, sim, step_number, step_info, state, results, hook_state):
        self.seconds += results.change.details.timing


def print_workers() -> None:
    print("\nshots that wait, in processes of this machine")
    one = None
    for n_workers in (1, 2):
        wall, shots = seconds_with(n_workers)
        one = wall if one is None else one
        busy = shots / wall / n_workers
        print(f"  {n_workers} worker(s): {wall:6.1f} s, {one / wall:5.2f} times as fast as one, workers busy {busy:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure")
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    costs = measured_costs(options.chains, options.steps)
    print_cost_of_many_chains()
    print_simulations(costs)
    if options.figure:
        draw(costs, options.figure)
    print_workers()


if __name__ == "__main__":
    main()

"""Short parallel runs on a Markov chain, and what they leave behind; as a script, a run that is killed and goes on.

usage: parallel_support.py FILE N_STEPS N_WORKERS PAUSE     begin or resume the run, say "step" after each step, and pause
"""

import os
import signal
import sys
import time
from pathlib import Path

import openpathsampling as paths

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("sampling", "storage", "shooting")]

from kill_script import new_storage  # noqa: E402
from resume_support import QuickChain  # noqa: E402
from sampling_support import QUICK  # noqa: E402

import ops_aimmd  # noqa: E402
from ops_aimmd.committor.schedule import DiminishingSchedule  # noqa: E402
from ops_aimmd.runs.parallel_path_sampling import ParallelPathSampling  # noqa: E402
from ops_aimmd.shooting.executors.choose import InThisProcess, executor_for  # noqa: E402
from ops_aimmd.shooting.shots import ShotFailure  # noqa: E402


def simulation(storage=None, checkpoint=None, n_chains=3, chain=None, seed=7, learner=None, **options):
    """A silent run that is ready to begin."""
    chain = QuickChain() if chain is None else chain
    if learner is None:
        schedule = DiminishingSchedule(every=4, until=40, growth=0.3)
        learner = ops_aimmd.CommittorLearner([chain.site], chain.states, seed=seed, schedule=schedule, fit_options=QUICK)
    scheme = chain.scheme(learner)
    sampler = ParallelPathSampling(storage, scheme, [chain.initial()] * n_chains, checkpoint=checkpoint, **options)
    sampler.show_progress = False
    return sampler


def deadly_site(snapshot, folder, coordinator):
    """The site, in a worker that finds no ticket in a folder to die with."""
    tickets = [] if os.getpid() == coordinator else sorted(Path(folder).glob("ticket-*"))
    for ticket in tickets:
        try:
            ticket.rename(ticket.with_name(f"used-{ticket.name}"))
        except FileNotFoundError:  # another worker was faster
            continue
        os.kill(os.getpid(), signal.SIGKILL)
    return snapshot.coordinates[0, 0]


def deadly_chain(folder):
    """A chain on which a worker dies for each ticket that is put into the folder."""
    chain = QuickChain()
    chain.site = paths.FunctionCV("site", deadly_site, folder=str(folder), coordinator=os.getpid())
    chain.states = [chain.volume(0).named("A"), chain.volume(6).named("B")]
    return chain


def begin(file, **options):
    """A run with files."""
    return simulation(new_storage(str(file)), file.with_suffix(".aimmd"), **options)


def resume(file):
    """Resume the run of a file."""
    sampler = ops_aimmd.resume(file, file.with_suffix(".aimmd"), progress=False)
    sampler.show_progress = False
    return sampler


def ledger(steps):
    """Of each step: number, replicas, acceptance, sites of the trials and of the active paths, random numbers, version."""
    entries = []
    for step in steps:
        change = step.change.canonical
        active = sorted((int(sample.replica), sites(sample.trajectory)) for sample in step.active)
        if step.mccycle:
            details = change.details
            trials = [sites(sample.trajectory) for sample in change.trials]
            entries.append((step.mccycle, active, change.accepted, trials, details.seed, details.model_version))
        else:
            entries.append((0, active))
    return entries


def sites(trajectory):
    return trajectory.xyz.reshape(len(trajectory), -1).tolist()


def ledger_of(file):
    """The ledger of a file that is closed."""
    storage = paths.Storage(str(file), "r")
    found = ledger(storage.steps)
    storage.close()
    return found


class InReverse(InThisProcess):
    """Gives back last what was submitted first, so that shots come back in another order than they went."""

    def results(self, timeout=None):
        self._waiting = type(self._waiting)(reversed(self._waiting.items()))
        return super().results(timeout)


class Counting(InThisProcess):
    """Calls an action before some of the results, counted from 1, and counts how often each shot is run."""

    def __init__(self, actions):
        super().__init__()
        self.actions = actions
        self.n_results = 0
        self.runs = {}

    def results(self, timeout=None):
        self.n_results += 1
        if self.n_results in self.actions:
            self.actions[self.n_results]()
        outcomes = super().results(timeout)
        for outcome in outcomes:
            self.runs[outcome.shot_id] = self.runs.get(outcome.shot_id, 0) + 1
        return outcomes


def refuse(executor, ending, text, kind):
    """Let an executor be unable to run the shots with this ending of their names, and give it back."""
    results = executor.results

    def with_failures(timeout=None):
        done = results(timeout)
        return [ShotFailure(one.shot_id, text, kind) if one.shot_id.endswith(ending) else one for one in done]

    executor.results = with_failures
    return executor


def die():
    raise Died


class Died(Exception):
    """Stands for the death of the process."""


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def main(file, n_steps, n_workers, pause):
    def tell(**kwargs):
        print("step", flush=True)
        time.sleep(pause)

    sampler = resume(file) if file.exists() else begin(file, rounds=True)
    sampler.attach_hook(tell, "after_step")
    with executor_for(n_workers or None) as executor:
        sampler.executor = executor
        sampler.run_until(n_steps)
    sampler.storage.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:4]), float(sys.argv[4]))

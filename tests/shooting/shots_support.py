"""Systems to shoot in, shots, and states that break things in the process that evaluates them."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import openpathsampling as paths
from openmm import unit
from openpathsampling.engines import openmm as ops_openmm

from ops_aimmd.shooting.executors.choose import InThisProcess
from ops_aimmd.shooting.shots import specification
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide
from ops_aimmd.systems.markov_chain import MarkovChainEngine, reversible_transition_matrix

BOTH = ("backward", "forward")


class Walk:
    """A random walk on the sites 0 to 40 of a line, with states at the ends, shot from the middle."""

    n_sites = 41

    def __init__(self, site=None, **options):
        links = np.ones(self.n_sites - 1)
        conductances = np.diag(links, 1) + np.diag(links, -1) + np.diag(np.full(self.n_sites, 0.1))
        self.engine = MarkovChainEngine(reversible_transition_matrix(conductances), options={"n_frames_max": 20_000})
        cv = paths.FunctionCV("site", site_of if site is None else site, **options)
        last = self.n_sites - 1
        self.states = [
            paths.CVDefinedVolume(cv, -0.5, 0.5).named("left"),
            paths.CVDefinedVolume(cv, last - 0.5, last + 0.5).named("right"),
        ]
        self.point = self.engine.trajectory([self.n_sites // 2])[0]


class Alanine:
    """Alanine dipeptide, shot from its minimised positions with velocities of about 300 K."""

    def __init__(self, platform="Reference", integrator=None):
        self.system = alanine_dipeptide(platform=platform)
        self.engine, self.states = self.system.engine, self.system.states
        if integrator is not None:
            self.engine = ops_openmm.Engine(
                self.engine.topology, self.engine.system, integrator, options=dict(self.engine.options)
            )
            self.engine.initialize(platform)
        self.point = self.snapshot(np.random.default_rng(1).normal(size=(22, 3)) * 0.5)

    def snapshot(self, velocities):
        return ops_openmm.Snapshot.construct(
            coordinates=self.system.positions * unit.nanometer,
            velocities=velocities * unit.nanometer / unit.picosecond,
            box_vectors=None,
            engine=self.engine,
        )


def site_of(snapshot):
    return snapshot.coordinates[0, 0]


def breaking_site(snapshot, folder, fault):
    """`site_of`, until the walk has come a few sites from the middle while there is a ticket for a fault in a folder."""
    site = snapshot.coordinates[0, 0]
    if abs(site - Walk.n_sites // 2) < 3:
        return site
    (Path(folder) / f"process-{os.getpid()}").touch()
    for ticket in sorted(Path(folder).glob("ticket-*")):
        try:
            ticket.rename(ticket.with_name(f"used-{ticket.name}-{os.getpid()}"))
        except FileNotFoundError:  # somebody else was faster
            continue
        FAULTS[fault]()
    return site


def tickets(folder, number):
    for i in range(number):
        (Path(folder) / f"ticket-{i:03d}").touch()
    return str(folder)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


def fail():
    raise LookupError("no such angle")


def linger():
    time.sleep(600.0)


FAULTS = {"kill": kill, "stop": stop, "fail": fail, "linger": linger}


def specs(system, key, n, directions=BOTH, max_frames=None, first=0):
    """Specifications of shots from the system's point, with different seeds."""
    return [
        specification(f"shot/{i}", key, system.point, directions, max_frames, seed=1000 + i)
        for i in range(first, first + n)
    ]


def run_all(executor, shots):
    """Results and failures by id."""
    for spec in shots:
        executor.submit(spec)
    return gather(executor)


def gather(executor, timeout=300.0):
    done = {}
    while some := executor.results(timeout):
        for outcome in some:
            assert outcome.shot_id not in done
            done[outcome.shot_id] = outcome
    return done


def run_here(system, n, **options):
    """The same shots in this process."""
    with InThisProcess() as executor:
        key = executor.start(system.engine, system.states)
        return run_all(executor, specs(system, key, n, **options))


def same(result, other):
    """Whether two results hold the same frames, bit for bit."""
    documents = [dict(one.to_document(), worker="", seconds=0.0) for one in (result, other)]
    return _bits(documents[0]) == _bits(documents[1])


def _bits(value):
    if isinstance(value, dict):
        return {name: _bits(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_bits(item) for item in value]
    return (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value

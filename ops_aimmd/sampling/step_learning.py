"""What a learner does with the steps of a simulation: shooting results, the density of paths, training, seeds."""

from __future__ import annotations

import warnings

import openpathsampling as paths
from openpathsampling.pathmover import EngineMover

from ops_aimmd.sampling.configuration_replicas import ConfigurationMover
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.movers import ShootingMover, submovers
from ops_aimmd.sampling.selectors import CommittorSelector
from ops_aimmd.sampling.shooting_point_exchange import ShootingPointExchangeMover
from ops_aimmd.sampling.shooting_results import shooting_result, shots
from ops_aimmd.shooting.states import state_index
from ops_aimmd.shooting.streams import StepSeeds, seed_generators, simulation_key

SHOOTING_MOVERS = (
    ShootingMover,
    paths.ForwardShootMover,
    paths.BackwardShootMover,
    paths.pathmover.AbstractTwoWayShootingMover,
)
"""Movers of this package and of OPS that pick a shooting point with a selector."""


class StepLearning:
    """Learns from every finished step of a simulation.

    Parameters
    ----------
    learner : CommittorLearner
        The one that the selectors of the scheme query.
    """

    def __init__(self, learner: CommittorLearner):
        self.learner = learner
        self.engines: list = []
        """Those of the movers of the simulation."""
        self.simulation_key: int | None = None
        """What tells the random numbers of this simulation from those of others with the same seed."""
        self._initial_paths: set = set()

    def prepare(self, sim) -> None:
        """Check that scheme and learner belong together, and find the engines and initial paths.

        Raises
        ------
        ValueError
            If a selector queries another learner, or a mover stops at other states.
        """
        movers = list(submovers(sim.root_mover))
        for mover in movers:
            selector = mover.selector if isinstance(mover, EngineMover) else None
            queries = selector if isinstance(selector, CommittorSelector) else mover
            if getattr(queries, "learner", self.learner) is not self.learner:
                raise ValueError(
                    f"the selector of {mover.name!r} queries another learner than the one that this hook trains: give "
                    "the scheme and the hook the same CommittorLearner. A run that was stored goes on with "
                    "ops_aimmd.resume(FILE, checkpoint=CHECKPOINT); without a checkpoint its hook takes the learner of "
                    "the scheme, TrainingHook(scheme.learner), or of the selector"
                )
            if isinstance(mover, ShootingMover) and {s.__uuid__ for s in mover.states} != {
                s.__uuid__ for s in self.learner.states
            }:
                raise ValueError(
                    f"the legs of {mover.name!r} stop at the states {[s.name for s in mover.states]}, the learner knows "
                    f"{[s.name for s in self.learner.states]}: give both the same volume objects"
                )
        warn_of_unguided_shooting(movers)
        engines = [m.engine for m in movers if isinstance(m, EngineMover) and m.engine is not None]
        engines += [engine for m in movers if isinstance(m, ConfigurationMover) for engine in m.engines]
        self.engines = list({id(engine): engine for engine in engines}.values())
        for sample in sim.root:
            self._initial_paths.update(_identities(sample.trajectory))

    def begin(self, sim) -> None:
        """Make the key of a simulation that begins, from its first sample set."""
        self.simulation_key = simulation_key(sim.sample_set, self.learner.simulations.begin())

    def seed(self, step_number: int) -> None:
        """Seed all random number generators for a step, if the learner has a seed."""
        if self.learner.seed is not None:
            entropy = StepSeeds(self.learner.seed, self.simulation_key).of_step(step_number)
            self.learner.simulations.begin_step(seed_generators(entropy, self.engines))

    def learn(self, step) -> None:
        """Add the shots of a step to the training set, and count its current paths.

        Parameters
        ----------
        step : openpathsampling.MCStep
            Best before OPS stores it and replaces its frames by proxies of what it stored.
        """
        found = shots(step.change, self.learner.states)
        for result in [shooting_result(shot, self.learner, step.mccycle) for shot in found]:  # all or, if it fails, none
            if result is not None:
                self.learner.add(result)
        for sample in step.active:
            if _identities(sample.trajectory)[0] not in self._initial_paths:  # these were not sampled
                self._count(sample.trajectory)

    def _count(self, path) -> None:
        """Count a current path in the density, if it is a transition path."""
        learner, name = self.learner, str(path.__uuid__)
        if learner.has_seen_paths and name in learner.learned.frames:
            learner.learned.frames.count(name)
            return
        ends = [state_index(path[i], learner.states) for i in (0, -1)]
        if min(ends) >= 0 and ends[0] != ends[1]:
            frames = learner.path_frames(path)
            learner.learned.frames.count(name, frames.descriptors[frames.selectable])

    def train(self, step) -> None:
        """Train if it is due after a step."""
        if self.learner.has_seen_paths and self.learner.learned.due(self.learner.training_schedule):
            try:
                self.learner.fit()
            except FloatingPointError as error:
                warnings.warn(
                    f"training after step {step.mccycle} failed, and sampling goes on with model version "
                    f"{self.learner.version.number}: {error}",
                    stacklevel=2,
                )


def _identities(trajectory) -> list[tuple[int, int, int]]:
    """Length and end frames of a path, and of its reverse: moves that exchange or reverse paths make no new ones."""
    first, last = trajectory[0], trajectory[-1]
    return [
        (len(trajectory), first.__uuid__, last.__uuid__),
        (len(trajectory), last.reversed.__uuid__, first.reversed.__uuid__),
    ]


def warn_of_unguided_shooting(movers: list) -> None:
    """Schemes of OPS can shoot by several strategies, and a selector given to one is not that of the others."""
    shooting = [mover for mover in movers if isinstance(mover, SHOOTING_MOVERS)]
    shooting = [mover for mover in shooting if not isinstance(mover, ShootingPointExchangeMover)]
    unguided = [mover for mover in shooting if not isinstance(mover.selector, CommittorSelector)]
    if not unguided or len(unguided) == len(shooting):
        return
    ensembles = list(dict.fromkeys(mover.ensemble.name for mover in unguided))
    warnings.warn(
        f"the shots in {ensembles} are picked by {type(unguided[0].selector).__name__}, the others by the committor. "
        "If that is not meant, replace the strategy of these ensembles too: for OPS's group of the multiple state outer "
        "interfaces, scheme.append(paths.strategies.OneWayShootingStrategy(selector=selector, ensembles=[ensemble], "
        'group="ms_outer_shooting", engine=engine)) for each ensemble in network.special_ensembles["ms_outer"]',
        stacklevel=5,
    )

"""A chain of path sampling whose steps are made in two parts: up to the shot, and from its result on.

A Monte Carlo step of OPS is one call that picks, runs the dynamics and accepts. Here the call is made twice with the same
random numbers and the same model version: at first it is left where the dynamics would begin, with the specification of the
shot; when the result is there it is made again, and finds the legs ready. So all moves of OPS work as they are, and nothing
of a step under way has to be kept but its specification: whoever has the paths, the seed and the model version makes the
same one again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import openpathsampling as paths

from ops_aimmd.committor.selection import ModelVersion
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.shooting.legs import legs_made_by
from ops_aimmd.shooting.shots import ShotFailure, ShotResult, ShotSpec, legs_from_result, specification
from ops_aimmd.shooting.step_seeds import StepSeeds
from ops_aimmd.shooting.streams import own_random_numbers


@dataclass
class Chain:
    """One set of replicas, which is sampled as if it were alone.

    Attributes
    ----------
    number : int
    samples : openpathsampling.SampleSet
        Its current paths.
    n_steps : int
        Steps that it has made.
    failure : ShotFailure or None
        Why it was stopped.
    """

    number: int
    samples: paths.SampleSet
    n_steps: int = 0
    failure: ShotFailure | None = None


@dataclass
class StepUnderWay:
    """A step that waits for the result of a shot.

    Attributes
    ----------
    number : int
        Of the step in its chain, from 1.
    version : ModelVersion or None
        That picks its shooting points and accepts; None without a learner.
    frozen : bool
        Whether the learner was frozen when the step began.
    specifications, results : dict by shot id
        Of the shots that were asked for.
    """

    number: int
    version: ModelVersion | None
    frozen: bool
    specifications: dict[str, ShotSpec] = field(default_factory=dict)
    results: dict[str, ShotResult] = field(default_factory=dict)

    @property
    def missing(self) -> list[ShotSpec]:
        """Shots without a result."""
        return [spec for shot, spec in self.specifications.items() if shot not in self.results]


class _ShotNeededError(Exception):
    def __init__(self, spec: ShotSpec):
        super().__init__(spec.shot_id)
        self.spec = spec


class DivergedError(RuntimeError):
    """A step that was made again has asked for another shot than the first time."""


class StepMaker:
    """Makes the steps of all chains of a simulation, in this process, but for the dynamics.

    Parameters
    ----------
    mover : openpathsampling.PathSimulatorMover
    learner : CommittorLearner or None
    seeds : StepSeeds
        Of the simulation.
    run_id : str
        Tells the shots of this run from those of others on the same executor.
    engine_keys : mapping
        Key for specifications by engine and states: see `engine_and_states`.
    """

    def __init__(self, mover, learner: CommittorLearner | None, seeds: StepSeeds, run_id: str, engine_keys: Mapping):
        self.mover = mover
        self.learner = learner
        self.seeds = seeds
        self.run_id = run_id
        self.engine_keys = engine_keys

    def begin(self, chain: Chain) -> StepUnderWay:
        """The next step of a chain, with the model as it is now."""
        if self.learner is None:
            return StepUnderWay(chain.n_steps + 1, None, False)
        return StepUnderWay(chain.n_steps + 1, self.learner.version, self.learner.frozen)

    def attempt(self, chain: Chain, step: StepUnderWay, cycle: int) -> paths.MoveChange | ShotSpec:
        """The finished move, or the next shot that it needs, which is noted in the step.

        Parameters
        ----------
        chain : Chain
        step : StepUnderWay
        cycle : int
            Number that the step gets in the simulation if it is finished.

        Raises
        ------
        DivergedError
            If the move asks for another shot than it did before.
        """
        legs = _Legs(self, chain, step)
        entropy = self.seeds.of_chain(chain.number, step.number)
        with own_random_numbers(*entropy) as identifier, self._as_it_was(step):
            if self.learner is not None:
                self.learner.step_seed = identifier
            try:
                with legs_made_by(legs):
                    change = self.mover.move(chain.samples, step=cycle)
            except _ShotNeededError as needed:
                return needed.spec
        change.details.timing = sum(step.results[shot].seconds for shot in legs.used)
        return change

    def _as_it_was(self, step: StepUnderWay):
        return nullcontext() if step.version is None else self.learner.as_it_was(step.version, step.frozen)


class _Legs:
    """Makes the legs of one attempt from the results that are there."""

    def __init__(self, maker: StepMaker, chain: Chain, step: StepUnderWay):
        self.maker = maker
        self.chain = chain
        self.step = step
        self.used: list[str] = []

    def __call__(self, engine, start, directions: Sequence[str], states: Sequence, limit: float) -> dict:
        step, numbers = self.step, (self.chain.number, self.step.number, len(self.used))
        shot = f"{self.maker.run_id}/{'-'.join(str(number) for number in numbers)}"
        entropy = self.maker.seeds.of_shot(*numbers)
        seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
        key = self.maker.engine_keys[engine_and_states(engine, states)]
        spec = specification(shot, key, start, directions, limit, seed)
        known = step.specifications.setdefault(shot, spec)
        if known is not spec and _content(known) != _content(spec):
            raise DivergedError(
                f"step {step.number} of chain {self.chain.number} was begun with another shot (of id {shot}) than it asks "
                "for now: paths, seed, model version or engine are not those that it was begun with. Nothing was lost; "
                "give the OPS file, checkpoint, engine and descriptors that belong together"
            )
        self.used.append(shot)
        if shot not in step.results:
            raise _ShotNeededError(spec)
        return legs_from_result(step.results[shot], start, engine)


def engine_and_states(engine, states: Sequence) -> tuple:
    """By which an executor's key of an engine and the states of its legs is remembered."""
    return (engine.__uuid__, *(state.__uuid__ for state in states))


def _content(spec: ShotSpec) -> str:
    """What must not change when a step is made again; another platform has another key and makes as fair a trial."""
    return replace(spec, engine_key="").digest

"""Shots under way: how a step asks for them and is made again when they are back, and what the checkpoint knows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

import openpathsampling as paths

from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.runs.chain import Chain, StepUnderWay
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.learner_checkpoint import model_version
from ops_aimmd.shooting.legs import legs_made_by
from ops_aimmd.shooting.shots import ShotResult, ShotSpec, legs_from_result, specification
from ops_aimmd.shooting.streams import StepSeeds, own_random_numbers, seed_from


class _LegsNeededError(Exception):
    def __init__(self, spec: ShotSpec):
        super().__init__(spec.shot_id)
        self.spec = spec


class DivergedError(RuntimeError):
    """A step that is made again asks for another shot than the first time."""


class StepMaker:
    """Makes the steps of all chains of a simulation in this process, except for the dynamics.

    `run_id` tells the shots of this run from those of others on the same executor; `engine_keys` holds the key for
    specifications by engine and states (see `engine_and_states`).
    """

    def __init__(self, mover, learner: CommittorLearner | None, seeds: StepSeeds, run_id: str, engine_keys: Mapping):
        self.mover = mover
        self.learner = learner
        self.seeds = seeds
        self.run_id = run_id
        self.engine_keys = engine_keys

    def begin(self, chain: Chain) -> StepUnderWay:
        """The next step of a chain, with the model as it is now."""
        return StepUnderWay(chain.n_steps + 1, None if self.learner is None else self.learner.learned)

    def attempt(self, chain: Chain, step: StepUnderWay, cycle: int) -> paths.MoveChange | ShotSpec:
        """The finished move, or the next shot that it needs, which is noted in the step.

        A Monte Carlo step of OPS is one call that picks, runs the dynamics and accepts: the root mover and all choosers
        below it are OPS's, and draw random numbers, wrap the changes of others, or go on to a second move. So the call is
        made again for each shot, with the same random numbers and the same model version: an exception ends it where
        dynamics would begin that has no result yet. All moves of OPS work as they are, and a step under way is known by
        its specifications alone: after a kill, paths, seed and model version make the same step again.

        `cycle` is the number that the step gets in the simulation if it is finished. Raises DivergedError if the move asks
        for another shot than it did before.
        """
        used: list[str] = []

        def legs(engine, start, directions: Sequence[str], states: Sequence, limit: float) -> dict:
            spec = self._specification(chain, step, len(used), engine, start, directions, states, limit)
            used.append(spec.shot_id)
            if spec.shot_id not in step.results:
                raise _LegsNeededError(spec)
            return legs_from_result(step.results[spec.shot_id], start, engine)

        entropy = self.seeds.of_chain(chain.number, step.number)
        begun_with = nullcontext() if self.learner is None else self.learner.step_begun_with(step.learned)
        with own_random_numbers(*entropy) as identifier, begun_with, legs_made_by(legs):
            if self.learner is not None:
                self.learner.simulations.begin_step(identifier)
            try:
                change = self.mover.move(chain.samples, step=cycle)
            except _LegsNeededError as needed:
                return needed.spec
        change.details.timing = sum(step.results[shot].seconds for shot in used)
        return change

    def _specification(self, chain, step, number: int, engine, start, directions, states, limit) -> ShotSpec:
        """The shot with this number in a step, the same one as before if it was asked for before."""
        numbers = (chain.number, step.number, number)
        shot = f"{self.run_id}/{'-'.join(map(str, numbers))}"
        key = self.engine_keys[engine_and_states(engine, states)]
        spec = specification(shot, key, start, directions, limit, seed_from(self.seeds.of_shot(*numbers)))
        known = step.specifications.setdefault(shot, spec)
        if known is not spec and _content(known) != _content(spec):
            raise DivergedError(
                f"step {step.number} of chain {chain.number} was begun with another shot (of id {shot}) than it asks for "
                "now: paths, seed, model version or engine are not those that it was begun with. Nothing was lost; give "
                "the OPS file, checkpoint, engine and descriptors that belong together"
            )
        return spec


def engine_and_states(engine, states: Sequence) -> tuple:
    """The key under which `StepMaker.engine_keys` holds an engine and the states of its legs."""
    return (engine.__uuid__, *(state.__uuid__ for state in states))


def _content(spec: ShotSpec) -> str:
    """The part that must not change when a step is made again. The engine key may: another platform is as fair a trial."""
    return replace(spec, engine_key="").digest


class ShotLog:
    """The shots under way in the checkpoint of a run, open for writing; without a checkpoint nothing is kept."""

    def __init__(self, file: Checkpoint | None):
        self._file = file
        self._noted = set() if file is None else set(file.journaled_shots())

    def note_specification(self, chain: Chain, step: StepUnderWay, spec: ShotSpec) -> None:
        """Note a shot before it is handed out, for the first time or again."""
        if self._file is None or spec.shot_id in self._noted:
            return
        self._noted.add(spec.shot_id)
        self._file.journal_shots(
            {
                spec.shot_id: {
                    "chain": chain.number,
                    "step": step.number,
                    "model_version": None if step.learned is None else step.learned.version.number,
                    "frozen": step.learned is not None and step.learned.frozen,
                    "specification": spec.to_document(),
                }
            }
        )

    def note_result(self, result: ShotResult) -> None:
        """Note a result before a step uses it."""
        if self._file is not None:
            self._file.journal_result(result.shot_id, result.to_document())

    def forget(self, step: StepUnderWay) -> None:
        """Drop the shots of a step that was recorded."""
        if self._file is not None and step.specifications:
            self._file.forget_shots(list(step.specifications))
            self._noted.difference_update(step.specifications)

    def steps_under_way(self, chains: list[Chain], learner: CommittorLearner | None) -> dict[int, StepUnderWay]:
        """Steps that were begun and not recorded, by number of the chain; shots of recorded steps are dropped."""
        if self._file is None:
            return {}
        found: dict[int, StepUnderWay] = {}
        for shot, (noted, result) in self._file.journaled_shots().items():
            chain, number = chains[noted["chain"]], noted["step"]
            if number <= chain.n_steps:  # the process died between the two
                self._file.forget_shots([shot])
                continue
            if chain.number not in found:
                learned = None
                if learner is not None:
                    version = model_version(self._file, noted["model_version"], learner)
                    learned = replace(learner.learned, version=version, frozen=noted["frozen"])
                found[chain.number] = StepUnderWay(number, learned)
            step = found[chain.number]
            step.specifications[shot] = ShotSpec.from_document(noted["specification"])
            if result is not None:
                step.results[shot] = ShotResult.from_document(result)
        return found

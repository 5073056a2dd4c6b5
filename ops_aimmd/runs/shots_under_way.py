"""What the checkpoint knows of shots under way: written before they begin, read when a run is taken up again."""

from __future__ import annotations

from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.runs.chain import Chain, StepUnderWay
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.learner_checkpoint import model_version
from ops_aimmd.shooting.shots import ShotResult, ShotSpec


class ShotLog:
    """The journal of the checkpoint of a run; without a checkpoint nothing is kept.

    Parameters
    ----------
    file : Checkpoint or None
        Open for writing.
    """

    def __init__(self, file: Checkpoint | None):
        self._file = file
        self._noted = set() if file is None else set(file.journaled_shots())

    def note_specification(self, chain: Chain, step: StepUnderWay, spec: ShotSpec) -> None:
        """Before the shot is handed out, for the first time or again."""
        if self._file is None or spec.shot_id in self._noted:
            return
        self._noted.add(spec.shot_id)
        version = None if step.version is None else step.version.number
        self._file.journal_shots(
            {
                spec.shot_id: {
                    "chain": chain.number,
                    "step": step.number,
                    "model_version": version,
                    "frozen": step.frozen,
                    "specification": spec.to_document(),
                }
            }
        )

    def note_result(self, result: ShotResult) -> None:
        """Before anybody acts on it."""
        if self._file is not None:
            self._file.journal_result(result.shot_id, result.to_document())

    def forget(self, step: StepUnderWay) -> None:
        """After the step was recorded."""
        if self._file is not None and step.specifications:
            self._file.forget_shots(list(step.specifications))
            self._noted.difference_update(step.specifications)

    def steps_under_way(self, chains: list[Chain], learner: CommittorLearner | None) -> dict[int, StepUnderWay]:
        """Steps that were begun and not recorded, by number of the chain; what is left of recorded ones is taken out."""
        if self._file is None:
            return {}
        found: dict[int, StepUnderWay] = {}
        for shot, (noted, result) in self._file.journaled_shots().items():
            chain, number = chains[noted["chain"]], noted["step"]
            if number <= chain.n_steps:  # the process died between the two
                self._file.forget_shots([shot])
                continue
            if chain.number not in found:
                version = None if learner is None else model_version(self._file, noted["model_version"], learner)
                found[chain.number] = StepUnderWay(number, version, noted["frozen"])
            step = found[chain.number]
            step.specifications[shot] = ShotSpec.from_document(noted["specification"])
            if result is not None:
                step.results[shot] = ShotResult.from_document(result)
        return found

"""What a learner knows of the simulations that it drives, beside what it has learned from them."""

from __future__ import annotations

import warnings

from ops_aimmd.committor.density import TransitionPathFrames


class Simulations:
    """The simulations of one learner. Hooks and runs report here what they do; nothing else changes the attributes.

    Attributes
    ----------
    n_begun : int
        Simulations that the learner has driven, the present one included.
    step_seed : int or None
        Identifier of the random numbers of the current MC step; None without a seed.
    """

    def __init__(self):
        self.n_begun = 0
        self.step_seed: int | None = None
        self._reported = False
        self._has_warned = False
        self._recorded: dict[str, int] = {}  # revision of the frames that each checkpoint has, by its run id

    def begin(self) -> int:
        """Count a simulation that begins; returns how many there were before."""
        self.n_begun += 1
        return self.n_begun - 1

    def go_on_counting(self, n_begun: int) -> None:
        """Count on from what a checkpoint says."""
        self.n_begun = n_begun

    def begin_step(self, seed: int) -> None:
        """Note the identifier of the random numbers of a step that begins."""
        self.step_seed = seed

    def begin_reports(self) -> None:
        """From now on the results of shots are reported to the learner."""
        self._reported = True

    def end_reports(self) -> None:
        """The simulation has ended."""
        self._reported = False

    def expect_result(self, model_version: int) -> None:
        """Warn, once, if the result of a shot that is picked now will not be reported."""
        if self._reported or self._has_warned:
            return
        self._has_warned = True
        warnings.warn(
            "a shooting point is picked, and the simulation has no TrainingHook: the learner learns nothing from this run, "
            f"and picks with model version {model_version}. Attach the hook before run(...), "
            "sampler.attach_hook(ops_aimmd.TrainingHook(learner, checkpoint=...)). A run that was stored goes on with "
            "ops_aimmd.resume(FILE, checkpoint=CHECKPOINT), which attaches it. To sample with the model as it is, freeze "
            "the learner",
            stacklevel=2,
        )

    @property
    def are_recorded(self) -> bool:
        """Whether any checkpoint has what was learned."""
        return bool(self._recorded)

    def not_recorded(self, run_id: str, frames: TransitionPathFrames) -> dict:
        """What a checkpoint lacks of the frames of transition paths: see `TransitionPathFrames.changes`."""
        return frames.changes(self._recorded.get(run_id, 0))

    def note_recorded(self, run_id: str, revision: int) -> None:
        """A checkpoint has the frames of transition paths up to this revision."""
        self._recorded[run_id] = revision

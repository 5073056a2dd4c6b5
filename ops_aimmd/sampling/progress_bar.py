"""A progress bar for path sampling with a learner."""

from __future__ import annotations

from collections import deque

import numpy as np
from openpathsampling.beta.hooks import PathSamplingOutputHook, PathSimulatorHook
from tqdm.auto import tqdm

from ops_aimmd.sampling.learner import CommittorLearner, check_learner
from ops_aimmd.sampling.shooting_results import is_transition, shots


class ProgressBar(PathSimulatorHook):
    """A progress bar with the fractions of generated and accepted transition paths and the held-out loss.

    It takes the place of OPS's own messages.

    Parameters
    ----------
    learner : CommittorLearner
    window : int
        Number of last shots over which the fractions are taken.
    """

    implemented_for = ["before_simulation", "after_step", "after_simulation"]

    def __init__(self, learner: CommittorLearner, window: int = 100):
        super().__init__()
        check_learner(learner, "ProgressBar(learner)")
        self.learner = learner
        self.window = window
        self._bar = None
        self._recent: deque = deque(maxlen=window)

    def before_simulation(self, sim, n_steps=None, **kwargs) -> None:
        """Open the bar, which replaces OPS's messages."""
        for name in PathSamplingOutputHook.implemented_for:
            sim.hooks[name] = [
                hook for hook in sim.hooks[name] if not isinstance(getattr(hook, "__self__", None), PathSamplingOutputHook)
            ]
        self._close()  # it is still open if the run before was interrupted
        self._bar = tqdm(total=n_steps, unit="step", dynamic_ncols=True)

    def after_step(self, sim, step_number, step_info, state, results, hook_state) -> None:
        """Advance the bar."""
        for shot in shots(results.change, self.learner.states):
            self._recent.append((is_transition(shot), shot.accepted))
        figures = {}
        if self._recent:
            generated, accepted = np.mean(self._recent, axis=0)
            figures = {"generated": f"{generated:.2f}", "accepted": f"{accepted:.2f}"}
        report = self.learner.last_report
        if report is not None:
            figures["loss"] = f"{report.held_out_loss_per_leg:.3f}"
        self._bar.set_postfix(figures, refresh=False)
        self._bar.update()

    def after_simulation(self, sim, hook_state) -> None:
        """Close the bar."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None

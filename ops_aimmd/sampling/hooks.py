"""The hook that learns from every finished step, and a progress bar."""

from __future__ import annotations

import warnings
from collections import deque

import numpy as np
from openpathsampling.beta.hooks import PathSamplingOutputHook, PathSimulatorHook
from openpathsampling.pathmover import EngineMover
from tqdm.auto import tqdm

from ops_aimmd.checkpoint import Checkpoint

from .learner import CommittorLearner
from .learner_checkpoint import create_checkpoint, record_step
from .movers import ShootingMover
from .random_state import seed_step
from .selectors import CommittorSelector
from .shooting_results import is_transition, shooting_result, shots


class TrainingHook(PathSimulatorHook):
    """Sends every finished step to the learner: shooting results, the density, training, and the checkpoint.

    Attach it to `paths.PathSampling`. Before each step it seeds all random number generators if the learner has a seed.
    After each step, accepted or not, it adds the shots to the training set, counts the current paths in the density,
    trains when the schedule says so, and writes the checkpoint. Moves that are no shots only count their current path.

    Parameters
    ----------
    learner : CommittorLearner
        The one that the selectors of the scheme query.
    checkpoint : str or path, optional
        File that keeps what was learned; must not exist yet.
    """

    implemented_for = ["before_simulation", "before_step", "after_step", "after_simulation"]

    def __init__(self, learner: CommittorLearner, checkpoint=None):
        super().__init__()
        self.learner = learner
        self.checkpoint = checkpoint
        self._engines: list = []
        self._file: Checkpoint | None = None
        self._simulation = None
        self._initial_paths: set = set()

    def before_simulation(self, sim, **kwargs) -> None:
        """Check that scheme and hook belong together, and open the checkpoint.

        Raises
        ------
        ValueError
            If a selector queries another learner, a mover stops at other states, or the checkpoint is that of another
            simulation.
        FileExistsError
            If there is something at the path of the checkpoint.
        """
        if self.checkpoint is not None and self._simulation not in (None, sim):
            raise ValueError(
                f"this hook writes the checkpoint {str(self.checkpoint)!r} of another simulation: make a TrainingHook "
                "with a checkpoint of its own for each simulation"
            )
        attached = [h.__self__ for h in sim.hooks["after_step"] if isinstance(getattr(h, "__self__", None), TrainingHook)]
        owners = [hook for hook in attached if hook.learner is self.learner]
        if len({id(hook) for hook in owners}) > 1 or sim.hooks["after_step"].count(self.after_step) > 1:
            raise ValueError(
                "this simulation has more than one TrainingHook for the same learner, which would count every shot twice: "
                "make the PathSampling object anew (in a notebook, run the cell that makes it again) and attach one hook"
            )
        movers = list(_submovers(sim.root_mover))
        for mover in movers:
            selector = mover.selector if isinstance(mover, EngineMover) else None
            if isinstance(selector, CommittorSelector) and selector.learner is not self.learner:
                raise ValueError(
                    f"the selector of {mover.name!r} queries another learner than the one that this hook trains: give "
                    "the scheme and the hook the same CommittorLearner"
                )
            if isinstance(mover, ShootingMover) and {s.__uuid__ for s in mover.states} != {
                s.__uuid__ for s in self.learner.states
            }:
                raise ValueError(
                    f"the legs of {mover.name!r} stop at the states {[s.name for s in mover.states]}, the learner knows "
                    f"{[s.name for s in self.learner.states]}: give both the same volume objects"
                )
        engines = {id(m.engine): m.engine for m in movers if isinstance(m, EngineMover) and m.engine is not None}
        self._engines = list(engines.values())
        observe = self._observe
        if observe not in sim.hooks["after_step"]:
            sim.hooks["after_step"].insert(0, observe)  # before OPS replaces the frames by what it stored of them
        for sample in sim.root:
            self._initial_paths.update(_identities(sample.trajectory))
        if self.checkpoint is not None and self._file is None:
            begun = self._simulation is not None
            self._file = (
                Checkpoint.open(self.checkpoint) if begun else create_checkpoint(self.checkpoint, self.learner, sim.step)
            )
        self._simulation = sim

    def before_step(self, sim, step_number, step_info, state) -> None:
        """Seed the generators of this step."""
        if self.learner.seed is not None:
            self.learner.step_seed = seed_step(self.learner.seed, step_number, self._engines)

    def _observe(self, sim, step_number, step_info, state, results, hook_state) -> None:
        self.learner.results_are_reported()
        for shot in shots(results.change, self.learner.states):
            result = shooting_result(shot, self.learner, step_number)
            if result is not None:
                self.learner.add(result)
        for sample in results.active:
            if _identities(sample.trajectory)[0] not in self._initial_paths:  # these were not sampled
                self.learner.count_path(sample.trajectory)

    def after_step(self, sim, step_number, step_info, state, results, hook_state) -> None:
        """Train if it is due, and write the checkpoint."""
        if self.learner.training_due:
            try:
                self.learner.fit()
            except FloatingPointError as error:
                warnings.warn(
                    f"training after step {step_number} failed, and sampling goes on with model version "
                    f"{self.learner.version.number}: {error}",
                    stacklevel=2,
                )
        if self._file is not None and self.learner.has_seen_paths:
            record_step(self._file, self.learner, step_number)

    def after_simulation(self, sim, hook_state) -> None:
        """Close the checkpoint; all that is in it was written after each step."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def to_dict(self) -> dict:
        """Set-up only, for OPS storage."""
        return {"learner": self.learner, "checkpoint": None if self.checkpoint is None else str(self.checkpoint)}


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
        self.learner = learner
        self.window = window
        self._bar = None
        self._recent: deque = deque(maxlen=window)

    def before_simulation(self, sim, n_steps=None, **kwargs) -> None:
        """Open the bar, in the place of OPS's messages."""
        for name in PathSamplingOutputHook.implemented_for:
            sim.hooks[name] = [hook for hook in sim.hooks[name] if not _belongs_to(hook, PathSamplingOutputHook)]
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


def _belongs_to(hook, kind: type) -> bool:
    return isinstance(getattr(hook, "__self__", None), kind)


def _identities(trajectory) -> list[tuple[int, int, int]]:
    """Length and end frames of a path, and of its reverse: moves that exchange or reverse paths make no new ones."""
    first, last = trajectory[0], trajectory[-1]
    return [
        (len(trajectory), first.__uuid__, last.__uuid__),
        (len(trajectory), last.reversed.__uuid__, first.reversed.__uuid__),
    ]


def _submovers(mover):
    yield mover
    for submover in mover.submovers:
        yield from _submovers(submover)

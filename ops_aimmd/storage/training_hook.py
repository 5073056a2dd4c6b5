"""The hook that sends every finished step to the learner and to the files of the run."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import openpathsampling as paths
from openpathsampling.beta.hooks import PathSimulatorHook

from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.engines.frames import parts_in_memory
from ops_aimmd.sampling.learner import CommittorLearner, check_learner
from ops_aimmd.sampling.movers import check_velocities
from ops_aimmd.sampling.ops_messages import leave_cursor_alone
from ops_aimmd.sampling.step_learning import StepLearning
from ops_aimmd.shooting.frame_blocks import frames_can_be_kept
from ops_aimmd.storage.block_writer import write_as_ops, write_in_blocks
from ops_aimmd.storage.ops_files import file_of, remember_frames, save_step, step_numbers
from ops_aimmd.storage.run_files import RunFiles
from ops_aimmd.storage.series_block import SeriesBlock
from ops_aimmd.storage.thinning import Thinning


class TrainingHook(PathSimulatorHook):
    """Sends every finished step to the learner: shooting results, the density, training, and the checkpoint.

    Attach it to `paths.PathSampling`. Before each step it seeds all random number generators if the learner has a seed.
    After each step, accepted or not, it adds the shots to the training set, counts the current paths in the density,
    trains when the schedule says so, and writes the checkpoint; all this before OPS stores the step, so that the
    checkpoint is never behind OPS's file. Moves that are no shots only count their current path. A netCDF file gets the
    series of the run as plain variables (:class:`.series_block.SeriesBlock`).

    Parameters
    ----------
    learner : CommittorLearner
        The one that the selectors of the scheme query.
    checkpoint : str or path, optional
        File that keeps what was learned, and all that `ops_aimmd.resume` needs; must not exist yet.
    keep_paths : bool
        Keep all sampled paths in the checkpoint too (float32, and the ends of rejected trials), so that a lost OPS file
        can be made again. False: only until OPS's file has them.
    keep_models_every : int
        The checkpoint keeps every model version with a multiple of this as its number, and the newest. The default keeps
        all: their number grows with the logarithm of the number of shots.
    rejected_trials : {"whole", "ends"}
        "ends": OPS's file gets only shooting point and end frames of rejected shots; outcomes and lengths of their legs
        are in the details.
    path_stride : int
        OPS's file gets every n-th frame of paths, besides their ends and shooting points; needs a checkpoint, which holds
        the whole current path. OPS's own analysis then sees short paths.
    write_in_blocks : bool
        Write a step to OPS's netCDF file by one call per variable (:mod:`.block_writer`). False: number by number, as OPS
        does, which takes some twenty times as long. The files are equal.

    Raises
    ------
    ValueError
        For options that do not exist or do not go together.
    """

    implemented_for = ["before_simulation", "before_step", "after_step", "after_simulation"]

    def __init__(
        self,
        learner: CommittorLearner,
        checkpoint=None,
        keep_paths: bool = True,
        keep_models_every: int = 1,
        rejected_trials: str = "whole",
        path_stride: int = 1,
        write_in_blocks: bool = True,
    ):
        super().__init__()
        check_learner(learner, "TrainingHook(learner, checkpoint)")
        self.learner = learner
        self.checkpoint = checkpoint
        self.keep_paths = keep_paths
        self.keep_models_every = keep_models_every
        self.rejected_trials = rejected_trials
        self.path_stride = path_stride
        self.write_in_blocks = write_in_blocks
        if path_stride != 1 and checkpoint is None:
            raise ValueError(
                "path_stride needs a checkpoint: the current path, from which the run goes on, would be whole nowhere"
            )
        self._learning = StepLearning(learner)
        self._thinning = Thinning(rejected_trials, path_stride)
        self._files = None if checkpoint is None else RunFiles(checkpoint, learner, keep_paths, keep_models_every)
        self._series: SeriesBlock | None = None
        self._simulation = None
        self._running = False
        """Whether a run was begun and not ended; before a run begins: whether the one before it was interrupted."""
        self._step = None
        self._to_do: list[Callable] = []
        """What is still to be done with that step."""
        self._last_step = 0
        self._current: dict[int, tuple[int, list]] = {}
        """Current path of each replica and its frames, kept so that the run goes on from all their digits."""

    def before_simulation(self, sim, **kwargs) -> None:
        """Check that scheme and hook belong together, and open the files.

        Raises
        ------
        ValueError
            If a selector queries another learner, a mover stops at other states, a mover keeps the velocities of a path
            that has none, the checkpoint is that of another simulation, steps of the simulation are there that would be
            made again, or paths are to be thinned that the checkpoint cannot hold.
        FileExistsError
            If there is something at the path of the checkpoint.
        """
        if self._files is not None and self._simulation not in (None, sim):
            raise ValueError(
                f"this hook writes the checkpoint {str(self.checkpoint)!r} of another simulation: make a TrainingHook "
                "with a checkpoint of its own for each simulation"
            )
        after_step = sim.hooks["after_step"]
        attached = [h.__self__ for h in after_step if isinstance(getattr(h, "__self__", None), TrainingHook)]
        owners = [hook for hook in attached if hook.learner is self.learner]
        if len({id(hook) for hook in owners}) > 1 or after_step.count(self.after_step) > 1:
            raise ValueError(
                "this simulation has more than one TrainingHook for the same learner, which would count every shot twice: "
                "make a new PathSampling object (in a notebook, run its cell again) and attach one hook"
            )
        self._check_that_no_step_is_made_twice(sim)
        self._learning.prepare(sim)
        check_velocities(sim.root_mover, sim.sample_set)
        frames = [sample.trajectory[0] for sample in sim.sample_set]
        if self.path_stride != 1 and not frames_can_be_kept(frames, self._learning.engines):
            raise ValueError(
                "path_stride needs frames that the checkpoint can hold, and those of this engine hold more than arrays and "
                "plain values, or their coordinates lie in files of the engine: the current path, from which the run goes "
                "on, would be whole nowhere"
            )
        if sim is not self._simulation:
            self._learning.begin(sim)
        self.learner.simulations.begin_reports()
        after_step.remove(self.after_step)
        after_step.insert(0, self.after_step)  # before OPS stores the step
        if self._files is not None:
            self._files.open(sim, self.to_dict(), self._learning.engines, self.simulation_key)
        if sim.storage is not None and self._series is None:
            self._series = self._series_of(sim.storage, None if self._files is None else self._files.file.run_id)
        leave_cursor_alone(sim)
        if self.write_in_blocks:
            write_in_blocks(sim.storage)
        self._simulation = sim
        if self._running:
            self._go_on_after_interruption(sim)
        self._running, self._step, self._last_step = True, None, sim.step

    def _check_that_no_step_is_made_twice(self, sim) -> None:
        """OPS's restart_at_step sets the number of the step back without a word; two histories would then mix."""
        made = {}
        if sim.storage is not None:
            made[str(file_of(sim.storage))] = max(step_numbers(sim.storage, str(sim.__uuid__)), default=0)
        made["the learner"] = self._last_step if sim is self._simulation else 0
        holder = max(made, key=made.get)
        if sim.step < made[holder]:
            raise ValueError(
                f"the simulation stands at step {sim.step}, and {holder} holds its steps up to {made[holder]}: to make "
                "these steps again would mix two histories. To go on from the last step, call ops_aimmd.resume(FILE, "
                f"checkpoint=CHECKPOINT). To sample again from step {sim.step}, make a new PathSampling from its paths, "
                "sample_set=storage.steps[...].active, with a new OPS file and a new checkpoint"
            )

    def _go_on_after_interruption(self, sim) -> None:
        """Go on after Ctrl-C or an error as if there had been none.

        A step that was made is learned from, recorded and stored as far as that was not done; one that was not made is
        begun again.
        """
        self._finish_step()
        sim.step = self._last_step
        if sim.storage is not None:
            if self._step is not None:
                save_step(sim.storage, self._step)  # changes nothing if it was saved
            sim.sync_storage()

    def _series_of(self, storage, run_id: str | None) -> SeriesBlock | None:
        if not SeriesBlock.possible(storage):
            return None
        try:
            return SeriesBlock(storage, self.learner.states, run_id)
        except ValueError as error:
            warnings.warn(f"the series of this run are not written as plain variables: {error}", stacklevel=3)
            return None

    def before_step(self, sim, step_number, step_info, state) -> None:
        """Seed the generators of this step."""
        self._learning.seed(step_number)

    def after_step(self, sim, step_number, step_info, state, results, hook_state) -> None:
        """Learn from the step and write it to the checkpoint."""
        self._step, self._last_step = results, step_number
        self._to_do = [
            self._keep_paths,
            self._learning.learn,
            self._learning.train,
            self._record,
            self.prepare_for_storage,
        ]
        self._finish_step()

    def _keep_paths(self, step) -> None:
        for sample in step.active:
            path = sample.trajectory
            if self._current.get(sample.replica, (None,))[0] != path.__uuid__:
                self._keep(sample.replica, path, path.iter_proxies())

    def keep_current_paths(self, sim) -> None:
        """Keep all digits of the paths from which a resumed run goes on, also of frames that its OPS file holds already."""
        for sample in sim.sample_set:
            self._keep(sample.replica, sample.trajectory, sample.trajectory)
            if isinstance(sim.storage, paths.Storage):
                remember_frames(sim.storage, sample.trajectory)

    def _keep(self, replica: int, path: paths.Trajectory, frames) -> None:
        self._current[replica] = (path.__uuid__, [part for frame in frames for part in parts_in_memory(frame)])

    @property
    def open_checkpoint(self) -> Checkpoint | None:
        """The checkpoint, while a run goes on."""
        return None if self._files is None else self._files.file

    @property
    def simulation_key(self) -> int | None:
        """What tells the random numbers of this simulation from those of others with the same seed."""
        return self._learning.simulation_key

    @property
    def steps_of_replicas(self) -> dict[int, int]:
        """Steps that each replica has made, by what the checkpoint says; empty without one."""
        return {} if self._files is None else self._files.steps_of_replicas

    def _finish_step(self) -> None:
        while self._to_do:
            self._to_do[0](self._step)
            del self._to_do[0]

    def _record(self, step) -> None:
        if self._files is not None and self._files.file.step < step.mccycle:
            self._files.record(step)

    def prepare_for_storage(self, step) -> None:
        """Write a step's rows of the series, and take out of it what OPS's file shall not hold."""
        if self._series is not None and step.mccycle > self._series.last_step:
            self._series.append(step)
            self._series.flush()
        self._thinning.apply(step)

    def continue_run(self, sim, run: dict, run_id: str) -> None:
        """Go on with a checkpoint that is there and says `run` of the simulation, as `ops_aimmd.resume` asks for."""
        self._files.begun = True
        self._simulation = sim
        key = run.get("simulation_key")  # version 0.1.0 has none
        self._learning.simulation_key = None if key is None else int(key)
        self._series = self._series_of(sim.storage, run_id)

    def recognise_stored(self, whole, stored) -> None:
        """Take the stored active paths of a resumed run for what this hook would have stored of the whole ones."""
        self._thinning.recognise(whole, stored)

    def learn_from_stored(self, sim, steps) -> None:
        """Learn from steps that are in OPS's file already, and write them to the checkpoint."""
        self._learning.prepare(sim)
        self._files.open(sim, self.to_dict(), self._learning.engines, self.simulation_key)
        for step in steps:
            self._learning.learn(step)
            self._learning.train(step)
            self._files.record(step)
        self._files.close(sim)

    def after_simulation(self, sim, hook_state) -> None:
        """Close the checkpoint; all that is in it was written after each step."""
        self._running = False
        self.learner.simulations.end_reports()
        if self._files is not None:
            self._files.close(sim)
        if self.write_in_blocks:
            write_as_ops(sim.storage)

    def to_dict(self) -> dict:
        """Set-up only, for OPS storage."""
        return {
            "learner": self.learner,
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "keep_paths": self.keep_paths,
            "keep_models_every": self.keep_models_every,
            "rejected_trials": self.rejected_trials,
            "path_stride": self.path_stride,
            "write_in_blocks": self.write_in_blocks,
        }

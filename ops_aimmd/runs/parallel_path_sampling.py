"""Many chains of path sampling that share one learner, with their shots run wherever an executor puts them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral

import openpathsampling as paths
from openpathsampling.beta.hooks import StorageHook
from openpathsampling.pathmover import EngineMover
from openpathsampling.pathsimulators.path_simulator import MCStep

from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.runs.chain import Chain, StepUnderWay
from ops_aimmd.runs.shots_under_way import ShotLog, StepMaker, engine_and_states
from ops_aimmd.sampling.configuration_replicas import ConfigurationMover
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.movers import ShootingMover, check_velocities, submovers
from ops_aimmd.sampling.ops_messages import ops_is_quiet
from ops_aimmd.sampling.path_frames import PATHS_REMEMBERED
from ops_aimmd.sampling.progress_bar import ProgressBar
from ops_aimmd.sampling.shared_learner import selectors_of
from ops_aimmd.shooting.executors.choose import Executor, check_executor, opened
from ops_aimmd.shooting.loop import ShotLoop
from ops_aimmd.shooting.shots import ShotFailure, ShotResult, ShotSpec
from ops_aimmd.shooting.streams import StepSeeds, settled_seed
from ops_aimmd.storage.training_hook import TrainingHook

SEED_FILE = "seed_of_chains"
"""Name, in the checkpoint, of the seed that was drawn for a run where the learner has none."""


class ChainStoppedWarning(UserWarning):
    """A shot could not be run, so its chain did not go on; the message says which and why."""


class ParallelPathSampling(paths.PathSampling):
    """Path sampling of many independent chains that share the learner of their move scheme.

    Each chain is a Markov chain of its own: its steps do not depend on when those of others end. A step picks its shooting
    point with the newest model version and is accepted with the same one, however many versions were published while its
    legs ran. As soon as a shot is back its chain goes on, or with `rounds` all chains together, which makes runs that
    are the same to the bit wherever the shots run.

    Parameters
    ----------
    storage : openpathsampling.Storage, SimStore Storage, or None
    move_scheme : CommittorShootingScheme
        Or another one of shooting moves of this package and moves without dynamics.
    initial_conditions : sequence of openpathsampling.SampleSet or openpathsampling.Trajectory
        One for each chain; of a trajectory, the transition path in it is taken. `ops_aimmd.initial_paths` makes some.
    executor : optional
        Where shots run. None: one after another in this process. A number n: n processes of this machine, for the time of
        each `run`. Else an executor or a `dask.distributed.Client`.
    checkpoint : path-like, optional
        Checkpoint of the run, as for `TrainingHook`, with the shots under way. For other options of the hook attach one.
    rounds : bool
        Whether all chains make their steps together.

    Attributes
    ----------
    chains : list of Chain
    show_progress : bool

    Notes
    -----
    Chain c has the replica c, or with k ensembles the replicas c k to c k + k - 1. A stored step is the step of one chain:
    its active samples are those of that chain only, so that an average over the steps of a file counts each path once for
    each step that its own chain has spent there. `step.mccycle` numbers the steps of all chains in the order in which
    they ended.

    `before_step` of hooks is not called: other chains go on at the beginning of a step.

    References
    ----------
    Jung et al., Nat. Comput. Sci. 3, 334 (2023), doi:10.1038/s43588-023-00428-z.
    """

    def __init__(
        self,
        storage,
        move_scheme=None,
        initial_conditions=None,
        executor=None,
        checkpoint=None,
        rounds: bool = False,
    ):
        self.chains: list[Chain] = []
        self._executor = None
        self.executor = executor
        self.checkpoint = checkpoint
        self.rounds = bool(rounds)
        self.show_progress = True
        self._under_way: dict[int, StepUnderWay] = {}
        self._seed: int | None = None
        self._shot_log = ShotLog(None)
        self._loop: ShotLoop | None = None
        self._ready: list[Chain] = []
        self._finishing = False
        self._maker: StepMaker | None = None
        self.__dict__["sample_set"] = None  # the property is what counts, but OPS's log looks for it here
        samples = None
        if isinstance(storage, (str, os.PathLike)):
            raise TypeError(f"storage is an open storage, paths.Storage({str(storage)!r}, 'w'), or None; got {storage!r}")
        if move_scheme is not None:
            _check_moves(move_scheme)
            samples = _numbered(move_scheme, initial_conditions)
        super().__init__(storage, move_scheme, samples)

    # ---- OPS's idea of a simulation ---------------------------------------------------------------------------------

    @property
    def sample_set(self) -> paths.SampleSet:
        """The current paths of all chains."""
        return paths.SampleSet([sample for chain in self.chains for sample in chain.samples])

    @sample_set.setter
    def sample_set(self, samples) -> None:
        samples = sorted(samples or [], key=lambda sample: sample.replica)
        per_chain = len({sample.ensemble.__uuid__ for sample in samples})
        n_chains = len(samples) // per_chain if samples else 0
        self.chains = [
            Chain(number, paths.SampleSet(samples[number * per_chain : (number + 1) * per_chain]))
            for number in range(n_chains)
        ]

    @property
    def executor(self):
        """Where shots run; may be set between two runs. An executor object serves one simulation at a time."""
        return self._executor

    @executor.setter
    def executor(self, executor) -> None:
        check_executor(executor)
        self._executor = executor

    def to_dict(self):
        return {**super().to_dict(), "rounds": self.rounds}

    @classmethod
    def from_dict(cls, dct):
        simulation = super().from_dict(dct)
        simulation.rounds = dct["rounds"]
        return simulation

    def attach_default_hooks(self) -> None:
        """OPS stores the steps; its other hooks look at all replicas in every step."""
        self.attach_hook(StorageHook())

    @property
    def learner(self) -> CommittorLearner | None:
        """That of the scheme, or of its selectors."""
        if getattr(self.move_scheme, "learner", None) is not None:
            return self.move_scheme.learner
        return next((selector.learner for selector in selectors_of(submovers(self.root_mover))), None)

    # ---- running ----------------------------------------------------------------------------------------------------

    def run(self, n_steps: int) -> None:
        """Make steps until all chains have made the same number: `n_steps` more than the one that has made the most.

        Shots under way are waited for at the end, and at Ctrl-C; a second Ctrl-C gives them up, and the next run, or the
        one after `ops_aimmd.resume`, runs them again as they were specified.

        Parameters
        ----------
        n_steps : int
            Steps of each chain.

        Warns
        -----
        ChainStoppedWarning
            If shots could not be run, because their workers died or an error was raised; their chains have made fewer
            steps, and the next run tries again.
        """
        _check_steps(n_steps)
        self._run(lambda: max(chain.n_steps for chain in self.chains) + n_steps)

    def run_until(self, n_steps: int) -> None:
        """Make steps until each chain has made `n_steps` since the beginning."""
        _check_steps(n_steps)
        self._run(lambda: n_steps)

    def run_one_step(self, step_info, hook_state=None):
        """Not for many chains: NotImplementedError."""
        raise NotImplementedError("run_one_step does not say which chain makes the step: run(1) makes one step of each")

    def run_until_n_accepted(self, n_accepted):
        """Not for many chains: NotImplementedError."""
        raise NotImplementedError(
            "chains make a number of steps each, run(n) or run_until(n): to stop by what was accepted would leave out the "
            "shots that take long"
        )

    def restart_at_step(self, step, storage=None):
        """Not for many chains: NotImplementedError."""
        raise NotImplementedError("a step holds the path of one chain: go on with ops_aimmd.resume(file, checkpoint)")

    def _run(self, target_now: Callable[[], int]) -> None:
        if not self.chains:
            raise ValueError("there is no chain to run: ParallelPathSampling needs a move scheme and initial conditions")
        learner = self.learner
        hook = self._prepare_hooks(learner)
        made = {} if hook is None else hook.steps_of_replicas
        for chain in self.chains:
            chain.n_steps = max(chain.n_steps, made.get(int(chain.samples.samples[0].replica), 0))
        target = target_now()
        to_make = sum(max(0, target - chain.n_steps) for chain in self.chains)
        self.run_hooks("before_simulation", sim=self, n_steps=to_make)
        self._finishing = False
        try:
            self._read_from_checkpoint(None if hook is None else hook.open_checkpoint, learner)
            with opened(self.executor) as executor:
                keys = {}
                for engine, states in _engines_and_states(self.root_mover):
                    which = engine_and_states(engine, states)
                    if which not in keys:
                        keys[which] = executor.start(engine, states, str(self.__uuid__))
                seeds = StepSeeds(self._seed, None if hook is None else hook.simulation_key)
                self._maker = StepMaker(self._mover, learner, seeds, str(self.__uuid__), keys)
                self._run_to(executor, target)
        finally:
            if not self._finishing:  # else the hooks have a step to finish first, when the next run begins
                self.run_hooks("after_simulation", sim=self, hook_state=None)

    def _prepare_hooks(self, learner: CommittorLearner | None) -> TrainingHook | None:
        hooks = [hook for hook in map(_owner, self.hooks["after_step"]) if isinstance(hook, TrainingHook)]
        others = [hook for hook in hooks if not _same_file(hook.checkpoint, self.checkpoint)]
        if self.checkpoint is not None and (learner is None or others):
            raise ValueError(
                f"nothing would be written to checkpoint={str(self.checkpoint)!r}: "
                + (
                    "the scheme has no learner to keep there; give it one, CommittorShootingScheme(network, learner, "
                    "selector=paths.UniformSelector()) for uniform selection"
                    if learner is None
                    else "the hook that you have attached has another one; give the checkpoint to one of the two"
                )
            )
        if learner is None:
            return None
        learner.paths.limit = max(PATHS_REMEMBERED, 4 * len(self.chains))
        for chain in self.chains[:1]:  # so that version 0 is in the checkpoint from the beginning
            learner.path_frames(chain.samples.samples[0].trajectory)
        if not hooks:
            hooks = [TrainingHook(learner, self.checkpoint)]
            self.attach_hook(hooks[0])
        if not any(isinstance(_owner(hook), ProgressBar) for hook in self.hooks["after_step"]) and self.show_progress:
            self.attach_hook(ProgressBar(learner))
        return hooks[0]

    def _read_from_checkpoint(self, file: Checkpoint | None, learner: CommittorLearner | None) -> None:
        """Take from the checkpoint what this object does not know, after a resume."""
        self._shot_log = ShotLog(file)
        if self._seed is None:
            self._seed = settled_seed(None if learner is None else learner.seed, file, SEED_FILE)
        if not self._under_way:
            self._under_way = self._shot_log.steps_under_way(self.chains, learner)

    def _run_to(self, executor: Executor, target: int) -> None:
        for chain in self.chains:
            chain.failure = None
        if self._loop is None or self._loop.executor is not executor:
            self._loop = ShotLoop(executor)
        self._ready = [] if self.rounds else list(self.chains)
        more = self._in_rounds if self.rounds else self._freely
        interrupted = self._loop.run(lambda: more(target), self._take)
        self._report_failures()
        if interrupted:
            raise KeyboardInterrupt

    def _freely(self, target: int) -> Iterator[ShotSpec]:
        """Each chain goes on as soon as its own shot is back."""
        ready, self._ready = self._ready, []
        for chain in ready:
            while self._begin_step(chain, target):
                if (spec := self._go_on(chain)) is not None:
                    yield spec
                    break

    def _in_rounds(self, target: int) -> Iterator[ShotSpec]:
        """All chains make a step with one model version, and end it in the order of their numbers.

        A step goes on when all shots that were handed out together are back.
        """
        while not self._loop.waiting:
            back = sorted(self._ready, key=lambda chain: chain.number)
            unfinished = [chain for chain in back if self._may_go_on(chain)] or self._begin_round(target)
            self._ready = []
            if not unfinished:
                return
            for chain in unfinished:
                if (spec := self._go_on(chain)) is not None:
                    yield spec

    def _begin_round(self, target: int) -> list[Chain]:
        """The chains that have a step to make; those that lag behind, since a run was ended in the middle of a round,
        catch up first."""
        able = [chain for chain in self.chains if chain.failure is None]
        last = min((chain.n_steps for chain in able), default=0)
        return [chain for chain in able if chain.n_steps == last and self._begin_step(chain, target)]

    def _begin_step(self, chain: Chain, target: int) -> bool:
        """Whether the chain has a step to make now; it is begun if it was not."""
        if chain.failure is not None or (chain.n_steps >= target and chain.number not in self._under_way):
            return False
        if chain.number not in self._under_way and not self._loop.interrupted:
            self._under_way[chain.number] = self._maker.begin(chain)
        return self._may_go_on(chain)

    def _may_go_on(self, chain: Chain) -> bool:
        """Whether the step of a chain can be taken further: no shot of it has failed, none is to be handed out too late."""
        if chain.failure is not None or chain.number not in self._under_way:
            return False
        return not (self._loop.interrupted and self._under_way[chain.number].missing)

    def _go_on(self, chain: Chain) -> ShotSpec | None:
        """Take the step of a chain as far as it goes; the shot that it needs, None if it is finished."""
        step = self._under_way[chain.number]
        made = self._maker.attempt(chain, step, self.step + 1)
        if isinstance(made, ShotSpec):
            self._shot_log.note_specification(chain, step, made)
            return made
        self._finish(chain, step, made)
        return None

    def _take(self, outcome: ShotResult | ShotFailure) -> None:
        """Keep the result of a shot for the step that waits for it."""
        shot = outcome.shot_id
        number = next(number for number, step in self._under_way.items() if shot in step.specifications)
        self._ready.append(self.chains[number])
        if isinstance(outcome, ShotFailure):
            self.chains[number].failure = outcome
        else:
            self._shot_log.note_result(outcome)
            self._under_way[number].results[shot] = outcome

    def _finish(self, chain: Chain, step: StepUnderWay, change: paths.MoveChange) -> None:
        self.step += 1
        active = chain.samples.apply_samples(change.results)
        finished = MCStep(simulation=self, mccycle=self.step, previous=chain.samples, active=active, change=change)
        self._current_step = finished
        chain.samples = active
        chain.n_steps += 1
        del self._under_way[chain.number]
        self._finishing = True
        self.run_hooks(
            "after_step",
            sim=self,
            step_number=self.step,
            step_info=(self.step, None),
            state=active,
            results=finished,
            hook_state=None,
        )
        self._finishing = False
        self._shot_log.forget(step)

    def _report_failures(self) -> None:
        failed = [chain for chain in self.chains if chain.failure is not None]
        if not failed:
            return
        stopped = "\n".join(
            f"chain {chain.number}, stopped after {chain.n_steps} steps: {chain.failure}" for chain in failed
        )
        advice = "Nothing was lost: the next run takes the same shots up again, and brings all chains to the same step"
        if len(failed) == len(self.chains):
            raise RuntimeError(f"no chain could go on. {advice}, once the cause is gone.\n{stopped}")
        warnings.warn(
            f"{len(failed)} of {len(self.chains)} chains were stopped. {advice}.\n{stopped}", ChainStoppedWarning, 4
        )


def _numbered(scheme, initial_conditions) -> paths.SampleSet:
    """The initial samples of all chains in one set, with replicas of their own."""
    is_one = isinstance(initial_conditions, (paths.SampleSet, paths.Trajectory, str))
    if is_one or not isinstance(initial_conditions, Sequence) or not initial_conditions:
        raise ValueError(
            "initial_conditions are a list with the initial conditions of each chain, SampleSets of "
            "scheme.initial_conditions_from_trajectories(path) or transition paths, for instance [path] * 8 for 8 chains; "
            f"got {'nothing' if not initial_conditions else type(initial_conditions).__name__}"
        )
    for number, given in enumerate(initial_conditions):
        if not isinstance(given, (paths.SampleSet, paths.Trajectory)):
            raise ValueError(f"initial conditions {number} are no SampleSet and no Trajectory; got {given!r}")
    samples = []
    for number, given in enumerate(initial_conditions):
        with ops_is_quiet():
            try:
                if not isinstance(given, paths.SampleSet):
                    given = scheme.initial_conditions_from_trajectories(given)
                scheme.assert_initial_conditions(given)
                check_velocities(scheme.move_decision_tree(), given)
            except (ValueError, AssertionError) as error:
                raise ValueError(f"initial conditions {number}: {error}") from error
        own = sorted(given, key=lambda sample: sample.replica)
        first = number * len(own)
        samples += [
            paths.Sample(replica=first + i, trajectory=s.trajectory, ensemble=s.ensemble) for i, s in enumerate(own)
        ]
    return paths.SampleSet(samples)


def _check_moves(scheme) -> None:
    for mover in submovers(scheme.move_decision_tree()):
        if isinstance(mover, EngineMover) and not isinstance(mover, ShootingMover):
            raise ValueError(
                f"{mover.name!r} is a {type(mover).__name__}, which runs its dynamics in this process: only the shooting "
                "moves of ops_aimmd can be sent elsewhere. Use CommittorShootingScheme (its selector may be any, "
                "paths.UniformSelector() for one), or paths.PathSampling for this scheme"
            )


def _engines_and_states(root) -> Iterator[tuple]:
    """Engines and states of all legs that the moves below a mover may ask for."""
    for mover in submovers(root):
        if isinstance(mover, ShootingMover):
            yield mover.engine, mover.states
        elif isinstance(mover, ConfigurationMover):
            yield from ((engine, ()) for engine in mover.engines)


def _check_steps(n_steps) -> None:
    if not isinstance(n_steps, Integral) or isinstance(n_steps, bool) or n_steps < 0:
        raise ValueError(f"the number of steps of each chain must be an integer >= 0; got {n_steps!r}")


def _same_file(one, other) -> bool:
    return None not in (one, other) and os.path.abspath(one) == os.path.abspath(other)


def _owner(hook):
    return getattr(hook, "__self__", None)

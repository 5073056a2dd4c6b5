"""The hook: what enters the training set and the density, the checkpoint, interrupted runs, the progress bar."""

import contextlib
import gc
import io
import os
import warnings

import numpy as np
import openpathsampling as paths
import pytest
from openpathsampling.beta.hooks import PathSimulatorHook
from sampling_support import QUICK, Chain, breaking_chain, seed_everything, simulation, site_descriptors, site_of

from ops_aimmd import (
    BoltzmannVelocities,
    CommittorLearner,
    CommittorSelector,
    ParallelPathSampling,
    ProgressBar,
    TrainingHook,
    load_learner,
    transfer,
)
from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.committor import DiminishingSchedule
from ops_aimmd.sampling import ShootingMover
from ops_aimmd.sampling.shooting_results import (
    FRAMES_PER_LEG,
    MAX_FRAMES_PER_LEG,
    is_transition,
    shooting_result,
    shots,
    velocity_origin_of,
)
from ops_aimmd.shooting.states import state_index
from ops_aimmd.systems import toy


@pytest.fixture
def chain():
    return Chain()


def stock_two_way(chain, selector, mover_class=None):
    """OPS's own two-way moves; with a class, only one of the two directions comes first."""
    modifier = paths.NoModification(as_copy=True)
    scheme = paths.MoveScheme(chain.network())
    scheme.append(paths.strategies.TwoWayShootingStrategy(modifier=modifier, selector=selector, engine=chain.engine))
    scheme.append(paths.strategies.OrganizeByMoveGroupStrategy())
    scheme.move_decision_tree()
    if mover_class is not None:
        (mover,) = scheme.movers["shooting"]
        mover.movers[:] = [m for m in mover.movers if isinstance(m, mover_class)] * 2
    return scheme


def stock_one_way(chain, selector):
    return paths.OneWayShootingMoveScheme(chain.network(), selector, engine=chain.engine)


# ---- the training set -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shooting", ["two-way", "one-way"])
def test_shots_are_recorded_whatever_is_accepted(chain, shooting):
    learner = chain.learner(seed=1)
    sampler, steps = simulation(chain.scheme(learner, shooting=shooting), chain.initial(), TrainingHook(learner))
    sampler.run(40)
    accepted = [step.change.canonical.accepted for step in steps]
    assert 0 < sum(accepted) < 40
    training_set = learner.training_set
    assert training_set.steps.tolist() == list(range(1, 41))
    for row, (details, step) in enumerate(zip(steps.details, steps, strict=True)):
        reached = [outcome for outcome in details.leg_outcomes if outcome >= 0]
        assert training_set.counts[row].tolist() == np.bincount(reached, minlength=2).tolist()
        point = details.initial_trajectory[details.shooting_index]
        assert training_set.descriptors[row].tolist() == [site_of(point)]
        assert np.allclose(training_set.predicted_committor[row], details.predicted_committor)
        assert details.model_version <= step.mccycle


def test_the_prediction_is_the_one_before_the_shot(chain):
    learner = chain.learner(seed=1)
    sampler, steps = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner))
    versions = {}
    for _ in range(12):
        versions[learner.version.number if learner.has_seen_paths else 0] = (
            learner.model if learner.has_seen_paths else None
        )
        sampler.run(1)
        details = steps.details[-1]
        model = versions[details.model_version]
        if model is not None:
            point = learner.training_set.descriptors[-1:]
            assert np.isclose(details.predicted_committor[1], model.committor(point)[0])
            changed = learner.model is not model
            assert not changed or learner.model.committor(point)[0] != details.predicted_committor[1]
    assert len(versions) > 3


def test_the_prediction_for_a_stock_move_is_made_before_it_is_learned_from(chain):
    learner = chain.learner(seed=1)
    sampler, _ = simulation(stock_one_way(chain, CommittorSelector(learner)), chain.initial(), TrainingHook(learner))
    sampler.run(2)
    for _ in range(10):
        model = learner.model
        sampler.run(1)
        point = learner.training_set.descriptors[-1:]
        assert np.isclose(learner.training_set.predicted_committor[-1, 1], model.committor(point)[0])


def test_one_way_stock_moves_are_learned_from(chain):
    learner = chain.learner(seed=1)
    sampler, steps = simulation(stock_one_way(chain, CommittorSelector(learner)), chain.initial(), TrainingHook(learner))
    sampler.run(60)
    training_set = learner.training_set
    assert len(training_set) == 60 and np.all(training_set.counts.sum(axis=1) == 1)
    assert set(training_set.velocity_origin) == {"path"}
    for row, step in enumerate(steps):
        trial = step.change.canonical.trials[0].trajectory
        new_end = trial[-1] if isinstance(step.change.canonical.mover, paths.ForwardShootMover) else trial[0]
        assert np.argmax(training_set.counts[row]) == state_index(new_end, chain.states)


def test_stock_two_way_moves_count_the_legs_that_exist(chain):
    """A leg that OPS did not run is not in the trial, whose shooting point is then an end."""
    learner = chain.learner(np.zeros(7))
    learner.freeze()
    sampler, steps = simulation(stock_two_way(chain, CommittorSelector(learner)), chain.initial(), TrainingHook(learner))
    sampler.run(150)
    counts = learner.training_set.counts.sum(axis=1)
    assert set(counts) == {1, 2}
    for row, step in enumerate(steps):
        trial = step.change.canonical.trials[0].trajectory
        in_state = [state_index(trial[i], chain.states) >= 0 for i in (0, -1)]
        assert counts[row] == sum(in_state)


@pytest.mark.parametrize("first", [paths.ForwardFirstTwoWayShootingMover, paths.BackwardFirstTwoWayShootingMover])
def test_where_one_direction_always_runs_first_only_the_first_leg_counts(chain, first):
    learner = chain.learner(np.zeros(7))
    learner.freeze()
    scheme = stock_two_way(chain, CommittorSelector(learner), first)
    root = scheme.movers["shooting"][0].movers[0]
    seed_everything(4)
    current = paths.SampleSet([paths.Sample(0, chain.initial(), root.ensemble)])
    n_two_legs = 0
    for step in range(80):
        change = root.move(current)
        (shot,) = shots(change, chain.states)
        assert shooting_result(shot, learner, step).counts.sum() == 1
        n_two_legs += is_transition(shot)
        if change.accepted:
            assert is_transition(shot)
            current = current.apply_samples(change.results)
    assert n_two_legs > 3


@pytest.fixture(scope="module")
def shots_of_stock_moves():
    """400 shots from the middle site of the symmetric chain by OPS's two-way moves: of both kinds, and of one kind only."""
    chain = Chain()
    both = stock_two_way(chain, OnlySite(3)).movers["shooting"][0]
    one = stock_two_way(chain, OnlySite(3), paths.ForwardFirstTwoWayShootingMover).movers["shooting"][0].movers[0]
    found = {}
    for name, mover in (("both directions first", both), ("forward first", one)):
        seed_everything(5)
        changes = [mover.move(paths.SampleSet([paths.Sample(0, chain.initial(), mover.ensemble)])) for _ in range(400)]
        found[name] = [shot for change in changes for shot in shots(change, chain.states)]
    return found


@pytest.mark.parametrize("first", ["both directions first", "forward first"])
def test_stock_two_way_counts_are_unbiased(shots_of_stock_moves, first):
    """At the middle site of the symmetric chain p_B = 1/2, though a second leg is run only after some outcomes."""
    counts = np.zeros(2)
    for shot in shots_of_stock_moves[first]:
        for name, outcome in shot.leg_outcomes.items():
            counts[outcome] += name in shot.unbiased_legs
    error = 0.5 / np.sqrt(counts.sum())
    assert abs(counts[1] / counts.sum() - 0.5) < 4 * error


class OnlySite(paths.ShootingPointSelector):
    def __init__(self, site):
        super().__init__()
        self.site = site

    def f(self, snapshot, trajectory):
        return float(round(site_of(snapshot)) == self.site)


def test_control_only_complete_pairs_would_be_biased(shots_of_stock_moves):
    """Of forward-first moves in an A->B ensemble a second leg is there only if the first reached B."""
    counts = np.zeros(2)
    for shot in shots_of_stock_moves["forward first"]:
        if len(shot.leg_outcomes) == 2:
            for outcome in shot.leg_outcomes.values():
                counts[outcome] += 1
    assert counts[1] / counts.sum() > 0.65


def test_stock_moves_that_hit_the_length_limit_are_no_shots_to_learn_from():
    chain = Chain(n_frames_max=9)
    learner = chain.learner(seed=1)
    sampler, steps = simulation(stock_one_way(chain, CommittorSelector(learner)), chain.initial(), TrainingHook(learner))
    sampler.run(60)
    cut = [getattr(details, "stopping_reason", None) == "max_length" for details in steps.details]
    assert 0 < sum(cut) < 60
    assert learner.training_set.steps.tolist() == [i + 1 for i in range(60) if not cut[i]]


def test_stock_moves_whose_paths_pass_through_states_count_the_first_state():
    """In a fixed-length ensemble paths go on beyond the states; the outcome is where a leg arrived first."""
    chain = Chain()
    network = paths.FixedLengthTPSNetwork(*chain.states, length=40)
    scheme = paths.OneWayShootingMoveScheme(network, paths.UniformSelector(), engine=chain.engine)
    initial = chain.path([0, *[1, 2] * 17, 3, 4, 5, 5, 6])
    sampler, steps = simulation(scheme, initial)
    sampler.run(60)
    n_beyond = 0
    for step in steps:
        (shot,) = shots(step.change, chain.states)
        for name, outcome in shot.leg_outcomes.items():
            leg = shot.leg(name)
            visited = [state_index(frame, chain.states) for frame in leg]
            assert visited[:-1] == [-1] * (len(leg) - 1) and visited[-1] == outcome
            n_beyond += len(leg) < len(shot.trial) - shot.trial_index
    assert n_beyond > 5


def test_length_limit_leaves_the_legs_that_reached_a_state_and_nothing_else(chain):
    learner = chain.learner(seed=1)
    sampler, steps = simulation(chain.scheme(learner, max_length=10), chain.initial(), TrainingHook(learner))
    sampler.run(80)
    rows = {step: row for row, step in enumerate(learner.training_set.steps)}
    partial = 0
    for step, details in zip(steps, steps.details, strict=True):
        reached = [outcome for outcome in details.leg_outcomes if outcome >= 0]
        assert (step.mccycle in rows) == bool(reached)
        if len(reached) == 1:
            partial += 1
            assert learner.training_set.counts[rows[step.mccycle]].sum() == 1
    assert partial > 5


@pytest.mark.parametrize(
    "modifier, origin",
    [
        (None, "boltzmann"),
        (paths.RandomVelocities(beta=1.0), "boltzmann"),
        (paths.NoModification(as_copy=True), "path"),
        (paths.SingleAtomVelocityDirectionModifier(delta_v=0.1), "unknown"),
    ],
)
def test_origin_of_the_velocities(modifier, origin):
    system = toy.wolfe_quapp(dynamics="langevin")
    modifier = BoltzmannVelocities(system.engine) if modifier is None else modifier
    assert velocity_origin_of(modifier) == origin


# ---- auxiliary frames -----------------------------------------------------------------------------------------------


def labelled_frames(learner, row):
    auxiliary = learner.training_set.auxiliary
    mine = auxiliary.shot == row
    return list(
        zip(auxiliary.descriptors[mine][:, 0].astype(int), auxiliary.outcomes[mine], auxiliary.is_end[mine], strict=True)
    )


class Unfolded(Chain):
    """Descriptors that no two frames share: a number that each frame gets when it is first seen."""

    def __init__(self):
        super().__init__()
        self.numbers = {}

    def number(self, frame):
        uuid = min(frame.__uuid__, frame.reversed.__uuid__)
        return self.numbers.setdefault(uuid, float(len(self.numbers)))

    def learner(self, **options):
        learner = CommittorLearner(lambda path: np.array([[self.number(frame)] for frame in path]), self.states, **options)
        learner.paths._has_checked_frames = (
            True  # they are no function of the configuration, which the learner would notice
        )
        return learner


@pytest.mark.parametrize("shooting", ["two-way", "one-way", "stock one-way", "stock two-way"])
def test_auxiliary_frames_are_new_frames_with_the_outcome_of_their_leg(shooting):
    chain = Unfolded()
    learner = chain.learner(seed=1, fit_options={"max_epochs": 1, "relevance": None})
    scheme = {
        "stock one-way": lambda: stock_one_way(chain, CommittorSelector(learner)),
        "stock two-way": lambda: stock_two_way(chain, CommittorSelector(learner)),
    }.get(shooting, lambda: chain.scheme(learner, shooting=shooting))()
    sampler, steps = simulation(scheme, chain.initial(), TrainingHook(learner))
    sampler.run(150 if shooting == "two-way" else 60)
    equal_legs_reversed = 0
    for row, (step, details) in enumerate(zip(steps, steps.details, strict=True)):
        trial = step.change.canonical.trials[0].trajectory
        old = {chain.number(frame) for frame in details.initial_trajectory}
        start = getattr(details, "modified_shooting_snapshot", details.shooting_snapshot)
        index = trial.index_symmetric(start)
        numbers = [chain.number(frame) for frame in trial]
        frames = labelled_frames(learner, row)
        assert frames and not {number for number, _, _ in frames} & old
        ends = {0: state_index(trial[0], chain.states), len(trial) - 1: state_index(trial[-1], chain.states)}
        for number, outcome, is_end in frames:
            place = numbers.index(number)
            assert place != index
            assert outcome == ends[0 if place < index else len(trial) - 1]
            assert is_end == (place in ends)
        lengths = getattr(details, "leg_lengths", None)
        if lengths is not None and lengths[0] == lengths[1] and details.leg_outcomes == [1, 0]:
            equal_legs_reversed += 1
    assert shooting != "two-way" or equal_legs_reversed > 0  # the hardest case did occur


def test_frames_of_a_leg_are_taken_at_intervals_that_the_old_path_decides():
    chain = Unfolded()
    learner = chain.learner(seed=1, fit_options={"max_epochs": 1, "relevance": None})
    sampler, steps = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner))
    sampler.run(60)
    longest = 0
    for row, details in enumerate(steps.details):
        stride = max(1, round(len(details.initial_trajectory) / 2 / FRAMES_PER_LEG))
        expected = [min(len(range(stride, n - 1, stride)), MAX_FRAMES_PER_LEG) + 1 for n in details.leg_lengths]
        frames = labelled_frames(learner, row)
        ends = np.flatnonzero([is_end for _, _, is_end in frames])
        assert np.diff([-1, *ends]).tolist() == expected
        auxiliary = learner.training_set.auxiliary  # frames are numbered in the order in which they are seen first
        displacements = auxiliary.displacements[auxiliary.shot == row]
        assert np.isfinite(displacements).all() and (displacements != 0).all()
        longest = max(longest, *expected)
    assert longest > 2 * FRAMES_PER_LEG


# ---- density --------------------------------------------------------------------------------------------------------


def test_the_current_path_counts_once_per_step_and_the_initial_one_never(chain):
    learner = chain.learner(seed=1)
    sampler, steps = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner))
    sampler.run(50)
    initial = sampler.root[0].trajectory
    current = [step.active[0].trajectory for step in steps]
    n_initial = sum(path is initial for path in current)
    assert n_initial > 0
    frames = learner.transition_path_frames
    expected = {}
    for path in current:
        if path is not initial:
            expected.setdefault(path.__uuid__, [0, path])[0] += 1
    assert frames.n_paths == len(expected)
    assert frames.weights.sum() == sum(count * (len(path) - 2) for count, path in expected.values())
    assert max(count for count, _ in expected.values()) > 1  # paths that stood after rejections


def test_a_reversed_initial_path_is_still_the_initial_path(chain):
    """Path reversal makes a new trajectory with a mover of its own, and samples nothing."""
    learner = chain.learner(seed=1)
    learner.committor(chain.initial())
    scheme = paths.MoveScheme(chain.network(all_to_all=True))
    scheme.append([paths.strategies.PathReversalStrategy(), paths.strategies.OrganizeByMoveGroupStrategy()])
    sampler, steps = simulation(scheme, chain.initial(), TrainingHook(learner))
    sampler.run(5)
    assert all(step.change.canonical.accepted for step in steps)
    assert learner.transition_path_frames.n_paths == 0


# ---- moves that are no shots ----------------------------------------------------------------------------------------


def test_moves_that_are_no_shots_are_passed_over_and_count_their_path(chain):
    learner = chain.learner(seed=1)
    scheme = chain.scheme(learner, chain.network(all_to_all=True))
    scheme.append(paths.strategies.PathReversalStrategy())
    sampler, steps = simulation(scheme, chain.initial(), TrainingHook(learner))
    sampler.run(60)
    is_shot = [isinstance(step.change.canonical.mover, ShootingMover) for step in steps]
    assert 10 < sum(is_shot) < 50
    assert len(learner.training_set) == sum(is_shot)
    first = next(i for i, step in enumerate(steps) if step.change.canonical.accepted and is_shot[i])
    assert sum(c.count for c in learner.transition_path_frames._paths.values()) >= 60 - first


def test_chains_are_the_replicas(chain):
    learner = chain.learner(seed=1)
    scheme = chain.scheme(learner)
    sampler, _ = simulation(scheme, chain.initial(), TrainingHook(learner))
    sample = sampler.sample_set[0]
    sampler.sample_set = paths.SampleSet([paths.Sample(3, sample.trajectory, sample.ensemble)])
    sampler.run(3)
    assert learner.training_set.chains.tolist() == [3, 3, 3]


# ---- hook and scheme belong together --------------------------------------------------------------------------------


def test_another_learner_than_that_of_the_scheme_is_refused(chain):
    sampler, _ = simulation(chain.scheme(chain.learner()), chain.initial(), TrainingHook(chain.learner()))
    with pytest.raises(ValueError, match="another learner"):
        sampler.run(1)


def test_other_states_than_those_of_the_movers_are_refused(chain):
    other = CommittorLearner(site_descriptors, [chain.states[0], chain.volume(6).named("B")])
    sampler, _ = simulation(chain.scheme(), chain.initial(), TrainingHook(other))
    with pytest.raises(ValueError, match="legs of .* stop at the states"):
        sampler.run(1)


def test_states_in_another_order_keep_their_outcomes(chain):
    """A learner that watches uniform selection and knows B before A."""
    learner = CommittorLearner(site_descriptors, chain.states[::-1], seed=1, fit_options=QUICK)
    for shooting in ("two-way", "one-way"):
        sampler, steps = simulation(chain.scheme(shooting=shooting), chain.initial(), TrainingHook(learner))
        n_before = len(learner.training_set) if learner.has_seen_paths else 0
        sampler.run(20)
        outcomes = [[1 - o for o in d.leg_outcomes if o >= 0] for d in steps.details]
        expected = [np.bincount(o, minlength=2).tolist() for o in outcomes]
        assert learner.training_set.counts[n_before:].tolist() == expected


# ---- the checkpoint -------------------------------------------------------------------------------------------------


def assert_checkpoint_holds(path, learner):
    again = load_learner(path)
    assert again.version.number == learner.version.number
    sites = np.arange(7.0)[:, None]
    assert np.array_equal(again.model.committor(sites), learner.model.committor(sites))
    for name in ("descriptors", "counts", "steps", "chains", "velocity_origin", "predicted_committor"):
        assert np.array_equal(getattr(again.training_set, name), getattr(learner.training_set, name)), name
    for name in ("descriptors", "outcomes", "is_end", "shot"):
        assert np.array_equal(getattr(again.training_set.auxiliary, name), getattr(learner.training_set.auxiliary, name))
    assert np.array_equal(again.transition_path_frames.descriptors, learner.transition_path_frames.descriptors)
    assert np.array_equal(again.transition_path_frames.weights, learner.transition_path_frames.weights)
    assert again.reports == learner.reports[len(learner.reports) - len(again.reports) :]
    assert again.last_report == learner.last_report and again.learned.shots_at_last_fit == learner.learned.shots_at_last_fit
    assert again.frozen == learner.frozen


def test_the_checkpoint_holds_everything_after_every_step(chain, tmp_path):
    learner = chain.learner(seed=1)
    path = tmp_path / "run.aimmd"
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner, checkpoint=path))
    for _ in range(12):
        sampler.run(1)
        assert_checkpoint_holds(path, learner)
    learner.freeze()
    sampler.run(1)
    assert_checkpoint_holds(path, learner)


def test_a_checkpoint_of_another_run_is_never_overwritten(chain, tmp_path):
    path = tmp_path / "run.aimmd"
    for _ in range(2):
        learner = chain.learner(seed=1)
        sampler, steps = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner, checkpoint=path))
        if path.exists():
            before = path.read_bytes()
            with pytest.raises(FileExistsError, match="resume"):
                sampler.run(1)
            assert len(steps) == 0 and path.read_bytes() == before
        else:
            sampler.run(3)


def test_a_new_checkpoint_of_an_experienced_learner_begins_with_all_it_knows(chain, tmp_path):
    learner = chain.learner(seed=1)
    for name in ("none", "first", "second"):
        path = tmp_path / f"{name}.aimmd"
        hook = TrainingHook(learner, checkpoint=None if name == "none" else path)
        sampler, _ = simulation(chain.scheme(learner), chain.initial(), hook)
        sampler.run(7)
        if name != "none":
            assert_checkpoint_holds(path, learner)
    assert len(load_learner(path).training_set) == 21


def test_a_hook_with_a_checkpoint_that_is_attached_later(chain, tmp_path):
    learner = chain.learner(seed=1)
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner))
    sampler.run(4)
    sampler.hooks = sampler.empty_hooks()
    path = tmp_path / "run.aimmd"
    sampler.attach_hook(TrainingHook(learner, checkpoint=path))
    sampler.run(3)
    assert_checkpoint_holds(path, learner)


def test_one_hook_with_a_checkpoint_for_two_simulations_is_refused(chain, tmp_path):
    learner = chain.learner(seed=1)
    hook = TrainingHook(learner, checkpoint=tmp_path / "run.aimmd")
    one, _ = simulation(chain.scheme(learner), chain.initial(), hook)
    other, steps = simulation(chain.scheme(learner), chain.initial(), hook)
    one.run(3)
    with pytest.raises(ValueError, match="checkpoint .* of another simulation"):
        other.run(3)
    assert len(steps) == 0
    one.run(3)
    assert_checkpoint_holds(tmp_path / "run.aimmd", learner)


def test_one_hook_without_checkpoint_for_two_simulations(chain):
    learner = chain.learner(seed=1)
    hook = TrainingHook(learner)
    samplers = [simulation(chain.scheme(learner), chain.initial(), hook)[0] for _ in range(2)]
    for sampler in samplers * 2:
        sampler.run(3)
    assert learner.training_set.steps.tolist() == [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6]


def test_running_twice_records_every_step_once(chain, tmp_path):
    learner = chain.learner(seed=1)
    path = tmp_path / "run.aimmd"
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner, checkpoint=path))
    sampler.run(4)
    sampler.run(5)
    assert learner.training_set.steps.tolist() == list(range(1, 10))
    assert_checkpoint_holds(path, learner)
    with Checkpoint.open(path, read_only=True) as checkpoint:
        assert checkpoint.step == 9


# ---- interrupted ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no GPU left")])
def test_an_interrupted_step_leaves_learner_and_checkpoint_consistent(error, tmp_path):
    chain = breaking_chain(0.01, error)
    learner = chain.learner(seed=1)
    path = tmp_path / "run.aimmd"
    sampler, steps = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner, checkpoint=path))
    for _ in range(3):
        chain.engine.probability = 0.01
        with pytest.raises(type(error)):
            sampler.run(1000)
        assert len(learner.training_set) == len(steps)
        assert_checkpoint_holds(path, learner)
        chain.engine.probability = 0.0
        sampler.run(5)
        assert len(learner.training_set) == len(steps)
        assert_checkpoint_holds(path, learner)
    assert len(steps) > 15


def test_an_interrupt_between_learning_and_writing_loses_no_shot(chain, tmp_path):
    """The next step writes what the checkpoint lacks."""
    learner = chain.learner(seed=1)
    path = tmp_path / "run.aimmd"
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner, checkpoint=path))
    interrupter = InterruptOnce()
    sampler.hooks["after_step"].insert(1, interrupter.after_step)
    sampler.run(3)
    interrupter.armed = True
    with pytest.raises(KeyboardInterrupt):
        sampler.run(3)
    assert len(learner.training_set) == 4
    sampler.run(3)
    assert len(learner.training_set) == 7
    assert_checkpoint_holds(path, learner)


class InterruptOnce:
    armed = False

    def after_step(self, **kwargs):
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt


# ---- progress bar ---------------------------------------------------------------------------------------------------


class InterruptAt(PathSimulatorHook):
    """Ctrl-C at a step, once."""

    implemented_for = ["before_step"]

    def __init__(self, at):
        super().__init__()
        self.at = at

    def before_step(self, sim, step_number, step_info, state):
        if step_number == self.at:
            self.at = None  # the step is begun again
            raise KeyboardInterrupt


def test_progress_bar_takes_the_place_of_the_messages_of_ops(chain, capsys):
    learner = chain.learner(seed=1)
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner), ProgressBar(learner))
    sampler.output_stream = io.StringIO()
    sampler.run(8)
    assert sampler.output_stream.getvalue() == ""
    bar = capsys.readouterr().err
    assert "8/8" in bar and "generated=" in bar and "accepted=" in bar and "loss=" in bar


def test_control_messages_of_ops_without_the_bar(chain):
    learner = chain.learner(seed=1)
    sampler, _ = simulation(chain.scheme(learner), chain.initial())
    sampler.output_stream = io.StringIO()
    sampler.run(2)
    assert "Working on Monte Carlo cycle number 2" in sampler.output_stream.getvalue()


def test_progress_bar_leaves_the_output_alone_after_an_exception(chain, capsys):
    learner = chain.learner(seed=1)
    sampler, _ = simulation(
        chain.scheme(learner), chain.initial(), TrainingHook(learner), ProgressBar(learner), InterruptAt(4)
    )
    sampler.output_stream = stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        sampler.run(8)
    assert sampler.output_stream is stream and not stream.closed
    capsys.readouterr()
    sampler.run(5)
    assert "5/5" in capsys.readouterr().err


def test_progress_bar_shows_the_fractions(chain, capsys):
    learner = chain.learner(seed=1)
    bar = ProgressBar(learner, window=10)
    sampler, steps = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner), bar)
    sampler.run(25)
    last = steps[-10:]
    accepted = np.mean([step.change.canonical.accepted for step in last])
    generated = np.mean([sorted(step.change.canonical.details.leg_outcomes) == [0, 1] for step in last])
    assert f"accepted={accepted:.2f}" in (err := capsys.readouterr().err.split("\r")[-1]) or err
    assert np.isclose(np.mean(bar._recent, axis=0), [generated, accepted]).all()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_no_file_is_left_open_by_the_bar(chain):
    learner = chain.learner(seed=1)
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), ProgressBar(learner))
    sampler.run(1)  # what is opened once for the whole process
    before = files_open()
    for _ in range(3):
        sampler.run(1)
    assert files_open() == before
    with open(os.devnull):
        assert files_open() != before


def files_open():
    """Files that this process has open, sorted; no sockets and pipes, which threads of other tests may open and close."""
    gc.collect()
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one of listdir itself
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return sorted(link for link in links if link.startswith("/") and not link.startswith("/proc"))


def test_two_hooks_for_one_learner_are_refused(chain):
    learner = chain.learner(seed=1)
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner))
    sampler.run(2)
    sampler.attach_hook(TrainingHook(learner))
    with pytest.raises(ValueError, match="more than one TrainingHook"):
        sampler.run(2)
    assert len(learner.training_set) == 2


def test_a_loaded_learner_insists_on_its_states_and_descriptors(chain, tmp_path):
    learner = chain.learner(seed=1)
    names = [state.name for state in learner.states]
    assert len(set(names)) == 2
    sampler, _ = simulation(
        chain.scheme(learner), chain.initial(), TrainingHook(learner, checkpoint=tmp_path / "run.aimmd")
    )
    sampler.run(3)
    with pytest.raises(ValueError, match="in this order"):
        load_learner(tmp_path / "run.aimmd", learner.descriptors, list(learner.states)[::-1])
    with pytest.raises(ValueError, match="same descriptors"):
        load_learner(tmp_path / "run.aimmd", lambda trajectory: None, learner.states)
    again = load_learner(tmp_path / "run.aimmd", learner.descriptors, learner.states)
    assert len(again.training_set) == 3


@pytest.mark.parametrize(
    "made",
    [
        lambda learner: TrainingHook("run.aimmd", learner),
        lambda learner: ProgressBar(None),
        lambda learner: CommittorSelector(learner.states),
    ],
)
def test_what_is_no_learner_is_refused(made):
    with pytest.raises(TypeError, match="takes a CommittorLearner first.*; got "):
        made(Chain().learner(seed=1))


@pytest.mark.parametrize("kind", ["own mover", "stock mover"])
def test_a_run_without_a_hook_says_at_once_that_it_does_not_learn(kind):
    chain = Chain()

    def run(hooked=False, frozen=False):
        learner = chain.learner(seed=1)
        learner.committor(chain.initial())
        if frozen:
            learner.freeze()
        scheme = chain.scheme(learner)
        if kind == "stock mover":
            scheme = paths.OneWayShootingMoveScheme(
                chain.network(), selector=CommittorSelector(learner), engine=chain.engine
            )
        sampler, _ = simulation(scheme, chain.initial(), *([TrainingHook(learner)] if hooked else []))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sampler.run(1)
            first = [str(warning.message) for warning in caught if "TrainingHook" in str(warning.message)]
            sampler.run(30)
        return first, [str(warning.message) for warning in caught if "TrainingHook" in str(warning.message)]

    first, all_of_them = run()
    assert first == all_of_them and len(first) == 1 and "ops_aimmd.resume" in first[0]
    assert run(hooked=True) == run(frozen=True) == ([], [])


@pytest.mark.parametrize("rounds, attached", [(True, False), (False, True)])
def test_many_chains_are_not_told_to_attach_their_hook(rounds, attached):
    chain = Chain()
    learner = chain.learner(seed=1)
    sampler = ParallelPathSampling(None, chain.scheme(learner), [chain.initial()] * 24, rounds=rounds)
    sampler.show_progress = False
    if attached:
        sampler.attach_hook(TrainingHook(learner))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*TrainingHook")
        sampler.run(1)
    assert len(learner.training_set) == 24


# ---- several checkpoints of one learner -----------------------------------------------------------------------------


BY_HAND = DiminishingSchedule(every=1000)
"""Never trains in these short runs."""


def learned(learner):
    """What a checkpoint must hold of a learner."""
    frames, training_set = learner.transition_path_frames, learner.training_set
    found = {
        "path counts": [path[:2] for path in frames.changes().values()],
        "paths": list(frames.changes()),
        "frames": [path[2].tolist() for path in frames.changes().values()],
        "thinned": frames.n_thinned,
        "version": learner.version.number,
        "committor": learner.model.committor(np.arange(7.0)[:, None]).tolist(),
        "shots at last fit": learner.learned.shots_at_last_fit,
        "frozen": learner.frozen,
    }
    return found | {name: getattr(training_set, name).tolist() for name in ("descriptors", "counts", "steps")}


class OneForAll(dict):
    """Takes what one checkpoint has for what all have, as it was until version 0.1.0."""

    def get(self, key, default):
        return max(self.values(), default=default)


def run_in_turns(chain, directory, recorded, capacity=100_000, n_steps=(25, 25, 25, 3)):
    """Two simulations on one learner, each with a checkpoint; what the learner had learned when each was last written."""
    learner = chain.learner(seed=1, schedule=BY_HAND)
    learner.simulations._recorded = recorded
    files = [directory / "one.aimmd", directory / "other.aimmd"]
    samplers = []
    for file, initial in zip(files, (chain.initial(), chain.path([0, 1, 2, 1, 2, 3, 4, 5, 6])), strict=True):
        samplers.append(simulation(chain.scheme(learner), initial, TrainingHook(learner, file))[0])
    live = [None, None]
    for turn, n in enumerate(n_steps):
        samplers[turn % 2].run(n)
        live[turn % 2] = learned(learner)
        if turn == 0:
            learner.fit()
        learner.transition_path_frames.capacity = capacity
    return files, live


@pytest.mark.parametrize("capacity", [100_000, 20])
def test_each_checkpoint_of_a_learner_is_complete(chain, tmp_path, capacity):
    files, live = run_in_turns(chain, tmp_path, {}, capacity)
    for file, expected in zip(files, live, strict=True):
        assert learned(load_learner(file)) == expected
    assert (live[1]["thinned"] > 0) == (capacity == 20)
    assert live[1]["version"] == 1 and len(live[1]["paths"]) > 2


def test_control_a_checkpoint_that_takes_the_other_for_itself_lacks_paths(chain, tmp_path):
    files, live = run_in_turns(chain, tmp_path, OneForAll())
    found = [learned(load_learner(file)) for file in files]
    assert all(lacking["path counts"] != expected["path counts"] for lacking, expected in zip(found, live, strict=True))
    assert [file["steps"] for file in found] == [expected["steps"] for expected in live]


def test_a_model_of_another_simulation_reaches_both_checkpoints(chain, tmp_path):
    """A version that was trained in one simulation is the one that the other goes on with."""
    learner = chain.learner(seed=1, schedule=BY_HAND)
    files = [tmp_path / "one.aimmd", tmp_path / "other.aimmd"]
    samplers = [simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner, file))[0] for file in files]
    for sampler in samplers:
        sampler.run(1)
    learner.fit()
    for file, sampler in zip(files, samplers, strict=True):
        sampler.run(1)
        with Checkpoint.open(file, read_only=True) as checkpoint:
            assert checkpoint.last_model_version == checkpoint.model_versions()[-1] == learner.version.number


@pytest.mark.parametrize("transferred", [True, False])
def test_the_transferred_start_is_in_both_checkpoints(chain, tmp_path, transferred):
    source, learner = (chain.learner(seed=seed, schedule=BY_HAND) for seed in (2, 1))
    simulation(chain.scheme(source), chain.initial(), TrainingHook(source))[0].run(4)
    source.fit()
    if transferred:
        transfer(source, learner)
    for name in ("one.aimmd", "other.aimmd"):
        simulation(chain.scheme(learner), chain.initial(), TrainingHook(learner, tmp_path / name))[0].run(2)
        assert (load_learner(tmp_path / name).learned.start is not None) == transferred

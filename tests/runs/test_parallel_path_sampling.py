"""Many chains with one learner: every chain its steps, every shot once, the same run wherever and however often it dies."""

import io
import warnings

import numpy as np
import openpathsampling as paths
import pytest
from parallel_support import (
    Counting,
    Died,
    InReverse,
    begin,
    die,
    interrupt,
    ledger,
    ledger_of,
    resume,
    simulation,
)
from resume_support import At, QuickChain
from sampling_support import Chain, Steps, breaking_chain

from ops_aimmd.analysis.series import step_table
from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.runs.parallel_path_sampling import ChainStoppedWarning, ParallelPathSampling
from ops_aimmd.runs.shots_under_way import DivergedError
from ops_aimmd.sampling.learner_checkpoint import model_version
from ops_aimmd.shooting.executors.in_this_process import InThisProcess
from ops_aimmd.shooting.shots import ShotFailure
from ops_aimmd.storage.training_hook import TrainingHook

pytestmark = pytest.mark.filterwarnings("ignore:.*unclosed:ResourceWarning")


def watched(**options):
    sampler = simulation(**options)
    steps = Steps()
    sampler.attach_hook(steps)
    return sampler, steps


def printed(scheme, steps):
    """What OPS says of the moves."""
    output = io.StringIO()
    scheme.move_summary(steps, movers="shooting", output=output)
    return output.getvalue()


@pytest.mark.parametrize("rounds", [False, True])
def test_every_chain_makes_its_steps_and_all_shots_are_learned_from(rounds):
    sampler, steps = watched(rounds=rounds)
    sampler.run(4)
    sampler.run(2)
    assert [chain.n_steps for chain in sampler.chains] == [6, 6, 6] and sampler.step == 18
    assert [step.mccycle for step in steps] == list(range(1, 19))
    training_set = sampler.learner.training_set
    assert len(training_set) == 18 and np.bincount(training_set.chains).tolist() == [6, 6, 6]
    assert len({*zip(training_set.chains, training_set.steps, strict=True)}) == 18
    assert sampler.learner.version.number >= 4


def test_a_stored_step_is_that_of_one_chain_and_ops_reads_the_file(tmp_path):
    sampler = begin(tmp_path / "run.nc")
    sampler.run(5)
    current = {int(s.replica): s.trajectory.xyz.tolist() for s in sampler.sample_set}
    sampler.storage.close()
    storage = paths.Storage(str(tmp_path / "run.nc"), "r")
    assert {s.replica for s in storage.steps[0].active} == {0, 1, 2}
    last = {}
    for step in storage.steps[1:]:
        (sample,) = step.active
        assert sample.replica == step.change.canonical.trials[0].replica
        assert [s.replica for s in step.previous] == [sample.replica]
        last[int(sample.replica)] = sample.trajectory.xyz.tolist()
    assert last == current
    table = step_table(storage.steps[1:], [storage.volumes[name] for name in "AB"])
    assert table.groupby("replica").size().tolist() == [5, 5, 5]
    (row,) = (line for line in printed(storage.schemes[0], storage.steps).splitlines() if "TwoWay" in line)
    assert "/15 (" in row
    storage.close()


def test_shots_that_come_back_in_another_order_are_accepted_with_the_version_that_picked_them(tmp_path):
    file = tmp_path / "run.nc"
    sampler = begin(file, n_chains=6, executor=InReverse())
    steps = Steps()
    sampler.attach_hook(steps)
    sampler.run(6)
    newest = 0
    overtaken = 0
    with Checkpoint.open(file.with_suffix(".aimmd"), read_only=True) as checkpoint:
        for details in steps.details:
            overtaken += details.model_version < newest
            newest = max(newest, details.model_version)
            version = model_version(checkpoint, details.model_version, sampler.learner)
            predicted = version.model.committor(details.shooting_snapshot.coordinates[:1, :1])[0]
            np.testing.assert_allclose(details.predicted_committor[1], predicted, rtol=1e-6)
    assert overtaken > 3  # or nothing was tried
    sampler.storage.close()


def test_chains_in_rounds_do_not_depend_on_the_order_of_the_shots():
    (one, in_order), (other, reverse) = watched(rounds=True), watched(rounds=True, executor=InReverse())
    free, in_turn = watched(executor=InReverse())
    for sampler in (one, other, free):
        sampler.run(8)
    assert ledger(in_order) == ledger(reverse)
    assert ledger(in_order) != ledger(in_turn)  # without rounds versions depend on it


def test_the_users_random_numbers_are_left_alone():
    sampler, _ = watched()
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    sampler.run(3)
    assert np.random.random() == expected  # noqa: NPY002


# ---- deaths ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    file = tmp_path_factory.mktemp("undisturbed") / "run.nc"
    sampler = begin(file, rounds=True)
    sampler.run(8)
    sampler.storage.close()
    return ledger_of(file)


@pytest.mark.parametrize("deaths", [[1], pytest.param([5, 4], marks=pytest.mark.slow), [9, 2, 7]])
def test_a_run_in_rounds_that_dies_with_shots_under_way_is_the_run_that_did_not(tmp_path, undisturbed, deaths):
    file = tmp_path / "run.nc"
    executor = Counting({deaths[0]: die})
    sampler = begin(file, rounds=True, executor=executor)
    executors = [executor]
    for number in [*deaths[1:], None]:
        with pytest.raises(Died):
            sampler.run_until(8)
        sampler.storage.close()
        sampler = resume(file)
        executors.append(Counting({} if number is None else {number: die}))
        sampler.executor = executors[-1]
    sampler.run_until(8)
    sampler.storage.close()
    assert ledger_of(file) == undisturbed
    runs = [shot for executor in executors for shot in executor.runs]
    assert len(runs) == len(set(runs)) == 24  # a result that was there is not made again
    with Checkpoint.open(file.with_suffix(".aimmd"), read_only=True) as checkpoint:
        assert checkpoint.journaled_shots() == {} and checkpoint.n_shots == 24


def test_without_rounds_a_shot_under_way_keeps_its_specification_and_version(tmp_path):
    file = tmp_path / "run.nc"
    sampler = begin(file, n_chains=4, executor=Counting({14: die}))
    with pytest.raises(Died):
        sampler.run(8)
    sampler.storage.close()
    with Checkpoint.open(file.with_suffix(".aimmd"), read_only=True) as checkpoint:
        journal = checkpoint.journaled_shots()
    assert len(journal) == 4
    sampler = resume(file)
    steps = Steps()
    sampler.attach_hook(steps)
    sampler.run_until(8)
    sampler.storage.close()
    assert [chain.n_steps for chain in sampler.chains] == [8] * 4 and sampler.step == 32
    first = {int(step.active.samples[0].replica): step.change.canonical.details for step in reversed(steps)}
    for noted, _ in journal.values():
        details = first[noted["chain"]]
        assert details.model_version == noted["model_version"]
        np.testing.assert_array_equal(details.shooting_snapshot.coordinates, noted["specification"]["coordinates"])
    assert min(noted["model_version"] for noted, _ in journal.values()) < sampler.learner.version.number


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    file = tmp_path / "run.nc"
    sampler = begin(file, executor=Counting({6: die}))
    with pytest.raises(Died):
        sampler.run(8)
    sampler.storage.close()
    sampler = resume(file)
    sampler.learner.seed += 1
    with pytest.raises(DivergedError, match="another shot"):
        sampler.run_until(8)
    sampler.storage.close()
    sampler = resume(file)
    sampler.run_until(3)
    sampler.storage.close()


def test_ctrl_c_ends_the_steps_that_were_begun_and_the_run_goes_on(tmp_path):
    file = tmp_path / "run.nc"

    class Elsewhere(Counting):
        def withdraw(self):
            return set()

    sampler = begin(file, executor=Elsewhere({5: interrupt}))
    with pytest.raises(KeyboardInterrupt):
        sampler.run(8)
    assert sampler.step == 4 + 3 and not sampler._under_way  # of each chain the step that it was at
    sampler.run_until(8)
    assert [chain.n_steps for chain in sampler.chains] == [8, 8, 8]
    sampler.storage.close()
    assert len(ledger_of(file)) == 25


def test_ctrl_c_in_this_process_leaves_shots_that_have_not_begun(tmp_path):
    executor = Counting({5: interrupt})
    sampler = begin(tmp_path / "run.nc", rounds=True, executor=executor)
    with pytest.raises(KeyboardInterrupt):
        sampler.run(8)
    assert sampler.step < 7 and sampler._under_way
    sampler.storage.close()
    sampler = resume(tmp_path / "run.nc")
    sampler.run_until(8)
    assert [chain.n_steps for chain in sampler.chains] == [8, 8, 8]
    sampler.storage.close()


@pytest.mark.parametrize("before_ops", [True, False])
def test_an_error_of_a_hook_or_the_disk_loses_no_step(tmp_path, undisturbed, before_ops):
    file = tmp_path / "run.nc"
    sampler = begin(file, rounds=True)
    sampler.attach_hook(At([5, 11], die, before_ops))
    for _ in range(2):
        with pytest.raises(Died):
            sampler.run_until(8)
    sampler.run_until(8)
    sampler.storage.close()
    assert ledger_of(file) == undisturbed


# ---- shots that do not end as they should ----------------------------------------------------------------------------


class Killing(InThisProcess):
    """Fails whenever a shot of chain 1 is asked for."""

    def results(self, timeout=None):
        (shot, *_) = self._waiting
        if shot.partition("/")[2].startswith("1-"):
            del self._waiting[shot]
            return [ShotFailure(shot, "all workers died", "killed_worker")]
        return super().results(timeout)


@pytest.mark.parametrize("rounds", [False, True])
def test_a_shot_that_kills_its_workers_stops_its_chain_alone(tmp_path, rounds):
    sampler = begin(tmp_path / "run.nc", rounds=rounds, executor=Killing())
    with pytest.warns(ChainStoppedWarning, match="chain 1, stopped after 0 steps: killed_worker, all workers died"):
        sampler.run(5)
    assert [chain.n_steps for chain in sampler.chains] == [5, 0, 5]
    sampler.executor = None
    sampler.run_until(5)
    assert [chain.n_steps for chain in sampler.chains] == [5, 5, 5] and sampler.step == 15
    sampler.storage.close()
    assert len(ledger_of(tmp_path / "run.nc")) == 16


def test_if_no_chain_can_go_on_that_is_an_error():
    sampler, _ = watched()
    sampler.executor = InThisProcess()
    sampler.run(1)
    state = sampler.learner.states[0]
    broken = paths.FunctionCV("broken", lambda snapshot: 1 / 0)
    state.collectivevariable = broken
    with pytest.raises(RuntimeError, match="(?s)no chain could go on.*ZeroDivisionError"):
        sampler.run(1)


def test_shots_that_break_down_or_are_too_long_are_recorded_as_rejected():
    chain = breaking_chain(0.1)
    sampler, steps = watched(chain=chain, n_chains=2)
    sampler.run(15)
    reasons = [getattr(details, "rejection_reason", None) for details in steps.details]
    assert 0 < reasons.count("nan") < 30 and sampler.step == 30
    chain = Chain(n_frames_max=8)
    sampler, steps = watched(chain=chain, n_chains=2)
    sampler.run(10)
    reasons = [getattr(details, "rejection_reason", None) for details in steps.details]
    assert reasons.count("max_length") > 3 and [c.n_steps for c in sampler.chains] == [10, 10]


# ---- what is given ---------------------------------------------------------------------------------------------------


def test_without_a_learner_chains_are_sampled_uniformly():
    chain = QuickChain()
    scheme = chain.scheme(None)
    sampler = ParallelPathSampling(None, scheme, [chain.initial(), chain.initial()])
    sampler.run(3)
    assert sampler.learner is None and [c.n_steps for c in sampler.chains] == [3, 3]


def test_what_cannot_be_run_is_refused():
    chain = QuickChain()
    scheme = chain.scheme(None)
    with pytest.raises(ValueError, match="list with the initial conditions of each chain.*Trajectory"):
        ParallelPathSampling(None, scheme, chain.initial())
    with pytest.raises(ValueError, match="got nothing"):
        ParallelPathSampling(None, scheme, [])
    stock = paths.OneWayShootingMoveScheme(chain.network(), engine=chain.engine)
    with pytest.raises(ValueError, match="only the shooting moves of ops_aimmd"):
        ParallelPathSampling(None, stock, [chain.initial()])


def test_a_run_without_seed_goes_on_with_the_seed_that_was_drawn(tmp_path):
    file = tmp_path / "run.nc"
    sampler = begin(file, seed=None, executor=Counting({6: die}))
    with pytest.raises(Died):
        sampler.run(4)
    sampler.storage.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = resume(file)
        sampler.run_until(4)  # a new seed would ask for other shots
    sampler.storage.close()
    assert sampler.step == 12


def test_a_checkpoint_that_nobody_would_write_is_refused(tmp_path):
    chain = QuickChain()
    sampler = ParallelPathSampling(None, chain.scheme(None), [chain.initial()], checkpoint=tmp_path / "run.aimmd")
    with pytest.raises(ValueError, match="the scheme has no learner"):
        sampler.run(1)
    sampler = simulation(checkpoint=tmp_path / "run.aimmd")
    sampler.attach_hook(TrainingHook(sampler.learner, tmp_path / "other.aimmd"))
    with pytest.raises(ValueError, match="nothing would be written to .*run.aimmd.*another one"):
        sampler.run(1)
    assert not list(tmp_path.iterdir())


def test_what_ops_offers_for_one_chain_is_refused():
    sampler, _ = watched()
    for call in (
        lambda: sampler.run_one_step((0, 1)),
        lambda: sampler.run_until_n_accepted(3),
        lambda: sampler.restart_at_step(None),
    ):
        with pytest.raises(NotImplementedError):
            call()
    for wrong in ("3", 1.5, True, -1, None):
        with pytest.raises(ValueError, match="number of steps of each chain must be an integer"):
            sampler.run(wrong)
    sampler.run(0)
    assert sampler.step == 0


def test_wrong_kinds_are_found_when_the_run_is_made(tmp_path):
    chain = QuickChain()
    scheme, initial = chain.scheme(None), chain.initial()
    for wrong, error in (("4", TypeError), (0, ValueError), (2.0, TypeError), (True, TypeError)):
        with pytest.raises(error):
            ParallelPathSampling(None, scheme, [initial], executor=wrong)
    with pytest.raises(TypeError, match="storage is an open storage"):
        ParallelPathSampling("run.nc", scheme, [initial])
    for wrong in ("abc", 4):
        with pytest.raises(ValueError, match="are a list with the initial conditions"):
            ParallelPathSampling(None, scheme, wrong)
    with pytest.raises(ValueError, match="initial conditions 1 are no SampleSet"):
        ParallelPathSampling(None, scheme, [initial, "a"])
    with pytest.raises(ValueError, match="initial conditions 1: no path for 1 ensemble"):
        ParallelPathSampling(None, scheme, [initial, chain.path([0, 1, 2])])
    with pytest.raises(ValueError, match="there is no chain"):
        ParallelPathSampling(None).run(1)


def test_two_runs_on_one_executor_do_not_take_each_others_shots():
    """The first is left at once with shots under way; the second runs, and throws their results away."""

    def leave():
        raise KeyboardInterrupt

    executor = Counting({2: leave})
    (first, of_first), (second, of_second) = (watched(rounds=True, seed=seed, executor=executor) for seed in (7, 8))
    with pytest.raises(KeyboardInterrupt):
        first.run(2)
    second.run(2)
    first.run_until(2)
    for steps, seed in ((of_first, 7), (of_second, 8)):
        alone, expected = watched(rounds=True, seed=seed)
        alone.run(2)
        assert ledger(steps) == ledger(expected)

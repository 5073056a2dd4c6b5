"""Committor simulations on executors: each shot once, the same outcomes wherever and however often it was interrupted."""

import numpy as np
import openpathsampling as paths
import pytest
from parallel_support import Counting, Died, InReverse, die, interrupt, refuse
from sampling_support import Chain, breaking_chain, publish
from shots_support import specs
from test_committor_simulation import AGREES, DISAGREES, INNER, chi_square, exact, learner_of, same

import ops_aimmd
from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.runs import committor_simulation as module
from ops_aimmd.runs.committor_simulation import NOT_YET, CommittorSimulation, committor_simulation
from ops_aimmd.shooting.executors.base import SHOTS_PER_WORKER
from ops_aimmd.shooting.executors.choose import InThisProcess
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide


def shoot(chain, executor, sites=INNER, n_shots=10, **options):
    """Committor simulation from sites of a chain; frames of a chain have no velocities."""
    options = {"modifier": paths.NoModification(as_copy=True), "seed": 1, "progress": False, **options}
    return committor_simulation(
        list(chain.path(sites)), learner_of(chain), chain.engine, n_shots, executor=executor, **options
    )


@pytest.fixture(scope="module")
def undisturbed():
    return shoot(Chain(), InThisProcess())


def shots_on_disk(file):
    """Outcomes from each configuration, in the order of the shots."""
    with Checkpoint.open(file, read_only=True) as opened:
        return [opened.state(key).tolist() for key in opened.state_keys()]


# ---- counts ----------------------------------------------------------------------------------------------------------


def test_counts_are_those_of_the_exact_committor():
    chain = Chain()
    result = shoot(chain, InThisProcess(), n_shots=300)
    assert np.all(result.counts.sum(axis=1) == 300) and not result.unfinished.any()
    assert chi_square(result.counts, exact(chain)[INNER]) < AGREES
    assert chi_square(result.counts, np.array(INNER) / 6) > DISAGREES  # the control: a chain of equal links


def test_the_order_of_results_makes_no_difference(undisturbed):
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    assert same(shoot(Chain(), InReverse()), undisturbed)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    assert not same(shoot(Chain(), InReverse(), seed=2), undisturbed)  # the control


def test_processes_give_the_same_outcomes(spawned, undisturbed):
    assert same(shoot(Chain(), spawned), undisturbed)


def test_without_an_executor_the_outcomes_are_the_same(undisturbed):
    assert same(shoot(Chain(), None), undisturbed)


def test_molecules_in_processes_give_the_same_outcomes(spawned):
    system = alanine_dipeptide()
    learner = ops_aimmd.CommittorLearner(system.descriptors, system.states, seed=1)
    path = system.initial_trajectory(4)
    learner.committor(path)
    points = [path[len(path) // 3], path[2 * len(path) // 3]]
    here, there = (
        committor_simulation(points, learner, system.engine, 2, seed=1, progress=False, executor=executor)
        for executor in (InThisProcess(), spawned)
    )
    assert same(here, there) and np.all(here.counts.sum(axis=1) + here.unfinished == 2)


@pytest.mark.parametrize("executor", [None, InThisProcess()])
def test_warnings_point_to_whoever_calls(tmp_path, executor):
    chain = Chain()
    learner = learner_of(chain)
    options = {"modifier": paths.NoModification(as_copy=True), "progress": False, "checkpoint": tmp_path / "shots.aimmd"}
    points = list(chain.path(INNER))
    committor_simulation(points, learner, chain.engine, 1, executor=executor, **options)
    publish(learner, np.linspace(-1, 1, 7))
    with pytest.warns(UserWarning, match="the model has changed") as caught:
        committor_simulation(points, learner, chain.engine, 2, executor=executor, **options)
    assert caught[0].filename == __file__


def test_shots_without_an_outcome_are_counted_apart():
    chain = Chain()
    short = shoot(chain, InReverse(), n_shots=200, max_length=10)
    survive = np.linalg.matrix_power(chain.engine.transition_matrix[1:-1, 1:-1], 9).sum(axis=1)
    assert chi_square(np.stack([200 - short.too_long, short.too_long], axis=1), survive) < AGREES
    assert short.max_length == 10 and not short.broken_down.any()
    broken = shoot(breaking_chain(0.05), InReverse())
    assert broken.broken_down.sum() > 5 and not broken.too_long.any()
    assert np.all(broken.counts.sum(axis=1) + broken.broken_down == 10)


# ---- interruptions ---------------------------------------------------------------------------------------------------


class Dying(Counting, InReverse):
    """Gives results back in reverse order, and dies or is interrupted now and then."""


def test_a_simulation_that_dies_again_and_again_makes_each_shot_once(tmp_path, undisturbed):
    file, runs = tmp_path / "shots.aimmd", []
    while True:
        executor = Dying({8: die})  # seven results, and death while others are under way
        try:
            result = shoot(Chain(), executor, checkpoint=file)
        except Died:
            runs.append(sum(executor.runs.values()))
            assert CommittorSimulation.load(file).counts.sum() == sum(runs)
        else:
            break
    assert runs == [7] * 7 and sum(executor.runs.values()) == 1
    assert same(result, undisturbed) and same(CommittorSimulation.load(file), undisturbed)


def test_shots_that_overtook_others_are_on_disk(tmp_path, undisturbed):
    file = tmp_path / "shots.aimmd"
    with pytest.raises(Died):
        shoot(Chain(), Dying({4: die}), sites=[3], checkpoint=file)
    (made,) = shots_on_disk(file)
    assert made[0] == NOT_YET and NOT_YET not in made[1:] and len(made) == 4
    assert CommittorSimulation.load(file).counts.sum() == 3
    result = shoot(Chain(), None, sites=[3], checkpoint=file)  # in another way of making shots, the gaps are filled
    (whole,) = shots_on_disk(file)
    assert whole[1:4] == made[1:] and NOT_YET not in whole and len(whole) == 10
    assert result.counts.sum() == 10


def test_more_shots_later_on_another_executor(tmp_path, undisturbed):
    file = tmp_path / "shots.aimmd"
    shoot(Chain(), None, n_shots=4, checkpoint=file)
    first = shots_on_disk(file)
    executor = Counting({})
    assert shoot(Chain(), executor, checkpoint=file).counts.sum() == 50
    assert len(executor.runs) == 30 and set(executor.runs.values()) == {1}
    assert [made[:4] for made in shots_on_disk(file)] == first
    shoot(Chain(), InThisProcess(), n_shots=4, checkpoint=tmp_path / "other.aimmd")
    assert same(shoot(Chain(), InReverse(), checkpoint=tmp_path / "other.aimmd"), undisturbed)
    nothing = Counting({})
    assert same(shoot(Chain(), nothing, checkpoint=tmp_path / "other.aimmd"), undisturbed) and not nothing.runs


def test_ctrl_c_keeps_what_was_made_and_leaves_the_executor_as_it_was(tmp_path, undisturbed):
    file, executor = tmp_path / "shots.aimmd", Counting({5: interrupt})
    with pytest.raises(KeyboardInterrupt):
        shoot(Chain(), executor, checkpoint=file)
    assert executor.n_results == 5 and executor.results() == []
    assert CommittorSimulation.load(file).counts.sum() == 5
    executor.actions = {}
    assert same(shoot(Chain(), executor, checkpoint=file), undisturbed)
    assert len(executor.runs) == 50 and set(executor.runs.values()) == {1}


def test_without_a_seed_a_shot_is_run_again_as_it_was(tmp_path):
    """Long shots are interrupted most: if they were drawn again, short ones would be too many."""
    file = tmp_path / "shots.aimmd"
    with pytest.raises(Died):
        shoot(Chain(), Dying({20: die}), seed=None, checkpoint=file)
    with Checkpoint.open(file, read_only=True) as opened:
        drawn = int(opened.file(module.SEED_FILE))
    result = shoot(Chain(), InThisProcess(), seed=None, checkpoint=file)
    assert same(result, shoot(Chain(), InThisProcess(), seed=drawn))
    assert not same(result, shoot(Chain(), InThisProcess(), seed=None))  # the control: another call draws another seed


# ---- shots that cannot be run ----------------------------------------------------------------------------------------


def test_all_other_shots_are_made_before_the_error(tmp_path, undisturbed):
    file = tmp_path / "shots.aimmd"
    with pytest.raises(RuntimeError, match="from 1 configurations .*\nconfiguration 2: killed_worker, three workers died"):
        shoot(Chain(), refuse(InThisProcess(), "/2-2", "three workers died", "killed_worker"), checkpoint=file)
    kept = [len(made) - made.count(NOT_YET) for made in shots_on_disk(file)]
    assert kept[:2] + kept[3:] == [10] * 4 and kept[2] in (2, 3)
    assert same(shoot(Chain(), Counting({}), checkpoint=file), undisturbed)


def test_an_error_of_a_state_is_told():
    chain = breaking_chain(0.01, error=LookupError("no such angle"))
    with pytest.raises(RuntimeError, match="error, LookupError: no such angle"):
        shoot(chain, InThisProcess())


def test_few_shots_are_under_way_at_a_time():
    class Watched(InThisProcess):
        most = 0

        def submit(self, spec):
            super().submit(spec)
            self.most = max(self.most, len(self._waiting))

    executor = Watched()
    shoot(Chain(), executor)
    assert executor.most == SHOTS_PER_WORKER


def test_shots_of_others_are_left_out(undisturbed):
    chain, executor = Chain(), InThisProcess()
    chain.point = chain.path([3])[0]
    key = executor.start(chain.engine, chain.states)
    for spec in specs(chain, key, 3):
        executor.submit(spec)
    assert same(shoot(chain, executor), undisturbed)


def test_wrong_arguments_are_found_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match=r"configurations \[0\] lie in states"):
        shoot(Chain(), InThisProcess(), sites=[0, 3], checkpoint=tmp_path / "shots.aimmd")
    assert not (tmp_path / "shots.aimmd").exists()
    with pytest.raises(TypeError, match="an executor is None"):
        shoot(Chain(), "cluster")

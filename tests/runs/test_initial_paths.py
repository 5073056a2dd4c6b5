"""Many climbs at once: the same paths wherever their shots run, the channels they show, what is said of failures."""

import numpy as np
import openpathsampling as paths
import pytest
from parallel_support import Counting, InReverse, interrupt, refuse
from shots_support import Walk, site_of, specs
from test_initial_path import start_in_A, towards_B

from ops_aimmd.committor.clusters import SMALLEST
from ops_aimmd.runs.initial_paths import InitialPaths, initial_paths
from ops_aimmd.runs.parallel_path_sampling import ParallelPathSampling
from ops_aimmd.sampling.schemes import CommittorShootingScheme
from ops_aimmd.shooting.executors.choose import InThisProcess
from ops_aimmd.systems import toy
from ops_aimmd.systems.markov_chain import MarkovChainEngine, reversible_transition_matrix

pytestmark = pytest.mark.filterwarnings("error::UserWarning")


@pytest.fixture(scope="module")
def system():
    return toy.wolfe_quapp(temperature=2.5)


def found(system, n=4, **options):
    options = {"progress": towards_B(system), "seed": 1, "show_progress": False, **options}
    return initial_paths(n, start_in_A(system), states=system.states, **options)


@pytest.fixture(scope="module")
def four(system):
    return found(system)


def same(some, others):
    return len(some) == len(others) and all(np.array_equal(a.xyz, b.xyz) for a, b in zip(some, others, strict=True))


def walk_paths(walk, n=3, **options):
    """On a line, where frames have no velocities, from the first site."""
    options = {"seed": 2, "show_progress": False, "modifier": paths.NoModification(as_copy=True), **options}
    return initial_paths(n, walk.engine.trajectory([0])[0], site_of, walk.states, **options)


# ---- what they are ---------------------------------------------------------------------------------------------------


def test_they_are_transition_paths_of_their_own(system, four):
    (ensemble,) = system.network().sampling_ensembles
    assert all(ensemble(path) for path in four)
    assert not any(ensemble(path[1:]) for path in four)  # the control
    assert len({frame.xyz.tobytes() for path in four for frame in path}) == four.lengths.sum()
    assert len({frame.__uuid__ for path in four for frame in path}) == four.lengths.sum()
    assert all(frame.engine is system.engine for path in four for frame in path)
    steps = [np.linalg.norm(np.diff(path.xyz[:, 0], axis=0), axis=1) for path in four]
    assert max(step.max() for step in steps) < 6 * np.median(np.concatenate(steps))  # no gap where the legs meet


def test_chains_begin_with_them(system, four):
    scheme = CommittorShootingScheme(system.network(), engine=system.engine, selector=paths.UniformSelector())
    sampler = ParallelPathSampling(None, scheme, four)
    assert same([chain.samples.samples[0].trajectory for chain in sampler.chains], four)


# ---- where they were made makes no difference ------------------------------------------------------------------------


def test_the_seed_alone_decides(system, four):
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    reversed_order = found(system, executor=InReverse())
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    assert same(four, reversed_order)
    assert not same(four, found(system, seed=2))  # the control
    assert same(four[:2], found(system, n=2))


def test_processes_make_the_same_paths(system, four, spawned):
    assert same(four, found(system, executor=spawned))


def test_without_a_seed_they_differ(system):
    assert not same(found(system, n=1, seed=None), found(system, n=1, seed=None))


# ---- channels --------------------------------------------------------------------------------------------------------


class Ring:
    """A random walk on 40 sites in a circle, with states at opposite ones: half of the transition paths go either way."""

    n_sites = 40

    def __init__(self):
        neighbours = np.roll(np.eye(self.n_sites), 1, axis=1)
        self.engine = MarkovChainEngine(
            reversible_transition_matrix(neighbours + neighbours.T), options={"n_frames_max": 20_000}
        )
        cv = paths.FunctionCV("site on the ring", site_of)
        self.states = [paths.CVDefinedVolume(cv, s - 0.5, s + 0.5).named(f"site {s}") for s in (0, self.n_sites // 2)]

    def found(self, n, **options):
        options = {"descriptors": self.place, "seed": 1, "show_progress": False, "progress": self.progress, **options}
        modifier = paths.NoModification(as_copy=True)
        start = self.engine.trajectory([0])[0]
        return initial_paths(n, start, states=self.states, modifier=modifier, **options)

    def progress(self, snapshot):
        return min(site_of(snapshot), self.n_sites - site_of(snapshot))

    def place(self, trajectory):
        angle = 2 * np.pi * trajectory.xyz[:, 0, 0] / self.n_sites
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_both_channels_are_seen_where_both_are_taken():
    """Of 12 paths fewer than 3 go one way in 4 % of such runs."""
    ring = Ring()
    twelve = ring.found(12)
    left = np.array([site_of(path[-2]) < site_of(path[-1]) for path in twelve])
    assert SMALLEST <= left.sum() <= 12 - SMALLEST
    assert twelve.n_channels == 2 and "take 2 channels, with" in str(twelve)
    assert len(set(twelve.channels[left])) == len(set(twelve.channels[~left])) == 1
    assert np.allclose(twelve.halfway, np.where(left, 1.0, -1.0)[:, None] * [0, 1])
    assert f"of {twelve.lengths.min()} to {twelve.lengths.max()} frames" in str(twelve)
    same_way = ring.found(12, descriptors=lambda trajectory: ring.place(trajectory)[:, :1])  # the control: it cannot tell
    assert same(same_way, twelve) and same_way.n_channels == 1
    assert "no two channels can be told apart" in str(same_way) and "where 12 paths need 12.0." in str(same_way)


def test_functions_of_progress_take_turns(system):
    """Leftwards and rightwards lie different channels of this potential; half-way is told by the first function."""
    left, right = (lambda frame: -frame.xyz[0, 0] - frame.xyz[0, 1]), (lambda frame: frame.xyz[0, 0] - frame.xyz[0, 1])
    by_turns = found(system, progress=[left, right], descriptors=system.descriptors)
    only_left, only_right = found(system, progress=left), found(system, progress=right)
    assert same(by_turns, [only_left[0], only_right[1], only_left[2], only_right[3]])
    assert not same(by_turns, only_left) and not same(by_turns, only_right)  # the control
    assert np.ptp(by_turns.halfway.sum(axis=1)) < 0.1 < np.ptp(by_turns.halfway[:, 1])


def test_what_cannot_be_known_is_said():
    ring = Ring()
    without = ring.found(6, descriptors=None)
    assert without.channels is without.n_channels is without.halfway is None
    few = ring.found(5)
    assert few.channels is None and few.halfway.shape == (5, 2)
    assert "is not known" in str(without) and "is not known" in str(few)
    broken = ring.found(6, descriptors=lambda trajectory: np.where(trajectory.xyz[:, 0, 0] == 0, 0.0, np.nan))
    assert len(broken) == 6 and broken.channels is None
    assert str(InitialPaths()) == "no paths"


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_climbs_that_find_no_path_are_named():
    walk = Walk()
    everything = walk_paths(walk, n=8)
    with pytest.warns(UserWarning, match=r"only \d of 8 initial paths were found") as caught:
        some = walk_paths(walk, n=8, n_shots=4)
    (warning,) = (one for one in caught if "initial paths were found" in str(one.message))
    text = str(warning.message)
    missing = [number for number in range(8) if f"climb {number}: 4 shots gave no path" in text]
    assert warning.filename == __file__
    assert 0 < len(missing) < 8
    assert same(some, [path for number, path in enumerate(everything) if number not in missing])


def test_no_path_at_all_is_an_error():
    with pytest.raises(RuntimeError, match=r"none of 3 climbs found a path.\nclimb 0: 1 shots gave no path .* came from"):
        walk_paths(Walk(), n_shots=1)
    system = toy.wolfe_quapp(n_frames_max=2)
    with pytest.raises(RuntimeError, match="climb 1: the dynamics .* did not leave the state within 2 frames"):
        found(system, n=2)


def test_a_shot_that_cannot_be_run_ends_its_own_climb():
    walk = Walk()
    whole = walk_paths(walk)
    with pytest.warns(UserWarning, match=r"only 2 of 3 initial paths were found.\nclimb 1: error, no such angle"):
        two = walk_paths(walk, executor=refuse(InReverse(), "/1-3", "no such angle", "error"))
    assert same(two, [whole[0], whole[2]])


def test_ctrl_c_leaves_the_executor_as_it_was():
    walk, executor = Walk(), Counting({4: interrupt})
    with pytest.raises(KeyboardInterrupt):
        walk_paths(walk, executor=executor)
    assert executor.n_results == 4 and executor.results() == []
    executor.actions = {}
    assert same(walk_paths(walk, executor=executor), walk_paths(walk))


def test_shots_of_others_are_left_out():
    walk, executor = Walk(), InThisProcess()
    key = executor.start(walk.engine, walk.states)
    for spec in specs(walk, key, 2):
        executor.submit(spec)
    assert same(walk_paths(walk, executor=executor), walk_paths(walk))


def test_wrong_arguments():
    walk = Walk()
    with pytest.raises(ValueError, match="n must be a positive integer; got 0"):
        walk_paths(walk, n=0)
    with pytest.raises(ValueError, match="n_shots must be a positive integer; got 1.5"):
        walk_paths(walk, n_shots=1.5)
    with pytest.raises(ValueError, match="seed must be a non-negative integer or None; got -1"):
        walk_paths(walk, seed=-1)
    with pytest.raises(TypeError, match="an executor is None"):
        walk_paths(walk, executor="cluster")
    for progress, match in (
        ([], "progress must be a function"),
        ("distance", "progress must be a function.*'distance'"),
        (lambda snapshot: "far", "must give one number for a snapshot; got 'far'"),
    ):
        with pytest.raises(ValueError, match=match):
            initial_paths(3, walk.point, progress, walk.states)
    with pytest.raises(ValueError, match="a trajectory of 2 frames: give one of them"):
        initial_paths(3, paths.Trajectory([walk.point] * 2), len, walk.states)
    with pytest.raises(ValueError, match="must be an openpathsampling snapshot; got NoneType"):
        initial_paths(3, None, len, walk.states)
    with pytest.raises(ValueError, match="two openpathsampling volumes; got 'A to B'"):
        initial_paths(3, walk.point, len, "A to B")
    walk.states = walk.states[:1]
    with pytest.raises(ValueError, match="got 1 states, expected two"):
        walk_paths(walk)

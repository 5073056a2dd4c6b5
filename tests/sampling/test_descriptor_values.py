"""What collective variables and functions may return, and what is said of the rest."""

import mdtraj
import numpy as np
import openpathsampling as paths
import pytest
import torch
from openmm import unit
from sampling_support import Chain, site_descriptors, site_of

from ops_aimmd import CommittorLearner
from ops_aimmd.sampling.collective_variables import evaluate_descriptors
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide


@pytest.fixture
def chain():
    return Chain()


def evaluate(descriptors, chain, sites):
    return evaluate_descriptors(descriptors, chain.path(sites))


# ---- numbers in all shapes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_frames", [1, 2, 3])
@pytest.mark.parametrize(
    "of_frame, expected",
    [
        (lambda s: int(site_of(s)), [4]),
        (lambda s: bool(site_of(s)), [1]),
        (lambda s: [site_of(s), 2], [4, 2]),
        (lambda s: (site_of(s), 2), [4, 2]),
        (lambda s: np.float32(site_of(s)), [4]),
        (lambda s: np.array([site_of(s)]), [4]),
        (lambda s: np.array([[site_of(s), 1.0], [2.0, 3.0]]), [4, 1, 2, 3]),
        (lambda s: torch.tensor([site_of(s), 2.0], requires_grad=False), [4, 2]),
        (lambda s: site_of(s) * unit.angstrom, [4]),
        (lambda s: np.array([site_of(s), 2.0]) * unit.angstrom, [4, 2]),
    ],
    ids=["int", "bool", "list", "tuple", "float32", "(1,)", "(2, 2)", "tensor", "unit", "array with unit"],
)
def test_what_a_collective_variable_returns_for_a_frame(chain, of_frame, expected, n_frames):
    values = evaluate(paths.FunctionCV("cv", of_frame), chain, [4] * n_frames)
    assert values.dtype == np.float64 and values.tolist() == [expected] * n_frames


@pytest.mark.parametrize("n_frames", [1, 2, 3])
@pytest.mark.parametrize(
    "of_path",
    [
        lambda p: site_descriptors(p).astype(int),
        lambda p: site_descriptors(p)[:, 0],
        lambda p: np.squeeze(site_descriptors(p)),
        lambda p: site_descriptors(p).tolist(),
        lambda p: torch.tensor(site_descriptors(p), requires_grad=True),
        lambda p: site_descriptors(p) * unit.degree,
        lambda p: [site_of(frame) * unit.degree for frame in p],
    ],
    ids=["int", "(n,)", "squeezed", "lists", "tensor with gradient", "unit", "numbers with units"],
)
def test_what_a_function_returns_for_a_path(chain, of_path, n_frames):
    assert evaluate(of_path, chain, [4, 5, 6][:n_frames]).tolist() == [[4], [5], [6]][:n_frames]
    squeezed_vector = evaluate(lambda p: np.squeeze(np.repeat(site_descriptors(p), 3, axis=1)), chain, [4])
    assert squeezed_vector.tolist() == [[4, 4, 4]]


def test_values_in_several_units_are_in_the_first(chain):
    values = evaluate(lambda p: [1.0 * unit.angstrom, 1.0 * unit.nanometer], chain, [1, 2])
    np.testing.assert_allclose(values, [[1.0], [10.0]])
    with pytest.raises(ValueError, match="did not return numbers"):
        evaluate(lambda p: [1.0 * unit.angstrom, 1.0 * unit.degree], chain, [1, 2])


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda p: [1.0, None], r"None among the values \(number \[1\]\)"),
        (lambda p: None, "None among the values"),
        (lambda p: ["1.0", "2.0"], "did not return numbers"),
        (lambda p: [1j, 2j], "did not return numbers"),
        (lambda p: [[1.0], [1.0, 2.0]], "did not return numbers, the same count for each frame"),
        (lambda p: np.zeros((3, 2)), r"= \(2, ...\).* got shape \(3, 2\)"),
        (lambda p: np.zeros((1, 2)), r"= \(2, ...\).* got shape \(1, 2\)"),
        (lambda p: 1.0, r"got shape \(\)"),
    ],
)
def test_what_is_no_number_per_frame(chain, wrong, message):
    with pytest.raises(ValueError, match=message):
        evaluate(wrong, chain, [1, 2])


def test_nan_is_left_to_those_who_use_it(chain):
    assert np.isnan(evaluate(lambda p: [np.nan, 1.0], chain, [1, 2])[0, 0])


# ---- a single frame -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alanine():
    return alanine_dipeptide(platform="Reference")


def molecules(alanine, n_frames):
    positions = alanine.positions + 0.01 * np.random.default_rng(3).normal(size=(n_frames, 22, 3))
    velocities = np.zeros((22, 3)) * unit.nanometer / unit.picosecond
    return paths.Trajectory(
        [
            paths.engines.openmm.Snapshot.construct(x * unit.nanometer, None, velocities, engine=alanine.engine)
            for x in positions
        ]
    )


def test_an_mdtraj_function_of_shape_n(alanine):
    """OPS makes a number of the array of a frame that is the only one it does not know."""
    trajectory = molecules(alanine, 4)
    cv = paths.MDTrajFunctionCV("gyration", lambda t: mdtraj.compute_rg(t), alanine.engine.topology)
    with pytest.raises(TypeError, match="0-d"):  # the control: today's OPS
        cv(molecules(alanine, 1))
    expected = mdtraj.compute_rg(trajectory.to_mdtraj())
    learner = CommittorLearner(cv, alanine.states, seed=1)
    np.testing.assert_allclose(learner.evaluate_descriptors(trajectory[:3])[:, 0], expected[:3])
    np.testing.assert_allclose(learner.evaluate_descriptors(trajectory)[:, 0], expected)  # one is not in the cache
    one = molecules(alanine, 1)
    assert learner.evaluate_descriptors(one).shape == (1, 1) and learner.committor(one).shape == (1,)


@pytest.mark.parametrize("returns", [list, lambda rg: 1], ids=["list", "int"])
def test_an_mdtraj_function_that_returns_no_array(alanine, returns):
    cv = paths.MDTrajFunctionCV("gyration", lambda t: returns(mdtraj.compute_rg(t)), alanine.engine.topology)
    with pytest.raises(ValueError, match="collective variable 'gyration' must return a numpy array"):
        evaluate_descriptors(cv, molecules(alanine, 2))


@pytest.mark.parametrize("descriptors", [site_descriptors, "cv"])
def test_a_snapshot_is_a_trajectory_of_one_frame(chain, descriptors):
    learner = CommittorLearner(chain.site if descriptors == "cv" else descriptors, chain.states, seed=1)
    path = chain.initial()
    whole = learner.committor(path)
    for one in (path[3], path[3:4], [path[3]]):
        assert learner.committor(one).shape == learner.reaction_coordinate(one).shape == (1,)
        assert learner.committor(one) == whole[3]
    with pytest.raises(TypeError, match=r"trajectory or snapshot; got ndarray.*learner.model.committor\(x\)"):
        learner.committor(np.zeros((3, 1)))


# ---- the first path -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda p: site_descriptors(p) - site_descriptors(p)[0], "depends on the other frames"),
        (lambda p: site_descriptors(p) - site_descriptors(p).mean(), "depends on the other frames"),
        (lambda p: np.cumsum(site_descriptors(p), axis=0), "depends on the other frames"),
        (lambda p: np.hstack([site_descriptors(p)] * min(2, len(p))), "gives 1 values per frame for 1 frame"),
        (lambda p: np.ones(7), r"for 1 frame\(s\) of a trajectory of 7|gives 7 values per frame for 1 frame"),
        (lambda p: np.ones((7, 2)), r"for 1 frame\(s\) of a trajectory of 7.*got shape \(7, 2\)"),
    ],
    ids=["first frame", "mean", "sum", "width", "length (n,)", "length (n, d)"],
)
def test_descriptors_that_depend_on_other_frames_are_found_on_the_first_path(chain, wrong, message):
    with pytest.raises(ValueError, match=message):
        CommittorLearner(wrong, chain.states, seed=1).path_frames(chain.initial())


def test_a_collective_variable_that_squeezes_is_found_though_its_values_are_known(chain):
    cv = paths.FunctionCV("cv", lambda frames: _centred(frames), cv_requires_lists=True)
    path = chain.initial()
    cv(path)  # in its cache
    with pytest.raises(ValueError, match="depends on the other frames"):
        CommittorLearner(cv, chain.states, seed=1).path_frames(path)


def _centred(frames):
    sites = np.array([site_of(frame) for frame in frames])
    return sites - sites[0]


def test_rounding_is_no_disagreement(chain):
    """Single precision, and angles near their end, where it makes a whole turn."""

    def rounded(path):
        angles = np.where(site_descriptors(path) < 3, np.pi - 1e-7, -1.0)
        noise = 1e-6 * len(path)  # another order of operations
        angles = (angles + noise + np.pi) % (2 * np.pi) - np.pi
        at_ends = np.where(site_descriptors(path) % 6 == 0, np.nan, 1.0 + noise)  # descriptors of states may be undefined
        return np.hstack([angles, at_ends, np.full_like(angles, np.inf)])[:, :columns]

    columns = 2
    learner = CommittorLearner(rounded, chain.states, seed=1)
    assert learner.path_frames(chain.initial()).descriptors.shape == (7, 2)
    columns = 3
    with pytest.raises(ValueError, match=r"infinite in frames \[1, 2, 3, 4, 5\]"):
        CommittorLearner(rounded, chain.states, seed=1).path_frames(chain.initial())

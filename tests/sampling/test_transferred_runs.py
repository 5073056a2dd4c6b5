"""A learner of another system starts a new one, over names of descriptors, checkpoints and resumed runs."""

import numpy as np
import openpathsampling as paths
import pytest
from sampling_support import Chain, QuickChain, seed_everything, simulation

import ops_aimmd
from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.committor.training_set import TrainingSet
from ops_aimmd.committor.transferred_start import SLOPE
from ops_aimmd.descriptors.internal import InternalCoordinates
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.learner_checkpoint import TRANSFERRED, create_checkpoint, load_learner, record_step
from ops_aimmd.sampling.transfer import transfer
from ops_aimmd.storage.training_hook import TrainingHook
from ops_aimmd.systems.descriptor_cv import DescriptorCV

SITES = np.arange(7.0)[:, None]


@pytest.fixture
def chain():
    return QuickChain()


def shots(n_descriptors, n=30, seed=0):
    """The first descriptor decides, the others do nothing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, n_descriptors))
    hits = rng.binomial(2, 1 / (1 + np.exp(-3 * x[:, 0])))
    return TrainingSet(x, np.stack([2 - hits, hits], axis=1))


def named(chain, *angles, training_set=None):
    """A learner whose descriptors are called "phi sin", "phi cos" for each angle."""
    coordinates = InternalCoordinates(dihedrals={name: [0, 1, 2, 3] for name in angles})
    return CommittorLearner([DescriptorCV("angles", coordinates)], chain.states, seed=1, training_set=training_set)


@pytest.fixture
def source(chain):
    """Trained, of "phi" and "psi"."""
    learner = named(chain, "phi", "psi", training_set=shots(4))
    learner.fit()
    return learner


def test_descriptors_are_matched_by_name(chain, source):
    learner = named(chain, "psi", "phi")
    transfer(source, learner)
    x = shots(4).descriptors
    expected = SLOPE * source.model.reaction_coordinate(x)
    np.testing.assert_allclose(learner.model.reaction_coordinate(x[:, [2, 3, 0, 1]]), expected, atol=1e-5)
    assert np.ptp(expected) > 1
    assert len(learner.training_set) == 0 and learner.version.number == 0
    assert source.version.number == 1


def test_what_is_only_on_one_side_is_told(chain, source):
    learner = named(chain, "phi", "omega")
    with pytest.warns(UserWarning, match="2 of 4 .*'omega sin'.*'psi sin'"):
        columns = transfer(source, learner)
    assert columns.columns == (0, 1, -1, -1)
    renamed = named(chain, "phi", "omega")
    assert transfer(source, renamed, rename={"psi": "omega"}).columns == (0, 1, 2, 3)


def test_the_names_are_in_the_checkpoint(chain, source, tmp_path):
    with create_checkpoint(tmp_path / "source.aimmd", source) as checkpoint:
        record_step(checkpoint, source, 0)
    learner = named(chain, "psi", "phi")
    transfer(tmp_path / "source.aimmd", learner)
    x = shots(4).descriptors
    expected = SLOPE * source.model.reaction_coordinate(x)
    np.testing.assert_allclose(learner.model.reaction_coordinate(x[:, [2, 3, 0, 1]]), expected, atol=1e-5)


def test_without_names_the_order_counts(chain, source):
    learner = chain.learner(seed=1)
    with pytest.raises(ValueError, match="4 descriptors, the learner 1.*DescriptorCV"):
        learner.committor(chain.initial())  # the number of descriptors is known from the first path on
        transfer(source, learner)
    learner = CommittorLearner(lambda trajectory: np.zeros((len(trajectory), 4)), chain.states, seed=1)
    assert transfer(source, learner).columns == (0, 1, 2, 3)
    with pytest.raises(ValueError, match="rename needs names on both sides"):
        transfer(source, chain.learner(seed=1), rename={"phi": "psi"})


def test_what_cannot_be_transferred(chain, source):
    with pytest.raises(ValueError, match="not been trained"):
        transfer(named(chain, "phi"), named(chain, "phi"))
    three = Chain(with_middle_state=True)
    with pytest.raises(ValueError, match="source knows 2 states, the learner 3"):
        transfer(source, named(three, "phi", "psi"))
    with pytest.raises(ValueError, match="no descriptor in common"):
        transfer(source, named(chain, "omega"))
    with pytest.raises(RuntimeError, match="has learned already"):
        transfer(source, source)
    given = CommittorLearner(None, chain.states, model=source.model)
    with pytest.raises(RuntimeError, match="given a model"):
        transfer(source, given)


def test_a_first_path_sets_the_scale(chain):
    half = TrainingSet(SITES, [[2, 0]] * 3 + [[0, 2]] * 4)
    source = CommittorLearner([chain.site], chain.states, seed=1, training_set=half)
    source.fit()

    def stretched(trajectory):
        return 10.0 * np.asarray(chain.site(trajectory))[:, None] - 20.0

    learner = CommittorLearner(stretched, chain.states, seed=1)
    transfer(source, learner, trajectory=chain.initial())
    known = SLOPE * source.reaction_coordinate(chain.initial())
    np.testing.assert_allclose(learner.reaction_coordinate(chain.initial()), known, atol=1e-3)
    without = CommittorLearner(stretched, chain.states, seed=1)
    transfer(source, without)
    assert not np.allclose(without.reaction_coordinate(chain.initial()), known, atol=0.2)


def test_every_training_knows_the_source(chain, source):
    learner = named(chain, "phi", "psi", training_set=shots(4, n=15, seed=1))
    alone = named(chain, "phi", "psi", training_set=shots(4, n=15, seed=1))
    transfer(source, learner)
    assert len(learner.training_set) == 15
    report = learner.fit()
    assert report.start == "transferred"
    assert report.loss_of_other_start == alone.fit().held_out_loss != report.held_out_loss
    assert learner.version.number == 1


# ---- runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained_on_sites(chain):
    """Knows sites 0 to 6, and which half belongs to B."""
    counts = np.array([[2, 0]] * 3 + [[1, 1]] + [[0, 2]] * 3)
    learner = CommittorLearner([chain.site], chain.states, seed=3, training_set=TrainingSet(SITES, counts))
    learner.fit()
    return learner


def begin(chain, directory, source=None):
    """A run with files, about to begin."""
    seed_everything(0)
    quick = {"auxiliary_weights": (0.15, 0.0), "max_epochs": 30, "relevance": None}
    learner = CommittorLearner([chain.site], chain.states, seed=7, fit_options=quick)
    if source is not None:
        transfer(source, learner)
    storage = paths.Storage(str(directory / "run.nc"), "w")
    hook = TrainingHook(learner, directory / "run.aimmd")
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), hook, storage=storage)
    return sampler


def run_to(sampler, step):
    sampler.run(step - sampler.step)
    sampler.storage.close()


def what_was_learned(directory):
    learner = load_learner(directory / "run.aimmd")
    reports = [(r.n_shots, r.start, r.held_out_loss, r.loss_of_other_start) for r in learner.reports]
    return learner.version.number, learner.model.committor(SITES).tolist(), reports


@pytest.mark.parametrize("interrupted_at", [pytest.param([1], marks=pytest.mark.slow), [4, 7]])
def test_a_resumed_run_goes_on_with_the_source(chain, trained_on_sites, tmp_path, interrupted_at):
    directories = {name: tmp_path / name for name in ("whole", "resumed", "alone")}
    for directory in directories.values():
        directory.mkdir()
    run_to(begin(chain, directories["whole"], trained_on_sites), 9)
    run_to(begin(chain, directories["resumed"], trained_on_sites), interrupted_at[0])
    for step in [*interrupted_at[1:], 9]:
        files = directories["resumed"] / "run.nc", directories["resumed"] / "run.aimmd"
        sampler = ops_aimmd.resume(*files, progress=False)
        assert sampler.move_scheme.learner.learned.start is not None
        run_to(sampler, step)
    whole = what_was_learned(directories["whole"])
    assert what_was_learned(directories["resumed"]) == whole
    assert "transferred" in [start for _, start, _, _ in whole[2]]
    run_to(begin(chain, directories["alone"]), 9)
    assert what_was_learned(directories["alone"])[1] != whole[1]


def test_the_source_is_written_once_and_with_the_first_step(chain, trained_on_sites, tmp_path):
    sampler = begin(chain, tmp_path, trained_on_sites)
    learner = sampler.move_scheme.learner
    before = learner.learned.start
    run_to(sampler, 1)
    with Checkpoint.open(tmp_path / "run.aimmd", read_only=True) as file:
        assert TRANSFERRED in file.state_keys()
    again = load_learner(tmp_path / "run.aimmd").learned.start
    for name, array in before.model.arrays().items():
        np.testing.assert_array_equal(again.model.arrays()[name], array)
    np.testing.assert_array_equal([again.mean, again.std], [before.mean, before.std])
    with pytest.raises(RuntimeError, match="its run begins"):
        transfer(trained_on_sites, learner)

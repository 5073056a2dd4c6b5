"""A formula guides path sampling in the place of a network."""

import numpy as np
import pytest
from child_processes import run_code
from sampling_support import Chain, seed_everything, simulation, site_descriptors
from scipy.special import expit

import ops_aimmd
from ops_aimmd.committor.training_set import TrainingSet
from ops_aimmd.explain.formulas.fit_expressions import fit_expressions


@pytest.fixture(scope="module")
def front():
    """Of shots from the sites 1 to 5, whose committor rises with the site."""
    rng = np.random.default_rng(0)
    sites = rng.integers(1, 6, (600, 1)).astype(float)
    reached = rng.binomial(2, expit(1.5 * (sites[:, 0] - 3)))
    return fit_expressions(
        TrainingSet(sites, np.stack([2 - reached, reached], axis=1)), seed=0, n_candidates=30, progress=False
    )


def test_shooting_points_are_picked_by_the_formula(front):
    assert front.best.inputs == (0,)
    chain = Chain()
    network = ops_aimmd.CommittorModel.for_descriptors(1, seed=0)
    learner = ops_aimmd.CommittorLearner(site_descriptors, chain.states, seed=1, model=front.best.to_model(network))
    learner.freeze()
    seed_everything(1)
    sampler, steps = simulation(chain.scheme(learner), chain.initial(), ops_aimmd.TrainingHook(learner))
    sampler.run(40)
    assert len(learner.training_set) == 40
    assert learner.version.number == 0  # frozen: the formula stayed
    sites = learner.training_set.descriptors
    p = front.best.committor(sites)
    assert np.allclose(learner.training_set.predicted_committor[:, 1], p, rtol=1e-12)
    assert not np.allclose(p, network.committor(sites), rtol=1e-2)  # the control
    assert np.allclose(learner.committor(chain.path([1, 2, 3])), front.best.committor(np.array([[1.0], [2.0], [3.0]])))


def test_a_learner_gives_the_fallback_and_training_a_formula_is_refused(front):
    chain = Chain()
    learner = chain.learner(seed=1)
    learner.committor(chain.path([1, 2]))  # the first path makes the network
    outside = np.array([[40.0]])
    model = front.best.to_model(learner)
    assert np.allclose(model.committor(outside), learner.model.committor(outside))
    with pytest.raises(ValueError, match="the model is frozen"):
        ops_aimmd.fit(model, TrainingSet(np.ones((5, 1)), np.ones((5, 2))))


@pytest.mark.parametrize("with_fallback", [True, False])
def test_the_formula_comes_back_from_the_checkpoint(front, tmp_path, with_fallback):
    chain = Chain()
    network = ops_aimmd.CommittorModel.for_descriptors(1, seed=0)
    model = front.best.to_model(network if with_fallback else None)
    learner = ops_aimmd.CommittorLearner(site_descriptors, chain.states, seed=1, model=model)
    learner.freeze()
    seed_everything(1)
    hook = ops_aimmd.TrainingHook(learner, checkpoint=tmp_path / "run.aimmd")
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), hook)
    sampler.run(3)
    again = ops_aimmd.load_learner(tmp_path / "run.aimmd").model
    sites = np.array([[-40.0], [1.5], [3.0], [40.0]])  # the first and the last outside of the range of the formula
    assert np.array_equal(again.reaction_coordinate(sites), model.reaction_coordinate(sites))
    assert np.ptp(again.reaction_coordinate(sites)) > 0.1
    lines = [
        "import sys, ops_aimmd",
        "assert 'ops_aimmd.explain.formulas.formula_model' not in sys.modules",
        "print(ops_aimmd.load_learner(sys.argv[1]).model.reaction_coordinate([[3.0]])[0])",
    ]
    result = run_code("\n".join(lines), tmp_path, str(tmp_path / "run.aimmd"))
    assert result.returncode == 0, result.stderr
    assert float(result.stdout.split()[-1]) == pytest.approx(model.reaction_coordinate(sites)[2], rel=1e-12)

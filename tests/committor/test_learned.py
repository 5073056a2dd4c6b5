"""What was learned, as an immutable value, on shots of no program in particular."""

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ops_aimmd import CommittorModel, TrainingSet
from ops_aimmd.committor import DiminishingSchedule, ShootingResult
from ops_aimmd.committor.learned import Learned

QUICK = {"max_epochs": 5, "auxiliary_weights": (0.0, 0.0), "relevance": None}
X = np.linspace(-2, 2, 9)[:, None]


def shots(n=40, seed=0):
    """The committor is the logistic function of the only descriptor, times 2."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (n, 1))
    hits = rng.binomial(2, 1 / (1 + np.exp(-2 * x[:, 0])))
    return TrainingSet(x, np.stack([2 - hits, hits], axis=1))


def test_training_gives_the_next_version_and_leaves_this_one_alone():
    first = Learned.begin(shots(), seed=1)
    before = first.model.committor(X)
    second = first.fit(seed=1, **QUICK)
    assert (first.version.number, second.version.number) == (0, 1)
    assert np.array_equal(first.model.committor(X), before) and not np.allclose(second.model.committor(X), before)
    assert first.reports == () and second.reports == (second.last_report,) and second.shots_at_last_fit == 40
    with pytest.raises(FrozenInstanceError):
        second.version = first.version
    assert not any(p.requires_grad for p in second.model.parameters())


def test_the_seed_and_the_number_of_shots_fix_the_training():
    first, again = (Learned.begin(shots(), seed=1).fit(seed=1, **QUICK) for _ in range(2))
    assert np.array_equal(first.model.committor(X), again.model.committor(X))
    another = Learned.begin(shots(), seed=1).fit(seed=2, **QUICK)
    assert not np.array_equal(first.model.committor(X), another.model.committor(X))


def test_a_frozen_model_is_not_trained():
    learned = Learned.begin(shots(), seed=1)
    frozen = replace(learned, frozen=True)
    schedule = DiminishingSchedule(every=3)
    assert learned.due(schedule) and not frozen.due(schedule)
    with pytest.raises(RuntimeError, match="frozen"):
        frozen.fit(seed=1, **QUICK)
    with pytest.raises(RuntimeError, match="no shooting results"):
        Learned.begin(TrainingSet.empty(1, 2), seed=1).fit()


def test_the_schedule_counts_from_the_last_training():
    training_set, schedule = shots(3), DiminishingSchedule(every=3)
    learned = Learned.begin(training_set, seed=1).fit(seed=1, **QUICK)
    due = []
    for _ in range(3):
        training_set.append(ShootingResult(np.zeros(1), np.ones(2)))
        due.append(learned.due(schedule))
    assert due == [False, False, True]


def test_the_density_is_that_of_the_frames_under_the_new_model():
    learned = Learned.begin(shots(), seed=1)
    assert learned.fit(seed=1, **QUICK).version.density is None
    learned.frames.count("path", np.full((1000, 1), 2.0))
    trained = learned.fit(seed=1, **QUICK)
    log_odds = trained.model.reaction_coordinate(np.array([[2.0], [-2.0]]))
    there, elsewhere = trained.version.density.log_density(log_odds, (0, 1))
    assert there > elsewhere


def test_a_model_without_parameters_is_not_trained():
    class Formula(torch.nn.Module):
        def forward(self, x):
            return 2 * x

    learned = Learned.begin(shots(), CommittorModel(Formula(), 1, 2)).fit(seed=1)
    assert learned.version.number == 1 and learned.reports == () and learned.shots_at_last_fit == 40
    np.testing.assert_allclose(learned.model.committor(X), 1 / (1 + np.exp(-2 * X[:, 0])), rtol=1e-5)


def test_a_model_of_other_descriptors_is_an_error():
    with pytest.raises(ValueError, match="3 descriptors and 2 states.*1 descriptors and 2 states"):
        Learned.begin(shots(), CommittorModel.for_descriptors(3, seed=1))


def test_the_lines_in_the_documentation_run():
    page = (Path(__file__).parents[2] / "docs" / "measured" / "learning.md").read_text()
    lines = page.split("```python\n")[1].split("```")[0]
    given = shots()
    names = {"descriptors": given.descriptors, "counts": given.counts, "path": X, "new_descriptors": np.ones(1)}
    names["new_counts"] = np.array([0, 2])
    exec(lines, names)  # noqa: S102
    learned, weights = names["learned"], names["log_weights"]
    assert learned.version.number == 2 and learned.version.density is not None and len(learned.training_set) == 41
    assert np.abs(names["committor"] - 1 / (1 + np.exp(-2 * X[:, 0]))).max() < 0.2
    assert weights.shape == (9,) and np.argmax(weights) not in (0, 8)

"""TrainingSet: one row per shot, growing, checked."""

import numpy as np
import pytest

from ops_aimmd.committor.training_set import LegFrames, ShootingResult, TrainingSet


def leg_frames(value, outcomes=(0, 1)):
    m = len(outcomes)
    return LegFrames(np.full((m, 2), value), np.array(outcomes), np.array([False] * (m - 1) + [True]))


def results(n=40):
    rng = np.random.default_rng(0)
    return [
        ShootingResult(
            descriptors=rng.normal(size=2),
            counts=np.eye(2)[rng.integers(2)] + np.eye(2)[rng.integers(2)],
            weight=float(rng.uniform(0.5, 2)),
            step=3 * k,
            chain=k % 2,
            velocity_origin=("boltzmann", "path", "unknown")[k % 3],
            predicted_committor=np.array([0.3, 0.7]) if k % 2 else None,
            leg_frames=leg_frames(float(k)) if k % 4 else None,
        )
        for k in range(n)
    ]


def test_what_is_appended_comes_back():
    given = results()
    grown = TrainingSet.empty(2, 2)
    for result in given:
        grown.append(result)
    assert len(grown) == len(given)
    for result, back in zip(given, grown, strict=True):
        assert np.array_equal(back.descriptors, result.descriptors) and np.array_equal(back.counts, result.counts)
        assert (back.weight, back.step, back.chain) == (result.weight, result.step, result.chain)
        assert back.velocity_origin == result.velocity_origin
        expected = np.full(2, np.nan) if result.predicted_committor is None else result.predicted_committor
        assert np.array_equal(back.predicted_committor, expected, equal_nan=True)
        assert (back.leg_frames is None) == (result.leg_frames is None)
        if result.leg_frames is not None:
            assert np.array_equal(back.leg_frames.descriptors, result.leg_frames.descriptors)
            assert np.array_equal(back.leg_frames.is_end, result.leg_frames.is_end)


def test_growing_and_giving_arrays_are_the_same():
    given = results()
    grown = TrainingSet.empty(2, 2)
    for result in given:
        grown.append(result)
    whole = TrainingSet(
        grown.descriptors,
        grown.counts,
        grown.weights,
        grown.steps,
        grown.chains,
        grown.velocity_origin,
        grown.predicted_committor,
    )
    for name in ("descriptors", "counts", "weights", "steps", "chains", "velocity_origin", "predicted_committor"):
        assert np.array_equal(getattr(whole, name), getattr(grown, name), equal_nan=name == "predicted_committor")


def test_auxiliary_frames_know_their_shot_and_are_no_shots():
    grown = TrainingSet.empty(2, 2)
    for result in results(8):
        grown.append(result)
    assert len(grown) == 8 and len(grown.auxiliary) == 12
    assert np.array_equal(grown.auxiliary.descriptors[:, 0], grown.auxiliary.shot)


def test_defaults():
    training_set = TrainingSet([[1.0, 2.0]], [[1, 1]])
    assert training_set.weights.tolist() == [1.0]
    assert training_set.steps.tolist() == [-1] and training_set.chains.tolist() == [0]
    assert training_set.velocity_origin.tolist() == ["unknown"]
    assert np.isnan(training_set.predicted_committor).all() and len(training_set.auxiliary) == 0


def test_arrays_are_read_only_and_not_the_callers():
    x = np.zeros((2, 2))
    training_set = TrainingSet(x, [[1, 1], [0, 2]])
    x[:] = 5
    assert (training_set.descriptors == 0).all()
    with pytest.raises(ValueError):
        training_set.descriptors[0] = 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(descriptors=[[1.0], [np.nan]]), r"\[1\]"),
        (dict(descriptors=[[np.inf], [1.0]]), r"\[0\]"),
        (dict(descriptors=[1.0, 2.0]), "shape"),
        (dict(descriptors=[[1.0]]), "shape"),
        (dict(counts=[[1, 1], [0, 0]]), r"\[1\]"),
        (dict(counts=[[1, 1], [-1, 2]]), r"\[1\]"),
        (dict(counts=[[1], [1]]), "two"),
        (dict(weights=[1.0, -1.0]), r"\[1\]"),
        (dict(weights=[1.0]), "weights"),
        (dict(velocity_origin=["boltzmann", "thermal"]), "thermal"),
    ],
)
def test_bad_rows_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrainingSet(**{"descriptors": [[1.0], [2.0]], "counts": [[1, 1], [0, 2]], **arguments})


@pytest.mark.parametrize(
    "change",
    [
        dict(descriptors=np.zeros(3)),
        dict(descriptors=np.array([0.0, np.nan])),
        dict(counts=np.zeros(2)),
        dict(counts=np.ones(3)),
        dict(weight=np.nan),
        dict(predicted_committor=np.ones(3)),
        dict(leg_frames=leg_frames(np.nan)),
        dict(leg_frames=leg_frames(0.0, outcomes=(0, 2))),
        dict(leg_frames=LegFrames(np.zeros((1, 3)), np.array([0]), np.array([True]))),
    ],
)
def test_a_refused_result_leaves_the_set_unchanged(change):
    training_set = TrainingSet.empty(2, 2)
    training_set.append(ShootingResult(np.zeros(2), np.ones(2)))
    bad = ShootingResult(**{"descriptors": np.zeros(2), "counts": np.ones(2), "leg_frames": leg_frames(1.0), **change})
    with pytest.raises(ValueError):
        training_set.append(bad)
    assert len(training_set) == 1 and len(training_set.auxiliary) == 0

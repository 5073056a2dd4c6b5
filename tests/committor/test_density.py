"""The density of transition-path frames along the committor."""

import numpy as np
import pytest

from ops_aimmd.committor.density import CommittorDensity, TransitionPathFrames, all_pairs


def log_committor_of(p):
    return np.log(np.column_stack([1 - p, p]))


def test_histogram_of_two_states():
    p = np.array([0.05, 0.05, 0.05, 0.55])
    density = CommittorDensity.from_frames(log_committor_of(p), np.ones(4))
    assert np.allclose(density.values[0, [0, 5]], [7.5, 2.5])
    assert np.allclose(density.values.mean(), 1.0, atol=1e-2)
    at = np.array([0.05, 0.55])
    assert np.allclose(density.log_density(np.log(at / (1 - at)), (0, 1)), np.log([7.5, 2.5]))


def test_empty_bins_are_bounded_by_the_uniform_part():
    p = np.full(1000, 0.01)
    bounded = CommittorDensity.from_frames(log_committor_of(p), np.ones(1000), uniform_weight=1000.0)
    assert np.isclose(bounded.values[0, 5], 0.5)
    unbounded = CommittorDensity.from_frames(log_committor_of(p), np.ones(1000))
    assert unbounded.values[0, 5] < 0.01


def test_three_states_weigh_a_frame_by_what_it_says_of_a_pair():
    committed = np.log([[0.98, 0.01, 0.01]])
    between = np.log([[0.495, 0.495, 0.01]])
    density = CommittorDensity.from_frames(np.concatenate([committed, between]), np.ones(2))
    assert density.pairs == all_pairs(3) == ((0, 1), (0, 2), (1, 2))
    row = density.pairs.index((1, 2))
    counts = density.values[row] / density.values[row].sum()
    # both frames have p_2 / (p_1 + p_2) below 0.5 or at it; the committed one says next to nothing of the pair (1, 2)
    assert counts.max() > 0.99


def test_current_path_counts_once_per_step():
    frames = TransitionPathFrames(1)
    frames.count("a", np.array([[1.0], [2.0]]))
    frames.count("b", np.array([[3.0]]))
    for _ in range(4):
        frames.count("b")
    assert frames.descriptors.ravel().tolist() == [1.0, 2.0, 3.0]
    assert frames.weights.tolist() == [1.0, 1.0, 5.0]
    assert sum(count for count, _, _ in frames.changes().values()) == 6


def test_thinning_is_unbiased_and_keeps_frames_alike():
    """Frames 0 or 1 with probability 0.3: the weighted mean stays 0.3 within five binomial standard errors."""
    frames = TransitionPathFrames(1, capacity=2000, seed=3)
    rng = np.random.default_rng(0)
    for path in range(1000):
        frames.count(str(path), (rng.random((50, 1)) < 0.3).astype(float))
    assert len(frames) <= 2000
    weights = frames.weights
    assert weights.min() == weights.max()
    effective = weights.sum() ** 2 / (weights**2).sum()
    error = np.sqrt(0.3 * 0.7 / effective)
    assert abs(np.average(frames.descriptors[:, 0], weights=weights) - 0.3) < 5 * error
    assert effective > 800


def test_changes_and_rebuilding():
    frames = TransitionPathFrames(1, seed=1)
    frames.count("a", np.array([[1.0]]))
    assert {k: (v[0], v[1]) for k, v in frames.changes().items()} == {"a": (1, 1)}
    before = frames.revision
    assert frames.changes(before) == {}
    frames.count("a")
    assert frames.changes(before) == {"a": (2, 1, None)}
    assert frames.changes()["a"][2] is not None  # of another file, which has nothing yet
    again = TransitionPathFrames.from_paths({"a": (2, 1, np.array([[1.0]]))}, 1, 0, seed=1)
    assert np.array_equal(again.weights, frames.weights)
    assert np.array_equal(again.descriptors, frames.descriptors)


def test_a_new_path_needs_frames():
    with pytest.raises(ValueError, match="needs its frames"):
        TransitionPathFrames(2).count("a", np.zeros((3, 1)))

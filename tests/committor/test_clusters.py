"""Points where paths cross: interpolated, and grouped without being told how many groups there are."""

import numpy as np
import pytest

from ops_aimmd.committor.clusters import by_size, cluster, crossing_points, separation_asked, widest_gap


def slow_drift(n, correlation, rng):
    """Stationary AR(1) of unit variance, whose autocorrelation at distance t is correlation**t."""
    x = np.empty(n)
    x[0] = rng.standard_normal()
    for i in range(1, n):
        x[i] = correlation * x[i - 1] + np.sqrt(1 - correlation**2) * rng.standard_normal()
    return x


def test_crossings_are_interpolated():
    x = np.column_stack([np.arange(5.0), 10 * np.arange(5.0)])
    assert np.allclose(crossing_points(x, [-3, -1, 3, 5, 9]), [[1.25, 12.5]])
    assert np.allclose(crossing_points(x, [-1, 1, -1, -1, 3])[:, 0], [0.5, 1.5, 3.25])
    assert np.allclose(crossing_points(x, [5, 4, 2, 3, 6]), [[2, 20]])  # none: the frame closest to it


ONE_GROUP = {
    "normal": lambda n, rng: rng.standard_normal((n, 4)),
    "many descriptors": lambda n, rng: rng.standard_normal((n, 22)),
    "uniform": lambda n, rng: rng.random((n, 2)),
    "a slow drift": lambda n, rng: np.stack([slow_drift(n, 0.95, rng) for _ in range(2)], axis=1),
    "an exponential": lambda n, rng: rng.exponential(size=(n, 2)),
    "an angle of one value": lambda n, rng: np.stack([f(0.6 * rng.standard_normal(n)) for f in (np.sin, np.cos)], axis=1),
}


@pytest.mark.parametrize("kind", ONE_GROUP)
def test_one_group_is_one_channel(kind):
    """At most 2 of 100 such runs are split."""
    rng = np.random.default_rng(7)
    split = [cluster(ONE_GROUP[kind](n, rng)).max() > 0 for n in (12, 30, 100, 300) for _ in range(25)]
    assert sum(split) <= 2


@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize("n_descriptors", [1, 2, 22])
def test_groups_eight_widths_apart_are_channels(share, n_descriptors):
    """In at least 18 of 20 runs of 80 paths, without a path in the wrong one."""
    rng = np.random.default_rng(8)
    n_found = 0
    for _ in range(20):
        points = rng.standard_normal((80, n_descriptors))
        second = np.arange(80) < 80 * share
        points[second, 0] += 8
        labels = cluster(points)
        n_found += labels.max() == 1 and len(set(labels[second])) == len(set(labels[~second])) == 1
    assert n_found >= 18


def test_three_groups_are_three():
    """At the corners of a triangle, twenty widths apart, in two of five columns; with the largest first."""
    rng = np.random.default_rng(9)
    truth = np.repeat([2, 0, 1], [20, 80, 50])
    points = 0.05 * rng.standard_normal((150, 5))
    points[:, 3] += np.cos(2 * np.pi * truth / 3)
    points[:, 1] += np.sin(2 * np.pi * truth / 3)
    assert np.array_equal(cluster(points), truth)
    assert not np.array_equal(cluster(points[:, [0, 2, 4]]), truth)  # control: the columns that know nothing


def test_groups_of_fewer_than_three_are_none():
    points = np.concatenate([np.zeros(6), np.full(2, 100.0)])[:, None] + 0.01 * np.arange(8)[:, None]
    assert cluster(points).max() == 0
    points[5] += 100.0  # control: now there are three
    assert cluster(points).max() == 1


@pytest.mark.parametrize("n", [8, 80])
def test_the_separation_that_is_asked_for_is_what_decides(n):
    """Two uniform groups of half the points each, of unit width."""
    half = np.arange(n / 2) / np.arange(n / 2).std()
    for factor, n_groups in ((0.99, 1), (1.01, 2)):
        points = np.concatenate([half, half + factor * separation_asked(n)])[:, None]
        assert cluster(points).max() + 1 == n_groups
        assert widest_gap(points) == (pytest.approx(factor * separation_asked(n)), n // 2)


def test_rounding_makes_no_groups():
    points = np.repeat([0.5, 0.5 + 1e-7], 10)[:, None]
    assert cluster(points, scale=[1.0]).max() == 0 and widest_gap(points, scale=[1.0]) == (0.0, 0)
    assert cluster(points, scale=[1e-7]).max() == 1  # the control


def test_groups_are_numbered_by_weight():
    labels = np.array([0, 0, 0, 1, 1, 2])
    assert by_size(labels, np.ones(6)).tolist() == [0, 0, 0, 1, 1, 2]
    assert by_size(labels, np.array([1, 1, 1, 2, 2, 9])).tolist() == [2, 2, 2, 1, 1, 0]
    assert len(by_size(labels[:0], np.ones(0))) == len(cluster(np.empty((0, 3)), np.ones(3))) == 0

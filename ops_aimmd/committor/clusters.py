r"""Groups of points where paths cross a surface between two states: one group per channel.

Two groups of points are two channels if some descriptor, or principal component, shows them apart: narrow against the
distance of their means, with next to nothing between them. Of one broad group no half looks like that: with
:math:`D = |\mu_1 - \mu_2| / s`, s the standard deviation within the halves, a normal distribution cut in the middle has
D = 2.6, a uniform one 3.5, a drifting coordinate that turns at its ends (arcsine) 4.1 (compare Ashman, Bird, Zepf,
Astron. J. 108, 2348 (1994), doi:10.1086/117248).

No clustering sees a channel in which there was no path. One cluster is what a system with one channel shows, and paths
that have all gone the same way.
"""

from __future__ import annotations

import numpy as np

SEPARATION = 4.5
"""Distance of two channels in standard deviations within them, for many points; halves of one group reach 4.1."""

FEW_POINTS = 20.0
"""Separation asked for grows by 1 + FEW_POINTS / n: of few points one of several projections always looks split."""

EMPTY = 0.2
"""Points in the middle third between two channels, per point of the smaller one; within one group 0.27-0.42."""

SMALLEST = 3
"""Distinct paths that make a channel ..."""

SMALLEST_FRACTION = 0.02
"""... and the least fraction of all paths."""

ROUNDING = 1e-6
"""Spread, in units of the scale, of values that count as equal: descriptors may come in single precision."""

N_COMPONENTS = 3
"""Principal components that are looked at, beside every descriptor."""


def crossing_points(descriptors: np.ndarray, reaction_coordinate: np.ndarray) -> np.ndarray:
    """Where a path crosses the transition state.

    Parameters
    ----------
    descriptors : array, shape (n_frames, d)
        In the order of the path.
    reaction_coordinate : array, shape (n_frames,)
        Log-odds; the transition state is at 0.

    Returns
    -------
    array, shape (n_crossings, d)
        Interpolated linearly between the frames on either side. Where no frames lie on either side, the frame closest to
        the transition state.
    """
    x, q = np.asarray(descriptors, dtype=float), np.asarray(reaction_coordinate, dtype=float)
    if len(x) == 0:
        return x
    before = np.flatnonzero((q[:-1] < 0) != (q[1:] < 0))
    if len(before) == 0:
        return x[[np.argmin(np.abs(q))]]
    fraction = q[before] / (q[before] - q[before + 1])
    return x[before] + fraction[:, None] * (x[before + 1] - x[before])


def cluster(points: np.ndarray, scale=None) -> np.ndarray:
    """Group points without being told how many groups there are.

    Parameters
    ----------
    points : array, shape (n, d)
    scale : array-like, shape (d,), optional
        Units in which descriptors are compared in principal components: best their standard deviations along whole
        paths. Those of the points by default.

    Returns
    -------
    int array, shape (n,)
        Group of each point, the largest first.
    """
    scaled = _scaled(points, scale)
    labels = np.zeros(len(scaled), dtype=int)
    smallest = max(SMALLEST, int(np.ceil(SMALLEST_FRACTION * len(scaled))))
    _split(scaled, np.arange(len(scaled)), labels, smallest)
    return by_size(labels, np.ones(len(scaled)))


def widest_gap(points: np.ndarray, scale=None) -> tuple[float, int]:
    """The gap that comes nearest to telling two channels apart, whether or not it does; parameters as for `cluster`.

    Returns
    -------
    separation : float
        Distance of the two groups in standard deviations within them, to be compared with `separation_asked`; 0 if the
        points are too few or all equal.
    size : int
        Points in the smaller one.
    """
    scaled = _scaled(points, scale)
    best, size = 0.0, 0
    for values in _projections(scaled):
        separation, cut, _ = _best_cut(values, SMALLEST)
        if separation > best:
            n_far = int(np.count_nonzero(values > cut))
            best, size = separation, min(n_far, len(values) - n_far)
    return best, size


def _scaled(points, scale) -> np.ndarray:
    points = np.asarray(points, dtype=float)
    scale = points.std(axis=0) if scale is None else np.asarray(scale, dtype=float)
    return (points - points.mean(axis=0)) / np.where(scale > 0, scale, 1.0) if len(points) else points


def separation_asked(n: int) -> float:
    """Distance that two channels must have to be told apart by n paths, in standard deviations within them."""
    return SEPARATION * (1 + FEW_POINTS / n)


def _split(x: np.ndarray, rows: np.ndarray, labels: np.ndarray, smallest: int) -> None:
    """Give the rows on the far side of the widest gap a label of their own, and go on with both sides."""
    best, best_side = 0.0, None
    for values in _projections(x[rows]):
        separation, cut, tells = _best_cut(values, smallest)
        if tells and separation > best:
            best, best_side = separation, values > cut
    if best_side is None:
        return
    far, near = rows[best_side], rows[~best_side]
    labels[far] = labels.max() + 1
    _split(x, far, labels, smallest)
    _split(x, near, labels, smallest)


def _projections(x: np.ndarray):
    yield from x.T
    if x.shape[1] > 1 and len(x) > 1:
        _, _, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
        yield from (x @ axes[:N_COMPONENTS].T).T


def _best_cut(values: np.ndarray, smallest: int) -> tuple[float, float, bool]:
    """Separation of the two sides of the best place to cut, the place, and whether the sides are channels; 0 where no cut
    leaves two groups."""
    x = np.sort(values)
    n = len(x)
    n_left = np.arange(smallest, n - smallest + 1)
    if len(n_left) == 0 or x[-1] - x[0] < ROUNDING:
        return 0.0, np.nan, False
    n_right = n - n_left
    sums, squares = np.cumsum(x), np.cumsum(x**2)
    left, right = sums[n_left - 1] / n_left, (sums[-1] - sums[n_left - 1]) / n_right
    within = np.maximum(squares[-1] - n_left * left**2 - n_right * right**2, 0.0) / n
    tiny = 1e-12 * (x[-1] - x[0]) ** 2
    separation = (right - left) / np.sqrt(within + tiny)
    k = int(np.argmax(separation))
    third = (right[k] - left[k]) / 3
    between = np.count_nonzero((x > left[k] + third) & (x < right[k] - third))
    tells = separation[k] > separation_asked(n) and between <= EMPTY * min(n_left[k], n_right[k])
    return float(separation[k]), float((x[n_left[k] - 1] + x[n_left[k]]) / 2), bool(tells)


def by_size(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The same groups, labels (n,) from 0, numbered by falling weight of their points."""
    if len(labels) == 0:
        return labels
    order = np.argsort(-np.bincount(labels, weights), kind="stable")
    return np.argsort(order)[labels]

r"""Which way do the transition paths go? Channels as clusters of the points where paths cross the transition state.

The learned committor gives the place: a path crosses where its reaction coordinate changes sign, p = 1/2. The last
crossing of each distinct path is one point in the space of the descriptors. Two groups of points are two channels if some
descriptor, or principal component, shows them apart: narrow against the distance of their means, with next to nothing
between them. Of one broad group no half looks like that: with :math:`D = |\mu_1 - \mu_2| / s`, s the standard deviation
within the halves, a normal distribution cut in the middle has D = 2.6, a uniform one 3.5, a drifting coordinate that turns
at its ends (arcsine) 4.1 (compare Ashman, Bird, Zepf, Astron. J. 108, 2348 (1994), doi:10.1086/117248).

No clustering sees a channel in which there was no path. One cluster is what a system with one channel shows, and a chain
that never left its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

N_COMPONENTS = 3
"""Principal components that are looked at, beside every descriptor."""


@dataclass(frozen=True)
class Channels:
    """Channels of the current paths of a run.

    Attributes
    ----------
    points : array, shape (n_paths, d)
        Descriptors at the last crossing of each distinct path.
    labels : int array, shape (n_paths,)
        Channel of each path: 0 for the one that holds most MC steps, and so on.
    series : int array, shape (n_rows,)
        Channel of the current path after each row of the step table; -1 where the path is not known.
    populations, population_errors : array, shape (n_channels,)
        Fraction of the MC steps spent in each channel, and standard error from the number of switches.
    n_switches : int
        Changes of channel from a row to the next of the same chain.
    n_steps : int
        Such pairs of rows.
    """

    points: np.ndarray
    labels: np.ndarray
    series: np.ndarray
    populations: np.ndarray
    population_errors: np.ndarray
    n_switches: int
    n_steps: int

    @property
    def n_channels(self) -> int:
        return len(self.populations)

    @property
    def switching_rate(self) -> float:
        """Switches per MC step."""
        return self.n_switches / self.n_steps if self.n_steps else np.nan

    @property
    def switching_rate_error(self) -> float:
        """Poisson standard error; of a run without a switch, that of one."""
        return np.sqrt(max(self.n_switches, 1)) / self.n_steps if self.n_steps else np.nan


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
    points = np.asarray(points, dtype=float)
    scale = points.std(axis=0) if scale is None else np.asarray(scale, dtype=float)
    scaled = (points - points.mean(axis=0)) / np.where(scale > 0, scale, 1.0) if len(points) else points
    labels = np.zeros(len(points), dtype=int)
    _split(scaled, np.arange(len(points)), labels, max(SMALLEST, int(np.ceil(SMALLEST_FRACTION * len(points)))))
    return _by_size(labels, np.ones(len(points)))


def _split(x: np.ndarray, rows: np.ndarray, labels: np.ndarray, smallest: int) -> None:
    """Give the rows on the far side of the widest gap a label of their own, and go on with both sides."""
    best, best_side = 0.0, None
    for values in _projections(x[rows]):
        separation, cut = _best_cut(values, smallest)
        if separation > best:
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


def _best_cut(values: np.ndarray, smallest: int) -> tuple[float, float]:
    """Separation of the two sides of the best place to cut, and the place; 0 where no cut leaves two groups."""
    x = np.sort(values)
    n = len(x)
    n_left = np.arange(smallest, n - smallest + 1)
    if len(n_left) == 0 or x[0] == x[-1]:
        return 0.0, np.nan
    n_right = n - n_left
    sums, squares = np.cumsum(x), np.cumsum(x**2)
    left, right = sums[n_left - 1] / n_left, (sums[-1] - sums[n_left - 1]) / n_right
    within = np.maximum(squares[-1] - n_left * left**2 - n_right * right**2, 0.0) / n
    tiny = 1e-12 * (x[-1] - x[0]) ** 2
    separation = (right - left) / np.sqrt(within + tiny)
    k = int(np.argmax(separation))
    third = (right[k] - left[k]) / 3
    between = np.count_nonzero((x > left[k] + third) & (x < right[k] - third))
    enough = separation[k] > SEPARATION * (1 + FEW_POINTS / n)
    if not enough or between > EMPTY * min(n_left[k], n_right[k]):
        return 0.0, np.nan
    return float(separation[k]), float((x[n_left[k] - 1] + x[n_left[k]]) / 2)


def _by_size(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The same groups, numbered by falling weight."""
    if len(labels) == 0:
        return labels
    order = np.argsort(-np.bincount(labels, weights), kind="stable")
    rank = np.empty(len(order), dtype=int)
    rank[order] = np.arange(len(order))
    return rank[labels]


def find_channels(points: np.ndarray, path_of_row, chains, scale=None) -> Channels:
    """Channels of the paths of a run, their populations and the switches between them.

    Parameters
    ----------
    points : array, shape (n_paths, d)
        A crossing of each distinct path.
    path_of_row : int array-like, shape (n_rows,)
        Current path after each shot, -1 where it is not known.
    chains : array-like, shape (n_rows,)
        Chain that each row belongs to.
    scale : array-like, shape (d,), optional
        See `cluster`.
    """
    path_of_row, chains = np.asarray(path_of_row, dtype=int), np.asarray(chains)
    known = path_of_row >= 0
    weights = np.bincount(path_of_row[known], minlength=len(points)).astype(float)
    labels = _by_size(cluster(points, scale), weights)
    series = np.full(len(path_of_row), -1)
    series[known] = labels[path_of_row[known]]
    n_switches, n_steps = count_switches(series, chains)
    n_channels = int(labels.max()) + 1 if len(labels) else 0
    populations = np.bincount(series[known], minlength=n_channels) / max(known.sum(), 1)
    # stays in a channel are as many as switches, one more per chain; a population is a mean over them
    n_stays = (n_switches + len(np.unique(chains[known]))) / max(n_channels, 1)
    errors = np.sqrt(populations * (1 - populations) / max(n_stays, 1.0))
    return Channels(np.asarray(points), labels, series, populations, errors, n_switches, n_steps)


def count_switches(series, chains) -> tuple[int, int]:
    """Changes of channel between consecutive rows of a chain, and the number of such pairs of rows.

    Parameters
    ----------
    series : int array-like, shape (n_rows,)
        Channel, -1 where unknown (left out).
    chains : array-like, shape (n_rows,)
    """
    series, chains = np.asarray(series), np.asarray(chains)
    n_switches = n_steps = 0
    for chain in np.unique(chains):
        mine = series[(chains == chain) & (series >= 0)]
        n_switches += int(np.count_nonzero(np.diff(mine)))
        n_steps += max(len(mine) - 1, 0)
    return n_switches, n_steps


def telling_descriptors(channels: Channels, scale=None) -> Sequence[int]:
    """Columns of the descriptors in which the channels lie furthest apart; of one channel, those that vary most.

    Parameters
    ----------
    channels : Channels
    scale : array-like, shape (d,), optional
        See `cluster`.

    Returns
    -------
    list of int
        All columns, the most telling first.
    """
    x = channels.points
    scale = x.std(axis=0) if scale is None else np.asarray(scale, dtype=float)
    x = x / np.where(scale > 0, scale, 1.0)
    means = np.stack([x[channels.labels == k].mean(axis=0) for k in range(channels.n_channels)])
    within = np.mean((x - means[channels.labels]) ** 2, axis=0)
    if channels.n_channels > 1:
        merit = np.ptp(means, axis=0) / np.sqrt(within + 1e-12 * (x.var(axis=0) + 1e-300))
    else:
        merit = x.var(axis=0)
    return list(np.argsort(-merit, kind="stable"))

"""Which way do the transition paths go? Channels as clusters of the points where paths cross the transition state.

The learned committor gives the place: a path crosses where its reaction coordinate changes sign, p = 1/2. The last
crossing of each distinct path is one point in the space of the descriptors; `ops_aimmd.committor.clusters` says which
groups of points are channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ops_aimmd.committor.clusters import by_size, cluster


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
        Fraction of the MC steps spent in each channel, and standard error from the number of stays in it
        (:func:`population_errors`).
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


def find_channels(points: np.ndarray, path_of_row, chains, scale=None) -> Channels:
    """Channels of the paths of a run, their populations and the switches between them.

    Parameters
    ----------
    points : array, shape (n_paths, d)
        A crossing of each distinct path.
    path_of_row : int array-like, shape (n_rows,)
        Current path after each shot, -1 where it is not known.
    chains : array-like, shape (n_rows,)
    scale : array-like, shape (d,), optional
        See `cluster`.
    """
    path_of_row, chains = np.asarray(path_of_row, dtype=int), np.asarray(chains)
    known = path_of_row >= 0
    weights = np.bincount(path_of_row[known], minlength=len(points)).astype(float)
    labels = by_size(cluster(points, scale), weights)
    series = np.full(len(path_of_row), -1)
    series[known] = labels[path_of_row[known]]
    n_switches, n_steps = count_switches(series, chains)
    n_channels = int(labels.max()) + 1 if len(labels) else 0
    populations = np.bincount(series[known], minlength=n_channels) / max(known.sum(), 1)
    ends = [count_switches(np.where(known, series == channel, -1), chains)[0] for channel in range(n_channels)]
    errors = population_errors(populations, np.array(ends) / 2)
    return Channels(np.asarray(points), labels, series, populations, errors, n_switches, n_steps)


def population_errors(populations: np.ndarray, n_stays: np.ndarray) -> np.ndarray:
    r"""Standard errors of the fractions of time p spent in channels, from the number n of stays in each.

    The variance is :math:`2 p^2 (1 - p)^2 / n` for a channel that is left and entered at constant rates. For few stays, n
    itself is uncertain: with the factor 1 + 2/n, found by simulation, 95 % intervals hold from six stays on. NaN for a
    channel that was never left or entered.
    """
    n = np.where(np.asarray(n_stays) > 0, n_stays, np.nan)
    return populations * (1 - populations) * np.sqrt(2 / n * (1 + 2 / n))


def count_switches(series, chains) -> tuple[int, int]:
    """Changes of channel between consecutive rows of a chain, and the number of such pairs of rows.

    Rows with an unknown channel, -1 in the series (n_rows,), are left out.
    """
    series, chains = np.asarray(series), np.asarray(chains)
    n_switches = n_steps = 0
    for chain in np.unique(chains):
        mine = series[(chains == chain) & (series >= 0)]
        n_switches += int(np.count_nonzero(np.diff(mine)))
        n_steps += max(len(mine) - 1, 0)
    return n_switches, n_steps


def telling_descriptors(channels: Channels) -> Sequence[int]:
    """All columns of the descriptors, those first in which the channels lie furthest apart or, of one, that vary most."""
    x = channels.points
    scale = x.std(axis=0)
    x = x / np.where(scale > 0, scale, 1.0)
    means = np.stack([x[channels.labels == k].mean(axis=0) for k in range(channels.n_channels)])
    within = np.mean((x - means[channels.labels]) ** 2, axis=0)
    if channels.n_channels > 1:
        merit = np.ptp(means, axis=0) / np.sqrt(within + 1e-12 * (x.var(axis=0) + 1e-300))
    else:
        merit = x.var(axis=0)
    return list(np.argsort(-merit, kind="stable"))

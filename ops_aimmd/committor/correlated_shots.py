r"""Shots of a chain are correlated: their order in time, blocks and folds of them, and errors of what they estimate.

A shooting point is picked from the current path, and one path follows from the other. So shots that are neighbours in a
chain resemble each other, in descriptors and in whatever the descriptors leave out. Rows of a training set may come in any
order; what counts here is the chain and the step of each shot.

Errors are clustered ("sandwich") errors: of the sums over blocks, or over the shots of one configuration, whatever the
correlation inside (K.-Y. Liang, S. L. Zeger, Biometrika 73, 13 (1986), doi:10.1093/biomet/73.1.13). How long the blocks
must be is found by doubling them until their sums are no longer correlated (M. Jonsson, Phys. Rev. E 98, 043304 (2018),
doi:10.1103/PhysRevE.98.043304, after H. Flyvbjerg, H. G. Petersen, J. Chem. Phys. 91, 461 (1989), doi:10.1063/1.457480).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc, comb, stdtrit

SIGNIFICANCE = 0.02
"""Probability with which independent values are taken for correlated ones."""

FEWEST_BLOCKS = 4
"""Correlation is measured between at least so many blocks."""

FEWEST_FOR_ERRORS = 6
"""Errors are estimated from at least so many blocks. The spread of fewer is too uncertain."""

MARGIN = 2
"""Blocks are made longer than the shortest that pass the test by this factor, because some correlation is left in those."""

MOST_LOST = 0.7
"""Largest fraction of the variance of a sum that the correction for the subtracted mean may add."""

WHOLE_CHAIN = 2**40
"""Length of a block for whole chains: longer than any chain."""

SHORTER = 4
"""Blocks of uncorrelated shots are shorter than the longest by this factor: they cover more of what a chain has seen."""

BLOCKS, GAPS = 4, 2
"""Length of the blocks of correlated shots, and of the gaps between them, in lengths over which they are correlated."""


def in_time(chains, steps) -> np.ndarray:
    """Rows chain after chain, and in each chain in the order of its steps, int array (n,).

    A step of -1 is not known: such shots come first, in the order of their rows.
    """
    return np.lexsort((np.arange(len(chains)), np.asarray(steps), np.asarray(chains)))


def blocks(chains, steps, length: int) -> np.ndarray:
    """Number of the block of each shot, int array (n,): `length` shots of one chain that follow each other in time.

    The last block of a chain may be shorter. Blocks count from 0, in the order of :func:`in_time`.
    """
    order, rank = _ranked(chains, steps)
    found = np.empty(len(order), dtype=np.int64)
    found[order] = np.cumsum(rank % length == 0) - 1
    return found


@dataclass(frozen=True)
class Folds:
    """How shots are dealt into folds: blocks of a chain in turn.

    Shots that come later in their chain change no fold. Shots close to a block of a fold resemble those in it; a gap on
    both sides of the block keeps them from the training of the member that is judged by the block.

    Attributes
    ----------
    length : int
        Consecutive shots of a block.
    gap : int
        Shots on either side of a block that belong neither to its fold nor to the rest.
    """

    n_folds: int
    length: int
    gap: int = 0

    @classmethod
    def dealt(cls, chains, n_folds: int, correlated: int = 1) -> Folds:
        """Whole chains if there are as many as folds, else blocks as long as the correlation of the shots asks for.

        The longest blocks are a fold's share of the longest chain. A member that does not see a long part of a chain
        extrapolates to it, and knows less than the model will. So blocks are long only where neighbours of short ones would
        tell their outcomes.

        Parameters
        ----------
        chains : int array, shape (n,)
        correlated : int
            Block length (:func:`block_length`) of the residuals of held-out shots.
        """
        sizes = np.unique(chains, return_counts=True)[1]
        if len(sizes) >= n_folds:
            return cls(n_folds, WHOLE_CHAIN)
        longest = max(-(-sizes.max(initial=1) // n_folds), 1)
        if correlated == 1:
            return cls(n_folds, -(-longest // SHORTER))
        length = int(np.clip(BLOCKS * correlated, -(-longest // SHORTER), longest))
        return cls(n_folds, length, min(GAPS * correlated, length))

    def of(self, chains, steps) -> np.ndarray:
        """Fold of each shot, int array, shape (n,)."""
        order, rank = _ranked(chains, steps)
        found = np.empty(len(order), dtype=np.int64)
        found[order] = (rank // self.length + np.asarray(chains)[order]) % self.n_folds
        return found

    def gaps(self, chains, steps) -> np.ndarray:
        """Shots in the gaps around the blocks of each fold, bool array, shape (n_folds, n)."""
        order, _ = _ranked(chains, steps)
        fold, chains = self.of(chains, steps)[order], np.asarray(chains)[order]
        n = len(order)
        near = np.zeros((self.n_folds, n), dtype=bool)
        for lag in range(1, min(self.gap, n - 1) + 1):
            rows = np.flatnonzero((chains[lag:] == chains[:-lag]) & (fold[lag:] != fold[:-lag]))
            near[fold[rows], order[rows + lag]] = True
            near[fold[rows + lag], order[rows]] = True
        return near


def _ranked(chains, steps) -> tuple[np.ndarray, np.ndarray]:
    """Rows in time, and the position of each in its chain."""
    order = in_time(chains, steps)
    chains = np.asarray(chains)[order]
    return order, np.arange(len(order)) - np.searchsorted(chains, chains)


def position_in_chain(chains, steps) -> np.ndarray:
    """Position of each shot in its chain: above 0 for the first, 1 for the last, shape (n,)."""
    order, rank = _ranked(chains, steps)
    _, rows, lengths = np.unique(np.asarray(chains)[order], return_inverse=True, return_counts=True)
    found = np.empty(len(order))
    found[order] = (rank + 1) / lengths[rows]
    return found


def sums_over(clusters, values) -> np.ndarray:
    """Sums (m, ...) over the rows (n, ...) of each cluster."""
    _, rows = np.unique(clusters, return_inverse=True)
    values = np.asarray(values, dtype=np.float64)
    sums = np.zeros((rows.max() + 1 if len(rows) else 0, *values.shape[1:]))
    np.add.at(sums, rows, values)
    return sums


def clustered_error(scores, clusters) -> np.ndarray:
    r"""Standard errors of a sum, the roots of :math:`\frac{m}{m-1} \sum_c s_c^2` with the sums :math:`s_c` over m clusters.

    Parameters
    ----------
    scores : array, shape (n,) or (n, k)
        Contributions of the rows, which sum up to zero at the estimate: gradients of a log-likelihood, or deviations from a
        mean.
    clusters : array, shape (n,)
        What may be correlated has the same value: a block, a configuration, a shot.

    Returns
    -------
    array, shape (k,)
        NaN for a single cluster.
    """
    scores = np.asarray(scores, dtype=np.float64).reshape(len(clusters), -1)
    sums = sums_over(clusters, scores)
    if len(sums) < 2:
        return np.full(scores.shape[1], np.nan)
    return np.sqrt(np.diag(len(sums) / (len(sums) - 1) * sums.T @ sums))


def block_length(values, chains, steps, margin: int = MARGIN) -> int:
    r"""Block length at which the sums over consecutive blocks are uncorrelated.

    Values are summed up in pairs of neighbours, these in pairs again, and so on. The first level is taken from which on
    the correlation of neighbouring sums, :math:`z_j = \sqrt{m_j} (\rho_j + 1/m_j)` of :math:`m_j` sums, is no larger than
    that of independent values in all levels together, :math:`\sum_j \max(z_j, 0)^2`. The term :math:`1/m_j` is the
    correlation that subtracting the mean makes.

    Parameters
    ----------
    values : array, shape (n,) or (n, k)
        The most correlated column decides.
    chains, steps : int arrays, shape (n,)
    margin : int
        Factor on the length that is found. Values with much noise beside what is correlated need a larger one.

    Returns
    -------
    int
        1 for values without correlation. Correlation over much of the longest chain cannot be told from a trend: then the
        length is that of a chain's fourth or more.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        return 1
    if not np.isfinite(values).all():
        raise ValueError(
            f"correlations need finite values; NaN or infinite in {np.sum(~np.isfinite(values))} of {values.size}"
        )
    values = values.reshape(len(values), -1)
    order = in_time(chains, steps)
    starts = np.flatnonzero(np.diff(np.asarray(chains)[order])) + 1
    parts = np.split(values[order] - values.mean(axis=0), starts)
    levels = []
    while sum(map(len, parts)) >= FEWEST_BLOCKS and max(map(len, parts)) > 1:
        levels.append(_correlation_of_neighbours(parts))
        parts = [part[: len(part) // 2 * 2].reshape(-1, 2, values.shape[1]).sum(axis=1) for part in parts]
    excess = np.maximum(np.array(levels).reshape(-1, values.shape[1]), 0) ** 2
    rest = np.cumsum(excess[::-1], axis=0)[::-1]
    for level, sums in enumerate(rest):
        if _tail(sums.max(), len(rest) - level) > SIGNIFICANCE:
            return margin * 2**level if level else 1
    return margin * 2 ** len(rest)


def _correlation_of_neighbours(parts: list[np.ndarray]) -> np.ndarray:
    """The z of `block_length` for each column, shape (k,), from the sums (m, k) of each chain."""
    every = np.concatenate(parts)
    mean, variance = every.mean(axis=0), every.var(axis=0)
    n_pairs = sum(max(len(part) - 1, 0) for part in parts)
    products = sum(((part[1:] - mean) * (part[:-1] - mean)).sum(axis=0) for part in parts)
    varies = variance > 1e-14 * (every**2).mean(axis=0)
    correlation = products / np.where(varies, variance, 1) / n_pairs
    return np.where(varies, np.sqrt(n_pairs) * (correlation + 1 / len(every)), 0.0)


def _tail(value: float, n: int) -> float:
    """Probability that the sum of the squares of n independent standard normal numbers, where positive, is larger."""
    if not value > 0:
        return 1.0
    positive = np.arange(1, n + 1)
    return float((comb(n, positive) / 2.0**n * chdtrc(positive, value)).sum())


def length_for_errors(values, chains, steps, margin: int = MARGIN) -> int:
    """`block_length` of values (n,) or (n, k), shortened so that `FEWEST_FOR_ERRORS` blocks remain."""
    return min(block_length(values, chains, steps, margin), max(len(values) // FEWEST_FOR_ERRORS, 1))


def error_of_sum(values, chains, steps, margin: int = MARGIN) -> np.ndarray:
    """Standard error of a sum over correlated shots, from sums over blocks of `block_length`.

    The spread of few blocks is uncertain. Errors from few are enlarged, so that 1.96 of them hold 95 % (Student's t).

    Parameters
    ----------
    values : array, shape (n,) or (n, k)
        Contributions of the shots, less their mean.
    chains, steps : int arrays, shape (n,)
    margin : int
        See `block_length`.

    Returns
    -------
    array, shape (k,)
        NaN where not even two blocks are there.
    """
    values = np.asarray(values, dtype=np.float64).reshape(len(chains), -1)
    return np.array([_error_of_column(column, chains, steps, margin) for column in values.T])


def _error_of_column(values: np.ndarray, chains, steps, margin: int) -> float:
    length = length_for_errors(values, chains, steps, margin)
    clusters = blocks(chains, steps, length)
    n_blocks = clusters.max() + 1
    if n_blocks < 2:
        return np.nan
    (error,) = clustered_error(values, clusters)
    if length == 1:
        return float(error)
    lost = min(error**2 / max((values**2).sum(), 1e-300) / len(values), MOST_LOST)  # by the mean that was subtracted
    return float(error / np.sqrt(1 - lost) * of_few(n_blocks))


def of_few(n_blocks: int) -> float:
    """Factor that enlarges a standard error from few blocks to one with which 1.96 errors hold 95 %.

    Student's t, with two thirds of the degrees of freedom, as the length of the blocks was chosen from the same values.
    """
    freedom = max(2 / 3 * (n_blocks - 1), 1.0)
    return float(stdtrit(freedom, 0.975) / 1.959964)


def jackknife_covariance(scores, information, clusters) -> np.ndarray:
    r"""Covariance of a maximum-likelihood estimate whatever the correlation inside the clusters.

    The jackknife over the m clusters, :math:`\frac{m-1}{m} \sum_c \delta_c \delta_c^\top`, where
    :math:`\delta_c = (I - I_c)^{-1} s_c` is the change of the estimate in one Newton step without cluster c. This is the
    sandwich estimate with the leverage of each cluster taken out, CR3, which is right for some 50 clusters already
    (R. M. Bell, D. F. McCaffrey, Survey Methodology 28, 169 (2002)).

    Parameters
    ----------
    scores : array, shape (n, k)
        Gradient of the log-likelihood of each row at the estimate; they sum up to zero.
    information : array, shape (n, k, k)
        Negative second derivatives of the log-likelihood of each row.
    clusters : array, shape (n,)
        What may be correlated has the same value.

    Returns
    -------
    array, shape (k, k)
        NaN where the estimate needs each cluster: without one of them it would not be determined.
    """
    sums, parts = sums_over(clusters, scores), sums_over(clusters, information)
    rest = parts.sum(axis=0) - parts
    if len(sums) < 2:
        return np.full(rest.shape[1:], np.nan)
    values = np.linalg.eigvalsh(rest)
    if not (values[:, 0] > 1e-12 * values[:, -1]).all():
        return np.full(rest.shape[1:], np.nan)
    changes = np.linalg.solve(rest, sums[..., None])[..., 0]
    return (len(sums) - 1) / len(sums) * changes.T @ changes

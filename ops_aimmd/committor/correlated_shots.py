r"""Shots of a chain are correlated: their order in time, blocks and folds of them, and errors of what they estimate.

A shooting point is picked from the current path, and one path follows from the other. So shots that are neighbours in a
chain resemble each other, in descriptors and in whatever the descriptors leave out. Rows of a training set may come in any
order; what counts here is the chain and the step of each shot.

Errors are clustered ("sandwich") errors: of the sums over blocks, or over the shots of one configuration, whatever the
correlation inside (K.-Y. Liang, S. L. Zeger, Biometrika 73, 13 (1986), doi:10.1093/biomet/73.1.13).
"""

from __future__ import annotations

import numpy as np


def in_time(chains, steps) -> np.ndarray:
    """Rows chain after chain, and in each chain in the order of its steps.

    Parameters
    ----------
    chains, steps : int arrays, shape (n,)
        A step of -1 is not known: such shots come first, in the order of their rows.

    Returns
    -------
    int array, shape (n,)
    """
    return np.lexsort((np.arange(len(chains)), np.asarray(steps), np.asarray(chains)))


def blocks(chains, steps, length: int) -> np.ndarray:
    """Number of the block of each shot: `length` shots of one chain that follow each other in time.

    Parameters
    ----------
    chains, steps : int arrays, shape (n,)
    length : int
        Shots of a block; the last block of a chain may be shorter.

    Returns
    -------
    int array, shape (n,)
        From 0, in the order of :func:`in_time`.
    """
    order, rank = _ranked(chains, steps)
    found = np.empty(len(order), dtype=np.int64)
    found[order] = np.cumsum(rank % length == 0) - 1
    return found


def folds(chains, steps, n_folds: int, length: int) -> np.ndarray:
    """Fold of each shot: blocks of `length` shots of a chain are dealt in turn.

    Shots that come later in their chain change no fold.

    Returns
    -------
    int array, shape (n,)
    """
    order, rank = _ranked(chains, steps)
    found = np.empty(len(order), dtype=np.int64)
    found[order] = (rank // length + np.asarray(chains)[order]) % n_folds
    return found


def _ranked(chains, steps) -> tuple[np.ndarray, np.ndarray]:
    """Rows in time, and the position of each in its chain."""
    order = in_time(chains, steps)
    chains = np.asarray(chains)[order]
    return order, np.arange(len(order)) - np.searchsorted(chains, chains)


def sums_over(clusters, values) -> np.ndarray:
    """Sums (m, ...) over the rows (n, ...) of each cluster."""
    _, rows = np.unique(clusters, return_inverse=True)
    values = np.asarray(values, dtype=np.float64)
    sums = np.zeros((rows.max() + 1 if len(rows) else 0, *values.shape[1:]))
    np.add.at(sums, rows, values)
    return sums


def clustered_covariance(scores, clusters) -> np.ndarray:
    r"""Covariance of a sum of scores, :math:`\frac{m}{m-1} \sum_c s_c s_c^\top` with the sums :math:`s_c` over m clusters.

    Parameters
    ----------
    scores : array, shape (n,) or (n, k)
        Contributions of the rows, which sum up to zero at the estimate: gradients of a log-likelihood, or deviations from a
        mean.
    clusters : array, shape (n,)
        What may be correlated has the same value: a block, a configuration, a shot.

    Returns
    -------
    array, shape (k, k)
        NaN for a single cluster.
    """
    scores = np.asarray(scores, dtype=np.float64).reshape(len(clusters), -1)
    sums = sums_over(clusters, scores)
    if len(sums) < 2:
        return np.full((scores.shape[1], scores.shape[1]), np.nan)
    return len(sums) / (len(sums) - 1) * sums.T @ sums


def clustered_error(scores, clusters) -> np.ndarray:
    """Standard errors (k,) of a sum of scores (n, k); see :func:`clustered_covariance`."""
    return np.sqrt(np.diag(clustered_covariance(scores, clusters)))


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
    if len(sums) < 2 or not np.linalg.cond(rest).max() < 1e12:
        return np.full(rest.shape[1:], np.nan)
    changes = np.linalg.solve(rest, sums[..., None])[..., 0]
    return (len(sums) - 1) / len(sums) * changes.T @ changes

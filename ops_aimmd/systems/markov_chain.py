"""Reversible Markov chains as OPS engines: linear algebra gives their path ensembles exactly."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import numpy as np
from openpathsampling.engines import DynamicsEngine, SnapshotDescriptor, Trajectory
from openpathsampling.engines.delayedinterrupt import EmptyContext
from openpathsampling.engines.toy import Snapshot, Topology

ROUNDING = 1e-10
"""Above float64 rounding of sums of a few hundred probabilities, below any difference that matters."""


def reversible_transition_matrix(conductances: np.ndarray) -> np.ndarray:
    r"""Transition matrix of the random walk on a network of conductances.

    Every reversible chain can be written so: :math:`T_{ij} = c_{ij} / \sum_k c_{ik}` with the symmetric flux
    :math:`c_{ij} \propto \pi_i T_{ij}`. A tridiagonal matrix gives a birth-death chain.

    Parameters
    ----------
    conductances : np.ndarray, shape (n_sites, n_sites)
        Symmetric, non-negative; element (i, i) is the flux of staying at site i.

    Returns
    -------
    np.ndarray, shape (n_sites, n_sites)
        Row i holds the probabilities of the next site after site i.

    Raises
    ------
    ValueError
        If the matrix is not square, symmetric and non-negative, or nothing leads out of or stays at a site.
    """
    conductances = np.asarray(conductances, dtype=float)
    if conductances.ndim != 2 or conductances.shape[0] != conductances.shape[1]:
        raise ValueError(f"conductances have the shape {conductances.shape}; expected a square matrix")
    if not np.all(conductances >= 0) or not np.array_equal(conductances, conductances.T):
        raise ValueError("conductances are negative or not symmetric; give c[i, j] = c[j, i] >= 0")
    totals = conductances.sum(axis=1)
    if np.any(totals == 0):
        raise ValueError(f"sites {np.flatnonzero(totals == 0).tolist()} have no conductance; connect them")
    return conductances / totals[:, None]


def stationary_distribution(transition_matrix: np.ndarray) -> np.ndarray:
    r"""Equilibrium probabilities of a reversible chain.

    Solves :math:`\pi T = \pi`, :math:`\sum_i \pi_i = 1`.

    Parameters
    ----------
    transition_matrix : np.ndarray, shape (n_sites, n_sites)
        Row i holds the probabilities of the next site after site i.

    Returns
    -------
    np.ndarray, shape (n_sites,)

    Raises
    ------
    ValueError
        If the rows are no probabilities, if some sites cannot be reached from others, or if detailed balance
        is broken: time reversal, on which shooting moves rest, then does not hold.
    """
    matrix = np.asarray(transition_matrix, dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"the transition matrix has the shape {matrix.shape}; expected (n_sites, n_sites)")
    sums = matrix.sum(axis=1)
    if not np.all(matrix >= 0) or not np.allclose(sums, 1.0, rtol=0, atol=ROUNDING):
        raise ValueError(
            f"the rows of the transition matrix sum to {sums.tolist()} and its smallest element is "
            f"{matrix.min()}; expected non-negative elements and rows that sum to one"
        )
    n_sites = len(matrix)
    if not np.all(np.linalg.matrix_power(np.eye(n_sites) + matrix, n_sites) > 0):
        raise ValueError("some sites of the chain cannot be reached from others; remove or connect them")
    equations = np.vstack([matrix.T - np.eye(n_sites), np.ones(n_sites)])
    distribution = np.linalg.lstsq(equations, np.append(np.zeros(n_sites), 1.0), rcond=None)[0]
    flux = distribution[:, None] * matrix
    imbalance = np.abs(flux - flux.T)
    if imbalance.max() > ROUNDING:
        i, j = np.unravel_index(imbalance.argmax(), imbalance.shape)
        raise ValueError(
            f"detailed balance is broken: the flux from site {i} to site {j} is {flux[i, j]:.6g}, back it is "
            f"{flux[j, i]:.6g}; reversible_transition_matrix makes matrices that obey it"
        )
    return distribution


class MarkovChainEngine(DynamicsEngine):
    """OPS engine that runs a reversible Markov chain.

    A frame is a toy snapshot. Its only coordinate, shape (1, 1), is the index of the site. A step of the
    chain is a frame. The chain has no momenta: velocities are zero and a frame is its own time reversal, so
    that ``paths.NoModification(as_copy=True)`` is the modifier for two-way shooting.

    Draws one number per frame from numpy's global generator, as OPS's toy engines do.

    Parameters
    ----------
    transition_matrix : np.ndarray, shape (n_sites, n_sites)
        Row i holds the probabilities of the next site after site i; obeys detailed balance.
    options : dict or None
        Options of an OPS engine; ``n_frames_max`` is 5000 unless given.

    Raises
    ------
    ValueError
        If the matrix is no reversible transition matrix.
    """

    base_snapshot_type = Snapshot
    _default_options = {"n_frames_max": 5000}

    def __init__(self, transition_matrix: np.ndarray, options: dict | None = None):
        stationary_distribution(transition_matrix)
        descriptor = SnapshotDescriptor.construct(Snapshot, {"n_atoms": 1, "n_spatial": 1})
        super().__init__(options=options, descriptor=descriptor)
        self.transition_matrix = transition_matrix
        self.topology = Topology(n_spatial=1, masses=np.ones(1), pes=None)
        self.interrupter = EmptyContext  # delaying an interrupt costs more than a step, which has nothing to save
        self._site = 0
        # rows end before their last possible site, so that rounding cannot lead to an impossible one
        self._cumulative = [np.cumsum(row)[: np.flatnonzero(row)[-1]].tolist() for row in transition_matrix]

    def to_dict(self) -> dict:
        return {"transition_matrix": self.transition_matrix, "options": self.options}

    def trajectory(self, sites: Iterable[int]) -> Trajectory:
        """The path through the given sites, for instance an initial one."""
        return Trajectory([self._frame(site) for site in sites])

    @property
    def current_snapshot(self) -> Snapshot:
        return self._frame(self._site)

    @current_snapshot.setter
    def current_snapshot(self, snapshot: Snapshot):
        self.check_snapshot_type(snapshot)
        self._site = round(float(snapshot.coordinates[0, 0]))

    def generate_next_frame(self) -> Snapshot:
        self._site = bisect_right(self._cumulative[self._site], np.random.random())  # noqa: NPY002
        return self._frame(self._site)

    def _frame(self, site: int) -> Snapshot:
        return Snapshot(coordinates=np.array([[float(site)]]), velocities=np.zeros((1, 1)), engine=self)


def site_indices(trajectory: Trajectory) -> np.ndarray:
    """Sites that a trajectory of a `MarkovChainEngine` visits.

    Returns
    -------
    np.ndarray, shape (n_frames,), int
    """
    return np.array([round(float(frame.coordinates[0, 0])) for frame in trajectory], dtype=int)

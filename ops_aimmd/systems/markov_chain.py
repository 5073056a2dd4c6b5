r"""Reversible Markov chains: dynamics whose path ensembles are known by linear algebra.

On a chain with finitely many sites everything that path sampling estimates is a sum over paths that a
matrix inverse carries out: committors, the lengths of transition paths, how often they visit each site. A
sampler that is only nearly right therefore shows here, with no time step or histogram in the way.

A path :math:`x_0 \dots x_n` has the weight :math:`\pi(x_0)\, T(x_0, x_1) \cdots T(x_{n-1}, x_n)`. Detailed
balance, :math:`\pi(x) T(x, y) = \pi(y) T(y, x)`, makes this the weight of the reversed path too, as in
equilibrium dynamics.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from openpathsampling.engines import DynamicsEngine, SnapshotDescriptor, Trajectory
from openpathsampling.engines.delayedinterrupt import EmptyContext
from openpathsampling.engines.toy import Snapshot, Topology

__all__ = [
    "MarkovChainEngine",
    "MarkovChainPathEnsemble",
    "committor",
    "reversible_transition_matrix",
    "site_indices",
    "stationary_distribution",
]

_ROUNDING = 1e-10
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
    if not np.all(matrix >= 0) or not np.allclose(sums, 1.0, rtol=0, atol=_ROUNDING):
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
    if imbalance.max() > _ROUNDING:
        i, j = np.unravel_index(imbalance.argmax(), imbalance.shape)
        raise ValueError(
            f"detailed balance is broken: the flux from site {i} to site {j} is {flux[i, j]:.6g}, back it is "
            f"{flux[j, i]:.6g}; reversible_transition_matrix makes matrices that obey it"
        )
    return distribution


def committor(transition_matrix: np.ndarray, states: Sequence[Iterable[int]]) -> np.ndarray:
    r"""Probability of each site to reach each state before the others.

    Between the states :math:`p_k(x) = \sum_y T(x, y)\, p_k(y)`; in state j :math:`p_k = \delta_{jk}`.

    Parameters
    ----------
    transition_matrix : np.ndarray, shape (n_sites, n_sites)
        Obeys detailed balance.
    states : sequence of n_states sets of sites

    Returns
    -------
    np.ndarray, shape (n_sites, n_states)
        Rows sum to one.

    Raises
    ------
    ValueError
        If the matrix is no reversible transition matrix, or the states overlap or are empty.
    """
    stationary_distribution(transition_matrix)
    matrix = np.asarray(transition_matrix, dtype=float)
    states, interior = _split_sites(len(matrix), states)
    probability = np.zeros((len(matrix), len(states)))
    for k, state in enumerate(states):
        probability[state, k] = 1.0
    among = matrix[np.ix_(interior, interior)]
    probability[interior] = np.linalg.solve(np.eye(len(interior)) - among, matrix[interior] @ probability)
    return probability


class MarkovChainPathEnsemble:
    r"""Exact averages over the paths between the states of a reversible chain.

    The ensemble holds the paths whose first and last frame lie in the two states of one of the pairs and
    whose other frames, one at least, lie in no state. With :math:`Q` the transition probabilities among the
    sites outside all states, :math:`a` the equilibrium flux into them from the first state, and :math:`b` the
    probability to step from them into the second, the paths of :math:`n` frames have the total weight
    :math:`a Q^{n-3} b` and those of any length :math:`a (1 - Q)^{-1} b` (Kemeny and Snell, *Finite Markov
    Chains*, chapter III, 1960). The paths that cross an interface are all paths less those of the chain that
    lacks the sites beyond the interface.

    Lengths are numbers of frames as OPS counts them: the end frames in the states included.

    Parameters
    ----------
    transition_matrix : np.ndarray, shape (n_sites, n_sites)
        Obeys detailed balance.
    states : sequence of n_states sets of sites
    pairs : sequence of (int, int)
        Indices of the first and the last state of the paths in the ensemble: ``[(0, 1)]`` for A->B only,
        ``[(0, 1), (1, 0)]`` for both directions, ``[(0, 0), (0, 1)]`` for an interface ensemble.
    crossing : set of sites or None
        If given, only paths with at least one frame, end frames count, at these sites belong to the ensemble.
    max_length : int or None
        If given, only paths of at most so many frames belong to the ensemble.

    Notes
    -----
    The averages raise ValueError if the matrix, the states or the pairs make no sense, or if no path belongs
    to the ensemble.
    """

    def __init__(
        self,
        transition_matrix: np.ndarray,
        states: Sequence[Iterable[int]],
        pairs: Sequence[tuple[int, int]],
        crossing: Iterable[int] | None = None,
        max_length: int | None = None,
    ):
        self.transition_matrix = transition_matrix
        self.states = states
        self.pairs = pairs
        self.crossing = crossing
        self.max_length = max_length

    def length_distribution(self, n_frames: int) -> np.ndarray:
        """Probability of each path length.

        Parameters
        ----------
        n_frames : int
            The longest length that is asked for.

        Returns
        -------
        np.ndarray, shape (n_frames + 1,)
            Element n is the probability of a path of n frames, normalised over the whole ensemble: the sum
            falls short of one by the probability of longer paths.
        """
        weights = np.zeros(n_frames + 1)
        for sign, bundle in self._bundles(self.pairs):
            reached, leaving = bundle.entry.sum(axis=0), bundle.departure.sum(axis=1)
            for length in range(3, n_frames + 1):
                weights[length] += sign * (reached @ leaving)
                reached = reached @ bundle.among
        return weights / self._total_weight()

    def mean_length(self) -> float:
        """Average number of frames of a path."""
        return float(self.mean_visits().sum())

    def mean_visits(self) -> np.ndarray:
        """Average number of frames of a path at each site.

        Returns
        -------
        np.ndarray, shape (n_sites,)
            The sum is the mean length.
        """
        visits = np.zeros(len(self.transition_matrix))
        for sign, bundle in self._bundles(self.pairs):
            before = bundle.entry.sum(axis=0) @ bundle.resolvent
            after = bundle.resolvent @ bundle.departure.sum(axis=1)
            visits[bundle.first] += sign * (bundle.entry @ after)
            visits[bundle.between] += sign * (before * after).reshape(-1, len(bundle.between)).sum(axis=0)
            visits[bundle.last] += sign * (before @ bundle.departure)
        return visits / self._total_weight()

    def pair_probabilities(self) -> np.ndarray:
        """Fraction of the paths that belong to each of the pairs.

        Returns
        -------
        np.ndarray, shape (n_pairs,)
        """
        weights = [sum(sign * bundle.weight for sign, bundle in self._bundles([pair])) for pair in self.pairs]
        return np.array(weights) / self._total_weight()

    def _total_weight(self) -> float:
        weights = [sign * bundle.weight for sign, bundle in self._bundles(self.pairs)]
        if sum(weights) <= _ROUNDING * max(weights):
            raise ValueError(
                f"no path belongs to the ensemble of the pairs {self.pairs} of the states {self.states} with "
                f"crossing {self.crossing} and max_length {self.max_length}; the end states must be reachable"
            )
        return sum(weights)

    def _bundles(self, pairs) -> list[tuple[float, _Bundle]]:
        """Bundles of paths that sum, with their signs, to the ensemble of the pairs."""
        matrix = np.asarray(self.transition_matrix, dtype=float)
        flux = stationary_distribution(matrix)[:, None] * matrix
        states, interior = _split_sites(len(matrix), self.states)
        sites = np.arange(len(matrix))
        signed_sites = [(1.0, sites)]
        if self.crossing is not None:
            signed_sites.append((-1.0, np.setdiff1d(sites, list(self.crossing))))
        return [
            (sign, _Bundle.of_paths(matrix, flux, states[i], interior, states[j], allowed, self.max_length))
            for i, j in pairs
            for sign, allowed in signed_sites
        ]


@dataclass(frozen=True)
class _Bundle:
    """All paths from some sites through some others to a third group.

    Under a length limit the sites between stand once for each frame of the longest path, in layers: a step
    leads from one layer to the next, and out of the last only into the third group. A sum over the paths up
    to the limit is then a sum over all paths.

    Attributes
    ----------
    first, between, last : np.ndarray of int
        The sites.
    entry : np.ndarray, shape (n_first, n_layers * n_between)
        Equilibrium flux from each first site to each site between.
    among : np.ndarray, shape (n_layers * n_between, n_layers * n_between)
        Transition probabilities.
    departure : np.ndarray, shape (n_layers * n_between, n_last)
        Transition probabilities.
    """

    first: np.ndarray
    between: np.ndarray
    last: np.ndarray
    entry: np.ndarray
    among: np.ndarray
    departure: np.ndarray

    @classmethod
    def of_paths(cls, matrix, flux, first, between, last, allowed, max_length) -> _Bundle:
        """Only paths all of whose sites are allowed; flux[i, j] = pi_i T_ij."""
        first, between, last = (np.intersect1d(sites, allowed) for sites in (first, between, last))
        entry = flux[np.ix_(first, between)]
        among = matrix[np.ix_(between, between)]
        departure = matrix[np.ix_(between, last)]
        if max_length is not None:
            n_layers = max(max_length - 2, 0)
            entry = np.kron(np.eye(1, n_layers), entry)
            among = np.kron(np.eye(n_layers, k=1), among)
            departure = np.kron(np.ones((n_layers, 1)), departure)
        return cls(first, between, last, entry, among, departure)

    @cached_property
    def resolvent(self) -> np.ndarray:
        """Expected visits to each site between, from each of them, before the path leaves."""
        return np.linalg.inv(np.eye(len(self.among)) - self.among)

    @property
    def weight(self) -> float:
        """Probability per step of the equilibrium chain that such a path begins."""
        return float(self.entry.sum(axis=0) @ self.resolvent @ self.departure.sum(axis=1))


class MarkovChainEngine(DynamicsEngine):
    """OPS engine whose dynamics are a reversible Markov chain.

    A frame is a toy snapshot whose only coordinate, shape (1, 1), is the index of the site. A step of the
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

    Parameters
    ----------
    trajectory : openpathsampling Trajectory

    Returns
    -------
    np.ndarray, shape (n_frames,), int
    """
    return np.array([round(float(frame.coordinates[0, 0])) for frame in trajectory], dtype=int)


def _split_sites(n_sites: int, states: Sequence[Iterable[int]]) -> tuple[list[list[int]], np.ndarray]:
    """The states as lists of sites, and the sites in no state."""
    states = [sorted(int(site) for site in state) for state in states]
    flat = [site for state in states for site in state]
    if not states or not all(states) or len(set(flat)) != len(flat):
        raise ValueError(f"the states {states} are empty or overlap; give every state sites of its own")
    if min(flat) < 0 or max(flat) >= n_sites:
        raise ValueError(f"the states {states} name sites outside 0 ... {n_sites - 1}")
    return states, np.setdiff1d(np.arange(n_sites), flat)

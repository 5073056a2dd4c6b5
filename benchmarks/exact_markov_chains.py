r"""Exact committors and path ensembles of reversible Markov chains, by linear algebra; for tests and benchmarks.

On a chain with finitely many sites everything that path sampling estimates is a sum over paths that a
matrix inverse carries out: committors, the lengths of transition paths, how often they visit each site. A
sampler that is only nearly right therefore shows here, with no time step or histogram in the way.

A path :math:`x_0 \dots x_n` has the weight :math:`\pi(x_0)\, T(x_0, x_1) \cdots T(x_{n-1}, x_n)`. Detailed
balance, :math:`\pi(x) T(x, y) = \pi(y) T(y, x)`, makes this the weight of the reversed path too, as in
equilibrium dynamics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ops_aimmd.systems.markov_chain import ROUNDING, stationary_distribution


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

    The first and the last frame of a path lie in the two states of one of the pairs, its other frames, one at
    least, in no state. With :math:`Q` the transition probabilities among the
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
        if sum(weights) <= ROUNDING * max(weights):
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
        """Only paths of allowed sites; flux[i, j] = pi_i T_ij."""
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


def _split_sites(n_sites: int, states: Sequence[Iterable[int]]) -> tuple[list[list[int]], np.ndarray]:
    """The states as lists of sites, and the sites in no state."""
    states = [sorted(int(site) for site in state) for state in states]
    flat = [site for state in states for site in state]
    if not states or not all(states) or len(set(flat)) != len(flat):
        raise ValueError(f"the states {states} are empty or overlap; give every state sites of its own")
    if min(flat) < 0 or max(flat) >= n_sites:
        raise ValueError(f"the states {states} name sites outside 0 ... {n_sites - 1}")
    return states, np.setdiff1d(np.arange(n_sites), flat)

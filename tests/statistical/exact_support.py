"""Sampling on Markov chains and the comparison with their exact path ensembles."""

import random

import numpy as np
import openpathsampling as paths
import torch
from exact_markov_chains import MarkovChainPathEnsemble

from ops_aimmd import CommittorModel, CommittorSelector
from ops_aimmd.systems.markov_chain import MarkovChainEngine, reversible_transition_matrix, site_indices

N_BATCHES = 24
"""Batches of 75 MC steps or more in the tests, six times the longest correlation time of their short chains."""

N_STEPS = 75 * N_BATCHES
"""MC steps of a quick test."""

N_EQUILIBRATION = 100
"""MC steps after which, by the same measure, nothing is left of the initial path."""

AGREES = 4.0
"""Standard errors. Of 40 samples or more, an exact sampler exceeds it in one of 3000 comparisons (Student's t)."""

BATCHES_AGREE = 4.3
"""The same for means of N_BATCHES batches, with 23 degrees of freedom."""

DISAGREES = 6.0
"""Standard errors beyond which a wrong sampler must lie, so that its failure is no accident."""


class ExactChain:
    """A Markov chain, the OPS objects to sample it with, and its exact path ensembles.

    Parameters
    ----------
    conductances : array, shape (n_sites, n_sites)
    state_sites : list of int
        The site of each state.
    """

    def __init__(self, conductances, state_sites):
        self.matrix = reversible_transition_matrix(conductances)
        self.n_sites = len(self.matrix)
        self.state_sites = state_sites
        self.engine = MarkovChainEngine(self.matrix)
        self.states = [Sites([site]).named(f"site {site}") for site in state_sites]

    def exact(self, pairs, **limits):
        return MarkovChainPathEnsemble(self.matrix, [[site] for site in self.state_sites], pairs, **limits)

    def before(self, site):
        """The volume of the sites before `site`."""
        return Sites(range(site))

    def sample_set(self, ensemble, sites):
        return paths.SampleSet([paths.Sample(0, self.engine.trajectory(sites), ensemble)])


class Sites(paths.Volume):
    """Some sites of a chain. OPS's volumes of a collective variable would need a third of the time of these tests."""

    def __init__(self, sites):
        super().__init__()
        self.sites = frozenset(sites)

    def __call__(self, snapshot):
        return site_of(snapshot) in self.sites

    def __str__(self):
        return f"sites {sorted(self.sites)}"


def birth_death_chain(links, stays):
    """A chain of sites with the states A and B at its ends; `links` are the conductances between neighbours."""
    return ExactChain(np.diag(links, 1) + np.diag(links, -1) + np.diag(stays), [0, len(links)])


def asymmetric_chain():
    """Six sites, A and B at the ends; asymmetric, and with stays so that lengths are odd and even."""
    return birth_death_chain([1.0, 2.0, 3.0, 2.0, 1.5], stays=[0.0, 0.5, 0.2, 0.8, 0.3, 0.0])


def chain_that_stays():
    """Four sites; paths stay long at the first between the states.

    Few paths visit both sites equally often, and lengths differ, and so do the times of shots.
    """
    return birth_death_chain([1.7, 0.2, 0.2], stays=[0.0, 12.0, 0.1, 0.0])


def one_directional(chain):
    return paths.TPSNetwork(*chain.states).sampling_ensembles[0]


class LogitsOfSites(torch.nn.Module):
    """A network that gives each site logits from a table."""

    def __init__(self, table):
        super().__init__()
        self.register_buffer("table", torch.tensor(table, dtype=torch.float32))

    def forward(self, x):
        return self.table[x[:, 0].round().long()]


class ModelOfSites(CommittorModel):
    """A model with given logits. Its log committor is looked up: the network would take a third of the time of these tests.

    Parameters
    ----------
    logits : (n_sites,) for two states, or (n_sites, n_states)
    """

    def __init__(self, logits):
        logits = np.asarray(logits, dtype=float)
        logits = logits[:, None] if logits.ndim == 1 else logits
        super().__init__(LogitsOfSites(logits), n_descriptors=1, n_states=max(logits.shape[1], 2))
        self._log_committor = super().log_committor(np.arange(len(logits), dtype=float)[:, None])

    def log_committor(self, x):
        return self._log_committor[np.rint(x[:, 0]).astype(int)]


def site_of(snapshot):
    """A whole number; `float`, for to round numbers of numpy would take a tenth of the time of these tests."""
    return snapshot.coordinates.item(0)


class SiteSelector(paths.ShootingPointSelector):
    """Selects shooting points with a given weight for each site: the plainest selector there is.

    Parameters
    ----------
    weights : list of float
        Zero in the states.
    """

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def f(self, snapshot, trajectory):
        return self.weights[int(site_of(snapshot))]


class WithoutRatio:
    """Wrong on purpose: leaves the ratio of the selection probabilities out of the acceptance."""

    def probability_ratio(self, snapshot, old_trajectory, new_trajectory, new_snapshot=None):
        return 1.0

    def ratio(self, pick, new_trajectory, new_index):
        return 1.0


class CommittorSelectorWithoutRatio(WithoutRatio, CommittorSelector):
    """Wrong on purpose."""


def seed_everything(seed):
    """Seed all generators that OPS and the engine draw from."""
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    paths.default_rng().bit_generator.state = np.random.default_rng(seed).bit_generator.state


def sample_paths(mover, sample_set, n_steps, seed, observe=lambda change: None):
    """Sample paths with an OPS mover, without the machinery around it.

    Parameters
    ----------
    mover : object with a method ``move(sample_set)`` that returns an OPS move change
    sample_set : openpathsampling.SampleSet
        The path is replica 0.
    n_steps : int
    seed : int
    observe : callable
        Called with the change of each step.

    Returns
    -------
    list of int arrays
        The sites of the path after each step, accepted or not; the first steps, before the start is forgotten,
        are left out.
    """
    seed_everything(seed)
    sampled = []
    current = site_indices(sample_set[0].trajectory)
    for step in range(N_EQUILIBRATION + n_steps):
        change = mover.move(sample_set)
        if change.accepted:
            samples = sample_set.apply_samples(change.results)
            # fresh samples, for OPS's remember all their ancestors
            sample_set = paths.SampleSet([paths.Sample(s.replica, s.trajectory, s.ensemble) for s in samples])
            current = site_indices(sample_set[0].trajectory)
        if step >= N_EQUILIBRATION:
            sampled.append(current)
        observe(change)
    return sampled


def z_scores(series, exact):
    """Deviations of the means of correlated series from their exact values, in standard errors.

    The standard error is that of the means of consecutive batches (Flegal and Jones, Ann. Statist. 38, 1034
    (2010), doi:10.1214/09-AOS735).

    Parameters
    ----------
    series : array, shape (n_steps, n_observables)
    exact : array, shape (n_observables,)

    Returns
    -------
    array, shape (n_observables,)
    """
    series = np.asarray(series, dtype=float)
    n_steps, n_observables = series.shape
    batches = series[: n_steps // N_BATCHES * N_BATCHES].reshape(N_BATCHES, -1, n_observables).mean(axis=1)
    return (batches.mean(axis=0) - exact) / (batches.std(axis=0, ddof=1) / np.sqrt(N_BATCHES))


def deviations(sampled, exact):
    """How far sampled paths are from an exact ensemble, in standard errors.

    The observables are fixed beforehand: the length; whether it is at most the median; the visits to the first,
    the middle and the last site between the states; and, where there are several, the fraction of each pair of
    end states but the last. A pair and its reverse are one: the movers need not mix the orientations of a path.

    Parameters
    ----------
    sampled : list of int arrays
        The sites of the path after each step.
    exact : MarkovChainPathEnsemble

    Returns
    -------
    dict
        Standard errors by the name of the observable.
    """
    n_sites = len(exact.transition_matrix)
    lengths = np.array([len(path) for path in sampled])
    visits = np.array([np.bincount(path, minlength=n_sites) for path in sampled])
    ends = [{path[0], path[-1]} for path in sampled]

    cumulative = np.cumsum(exact.length_distribution(1000))
    median = int(np.argmax(cumulative >= 0.5))
    series = {"length": lengths, "short": lengths <= median}
    expected = {"length": exact.mean_length(), "short": cumulative[median]}

    interior = np.setdiff1d(np.arange(n_sites), np.concatenate(exact.states))
    for site in interior[[0, len(interior) // 2, -1]]:
        series[f"visits to {site}"] = visits[:, site]
        expected[f"visits to {site}"] = exact.mean_visits()[site]

    probabilities = {}
    for pair, probability in zip(exact.pairs, exact.pair_probabilities(), strict=True):
        sites = frozenset(site for state in pair for site in exact.states[state])
        probabilities[sites] = probabilities.get(sites, 0.0) + probability
    for sites in list(probabilities)[:-1]:
        series[f"ends {sorted(sites)}"] = [end == sites for end in ends]
        expected[f"ends {sorted(sites)}"] = probabilities[sites]

    z = z_scores(np.column_stack(list(series.values())), np.array(list(expected.values())))
    return {name: round(float(value), 2) for name, value in zip(series, z, strict=True)}


def assert_exact(sampled, exact):
    z = deviations(sampled, exact)
    assert max(map(abs, z.values())) < BATCHES_AGREE, f"not the exact ensemble; standard errors: {z}"


def assert_wrong(sampled, exact):
    z = deviations(sampled, exact)
    assert max(map(abs, z.values())) > DISAGREES, f"this mistake was not found out; standard errors: {z}"

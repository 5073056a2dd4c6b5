"""A short Markov chain as a system to sample, learners with models of known values, and simulations that are quick."""

import os
from dataclasses import replace

import numpy as np
import openpathsampling as paths
import torch
from openpathsampling.beta.hooks import PathSimulatorHook

import ops_aimmd
from ops_aimmd.committor.model_version import ModelVersion
from ops_aimmd.systems.markov_chain import MarkovChainEngine, reversible_transition_matrix, site_indices

QUICK = {"max_epochs": 5, "auxiliary_weights": (0.0, 0.0), "relevance": None}
"""Training that takes no time and learns little; the default takes seconds for each run."""

QUICK_WITH_FRAMES = {"max_epochs": 5, "auxiliary_weights": (0.15, 1.0), "relevance": None}
"""The same, which also learns from the frames of legs, as the default does."""


class Chain:
    """Sites 0 to 6 in a row; state A is site 0, state B is site 6; optionally the middle site is state C."""

    def __init__(self, with_middle_state=False, n_frames_max=5000):
        links = [1.0, 2.0, 3.0, 3.0, 2.0, 1.0]
        conductances = np.diag(links, 1) + np.diag(links, -1) + np.diag([0, 0.5, 0.2, 0.8, 0.2, 0.5, 0])
        self.engine = MarkovChainEngine(reversible_transition_matrix(conductances), options={"n_frames_max": n_frames_max})
        self.site = paths.FunctionCV("site", site_of)
        self.states = [self.volume(0).named("A"), self.volume(6).named("B")]
        if with_middle_state:
            self.states.append(self.volume(3).named("C"))

    def volume(self, site):
        return paths.CVDefinedVolume(self.site, site - 0.5, site + 0.5)

    def path(self, sites):
        return self.engine.trajectory(sites)

    def initial(self):
        return self.path(range(7))

    def network(self, all_to_all=False):
        if all_to_all:
            return paths.TPSNetwork.from_states_all_to_all(self.states)
        return paths.TPSNetwork(*self.states[:2])

    def learner(self, logits=None, **options):
        """Given logits of the seven sites: a learner with that model."""
        model = None if logits is None else table_model(logits)
        options = {"fit_options": QUICK, **options}
        return ops_aimmd.CommittorLearner(site_descriptors, self.states, model=model, **options)

    def scheme(self, learner=None, network=None, **options):
        if options.get("shooting") != "one-way":
            options.setdefault("modifier", paths.NoModification(as_copy=True))
        network = self.network() if network is None else network
        return ops_aimmd.CommittorShootingScheme(network, learner, engine=self.engine, **options)


class QuickChain(Chain):
    """With jumps across sites, so that legs have some four frames."""

    def __init__(self):
        super().__init__()
        sites = np.arange(7)
        self.engine = MarkovChainEngine(reversible_transition_matrix(np.exp(-abs(sites[:, None] - sites) / 3.0)))


def site_of(snapshot):
    return snapshot.coordinates[0, 0]


def site_descriptors(trajectory):
    return site_indices(trajectory)[:, None].astype(float)


class Table(torch.nn.Module):
    """A network that gives each site logits from a table."""

    def __init__(self, table):
        super().__init__()
        self.table = torch.nn.Parameter(torch.tensor(np.asarray(table), dtype=torch.float64))

    def forward(self, x):
        return self.table[x[:, 0].round().long()]


def table_model(logits):
    """A model with given logits: (n_sites,) for two states, (n_sites, n_states) for more."""
    logits = np.asarray(logits, dtype=float)
    logits = logits[:, None] if logits.ndim == 1 else logits
    return ops_aimmd.CommittorModel(Table(logits), n_descriptors=1, n_states=max(2, logits.shape[1]))


def publish(learner, logits, density=None):
    """Put a model with given logits in the place of the learner's model, as its next version."""
    version = ModelVersion(learner.version.number + 1, table_model(logits).frozen_copy(), density)
    learner.publish(replace(learner.learned, version=version))


class Steps(PathSimulatorHook):
    """Keeps the steps of a simulation, before OPS stores them."""

    implemented_for = ["before_simulation"]

    def __init__(self):
        super().__init__()
        self.steps = []

    def before_simulation(self, sim, **kwargs):
        if self.keep not in sim.hooks["after_step"]:
            sim.hooks["after_step"].insert(0, self.keep)

    def keep(self, sim, step_number, step_info, state, results, hook_state):
        self.steps.append(results)

    def __iter__(self):
        return iter(self.steps)

    def __len__(self):
        return len(self.steps)

    def __getitem__(self, item):
        return self.steps[item]

    @property
    def details(self):
        return [step.change.canonical.details for step in self.steps]


def simulation(scheme, initial, *hooks, storage=None):
    """A sampler that says nothing, and the steps that it will make."""
    conditions = scheme.initial_conditions_from_trajectories(initial)
    sampler = paths.PathSampling(storage=storage, move_scheme=scheme, sample_set=conditions)
    sampler.output_stream = open(os.devnull, "w")
    steps = Steps()
    sampler.attach_hook(steps)
    for hook in hooks:
        sampler.attach_hook(hook)
    return sampler, steps


def seed_everything(seed):
    from ops_aimmd.shooting.streams import seed_step

    seed_step(seed, 0)


class BreakingEngine(MarkovChainEngine):
    """Raises `error` instead of making a frame, each time with probability `probability`; `n_failures` counts them."""

    error = Exception("Particle coordinate is NaN")
    probability = 0.0
    n_failures = 0

    def generate_next_frame(self):
        if self._coins.random() < self.probability:
            self.n_failures += 1
            raise self.error
        return super().generate_next_frame()


def breaking_chain(probability, error=None, **options):
    """A chain whose engine breaks down now and then."""
    chain = Chain()
    chain.engine = BreakingEngine(chain.engine.transition_matrix, options={"n_frames_max": 5000, **options})
    chain.engine._coins = np.random.default_rng(2)
    chain.engine.probability = probability
    if error is not None:
        chain.engine.error = error
    return chain

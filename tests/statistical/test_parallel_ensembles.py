"""Many chains that run asynchronously on one learner sample the exact path ensemble."""

from dataclasses import replace

import numpy as np
import openpathsampling as paths
import pytest
from exact_support import ModelOfSites, assert_exact, assert_wrong, chain_that_stays, seed_everything, site_indices
from openpathsampling.beta.hooks import PathSimulatorHook

from ops_aimmd import CommittorLearner, CommittorSelector, CommittorShootingScheme
from ops_aimmd.committor.model_version import ModelVersion
from ops_aimmd.committor.schedule import DiminishingSchedule
from ops_aimmd.runs.parallel_path_sampling import ParallelPathSampling
from ops_aimmd.shooting.executors.choose import InThisProcess

N_CHAINS, N_STEPS = 8, 150
"""Each of the 24 batches is of 50 steps of one chain, six times the correlation time or more."""

QUICK_FITS = {"max_epochs": 6, "auxiliary_weights": (0.0, 0.0), "relevance": None}
"""Poor models: the ensemble must not depend on the model."""


@pytest.fixture(params=[N_STEPS, pytest.param(8 * N_STEPS, marks=pytest.mark.slow)])
def n_steps(request):
    return request.param


@pytest.fixture(scope="module")
def sticky_chain():
    return chain_that_stays()


class ShortShotsFirst(InThisProcess):
    """Shots come back when, on a clock of their own, a worker for each would have made all frames."""

    def __init__(self):
        super().__init__()
        self.now = 0
        self.n_overtaken = 0
        self._in_flight = []

    def submit(self, spec):
        super().submit(spec)
        (result,) = super().results()
        ends = self.now + sum(len(leg.coordinates) for leg in result.legs)
        self._in_flight.append((ends, len(self._in_flight), result))

    def results(self, timeout=None):
        first = min(self._in_flight, key=lambda shot: shot[:2])
        self.n_overtaken += first is not self._in_flight[0]
        self._in_flight.remove(first)
        self.now = first[0]
        return [first[2]]


class PathsOfChains(PathSimulatorHook):
    """Keeps the sites of the path of the chain that has made a step, for each step."""

    implemented_for = ["after_step"]

    def __init__(self):
        super().__init__()
        self._of_chain = {}

    def after_step(self, sim, step_number, step_info, state, results, hook_state):
        (sample,) = results.active
        self._of_chain.setdefault(sample.replica, []).append(site_indices(sample.trajectory))
        sample.parent = None  # OPS's samples remember all their ancestors

    @property
    def sampled(self):
        """The paths of one chain after those of another."""
        return [path for chain in sorted(self._of_chain) for path in self._of_chain[chain]]


def equilibrium_path(chain, rng):
    """A path of the exact ensemble: walks out of A until one ends in B."""
    last = chain.n_sites - 1
    while True:
        sites = [0, 1]
        while 0 < sites[-1] < last:
            sites.append(rng.choice(chain.n_sites, p=chain.matrix[sites[-1]]))
        if sites[-1] == last:
            return chain.engine.trajectory(sites)


def sample_in_parallel(chain, learner, selector, n_steps, hooks=(), executor=None, rounds=False):
    """The paths of all chains after each of their own steps, and the executor."""
    seed_everything(1)
    rng = np.random.default_rng(1)
    executor = ShortShotsFirst() if executor is None else executor
    scheme = CommittorShootingScheme(
        paths.TPSNetwork(*chain.states),
        learner,
        chain.engine,
        selector=selector,
        modifier=paths.NoModification(as_copy=True),
    )
    start = [equilibrium_path(chain, rng) for _ in range(N_CHAINS)]
    sampler = ParallelPathSampling(None, scheme, start, executor=executor, rounds=rounds)
    sampler.show_progress = False
    recorder = PathsOfChains()
    for hook in (*hooks, recorder):
        sampler.attach_hook(hook)
    sampler.run(n_steps)
    assert len(recorder.sampled) == N_CHAINS * n_steps
    assert executor.n_overtaken > N_CHAINS * n_steps / 4
    return recorder.sampled


@pytest.mark.parametrize("rounds", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_model_that_learns_from_many_chains(sticky_chain, n_steps, rounds):
    schedule = DiminishingSchedule(every=10, until=100, growth=0.2)
    learner = CommittorLearner(
        lambda path: site_indices(path)[:, None], sticky_chain.states, seed=1, schedule=schedule, fit_options=QUICK_FITS
    )
    sampled = sample_in_parallel(sticky_chain, learner, CommittorSelector(learner), n_steps, rounds=rounds)
    assert learner.version.number > 10
    assert_exact(sampled, sticky_chain.exact([(0, 1)]))


# ---- a version that is published while the shots run ----------------------------------------------------------------


def version(number, weights):
    """A model version; with the weight `np.exp` the sites between the states have the weights given here."""
    return ModelVersion(number, ModelOfSites(np.log([1.0, *weights, 1.0])).frozen_copy())


AT_THE_PICK, AT_THE_ACCEPTANCE = version(1, (0.1, 9.0)), version(2, (9.0, 0.1))


def publish(learner, version):
    learner.publish(replace(learner.learned, version=version))


class AnotherVersionWhileShotsRun(ShortShotsFirst):
    """Whenever a shot is back, another version than the one that it was picked with is the newest."""

    def __init__(self, learner):
        super().__init__()
        self.learner = learner

    def results(self, timeout=None):
        publish(self.learner, AT_THE_ACCEPTANCE)
        return super().results(timeout)


class BackToTheFirstVersion(PathSimulatorHook):
    """After each step the version for the picks is published again."""

    implemented_for = ["after_step"]

    def __init__(self, learner):
        super().__init__()
        self.learner = learner

    def after_step(self, sim, step_number, step_info, state, results, hook_state):
        publish(self.learner, AT_THE_PICK)


class AcceptsWithTheNewestVersion(CommittorSelector):
    """Wrong on purpose: the acceptance takes the version that is the newest when the shot is back."""

    def choose(self, trajectory):
        return replace(super().choose(trajectory), weights=self.path_weights(trajectory, AT_THE_ACCEPTANCE))


def sample_with_two_versions(chain, selector_class, n_steps):
    learner = CommittorLearner(lambda path: site_indices(path)[:, None], chain.states, seed=1, model=AT_THE_PICK.model)
    publish(learner, AT_THE_PICK)
    learner.freeze()
    return sample_in_parallel(
        chain,
        learner,
        selector_class(learner, weight=np.exp),
        n_steps,
        [BackToTheFirstVersion(learner)],
        AnotherVersionWhileShotsRun(learner),
    )


def test_a_step_is_accepted_with_the_version_that_it_was_picked_with(sticky_chain, n_steps):
    sampled = sample_with_two_versions(sticky_chain, CommittorSelector, n_steps)
    assert_exact(sampled, sticky_chain.exact([(0, 1)]))


def test_control_a_step_is_accepted_with_the_newest_version(sticky_chain):
    sampled = sample_with_two_versions(sticky_chain, AcceptsWithTheNewestVersion, N_STEPS)
    assert_wrong(sampled, sticky_chain.exact([(0, 1)]))

"""The exchange of shooting points keeps the exact path ensemble, whatever the model, and mixes reaction channels.

On discrete chains, against linear algebra, as in `test_exact_ensembles`, and on a continuous system with two channels,
against plain shots; each claim with a mover that makes the mistake the claim is about.
"""

import numpy as np
import openpathsampling as paths
import pytest
import torch
from exact_support import (
    AGREES,
    BATCHES_AGREE,
    DISAGREES,
    N_STEPS,
    ExactChain,
    ModelOfSites,
    assert_exact,
    assert_wrong,
    asymmetric_chain,
    one_directional,
    sample_paths,
    seed_everything,
    site_indices,
    z_scores,
)
from openpathsampling.engines.toy import OverdampedLangevinIntegrator

from ops_aimmd import CommittorLearner, CommittorModel
from ops_aimmd.committor.selection import log_weight_function
from ops_aimmd.engines.choose import adapter_of
from ops_aimmd.sampling import ShootingMover
from ops_aimmd.sampling.configuration_replicas import ConfigurationEnsemble, ConfigurationMover, Level
from ops_aimmd.sampling.shooting_point_exchange import ShootingPointExchangeMover
from ops_aimmd.systems import toy
from ops_aimmd.systems.swarm import Swarm

WRONG_MODEL = [0.0, -3.0, -2.0, 0.0, 2.0, 0.0]
"""Log-odds of the sites of the chain, far from the truth."""


def learner_of(chain, logits):
    learner = CommittorLearner(lambda path: site_indices(path)[:, None], chain.states, model=ModelOfSites(logits))
    learner.freeze()
    return learner


class Exchange:
    """The two movers of the exchange on a chain, and the samples that they start from."""

    def __init__(self, chain, ensemble, exchange=ShootingPointExchangeMover):
        modifier = paths.NoModification(as_copy=True)
        learner = learner_of(chain, WRONG_MODEL)
        replica = ConfigurationEnsemble(chain.states, 0)
        self.exchange = exchange(ensemble, replica, learner, modifier, chain.engine, exponent=1.0)
        self.configurations = ConfigurationMover(
            ensemble, [replica], learner, modifier, chain.engine, exponent=1.0, n_pieces=1, frames_per_piece=2
        )
        self.both = paths.SequentialMover([self.configurations, self.exchange])
        start = paths.Sample(1, chain.engine.trajectory([2]), replica)
        self.samples = paths.SampleSet([*chain.sample_set(ensemble, range(6)), start])


def sampled_by(exchange, mover, seed, n_steps=N_STEPS):
    return sample_paths(mover, exchange.samples, n_steps, seed)


@pytest.fixture(scope="module")
def chain():
    return asymmetric_chain()


# ---- the exchange ---------------------------------------------------------------------------------------------------


def test_transition_paths(chain):
    exchange = Exchange(chain, one_directional(chain))
    assert_exact(sampled_by(exchange, exchange.both, 1), chain.exact([(0, 1)]))


def test_interface_ensemble(chain):
    """Paths A -> A are valid in both orientations, A -> B in one."""
    exchange = Exchange(chain, paths.TISEnsemble(*chain.states, chain.before(3)))
    assert_exact(sampled_by(exchange, exchange.both, 2), chain.exact([(0, 0), (0, 1)], crossing=range(3, 6)))


class WithoutRatio(ShootingPointExchangeMover):
    def _exchange_ratio(self, old, new):
        return 1.0


class InverseRatio(ShootingPointExchangeMover):
    def _exchange_ratio(self, old, new):
        return 1.0 / super()._exchange_ratio(old, new)


@pytest.mark.parametrize("wrong", [WithoutRatio, pytest.param(InverseRatio, marks=pytest.mark.slow)])
def test_control(chain, wrong):
    exchange = Exchange(chain, one_directional(chain), wrong)
    assert_wrong(sampled_by(exchange, exchange.both, 1), chain.exact([(0, 1)]))


class GivesNothingInReturn(ShootingPointExchangeMover):
    """Shoots from the configuration and keeps it."""

    def _given_back(self, configuration, frame):
        return configuration


def test_the_exchange_alone_is_exact(chain):
    """Configurations come from exchanges only, which suffices to reach all paths."""
    exchange = Exchange(chain, one_directional(chain))
    assert_exact(sampled_by(exchange, exchange.exchange, 4), chain.exact([(0, 1)]))


@pytest.mark.slow
def test_control_nothing_in_return(chain):
    """A small mistake: in a quick run it is 3 standard errors."""
    exchange = Exchange(chain, one_directional(chain), GivesNothingInReturn)
    assert_wrong(sampled_by(exchange, exchange.exchange, 4, 8 * N_STEPS), chain.exact([(0, 1)]))


def test_beside_ordinary_shooting(chain):
    """As it is used: the two moves by lot."""
    ensemble = one_directional(chain)
    exchange = Exchange(chain, ensemble)
    mover = exchange.exchange
    ordinary = ShootingMover(ensemble, mover.selector, chain.states, mover.modifier, chain.engine)
    by_lot = paths.RandomChoiceMover([exchange.both, ordinary])
    assert_exact(sampled_by(exchange, by_lot, 3), chain.exact([(0, 1)]))


# ---- replicas at several temperatures -------------------------------------------------------------------------------

ENERGIES = np.array([0.0, 1.0, 3.0, 1.5, 2.5, 0.5])
INVERSE_TEMPERATURES = [1.0, 0.5, 0.25]
EXPONENT = 1.5


def chain_at(inverse_temperature):
    """Metropolis dynamics on the sites: their equilibrium is the Boltzmann distribution."""
    boltzmann = np.exp(-inverse_temperature * ENERGIES)
    neighbours = np.minimum(boltzmann[:-1], boltzmann[1:])
    conductances = np.diag(neighbours, 1) + np.diag(neighbours, -1)
    return ExactChain(conductances + np.diag(2.5 * boltzmann - conductances.sum(axis=1)), [0, 5])


class SiteReplicas(ConfigurationMover):
    """Chains in the place of engines at three temperatures."""

    def _make_levels(self):
        modifier, scale = paths.NoModification(as_copy=True), 1 / EXPONENT
        return [
            Level(adapter_of(chain_at(inverse).engine), modifier, inverse, log_weight_function("p(1-p)", scale / inverse))
            for inverse in INVERSE_TEMPERATURES
        ]

    def _energies(self, k, frame):
        return np.full(len(INVERSE_TEMPERATURES), ENERGIES[site_indices([frame])[0]])


class WithoutEnergies(SiteReplicas):
    """Exchanges as if all replicas were at one temperature."""

    def _energies(self, k, frame):
        return np.zeros(len(INVERSE_TEMPERATURES))


class WithoutAcceptance(SiteReplicas):
    """Accepts every piece of dynamics."""

    def _move(self, k, found, version):
        self._accepts = lambda log_ratio: True
        moved = super()._move(k, found, version)
        del self._accepts
        return moved


class WithoutWeights(SiteReplicas):
    """Exchanges as if all replicas had one weight."""

    def _log_densities(self, found):
        self._log_weights = lambda k, log_committor: np.zeros(len(log_committor))
        densities = super()._log_densities(found)
        del self._log_weights
        return densities


def deviation_of_coldest(mover_class, n_steps=N_STEPS):
    """Standard errors between the sampled and the exact distribution of the coldest replica over the sites."""
    seed_everything(5)
    coldest = chain_at(1.0)
    ensemble = one_directional(coldest)
    replicas = [ConfigurationEnsemble(coldest.states, k) for k in range(3)]
    learner = learner_of(coldest, WRONG_MODEL)
    options = {"exponent": EXPONENT, "n_pieces": 1, "frames_per_piece": 1}
    mover = mover_class(ensemble, replicas, learner, None, coldest.engine, [2.0, 4.0], **options)
    starts = [paths.Sample(1 + k, coldest.engine.trajectory([2]), replica) for k, replica in enumerate(replicas)]
    samples = paths.SampleSet([*coldest.sample_set(ensemble, range(6)), *starts])
    sites = []
    for _ in range(n_steps):
        samples = samples.apply_samples(mover.move(samples).results)
        samples = paths.SampleSet([paths.Sample(s.replica, s.trajectory, s.ensemble) for s in samples])
        sites.append(site_indices(samples[1].trajectory)[0])
    exact = np.exp(-ENERGIES) / np.cosh(EXPONENT * np.array(WRONG_MODEL) / 2) ** 2
    exact[[0, 5]] = 0.0
    occupied = np.eye(6)[sites]
    assert not occupied[:, [0, 5]].any()
    return np.abs(z_scores(occupied[:, 1:4], (exact / exact.sum())[1:4])).max()


def test_the_coldest_replica_has_the_weighted_boltzmann_distribution():
    assert deviation_of_coldest(SiteReplicas) < BATCHES_AGREE


@pytest.mark.parametrize("wrong", [WithoutAcceptance, WithoutEnergies, WithoutWeights])
def test_control_wrong_exchange_of_replicas(wrong):
    assert deviation_of_coldest(wrong) > DISAGREES


# ---- a continuous system with two channels --------------------------------------------------------------------------

N_PAIRS = 800
N_MOVES = 5


class FastWolfeQuapp(OverdampedLangevinIntegrator):
    """Twenty steps of overdamped dynamics on the Wolfe-Quapp potential at once, in plain numbers."""

    n_steps = 20

    def step(self, sys):
        x, y = sys.positions.tolist()
        noise = (self.R * np.random.normal(size=2 * self.n_steps)).tolist()  # noqa: NPY002
        half = np.sqrt(0.5).item()
        for i in range(0, 2 * self.n_steps, 2):
            u, v = half * (x - y), half * (x + y)
            du = 2.0 * (4.0 * u * (u * u - 1.0) + v + 0.3)
            dv = 2.0 * (4.0 * v * (v * v - 2.0) + u + 0.1)
            x += noise[i] - self.A * half * (dv + du)
            y += noise[i + 1] - self.A * half * (dv - du)
        sys.positions[:] = x, y


class DistortedLogOdds(torch.nn.Module):
    """The exact log-odds, too flat, and wrong by 0.7 at the saddles, with opposite signs in the two channels."""

    def __init__(self, committor):
        super().__init__()
        self.committor = committor

    def forward(self, x):
        p = np.clip(self.committor(x.double().numpy()), 1e-7, 1 - 1e-7)
        return torch.as_tensor(0.8 * np.log(p / (1 - p))[:, None], dtype=torch.float32) + 0.9 * x[:, :1]


class TwoChannels:
    """Wolfe-Quapp, and a sample of its transition paths that knows nothing of path sampling.

    Points from the Boltzmann distribution with 0.1 < p < 0.9, a two-way shot from each, as fast dynamics of all at once; a
    path is found as often as it has frames between these limits, and gets the inverse of their number for its weight.
    """

    def __init__(self, n_points=20_000, seed=3):
        self.system = toy.wolfe_quapp(n_steps_per_frame=FastWolfeQuapp.n_steps)
        plain = self.system.engine.integ
        integrator = FastWolfeQuapp(dt=plain.dt, temperature=plain.temperature, D=plain.D)
        options = {"integ": integrator, "n_frames_max": 5000, "n_steps_per_frame": 1}
        self.engine = paths.engines.toy.Engine(options, self.system.engine.topology).named("fast Wolfe-Quapp")
        self.rng = np.random.default_rng(seed)
        points, log_boltzmann = self.uniform_points(self.is_between)
        chosen = self.rng.random(len(points)) < np.exp(log_boltzmann - log_boltzmann.max())
        self.paths, self.weights = self.shoot(points[chosen][:n_points])

    def uniform_points(self, region, n_points=2_000_000):
        """Points of a square that lie in a region, and the logarithm of their Boltzmann weight."""
        points = self.rng.uniform(-2.5, 2.5, (n_points, 2))
        energies = self.system.potential.value(points)
        points, energies = points[energies < 5.0], energies[energies < 5.0]
        kept = region(points)
        return points[kept], -energies[kept]

    def is_between(self, points):
        p = self.system.committor(points)
        return (p > 0.1) & (p < 0.9)

    def shoot(self, points):
        """The transition paths among two-way shots, from A to B, and their weights."""
        starts = np.repeat(points, 2, axis=0)
        swarm = Swarm(self.system.engine, self.system.potential, self.system.engine.mass, starts, np.zeros_like(starts))
        legs, frames = np.arange(len(starts)), [starts]
        owners, ends = [legs], np.empty(len(starts), dtype=int)
        while len(swarm):
            swarm.advance(self.rng)
            owners.append(legs)
            frames.append(swarm.positions.copy())
            in_A, in_B = (disk.contains(swarm.positions) for disk in self.system.disks)
            ends[legs[in_A]], ends[legs[in_B]] = 0, 1
            swarm.keep(~(in_A | in_B))
            legs = legs[~(in_A | in_B)]
        owners, frames = np.concatenate(owners), np.concatenate(frames)
        order = np.argsort(owners, kind="stable")
        frames = np.split(frames[order], np.searchsorted(owners[order], np.arange(1, len(starts))))
        found = []
        for one in range(0, len(starts), 2):
            if ends[one] != ends[one + 1]:
                backward, forward = frames[one + ends[one]], frames[one + 1 - ends[one]]
                found.append(np.concatenate([backward[:0:-1], forward]))
        return found, np.array([1.0 / self.is_between(path).sum() for path in found])

    def snapshot(self, point):
        return paths.engines.toy.Snapshot(coordinates=point[None], velocities=np.zeros((1, 2)), engine=self.engine)


@pytest.fixture(scope="module")
def two_channels():
    return TwoChannels()


def drift_on_two_channels(two_channels, mover_class):
    """What a few moves do to independent pairs of path and configuration from the exact distribution, in standard errors.

    Nothing, if the distribution is stationary: the fraction of paths in the channel x > 0, the logarithms of length and sum
    of weights, and the logarithm of the weight of the configuration and its channel stay the same on average.
    """
    seed_everything(6)
    system, engine = two_channels.system, two_channels.engine
    model = CommittorModel(DistortedLogOdds(lambda x: system.committor(x)), n_descriptors=2, n_states=2)
    learner = CommittorLearner(system.descriptors, system.states, model=model)
    learner.freeze()
    ensemble = system.network().sampling_ensembles[0]
    modifier = paths.NoModification(as_copy=True)  # overdamped
    replica = ConfigurationEnsemble(system.states, 0)
    exchange = mover_class(ensemble, replica, learner, modifier, engine)
    mover = paths.SequentialMover([ConfigurationMover(ensemble, [replica], learner, modifier, engine), exchange])

    def log_weight(points):
        log_committor = model.log_committor(points)
        return -2.0 * np.log(np.cosh(exchange.exponent * (log_committor[:, 1] - log_committor[:, 0]) / 2.0))

    def observables(path, point):
        crossing = path[np.abs(system.committor(path) - 0.5).argmin()]
        log_sum = np.log(np.exp(log_weight(path[1:-1])).sum())
        return crossing[0] > 0, np.log(len(path)), log_sum, log_weight(point[None])[0], point[0] > 0

    def outside(points):
        return ~np.any([disk.contains(points) for disk in system.disks], axis=0)

    candidates, log_boltzmann = two_channels.uniform_points(outside)
    weights = np.exp(log_boltzmann + log_weight(candidates))
    rng = np.random.default_rng(6)
    points = candidates[rng.choice(len(candidates), N_PAIRS, p=weights / weights.sum())]
    chosen = rng.choice(len(two_channels.paths), N_PAIRS, p=two_channels.weights / two_channels.weights.sum())
    changes = []
    for index, point in zip(chosen, points, strict=True):
        path = two_channels.paths[index]
        trajectory = paths.Trajectory([two_channels.snapshot(frame) for frame in path])
        beside = paths.Trajectory([two_channels.snapshot(point)])
        samples = paths.SampleSet([paths.Sample(0, trajectory, ensemble), paths.Sample(1, beside, replica)])
        for _ in range(N_MOVES):
            samples = samples.apply_samples(mover.move(samples).results)
            samples = paths.SampleSet([paths.Sample(s.replica, s.trajectory, s.ensemble) for s in samples])
        after = observables(samples[0].trajectory.xyz[:, 0], samples[1].trajectory[0].coordinates[0])
        changes.append(np.subtract(after, observables(path, point), dtype=float))
    changes = np.array(changes)
    return changes.mean(axis=0) / (changes.std(axis=0, ddof=1) / np.sqrt(N_PAIRS))


@pytest.mark.slow
def test_the_exact_distribution_of_a_continuous_system_is_stationary(two_channels):
    z = drift_on_two_channels(two_channels, ShootingPointExchangeMover)
    assert np.abs(z).max() < AGREES, z


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [WithoutRatio, InverseRatio])
def test_control_on_a_continuous_system(two_channels, wrong):
    z = drift_on_two_channels(two_channels, wrong)
    assert np.abs(z).max() > DISAGREES, z

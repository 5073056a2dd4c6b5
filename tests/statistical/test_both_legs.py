"""Every shot gives two outcomes, and they are unbiased: many shots from one point of known committor."""

from dataclasses import replace

import numpy as np
import openpathsampling as paths
import pytest
from brute_force import brute_force_committor
from exact_support import AGREES, DISAGREES, seed_everything
from openpathsampling.engines import toy as ops_toy
from openpathsampling.pathmover import ForwardFirstTwoWayShootingMover
from plain_integrators import plain

from ops_aimmd import BoltzmannVelocities, CommittorLearner, CommittorShootingScheme, TrainingHook
from ops_aimmd.sampling import ShootingMover
from ops_aimmd.sampling.shooting_results import shooting_result, shots
from ops_aimmd.shooting.states import state_index
from ops_aimmd.systems import toy

N_SHOTS = 400
QUICK_FITS = {"max_epochs": 10, "auxiliary_weights": (0.0, 0.0), "relevance": None}

POINT = np.array([0.2, 0.0])
"""On the side of B: what favours one of the states is seen."""


def short_paths(dynamics):
    """Two wells with a barrier of 3 kT in long time steps, which the reference shares."""
    system = toy.hummer_szabo(b=3.0, dynamics=dynamics)
    if dynamics == "langevin":
        integrator, n_steps = ops_toy.LangevinBAOABIntegrator(dt=0.05, temperature=system.temperature, gamma=5.0), 2
    else:
        integrator, n_steps = ops_toy.OverdampedLangevinIntegrator(dt=5e-3, temperature=system.temperature, D=1.0), 4
    options = {**system.engine.options, "integ": integrator, "n_steps_per_frame": n_steps}
    return plain(replace(system, engine=ops_toy.Engine(options, system.engine.topology)))


class FixedPoint:
    """A system, a path A -> point -> B that can only be shot from at the point, and the committor there."""

    def __init__(self, dynamics):
        self.system = short_paths(dynamics)
        self.learner = CommittorLearner(self.system.descriptors, self.system.states)
        # the same integrator and frame spacing, many more shots
        counts = brute_force_committor(self.system, POINT[None], 20_000, np.random.default_rng(1))
        self.committor = counts[0, 1] / counts.sum()
        self.ensemble = self.system.network().sampling_ensembles[0]
        disk_a, disk_b = self.system.disks
        self.path = paths.Trajectory([self.snapshot(x) for x in (disk_a.center, POINT, disk_b.center)])

    def snapshot(self, x):
        return ops_toy.Snapshot(
            coordinates=np.array([x], dtype=float), velocities=np.zeros((1, 2)), engine=self.system.engine
        )

    def shoot(self, mover, seed):
        """The changes of N_SHOTS independent moves from the same path."""
        seed_everything(seed)
        sample_set = paths.SampleSet([paths.Sample(0, self.path, self.ensemble)])
        return [mover.move(sample_set) for _ in range(N_SHOTS)]

    def mover(self, mover_class):
        engine = self.system.engine
        return mover_class(self.ensemble, paths.UniformSelector(), BoltzmannVelocities(engine), engine)

    def own_mover(self):
        engine, states = self.system.engine, self.system.states
        return ShootingMover(self.ensemble, paths.UniformSelector(), states, BoltzmannVelocities(engine), engine)

    def counts(self, change):
        """What is learned from a move, (n_A, n_B)."""
        (shot,) = shots(change, self.system.states)
        return shooting_result(shot, self.learner, step=0).counts

    def standard_errors(self, counts):
        """From the committor, of the fraction of legs in B; legs of one shot may be correlated, shots are not."""
        n_b, n = np.array(counts)[:, 1], np.sum(counts, axis=1)
        fraction = n_b.sum() / n.sum()
        error = np.sqrt(((n_b - fraction * n) ** 2).sum()) / n.sum()
        return (fraction - self.committor) / error


@pytest.fixture(scope="module", params=["overdamped", "langevin"])
def point(request):
    return FixedPoint(request.param)


of_stock_movers = pytest.mark.parametrize(
    "point", [pytest.param("overdamped", marks=pytest.mark.slow), "langevin"], indirect=True
)
"""The dynamics is that of the engine; with inertia the legs of a shot are correlated, too."""


def test_no_leg_is_lost_and_counts_are_unbiased(point):
    changes = point.shoot(point.own_mover(), seed=1)
    outcomes = np.array([change.canonical.details.leg_outcomes for change in changes])
    counts = np.array([point.counts(change) for change in changes])
    assert outcomes.shape == (N_SHOTS, 2)
    assert set(outcomes.ravel()) == {0, 1}
    assert counts.tolist() == [[list(legs).count(state) for state in (0, 1)] for legs in outcomes]
    binomial_error = np.sqrt(point.committor * (1 - point.committor) / N_SHOTS)
    for of_direction in outcomes.T:  # forward and backward legs start with equally distributed velocities
        assert abs(of_direction.mean() - point.committor) < AGREES * binomial_error
    assert abs(point.standard_errors(counts)) < AGREES


@of_stock_movers
def test_control_complete_pairs_of_a_mover_that_stops_early_are_biased(point):
    """The forward leg always first, the backward leg only where the path can still become one from A to B."""
    changes = point.shoot(point.mover(ForwardFirstTwoWayShootingMover), seed=2)
    trials = [change.canonical.trials[0].trajectory for change in changes]
    ends = [[state_index(trial[i], point.system.states) for i in (0, -1)] for trial in trials]
    complete = [np.bincount(pair, minlength=2) for pair in ends if min(pair) >= 0]
    assert len(complete) < N_SHOTS - AGREES * np.sqrt(N_SHOTS)
    assert point.standard_errors(complete) > DISAGREES


@of_stock_movers
def test_legs_of_the_stock_two_way_mover(point):
    """It loses a quarter of the legs in a one-directional network; the rest is unbiased, as both directions go first."""
    counts = [point.counts(change) for change in point.shoot(point.mover(paths.TwoWayShootingMover), seed=3)]
    n_lost = 2 * N_SHOTS - np.sum(counts)
    # forward first loses the other leg where it reached A, backward first where it reached B: every second shot
    assert abs(n_lost - N_SHOTS / 2) < AGREES * np.sqrt(N_SHOTS) / 2
    assert abs(point.standard_errors(counts)) < AGREES


def test_a_run_in_a_one_directional_network_keeps_both_legs_of_all_shots(tmp_path):
    system = short_paths("langevin")
    learner = CommittorLearner(system.descriptors, system.states, seed=4, fit_options=QUICK_FITS)
    scheme = CommittorShootingScheme(system.network(), learner, system.engine)
    start = scheme.initial_conditions_from_trajectories(system.initial_trajectory(4))
    sampler = paths.PathSampling(storage=None, move_scheme=scheme, sample_set=start)
    sampler.attach_hook(TrainingHook(learner))
    with open(tmp_path / "progress", "w") as sampler.output_stream:
        sampler.run(40)
    counts = learner.training_set.counts
    assert counts.sum(axis=1).tolist() == [2] * 40
    assert len(np.unique(counts, axis=0)) == 3  # A and A, A and B, B and B

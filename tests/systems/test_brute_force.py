import numpy as np
import pytest
from brute_force import brute_force_committor
from openpathsampling.engines import toy as ops_toy

from ops_aimmd.systems import toy
from ops_aimmd.systems.swarm import Swarm, boltzmann_velocities

FACTORIES = [toy.mueller_brown, toy.wolfe_quapp, toy.hummer_szabo, toy.two_gaussian_wells]


def swarm_of(system, positions, velocities):
    return Swarm(system.engine, system.potential, system.engine.mass, positions, velocities)


@pytest.mark.parametrize("n_bath", [0, 3])
@pytest.mark.parametrize("dynamics", ["overdamped", "langevin"])
@pytest.mark.parametrize("factory", FACTORIES)
def test_same_trajectory_as_ops_from_the_same_random_numbers(factory, dynamics, n_bath):
    """OPS draws from numpy's global generator: a swarm of one with that stream must follow the same path."""
    system = factory(dynamics=dynamics, n_bath=n_bath)
    rng = np.random.default_rng(1)
    x = np.zeros((1, system.n_dim))
    x[0, :2] = system.saddles[0]
    v = boltzmann_velocities(1, system.engine.mass, system.temperature, rng)

    before = np.random.get_state()  # noqa: NPY002 (OPS's own generator)
    try:
        np.random.seed(7)  # noqa: NPY002
        system.engine.current_snapshot = ops_toy.Snapshot(coordinates=x, velocities=v, engine=system.engine)
        frames = [system.engine.generate_next_frame() for _ in range(20)]
    finally:
        np.random.set_state(before)  # noqa: NPY002

    def follow(seed):
        swarm = swarm_of(system, x, v)
        stream = np.random.RandomState(seed)  # noqa: NPY002
        result = []
        for _ in range(20):
            swarm.advance(stream)
            result.append(np.concatenate([swarm.positions[0], swarm.velocities[0]]))
        return np.array(result)

    expected = np.array([np.concatenate([f.coordinates[0], f.velocities[0]]) for f in frames])
    # rounding 1e-16, amplified by at most exp(Lyapunov exponent * time) ~ 1e4 over the short run
    assert np.allclose(follow(7), expected, rtol=1e-9, atol=1e-9)
    assert not np.allclose(follow(8), expected, rtol=1e-9, atol=1e-9)


def z_squared(counts, p):
    n = counts.sum(axis=1)
    return np.sum((counts[:, 1] - n * p) ** 2 / (n * p * (1.0 - p)))


def test_agrees_with_the_exact_committor_within_binomial_error():
    # states are looked at after every step of 0.02 here, so they appear smaller by about 0.01 only (r = 0.3)
    system = toy.hummer_szabo(b=3.0, n_steps_per_frame=1)
    x = system.evaluation_points(spacing=0.35)
    p = system.committor(x)
    x, p = x[(p > 0.1) & (p < 0.9)], p[(p > 0.1) & (p < 0.9)]
    counts = brute_force_committor(system, x, 200, np.random.default_rng(1), n_frames_max=10**6)
    assert (counts.sum(axis=1) == 200).all()
    # sum of n squared standard normal deviates: n +- sqrt(2 n)
    limit = len(p) + 4.0 * np.sqrt(2.0 * len(p))
    assert z_squared(counts, p) < limit
    wrong = toy.hummer_szabo(b=3.0, temperature=3.0).committor(x)
    assert z_squared(counts, wrong) > limit


class Harmonic:
    """V = k |x|^2 / 2; all that a swarm needs of a potential."""

    def __init__(self, k):
        self.k = k

    def gradient(self, x):
        return self.k * x


@pytest.mark.parametrize("dynamics", ["overdamped", "langevin"])
def test_harmonic_well_is_sampled_at_its_temperature(dynamics):
    k, kT, n = 4.0, 0.5, 20_000
    if dynamics == "langevin":  # omega dt = 0.1: BAOAB has <x^2> exact and <v^2> low by (omega dt)^2/4 = 0.25 %
        integrator, n_frames = ops_toy.LangevinBAOABIntegrator(dt=0.05, temperature=kT, gamma=2.0), 30
    else:  # Euler-Maruyama: <x^2> high by a factor 1/(1 - k D dt/(2 kT)) = 1.002
        integrator, n_frames = ops_toy.OverdampedLangevinIntegrator(dt=0.002, temperature=kT, D=0.25), 100
    engine = ops_toy.Engine(
        options={"integ": integrator, "n_steps_per_frame": 10},
        topology=ops_toy.Topology(n_spatial=2, masses=[1.0, 1.0], pes=None),
    )
    rng = np.random.default_rng(1)
    start = np.zeros((n, 2))
    swarm = Swarm(engine, Harmonic(k), [1.0, 1.0], start, boltzmann_velocities(n, [1.0, 1.0], 3.0 * kT, rng))
    for _ in range(n_frames):  # several relaxation times of the start far from equilibrium
        swarm.advance(rng)
    # variance of 2 n Gaussian numbers: relative standard error sqrt(2 / 2n), and 0.3 % of discretisation
    tolerance = 4.0 * np.sqrt(1.0 / n) + 0.003
    assert 0.5 * k * np.mean(swarm.positions**2) == pytest.approx(0.5 * kT, rel=tolerance)
    if dynamics == "langevin":
        assert np.mean(swarm.velocities**2) == pytest.approx(kT, rel=tolerance)
    else:
        assert np.mean(swarm.velocities**2) == pytest.approx(3.0 * kT, rel=tolerance)  # carried along
    assert 0.5 * k * np.mean(swarm.positions**2) != pytest.approx(0.5 * 1.2 * kT, rel=tolerance)


def test_a_bath_changes_nothing_and_costs_nothing():
    plain, bath = toy.hummer_szabo(), toy.hummer_szabo(n_bath=4)
    x = bath.evaluation_points(spacing=0.5, rng=np.random.default_rng(2))
    from_bath = brute_force_committor(bath, x, 5, np.random.default_rng(1))
    assert (from_bath == brute_force_committor(plain, x[:, :2], 5, np.random.default_rng(1))).all()


def test_same_generator_same_counts():
    system = toy.hummer_szabo()
    x = system.evaluation_points(spacing=0.4)
    one, same, other = (brute_force_committor(system, x, 10, np.random.default_rng(s)) for s in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_starts_inside_states_and_censored_shots():
    system = toy.wolfe_quapp()
    x = np.array([system.disks[0].center, system.disks[1].center, system.saddles[0]])
    counts = brute_force_committor(system, x, 7, np.random.default_rng(1))
    assert counts[:2].tolist() == [[7, 0], [0, 7]]
    assert counts[2].sum() == 7
    # two frames of 0.1 cannot reach a state 1.3 away
    cut = brute_force_committor(system, x, 7, np.random.default_rng(1), n_frames_max=2)
    assert cut.tolist() == [[7, 0], [0, 7], [0, 0]]


def test_more_shots_than_fit_into_the_pool(monkeypatch):
    monkeypatch.setattr("brute_force.POOL_SIZE", 16)
    system = toy.hummer_szabo()
    counts = brute_force_committor(system, np.array([[0.0, 0.0], [0.2, 0.0]]), 50, np.random.default_rng(1))
    assert counts.sum(axis=1).tolist() == [50, 50]


def test_errors():
    system = toy.wolfe_quapp()
    rng = np.random.default_rng(1)
    with pytest.raises(ValueError, match="expected"):
        brute_force_committor(system, np.zeros(2), 1, rng)
    with pytest.raises(ValueError, match=r"rows \[1\]"):
        brute_force_committor(system, np.array([[0.0, 0.0], [np.nan, 0.0]]), 1, rng)
    engine = ops_toy.Engine(options={"integ": ops_toy.LeapfrogVerletIntegrator(dt=0.1)}, topology=system.engine.topology)
    with pytest.raises(TypeError, match="LeapfrogVerletIntegrator"):
        Swarm(engine, system.potential, [1.0, 1.0], np.zeros((1, 2)), np.zeros((1, 2)))

"""Reversible Markov chains: linear algebra against the sum over all paths, engine against its matrix."""

import itertools

import numpy as np
import openpathsampling as paths
import pytest
from exact_markov_chains import MarkovChainPathEnsemble, committor

from ops_aimmd.systems.markov_chain import (
    MarkovChainEngine,
    reversible_transition_matrix,
    site_indices,
    stationary_distribution,
)


def random_chain(n_sites, seed, bandwidth=None):
    """Some reversible chain; with bandwidth 1 a birth-death chain that may also stay."""
    rng = np.random.default_rng(seed)
    conductances = rng.uniform(0.1, 1.0, (n_sites, n_sites))
    conductances = conductances + conductances.T
    if bandwidth is not None:
        i, j = np.indices(conductances.shape)
        conductances[abs(i - j) > bandwidth] = 0.0
    return reversible_transition_matrix(conductances)


def paths_one_by_one(matrix, states, pairs, crossing, max_length):
    """Every path of the ensemble with its weight, from the definition of the ensemble alone."""
    stationary = stationary_distribution(matrix)
    interior = [site for site in range(len(matrix)) if not any(site in state for state in states)]
    for first, last in pairs:
        for length in range(3, max_length + 1):
            for path in itertools.product(states[first], *[interior] * (length - 2), states[last]):
                if crossing is None or any(site in crossing for site in path):
                    weight = stationary[path[0]] * np.prod(matrix[path[:-1], path[1:]])
                    if weight > 0:
                        yield path, weight


ENSEMBLES = {
    "transition paths": {"states": [[0], [4]], "pairs": [(0, 1)]},
    "both directions": {"states": [[0], [4]], "pairs": [(0, 1), (1, 0)]},
    "states of two sites": {"states": [[0, 1], [4, 5]], "pairs": [(0, 1)]},
    "interface": {"states": [[0], [5]], "pairs": [(0, 0), (0, 1)], "crossing": [3, 4, 5]},
    "three states": {"states": [[0], [2], [5]], "pairs": list(itertools.permutations(range(3), 2))},
}


@pytest.mark.parametrize("bandwidth", [None, 1])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_averages_are_the_sums_over_all_paths(name, bandwidth):
    ensemble = {"crossing": None, **ENSEMBLES[name]}
    matrix = random_chain(6, seed=1, bandwidth=bandwidth)
    exact = MarkovChainPathEnsemble(matrix, max_length=8, **ensemble)
    every_path = list(paths_one_by_one(matrix, max_length=8, **ensemble))
    weights = np.array([weight for _, weight in every_path]) / sum(weight for _, weight in every_path)

    lengths = np.array([len(path) for path, _ in every_path])
    visits = np.array([np.bincount(path, minlength=6) for path, _ in every_path])
    pairs = [
        weights @ [path[0] in ensemble["states"][i] and path[-1] in ensemble["states"][j] for path, _ in every_path]
        for i, j in ensemble["pairs"]
    ]
    np.testing.assert_allclose(exact.length_distribution(8), np.bincount(lengths, weights, 9), atol=1e-12)
    np.testing.assert_allclose(exact.mean_length(), weights @ lengths, rtol=1e-12)
    np.testing.assert_allclose(exact.mean_visits(), weights @ visits, rtol=1e-12)
    np.testing.assert_allclose(exact.pair_probabilities(), pairs, atol=1e-12)

    # control: the sums tell the ensembles of the next length limit apart
    assert abs(exact.mean_length() - MarkovChainPathEnsemble(matrix, max_length=9, **ensemble).mean_length()) > 1e-3


@pytest.mark.parametrize("name", ENSEMBLES)
def test_a_distant_limit_is_no_limit(name):
    matrix = random_chain(6, seed=2, bandwidth=1)
    unlimited = MarkovChainPathEnsemble(matrix, **ENSEMBLES[name])
    limited = MarkovChainPathEnsemble(matrix, max_length=200, **ENSEMBLES[name])
    np.testing.assert_allclose(limited.mean_visits(), unlimited.mean_visits(), rtol=1e-6)
    np.testing.assert_allclose(limited.pair_probabilities(), unlimited.pair_probabilities(), rtol=1e-6)
    probabilities = unlimited.length_distribution(200)
    np.testing.assert_allclose(probabilities.sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(probabilities @ np.arange(201), unlimited.mean_length(), rtol=1e-6)


def test_committor_of_a_birth_death_chain_is_the_potential_of_resistors_in_series():
    rng = np.random.default_rng(3)
    links = rng.uniform(0.1, 1.0, 7)
    conductances = np.diag(links, 1) + np.diag(links, -1) + np.diag(rng.uniform(0.0, 1.0, 8))
    probability = committor(reversible_transition_matrix(conductances), [[0], [7]])
    series = np.concatenate([[0.0], np.cumsum(1.0 / links)])
    np.testing.assert_allclose(probability[:, 1], series / series[-1], rtol=1e-10)
    np.testing.assert_allclose(probability.sum(axis=1), 1.0, rtol=1e-12)


def test_committor_of_three_states_is_where_the_chain_is_first_absorbed():
    matrix = random_chain(7, seed=4)
    states = [[0], [2, 3], [6]]
    absorbing = matrix.copy()
    for site in (0, 2, 3, 6):
        absorbing[site] = np.eye(7)[site]
    absorbed = np.linalg.matrix_power(absorbing, 2**12)
    expected = np.column_stack([absorbed[:, state].sum(axis=1) for state in states])
    np.testing.assert_allclose(committor(matrix, states), expected, atol=1e-10)


def test_the_engine_steps_with_the_probabilities_of_its_matrix():
    matrix = reversible_transition_matrix(np.array([[0, 2, 1, 0], [2, 1, 0, 3], [1, 0, 0, 0], [0, 3, 0, 1]], float))
    engine = MarkovChainEngine(matrix)
    np.random.seed(6)  # noqa: NPY002
    engine.current_snapshot = engine.trajectory([0])[0]
    sites = site_indices(engine.generate_n_frames(40_000))
    counts = np.zeros((4, 4))
    np.add.at(counts, (sites[:-1], sites[1:]), 1)
    visits = counts.sum(axis=1, keepdims=True)
    assert np.all(counts[matrix == 0] == 0)
    error = np.sqrt(visits * matrix * (1 - matrix))  # of a multinomial, given the visits
    assert np.all(abs(counts - visits * matrix) <= 4 * error)
    assert np.any(abs(counts - visits * np.full((4, 4), 0.25)) > 4 * error)  # control: another matrix fails


def test_numpys_global_seed_fixes_the_trajectory():
    engine = MarkovChainEngine(random_chain(6, seed=7))
    trajectories = []
    for seed in (1, 1, 2):
        np.random.seed(seed)  # noqa: NPY002
        engine.current_snapshot = engine.trajectory([3])[0]
        trajectories.append(site_indices(engine.generate_n_frames(50)).tolist())
    assert trajectories[0] == trajectories[1] != trajectories[2]


def test_a_frame_is_its_own_time_reversal():
    trajectory = MarkovChainEngine(random_chain(6, seed=7)).trajectory([0, 1, 2, 5])
    assert site_indices(trajectory.reversed).tolist() == [5, 2, 1, 0]
    assert trajectory[1].coordinates.shape == trajectory[1].velocities.shape == (1, 1)


def test_stock_ops_shoots_with_the_engine_and_stores_it(tmp_path):
    engine = MarkovChainEngine(random_chain(6, seed=8), options={"n_frames_max": 1000}).named("chain")
    site = paths.FunctionCV("site", first_coordinate)
    state_a = paths.CVDefinedVolume(site, -0.5, 0.5).named("A")
    state_b = paths.CVDefinedVolume(site, 4.5, 5.5).named("B")
    network = paths.TPSNetwork(state_a, state_b)
    scheme = paths.OneWayShootingMoveScheme(network, engine=engine)
    start = scheme.initial_conditions_from_trajectories([engine.trajectory([0, 2, 5])])
    storage = paths.Storage(str(tmp_path / "chain.nc"), "w", engine.trajectory([0])[0])
    sampler = paths.PathSampling(storage=storage, move_scheme=scheme, sample_set=start)
    with open(tmp_path / "progress", "w") as sampler.output_stream:
        sampler.run(20)
    stored = [site_indices(step.active[0].trajectory).tolist() for step in storage.steps]
    storage.close()

    reopened = paths.Storage(str(tmp_path / "chain.nc"), "r")
    again = reopened.engines["chain"]
    assert [site_indices(step.active[0].trajectory).tolist() for step in reopened.steps] == stored
    np.testing.assert_array_equal(again.transition_matrix, engine.transition_matrix)
    assert again.options["n_frames_max"] == 1000
    assert isinstance(again, MarkovChainEngine)
    reopened.close()


def first_coordinate(snapshot):
    return snapshot.coordinates[0, 0]


def test_chains_that_make_no_sense_are_refused():
    one_way = np.array([[0.0, 0.9, 0.1], [0.1, 0.0, 0.9], [0.9, 0.1, 0.0]])
    with pytest.raises(ValueError, match="detailed balance is broken"):
        MarkovChainEngine(one_way)
    with pytest.raises(ValueError, match="rows"):
        stationary_distribution(np.full((3, 3), 0.3))
    with pytest.raises(ValueError, match="shape"):
        stationary_distribution(np.ones(3))
    with pytest.raises(ValueError, match="reached"):
        stationary_distribution(np.eye(3))
    with pytest.raises(ValueError, match="symmetric"):
        reversible_transition_matrix([[0.0, 1.0], [2.0, 0.0]])
    with pytest.raises(ValueError, match="square"):
        reversible_transition_matrix([1.0, 2.0])
    with pytest.raises(ValueError, match="no conductance"):
        reversible_transition_matrix([[1.0, 0.0], [0.0, 0.0]])
    matrix = random_chain(4, seed=9, bandwidth=1)
    with pytest.raises(ValueError, match="overlap"):
        committor(matrix, [[0, 1], [1]])
    with pytest.raises(ValueError, match="outside"):
        committor(matrix, [[0], [4]])
    with pytest.raises(ValueError, match="no path"):
        MarkovChainPathEnsemble(matrix, [[0], [3]], [(0, 1)], max_length=3).mean_length()
    with pytest.raises(ValueError, match="no path"):
        MarkovChainPathEnsemble(matrix, [[0], [3]], [(0, 0)], crossing=[3]).mean_length()

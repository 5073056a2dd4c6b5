"""Committor simulation: counts against exact committors, configurations, interruptions, what goes wrong."""

import warnings

import numpy as np
import openpathsampling as paths
import pytest
from brute_force import brute_force_committor
from exact_markov_chains import committor
from plain_integrators import plain
from sampling_support import Chain, breaking_chain, publish, simulation
from scipy.special import expit, logit

import ops_aimmd
from ops_aimmd import committor_simulation
from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.runs.committor_simulation import CommittorSimulation
from ops_aimmd.runs.configurations import spread_along_committor
from ops_aimmd.systems import toy
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide

INNER = [1, 2, 3, 4, 5]
"""Sites of the chain outside of the states."""

AGREES, DISAGREES = 20.5, 30.0
"""Chi-square with five degrees of freedom: a true committor is above the first once in a thousand times."""


def exact(chain):
    """Probability of reaching the last site before the first, of all seven."""
    return committor(chain.engine.transition_matrix, [[0], [6]])[:, 1]


def learner_of(chain, stretch=1.0):
    """Its model is the exact committor, with the log-odds multiplied by a factor."""
    return chain.learner(logits=stretch * logit(np.clip(exact(chain), 1e-6, 1 - 1e-6)))


def shoot(chain, learner=None, sites=INNER, n_shots=20, **options):
    """Committor simulation from sites of a chain; frames of a chain have no velocities."""
    options = {"modifier": paths.NoModification(as_copy=True), "seed": 1, "progress": False, **options}
    learner = learner_of(chain) if learner is None else learner
    return committor_simulation(list(chain.path(sites)), learner, chain.engine, n_shots, **options)


def same(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("descriptors", "predicted", "counts", "too_long", "broken_down")
    )


def chi_square(counts, p):
    n = counts.sum(axis=1)
    return float(((counts[:, 1] - n * p) ** 2 / (n * p * (1 - p))).sum())


# ---- counts ----------------------------------------------------------------------------------------------------------


def test_counts_are_those_of_the_exact_committor():
    chain = Chain()
    result = shoot(chain, n_shots=400)
    p = exact(chain)[INNER]
    assert np.all(result.counts.sum(axis=1) == 400) and not result.unfinished.any()
    assert chi_square(result.counts, p) < AGREES
    assert chi_square(result.counts, np.array(INNER) / 6) > DISAGREES  # the control: a chain of equal links
    assert np.allclose(result.predicted, np.stack([1 - p, p], axis=1))
    assert np.array_equal(result.descriptors[:, 0], INNER)


def test_calibration_tells_a_true_model_from_wrong_ones():
    chain = Chain()
    true, sure, careful = (shoot(chain, learner_of(chain, stretch), INNER * 3, n_shots=140) for stretch in (1.0, 2.0, 0.5))
    assert abs(true.calibration.slope - 1) < 3 * true.calibration.slope_error
    assert true.calibration.rmse < 0.02 + 2 * true.calibration.rmse_error
    assert sure.calibration.slope < 1 - 4 * sure.calibration.slope_error
    assert careful.calibration.slope > 1 + 4 * careful.calibration.slope_error
    assert sure.calibration.rmse > 0.05 + 2 * sure.calibration.rmse_error
    few = shoot(chain, n_shots=15, seed=2)
    assert "agree" in str(true) and "large errors" not in str(true) and "large errors" in str(few)
    assert "over-fitted" in str(sure) and "too careful" in str(careful)


class Onwards(ops_aimmd.BoltzmannVelocities):
    """Wrong on purpose: all velocities point from A to B."""

    direction = np.array([-1.0, -1.0])

    def __call__(self, snapshot):
        drawn = super().__call__(snapshot)
        return drawn.copy_with_replacement(velocities=np.abs(drawn.velocities) * self.direction)


def test_velocities_are_fair_with_inertia():
    system = plain(toy.wolfe_quapp(dynamics="langevin"))
    path = system.initial_trajectory(1)
    rng = np.random.default_rng(0)
    x = system.descriptors(path)
    near = brute_force_committor(system, x, 25, rng)[:, 1] / 25
    rows = [int(np.abs(near - value).argmin()) for value in (0.2, 0.35, 0.5, 0.65, 0.8)]
    p = brute_force_committor(system, x[rows], 4000, rng)[:, 1] / 4000  # an error of 0.008, beside 0.06 of 80 legs
    learner = ops_aimmd.CommittorLearner(system.descriptors, system.states, seed=1)
    learner.committor(path)
    snapshots = [path[row] for row in rows]
    fair = committor_simulation(snapshots, learner, system.engine, 40, seed=3, progress=False)
    assert fair.velocity_origin == "boltzmann"
    assert chi_square(fair.counts, p) < AGREES
    biased = committor_simulation(
        snapshots, learner, system.engine, 60, modifier=Onwards(system.engine), seed=3, progress=False
    )
    assert chi_square(biased.counts, p) > DISAGREES


def test_three_states():
    chain = Chain(with_middle_state=True)
    learner = chain.learner(logits=np.zeros((7, 3)))
    result = shoot(chain, learner, sites=[1, 2, 4, 5], n_shots=100)
    assert result.counts.shape == result.predicted.shape == (4, 3)
    assert np.all(result.counts[:2, 1] == 0) and np.all(result.counts[2:, 0] == 0)  # C lies between
    assert np.all(result.counts[:, 2] > 0)
    assert result.training_set.n_states == 3 and "reached C (133 expected)" in str(result)
    with pytest.raises(ValueError, match="conditional committor"):
        _ = result.calibration


def test_shots_beyond_the_length_limit_are_counted_apart():
    """The chance to be in no state after nine steps follows from powers of the transition matrix."""
    chain = Chain()
    result = shoot(chain, n_shots=200, max_length=10)
    among = chain.engine.transition_matrix[1:-1, 1:-1]
    survive = np.linalg.matrix_power(among, 9).sum(axis=1)
    unfinished = np.stack([200 - result.too_long, result.too_long], axis=1)
    assert chi_square(unfinished, survive) < AGREES
    assert chi_square(unfinished, np.linalg.matrix_power(among, 8).sum(axis=1)) > chi_square(unfinished, survive)
    assert np.all(result.counts.sum(axis=1) + result.unfinished == 200) and not result.broken_down.any()
    assert f"{result.too_long.sum()} did not within 10 frames, which count nowhere" in str(result)
    assert not shoot(chain).too_long.any()


def test_shots_that_break_down_are_counted_apart():
    chain = breaking_chain(0.05)
    result = shoot(chain)
    assert result.broken_down.sum() == chain.engine.n_failures > 5 and not result.too_long.any()
    assert np.all(result.counts.sum(axis=1) + result.broken_down == 20)
    assert "broke down" in str(result)


def test_configurations_without_any_outcome_are_left_out():
    chain = Chain()
    result = shoot(chain, sites=[1, 3, 5], max_length=2, n_shots=40)  # one step, from the neighbours of A and B
    assert np.array_equal(result.counts > 0, [[True, False], [False, False], [False, True]])
    assert result.too_long[1] == 40
    assert len(result.training_set) == 2 and result.calibration.n_shots == 2
    nothing = shoot(chain, sites=[3], max_length=2)
    assert "nothing to compare" in str(nothing) and len(nothing.training_set) == 0


def test_training_set_can_be_learned_from():
    chain = Chain()
    result = shoot(chain, n_shots=50, modifier=ops_aimmd_like_modifier())
    rows = result.training_set
    assert np.array_equal(rows.counts, result.counts) and np.array_equal(rows.predicted_committor, result.predicted)
    assert set(rows.velocity_origin) == {"boltzmann"} and np.all(rows.weights == 1)
    model = ops_aimmd.CommittorModel.for_descriptors(1, seed=1)
    before = np.abs(model.committor(rows.descriptors) - exact(chain)[INNER]).max()
    assert ops_aimmd.fit(model, rows, seed=1).n_legs == 250
    assert np.abs(model.committor(rows.descriptors) - exact(chain)[INNER]).max() < 0.15 < before
    one_by_one = ops_aimmd.TrainingSet(
        np.repeat(rows.descriptors, 50, axis=0),
        np.concatenate([np.eye(2)[[0] * int(a) + [1] * int(b)] for a, b in rows.counts]),
    )
    likelihood = [(data.weights * loss(model, data)).sum() for data in (rows, one_by_one)]
    assert np.isclose(*likelihood)  # a row weighs as its legs do, given one by one


def ops_aimmd_like_modifier():
    """Draws velocities that a chain does not look at."""

    class Still(ops_aimmd.BoltzmannVelocities):
        def __call__(self, snapshot):
            return snapshot.copy_with_replacement(velocities=snapshot.velocities)

    return Still()


def loss(model, data):
    log_committor = model.log_committor(data.descriptors)
    return -(data.counts * log_committor).sum(axis=1)


# ---- configurations --------------------------------------------------------------------------------------------------


def fine_chain_paths(n_paths, seed=1):
    """Toy paths and a learner whose committor is a steep function of y; the states of Wolfe-Quapp are at large |y|."""
    system = toy.wolfe_quapp()
    learner = ops_aimmd.CommittorLearner(system.descriptors, system.states, seed=1, model=steep_model())
    return learner, [system.initial_trajectory(seed + i) for i in range(n_paths)]


def steep_model():
    import torch

    class Steep(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.slope = torch.nn.Parameter(torch.tensor(-4.0))

        def forward(self, x):
            return self.slope * x[:, 1:2]

    return ops_aimmd.CommittorModel(Steep(), n_descriptors=2, n_states=2)


def test_configurations_are_spread_evenly_and_over_paths():
    learner, trajectories = fine_chain_paths(25)
    chosen = spread_along_committor(iter(trajectories), learner, 20, seed=1)
    p = learner.committor(paths.Trajectory(chosen))
    assert np.array_equal(np.floor(20 * p), np.arange(20))
    assert np.abs(p - (np.arange(20) + 0.5) / 20).max() < 0.024  # also next to the states, where most frames are
    everything = np.concatenate([learner.committor(path[1:-1]) for path in trajectories])
    assert np.bincount((20 * everything).astype(int), minlength=20).max() > 4 * len(everything) / 20  # the control
    owners = [next(i for i, path in enumerate(trajectories) if frame in path) for frame in chosen]
    assert len(set(owners)) > 15
    ends = {end.__uuid__ for path in trajectories for end in (path[0], path[-1])}
    assert not ends & {frame.__uuid__ for frame in chosen}


def test_the_choice_follows_from_the_seed_alone():
    learner, trajectories = fine_chain_paths(5)
    first, second, other = ([f.__uuid__ for f in spread(trajectories, learner, seed)] for seed in (1, 1, 2))
    assert first == second != other


def spread(trajectories, learner, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return spread_along_committor(trajectories, learner, 10, seed=seed)


def test_frames_that_occur_several_times_count_once():
    chain = Chain()
    learner = learner_of(chain)
    path = chain.path([0, 1, 2, 3, 4, 5, 6])
    again = [path, path, paths.Trajectory(list(path)), path.reversed]
    with pytest.warns(UserWarning, match="no frames"):
        chosen = spread_along_committor(again, learner, 50, seed=1)
    assert len({int(frame.__uuid__) & ~1 for frame in chosen}) == len(chosen) == 5


def test_ranges_without_frames_are_named():
    chain = Chain()
    values = np.array([0.0, 0.02, 0.12, 0.31, 0.95, 0.97, 1.0])
    learner = chain.learner(logits=logit(np.clip(values, 1e-6, 1 - 1e-6)))
    with pytest.warns(UserWarning, match=r"0\.20-0\.30 and 0\.40-0\.90 of B, so that only 4 of 10") as caught:
        chosen = spread_along_committor([chain.initial()], learner, 10)
    assert len(caught) == 1
    assert learner.committor(paths.Trajectory(chosen)) == pytest.approx([0.02, 0.12, 0.31, 0.95], abs=0.021)


@pytest.mark.parametrize(("n", "expected"), [(20, [0.26, 0.28, 0.71, 0.951]), (5, [0.27, 0.71, 0.951])])
def test_a_near_frame_takes_the_place_of_a_missing_one(n, expected):
    """0.26 and 0.28 share an interval; the neighbours of width 0.05 are near enough, those of width 0.2 are not."""
    chain = Chain()
    values = np.array([0.0, 0.26, 0.28, 0.71, 0.951, 0.951, 1.0])
    learner = chain.learner(logits=logit(np.clip(values, 1e-6, 1 - 1e-6)))
    with pytest.warns(UserWarning, match="no frames"):
        chosen = spread_along_committor([chain.path([0, 1, 2, 3, 4, 6])], learner, n)
    assert sorted(learner.committor(paths.Trajectory(chosen))) == pytest.approx(expected, abs=0.011)


def test_frames_of_plain_dynamics_inside_states_are_left_out():
    chain = Chain()
    inside = chain.path([3, 2, 1, 0, 0, 1, 2, 3, 4, 5, 6, 6, 5])
    with pytest.warns(UserWarning):
        chosen = spread_along_committor([inside], learner_of(chain), 30)
    sites = {round(frame.coordinates[0, 0]) for frame in chosen}
    assert sites == {1, 2, 3, 4, 5}
    with pytest.raises(ValueError, match="no configurations to choose from"):
        spread_along_committor([chain.path([3, 0, 0, 6, 3])], learner_of(chain))


def test_three_states_share_the_configurations():
    chain = Chain(with_middle_state=True)
    logits = np.log([[0.98, 0.01, 0.01], [0.8, 0.1, 0.1], [0.3, 0.1, 0.6], [0.1, 0.1, 0.8]] + 3 * [[0.1, 0.8, 0.1]])
    with pytest.warns(UserWarning, match="of A, .* of B, .* of C"):
        chosen = spread_along_committor([chain.initial()], chain.learner(logits=logits), 12)
    assert {round(frame.coordinates[0, 0]) for frame in chosen} == {1, 2, 4, 5}


def test_paths_of_a_run_serve_as_they_are():
    chain = Chain()
    learner = learner_of(chain)
    sampler, steps = simulation(chain.scheme(learner), chain.initial())
    sampler.run(15)
    with pytest.warns(UserWarning):
        chosen = spread_along_committor([step.active[0].trajectory for step in steps], learner, 20)
    assert shoot(chain, learner, sites=[round(frame.coordinates[0, 0]) for frame in chosen], n_shots=2).counts.sum() > 0


@pytest.mark.parametrize(
    ("trajectories", "match"),
    [
        (lambda chain: chain.initial(), "number 0 is a ToySnapshot.*put it in a list"),
        (lambda chain: [chain.initial(), None], "number 1 is a NoneType"),
        (lambda chain: [], "no configurations to choose from"),
    ],
)
def test_what_are_no_trajectories(trajectories, match):
    chain = Chain()
    with pytest.raises(ValueError, match=match):
        spread_along_committor(trajectories(chain), learner_of(chain))


# ---- interruptions and checkpoints -----------------------------------------------------------------------------------


def broken_run(chain, checkpoint, **options):
    """Repeats the call until no error of the engine ends it; returns the result and the shots on disk at each error."""
    on_disk = []
    while True:
        try:
            return shoot(chain, checkpoint=checkpoint, **options), on_disk
        except RuntimeError:
            result = CommittorSimulation.load(checkpoint)
            on_disk.append(int(result.counts.sum()))


def test_an_interrupted_simulation_equals_an_uninterrupted_one(tmp_path):
    chain = breaking_chain(0.005, error=RuntimeError("power cut"))
    result, on_disk = broken_run(chain, tmp_path / "shots.aimmd")
    assert len(on_disk) > 3 and on_disk == sorted(on_disk) and 0 < on_disk[-1] < 100
    assert same(result, shoot(Chain()))
    assert not same(result, shoot(Chain(), seed=2))  # the control
    assert same(CommittorSimulation.load(tmp_path / "shots.aimmd"), result)


def test_every_finished_shot_is_on_disk(tmp_path):
    chain = breaking_chain(0.0, error=RuntimeError("power cut"))
    made = []

    class Counting(paths.NoModification):
        def __call__(self, snapshot):
            made.append(snapshot)
            chain.engine.probability = 1.0 if len(made) == 1 + 34 else 0.0  # one draw is made before the first shot
            return super().__call__(snapshot)

    with pytest.raises(RuntimeError, match="power cut"):
        shoot(chain, modifier=Counting(as_copy=True), checkpoint=tmp_path / "shots.aimmd")
    stored = CommittorSimulation.load(tmp_path / "shots.aimmd")
    assert stored.counts.sum() == 33
    assert np.array_equal(stored.counts.sum(axis=1), [7, 7, 7, 6, 6])  # as even as can be


def test_more_shots_later(tmp_path):
    chain = Chain()
    few = shoot(chain, n_shots=10, checkpoint=tmp_path / "shots.aimmd")
    more = shoot(chain, n_shots=30, checkpoint=tmp_path / "shots.aimmd")
    assert same(few, shoot(chain, n_shots=10)) and same(more, shoot(chain, n_shots=30))
    assert np.all(more.counts >= few.counts) and more.counts.sum() == 150
    chain.engine.generate = None  # nothing is shot again
    assert same(shoot(chain, n_shots=30, checkpoint=tmp_path / "shots.aimmd"), more)
    assert same(shoot(chain, n_shots=10, checkpoint=tmp_path / "shots.aimmd"), few)


def test_without_a_seed_nothing_is_repeated(tmp_path):
    """A script that seeds numpy and is started again must not shoot the same shots again."""
    chain = Chain()
    for name in ("one", "two"):
        for n_shots in (60, 120):
            np.random.seed(1)  # noqa: NPY002
            shoot(chain, sites=[3], n_shots=n_shots, seed=None, checkpoint=tmp_path / name)
    outcomes = []
    for name in ("one", "two"):
        with Checkpoint.open(tmp_path / name, read_only=True) as file:
            outcomes.append(file.state(file.state_keys()[0]))
    assert not np.array_equal(outcomes[0][:60], outcomes[1][:60])
    assert not np.array_equal(outcomes[0][:60], outcomes[0][60:])
    assert not np.array_equal(outcomes[0][60:], outcomes[1][60:])


def test_shots_differ_between_configurations_and_from_the_steps_of_a_run():
    """Equal configurations get other random numbers, and so do the MC steps of a run with the same seed."""
    from ops_aimmd.shooting.streams import seed_of_member, seed_step

    result = shoot(Chain(), sites=[3] * 8, n_shots=40)
    assert len({tuple(counts) for counts in result.counts}) > 3
    draws = set()
    for first in (5, *(seed_of_member(5, 9, configuration) for configuration in range(20))):
        for number in range(20):
            seed_step(first, number)
            draws.add(np.random.random())  # noqa: NPY002
    assert len(draws) == 21 * 20


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"seed": 2}, "has seed 1, this call 2"),
        ({"max_length": 50}, "has max length 5000, this call 50"),
        ({"sites": [1, 2, 4, 4, 5]}, r"of 5 configurations, this call of 5, and numbers \[2\] are not the same"),
        ({"sites": [1, 2]}, "of 5 configurations, this call of 2: give"),
        ({"modifier": ops_aimmd_like_modifier()}, "velocity origin 'path', this call 'boltzmann'"),
    ],
)
def test_a_checkpoint_of_another_simulation(tmp_path, change, match):
    chain = Chain()
    learner = learner_of(chain)
    shoot(chain, learner, n_shots=2, checkpoint=tmp_path / "shots.aimmd")
    before = CommittorSimulation.load(tmp_path / "shots.aimmd")
    with pytest.raises(ValueError, match=match):
        shoot(chain, learner, n_shots=4, checkpoint=tmp_path / "shots.aimmd", **change)
    assert same(CommittorSimulation.load(tmp_path / "shots.aimmd"), before)


def test_a_checkpoint_of_something_else(tmp_path):
    chain = Chain()
    learner = learner_of(chain)
    sampler, _ = simulation(chain.scheme(learner), chain.initial(), ops_aimmd.TrainingHook(learner, tmp_path / "run.aimmd"))
    sampler.run(2)
    for call in (lambda path: shoot(chain, checkpoint=path), CommittorSimulation.load):
        with pytest.raises(ValueError, match="of a run that learns, not of a committor simulation"):
            call(tmp_path / "run.aimmd")
    with pytest.raises(FileNotFoundError):
        CommittorSimulation.load(tmp_path / "nothing.aimmd")
    shoot(chain, n_shots=1, checkpoint=tmp_path / "shots.aimmd")
    with pytest.raises(ValueError, match="checkpoint of a committor simulation, in which there is no learner"):
        ops_aimmd.load_learner(tmp_path / "shots.aimmd")


def test_predictions_stay_those_of_the_first_call(tmp_path):
    chain = Chain()
    learner = learner_of(chain)
    first = shoot(chain, learner, n_shots=5, checkpoint=tmp_path / "shots.aimmd")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shoot(chain, learner, n_shots=6, checkpoint=tmp_path / "shots.aimmd")
    publish(learner, np.linspace(-1, 1, 7))
    with pytest.warns(UserWarning, match="the model has changed") as caught:
        second = shoot(chain, learner, n_shots=10, checkpoint=tmp_path / "shots.aimmd")
    assert np.array_equal(first.predicted, second.predicted)
    assert not np.allclose(second.predicted[:, 1], expit(np.linspace(-1, 1, 7))[INNER])
    assert caught[0].filename == __file__


def test_stored_frames_are_the_same_configurations(tmp_path):
    """OPS files are in single precision; whoever picked frames in memory may go on with those of the file."""
    system = toy.wolfe_quapp()
    learner = ops_aimmd.CommittorLearner(system.descriptors, system.states, seed=1)
    path = system.initial_trajectory(1)
    learner.committor(path)
    stored = [frame.copy_with_replacement(coordinates=frame.coordinates.astype(np.float32)) for frame in path]
    assert not np.array_equal(stored[30].coordinates, path[30].coordinates)
    options = {"checkpoint": tmp_path / "shots.aimmd", "seed": 1, "progress": False}
    committor_simulation([path[30], path[40]], learner, system.engine, 1, **options)
    assert committor_simulation([stored[30], stored[40]], learner, system.engine, 2, **options).counts.sum() == 4
    with pytest.raises(ValueError, match=r"numbers \[1\] are not the same"):
        committor_simulation([stored[30], stored[41]], learner, system.engine, 2, **options)


def test_alanine_dipeptide(tmp_path):
    system = alanine_dipeptide()
    learner = ops_aimmd.CommittorLearner(system.descriptors, system.states, seed=1)
    path = system.initial_trajectory(4)
    learner.committor(path)
    snapshots = [path[len(path) // 3], path[2 * len(path) // 3]]
    options = {"seed": 1, "progress": False}
    file = tmp_path / "shots.aimmd"
    committor_simulation(snapshots, learner, system.engine, 1, checkpoint=file, **options)
    system.engine.simulation.step(3)  # a disturbance between the calls
    system.engine._changed()
    result = committor_simulation(snapshots, learner, system.engine, 2, checkpoint=file, **options)
    assert np.all(result.counts.sum(axis=1) + result.unfinished == 2)
    assert result.descriptors.shape == (2, 18)
    assert "C7eq" in str(result) and "2 configurations" in str(result)
    assert same(result, committor_simulation(snapshots, learner, system.engine, 2, **options))


# ---- wrong inputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sites": []}, "no configurations to shoot from"),
        ({"sites": [3, 0, 6]}, r"configurations \[1, 2\] lie in states"),
        ({"n_shots": 0}, "n_shots must be a positive integer; got 0"),
        ({"n_shots": 2.5}, "n_shots must be a positive integer; got 2.5"),
        ({"max_length": 1}, "at least 2; got 1"),
        ({"max_length": 6000}, "n_frames_max=5000"),
        ({"seed": -1}, "non-negative integer or None"),
        ({"modifier": None}, "pass modifier="),
    ],
)
def test_wrong_arguments(tmp_path, change, match):
    with pytest.raises(ValueError, match=match):
        shoot(Chain(), checkpoint=tmp_path / "shots.aimmd", **change)
    assert not (tmp_path / "shots.aimmd").exists()


def test_things_of_the_wrong_kind():
    chain = Chain()
    learner, path = learner_of(chain), chain.initial()
    with pytest.raises(ValueError, match="learner must be a CommittorLearner; got a MarkovChainEngine"):
        committor_simulation(path[1:-1], chain.engine, learner)
    with pytest.raises(ValueError, match="engine must be a DynamicsEngine; got a NoneType"):
        committor_simulation(path[1:-1], learner, None)
    with pytest.raises(ValueError, match="number 0 is a Trajectory"):
        committor_simulation([path], learner, chain.engine)
    with pytest.raises(RuntimeError, match="no model"):
        committor_simulation(path[1:-1], chain.learner(), chain.engine)
    with pytest.raises(RuntimeError, match="no model"):
        spread_along_committor([path], chain.learner())
    with pytest.raises(ValueError, match="n_configurations must be a positive integer"):
        spread_along_committor([path], learner, 0)
    chain = breaking_chain(0.0, on_nan="retry")
    with pytest.raises(ValueError, match="on_nan is 'retry'"):
        shoot(chain)

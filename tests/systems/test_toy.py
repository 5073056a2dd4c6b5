import os

import numpy as np
import openpathsampling as paths
import pytest
from child_processes import run_code

from ops_aimmd.systems import toy

FACTORIES = [toy.mueller_brown, toy.wolfe_quapp, toy.hummer_szabo, toy.two_gaussian_wells]


@pytest.fixture(params=FACTORIES, ids=lambda f: f.__name__)
def factory(request):
    return request.param


@pytest.mark.parametrize("n_bath", [0, 20])
@pytest.mark.parametrize("dynamics", ["overdamped", "langevin"])
def test_initial_trajectory_is_a_transition_path(factory, dynamics, n_bath):
    system = factory(dynamics=dynamics, n_bath=n_bath)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 (OPS's own generator must stay untouched)
    trajectory = system.initial_trajectory(seed=1)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002

    ensemble = system.network().sampling_ensembles[0]
    assert ensemble(trajectory)
    assert not ensemble(trajectory[:-1])
    assert not ensemble(trajectory.reversed)
    back = system.network(all_to_all=True).sampling_ensembles[0]
    assert back(trajectory) and back(trajectory.reversed)

    x = system.descriptors(trajectory)
    assert x.shape == (len(trajectory), system.n_dim) and x.dtype == np.float64
    assert len(trajectory) <= system.engine.options["n_frames_max"]
    for volume, disk in zip(system.states, system.disks, strict=True):
        assert [volume(snapshot) for snapshot in trajectory] == disk.contains(x).tolist()
    # no jumps: neighbouring frames are as near as frames of the dynamics are, the shooting point included
    step = np.linalg.norm(np.diff(x[:, :2], axis=0), axis=1)
    assert step.max() < 8.0 * np.median(step)


def test_a_seed_fixes_the_initial_trajectory(factory):
    system = factory()
    one, same, other = (system.descriptors(system.initial_trajectory(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_both_channels_can_be_started_from():
    system = toy.wolfe_quapp()
    # the side on which a path crosses y = 0 is its channel; a path may change it, most do not
    sides = []
    for channel in (0, 1):
        x = [system.descriptors(system.initial_trajectory(seed, channel=channel)) for seed in range(5)]
        sides.append(np.median([path[np.abs(path[:, 1]).argmin(), 0] for path in x]))
    assert sides[0] < 0.0 < sides[1]


def test_impossible_length_limit_is_an_error():
    with pytest.raises(RuntimeError, match="at most 10 frames"):
        toy.mueller_brown(n_frames_max=10).initial_trajectory(seed=1, n_attempts=2)


def test_stock_path_sampling_runs():
    system = toy.hummer_szabo(dynamics="langevin")
    network = system.network()
    scheme = paths.OneWayShootingMoveScheme(network, engine=system.engine)
    sampler = paths.PathSampling(
        storage=None,
        move_scheme=scheme,
        sample_set=scheme.initial_conditions_from_trajectories(system.initial_trajectory(seed=1)),
    )
    sampler.output_stream = open(os.devnull, "w")
    sampler.run(3)
    assert network.sampling_ensembles[0](sampler.sample_set[0].trajectory)


def test_descriptors_and_states_of_a_snapshot():
    system = toy.wolfe_quapp(n_bath=2)
    trajectory = system.initial_trajectory(seed=1)
    first = trajectory[0]
    assert system.descriptors(first) == pytest.approx(first.coordinates[0])
    distance = system.states[0].collectivevariable
    assert distance(trajectory) == pytest.approx(system.disks[0].distance(system.descriptors(trajectory)))
    assert distance(first) < system.disks[0].radius < distance(trajectory[-1])


def test_states_of_different_systems_are_different():
    # OPS compares volumes by their text
    states = [factory().states for factory in FACTORIES]
    assert len({str(state) for pair in states for state in pair}) == 2 * len(FACTORIES)


def test_evaluation_points(factory):
    system = factory(n_bath=2)
    x = system.evaluation_points()
    assert 300 <= len(x) <= 500 and x.shape[1] == 4
    assert (system.exact.potential.value(x[:, :2]) < system.v_max).all()
    assert not any(disk.contains(x).any() for disk in system.disks)
    assert (x[:, 2:] == 0.0).all()
    lower = system.evaluation_points(v_max=system.v_max - 0.1 * abs(system.v_max))
    assert (system.exact.potential.value(lower[:, :2]) < system.v_max - 0.1 * abs(system.v_max)).all()
    drawn = system.evaluation_points(rng=np.random.default_rng(1))
    energy = 0.5 * np.array(system.potential.stiffness) * drawn[:, 2:] ** 2
    # m halves of chi-squared numbers times kT: relative standard error sqrt(2 / m)
    assert energy.mean() == pytest.approx(0.5 * system.temperature, rel=4.0 * np.sqrt(2.0 / energy.size))


def test_two_wells_evaluation_points_have_low_energy():
    assert toy.two_gaussian_wells().v_max == 0.25


def test_frame_spacing_can_be_chosen():
    assert toy.two_gaussian_wells().engine.n_steps_per_frame == 1
    assert toy.two_gaussian_wells(n_steps_per_frame=4).engine.n_steps_per_frame == 4


def test_unknown_dynamics_is_an_error():
    with pytest.raises(ValueError, match="'overdamped' or 'langevin'"):
        toy.wolfe_quapp(dynamics="newton")


FILES = """
def files(netcdf, simstore):
    "OPS's two kinds of storage; the second changes OPS's classes, and comes last."
    import openpathsampling as paths
    yield netcdf, paths.Storage
    from openpathsampling.experimental.storage import Storage, monkey_patch_all
    monkey_patch_all(paths)
    yield simstore, Storage
"""

WRITE = """
import sys
import openpathsampling as paths
from ops_aimmd.systems import toy
system = toy.wolfe_quapp(n_bath=2, n_steps_per_frame=50)
trajectory, network = system.initial_trajectory(seed=1), system.network()
for name, Storage in files(*sys.argv[1:]):
    storage = Storage(name, "w")
    for part in (trajectory, network, system.descriptors):
        storage.save(part)
    storage.close()
"""

READ = """
import sys
import numpy as np
import openpathsampling as paths
from ops_aimmd.systems import toy
system = toy.wolfe_quapp(n_bath=2, n_steps_per_frame=50)
expected = system.descriptors(system.initial_trajectory(seed=1))
for name, Storage in files(*sys.argv[1:]):
    storage = Storage(name, "r")
    engine = [e for e in storage.engines if isinstance(e, paths.engines.toy.Engine)][0]
    assert engine.pes.potential == system.potential, engine.pes
    descriptors = [cv for cv in storage.cvs if cv.name == system.descriptors.name][0]
    trajectory = [t for t in storage.trajectories if len(t) == len(expected)][0]
    x = descriptors(trajectory)
    assert np.allclose(x, expected, atol=1e-6), "coordinates"           # stored as float32
    assert not np.allclose(x, expected + 1e-4, atol=1e-6), "control"
    network = storage.networks[0]
    states = sorted(network.all_states, key=lambda state: state.name)
    assert [state.name for state in states] == ["A", "B"]
    assert states[0](trajectory[0]) and states[1](trajectory[-1])
    assert not states[0](trajectory[-1]) and not states[1](trajectory[0])
    engine.current_snapshot = trajectory[5]
    assert np.isfinite(engine.generate_next_frame().coordinates).all()
    print("as stored")
"""


def test_survives_storage_and_a_new_process(tmp_path):
    for code in (WRITE, READ):
        result = run_code(FILES + code, tmp_path, tmp_path / "run.nc", tmp_path / "run.db")
        assert result.returncode == 0, result.stderr
    assert result.stdout.count("as stored") == 2

import numpy as np
import pytest

from ops_aimmd.systems import toy
from ops_aimmd.systems.exact_committor import Disk, ExactCommittor
from ops_aimmd.systems.potentials import WolfeQuapp

# independent finite-volume solutions, converged to about 6e-4 and quoted to three digits
MB = [(-0.822, 0.624), (-0.05, 0.467), (0.212, 0.293)]
HS = [(0.2, 0.0), (0.0, 0.5), (-0.3, 0.3)]
REFERENCES = {
    "mueller_brown kT=10": (toy.mueller_brown, {"temperature": 10.0}, MB, (0.326, 0.948, 0.978)),
    "mueller_brown kT=15": (toy.mueller_brown, {"temperature": 15.0}, MB, (0.282, 0.870, 0.940)),
    "mueller_brown kT=20": (toy.mueller_brown, {"temperature": 20.0}, MB, (0.262, 0.804, 0.903)),
    "hummer_szabo b=3": (toy.hummer_szabo, {"b": 3.0}, HS, (0.666, 0.706, 0.379)),
    "hummer_szabo b=5": (toy.hummer_szabo, {"b": 5.0}, HS, (0.728, 0.760, 0.319)),
    "hummer_szabo b=10": (toy.hummer_szabo, {"b": 10.0}, HS, (0.822, 0.845, 0.226)),
    "two_gaussian_wells": (
        toy.two_gaussian_wells,
        {},
        [(0.2, 0), (0, 0.4), (0.3, 0.3)],
        (0.659, 0.646, 0.887),
    ),
    "wolfe_quapp": (toy.wolfe_quapp, {}, [(0, 0), (-1.5, 0), (1.5, 0)], (0.510, 0.990, 0.0083)),
}
TOLERANCE = 2e-3


@pytest.mark.parametrize("name", REFERENCES)
def test_reference_values(name):
    factory, parameters, points, expected = REFERENCES[name]
    system = factory(**parameters)
    points = np.array(points, dtype=float)
    assert system.committor(points) == pytest.approx(np.array(expected), abs=TOLERANCE)
    wrong = factory(**{**parameters, "temperature": 1.5 * system.temperature})
    assert np.abs(wrong.committor(points) - expected).max() > 5 * TOLERANCE


def test_converges_with_the_grid():
    system = toy.mueller_brown()
    exact, points = system.exact, system.evaluation_points(spacing=0.1)

    def solve(spacing):
        return ExactCommittor(exact.potential, exact.box, exact.disks, exact.temperature, spacing)(points)

    # bilinear interpolation and cut cells are both of second order: a factor 4 per halving, 2 is asked
    default = solve(exact.spacing)
    coarse, middle = solve(4 * exact.spacing), solve(2 * exact.spacing)
    assert np.abs(middle - default).max() < 0.5 * np.abs(coarse - default).max()
    assert np.abs(middle - default).max() < TOLERANCE
    assert np.abs(coarse - default).max() > 1e-4  # else the comparison above says nothing


def test_obeys_the_symmetry_of_the_potential():
    system = toy.hummer_szabo()
    x = np.random.default_rng(1).uniform(-1.2, 1.2, (200, 2))
    assert system.committor(x) + system.committor(-x) == pytest.approx(np.ones(200), abs=1e-8)
    assert np.abs(system.committor(x) + system.committor(x * [-1.0, 1.0]) - 1.0).max() > 0.1


def test_zero_in_a_one_in_b_between_elsewhere():
    system = toy.wolfe_quapp()
    ends = np.array([disk.center for disk in system.disks])
    assert system.committor(ends).tolist() == [0.0, 1.0]
    p = system.committor(system.evaluation_points())
    assert ((p >= 0.0) & (p <= 1.0)).all()


def test_flat_potential_between_parallel_walls_is_linear():
    # states far larger than the box is high, centred outside of it: the borders are nearly straight lines
    def flat(x):
        return np.zeros(len(x))

    potential = type("Flat", (), {"value": staticmethod(flat)})()
    disks = (Disk((-1000.0, 0.0), 999.0), Disk((1000.0, 0.0), 999.0))
    exact = ExactCommittor(potential, ((-1.05, 1.05), (-0.1, 0.1)), disks, 1.0, 0.02)
    x = np.stack([np.linspace(-0.9, 0.9, 19), np.zeros(19)], axis=1)
    # sagitta of the borders: 0.1^2 / 2000 = 5e-6
    assert exact(x) == pytest.approx(0.5 * (1.0 + x[:, 0]), abs=1e-5)


def test_bath_coordinates_do_not_matter():
    system = toy.two_gaussian_wells(n_bath=3)
    x = system.evaluation_points(spacing=0.3, rng=np.random.default_rng(1))
    moved = x.copy()
    moved[:, 2:] += 1.0
    assert (system.committor(x) == system.committor(moved)).all()
    moved[:, 0] *= -1.0
    assert (system.committor(x) != system.committor(moved)).any()


def test_errors():
    system = toy.wolfe_quapp()
    with pytest.raises(ValueError, match="outside the box"):
        system.committor(np.array([[0.0, 0.0], [9.0, 0.0]]))
    with pytest.raises(ValueError, match=r"rows \[1\]"):
        system.committor(np.array([[0.0, 0.0], [np.nan, 0.0]]))
    with pytest.raises(ValueError, match="expected"):
        system.committor(np.zeros(2))
    same = (Disk((0.0, 0.0), 1.0), Disk((0.5, 0.0), 1.0))
    with pytest.raises(ValueError, match="common"):
        ExactCommittor(WolfeQuapp(), ((-3, 3), (-3, 3)), same, 1.0, 0.1)(np.zeros((1, 2)))

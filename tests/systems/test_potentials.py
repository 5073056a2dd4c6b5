import numpy as np
import pytest

from ops_aimmd.systems.potentials import (
    HummerSzabo,
    MuellerBrown,
    PotentialSurface,
    TwoGaussianWells,
    WithBath,
    WolfeQuapp,
    potential_from_dict,
)

POTENTIALS = [
    MuellerBrown(),
    WolfeQuapp(),
    HummerSzabo(3.0),
    TwoGaussianWells(),
    WithBath(TwoGaussianWells(), (0.5, 2.0, 15.0)),
]


@pytest.fixture(params=POTENTIALS, ids=lambda p: type(p).__name__)
def potential(request):
    return request.param


@pytest.fixture
def x(potential):
    return np.random.default_rng(1).uniform(-1.2, 1.2, (50, potential.n_dim))


def central_differences(potential, x, h=1e-5):
    steps = h * np.eye(potential.n_dim)
    return np.stack([(potential.value(x + s) - potential.value(x - s)) / (2 * h) for s in steps], axis=1)


def test_gradient_is_the_derivative_of_the_value(potential, x):
    gradient = potential.gradient(x)
    # truncation h^2 V'''/6 ~ 1e-10 * 1e5 and rounding eps V / h ~ 1e-9, relative to gradients of up to 1e3
    assert np.allclose(gradient, central_differences(potential, x), rtol=1e-6, atol=1e-4)
    assert not np.allclose(1.001 * gradient, central_differences(potential, x), rtol=1e-6, atol=1e-4)


def test_single_points_agree_with_many(potential, x):
    # the same arithmetic in another order: rounding only
    gradients = np.array([potential.point_gradient(point) for point in x])
    assert np.allclose(gradients, potential.gradient(x), rtol=1e-12, atol=1e-11)
    assert np.allclose([potential.point_value(point) for point in x], potential.value(x), rtol=1e-14)


def test_survives_a_dictionary_and_ops_storage_form(potential):
    assert potential_from_dict(potential.to_dict()) == potential
    surface = PotentialSurface(potential)
    assert PotentialSurface.from_dict(surface.to_dict()).potential == potential


def test_parameters_matter():
    x = np.array([[0.2, 0.0]])
    assert HummerSzabo(3.0) != HummerSzabo(5.0)
    assert HummerSzabo(3.0).value(x) != HummerSzabo(5.0).value(x)


@pytest.mark.parametrize(
    "minimum_of, where",
    [
        (MuellerBrown(), [(-0.5582, 1.4417), (0.6235, 0.0280)]),
        (WolfeQuapp(), [(0.2143, 1.8746), (-0.2554, -1.8451)]),
        (HummerSzabo(), [(-1.0, -1.0), (1.0, 1.0)]),
    ],
)
def test_the_published_minima_are_minima(minimum_of, where):
    where = np.array(where)
    # coordinates are rounded to 5e-5, curvatures reach 4100
    assert np.abs(minimum_of.gradient(where)).max() < 4100 * 5e-5 * 2
    around = 0.02 * np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)])
    for point in where:
        assert (minimum_of.value(point + around) > minimum_of.value(point[None])).all()


def test_bath_is_harmonic_and_uncoupled():
    bath = WithBath(WolfeQuapp(), (2.0, 5.0))
    x = np.array([[0.3, -0.2, 0.1, -0.4]])
    expected = WolfeQuapp().value(x[:, :2]) + 0.5 * (2.0 * 0.1**2 + 5.0 * 0.4**2)
    assert bath.n_dim == 4
    assert bath.value(x) == pytest.approx(expected)


def test_diverged_trajectory_gives_no_exception():
    gradient = MuellerBrown().point_gradient(np.array([1e3, 1e3]))
    assert not np.isfinite(gradient).all()


def test_errors(potential):
    with pytest.raises(ValueError, match="expected"):
        potential.value(np.zeros(potential.n_dim))
    with pytest.raises(ValueError, match="expected"):
        potential.gradient(np.zeros((3, potential.n_dim + 1)))
    with pytest.raises(ValueError, match="expected"):
        potential_from_dict({"kind": "Unknown", "parameters": {}})
    with pytest.raises(ValueError, match="positive"):
        WithBath(WolfeQuapp(), (1.0, 0.0))

"""The engines that make tests quick make the steps of OPS's."""

import numpy as np
import pytest
from plain_integrators import plain

from ops_aimmd.shooting.streams import seed_step
from ops_aimmd.systems import toy


def frames(system):
    engine = system.engine
    seed_step(1, 0)
    engine.positions, engine.velocities = np.array([0.2, -0.1]), np.array([1.0, -0.5])
    found = [engine.generate_next_frame() for _ in range(3)]
    return np.array([[frame.coordinates[0], frame.velocities[0]] for frame in found])


@pytest.mark.parametrize("make", [toy.hummer_szabo, toy.wolfe_quapp])
@pytest.mark.parametrize("dynamics", ["overdamped", "langevin"])
def test_plain_numbers_are_the_same_dynamics(make, dynamics):
    system = make(dynamics=dynamics, n_steps_per_frame=7)
    expected = frames(system)
    np.testing.assert_allclose(frames(plain(system)), expected, atol=1e-9)
    assert not np.allclose(expected[0], expected[1], atol=1e-3)  # control: they move


def test_other_potentials_are_refused():
    engine = plain(toy.mueller_brown()).engine
    engine.positions, engine.velocities = np.zeros((2, 2))
    with pytest.raises(TypeError, match="MuellerBrown"):
        engine.generate_next_frame()

"""Frames for the tests of descriptors, and the checks that every kind of descriptors has to pass."""

import itertools

import numpy as np
import torch

ORTHORHOMBIC = np.diag([2.1, 2.3, 2.6])
# a truncated octahedron in the reduced form of OpenMM; its smallest width is 2.45
TRICLINIC = 3.0 * np.array([[1, 0, 0], [1 / 3, 2 * np.sqrt(2) / 3, 0], [-1 / 3, np.sqrt(2) / 3, np.sqrt(6) / 3]])


def random_rotation(rng):
    """A uniformly distributed proper rotation."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def all_images(vectors, box):
    """All images of vectors (n, 3) within two cells: (n, 125, 3)."""
    shifts = np.array(list(itertools.product(range(-2, 3), repeat=3))) @ box
    return vectors[:, None, :] + shifts


def check_invariance_under_images(descriptors, positions, box, rng, tolerance=1e-10):
    """Values do not change when each atom is replaced by any of its images."""
    cells = rng.integers(-2, 3, size=positions.shape)
    moved = positions + cells @ box
    np.testing.assert_allclose(descriptors(moved, box), descriptors(positions, box), rtol=0, atol=tolerance)


def check_invariance_under_motion(descriptors, positions, box, rng, tolerance=1e-10):
    """Values do not change when positions and box are rotated and positions are shifted."""
    rotation = random_rotation(rng)
    shift = rng.normal(size=3)
    moved = positions @ rotation.T + shift
    moved_box = None if box is None else box @ rotation.T
    np.testing.assert_allclose(descriptors(moved, moved_box), descriptors(positions, box), rtol=0, atol=tolerance)


def check_gradients(descriptors, positions, box, rng, n_directions=6, step=1e-5):
    """Derivatives along random directions agree with central differences; error of these about step^2 |f'''| / 6."""
    x = torch.tensor(positions, dtype=torch.float64, requires_grad=True)
    b = None if box is None else torch.tensor(box, dtype=torch.float64)
    values = descriptors(x, b)
    weights = torch.tensor(rng.normal(size=tuple(values.shape)))
    (gradient,) = torch.autograd.grad((weights * values).sum(), x)
    assert torch.isfinite(gradient).all()
    for _ in range(n_directions):
        direction = rng.normal(size=positions.shape)
        ahead, behind = (
            (weights.numpy() * descriptors(positions + sign * step * direction, box)).sum() for sign in (1, -1)
        )
        slope = (gradient.numpy() * direction).sum()
        scale = np.abs(gradient.numpy() * direction).sum()
        assert abs((ahead - behind) / (2 * step) - slope) < 1e-5 * scale

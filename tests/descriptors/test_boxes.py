"""The nearest periodic image, against a search over many images."""

import numpy as np
import pytest
import torch
from descriptor_support import ORTHORHOMBIC, TRICLINIC, all_images

from ops_aimmd.descriptors.boxes import (
    box_widths,
    is_orthorhombic,
    minimum_image,
    nearest_cell,
    shortest_vector_of_frame,
)


@pytest.fixture(params=[ORTHORHOMBIC, TRICLINIC], ids=["orthorhombic", "triclinic"])
def box(request):
    return request.param


@pytest.fixture
def vectors():
    return np.random.default_rng(1).uniform(-4, 4, size=(2000, 3))


def shortest(vectors, box):
    # the search over five cells in each direction starts inside the central cell
    vectors = vectors - np.round(vectors @ np.linalg.inv(box)) @ box
    return np.linalg.norm(all_images(vectors, box), axis=-1).min(axis=1)


def apply(function, vectors, box):
    return function(torch.tensor(vectors)[None], torch.tensor(box)[None])[0].numpy()


def test_minimum_image_is_the_shortest(vectors, box):
    found = apply(minimum_image, vectors, box)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), shortest(vectors, box), rtol=1e-12)
    cells = (found - vectors) @ np.linalg.inv(box)
    np.testing.assert_allclose(cells, np.round(cells), atol=1e-12)  # an image, not another vector


def test_nearest_cell_is_the_shortest_below_half_a_width(vectors, box):
    """Longer vectors are the control: in the triclinic box some are not the shortest."""
    found = np.linalg.norm(apply(nearest_cell, vectors, box), axis=1)
    expected = shortest(vectors, box)
    half = 0.5 * box_widths(torch.tensor(box)[None]).min().item()
    near = expected < half
    assert near.mean() > 0.2
    np.testing.assert_allclose(found[near], expected[near], rtol=1e-12)
    if not is_orthorhombic(torch.tensor(box)[None]):
        assert (found > expected + 1e-6).any()


def test_widths():
    np.testing.assert_allclose(box_widths(torch.tensor(ORTHORHOMBIC)[None])[0], [2.1, 2.3, 2.6])
    # all faces of the truncated octahedron's cell are sqrt(2/3) of an edge apart
    np.testing.assert_allclose(box_widths(torch.tensor(TRICLINIC)[None])[0], 3.0 * np.sqrt(2 / 3))


def test_one_vector_in_plain_python(vectors, box):
    for vector, expected in zip(vectors[:50], apply(minimum_image, vectors[:50], box), strict=True):
        np.testing.assert_allclose(shortest_vector_of_frame(vector.tolist(), box.tolist()), expected, atol=1e-14)
    assert shortest_vector_of_frame([5.0, 0.0, 0.0], None) == [5.0, 0.0, 0.0]

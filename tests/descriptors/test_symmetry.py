"""Symmetry functions: the double sum of the definition, their invariances, and bad input."""

import json

import numpy as np
import pytest
import torch
from descriptor_support import (
    ORTHORHOMBIC,
    TRICLINIC,
    all_images,
    check_gradients,
    check_invariance_under_images,
    check_invariance_under_motion,
)

from ops_aimmd.descriptors import symmetry
from ops_aimmd.descriptors.descriptor_set import descriptors_from_dict, descriptors_to_dict
from ops_aimmd.descriptors.symmetry import SymmetryFunctions

N_WATERS = 120
OXYGENS = list(range(2, 2 + 3 * N_WATERS, 3))
HYDROGENS = [atom for atom in range(2, 2 + 3 * N_WATERS) if atom not in OXYGENS]
BOXES = {"orthorhombic": ORTHORHOMBIC, "triclinic": TRICLINIC}


def waters(rng, box, n_frames=3):
    """Two ions and whole water molecules in random places of the cell."""
    oxygens = rng.uniform(size=(n_frames, N_WATERS, 1, 3)) @ box
    molecules = np.concatenate([oxygens, oxygens + rng.normal(0, 0.06, size=(n_frames, N_WATERS, 2, 3))], axis=2)
    ions = rng.uniform(size=(n_frames, 2, 3)) @ box
    return np.concatenate([ions, molecules.reshape(n_frames, -1, 3)], axis=1)


@pytest.fixture(params=BOXES)
def box(request):
    return BOXES[request.param]


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def functions():
    return SymmetryFunctions({"Li": 0, "Cl": 1}, {"O": OXYGENS, "H": HYDROGENS})


def by_definition(positions, box, centre, atoms, shell, zeta=None, sign=None, cutoff=1.0):
    """G2 (zeta None) or G5 of one frame: loops over all images and all pairs, formula as in the papers."""
    vectors = all_images(positions[atoms] - positions[centre], box)
    vectors = vectors[np.arange(len(atoms)), np.linalg.norm(vectors, axis=-1).argmin(axis=1)]
    distances = np.linalg.norm(vectors, axis=1)
    inside = distances < cutoff
    vectors, distances = vectors[inside], distances[inside]
    smooth = 0.5 * (np.cos(np.pi * distances / cutoff) + 1.0)
    if zeta is None:
        return np.sum(np.exp(-200.0 * (distances - shell) ** 2) * smooth)
    total = 0.0
    for j in range(len(vectors)):
        cosines = vectors[j + 1 :] @ vectors[j] / (distances[j + 1 :] * distances[j])
        gauss = np.exp(-120.0 * ((distances[j] - shell) ** 2 + (distances[j + 1 :] - shell) ** 2))
        total += np.sum((1.0 + sign * cosines) ** zeta * gauss * smooth[j] * smooth[j + 1 :])
    return 2.0 ** (1 - zeta) * total


def test_the_double_sum_of_the_definition(functions, box, rng):
    positions = waters(rng, box)
    # atoms far outside of the cell: all images must be taken back
    positions += rng.integers(-2, 3, size=positions.shape) @ box
    values = functions(positions, box)
    names = functions.names
    assert values.shape == (3, 220) and len(set(names)) == 220
    scale = np.abs(values).max()
    in_cell = positions - np.floor(positions @ np.linalg.inv(box)) @ box
    for centre, ion in enumerate(("Li", "Cl")):
        for kind, atoms in (("O", OXYGENS), ("H", HYDROGENS)):
            for shell in (0.25, 0.4, 0.55, 0.7, 0.85):
                expected = by_definition(in_cell[1], box, centre, atoms, shell)
                column = names.index(f"{ion} {kind} G2 r={shell}")
                assert values[1, column] == pytest.approx(expected, abs=1e-12 * scale)
                for zeta, sign in ((1, 1), (2, -1), (4, 1), (16, -1), (64, 1), (64, -1)):
                    expected = by_definition(in_cell[1], box, centre, atoms, shell, zeta, sign)
                    column = names.index(f"{ion} {kind} G5 r={shell} zeta={zeta} lambda={sign:+d}")
                    assert values[1, column] == pytest.approx(expected, abs=1e-12 * scale)


def test_frames_are_independent(functions, rng, monkeypatch):
    """Batches and blocks of any size give the same; neighbours of different number do not mix."""
    positions = waters(rng, ORTHORHOMBIC, n_frames=5)
    together = functions(positions, ORTHORHOMBIC)
    np.testing.assert_allclose(functions(positions[3:4], ORTHORHOMBIC)[0], together[3], rtol=1e-11, atol=1e-12)
    monkeypatch.setattr(symmetry, "PAIRS_AT_ONCE", {"cpu": 1})
    monkeypatch.setattr(symmetry, "DISTANCES_AT_ONCE", {"cpu": 1})
    monkeypatch.setattr(symmetry, "MIN_ROWS", 7)
    np.testing.assert_allclose(functions(positions, ORTHORHOMBIC), together, rtol=1e-11, atol=1e-12)
    assert functions(positions[:0], ORTHORHOMBIC).shape == (0, 220)


def test_invariances(functions, box, rng):
    positions = waters(rng, box)
    check_invariance_under_images(functions, positions, box, rng)
    check_invariance_under_motion(functions, positions, box, rng)


def test_equal_waters_may_be_exchanged(functions, box, rng):
    positions = waters(rng, box)
    order = rng.permutation(N_WATERS)
    exchanged = positions.copy()
    exchanged[:, 2:] = positions[:, 2:].reshape(3, N_WATERS, 3, 3)[:, order].reshape(3, -1, 3)
    np.testing.assert_allclose(functions(exchanged, box), functions(positions, box), atol=1e-10)
    # control: oxygen and hydrogen atoms may not
    first_hydrogens = [atom + 1 for atom in OXYGENS]
    exchanged[:, OXYGENS], exchanged[:, first_hydrogens] = exchanged[:, first_hydrogens], exchanged[:, OXYGENS]
    assert np.abs(functions(exchanged, box) - functions(positions, box)).max() > 1e-6


def test_gradients(functions, box, rng):
    check_gradients(functions, waters(rng, box, n_frames=2), box, rng)


def test_smooth_at_the_cutoff():
    """Value and slope vanish where a neighbour leaves; r = r_c of a function that is large there."""
    single = SymmetryFunctions({"a": 0}, {"b": [1, 2]}, shells=[0.9], cutoff=1.0, zetas=[1], lambdas=[1], periodic=False)
    positions = np.zeros((3, 3, 3))
    positions[:, 2, 1] = 0.9
    positions[:, 1, 0] = [1.0 - 1e-4, 1.0, 1.0 + 1e-4]
    before, at, after = single(positions)
    np.testing.assert_array_equal(at, after)
    assert np.abs(before - at).max() < 1e-6  # a function with a slope of 1 would change by 1e-4


def test_few_neighbours():
    """No neighbour, one, and two at a right angle, without a box."""
    single = SymmetryFunctions({"a": 0}, {"b": [1, 2]}, shells=[0.5], zetas=[1, 3], lambdas=[1, -1], periodic=False)
    positions = np.zeros((3, 3, 3))
    positions[:, 1:] = 5.0
    positions[1:, 1] = [0.5, 0.0, 0.0]
    positions[2, 2] = [0.0, 0.5, 0.0]
    values = single(positions)
    smooth = 0.5  # 0.5 (cos(pi/2) + 1)
    np.testing.assert_array_equal(values[0], 0.0)
    np.testing.assert_array_equal(single(positions[:1]), np.zeros((1, 5)))
    np.testing.assert_allclose(values[1], [smooth, 0, 0, 0, 0], atol=1e-15)
    np.testing.assert_allclose(values[2], [2 * smooth, smooth**2, smooth**2 / 4, smooth**2, smooth**2 / 4], atol=1e-15)


def test_float32_follows_the_tensor(functions, rng):
    positions = waters(rng, ORTHORHOMBIC)
    single = functions(torch.tensor(positions, dtype=torch.float32), torch.tensor(ORTHORHOMBIC, dtype=torch.float32))
    assert single.dtype == torch.float32
    # zeta = 64 multiplies the rounding of a cosine, 6e-8, by 64; distances of 1 nm are rounded by 1e-7 nm
    np.testing.assert_allclose(single, functions(positions, ORTHORHOMBIC), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda(functions, rng):
    positions, box = waters(rng, TRICLINIC), torch.tensor(TRICLINIC, device="cuda")
    values = functions(torch.tensor(positions, device="cuda"), box)
    assert values.is_cuda
    np.testing.assert_allclose(values.cpu(), functions(positions, TRICLINIC), rtol=1e-10, atol=1e-10)


def test_they_are_rebuilt_from_plain_types(functions, rng):
    again = descriptors_from_dict(json.loads(json.dumps(descriptors_to_dict(functions))))
    positions = waters(rng, ORTHORHOMBIC)
    assert again.names == functions.names
    np.testing.assert_array_equal(again(positions, ORTHORHOMBIC), functions(positions, ORTHORHOMBIC))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"neighbours": {"O": []}}, "'O' is empty"),
        ({"neighbours": {}}, "no neighbours"),
        ({"neighbours": {"O": [1, 1]}}, "more than once"),
        ({"centres": {"Li": -1}}, "negative"),
        ({"shells": [1.2]}, "between 0 and the cut-off"),
        ({"zetas": [0]}, "positive"),
        ({"zetas": [1.5]}, "whole numbers"),
        ({"lambdas": [2]}, "1 or -1"),
        ({"cutoff": -1.0}, "positive"),
    ],
)
def test_parameters_without_meaning(options, message):
    with pytest.raises(ValueError, match=message):
        SymmetryFunctions(**{"centres": {"Li": 0}, "neighbours": {"O": [1, 2]}, **options})


def test_bad_frames(functions, rng):
    positions = waters(rng, ORTHORHOMBIC)
    with pytest.raises(ValueError, match="have none"):
        functions(positions)
    with pytest.raises(ValueError, match=r"atoms \[302, 305"):
        SymmetryFunctions({"Li": 0}, {"O": OXYGENS})(positions[:, :300], ORTHORHOMBIC)
    broken = positions.copy()
    broken[1, 17] = np.nan
    with pytest.raises(ValueError, match=r"frames \[1\]: atoms \[17\]"):
        functions(broken, ORTHORHOMBIC)
    with pytest.raises(ValueError, match="more than half the smallest width"):
        functions(positions, 0.9 * ORTHORHOMBIC)
    with pytest.raises(ValueError, match="enclose no volume"):
        functions(positions, np.zeros((3, 3)))
    broken = positions.copy()
    broken[2, 5] = broken[2, 0]
    with pytest.raises(ValueError, match=r"lies on the centre Li \(atom 0\) in frames \[2\]"):
        functions(broken, ORTHORHOMBIC)
    with pytest.raises(ValueError, match=r"\(n_frames, n_atoms, 3\)"):
        functions(positions[0], ORTHORHOMBIC)

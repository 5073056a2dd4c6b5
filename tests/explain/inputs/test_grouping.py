"""Groups of inputs: by name, by atoms, by correlation; every input in exactly one."""

import numpy as np
import pytest

from ops_aimmd.descriptors import InternalCoordinates, SymmetryFunctions
from ops_aimmd.explain.inputs.grouping import (
    by_angle,
    by_central_bond,
    by_correlation,
    by_input,
    by_symmetry_function,
    check_names,
    correlated,
    resolve_groups,
)

DIHEDRALS = {"phi": (4, 6, 8, 14), "theta": (5, 4, 6, 8), "omega1": (1, 6, 4, 8)}
"""theta and omega1 turn about the bond 4-6, given in both directions."""

NAMES = ["r"] + InternalCoordinates(dihedrals=DIHEDRALS).names


def covers_all(groups, n):
    return sorted(column for columns in groups.values() for column in columns) == list(range(n))


def test_sine_and_cosine_of_one_angle_are_one_group():
    groups = by_angle(NAMES)
    assert groups == {"r": [0], "phi": [1, 2], "theta": [3, 4], "omega1": [5, 6]}
    assert by_angle(["basin", "phi cos"]) == {"basin": [0], "phi": [1]}


def test_dihedrals_about_one_bond_are_one_group():
    groups = by_central_bond(NAMES, DIHEDRALS)
    assert groups == {"r": [0], "phi": [1, 2], "theta, omega1": [3, 4, 5, 6]}
    chain = {"A 1 N - A 1 CA - A 1 C - B 2 N": 0, "A 1 CB - A 1 CA - A 1 C - B 2 N": 0, "A 1 CA - A 1 C - B 2 N - B 2 C": 0}
    names = [f"{name} {function}" for name in chain for function in ("sin", "cos")]
    assert by_central_bond(names) == {"about A 1 C - A 1 CA": [0, 1, 2, 3], "about A 1 C - B 2 N": [4, 5]}
    with_distance = by_central_bond([*names, "A 1 C - A 1 CA"])  # the distance has the name of the bond
    assert with_distance["A 1 C - A 1 CA"] == [6] and with_distance["about A 1 C - A 1 CA"] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="four atoms"):
        by_central_bond(NAMES)


def test_symmetry_functions_by_parts_of_their_names():
    functions = SymmetryFunctions({"Li": 0, "Cl": 1}, {"O": [2, 3], "H": [4, 5]}, shells=(0.25, 0.4), zetas=(1, 4))
    names = ["r(LiCl)", *functions.names]
    n = len(names)
    ions = by_symmetry_function(names)
    assert list(ions) == ["r(LiCl)", "Li", "Cl"] and covers_all(ions, n)
    assert list(by_symmetry_function(names, ["centre", "neighbours"]))[1:] == ["Li O", "Li H", "Cl O", "Cl H"]
    shells = by_symmetry_function(names, "shell")
    assert list(shells) == ["r(LiCl)", "r=0.25", "r=0.4"] and all("r=0.4" in names[i] for i in shells["r=0.4"])
    with pytest.raises(ValueError, match="parts must be"):
        by_symmetry_function(names, ["atom"])
    with pytest.raises(ValueError, match="symmetry function"):
        by_symmetry_function(["x", "y"])


def test_correlated_inputs_are_found_also_where_they_are_not_linear():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 5))
    x[:, 3] = -np.exp(2 * x[:, 0])  # monotonic: rank correlation -1
    x[:, 4] = 7.0
    assert by_correlation(list("abcde"), x) == {"a, d": [0, 3], "b": [1], "c": [2], "e": [4]}
    assert len(by_correlation(list("abcde"), rng.normal(size=(500, 5)))) == 5
    # of groups the most correlated pair counts
    assert correlated(x, [[0, 1], [2, 3], [4]]).tolist() == [0, 0, 1]
    assert correlated(x, [[0, 3], [2, 1], [4]]).tolist() == [0, 1, 2]


def test_ones_own_groups_are_completed():
    x = np.random.default_rng(0).normal(size=(10, 4))
    groups = resolve_groups({"pair": ["d", 1]}, list("abcd"), x)
    assert groups == {"pair": [1, 3], "a": [0], "c": [2]}
    assert resolve_groups("inputs", list("abcd"), x) == by_input("abcd")
    assert resolve_groups(None, list("abcd"), x) == by_input("abcd")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"g": ["e"]}, "there is no input 'e'"),
        ({"g": [4]}, "count from 0 to 3"),
        ({"g": ["a"], "h": ["a", "b"]}, r"in several are \['a'\]"),
        ({"g": []}, r"empty are \['g'\]"),
        ({"a": ["b"]}, "rename"),
        ("atoms", "must be one of"),
    ],
)
def test_wrong_groups(groups, message):
    with pytest.raises(ValueError, match=message):
        resolve_groups(groups, list("abcd"), np.zeros((3, 4)))


@pytest.mark.parametrize(("names", "message"), [(["a"], "1 names for 2"), (["a", "a"], "must differ"), ("ab", "a list")])
def test_wrong_names(names, message):
    with pytest.raises(ValueError, match=message):
        check_names(names, 2)

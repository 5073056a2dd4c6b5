"""Blocks and folds of shots are formed in one file, autocorrelation times and effective numbers in another."""

import ast
import re
from pathlib import Path

import pytest

import ops_aimmd

PACKAGE = Path(ops_aimmd.__file__).parent
PLACES = [PACKAGE / "committor" / name for name in ("correlated_shots.py", "autocorrelation.py")]

FLOORS = ("committor", "explain", "analysis")

NAMES = re.compile(
    r"^_*(blocks?|block_of\w*|block_length|folds?|folds?_of\w*|\w*inefficiency|effective_number\w*|\w*autocorrelation\w*|tau)$"
)


def places(source):
    """Lines that form blocks or folds: functions of such names, row numbers divided by a length or dealt in turn."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and NAMES.match(node.name.lower()):
            found.append((node.lineno, node.name))
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.FloorDiv, ast.Mod)):
            text = ast.unparse(node)
            if re.search(r"arange|rank|fold", text):
                found.append((node.lineno, text))
        if isinstance(node, ast.Attribute) and node.attr in ("KFold", "TimeSeriesSplit"):
            found.append((node.lineno, node.attr))
    return found


@pytest.mark.parametrize(
    "path",
    sorted(p for floor in FLOORS for p in (PACKAGE / floor).rglob("*.py") if p not in PLACES),
    ids=lambda path: path.stem,
)
def test_nothing_else_forms_blocks_or_folds(path):
    assert not places(path.read_text()), f"{path.name}: this belongs into {[place.name for place in PLACES]}"


def test_the_place_itself_is_found():
    """The control."""
    found = {name for place in PLACES for _, name in places(place.read_text())}
    assert {"blocks", "Folds", "block_length", "integrated_autocorrelation"} <= found
    assert places("fold = np.arange(n) // 2 % 5") and places("folds = sklearn.model_selection.KFold(5)")

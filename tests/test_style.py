"""ruff is content with every file, mypy with the folders that pyproject.toml names; prose keeps off dropped habits."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_ruff(command):
    result = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_mypy():
    pytest.importorskip("mypy", reason="mypy is not installed: pip install 'ops_aimmd[test]'")
    result = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


HABITS = re.compile(r"\b(?i:whose|anew|of which|in the place of)\b|^ *Of\b", re.MULTILINE)
"""Words that CONTRIBUTING.md (plain English) does without; "Of" where it begins a docstring or an entry of one."""

LEFT = {"ops_aimmd/committor": 22, "ops_aimmd/checkpoint": 7, "ops_aimmd/storage": 4, "docs": 7, "CHANGELOG.md": 2}
"""Occurrences that still stand. Numbers only go down."""


def prose(source):
    """Docstrings and comments of a Python file; strings that are values do not count."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def test_dropped_habits_stay_dropped():
    found = Counter()
    for path in [*ROOT.glob("*.md"), *ROOT.glob("ops_aimmd/**/*.py"), *ROOT.glob("docs/**/*.md")]:
        name = path.relative_to(ROOT)
        part = "/".join(name.parts[:2]) if name.parts[0] == "ops_aimmd" else name.parts[0]
        texts = prose(path.read_text()) if path.suffix == ".py" else [path.read_text()]
        found[part] += sum(len(HABITS.findall(text)) for text in texts)
    assert {part: n for part, n in found.items() if n > LEFT.get(part, 0)} == {}


def test_the_count_of_habits_can_fail():
    source = 'x = "anew"  # anew\n\n\ndef f():\n    """Of paths whose\n\n    path\n        Of a chain, of which\n    """\n'
    assert [HABITS.findall(text) for text in prose(source)] == [["Of", "whose", "        Of", "of which"], ["anew"]]

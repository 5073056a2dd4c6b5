"""How the package is built, in numbers: lines, long files, words for shots and legs, files that know an engine.

usage: house.py [FOLDER ...]     folders that hold a package `ops_aimmd`; by default the one that this script belongs to
"""

import ast
import sys
from collections import Counter
from pathlib import Path

import numpy as np

ENGINE_NAMES = {"openmm", "simtk", "openmmtools", "toy", "gromacs", "integration_tools"}
"""Packages, and modules of OPS, that belong to one kind of engine."""

WORDS = ("shot", "leg")


def package_files(folder):
    """Path inside the package and source text of each file."""
    package = Path(folder) / "ops_aimmd"
    return {file.relative_to(package): file.read_text() for file in sorted(package.rglob("*.py"))}


def lines_per_folder(files):
    """Lines of each folder directly under the package."""
    lines = Counter()
    for path, source in files.items():
        lines[path.parts[0] if len(path.parts) > 1 else "."] += len(source.splitlines())
    return lines


def named_after(word, files):
    """Classes and functions with a word in their name; a snapshot is no shot."""
    definitions = (ast.ClassDef, ast.FunctionDef)
    nodes = [node for source in files.values() for node in ast.walk(ast.parse(source)) if isinstance(node, definitions)]
    return [node.name for node in nodes if word in node.name.lower().replace("snapshot", "")]


def engine_names(source):
    """What of a source text concerns one kind of engine: imports and attributes (`paths.engines.toy`)."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        else:
            continue
        found |= {name for name in names if {*name.replace("_adapter", "").split(".")} & ENGINE_NAMES}
    return found


def main(folder):
    files = package_files(folder)
    lengths = [len(source.splitlines()) for source in files.values()]
    print(f"{folder}: {len(files)} files, {sum(lengths)} lines; 90th percentile of a file {np.percentile(lengths, 90):.0f}")
    print("  " + ", ".join(f"{name} {lines}" for name, lines in sorted(lines_per_folder(files).items())))
    for word in WORDS:
        print(f"  classes and functions with {word!r} in their name: {len(named_after(word, files))}")
    knowing = [path for path, source in files.items() if engine_names(source)]
    outside = [path for path in knowing if path.parts[0] not in ("engines", "systems", "__init__.py")]
    print(f"  files that know an engine: {len(knowing)}, outside engines/ and systems/: {len(outside)}")


if __name__ == "__main__":
    for folder in sys.argv[1:] or [Path(__file__).parents[1]]:
        main(folder)

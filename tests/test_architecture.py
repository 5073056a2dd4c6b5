"""A file imports only from above it: the order of the floors, and no cycles. Public names, and names that files know."""

import ast
import importlib
import re
import runpy
import subprocess
import sys
import types
from collections import Counter
from pathlib import Path

import pytest

import ops_aimmd

PACKAGE = Path(ops_aimmd.__file__).parent

FLOORS = [
    "version",
    "on_demand",
    "bounded_memory",
    "committor",
    "descriptors",
    "explain",
    "reweighting",
    "checkpoint",
    "engines",
    "systems",
]
FLOORS += ["shooting", "sampling", "storage", "runs", "distributed", "analysis"]
"""From top to bottom, as in the design: a file may import from its own floor and those before it."""

FROM_BELOW = {
    ("ops_aimmd.committor.training_set", f"ops_aimmd.storage.existing_files{name}")
    for name in ("", ".training_set_from_storage")
}
"""Imports that go upwards, within a function: `TrainingSet.from_storage` is a method of the class."""

WITHOUT_OPS = {"version", "on_demand", "bounded_memory", "committor", "descriptors", "explain", "reweighting", "checkpoint"}


def modules():
    """Name of every module of the package and what it imports at its top level or inside functions."""
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        package = name if parts[-1] == "__init__" else name.rpartition(".")[0]
        imported = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = package.rsplit(".", node.level - 1)[0] if node.level else ""
                source = ".".join(filter(None, [base, node.module]))
                imported |= {f"{source}.{alias.name}" for alias in node.names} | {source}
        yield name, imported - {other for below, other in FROM_BELOW if below == name}


MODULES = dict(modules())


def floor(name):
    return name.split(".")[1]


def is_upwards(name, other):
    if FLOORS.index(floor(other)) != FLOORS.index(floor(name)):
        return FLOORS.index(floor(other)) > FLOORS.index(floor(name))
    return name.startswith("ops_aimmd.explain.inputs") and other.startswith("ops_aimmd.explain.formulas")


def violations(imports):
    """Pairs (module, imported module) that go upwards in the house."""
    found = []
    for name, imported in imports.items():
        if name == "ops_aimmd":
            continue
        for other in imported:
            if other.startswith("ops_aimmd."):
                if is_upwards(name, other):
                    found.append((name, other))
            elif other.split(".")[0] == "openpathsampling" and floor(name) in WITHOUT_OPS:
                found.append((name, other))
    return found


KNOWS_ENGINES = {"engines", "systems"}

engine_names = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "house.py"))["engine_names"]


def test_engines_are_known_in_one_place():
    files = [file for file in PACKAGE.rglob("*.py") if file.relative_to(PACKAGE).parts[0] not in KNOWS_ENGINES]
    found = {str(file.relative_to(PACKAGE)): engine_names(file.read_text()) for file in files}
    found.pop("__init__.py")  # it imports what OPS reads back from its files
    assert {file: names for file, names in found.items() if names} == {}


def test_knowledge_of_engines_is_found():
    sources = [
        "import openmm",
        "def f():\n    from openpathsampling.integration_tools import unit",
        "import openpathsampling as paths\nisinstance(engine, paths.engines.toy.Engine)",
        "from openpathsampling.engines import openmm as ops_openmm",
        "from ops_aimmd.engines.openmm_adapter import OpenMMAdapter",
    ]
    assert all(map(engine_names, sources))
    assert not engine_names("from ops_aimmd.engines.choose import adapter_of")


def cycles(imports):
    """Modules that reach themselves through imports."""
    graph = {
        name: {other for other in imported if other in imports and other != name} for name, imported in imports.items()
    }
    graph.pop("ops_aimmd")

    def reachable(start):
        seen, stack = set(), list(graph[start])
        while stack:
            node = stack.pop()
            if node not in seen and node in graph:
                seen.add(node)
                stack.extend(graph[node])
        return seen

    return [name for name in graph if name in reachable(name)]


def test_imports_go_downwards():
    assert violations(MODULES) == []


def test_no_import_cycles():
    assert cycles(MODULES) == []


def is_alias(source):
    """Whether a module holds nothing but a docstring and the import of another."""
    return {type(node) for node in ast.parse(source).body} <= {ast.Expr, ast.Import, ast.ImportFrom}


def same_names(files):
    """Names that several files of the package have; `files` is a dictionary from path to source text."""
    counts = Counter(path.name for path, source in files.items() if not is_alias(source))
    return {name for name, count in counts.items() if count > 1} - {"__init__.py", "base.py", "choose.py"}


def test_no_two_files_have_the_same_name():
    files = {path: path.read_text() for path in PACKAGE.rglob("*.py")}
    assert same_names(files) == set()
    old_name = {Path("old/training.py"): "from ops_aimmd.committor.training import fit"}
    assert same_names({**files, **old_name}) == set()
    assert same_names({**files, Path("another/training.py"): "x = 1"}) == {"training.py"}  # the control


def test_the_checks_can_fail():
    wrong = {"ops_aimmd.committor.model": {"ops_aimmd.sampling.learner"}, "ops_aimmd.committor.x": {"openpathsampling"}}
    wrong["ops_aimmd.explain.inputs.atoms"] = {"ops_aimmd.explain.formulas.front", "ops_aimmd.explain.inputs.gradients"}
    assert len(violations(wrong)) == 3
    circle = {"ops_aimmd": set(), "ops_aimmd.a.x": {"ops_aimmd.a.y"}, "ops_aimmd.a.y": {"ops_aimmd.a.x"}}
    assert cycles(circle) == ["ops_aimmd.a.x", "ops_aimmd.a.y"]


@pytest.mark.parametrize("name", ops_aimmd.__all__)
def test_public_names_are_documented(name):
    thing = getattr(ops_aimmd, name)
    assert name == "__version__" or thing.__doc__


def clashes(names, rooms):
    """Public functions and classes with the name of a folder or file of the package."""
    return [name for name in names if name in rooms and not isinstance(getattr(ops_aimmd, name), types.ModuleType)]


def test_no_public_name_is_that_of_a_folder_or_file():
    """A later import of the folder would replace the function."""
    rooms = {path.stem for path in PACKAGE.iterdir()}
    assert {"runs", "version"} <= rooms and "descriptors" in ops_aimmd.__all__
    assert clashes(ops_aimmd.__all__, rooms) == []
    assert clashes(ops_aimmd.__all__, {*rooms, "report"}) == ["report"]  # the control


FOLDERS = ["analysis", "checkpoint", "committor", "descriptors", "engines", "explain", "reweighting", "runs"]
FOLDERS += ["sampling", "systems"]
"""Folders with public names, besides the top level."""


@pytest.mark.parametrize("folder", FOLDERS)
def test_public_names_of_a_folder_exist(folder):
    package = importlib.import_module(f"ops_aimmd.{folder}")
    assert all(hasattr(package, name) for name in package.__all__)
    assert not hasattr(package, "no_such_name")
    if folder not in ("checkpoint", "descriptors"):
        assert all(f"- `{name}`: " in package.__doc__ for name in package.__all__)


def test_the_list_of_public_names_is_that_of_the_code():
    listed = (PACKAGE.parent / "docs" / "public_names.md").read_text()
    found = {section.split("`")[1]: set(re.findall(r"^- `(\w+)`", section, re.M)) for section in listed.split("\n## ")[1:]}
    packages = {"ops_aimmd": ops_aimmd} | {
        f"ops_aimmd.{folder}": importlib.import_module(f"ops_aimmd.{folder}") for folder in FOLDERS
    }
    assert found == {name: {*package.__all__} - {"__version__", *FOLDERS} for name, package in packages.items()}


@pytest.mark.parametrize("folder", ops_aimmd._MOVED)
def test_names_that_left_the_top_level_work_with_a_warning(folder):
    for name in ops_aimmd._MOVED[folder]:
        with pytest.warns(DeprecationWarning, match=f"ops_aimmd.{folder}.{name}"):
            found = getattr(ops_aimmd, name)
        assert found is getattr(importlib.import_module(f"ops_aimmd.{folder}"), name)
        assert name not in ops_aimmd.__all__


BARE_IMPORT = """
import sys, openpathsampling, torch
from openpathsampling.netcdfplus import StorableObject
before = {*sys.modules}
import ops_aimmd
added = {*sys.modules} - before
slow = ("scipy.stats", "scipy.optimize", "scipy.cluster", "scipy.interpolate", "sympy", "pandas", "matplotlib", "dask")
slow += ("distributed", "openmm", "ops_aimmd.explain", "ops_aimmd.analysis.report", "ops_aimmd.analysis.plots")
print(sorted(name for name in added if any(f"{name}.".startswith(f"{start}.") for start in slow)))
known = {name for name, found in StorableObject.objects().items() if found.__module__.startswith("ops_aimmd.")}
import importlib, pkgutil
for module in pkgutil.walk_packages(ops_aimmd.__path__, "ops_aimmd."):
    try:
        importlib.import_module(module.name)
    except ImportError:
        pass  # an optional package is missing
late = {name for name, found in StorableObject.objects().items() if found.__module__.startswith("ops_aimmd.")} - known
print(sorted(late), len(known))
"""


def test_bare_import_is_quick_and_registers_what_ops_stores():
    done = subprocess.run([sys.executable, "-c", BARE_IMPORT], capture_output=True, text=True)
    slow, late = done.stdout.splitlines()[-2:]
    assert slow == "[]", done.stderr
    assert late.startswith("[] ") and int(late.split()[-1]) >= 15


STORED = {
    "analysis.series": ["StepRecorder"],
    "distributed.no_http": ["dask_setup"],
    "distributed.parallel_path_sampling": ["ParallelPathSampling"],
    "explain.atoms": ["mean_over_frames", "transition_state_weights", "write_relevance_pdb"],
    "explain.relevance_plots": ["plot_atom_relevance", "plot_relevance"],
    "sampling.configuration_replicas": ["ConfigurationEnsemble", "ConfigurationMover"],
    "sampling.learner": ["CommittorLearner"],
    "sampling.movers": ["OneWayShooting", "ShootingMover"],
    "sampling.progress_bar": ["ProgressBar"],
    "sampling.schemes": ["CommittorShootingScheme", "CommittorShootingStrategy", "ShootingPointExchangeStrategy"],
    "sampling.selectors": ["CommittorSelector"],
    "sampling.shooting_point_exchange": ["ShootingPointExchangeMover"],
    "sampling.velocities": ["BoltzmannVelocities"],
    "storage.training_hook": ["TrainingHook"],
    "systems.batched_cv": ["BatchedCV"],
    "systems.descriptor_cv": ["DescriptorCV"],
    "systems.dihedrals": ["DihedralAngleCV", "PeriodicDistanceCV"],
    "systems.markov_chain": ["MarkovChainEngine"],
    "systems.potentials": ["PotentialSurface"],
    "systems.toy": ["ToyCoordinates", "ToyDistance"],
}
"""Classes that OPS stores, and their modules in version 0.1.0, by which OPS's SimStore files find them; dask's preload;
modules that the documentation of version 0.1.0 names."""


def defined_in(script):
    """Names that a script defines at its top level."""
    for node in ast.parse(script.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (part.id for part in ast.walk(node) if isinstance(part, ast.Name))


def unknown_names(source, folder):
    """Names that a script imports from the package, or from another script of its folder, and does not find there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (folder / f"{node.module}.py").exists():
            known = set(defined_in(folder / f"{node.module}.py"))
            yield from (alias.name for alias in node.names if alias.name not in known)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ops_aimmd":
            found = importlib.import_module(node.module)
            submodules = {module.rpartition(".")[2] for module in MODULES if module.rpartition(".")[0] == node.module}
            yield from (
                alias.name for alias in node.names if not hasattr(found, alias.name) and alias.name not in submodules
            )


@pytest.mark.parametrize("folder", ["benchmarks", "examples"])
def test_scripts_find_what_they_import(folder):
    scripts = Path(__file__).parents[1] / folder
    for script in sorted(scripts.glob("*.py")):
        assert list(unknown_names(script.read_text(), scripts)) == [], script.name
    source = "from ops_aimmd.committor.model import CommittorModel, nothing\nfrom brute_force import Pool, nobody"
    assert list(unknown_names(source, scripts.parent / "benchmarks")) == ["nothing", "nobody"]  # the control


@pytest.mark.parametrize("module", STORED)
def test_old_files_find_the_classes_that_they_hold(module):
    found = importlib.import_module(f"ops_aimmd.{module}")
    assert all(getattr(found, name).__name__ == name for name in STORED[module])


def import_without(*packages):
    """Import the package in a process that lacks others."""
    hide = "; ".join(f"sys.modules[{name!r}] = None" for name in packages)
    return subprocess.run([sys.executable, "-c", f"import sys; {hide}; import ops_aimmd"], capture_output=True, text=True)


def test_openmm_is_optional():
    """Toy systems and the analysis of files work without it, as setup.cfg promises."""
    done = import_without("openmm", "simtk", "openmmtools")
    assert done.returncode == 0, done.stderr
    assert "torch" in import_without("torch").stderr  # control: a package that is needed

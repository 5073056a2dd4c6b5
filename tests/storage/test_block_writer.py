"""A netCDF file that is written in blocks is the file that OPS writes."""

import gc
import re
import subprocess
import sys
from contextlib import closing, contextmanager

import netCDF4
import numpy as np
import openpathsampling as paths
import pytest
from openmm import unit
from openpathsampling.engines.openmm import Snapshot as OpenMMSnapshot
from openpathsampling.engines.toy import Engine as ToyEngine
from openpathsampling.engines.toy import Snapshot as ToySnapshot
from openpathsampling.engines.toy import Topology as ToyTopology
from openpathsampling.netcdfplus import LoaderProxy, StorableObject
from resume_support import begin, resume

import ops_aimmd
from ops_aimmd.storage import block_writer
from ops_aimmd.storage.block_writer import block_writer_of, written_in_blocks
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide

TIMES = re.compile(r'"timing": ?[^,}]*')
"""Details hold how long a step took."""


@pytest.fixture
def same_uuids(monkeypatch):
    """A function after which OPS gives out the same uuids as after it was called before."""
    first = int(StorableObject.get_uuid()) + 2**70

    def start_again():
        gc.collect()
        LoaderProxy._stash.clear()
        monkeypatch.setattr(StorableObject, "ACTIVE_LONG", first)

    return start_again


def variables_of(file):
    """All variables of a file, by name; without times."""
    found = {}
    with netCDF4.Dataset(file) as dataset:
        dataset.set_auto_mask(False)
        for group in (dataset, *dataset.groups.values()):
            for name, variable in group.variables.items():
                values = variable[:]
                text = values.dtype == object
                found[name] = [TIMES.sub("", value) for value in values] if text else values.tolist()
                found[f"{name}: properties"] = [str(variable.dtype), variable.dimensions, variable.chunking()]
        found["dimensions"] = {name: len(dimension) for name, dimension in dataset.dimensions.items()}
    return found


def different(one, other):
    """Names of the variables that differ between two files."""
    one, other = variables_of(one), variables_of(other)
    return sorted(name for name in one.keys() | other.keys() if repr(one.get(name)) != repr(other.get(name)))


def memory_of(storage):
    """Indices and keys of the caches of all stores."""
    found = {}
    for name, store in storage.objects.items():
        cache = store.cache
        keys = {number: len(chunk) for number, chunk in cache._chunkdict.items()} if name.startswith("cv") else [*cache]
        found[name] = (dict(store.index), getattr(store.index, "_list", None), keys, len(store), type(cache))
    return found


def alanine_path(n_frames=6):
    system = alanine_dipeptide()
    numbers = np.random.default_rng(1).normal(size=(n_frames, 22, 3))
    frames = [
        OpenMMSnapshot.construct(
            coordinates=places * unit.angstrom,
            velocities=places * unit.nanometer / unit.picosecond,
            box_vectors=np.eye(3) * unit.nanometer,
            engine=system.engine,
        )
        for places in numbers
    ]
    return paths.Trajectory(frames)


def hook_of(sampler):
    return next(h.__self__ for h in sampler.hooks["after_step"] if isinstance(h.__self__, ops_aimmd.TrainingHook))


def test_a_run_leaves_the_file_that_ops_writes(tmp_path, same_uuids):
    begin(tmp_path / "first.nc").run(1)  # the first run of a process makes some objects more
    memory = []
    for name in ("ops", "blocks"):
        same_uuids()
        sampler = begin(tmp_path / "run.nc", write_in_blocks=name == "blocks")
        sampler.run(4)
        memory.append(memory_of(sampler.storage))
        sampler.storage.close()
        for end in ("nc", "aimmd"):
            (tmp_path / f"run.{end}").rename(tmp_path / f"{name}.{end}")
    named = different(tmp_path / "ops.nc", tmp_path / "blocks.nc")
    assert named == []
    assert memory[0] == memory[1]


def test_both_ways_take_turns_in_one_file(tmp_path, same_uuids):
    begin(tmp_path / "first.nc").run(1)
    same_uuids()
    sampler = begin(tmp_path / "run.nc", write_in_blocks=False)
    sampler.run(9)
    sampler.storage.close()
    for end in ("nc", "aimmd"):
        (tmp_path / f"run.{end}").rename(tmp_path / f"ops.{end}")
    same_uuids()
    sampler = begin(tmp_path / "run.nc")
    for in_blocks in (True, False, True):
        hook_of(sampler).write_in_blocks = in_blocks
        sampler.run(3)
        assert block_writer_of(sampler.storage) is None
    sampler.storage.close()
    assert different(tmp_path / "ops.nc", tmp_path / "run.nc") == []


def test_a_lost_file_is_written_again_in_blocks(tmp_path, same_uuids, monkeypatch):
    begin(tmp_path / "run.nc").run(3)
    for name, in_blocks in (("ops", False), ("blocks", True)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.aimmd").write_bytes((tmp_path / "run.aimmd").read_bytes())
        if in_blocks:
            monkeypatch.undo()
        else:
            monkeypatch.setattr(block_writer, "write_in_blocks", lambda storage: None)
        same_uuids()
        with pytest.warns(ops_aimmd.runs.ResumeWarning):
            resume(tmp_path / name / "run.nc").storage.close()
    assert different(tmp_path / "ops/run.nc", tmp_path / "blocks/run.nc") == []


# ---- what else OPS may be asked to store -----------------------------------------------------------------------------


def x_of(snapshot):
    return snapshot.coordinates[0, 0]


def function_cv(name, time_reversible=True):
    return paths.FunctionCV(name, x_of, cv_time_reversible=time_reversible)


@contextmanager
def new_file(file, in_blocks):
    """A new file that is written in blocks, or by OPS."""
    with closing(paths.Storage(str(file), "w")) as storage, written_in_blocks(storage, in_blocks):
        yield storage


def toy_engine(n_spatial=2):
    topology = ToyTopology(n_spatial=n_spatial, masses=[1.0], pes=None)
    return ToyEngine({"integ": None, "n_frames_max": 10, "n_steps_per_frame": 1}, topology)


def path_of(engine, start, n_frames=5):
    n_spatial = engine.topology.n_spatial
    places = start + np.arange(n_frames * n_spatial, dtype=float).reshape(n_frames, 1, n_spatial)
    return paths.Trajectory([ToySnapshot(coordinates=place, velocities=-place, engine=engine) for place in places])


def write_everything(file, in_blocks):
    """Store all kinds of paths, with collective variables of both kinds that are there before and after them."""
    with new_file(file, in_blocks) as storage:
        engine, wider = toy_engine(), toy_engine(3)
        first = path_of(engine, 0.0)
        storage.save(first)
        complete = function_cv("complete").with_diskcache(first[0], allow_incomplete=False)
        partial = function_cv("partial").with_diskcache(first[0], allow_incomplete=True)
        oriented = function_cv("oriented", time_reversible=False).with_diskcache(first[0], allow_incomplete=True)
        storage.save([complete, partial, oriented])
        second = path_of(engine, 100.0)
        partial(second), oriented(second.reversed)
        storage.save(second)
        storage.save(second.reversed)
        late = function_cv("late").with_diskcache(first[0], allow_incomplete=False)
        storage.save(late)
        storage.trajectories.mention(path_of(engine, 200.0))
        mentioned = path_of(engine, 300.0)
        frame = mentioned[0]
        storage.trajectories.mention(mentioned)
        storage.save(paths.Trajectory([*second[:2], *path_of(engine, 400.0), second[4].reversed]))
        storage.snapshots.add_type(path_of(wider, 0.0)[0])
        storage.save(path_of(wider, 500.0))
        storage.save([path_of(engine, 600.0), path_of(wider, 700.0).reversed])
        third = path_of(engine, 800.0)
        storage.save(third)
        storage.save(frame)
        partial(third), oriented(third)
        for cv in (partial, oriented):
            storage.cvs.sync(cv)
        storage.save(path_of(engine, 900.0))
        storage.sync_all()
        values = [
            [float(value) for value in cv(path)] for cv in (complete, partial, oriented, late) for path in (second, third)
        ]
        return memory_of(storage), repr(values)


def test_paths_of_all_kinds(tmp_path, same_uuids):
    found = []
    for in_blocks in (False, True):
        same_uuids()
        found.append(write_everything(tmp_path / f"{in_blocks}.nc", in_blocks))
    assert different(tmp_path / "False.nc", tmp_path / "True.nc") == []
    assert found[0] == found[1]
    names = variables_of(tmp_path / "True.nc")
    assert {"snapshot0_coordinates", "snapshot1_coordinates", "cv0_value", "cv1_index"} <= names.keys()
    assert -1 in names["snapshots_store"]  # some are mentioned only


def test_objects_that_no_cache_keeps(tmp_path, same_uuids):
    """Without caches OPS reads what it has just written; the file must hold it by then."""
    for in_blocks in (False, True):
        same_uuids()
        with closing(paths.Storage(str(tmp_path / f"{in_blocks}.nc"), "w")) as storage:
            storage.set_caching_mode("off")
            engine = toy_engine()
            with written_in_blocks(storage, in_blocks):
                path = path_of(engine, 1.0)
                samples = paths.SampleSet([paths.Sample(0, path, paths.LengthEnsemble(5))])
                storage.save([samples, path.reversed])
            assert storage.trajectories[0][1].coordinates.tolist() == [[3.0, 4.0]]
    assert different(tmp_path / "False.nc", tmp_path / "True.nc") == []


def test_large_paths_are_written_in_parts(tmp_path, same_uuids, monkeypatch):
    monkeypatch.setattr(block_writer, "LARGEST_BLOCK", 1000)
    for in_blocks in (False, True):
        same_uuids()
        with new_file(tmp_path / f"{in_blocks}.nc", in_blocks) as storage:
            storage.save(path_of(toy_engine(), 0.0, 50))
    assert different(tmp_path / "False.nc", tmp_path / "True.nc") == []


# ---- controls, errors, and files without this package ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["snapshot0_coordinates", "trajectories_snapshots"])
def test_a_variable_that_is_left_out_is_noticed(tmp_path, same_uuids, monkeypatch, name):
    same_uuids()
    write_everything(tmp_path / "ops.nc", False)
    write = block_writer.CollectedVariable.write

    def write_all_but_one(variable):
        if variable.variable.name == name:
            variable._rows.clear()
        write(variable)

    monkeypatch.setattr(block_writer.CollectedVariable, "write", write_all_but_one)
    same_uuids()
    write_everything(tmp_path / "blocks.nc", True)
    assert name in different(tmp_path / "ops.nc", tmp_path / "blocks.nc")


def test_what_could_not_be_written_is_written_later(tmp_path, same_uuids, monkeypatch):
    for name in ("ops", "blocks"):
        same_uuids()
        with new_file(tmp_path / f"{name}.nc", name == "blocks") as storage:
            engine = toy_engine()
            storage.save(path_of(engine, 0.0))
            with monkeypatch.context() as patch:
                patch.setattr(block_writer.CollectedVariable, "write", no_space)
                try:
                    storage.save(path_of(engine, 50.0))
                except OSError:
                    assert name == "blocks"
            storage.save(path_of(engine, 100.0))
    assert different(tmp_path / "ops.nc", tmp_path / "blocks.nc") == []


def no_space(variable):
    if variable._rows:
        raise OSError("no space left on device")


def test_an_error_in_the_middle_leaves_what_ops_leaves(tmp_path, same_uuids):
    for in_blocks in (False, True):
        same_uuids()
        with new_file(tmp_path / f"{in_blocks}.nc", in_blocks) as storage:
            engine = toy_engine()
            storage.save(path_of(engine, 0.0))
            with pytest.raises(RuntimeError, match="cannot hold snapshots"):
                storage.save(paths.Trajectory([*path_of(engine, 50.0), *path_of(toy_engine(3), 50.0)]))
            storage.save(path_of(engine, 100.0))
    assert different(tmp_path / "False.nc", tmp_path / "True.nc") == []


READ = """
import sys
sys.modules["ops_aimmd"] = None
import openpathsampling as paths
for path in paths.Storage(sys.argv[1], "r").trajectories:
    print(type(path[0].engine).__name__, abs(path.to_mdtraj().xyz).sum(), abs(path[-1].velocities._value).sum())
"""


def test_ops_reads_frames_of_openmm_without_this_package(tmp_path, same_uuids):
    for in_blocks in (False, True):
        same_uuids()
        with new_file(tmp_path / f"{in_blocks}.nc", in_blocks) as storage:
            path = alanine_path()
            wanted = [abs(path.xyz).sum() / 10, abs(path[-1].velocities._value).sum()]
            storage.save([path, path.reversed])
    assert different(tmp_path / "False.nc", tmp_path / "True.nc") == []
    child = subprocess.run([sys.executable, "-c", READ, tmp_path / "True.nc"], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-3000:]
    lines = [line.split() for line in child.stdout.splitlines()]
    assert [line[0] for line in lines] == ["OpenMMEngine"] * 2
    assert np.allclose([float(number) for number in lines[0][1:]], wanted, rtol=1e-5)

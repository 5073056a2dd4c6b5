"""Engines that run in a process of their own, and frames that lie in their files."""

import os
import signal
import time

import numpy as np
import openpathsampling as paths
import pytest
from external_engine_support import Flight, FlightInFiles, ends, position
from openpathsampling.engines.toy import ToySnapshot
from sampling_support import Chain

import ops_aimmd
from ops_aimmd.engines.frames import can_be_kept
from ops_aimmd.shooting import legs as legs_module
from ops_aimmd.shooting.frame_blocks import frames_can_be_kept
from ops_aimmd.shooting.legs import run_leg
from ops_aimmd.shooting.shots import specification

IN_MEMORY_AND_IN_FILES = pytest.mark.parametrize("engine_class", [Flight, FlightInFiles])


@pytest.fixture
def engine(tmp_path, request):
    engine = getattr(request, "param", Flight).in_directory(tmp_path)
    yield engine
    for process in engine.left_running:
        process.kill()


def raising(error, after=0.75):
    """A function of a snapshot that raises an error at one place."""

    def broken(snapshot):
        if position(snapshot) > after:
            raise error
        return position(snapshot)

    return broken


# ---- the process is stopped -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [Flight, FlightInFiles], indirect=True)
def test_a_leg_that_reaches_a_state_stops_the_engine_once(engine):
    leg = run_leg(engine, engine.frame(), ends(), 100)
    assert leg.outcome == 1 and len(leg.trajectory) == 5
    assert [position(frame) for frame in leg.trajectory] == [0.5, 0.625, 0.75, 0.875, 1.0]
    assert engine.stops == 1 and not engine.left_running
    assert "stop" not in vars(engine)


@pytest.mark.parametrize("error", [ValueError("a bug in a collective variable"), KeyboardInterrupt()], ids=type)
@pytest.mark.parametrize("engine", [Flight, FlightInFiles], indirect=True)
def test_an_error_in_a_collective_variable_stops_the_engine(engine, error):
    with pytest.raises(type(error)):
        run_leg(engine, engine.frame(), ends(raising(error)), 100)
    assert len(engine.processes) == 1 and not engine.left_running
    assert engine.stops == 1
    assert run_leg(engine, engine.frame(), ends(), 100).outcome == 1  # it can be used again


def test_ctrl_c_between_two_frames_stops_the_engine(engine):
    """OPS delays the interrupt while a frame is made: here it comes while the state looks at one."""

    def interrupted(snapshot):
        if position(snapshot) > 0.75:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        return position(snapshot)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # processes in the background ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run_leg(engine, engine.frame(), ends(interrupted), 100)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert engine.stops == 1 and not engine.left_running


def test_a_system_that_has_blown_up_stops_the_engine(engine, monkeypatch):
    monkeypatch.setattr(legs_module, "WRECKED", 0.75)
    assert run_leg(engine, engine.frame(), ends(), 100).failure == "nan"
    assert engine.stops == 1 and not engine.left_running


def test_an_engine_that_ops_has_stopped_is_not_stopped_again(engine):
    """OPS does so at an error in making a frame, and at its own limit of length."""
    engine.read_frame_from_file = raising_always(ZeroDivisionError("no frame"))
    with pytest.raises(ZeroDivisionError):
        run_leg(engine, engine.frame(), ends(), 100)
    assert engine.stops == 1 and not engine.left_running
    del engine.read_frame_from_file
    engine.options["n_frames_max"] = 3
    assert run_leg(engine, engine.frame(), ends(), 100).failure == "max_length"
    assert engine.stops == 2 and not engine.left_running


def raising_always(error):
    def broken(*arguments):
        raise error

    return broken


def test_the_search_for_a_first_path_stops_the_engine(engine):
    states, options = ends(raising(ValueError("a bug"), after=0.0)), {"modifier": paths.NoModification(as_copy=False)}
    with pytest.raises(ValueError, match="a bug"):  # on the way out of the state
        ops_aimmd.initial_path(engine.frame(-0.1), position, states, **options)
    assert engine.stops == len(engine.processes) == 1 and not engine.left_running


@pytest.mark.parametrize("engine", [Flight, FlightInFiles], indirect=True)
def test_a_first_path_of_an_external_engine(engine):
    """Its frames may lie in files: they stay as they are."""
    modifier = paths.NoModification(as_copy=False)
    path = ops_aimmd.initial_path(engine.frame(), position, ends(), modifier=modifier)
    assert [position(frame) for frame in path] == [x / 8 for x in range(-1, 9)]
    assert {type(frame) for frame in path} == {type(engine.frame())} and not engine.left_running


def test_an_error_is_not_hidden_by_one_of_stopping():
    engine = Chain().engine
    engine.stop = raising_always(OSError("no such process"))
    with pytest.warns(UserWarning, match="no such process"), pytest.raises(ValueError, match="a bug"):
        run_leg(engine, engine.trajectory([3])[0], [raising_always(ValueError("a bug"))], 100)
    assert vars(engine)["stop"] is not None  # as it was given


def test_a_worker_that_ends_stops_its_engine(engine, tmp_path):
    """Also where it ends in the middle of a shot, with the process that has started it."""
    import psutil

    from ops_aimmd.shooting.executors.choose import SpawnedProcesses

    executor = SpawnedProcesses(1)
    far = [paths.CVDefinedVolume(paths.FunctionCV("x", position), 1e6, 1e7).named("far")] * 2
    try:
        key = executor.start(engine, far)
        executor.submit(specification("shot", key, engine.frame(), ("forward",), None, seed=1))
        processes = wait_for(lambda: [p for p in psutil.process_iter() if is_flight(p, tmp_path)])
    finally:
        executor.close()
    assert len(processes) == 1
    gone, alive = psutil.wait_procs(processes, timeout=5)
    for process in alive:
        process.kill()
    assert not alive


def is_flight(process, directory):
    import psutil

    try:
        return str(directory / "flight.py") in process.cmdline()
    except psutil.Error:
        return False


def wait_for(look, seconds=30):
    until = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < until:
        time.sleep(0.02)
    return found


# ---- frames in files ------------------------------------------------------------------------------------------------


def test_frames_in_files_cannot_be_kept(tmp_path):
    in_memory, in_files = Flight.in_directory(tmp_path), FlightInFiles.in_directory(tmp_path)
    outside = in_files.frame()
    assert not can_be_kept(outside)
    assert can_be_kept(in_memory.frame())
    inside = outside.internalize()
    assert can_be_kept(inside)
    assert frames_can_be_kept([in_memory.frame()], [in_memory])
    assert not frames_can_be_kept([inside], [in_files])  # the next path will be of frames in files
    with pytest.raises(TypeError, match="lie in files"):
        specification("shot", "key", outside, ("forward",), None, seed=1)


@pytest.mark.parametrize("engine", [Flight, FlightInFiles], indirect=True)
@pytest.mark.parametrize("internalized", [False, True])
def test_the_hook_says_whether_the_checkpoint_has_the_paths(engine, internalized, tmp_path):
    frames = [engine.frame(x, 1.0) for x in np.arange(-1, 10) / 8]
    if internalized:
        if isinstance(engine, FlightInFiles):
            frames = [frame.internalize() for frame in frames]
    states = ends()
    learner = ops_aimmd.CommittorLearner(states[0].collectivevariable, states, seed=1)
    scheme = ops_aimmd.CommittorShootingScheme(paths.TPSNetwork(*states), learner, engine=engine, shooting="one-way")
    conditions = scheme.initial_conditions_from_trajectories(paths.Trajectory(frames))
    sampler = paths.PathSampling(storage=None, move_scheme=scheme, sample_set=conditions)
    sampler.output_stream = open(os.devnull, "w")
    checkpoint = tmp_path / "run.aimmd"
    sampler.attach_hook(ops_aimmd.TrainingHook(learner, checkpoint))
    if isinstance(engine, FlightInFiles):
        with pytest.warns(UserWarning, match="cannot be kept in the checkpoint.*lie in files"):
            sampler.run(3)
        with pytest.raises(ValueError, match="holds no paths"):
            ops_aimmd.runs.current_paths(checkpoint, engine)
    else:
        sampler.run(3)
        (path,) = ops_aimmd.runs.current_paths(checkpoint, engine)
        assert isinstance(path[0], ToySnapshot)
    assert len(ops_aimmd.load_learner(checkpoint).training_set) == 3  # what was learned is kept in each case
    assert not engine.left_running

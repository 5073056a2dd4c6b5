"""Workers that die, freeze and wake: each shot comes back once, with the frames that it would have had."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import WORKER_TTL
from shots_support import Walk, breaking_site, gather, run_here, same, specs, tickets

from ops_aimmd.shooting.executors.choose import DaskExecutor, SpawnedProcesses
from ops_aimmd.shooting.shots import ShotFailure


def used(folder):
    """Processes that had a fault."""
    return [int(ticket.name.rpartition("-")[2]) for ticket in Path(folder).glob("used-*")]


def processes(folder):
    """Processes that ran a shot at all."""
    return {int(file.name.rpartition("-")[2]) for file in Path(folder).glob("process-*")}


@pytest.fixture
def each_executor(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(
    "each_executor",
    [pytest.param("spawned", marks=pytest.mark.slow), "dask_executor"],  # a run in rounds is killed so with "spawned"
    indirect=True,
)
def test_killed_in_mid_shot(each_executor, tmp_path):
    walk = Walk(breaking_site, folder=tickets(tmp_path, 2), fault="kill")
    key = each_executor.start(walk.engine, walk.states)
    shots = specs(walk, key, 6)
    for spec in shots:
        each_executor.submit(spec)
    done = gather(each_executor)
    assert len(used(tmp_path)) == 2 and os.getpid() not in used(tmp_path)
    expected = run_here(Walk(), 6)
    assert done.keys() == expected.keys()
    assert all(same(done[shot_id], expected[shot_id]) for shot_id in expected)


@pytest.mark.parametrize(
    "each_executor",
    ["spawned", pytest.param("dask_executor", marks=pytest.mark.slow)],  # eight workers of dask have to start
    indirect=True,
)
def test_a_shot_that_kills_every_worker(each_executor, tmp_path):
    """It becomes a failure, the others go on."""
    good, bad = Walk(), Walk(breaking_site, folder=tickets(tmp_path, 100), fault="kill")
    keys = [each_executor.start(walk.engine, walk.states) for walk in (good, bad)]
    (deadly,) = specs(bad, keys[1], 1, first=50)
    for spec in [deadly, *specs(good, keys[0], 4)]:
        each_executor.submit(spec)
    done = gather(each_executor)
    failure = done.pop("shot/50")
    assert isinstance(failure, ShotFailure) and failure.kind == "killed_worker"
    assert len(used(tmp_path)) >= 3
    expected = run_here(good, 4)
    assert done.keys() == expected.keys() and all(same(done[shot_id], expected[shot_id]) for shot_id in expected)


def test_frozen_past_the_time_out_and_woken(dask_executor, tmp_path):
    """The shot runs in two processes; the one result is that of either."""
    walk = Walk(breaking_site, folder=tickets(tmp_path, 1), fault="stop")
    key = dask_executor.start(walk.engine, walk.states)
    (spec,) = specs(walk, key, 1)
    begin = time.monotonic()
    dask_executor.submit(spec)
    done = gather(dask_executor)
    assert time.monotonic() - begin > WORKER_TTL  # it was frozen
    (frozen,) = used(tmp_path)
    with suppress(ProcessLookupError):  # nannies end workers that are not heard of; without a nanny it wakes
        os.kill(frozen, signal.SIGCONT)
    assert processes(tmp_path) > {frozen}  # it ran twice
    assert dask_executor.results(timeout=2.0) == []
    assert same(done["shot/0"], run_here(Walk(), 1)["shot/0"])


def test_frozen_and_woken_spawned(spawned, tmp_path):
    """Without a time-out the shot goes on."""
    walk = Walk(breaking_site, folder=tickets(tmp_path, 1), fault="stop")
    key = spawned.start(walk.engine, walk.states)
    shots = specs(walk, key, 4)
    for spec in shots:
        spawned.submit(spec)
    done = {}
    while len(done) < 3:
        done.update({outcome.shot_id: outcome for outcome in spawned.results(timeout=60)})
    assert spawned.results(timeout=0.5) == []
    os.kill(*used(tmp_path), signal.SIGCONT)
    done.update(gather(spawned))
    expected = run_here(Walk(), 4)
    assert done.keys() == expected.keys() and all(same(done[shot_id], expected[shot_id]) for shot_id in expected)


def test_processes_that_do_not_start(monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    walk = Walk()
    with SpawnedProcesses(2) as executor:
        key = executor.start(walk.engine, walk.states)
        executor.submit(specs(walk, key, 1)[0])
        with pytest.raises(RuntimeError, match="exit code 1"):
            executor.results(timeout=20)
    with pytest.raises(RuntimeError, match="closed"):
        executor.start(walk.engine, walk.states)


def test_close_in_mid_shot(tmp_path, dask_client):
    """Shots under way are given up; the workers of a client stay."""
    walk = Walk(breaking_site, folder=tickets(tmp_path, 1), fault="kill")
    executor = DaskExecutor(dask_client)
    key = executor.start(walk.engine, walk.states)
    for spec in specs(walk, key, 20):
        executor.submit(spec)
    executor.close()
    assert executor.results(timeout=1.0) == []
    with DaskExecutor(dask_client) as other:
        walk = Walk()
        key = other.start(walk.engine, walk.states)
        for spec in specs(walk, key, 2):
            other.submit(spec)
        assert len(gather(other)) == 2


def test_lost_scheduler():
    """A clear error, at once: the run is resumed through another client."""
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    with distributed.LocalCluster(n_workers=0, dashboard_address=None) as cluster, cluster.get_client() as client:
        walk = Walk()
        executor = DaskExecutor(client)
        key = executor.start(walk.engine, walk.states)
        executor.submit(specs(walk, key, 1)[0])
        assert executor.results(timeout=0.2) == []  # there are no workers
        client.close()
        with pytest.raises(RuntimeError, match="no connection to the dask scheduler"):
            executor.results(timeout=10)
        with pytest.raises(RuntimeError, match="no connection to the dask scheduler"):
            executor.submit(specs(walk, key, 1, first=1)[0])
        executor.close()

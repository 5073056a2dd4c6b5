"""The same shots on all executors, and what each executor promises."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import openpathsampling as paths
import pytest
from shots_support import Alanine, Walk, breaking_site, gather, run_all, run_here, same, specs, tickets

from ops_aimmd.shooting.executors.choose import (
    DaskExecutor,
    InThisProcess,
    SpawnedProcesses,
    executor_for,
    local_cluster,
)
from ops_aimmd.shooting.shots import ShotFailure, legs_from_result
from ops_aimmd.systems import toy


class ToyShots:
    """Langevin dynamics, with a state whose function was made in this function, and travels as code."""

    def __init__(self):
        system = toy.two_gaussian_wells()
        centre = np.array([-0.75, -0.5])

        def distance(snapshot):
            return np.linalg.norm(snapshot.xyz[0] - centre)

        A = paths.CVDefinedVolume(paths.FunctionCV("distance from A", distance), 0.0, 0.15).named("A")
        self.engine, self.states = system.engine, [A, system.states[1]]
        path = system.initial_trajectory(seed=1)
        self.point = path[len(path) // 2]


@pytest.fixture
def each_executor(request):
    return request.getfixturevalue(request.param)


remote = pytest.mark.parametrize("each_executor", ["spawned", "dask_executor"], indirect=True)


@remote
@pytest.mark.parametrize("make", [Walk, ToyShots, Alanine])
def test_bit_identical(each_executor, make):
    system = make()
    options = {"first": 2, "max_frames": 150} if make is Alanine else {}
    n = 2 if make is Alanine else 6
    expected = run_here(system, n, **options)
    key = each_executor.start(system.engine, system.states)
    results = run_all(each_executor, specs(system, key, n, **options))
    assert results.keys() == expected.keys()
    for shot_id, result in results.items():
        assert same(result, expected[shot_id])
        assert result.worker.rpartition(":")[2] != str(os.getpid())
    statuses = {leg.status for result in results.values() for leg in result.legs}
    assert "ok" in statuses and len({leg.outcome for result in results.values() for leg in result.legs}) > 1
    frames = [
        snapshot.__uuid__
        for result in results.values()
        for leg in legs_from_result(result, system.point, system.engine).values()
        for snapshot in leg.trajectory[1:]
    ]
    assert len(set(frames)) == len(frames)  # from two processes, but made in one
    assert not same(*list(results.values())[:2])  # control: another seed


@remote
def test_two_engines_at_once(each_executor):
    walk, chain = Walk(), ToyShots()
    keys = [each_executor.start(system.engine, system.states) for system in (walk, chain)]
    shots = specs(walk, keys[0], 2) + specs(chain, keys[1], 2, first=2)
    results = run_all(each_executor, shots)
    assert same(results["shot/1"], run_here(walk, 2)["shot/1"]) and same(
        results["shot/2"], run_here(chain, 1, first=2)["shot/2"]
    )


@remote
def test_results_that_break_down(each_executor):
    alanine = Alanine()
    alanine.point = alanine.snapshot(1e12 * np.random.default_rng(2).normal(size=(22, 3)))
    key = each_executor.start(alanine.engine, alanine.states)
    result = run_all(each_executor, specs(alanine, key, 1))["shot/0"]
    assert [leg.status for leg in result.legs] == ["nan", "nan"]
    assert same(result, run_here(alanine, 1)["shot/0"])
    walk = Walk()
    key = each_executor.start(walk.engine, walk.states)
    result = run_all(each_executor, specs(walk, key, 1, max_frames=5))["shot/0"]
    assert [leg.status for leg in result.legs] == ["max_length", "max_length"]


@remote
def test_errors_are_failures_and_others_go_on(each_executor, tmp_path):
    broken = Walk(breaking_site, folder=tickets(tmp_path, 1), fault="fail")
    key = each_executor.start(broken.engine, broken.states)
    done = run_all(each_executor, specs(broken, key, 3))
    failures = [outcome for outcome in done.values() if isinstance(outcome, ShotFailure)]
    assert len(done) == 3 and len(failures) == 1
    assert failures[0].kind == "error" and "LookupError" in failures[0].error and "breaking_site" in failures[0].error


@remote
def test_waiting(each_executor, tmp_path):
    assert each_executor.results() == [] == each_executor.results(timeout=0.1)
    walk = Walk(breaking_site, folder=tickets(tmp_path, 0), fault="fail")
    key = each_executor.start(walk.engine, walk.states)
    (spec,) = specs(walk, key, 1, max_frames=20_000)
    each_executor.submit(spec)
    with pytest.raises(ValueError, match="shot/0 is under way"):
        each_executor.submit(spec)
    assert len(gather(each_executor)) == 1
    each_executor.submit(spec)  # whoever wants it a second time
    assert len(gather(each_executor)) == 1


@pytest.mark.parametrize("each_executor", ["spawned", "dask_executor"], indirect=True)
def test_unknown_engine(each_executor):
    with pytest.raises(KeyError, match=r"call start\(engine, states\)"):
        each_executor.submit(specs(Walk(), "0123456789", 1)[0])


def test_n_workers(spawned, dask_executor):
    assert InThisProcess().n_workers == 1
    assert spawned.n_workers == 2 and dask_executor.n_workers == 2


def test_choice():
    assert isinstance(executor_for(None), InThisProcess)
    here = InThisProcess()
    assert executor_for(here) is here
    with executor_for(3) as executor:  # not started: no process yet
        assert isinstance(executor, SpawnedProcesses) and executor.n_workers == 3
    for wrong in (True, "dask", 0.5):
        with pytest.raises(TypeError, match="distributed.Client"):
            executor_for(wrong)
    with pytest.raises(ValueError, match="at least 1"):
        executor_for(0)


def test_wrong_clients_and_clusters():
    for wrong in (None, "scheduler.json", 2):
        with pytest.raises(TypeError, match="must be a distributed.Client"):
            DaskExecutor(wrong)
    for n_workers in ("2", 0, -1, 2.5):
        with pytest.raises(ValueError, match="n_workers must be an integer >= 1"):
            local_cluster(n_workers)
    for worker_ttl in ("60s", 4.9, float("nan")):
        with pytest.raises(ValueError, match="worker_ttl must be a number of seconds >= 5"):
            local_cluster(2, worker_ttl)


def test_choice_of_a_client(dask_client):
    assert isinstance(executor_for(dask_client), DaskExecutor)


def test_without_dask():
    code = (
        "import sys; sys.modules['distributed'] = None\n"
        "from ops_aimmd.shooting.executors.choose import DaskExecutor, local_cluster\n"
        "for make in (lambda: DaskExecutor(None), lambda: local_cluster(2)):\n"
        "    try: make()\n"
        "    except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.count("pip install 'ops_aimmd[distributed]'") == 2, done.stderr


def test_in_this_process_after_ctrl_c(monkeypatch):
    """The shot that was interrupted still waits, and is then what it would have been."""
    walk = Walk()
    with InThisProcess() as executor:
        key = executor.start(walk.engine, walk.states)
        (spec,) = specs(walk, key, 1)
        executor.submit(spec)
        with monkeypatch.context() as patch:
            calls = iter(range(20))
            step = type(walk.engine).generate_next_frame

            def interrupted(engine):
                if next(calls, None) is None:
                    raise KeyboardInterrupt
                return step(engine)

            patch.setattr(type(walk.engine), "generate_next_frame", interrupted)
            with pytest.raises(KeyboardInterrupt):
                executor.results()
        assert same(gather(executor)["shot/0"], run_here(walk, 1)["shot/0"])


SCRIPT = """
import sys
import time

import numpy as np
import openpathsampling as paths

from ops_aimmd.shooting.executors.choose import InThisProcess, SpawnedProcesses
from ops_aimmd.shooting.shots import specification
from ops_aimmd.systems import toy

SCALE = 2.0
ENDLESS = sys.argv[1] == "endless"


class Distance(paths.CollectiveVariable):
    "A class of the script."

    def __init__(self, name, centre):
        super().__init__(name, cv_time_reversible=True)
        self.centre = centre

    def __call__(self, snapshot):
        return helper(snapshot, self.centre) / SCALE

    def to_dict(self):
        return {"name": self.name, "centre": self.centre}


def helper(snapshot, centre):
    if ENDLESS:
        print("begun", flush=True)
        time.sleep(600)
    return SCALE * np.hypot(*(snapshot.xyz[0] - np.array(centre)))


system = toy.two_gaussian_wells()
states = [paths.CVDefinedVolume(Distance("d", [-0.75, -0.5]), 0.0, 0.15), system.states[1]]
path = system.initial_trajectory(seed=1)
frames = []
for executor in ([] if ENDLESS else [InThisProcess()]) + [SpawnedProcesses(1)]:
    with executor:
        key = executor.start(system.engine, states)
        executor.submit(specification("1", key, path[100], ("forward",), None, 3))
        (result,) = executor.results()
        frames.append(result.legs[0].coordinates)
print("same", len(frames[0]) > 10 and np.array_equal(*frames))
"""


def test_functions_of_a_script(tmp_path):
    """It has no guard, since workers do not import it; its functions and classes travel as code."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script), "quick"], capture_output=True, text=True, env=_environment())
    assert done.stdout.split() == ["same", "True"], done.stderr


def test_no_orphans(tmp_path):
    """Workers do not outlive a process that could not say farewell, not even in the middle of a shot."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), "endless"], stdout=subprocess.PIPE, text=True, env=_environment()
    )
    assert process.stdout.readline() == "begun\n"  # it is in the shot
    (worker,) = family(process.pid)[1:]
    assert "worker_process" in Path(f"/proc/{worker}/cmdline").read_text()
    assert os.getsid(worker) != os.getsid(process.pid)  # out of reach of Ctrl-C in the terminal of the script
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert within(10.0, lambda: not is_running(worker))


def _environment():
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def within(seconds, condition):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


# ports


def family(pid):
    """A process and its descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def listening_ports(pids):
    """TCP ports on which processes wait for connections."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(os.readlink(descriptor))
            except FileNotFoundError:
                continue
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A" and f"socket:[{parts[9]}]" in inodes:
                ports.add(int(parts[1].rpartition(":")[2], 16))
    return ports


def answers_strangers(port):
    """Whether a port talks to somebody who has no certificate."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        try:
            if plain.recv(5)[:4] in (b"HTTP", b"\x00" * 4):
                return True
        except ConnectionError:
            pass
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        try:
            with context.wrap_socket(plain) as encrypted:
                return encrypted.recv(1) != b""
        except (ssl.SSLError, ConnectionError):
            return False


def test_no_open_port(dask_client):
    """All ports of scheduler, nannies and workers want a certificate that only they have."""
    ports = listening_ports(family(os.getpid()))
    assert len(ports) >= 5  # one scheduler, two nannies, two workers
    assert [port for port in ports if answers_strangers(port)] == []
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # control
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert server.server_port in listening_ports([os.getpid()]) and answers_strangers(server.server_port)
    server.shutdown()
    server.server_close()


def test_strangers_get_no_client(dask_client):
    from distributed import Client, Security

    with pytest.raises((OSError, TimeoutError)):
        Client(dask_client.scheduler.address, security=Security.temporary(), timeout=3)


def test_spawned_processes_open_no_port(spawned):
    walk = Walk()
    key = spawned.start(walk.engine, walk.states)
    run_all(spawned, specs(walk, key, 1))
    workers = [pid for pid in family(os.getpid())[1:] if "worker_process" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(workers) == 2 and listening_ports(workers) == set()


def test_threads_of_this_process_are_refused():
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        with cluster.get_client() as client, pytest.raises(RuntimeError, match="processes=True"):
            walk = Walk()
            DaskExecutor(client).start(walk.engine, walk.states)


@pytest.mark.parametrize("each_executor", ["spawned", "dask_executor"], indirect=True)
def test_withdrawn_shots_never_come_back_and_the_others_do(each_executor):
    walk = Walk()
    key = each_executor.start(walk.engine, walk.states)
    shots = specs(walk, key, 40)
    for spec in shots:
        each_executor.submit(spec)
    withdrawn = each_executor.withdraw()
    done = gather(each_executor)
    assert withdrawn.isdisjoint(done) and withdrawn | done.keys() == {spec.shot_id for spec in shots}
    assert len(withdrawn) > 20  # two workers have not begun so many
    again = [spec for spec in shots if spec.shot_id in withdrawn][:2]
    assert run_all(each_executor, again).keys() == {spec.shot_id for spec in again}

"""The recipe for batch systems, with processes in the place of nodes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shots_support import Walk, breaking_site, gather, run_here, same, specs, tickets
from test_executors import answers_strangers, listening_ports
from test_worker_faults import processes, used

from ops_aimmd.shooting.executors.choose import DaskExecutor

distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")

MAKE_CERTIFICATE = (
    "openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj /CN=dask-internal -keyout key.pem -out cert.pem"
)


@pytest.fixture
def job(tmp_path):
    """Starts ``dask`` commands as a job does; ends them afterwards."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    files = ["-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*MAKE_CERTIFICATE.split(), *files], cwd=tmp_path, check=True, capture_output=True)
    here = Path(__file__).parent
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENMM_CPU_THREADS": "1",
        "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "60s",
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])]),
    }
    tls = "--tls-ca-file cert.pem --tls-cert cert.pem --tls-key key.pem"
    preload = "--preload ops_aimmd.shooting.executors.no_http"
    options = f"--scheduler-file scheduler.json --protocol tls {tls} {preload} --no-dashboard"
    processes = []

    def start(command, **more):
        command = [sys.executable, "-m", "dask", *command.split(), *options.split()]
        processes.append(subprocess.Popen(command, cwd=tmp_path, env={**environment, **more}, stderr=subprocess.DEVNULL))
        return processes[-1]

    yield start
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def client_of(folder):
    """A client of the scheduler that a job starts, when it is there."""
    file = folder / "scheduler.json"
    end = time.monotonic() + 300
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert json.loads(file.read_text())["address"].startswith("tls://")
    files = [str(folder / name) for name in ("cert.pem", "cert.pem", "key.pem")]
    security = distributed.Security(
        require_encryption=True, **dict(zip(("tls_ca_file", "tls_client_cert", "tls_client_key"), files, strict=True))
    )
    return distributed.Client(scheduler_file=str(file), security=security, timeout=60)


@pytest.mark.slow
def test_recipe(job, tmp_path):
    scheduler = job("scheduler --host 127.0.0.1")
    worker = job("worker --nthreads 1 --no-nanny --resources GPU=1")
    with client_of(tmp_path) as client, DaskExecutor(client, resources={"GPU": 1}) as executor:
        walk = Walk()
        key = executor.start(walk.engine, walk.states)  # no worker may be there yet
        for spec in specs(walk, key, 6):
            executor.submit(spec)
        done = {outcome.shot_id: outcome for outcome in executor.results(timeout=300)}
        ports = listening_ports([scheduler.pid, worker.pid])
        assert len(ports) == 2 and not any(answers_strangers(port) for port in ports)
        late = job("worker --nthreads 1 --no-nanny --resources GPU=1")  # joins later, and has never seen the engine
        job("worker --nthreads 1 --no-nanny")  # has no GPU
        client.wait_for_workers(3, timeout=300)
        for spec in specs(walk, key, 12, first=6):
            executor.submit(spec)
        worker.kill()
        done.update(gather(executor))
    expected = run_here(walk, 18)
    assert done.keys() == expected.keys() and all(same(done[shot_id], expected[shot_id]) for shot_id in expected)
    assert {int(result.worker.rpartition(":")[2]) for result in done.values()} <= {worker.pid, late.pid}
    with pytest.raises((OSError, TypeError)):  # control: no certificate, no connection
        distributed.Client(scheduler_file=str(tmp_path / "scheduler.json"), timeout=3)


@pytest.mark.slow
def test_a_worker_without_a_nanny_freezes_and_wakes(job, tmp_path):
    """Nobody ends it: it wakes in mid-shot, after the shot was given to another worker, finds that the scheduler has given
    it up, and ends by itself. One that joins in its place works."""
    job("scheduler --host 127.0.0.1", DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="8s")
    workers = {worker.pid: worker for worker in (job("worker --nthreads 1 --no-nanny") for _ in range(2))}
    walk = Walk(breaking_site, folder=tickets(tmp_path, 1), fault="stop")
    with client_of(tmp_path) as client, DaskExecutor(client) as executor:
        client.wait_for_workers(2, timeout=300)
        key = executor.start(walk.engine, walk.states)
        for spec in specs(walk, key, 6):
            executor.submit(spec)
        done = gather(executor)
        (frozen,) = used(tmp_path)
        assert frozen in workers and state_of(frozen) == "T"
        os.kill(frozen, signal.SIGCONT)
        assert executor.results(timeout=5.0) == []  # what it brings now nobody wants
        workers[frozen].wait(timeout=120)
        late = job("worker --nthreads 1 --no-nanny")
        client.wait_for_workers(2, timeout=120)
        for spec in specs(walk, key, 12, first=6):
            executor.submit(spec)
        later = gather(executor)
    assert processes(tmp_path) == {*workers, late.pid}  # the shot ran twice
    expected = run_here(Walk(), 18)
    assert {**done, **later}.keys() == expected.keys()
    assert all(same({**done, **later}[shot_id], expected[shot_id]) for shot_id in expected)
    assert frozen not in {int(result.worker.rpartition(":")[2]) for result in [*done.values(), *later.values()]}


def state_of(process):
    """Letter of the state of a process: T where it is stopped."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]

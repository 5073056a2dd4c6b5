"""What a worker process of this machine runs: ``python -I worker_process.py FD``.

It takes messages from the process that started it, through the socket with the number FD. The first is the search path for
modules; nothing but python's own modules is imported before. Then an `EngineDescription` is remembered, and a `ShotSpec` is
run and answered with a `ShotResult` or a `ShotFailure`. It ends with the process that started it, however that ends: its
standard input is then at its end.
"""

from __future__ import annotations

import os
import sys
import threading
from multiprocessing.connection import Connection

PATIENCE = 1.0
"""Seconds that an engine has to stop when its worker ends."""

READY = "ready"
"""First message of a worker, when all is imported."""


def main() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection = Connection(int(sys.argv[1]))
    sys.path[:] = connection.recv()
    from ops_aimmd.shooting.shots import ShotFailure, ShotSpec
    from ops_aimmd.shooting.worker import run_shot

    connection.send(READY)
    descriptions = {}
    while True:
        try:
            message = connection.recv()
        except EOFError:
            return
        if not isinstance(message, ShotSpec):
            descriptions[message.key] = message
            continue
        try:
            answer = run_shot(descriptions[message.engine_key], message)
        except RuntimeError as error:
            answer = ShotFailure(message.shot_id, str(error), "error")
        connection.send(answer)


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    running = sys.modules.get("ops_aimmd.engines.running")
    if running is not None:  # the process of an external engine would run on
        threading.Timer(PATIENCE, os._exit, [1]).start()
        running.stop_running_engines()
    os._exit(1)


if __name__ == "__main__":
    main()

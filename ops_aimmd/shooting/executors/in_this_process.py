"""Executors that need no other process."""

from __future__ import annotations

import traceback
from collections import OrderedDict
from collections.abc import Sequence

from ops_aimmd.engines.choose import adapter_of
from ops_aimmd.shooting.engine_description import PreparedEngine, engine_key
from ops_aimmd.shooting.executors.base import Executor, check_known
from ops_aimmd.shooting.shots import ResultHere, ShotFailure, ShotHere, ShotResult, ShotSpec
from ops_aimmd.shooting.worker import shoot, shoot_here


class InThisProcess(Executor):
    """Runs shots one after another in this process, with the engine of the user, each when its result is asked for."""

    def __init__(self):
        self._engines: dict[str, PreparedEngine] = {}
        self._waiting: OrderedDict[str, ShotSpec] = OrderedDict()

    @property
    def n_workers(self) -> int:
        return 1

    def start(self, engine, states: Sequence, run_id: str = "") -> str:
        adapter_of(engine).initialise()  # before, the key would be that of an unknown platform
        key = engine_key(engine, states)
        self._engines[key] = PreparedEngine(engine, tuple(states))
        return key

    def submit(self, spec: ShotSpec) -> None:
        check_known(spec, self._engines, self._waiting)
        self._waiting[spec.shot_id] = spec

    def results(self, timeout: float | None = None) -> list[ShotResult | ShotFailure]:
        """Runs the shot that waits longest, however long it takes. After Ctrl-C it still waits."""
        if not self._waiting:
            return []
        spec = next(iter(self._waiting.values()))
        try:
            done = shoot(self._engines[spec.engine_key], spec)
        except Exception as error:  # a state or a collective variable: the other shots go on
            text = "".join(traceback.format_exception(error))
            done = ShotFailure(spec.shot_id, f"{type(error).__name__}: {error}\n{text}", "error")
        del self._waiting[spec.shot_id]
        return [done]

    def withdraw(self) -> set[str]:
        withdrawn = set(self._waiting)
        self._waiting.clear()
        return withdrawn

    def close(self) -> None:
        self._waiting.clear()


class WithSnapshots(InThisProcess):
    """Runs shots from snapshots as they are, also where these cannot travel: frames of some engines lie in files.

    One shot at a time is under way, and an error of the dynamics, a state or a collective variable is raised as it is.
    """

    n_wanted = 1

    def start(self, engine, states: Sequence, run_id: str = "") -> str:
        key = f"engine and states {len(self._engines)}"
        self._engines[key] = PreparedEngine(engine, tuple(states))
        return key

    @staticmethod
    def specification(shot_id, engine_key, snapshot, directions, max_frames, seed, last_frame_only=False) -> ShotHere:
        return ShotHere(shot_id, engine_key, snapshot, tuple(directions), max_frames, seed)

    def results(self, timeout: float | None = None) -> list[ResultHere]:
        if not self._waiting:
            return []
        _, shot = self._waiting.popitem(last=False)
        return [shoot_here(self._engines[shot.engine_key], shot)]

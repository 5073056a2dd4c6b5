"""The checkpoint of a simulation: what is written to it when a run begins, after each step, and when it ends."""

from __future__ import annotations

import json
import lzma
import random
import warnings
import zlib
from contextlib import nullcontext

import numpy as np
import openpathsampling as paths

from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.engines.choose import adapter_of
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.learner_checkpoint import create_checkpoint, record_step
from ops_aimmd.shooting.frame_blocks import frames_can_be_kept
from ops_aimmd.storage.logged_steps import StepLogWriter, current_paths_after
from ops_aimmd.storage.ops_files import file_of, kind_of, mark_of

SETUP_FILE = "ops_setup.xz"
"""Name, in the checkpoint, of the compressed copy of OPS's file as it was when the run began."""

END_FILE = "run_end.json"
"""Name, in the checkpoint, of the step at which the run last came to an end, with OPS's file whole."""

LARGEST_SETUP = 400 * 2**20
"""Bytes; a new netCDF file of OPS has 100 MB, which shrink to 0.3 MB. A larger file is not copied."""

ZLIB_MAGIC = b"\x78\x01"
"""First bytes of what zlib writes at level 1."""


class RunFiles:
    """Writes the checkpoint of one simulation; parameters as for `TrainingHook`."""

    def __init__(self, path, learner: CommittorLearner, keep_paths: bool = True, keep_models_every: int = 1):
        self.path = path
        self.learner = learner
        self.keep_paths = keep_paths
        self.keep_models_every = keep_models_every
        self.begun = False
        """Whether the file is ours already."""
        self.file: Checkpoint | None = None
        """The checkpoint while it is open."""
        self._log: StepLogWriter | None = None
        self._simulation = None
        self._can_be_logged = True
        """Whether the frames of this simulation can be kept in the checkpoint; known when a run begins."""
        self._news: dict = {}
        """What goes into the checkpoint with the next step."""

    @property
    def steps_of_replicas(self) -> dict[int, int]:
        """Steps that each replica has made, by the checkpoint; empty before it begins."""
        if not self.begun:
            return {}
        with Checkpoint.open(self.path, read_only=True) if self.file is None else nullcontext(self.file) as file:
            logged = file.logged_steps()
            current = current_paths_after(file, logged[-1]) if logged else {}
        return {replica: path.n_steps for replica, path in current.items()}

    def open(self, sim, options: dict, engines: list, simulation_key: int | None) -> None:
        """Begin the checkpoint of a simulation, or go on with it; `options` are those of the hook."""
        self._simulation = sim
        self._can_be_logged = frames_can_be_kept([sample.trajectory[0] for sample in sim.sample_set], engines)
        if self.file is not None:  # a run that was interrupted goes on in the same process
            return
        if sim.storage is not None:
            sim.sync_storage()
        if self.begun:
            self.file = Checkpoint.open(self.path)
        else:
            self.file = create_checkpoint(self.path, self.learner, self.keep_models_every)
            self._keep_setup(sim.storage)
        self._news = {"run": self._describe(sim, options, engines, simulation_key)}
        if not self._can_be_logged:
            warnings.warn(
                "the snapshots of this engine cannot be kept in the checkpoint, since they hold more than arrays and plain "
                "values, or their coordinates lie in files of the engine: the paths are only in OPS's file, in its "
                "precision, and in the files of the engine. Keep those files; a run resumes from them",
                stacklevel=3,
            )
        if not self.begun:
            self.record(paths.MCStep(sim, sim.step, None, sim.sample_set, paths.EmptyMoveChange()))
        self.begun = True

    def _keep_setup(self, storage) -> None:
        if storage is None:
            return
        file = file_of(storage)
        if file.stat().st_size > LARGEST_SETUP:
            warnings.warn(
                f"{file} is too large for a copy of its set-up in the checkpoint: should it be damaged, the run can not be "
                "resumed without it. Begin long runs in a new file",
                stacklevel=4,
            )
            return
        self.file.store_file(SETUP_FILE, compressed(file.read_bytes()))

    def _describe(self, sim, options: dict, engines: list, simulation_key: int | None) -> dict:
        """What `resume` must know of the simulation."""
        storage = sim.storage
        platforms = {str(engine.__uuid__): adapter_of(engine).platform for engine in engines}
        return {
            "simulation": str(sim.__uuid__),
            "ops_file": None if storage is None else {"kind": kind_of(storage), "name": file_of(storage).name},
            "simulation_key": None if simulation_key is None else str(simulation_key),  # JSON readers round large numbers
            "n_simulations": self.learner.simulations.n_begun,
            "save_frequency": int(sim.save_frequency),
            "platforms": {uuid: platform for uuid, platform in platforms.items() if platform is not None},
            "hook": {name: value for name, value in options.items() if name not in ("learner", "checkpoint")},
        }

    def record(self, step: paths.MCStep) -> None:
        """Write a finished step, before OPS stores it."""
        sim = self._simulation
        frequency = max(1, int(sim.save_frequency))
        in_ops_file = (step.mccycle - 1) // frequency * frequency if sim.storage is not None else -1
        try:
            self._write(step, in_ops_file)
        except BaseException:  # also Ctrl-C: what the log believes to be in the file may not be
            self._log = None
            raise

    def _write(self, step: paths.MCStep, in_ops_file: int) -> None:
        sim = self._simulation
        state = dict(self._news)
        if self._log is None:
            self._log = StepLogWriter(self.file, self.keep_paths)
        log = self._log.entry(step, in_ops_file) if self._can_be_logged else None
        if self.learner.seed is None:
            state["generators"] = generator_states()
        mark = None if sim.storage is None else mark_of(sim.storage)
        if mark is not None:
            state["ops_mark"] = mark
        record_step(self.file, self.learner, step.mccycle, log, state)
        self._news = {}

    def close(self, sim) -> None:
        """Let go of the file; all steps are in it."""
        if self.file is None:
            return
        self.file.store_file(END_FILE, json.dumps({"step": self.file.step}).encode())
        self.file.close()
        self.file = self._log = None


def setup_copy(checkpoint: Checkpoint) -> bytes | None:
    """OPS's file as it was when the run began, None if there is no copy."""
    if SETUP_FILE not in checkpoint.file_names():
        return None
    return decompressed(checkpoint.file(SETUP_FILE))


def compressed(content: bytes) -> bytes:
    """Compress a file of OPS: with zlib, which shortens the long repetitions of a new file soonest, then with LZMA.

    LZMA alone takes more than twice as long for a new netCDF file, and leaves more than three times as much.
    """
    return lzma.compress(zlib.compress(content, 1), preset=0)


def decompressed(content: bytes) -> bytes:
    """The file that was compressed, by :func:`compressed` or, in files of version 0.1.0, with LZMA alone."""
    content = lzma.decompress(content)
    return zlib.decompress(content) if content.startswith(ZLIB_MAGIC) else content


def newest_mark(checkpoint: Checkpoint) -> dict | None:
    """What OPS's SimStore file held before its last sync; None where that sync was not cut short."""
    if END_FILE in checkpoint.file_names() and json.loads(checkpoint.file(END_FILE))["step"] == checkpoint.step:
        return None
    return checkpoint.state("ops_mark") if "ops_mark" in checkpoint.state_keys() else None


def generator_states() -> dict:
    """States of the generators from which OPS draws, for runs without a seed."""
    _, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - OPS draws from it
    version, internal, gauss_next = random.getstate()
    return {
        "numpy": [np.asarray(keys), int(position), int(has_gauss), float(gauss)],
        "python": [version, np.array(internal, dtype=np.uint64), gauss_next],
        "ops": _with_text_integers(paths.default_rng().bit_generator.state),
    }


def restore_generators(states: dict) -> None:
    """Put back what :func:`generator_states` gave."""
    keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state(("MT19937", keys, position, has_gauss, gauss))  # noqa: NPY002
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(int(word) for word in internal), gauss_next))
    paths.default_rng().bit_generator.state = _from_text_integers(states["ops"])


def _with_text_integers(state):
    """Generators have integers of 128 bits, which other readers of JSON would round."""
    if isinstance(state, dict):
        return {key: _with_text_integers(value) for key, value in state.items()}
    return {"integer": str(state)} if isinstance(state, int) else state


def _from_text_integers(state):
    if isinstance(state, dict):
        if state.keys() == {"integer"}:
            return int(state["integer"])
        return {key: _from_text_integers(value) for key, value in state.items()}
    return state

"""OPS steps as documents and arrays in the checkpoint, and back.

OPS's own file can lag behind or be lost. So the checkpoint logs every finished step: the tree of its move changes with
all details, its active paths frame by frame, and of rejected shots the shooting point and the end frames. Frames of the
active paths are kept in float64, from which a run goes on to the bit; once no active path holds them, in float32 like
those in OPS's file.
"""

from __future__ import annotations

import os
from collections import ChainMap, OrderedDict
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import numpy as np
import openpathsampling as paths
from openpathsampling import movechange

from ops_aimmd.checkpoint import Checkpoint, FrameBlock, StepLog
from ops_aimmd.sampling.movers import ShootingMover
from ops_aimmd.sampling.shooting_results import samples_of
from ops_aimmd.shooting.frame_blocks import IDENTITY, frame_key, is_reversed, pack_frames, unpack_frames
from ops_aimmd.storage.current_paths import CurrentPath, CurrentPaths
from ops_aimmd.storage.thinning import thinned

BLOCK_BYTES = 64 * 2**20
"""Frames are written in blocks of at most about this size."""

BLOCKS_REMEMBERED, PATHS_REMEMBERED = 64, 64
"""Unpacked blocks of frames, and paths, that are kept while steps are rebuilt."""

PLAIN = (type(None), bool, int, float, str, np.generic, np.ndarray)


# ---- writing --------------------------------------------------------------------------------------------------------


class StepLogWriter:
    """Turns finished steps into entries of a checkpoint, and knows where in it the frames of the active paths are.

    Parameters
    ----------
    checkpoint : Checkpoint
        Open for writing; the entries go on from what is in it.
    keep_paths : bool
        Whether paths stay in the log for ever, or only until OPS's file holds them.
    """

    def __init__(self, checkpoint: Checkpoint, keep_paths: bool = True):
        self.keep_paths = keep_paths
        self._next_block = checkpoint.last_frame_block + 1
        self._current = CurrentPaths()
        self._written: OrderedDict[int, tuple[set[str], set[int]]] = OrderedDict()
        logged = checkpoint.logged_steps()
        if logged:
            self._find_current_paths(checkpoint, logged[-1])
        if not keep_paths:
            for step in logged:
                names = _paths_in(checkpoint.logged_step(step))
                self._written[step] = (names, {int(b) for name in names for b in checkpoint.path_frames(name)[:, 0]})

    def _find_current_paths(self, checkpoint: Checkpoint, step: int) -> None:
        for replica, current in current_paths_after(checkpoint, step).items():
            frames = checkpoint.path_frames(current.path)
            keys = {b: checkpoint.frame_block(b).arrays[IDENTITY].tolist() for b in np.unique(frames[:, 0]).tolist()}
            places = {_joined(*keys[block][row]): (block, row) for block, row, _ in frames.tolist()}
            self._current.put(replica, current, places, places)

    @property
    def current(self) -> Mapping[int, CurrentPath]:
        """Where each replica is after the last step."""
        return self._current.replicas

    def entry(self, step: paths.MCStep, in_ops_file: int = -1) -> StepLog:
        """What is new in a finished step, before OPS stores it.

        Its frames must be of a kind that can be kept (`frames_can_be_kept`). Replicas that are not among its active paths
        stay where they are. `in_ops_file` is the last step that OPS's file is known to hold.
        """
        active = {str(sample.trajectory.__uuid__): sample.trajectory for sample in step.active}
        collected = _Collected(active, self._current.names, self._current.places)
        document = {
            "active": [
                [int(sample.replica), str(sample.trajectory.__uuid__), _uuid(sample.ensemble)] for sample in step.active
            ],
            "change": collected.change(step.change),
        }
        blocks, exact, places = self._pack(collected)
        frames = {
            name: np.array([_reference(frame, places) for frame in trajectory.iter_proxies()], dtype=np.int64)
            for name, trajectory in collected.new_paths.items()
        }
        for place in collected.frame_references:
            place["$frame"] = _reference(place["$frame"], places)
        touched = exact | self._set_current(step, places)
        outlived = sorted(block for block in touched if not self._current.holds_block(block))
        if len(self._current.replicas) > len(document["active"]):
            document["current"] = [[replica, *current] for replica, current in self._current.replicas.items()]
        dropped = self._dropped(step.mccycle, document, set(blocks) | touched, in_ops_file)
        return StepLog(
            document=document,
            frame_blocks=blocks,
            paths=frames,
            reduce_blocks=[block for block in outlived if block not in dropped.blocks],
            drop_blocks=sorted(dropped.blocks),
            drop_paths=sorted(dropped.paths),
            drop_steps_until=dropped.until,
        )

    def _pack(self, collected: _Collected) -> tuple[dict[int, FrameBlock], set[int], Mapping[int, tuple[int, int]]]:
        """New blocks by number, which of them are exact, and the places of all frames."""
        blocks, all_exact, new_places = {}, set(), {}
        places = ChainMap(new_places, self._current.places)
        for snapshots, exact in ((collected.exact_frames, True), (collected.other_frames, False)):
            new = [frame for key, frame in snapshots.items() if key not in places]
            for part in _portions(new):
                block = pack_frames(part)
                if not exact:
                    arrays = {n: a.astype(np.float32) if a.dtype == np.float64 else a for n, a in block.arrays.items()}
                    block = FrameBlock(block.meta, arrays)
                else:
                    all_exact.add(self._next_block)
                blocks[self._next_block] = block
                new_places.update({frame_key(frame): (self._next_block, row) for row, frame in enumerate(part)})
                self._next_block += 1
        return blocks, all_exact, places

    def _set_current(self, step: paths.MCStep, places: Mapping[int, tuple[int, int]]) -> set[int]:
        """Set the replicas of the step to their paths; the blocks of these and of the ones before."""
        current = self._current
        touched = set()
        everybody = current.replicas.keys() <= {int(sample.replica) for sample in step.active}
        frames = {
            str(sample.trajectory.__uuid__): [frame_key(frame) for frame in sample.trajectory.iter_proxies()]
            for sample in step.active
            if current.path_of(int(sample.replica)) != str(sample.trajectory.__uuid__)
        }
        # looked up before any replica moves: one may take a frame, or the path, that another one leaves
        places = {key: places[key] for keys in frames.values() for key in keys}
        for sample in step.active:
            replica, path = int(sample.replica), str(sample.trajectory.__uuid__)
            before = current.replicas.get(replica)
            n_steps = step.mccycle if everybody else before.n_steps + 1
            if before is not None:
                touched |= current.blocks_of(before.path)
            current.put(replica, CurrentPath(path, _uuid(sample.ensemble), int(n_steps)), frames.get(path, ()), places)
            touched |= current.blocks_of(path)
        return touched

    def _dropped(self, step: int, document: dict, blocks: set[int], in_ops_file: int) -> _Dropped:
        """What the log no longer needs: of steps that OPS's file holds, what neither later steps nor current paths use."""
        if self.keep_paths:
            return _Dropped(set(), set(), None)
        self._written[step] = (_paths_in(document), blocks)
        old_paths, old_blocks, until = set(), set(), None
        while self._written and next(iter(self._written)) <= min(in_ops_file, step - 1):
            until, (names, numbers) = self._written.popitem(last=False)
            old_paths |= names
            old_blocks |= numbers
        for names, numbers in self._written.values():
            old_paths -= names
            old_blocks -= numbers
        held = {block for block in old_blocks if self._current.holds_block(block)}
        return _Dropped(old_paths - self._current.names.keys(), old_blocks - held, until)


class _Dropped(NamedTuple):
    paths: set
    blocks: set
    until: int | None


class _Collected:
    """Walks through a step: its document, and the paths and frames that the document needs."""

    def __init__(self, active: Mapping[str, paths.Trajectory], known_paths: Container[str], known_frames: Container[int]):
        self.active = active
        self.known_paths = known_paths
        self.known_frames = known_frames
        self.new_paths = {name: path for name, path in active.items() if name not in known_paths}
        self.exact_frames: dict[int, object] = {}
        self.other_frames: dict[int, object] = {}
        self.frame_references: list[dict] = []
        for path in self.new_paths.values():
            self._add_frames(path, self.exact_frames)

    def _add_frames(self, trajectory, frames: dict) -> None:
        for index, frame in enumerate(trajectory.iter_proxies()):
            key = frame_key(frame)
            if key not in self.exact_frames and key not in self.known_frames:
                frames.setdefault(key, trajectory[index])

    def _has(self, name: str) -> bool:
        """Whether a path is in the log, or goes into it with this step."""
        return name in self.active or name in self.known_paths or name in self.new_paths

    def change(self, change) -> dict:
        return {
            "class": change.__class__.__name__,
            "mover": None if change.mover is None else [_uuid(change.mover), change.mover.__class__.__name__],
            "bare": isinstance(change.samples, paths.Sample),
            "samples": [self._sample(sample, change) for sample in samples_of(change)],
            "inputs": [self._sample(sample, change) for sample in change.input_samples or []],
            "details": None if change.details is None else self._details(change.details),
            "subchanges": [self.change(part) for part in change.subchanges],
        }

    def _sample(self, sample, change) -> list:
        trajectory = sample.trajectory
        name = str(trajectory.__uuid__)
        whole = True
        if not self._has(name):
            # other moves say nothing of the legs of their trials; a configuration beside the path has one frame
            whole = len(trajectory) == 1 or not isinstance(change.mover, ShootingMover)
            trajectory = trajectory if whole else thinned(trajectory, change.details)
            name = str(trajectory.__uuid__)
            self.new_paths[name] = trajectory
            self._add_frames(trajectory, self.other_frames)
        return [int(sample.replica), name, _uuid(sample.ensemble), _plain_float(sample.bias), _uuid(sample.mover), whole]

    def _details(self, details) -> dict:
        named = {name: self._value(value) for name, value in vars(details).items() if not name.startswith("_")}
        return {name: value for name, value in named.items() if value is not _LEFT_OUT}

    def _value(self, value):
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, paths.Trajectory):  # which is a list, too
            name = str(value.__uuid__)
            return {"$path": name} if self._has(name) else _LEFT_OUT
        if isinstance(value, (list, tuple)):
            parts = [self._value(part) for part in value]
            return _LEFT_OUT if any(part is _LEFT_OUT for part in parts) else parts
        if isinstance(value, dict):
            parts = {key: self._value(part) for key, part in value.items()}
            return (
                _LEFT_OUT if any(p is _LEFT_OUT or not isinstance(k, str) for k, p in parts.items()) else {"$dict": parts}
            )
        if isinstance(value, paths.engines.BaseSnapshot):
            if frame_key(value) not in self.exact_frames and frame_key(value) not in self.known_frames:
                self.other_frames.setdefault(frame_key(value), value)
            reference = {"$frame": value}
            self.frame_references.append(reference)
            return reference
        if isinstance(value, paths.PathMover):
            return {"$mover": [_uuid(value), value.__class__.__name__]}
        if isinstance(value, paths.Ensemble):
            return {"$ensemble": _uuid(value)}
        return _LEFT_OUT


_LEFT_OUT = object()


def _reference(frame, places: Mapping[int, tuple[int, int]]) -> list[int]:
    return [*places[frame_key(frame)], int(is_reversed(frame))]


def _joined(high: int, low: int) -> int:
    """A key from the two halves that are in a block."""
    return (int(high) << 64) | int(low)


def _uuid(thing) -> str | None:
    return None if thing is None else str(thing.__uuid__)


def _plain_float(value) -> float | None:
    return None if value is None else float(value)


def _paths_in(document: dict) -> set[str]:
    names = {name for _, name, _ in document["active"]}
    for change in changes_in(document["change"]):
        names |= {sample[1] for sample in [*change["samples"], *change["inputs"]]}
        names |= {v["$path"] for v in (change["details"] or {}).values() if isinstance(v, dict) and "$path" in v}
    return names


def _portions(snapshots: list) -> Iterator[list]:
    """Runs of frames of one engine and class, of limited size."""

    def kind(frame):
        return frame.engine.__uuid__, frame.__class__.__name__

    for _, run in groupby(sorted(snapshots, key=kind), key=kind):
        frames = list(run)
        size = max(1, sum(array.nbytes for array in pack_frames(frames[:1]).arrays.values()))
        most = max(1, BLOCK_BYTES // size)
        yield from (frames[start : start + most] for start in range(0, len(frames), most))


# ---- reading --------------------------------------------------------------------------------------------------------


class StepLogReader:
    """Rebuilds the steps of a simulation, with engines, ensembles and movers of OPS's file by uuid."""

    def __init__(self, checkpoint: Checkpoint, simulation, engines: Mapping, ensembles: Mapping, movers: Mapping):
        self.checkpoint = checkpoint
        self.simulation = simulation
        self.engines = engines
        self.ensembles = ensembles
        self.movers = movers
        self._block = lru_cache(BLOCKS_REMEMBERED)(self._read_block)
        self.trajectory = lru_cache(PATHS_REMEMBERED)(self._read_trajectory)

    def current(self, number: int) -> paths.SampleSet:
        """The current paths of all replicas after a step; after the last one in full precision."""
        document = self.checkpoint.logged_step(number)
        entries = [[r, now.path, now.ensemble] for r, now in current_paths_after(self.checkpoint, number).items()]
        return self._sample_set(entries, document, {})

    def steps(self, numbers: Iterable[int], previous: Iterable[paths.Sample]) -> Iterator[paths.MCStep]:
        """Steps in the order of their numbers; `previous` are the current paths before the first of them."""
        current = {sample.replica: sample for sample in previous}
        for number in numbers:
            document = self.checkpoint.logged_step(number)
            samples: dict = {}
            active = self._sample_set(document["active"], document, samples)
            change = self._change(document["change"], samples)
            before = [current[sample.replica] for sample in active if sample.replica in current]
            yield paths.MCStep(self.simulation, number, paths.SampleSet(before) if before else None, active, change)
            current.update({sample.replica: sample for sample in active})

    def _sample_set(self, entries: list, document: dict, samples: dict) -> paths.SampleSet:
        entries = [[replica, name, ensemble, None, None, True] for replica, name, ensemble in entries]
        made_here = {tuple(sample[:3]): sample for sample in _samples_in(document["change"])}
        return paths.SampleSet([self._sample(made_here.get(tuple(entry[:3]), entry), samples) for entry in entries])

    def _sample(self, entry: list, samples: dict) -> paths.Sample:
        replica, name, ensemble, bias, mover, _ = entry
        key = (replica, name, ensemble)
        if key not in samples:
            samples[key] = paths.Sample(
                replica=replica,
                trajectory=self.trajectory(name),
                ensemble=self._find(self.ensembles, ensemble, "ensemble"),
                bias=1.0 if bias is None else bias,
                mover=self.movers.get(mover),
            )
        return samples[key]

    def _change(self, entry: dict, samples: dict):
        kind = getattr(movechange, entry["class"])
        change = kind.__new__(kind)
        details = entry["details"]
        made = [self._sample(sample, samples) for sample in entry["samples"]]
        movechange.MoveChange.__init__(
            change,
            subchanges=[self._change(part, samples) for part in entry["subchanges"]],
            samples=made[0] if entry["bare"] else made,
            mover=self._mover(entry["mover"]),
            details=None if details is None else paths.Details(**{n: self._value(v) for n, v in details.items()}),
            input_samples=[self._sample(sample, samples) for sample in entry["inputs"]],
        )
        if details is not None and entry["samples"] and not all(sample[5] for sample in entry["samples"]):
            change.details.stored_trial = "ends"
        return change

    def _value(self, value):
        if isinstance(value, list):
            return [self._value(part) for part in value]
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        if kind == "$dict":
            return {key: self._value(part) for key, part in content.items()}
        if kind == "$path":
            return self.trajectory(content)
        if kind == "$frame":
            return self._frame(*content)
        if kind == "$mover":
            return self._mover(content)
        return self._find(self.ensembles, content, "ensemble")

    def _mover(self, named: list | None):
        if named is None:
            return None
        uuid, class_name = named
        if class_name == "PathSimulatorMover":  # OPS makes it anew with each simulation
            return self.simulation._mover
        return self._find(self.movers, uuid, class_name)

    def _find(self, objects: Mapping, uuid: str, kind: str):
        if uuid not in objects:
            raise KeyError(f"{kind} with the uuid {uuid} is in the log of {self.checkpoint.path} and not in OPS's file")
        return objects[uuid]

    def _read_trajectory(self, name: str) -> paths.Trajectory:
        """A logged path, under its old identity."""
        trajectory = paths.Trajectory([self._frame(*place) for place in self.checkpoint.path_frames(name).tolist()])
        trajectory.__uuid__ = int(name)
        return trajectory

    def _read_block(self, number: int) -> list:
        return unpack_frames(self.checkpoint.frame_block(number), self.engines)

    def _frame(self, block: int, row: int, reverse: int):
        frame = self._block(block)[row]
        return frame.reversed if reverse else frame


def current_paths_after(checkpoint: Checkpoint, step: int) -> dict[int, CurrentPath]:
    """Where each replica was after a logged step."""
    document = checkpoint.logged_step(step)
    if "current" in document:
        return {replica: CurrentPath(*current) for replica, *current in document["current"]}
    return {replica: CurrentPath(path, ensemble, step) for replica, path, ensemble in document["active"]}


def step_ends(step: paths.MCStep) -> tuple[set, set]:
    """What tells a step from any other: replica and end frames (`frame_key`) of its paths and trials.

    Thinned paths have the ends of the whole ones.
    """
    trials = [sample for change in step.change for sample in samples_of(change)]
    return tuple(
        {(int(sample.replica), *(frame_key(sample.trajectory[i]) for i in (0, -1))) for sample in samples}
        for samples in (step.active, trials)
    )


def current_paths(checkpoint: str | os.PathLike, engine) -> list[paths.Trajectory]:
    """The active paths of a run, in full precision, from its checkpoint alone.

    Parameters
    ----------
    checkpoint : path-like
    engine : openpathsampling.engines.DynamicsEngine
        Of the same kind and system as the run's: the frames become its frames.

    Returns
    -------
    list of Trajectory
        One for each replica.

    Raises
    ------
    ValueError
        If there are none in the checkpoint.
    """
    with Checkpoint.open(checkpoint, read_only=True) as file:
        logged = file.logged_steps()
        if not logged:
            raise ValueError(
                f"{checkpoint} holds no paths: the run died before its first step, or its engine makes frames that a "
                "checkpoint cannot keep"
            )
        names = [current.path for current in current_paths_after(file, logged[-1]).values()]
        blocks = {int(block) for name in names for block in file.path_frames(name)[:, 0]}
        engines = {file.frame_block(block).meta["engine"]: engine for block in blocks}
        reader = StepLogReader(file, None, engines=engines, ensembles={}, movers={})
        return [reader.trajectory(name) for name in names]


def logged_ends(checkpoint: Checkpoint, number: int) -> tuple[set, set]:
    """What :func:`step_ends` gives, of a step in the log."""
    document = checkpoint.logged_step(number)
    return tuple(
        {(entry[0], *_ends(checkpoint, entry[1])) for entry in entries}
        for entries in (document["active"], _samples_in(document["change"]))
    )


def _ends(checkpoint: Checkpoint, name: str) -> list[int]:
    keys = []
    for block, row, _ in checkpoint.path_frames(name)[[0, -1]].tolist():
        keys.append(_joined(*checkpoint.frame_block(block).arrays[IDENTITY][row]))
    return keys


def _samples_in(change: dict) -> list[list]:
    return [sample for part in changes_in(change) for sample in part["samples"]]


def changes_in(change: dict) -> Iterator[dict]:
    """A logged change and those that it consists of."""
    yield change
    for part in change["subchanges"]:
        yield from changes_in(part)

"""OPS snapshots as arrays in full precision, and back, with the identity that OPS files know them by.

OPS writes coordinates and velocities as float32 and knows a snapshot by its uuid. The last bit of the uuid tells a
snapshot from its reversed partner; a frame is kept here as the partner with the even uuid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from openpathsampling.engines import BaseSnapshot

from ops_aimmd.checkpoint import FrameBlock
from ops_aimmd.engines.choose import adapter_of
from ops_aimmd.engines.frames import ARRAYS, UNITS, can_be_kept, has_unit, holds_its_arrays

IDENTITY = "uuid"
LOW_BITS = 2**64 - 1


def frame_key(snapshot) -> int:
    """The same number for a snapshot and its reversed partner."""
    return int(snapshot.__uuid__) & ~1


def is_reversed(snapshot) -> bool:
    """Whether a snapshot is the partner with the odd uuid, which is not kept."""
    return bool(int(snapshot.__uuid__) & 1)


def frames_can_be_kept(snapshots: Iterable[BaseSnapshot], engines: Iterable) -> bool:
    """Whether all snapshots, and all that the engines will make, can be kept.

    The first path of an external engine may consist of snapshots with arrays in memory, which OPS calls internalized.
    """
    classes = [dict(engine.descriptor)["class"] for engine in engines if engine.descriptor is not None]
    return all(map(can_be_kept, snapshots)) and all(map(holds_its_arrays, classes))


def pack_frames(snapshots: Sequence[BaseSnapshot]) -> FrameBlock:
    """Snapshots of one class and one engine as one block of arrays.

    Parameters
    ----------
    snapshots : sequence of Snapshot
        Snapshots, or their reversed partners.

    Returns
    -------
    FrameBlock
        Arrays: ``uuid`` (n, 2) uint64, high and low half of the even uuid; ``coordinates`` and ``velocities`` (n,
        n_atoms, n_spatial) float64; ``box_vectors`` (n, 3, 3), or (1, 3, 3) where all are equal, left out where there are
        none. Meta: class, uuid of the engine, unit of each array (OpenMM: nanometer, nanometer/picosecond; None: those
        of the engine), and other values of each frame.
    """
    first = snapshots[0]
    adapter = adapter_of(first.engine)
    frames = [snapshot.reversed if is_reversed(snapshot) else snapshot for snapshot in snapshots]
    keys = [frame_key(frame) for frame in frames]
    arrays, values = stacked([adapter.arrays_of(frame) for frame in frames])
    with_units = has_unit(first.coordinates)
    meta = {
        "class": first.__class__.__name__,  # type() would name the proxy of a stored frame
        "engine": str(first.engine.__uuid__),
        "units": {name: UNITS[name] if with_units else None for name in arrays},
        "values": values,
    }
    identity = np.array([[key >> 64, key & LOW_BITS] for key in keys], dtype=np.uint64)
    return FrameBlock(meta, {IDENTITY: identity, **arrays})


def unpack_frames(block: FrameBlock, engines: Mapping[str, object]) -> list[BaseSnapshot]:
    """The snapshots of a block, those with the even uuid, as frames of one of the engines, by uuid.

    Raises KeyError if the engine of the block is not among those given, or makes other snapshots.
    """
    uuid = block.meta["engine"]
    if uuid not in engines:
        raise KeyError(
            f"the frames were made by an engine with the uuid {uuid}, which is not among the engines of the file"
        )
    engine = engines[uuid]
    snapshot_class = dict(engine.descriptor)["class"]
    if snapshot_class.__name__ != block.meta["class"]:
        raise KeyError(
            f"the frames are of the class {block.meta['class']}, the engine {engine.name!r} makes {snapshot_class.__name__}"
        )
    adapter = adapter_of(engine)
    with_units = any(block.meta["units"].values())
    rows = unstacked({name: block.arrays[name] for name in block.meta["units"]}, block.meta["values"])
    snapshots = [adapter.frame_of(parts, with_units) for parts in rows]
    for snapshot, (high, low) in zip(snapshots, block.arrays[IDENTITY].tolist(), strict=True):
        snapshot.__uuid__ = (high << 64) | low
    return snapshots


def stacked(parts: Sequence[Mapping]) -> tuple[dict, dict]:
    """Many frames as `arrays_of` gives them: arrays with one row per frame, and lists of the other values.

    Boxes that are all equal have one row; what is None is left out.
    """
    columns = {name: [part[name] for part in parts] for name in parts[0]}
    arrays = {name: np.stack(column) for name, column in columns.items() if name in ARRAYS and column[0] is not None}
    if "box_vectors" in arrays and (arrays["box_vectors"] == arrays["box_vectors"][:1]).all():
        arrays["box_vectors"] = arrays["box_vectors"][:1]
    return arrays, {name: column for name, column in columns.items() if name not in ARRAYS}


def unstacked(arrays: Mapping, values: Mapping) -> list[dict]:
    """The frames of `stacked`, with copies of the arrays: a frame must not keep all the others."""
    columns = {name: np.array(array, dtype=np.float64) for name, array in arrays.items()}
    return [
        {name: column[row] for name, column in values.items()}
        | {name: array[0 if len(array) == 1 else row].copy() for name, array in columns.items()}
        for row in range(len(columns["coordinates"]))
    ]

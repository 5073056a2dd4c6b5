"""OPS's netCDF file written in blocks: one call per variable for all that `storage.save` writes.

OPS writes every number, array and text of every frame by a call of its own, and most of them several times; nearly all of
the time goes into netCDF4's handling of the index. Here OPS's own code saves, with its own order, indices and caches, and
only the last step is put off: what it assigns to a variable is collected, and written when `save` ends. So whatever OPS
can store is stored as OPS does it, and both ways of writing may take turns in one file.
"""

from __future__ import annotations

import functools
from collections import ChainMap
from collections.abc import Iterator
from contextlib import contextmanager

import netCDF4
import numpy as np
import openpathsampling as paths
from openpathsampling.engines.features.shared import KineticContainerStore, StaticContainerStore
from openpathsampling.netcdfplus import NamedObjectStore, ObjectStore
from openpathsampling.storage import stores
from openpathsampling.storage.stores.snapshot_feature import FeatureSnapshotStore
from openpathsampling.storage.stores.snapshot_value import SnapshotValueStore

COLLECTED = (
    StaticContainerStore,
    KineticContainerStore,
    FeatureSnapshotStore,
    SnapshotValueStore,
    stores.SnapshotWrapperStore,
    stores.TrajectoryStore,
    stores.SampleStore,
    ObjectStore,
    stores.MoveChangeStore,
    stores.SampleSetStore,
    stores.MCStepStore,
)
"""Kinds of stores that are written in blocks, in the order of writing: what is referred to comes first. Stores of other
kinds, and of subclasses, hold few objects, or unknown ones: OPS writes them."""

LARGEST_BLOCK = 64 * 2**20
"""Bytes of arrays that are collected at most."""

FEW_TEXTS = 5
"""netCDF4 writes so many texts sooner one by one: it has a shorter way for a single text, and none for a single number."""

NUMBERS = (np.ndarray, np.generic, int, float, list, tuple)
"""Types of values that netCDF4 and numpy turn into the same numbers."""

SMALLEST_UUID = 10**9
"""Where OPS asks a store for an object, smaller numbers are positions in the file."""


def block_writer_of(storage) -> BlockWriter | None:
    """The writer that `storage.save` goes through, None where OPS itself writes."""
    writer = getattr(vars(storage).get("save"), "__self__", None)
    return writer if isinstance(writer, BlockWriter) else None


def write_in_blocks(storage) -> None:
    """Let `storage.save` write in blocks from now on; without effect on all but OPS's netCDF files."""
    if type(storage) is paths.Storage and storage.fallback is None and block_writer_of(storage) is None:
        storage.save = BlockWriter(storage).save


def write_as_ops(storage) -> None:
    """Give `storage.save` back to OPS."""
    writer = None if storage is None else block_writer_of(storage)
    if writer is not None:
        writer.close()


@contextmanager
def written_in_blocks(storage, in_blocks: bool = True) -> Iterator[None]:
    """Within the block of code `storage.save` writes in blocks, unless `in_blocks` is False."""
    if in_blocks:
        write_in_blocks(storage)
    try:
        yield
    finally:
        if in_blocks:
            write_as_ops(storage)


class BlockWriter:
    """Saves objects to a netCDF file of OPS; its :meth:`save` replaces `storage.save`.

    If the file cannot be written to (a full disk), what was collected is kept, and written before the next object.

    Parameters
    ----------
    storage : openpathsampling.Storage
        Open for writing.
    """

    def __init__(self, storage: paths.Storage):
        self.storage = storage
        self._save = storage.save
        self._variables: dict[str, CollectedVariable] = {}
        self._known = (0, 0)
        """Numbers of stores and variables of the file when it was last looked at."""
        self._named: dict[str, set[int]] = {}
        """Uuids of the named objects that were saved through this writer, for each of their stores."""
        self._collecting = False
        self._bytes = 0

    def save(self, obj, idx=None):
        """Save an object with all that belongs to it, as `storage.save` does."""
        if self._collecting:  # a list is saved one by one
            return self._save(obj, idx)
        self.write()
        with self._collect():
            return self._save(obj, idx)

    def close(self) -> None:
        """Write what an error may have left, and give `storage.save` back."""
        self._release()
        self.write()
        if getattr(self._save, "__func__", None) is type(self.storage).save:
            del vars(self.storage)["save"]
        else:  # somebody else had replaced it
            self.storage.save = self._save

    def write(self) -> None:
        """Write all that is collected, what is referred to first."""
        for variable in self._variables.values():
            variable.write()
        self._bytes = 0

    def note_collected(self, n_bytes: int) -> None:
        """Count what waits to be written, and write it when it is much."""
        self._bytes += n_bytes
        if self._bytes > LARGEST_BLOCK:
            self.write()

    @contextmanager
    def _collect(self) -> Iterator[None]:
        self._find_variables()
        try:
            self._collecting = True
            for name, variable in self._variables.items():
                self.storage.vars[name].variable = variable
            variables = ChainMap(self._variables, self.storage.variables)
            for store in self._stores_of(*COLLECTED):
                store.variables = store.prefix_delegate(variables)
                if type(store).load in (ObjectStore.load, stores.SnapshotWrapperStore.load):
                    store.load = functools.partial(self._load, store)
            for store in self._stores_of(FeatureSnapshotStore):
                store._set = functools.partial(_write_each_feature_once, store)
            for store in self._stores_of(NamedObjectStore):
                store.save = functools.partial(_save_once, store, self._named.setdefault(store.prefix, set()))
            yield
        finally:
            self._release()
            self.write()

    def _release(self) -> None:
        """Give the stores back what they need to write themselves; a second call changes nothing."""
        self._collecting = False
        for name, variable in self._variables.items():
            self.storage.vars[name].variable = variable.variable
        for store in self._stores_of(*COLLECTED, NamedObjectStore):
            for method in ("load", "_set", "save"):
                vars(store).pop(method, None)
        for store in self._stores_of(*COLLECTED):
            store.variables = store.prefix_delegate(self.storage.variables)

    def _stores_of(self, *kinds: type) -> list[ObjectStore]:
        return [store for store in self.storage.objects.values() if type(store) in kinds]

    def _find_variables(self) -> None:
        """Find what is collected, in the order of writing; uuids, which say that an object is there, come last."""
        if self._known == (known := (len(self.storage.objects), len(self.storage.vars))):
            return
        self._known = known
        prefixes = {store.prefix: store for store in self.storage.objects.values()}
        found = []
        for name in self.storage.vars:
            variable = self.storage.variables[name]
            owner = max((prefix for prefix in prefixes if name.startswith(f"{prefix}_")), key=len, default=None)
            if owner is None or type(prefixes[owner]) not in COLLECTED or not _can_be_collected(variable):
                continue
            kind = StoreNumbers if name == "snapshots_store" else CollectedVariable
            place = COLLECTED.index(type(prefixes[owner]))
            found.append((place, name.endswith("_uuid"), name, kind(variable, self)))
        self._variables = {name: variable for *_, name, variable in sorted(found, key=lambda entry: entry[:3])}

    def _load(self, store, idx):
        """OPS loads no object beyond the end of the file: write first, unless the object is in memory."""
        if not _is_in_memory(store, idx):
            self.write()
        return type(store).load(store, idx)


class CollectedVariable:
    """Collects what is assigned to a netCDF variable.

    Whoever reads gets what the file holds after all that was collected has been written.
    """

    def __init__(self, variable: netCDF4.Variable, writer: BlockWriter):
        self.variable = variable
        self.var_type = getattr(variable, "var_type", None)  # OPS asks for it with each number that it writes
        self._writer = writer
        self._shape = variable.shape[1:]
        self._rows: dict[int, object] = {}

    def __setitem__(self, key, value):
        row = _row(key)
        entry = None if row is None else self._entry(value)
        if entry is None:
            self._writer.write()
            self.variable[key] = value
            return
        self._rows[row] = entry
        self._writer.note_collected(len(entry) if isinstance(entry, str) else entry.nbytes)

    def _entry(self, value) -> str | np.ndarray | None:
        """A value as the file would hold it, None for what netCDF4 has to judge."""
        if self.variable.dtype is str:
            return value if type(value) is str else None
        if isinstance(value, np.ma.MaskedArray) or not isinstance(value, NUMBERS):
            return None
        entry = np.array(value, dtype=self.variable.dtype)
        return entry if entry.shape == self._shape else None

    def __getitem__(self, key):
        self._write_all_if_needed()
        return self.variable[key]

    def __len__(self):
        self._write_all_if_needed()
        return len(self.variable)

    def __getattr__(self, name):
        self._write_all_if_needed()
        return getattr(self.variable, name)

    def _write_all_if_needed(self) -> None:
        if self._rows:
            self._writer.write()

    def write(self) -> None:
        """Write what is collected, each run of rows by one call."""
        rows = sorted(self._rows)
        ends = [place for place in range(1, len(rows) + 1) if place == len(rows) or rows[place] != rows[place - 1] + 1]
        for start, end in zip([0, *ends], ends, strict=False):
            run = rows[start:end]
            entries = [self._rows[row] for row in run]
            if not _is_text(self.variable):
                self.variable[run[0] : run[-1] + 1] = np.stack(entries)
            elif len(run) <= FEW_TEXTS:
                for row, entry in zip(run, entries, strict=True):
                    self.variable[row] = entry
            else:
                self.variable[run[0] : run[-1] + 1] = np.array(entries, dtype=object)
            for row in run:
                del self._rows[row]


class StoreNumbers(CollectedVariable):
    """Number of the store of each snapshot: OPS looks it up in the file whenever a path with that snapshot is saved."""

    def __init__(self, variable: netCDF4.Variable, writer: BlockWriter):
        super().__init__(variable, writer)
        self._read = np.empty(0, dtype=variable.dtype)

    def __getitem__(self, key):
        if _row(key) is None:
            return super().__getitem__(key)
        if key in self._rows:
            return self._rows[key]
        if key >= len(self._read):
            self._read = np.concatenate([self._read, self.variable[len(self._read) :]])
        if key < len(self._read) and self._read[key] >= 0:  # else the snapshot was mentioned only, and may be saved later
            return self._read[key]
        return super().__getitem__(key)


def _can_be_collected(variable: netCDF4.Variable) -> bool:
    """Whether a block of rows is the same in the file as the rows one by one."""
    if not (_is_text(variable) or isinstance(variable.dtype, np.dtype)):
        return False
    first, *others = variable.get_dims()
    packed = {"scale_factor", "add_offset", "_FillValue", "missing_value"} & {*variable.ncattrs()}
    return first.isunlimited() and not any(dimension.isunlimited() for dimension in others) and not packed


def _is_text(variable: netCDF4.Variable) -> bool:
    return variable.dtype is str


def _write_each_feature_once(store: FeatureSnapshotStore, row: int, snapshot) -> None:
    """Write a snapshot as OPS does, which names most features several times: each time it writes the same again."""
    for feature in dict.fromkeys(store.storables):
        store.write(feature, row, snapshot)


def _save_once(store: NamedObjectStore, saved: set[int], obj, idx=None):
    """Save a named object; OPS writes the name of an engine again for each of its frames, though it is fixed by then."""
    if idx is None and obj.__uuid__ in saved:
        return store.reference(obj)
    reference = type(store).save(store, obj, idx)
    saved.add(obj.__uuid__)
    return reference


def _row(key) -> int | None:
    """The row that a key stands for, None for all keys but those of one whole row."""
    if type(key) is int and key >= 0:
        return key
    if isinstance(key, tuple) and key and all(part == slice(None) for part in key[1:]):
        key = key[0]
    is_number = isinstance(key, (int, np.integer)) and not isinstance(key, bool)
    return int(key) if is_number and key >= 0 else None


def _is_in_memory(store, idx) -> bool:
    row = idx if idx < SMALLEST_UUID else store.index.get(idx)
    if row is None:
        return True  # no store of this file has it, and OPS says so
    return row in store.cache or (type(store) is stores.SnapshotWrapperStore and row ^ 1 in store.cache)

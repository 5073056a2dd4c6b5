"""The current path of each replica, and where in the checkpoint its frames are kept in full precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple


class CurrentPath(NamedTuple):
    """Where a replica is: name of its path, uuid of the ensemble, and in how many steps of the run it was active."""

    path: str
    ensemble: str
    n_steps: int


class CurrentPaths:
    """All replicas of a run. A step costs what it changes, however many replicas there are.

    Frames are known by their key (`shooting.frame_blocks.frame_key`) and have a place, (block, row). Paths may
    share frames.
    """

    def __init__(self):
        self.replicas: dict[int, CurrentPath] = {}
        self.places: dict[int, tuple[int, int]] = {}
        """Place of each frame of the current paths."""
        self._keys: dict[str, list[int]] = {}
        self._path_users: Counter = Counter()
        self._frame_users: Counter = Counter()
        self._block_users: Counter = Counter()

    @property
    def names(self) -> Mapping[str, object]:
        """Names of the current paths."""
        return self._keys

    def path_of(self, replica: int) -> str | None:
        """Name of the current path of a replica, None for one that is not known."""
        return self.replicas[replica].path if replica in self.replicas else None

    def blocks_of(self, name: str) -> set[int]:
        """Blocks in which the frames of a current path are."""
        return {self.places[key][0] for key in self._keys[name]}

    def holds_block(self, block: int) -> bool:
        """Whether a frame of a current path is in a block."""
        return block in self._block_users

    def put(self, replica: int, current: CurrentPath, keys: Iterable[int], places: Mapping[int, tuple[int, int]]) -> None:
        """Set where a replica is now; the keys and places of frames count only for a path that is not current already."""
        before = self.replicas.get(replica)
        self.replicas[replica] = current
        self._path_users[current.path] += 1
        if current.path not in self._keys:
            self._keys[current.path] = list(keys)
            for key in self._keys[current.path]:
                self._use(key, places)
        if before is not None:
            self._leave(before.path)

    def _use(self, key: int, places: Mapping[int, tuple[int, int]]) -> None:
        self._frame_users[key] += 1
        if key not in self.places:
            self.places[key] = places[key]
            self._block_users[places[key][0]] += 1

    def _leave(self, path: str) -> None:
        if _one_less(self._path_users, path):
            return
        for key in self._keys.pop(path):
            if not _one_less(self._frame_users, key):
                _one_less(self._block_users, self.places.pop(key)[0])


def _one_less(users: Counter, thing) -> int:
    """How many users are left; who has none is forgotten."""
    users[thing] -= 1
    left = users[thing]
    if not left:
        del users[thing]
    return left

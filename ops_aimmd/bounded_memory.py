"""A dictionary of limited size."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Hashable


class BoundedMemory(UserDict):
    """Keeps the entries that were read or written last and forgets the others.

    Parameters
    ----------
    limit : int
        Largest number of entries.
    """

    def __init__(self, limit: int):
        super().__init__()
        self.limit = limit

    def __getitem__(self, key: Hashable):
        self.data[key] = self.data.pop(key)  # a dict keeps the order in which keys were put in
        return self.data[key]

    def __setitem__(self, key: Hashable, value) -> None:
        self.data.pop(key, None)
        self.data[key] = value
        while len(self.data) > self.limit:
            del self.data[next(iter(self.data))]

    def recall(self, key: Hashable, make: Callable):
        """The entry of a key, from `make()` if there is none."""
        if key not in self.data:
            self[key] = make()
        return self[key]

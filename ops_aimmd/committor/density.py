r"""Density of transition-path frames along the committor.

Frames of transition paths crowd where the paths are slow. A selector that flattens the distribution of shooting points
divides its weight by the density :math:`\rho` of sampled transition-path frames along the committor. The density is a
histogram of the *current* model's committor over frames that are kept as descriptors, so that it is re-evaluated
whenever the model changes.

With more than two states there is one density per pair of states (i, j), along :math:`p_i / (p_i + p_j)`, in which a
frame weighs :math:`(p_i + p_j)^2`: a frame committed elsewhere says nothing about this pair.

Reference: Jung et al., Nat. Comput. Sci. 3, 334 (2023), doi:10.1038/s43588-023-00428-z.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

Pair = tuple[int, int]


def all_pairs(n_states: int) -> tuple[Pair, ...]:
    """All pairs (i, j) with i < j."""
    return tuple((i, j) for i in range(n_states) for j in range(i + 1, n_states))


def pair_log_odds(log_committor: np.ndarray, pair: Pair) -> np.ndarray:
    """Log-odds ``ln p_j - ln p_i`` of the later state of a pair; shape (n,)."""
    return log_committor[:, pair[1]] - log_committor[:, pair[0]]


def log_pair_probability(log_committor: np.ndarray, pair: Pair) -> np.ndarray:
    """``ln(p_i + p_j)``; shape (n,)."""
    return np.logaddexp(log_committor[:, pair[0]], log_committor[:, pair[1]])


@dataclass(frozen=True)
class CommittorDensity:
    """Histogram density along the committor of each pair of states, relative to the uniform density; immutable.

    Attributes
    ----------
    pairs : tuple of (int, int)
    values : array, shape (n_pairs, n_bins)
        Density in equal bins of the committor; 1 where it is uniform, always positive.
    """

    pairs: tuple[Pair, ...]
    values: np.ndarray

    @classmethod
    def from_frames(
        cls,
        log_committor: np.ndarray,
        weights: np.ndarray,
        pairs: Sequence[Pair] | None = None,
        n_bins: int = 10,
        uniform_weight: float = 0.0,
    ) -> CommittorDensity:
        """Histogram of weighted frames.

        Parameters
        ----------
        log_committor : array, shape (n, n_states)
            Of the frames of transition paths, with the current model.
        weights : array, shape (n,)
            MC steps for which the path of each frame was the current one.
        pairs : sequence of (int, int), optional
            All pairs by default.
        n_bins : int
        uniform_weight : float
            Total weight, in frames, of a uniform density mixed in. It bounds the weight of empty bins and fades as
            frames accumulate, so that a few paths or an untrained model cannot dominate the selection.
        """
        pairs = all_pairs(log_committor.shape[1]) if pairs is None else tuple(tuple(p) for p in pairs)
        values = np.ones((len(pairs), n_bins))
        for row, pair in enumerate(pairs):
            bins = _bin(pair_log_odds(log_committor, pair), n_bins)
            pair_weights = weights * np.exp(2 * log_pair_probability(log_committor, pair))
            counts = np.bincount(bins, pair_weights, minlength=n_bins)
            total = counts.sum() + uniform_weight
            if total > 0:
                values[row] = (counts + uniform_weight / n_bins) * n_bins / total
        values = np.maximum(values, 1e-3)
        values.flags.writeable = False
        return cls(pairs, values)

    def log_density(self, log_odds: np.ndarray, pair: Pair) -> np.ndarray:
        """Logarithm of the relative density of a pair at given pair log-odds; shape (n,)."""
        row = self.pairs.index(tuple(pair))
        return np.log(self.values[row, _bin(log_odds, self.values.shape[1])])


def _bin(log_odds: np.ndarray, n_bins: int) -> np.ndarray:
    return np.minimum((expit(log_odds) * n_bins).astype(int), n_bins - 1)


PATHS_REMEMBERED = 64
"""Current paths (one per replica) that can be counted again without giving their frames."""


class TransitionPathFrames:
    """Descriptors of the frames of sampled transition paths, each weighted by the MC steps that its path was current.

    At most `capacity` frames are kept in numbered slots: beyond that a random half is dropped and the other half counts
    twice, which leaves the density unbiased.

    Parameters
    ----------
    n_descriptors : int
    capacity : int
    seed : int, optional
        Of the generator that chooses what is dropped.
    """

    def __init__(self, n_descriptors: int, capacity: int = 100_000, seed: int | None = None):
        self.n_descriptors = n_descriptors
        self.capacity = capacity
        self.seed = seed
        self.n_paths = 0
        """Distinct paths seen."""
        self._descriptors = np.empty((0, n_descriptors))
        self._weights = np.empty(0)
        self._size = 0
        self._slots: OrderedDict[str, np.ndarray] = OrderedDict()
        self._increments: dict[str, float] = {}
        self._n_thinned = 0
        self._changed: set[int] = set()

    def count(self, path: str, frames: np.ndarray | None = None) -> None:
        """Count a path once more.

        Parameters
        ----------
        path : str
            Identity of the path.
        frames : array, shape (m, n_descriptors)
            Its interior frames; needed when the path is new (``path not in self``).
        """
        if path not in self._slots:
            if frames is None or np.ndim(frames) != 2 or frames.shape[1] != self.n_descriptors:
                raise ValueError(
                    f"a new path needs its frames as an array (m, {self.n_descriptors}); got "
                    f"{None if frames is None else np.shape(frames)}"
                )
            self._append(path, np.asarray(frames, dtype=np.float64))
        self._slots.move_to_end(path)
        slots = self._slots[path]
        self._weights[slots] += self._increments[path]
        self._changed.update(slots.tolist())

    def _append(self, path: str, frames: np.ndarray) -> None:
        first, self._size = self._size, self._size + len(frames)
        if self._size > len(self._weights):
            spare = max(self._size, 1024) - len(self._weights) + self._size
            self._descriptors = np.concatenate([self._descriptors, np.zeros((spare, self.n_descriptors))])
            self._weights = np.concatenate([self._weights, np.zeros(spare)])
        self._descriptors[first : self._size] = frames
        self._weights[first : self._size] = 0.0
        self._slots[path] = np.arange(first, self._size)
        self._increments[path] = 1.0
        self.n_paths += 1
        while len(self._slots) > PATHS_REMEMBERED:
            forgotten, _ = self._slots.popitem(last=False)
            del self._increments[forgotten]
        while self._size > self.capacity:
            self._drop_half()

    def _drop_half(self) -> None:
        self._n_thinned += 1
        rng = np.random.default_rng(None if self.seed is None else [self.seed, self._n_thinned])
        kept = rng.random(self._size) < 0.5
        new_slot = np.cumsum(kept) - 1
        n_kept = int(kept.sum())
        self._descriptors[:n_kept] = self._descriptors[: self._size][kept]
        self._weights[:n_kept] = 2 * self._weights[: self._size][kept]
        self._weights[n_kept:] = 0.0
        for path, slots in self._slots.items():
            self._slots[path] = new_slot[slots[kept[slots]]]
            self._increments[path] *= 2.0
        self._changed.update(range(self._size))
        self._size = n_kept

    def __contains__(self, path: object) -> bool:
        return path in self._slots

    def __len__(self) -> int:
        return self._size

    @property
    def descriptors(self) -> np.ndarray:
        """Array, shape (m, n_descriptors)."""
        return self._descriptors[: self._size].copy()

    @property
    def weights(self) -> np.ndarray:
        """Array, shape (m,): MC steps for which the path of each frame was the current one."""
        return self._weights[: self._size].copy()

    # ---- for the checkpoint -----------------------------------------------------------------------------------------

    def take_changes(self) -> tuple[np.ndarray, np.ndarray]:
        """Slots changed since the last call, ascending, and their rows (descriptors, weight), (m, n_descriptors + 1)."""
        slots = np.array(sorted(self._changed), dtype=int)
        self._changed.clear()
        return slots, np.column_stack([self._descriptors[slots], self._weights[slots]])

    def state(self) -> dict:
        """What the rows do not say, in JSON types."""
        return {
            "n_paths": self.n_paths,
            "size": self._size,
            "n_thinned": self._n_thinned,
            "seed": self.seed,
            "capacity": self.capacity,
            "paths": [[path, slots.tolist(), self._increments[path]] for path, slots in self._slots.items()],
        }

    @classmethod
    def from_state(cls, rows: np.ndarray, state: dict, n_descriptors: int) -> TransitionPathFrames:
        """Rebuild from the rows of all slots and `state`."""
        frames = cls(n_descriptors, state["capacity"], state["seed"])
        frames.n_paths = state["n_paths"]
        frames._n_thinned = state["n_thinned"]
        frames._size = state["size"]
        rows = np.reshape(rows, (-1, n_descriptors + 1))
        frames._descriptors, frames._weights = rows[:, :-1].copy(), rows[:, -1].copy()
        for path, slots, increment in state["paths"]:
            frames._slots[path] = np.array(slots, dtype=int)
            frames._increments[path] = increment
        return frames

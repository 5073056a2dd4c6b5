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

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from scipy.special import expit

Pair = tuple[int, int]

N_BINS = 10
"""Bins of the committor of each pair of states."""


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
    def from_frames(cls, log_committor: np.ndarray, weights: np.ndarray, uniform_weight: float = 0.0) -> CommittorDensity:
        """Histogram of weighted frames.

        Parameters
        ----------
        log_committor : array, shape (n, n_states)
            Of the frames of transition paths, with the current model.
        weights : array, shape (n,)
            MC steps for which the path of each frame was the current one.
        uniform_weight : float
            Total weight, in frames, of a uniform density mixed in. It bounds the weight of empty bins and fades as
            frames accumulate, so that a few paths or an untrained model cannot dominate the selection.
        """
        pairs = all_pairs(log_committor.shape[1])
        values = np.ones((len(pairs), N_BINS))
        for row, pair in enumerate(pairs):
            bins = _bin(pair_log_odds(log_committor, pair), N_BINS)
            pair_weights = weights * np.exp(2 * log_pair_probability(log_committor, pair))
            counts = np.bincount(bins, pair_weights, minlength=N_BINS)
            total = counts.sum() + uniform_weight
            if total > 0:
                values[row] = (counts + uniform_weight / N_BINS) * N_BINS / total
        values = np.maximum(values, 1e-3)
        values.flags.writeable = False
        return cls(pairs, values)

    def log_density(self, log_odds: np.ndarray, pair: Pair) -> np.ndarray:
        """Logarithm of the relative density of a pair at given pair log-odds; shape (n,)."""
        row = self.pairs.index(tuple(pair))
        return np.log(self.values[row, _bin(log_odds, self.values.shape[1])])


def _bin(log_odds: np.ndarray, n_bins: int) -> np.ndarray:
    return np.minimum((expit(log_odds) * n_bins).astype(int), n_bins - 1)


@dataclass
class CountedPath:
    """One sampled transition path.

    Attributes
    ----------
    count : int
        MC steps in which it was the current path.
    thinning : int
        How many frames each of the remaining ones, shape (m, n_descriptors), stands for.
    number : int
        Position among the paths in the order of their first count.
    """

    count: int
    thinning: int
    frames: np.ndarray
    number: int


class TransitionPathFrames:
    """Descriptors of the frames of sampled transition paths, each weighted by the MC steps that its path was current.

    At most `capacity` frames are kept: beyond that a random half is dropped, and later paths are thinned alike, so that
    every frame stands for equally many and the density stays unbiased.

    Parameters
    ----------
    seed : int, optional
        Of the generator that chooses what is dropped.
    """

    def __init__(self, n_descriptors: int, capacity: int = 100_000, seed: int | None = None):
        self.n_descriptors = n_descriptors
        self.capacity = capacity
        self.seed = seed
        self.n_thinned = 0
        """How often a half was dropped."""
        self._paths: dict[str, CountedPath] = {}
        self._n_frames = 0
        self.revision = 0
        """Number of changes until now."""
        self._changed_in: dict[str, int] = {}
        """Revision in which each path was last changed, latest last."""
        self._frames_changed_in: dict[str, int] = {}

    def count(self, path: str, frames: np.ndarray | None = None) -> None:
        """Count a path once more.

        Parameters
        ----------
        path : str
            Identity of the path.
        frames : array, shape (m, n_descriptors)
            Its interior frames; needed when the path is new (``path not in self``).
        """
        if path not in self._paths:
            if frames is None or np.ndim(frames) != 2 or frames.shape[1] != self.n_descriptors:
                raise ValueError(
                    f"a new path needs its frames as an array (m, {self.n_descriptors}); got "
                    f"{None if frames is None else np.shape(frames)}"
                )
            thinning = 2**self.n_thinned
            kept = self._generator(len(self._paths)).random(len(frames)) < 1 / thinning
            self._put(path, CountedPath(0, thinning, np.array(frames, dtype=np.float64)[kept], self.n_paths))
            while self._n_frames > self.capacity:
                self._drop_half()
        self._paths[path].count += 1
        self._note_change(path)

    def _put(self, path: str, counted: CountedPath) -> None:
        self._paths[path] = counted
        self._n_frames += len(counted.frames)
        self._note_change(path)
        self._frames_changed_in[path] = self.revision

    def _note_change(self, path: str) -> None:
        self.revision += 1
        self._changed_in.pop(path, None)
        self._changed_in[path] = self.revision

    def _drop_half(self) -> None:
        self.n_thinned += 1
        rng = self._generator(len(self._paths))
        self._n_frames = 0
        for path, counted in list(self._paths.items()):
            kept = counted.frames[rng.random(len(counted.frames)) < 0.5]
            self._put(path, CountedPath(counted.count, 2 * counted.thinning, kept, counted.number))

    def _generator(self, n_paths: int) -> np.random.Generator:
        """Of the thinning; a function of the seed and of what was seen, so that a resumed run thins alike."""
        return np.random.default_rng(None if self.seed is None else [self.seed, self.n_thinned, n_paths])

    def __contains__(self, path: object) -> bool:
        return path in self._paths

    def __len__(self) -> int:
        return self._n_frames

    @property
    def n_paths(self) -> int:
        """Distinct paths seen."""
        return len(self._paths)

    @property
    def descriptors(self) -> np.ndarray:
        """Array, shape (m, n_descriptors)."""
        return np.concatenate([np.empty((0, self.n_descriptors)), *(c.frames for c in self._paths.values())])

    @property
    def weights(self) -> np.ndarray:
        """Array, shape (m,): MC steps for which the path of each frame was the current one."""
        weights = [float(counted.count * counted.thinning) for counted in self._paths.values()]
        return np.repeat(weights, [len(counted.frames) for counted in self._paths.values()]).astype(np.float64)

    # ---- for the checkpoint -----------------------------------------------------------------------------------------

    def changes(self, since: int = 0) -> dict[str, tuple[int, int, np.ndarray | None]]:
        """Count, thinning and frames of the paths that were changed after a revision, in the order of their first count.

        `since` is the `revision` at an earlier moment; each file that is written remembers its own. The frames of a path
        are None if they have not changed since.
        """
        changed = list(takewhile(lambda path: self._changed_in[path] > since, reversed(self._changed_in)))
        changed.sort(key=lambda path: self._paths[path].number)
        return {
            path: (
                self._paths[path].count,
                self._paths[path].thinning,
                self._paths[path].frames if self._frames_changed_in[path] > since else None,
            )
            for path in changed
        }

    @classmethod
    def from_paths(
        cls, paths: Mapping[str, tuple], n_descriptors: int, n_thinned: int, seed: int | None = None
    ) -> TransitionPathFrames:
        """Rebuild from count, thinning and frames of every path."""
        frames = cls(n_descriptors, seed=seed)
        frames.n_thinned = n_thinned
        for path, (count, thinning, block) in paths.items():
            kept = np.reshape(block, (-1, n_descriptors)).copy()
            frames._put(path, CountedPath(count, thinning, kept, frames.n_paths))
        return frames

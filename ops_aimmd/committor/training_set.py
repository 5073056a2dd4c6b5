"""What the shots have shown: shooting results, and the growing set of them that the committor is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

BOLTZMANN = "boltzmann"
PATH = "path"
UNKNOWN = "unknown"
VELOCITY_ORIGINS = (BOLTZMANN, PATH, UNKNOWN)


@dataclass(frozen=True)
class LegFrames:
    """Frames of the legs of one shot: auxiliary data that never enter calibration or held-out loss.

    Leg after leg, each in the order of generation from the shooting point outwards, its end last. Nothing that happens
    later in a leg may decide which of its frames are here, but for the end: take every n-th, with n chosen before the shot.

    Attributes
    ----------
    descriptors : array, shape (m, d)
        Descriptors of frames of newly generated legs, the shooting point itself left out.
    outcomes : int array, shape (m,)
        Index of the state that the leg of each frame reached.
    is_end : bool array, shape (m,)
        True for the frame inside the state, whose committor is known.
    displacements : array, shape (m, d), optional
        Change of the descriptors since the frame of the dynamics just before, which stands for the velocities (a training
        set keeps it in single precision). NaN (the default) where unknown: such frames are not learned from, but for ends.
    """

    descriptors: np.ndarray
    outcomes: np.ndarray
    is_end: np.ndarray
    displacements: np.ndarray | None = None

    def __post_init__(self):
        n_frames = len(self.descriptors)
        if self.displacements is None:
            object.__setattr__(self, "displacements", np.full(np.shape(self.descriptors), np.nan))
        if (
            np.ndim(self.descriptors) != 2
            or len(self.outcomes) != n_frames
            or len(self.is_end) != n_frames
            or np.shape(self.displacements) != np.shape(self.descriptors)
        ):
            raise ValueError(
                "LegFrames needs descriptors (m, d), outcomes (m,), is_end (m,) and displacements (m, d) or None; got "
                f"shapes {np.shape(self.descriptors)}, {np.shape(self.outcomes)}, {np.shape(self.is_end)}, "
                f"{np.shape(self.displacements)}"
            )
        if n_frames and not self.is_end[-1] and np.isfinite(self.displacements).any():
            raise ValueError("in LegFrames the last frame of each leg is its end: is_end must be True for the last one")


@dataclass(frozen=True)
class ShootingResult:
    """The outcome of one shot.

    Attributes
    ----------
    descriptors : array, shape (d,)
        Descriptors of the shooting point.
    counts : array, shape (n_states,)
        Legs that reached each state; at least one.
    weight : float
        Statistical weight in training.
    step : int
        MC step, -1 where unknown.
    chain : int
        Replica or chain, 0 by default.
    velocity_origin : {"boltzmann", "path", "unknown"}
        Fresh Boltzmann velocities (unbiased trials of the committor), velocities of the old path (one-way shooting;
        biased under inertia), or unknown.
    predicted_committor : array, shape (n_states,), or None
        Prediction made before the shot was seen.
    leg_frames : LegFrames or None
        Auxiliary data.
    """

    descriptors: np.ndarray
    counts: np.ndarray
    weight: float = 1.0
    step: int = -1
    chain: int = 0
    velocity_origin: str = UNKNOWN
    predicted_committor: np.ndarray | None = None
    leg_frames: LegFrames | None = None


@dataclass(frozen=True)
class AuxiliaryFrames:
    """All leg frames of a training set in one block; ``shot`` (m,) is the row of the shot that they belong to."""

    descriptors: np.ndarray
    outcomes: np.ndarray
    is_end: np.ndarray
    displacements: np.ndarray
    shot: np.ndarray

    def __len__(self) -> int:
        return len(self.descriptors)


class _Column:
    """An array that grows at its end in amortised constant time."""

    def __init__(self, first: np.ndarray):
        self._data = np.array(first)
        self._size = len(self._data)

    def extend(self, rows: np.ndarray) -> None:
        needed = self._size + len(rows)
        if needed > len(self._data):
            grown = np.empty((max(needed, 2 * len(self._data), 16), *self._data.shape[1:]), self._data.dtype)
            grown[: self._size] = self._data[: self._size]
            self._data = grown
        self._data[self._size : needed] = rows
        self._size = needed

    @property
    def values(self) -> np.ndarray:
        view = self._data[: self._size]
        view.flags.writeable = False
        return view


class TrainingSet:
    """Shooting results as arrays, one row per shot.

    Parameters
    ----------
    descriptors : array-like, shape (n, d)
    counts : array-like, shape (n, n_states)
        Legs of each shot that reached each state; every row sums to at least one.
    weights : array-like, shape (n,), optional
        Statistical weights, 1 by default.
    steps, chains : int array-like, shape (n,), optional
        MC step (-1: unknown) and chain (0) of each shot.
    velocity_origin : sequence of str, shape (n,), optional
        "boltzmann", "path" or "unknown" (default).
    predicted_committor : array-like, shape (n, n_states), optional
        Predictions made before each shot; NaN where unknown (default).
    auxiliary : AuxiliaryFrames, optional
        Frames of the legs.

    Raises
    ------
    ValueError
        If shapes disagree, or if a value is NaN, infinite or negative where it cannot be; the message names the rows.
    """

    def __init__(
        self,
        descriptors,
        counts,
        weights=None,
        steps=None,
        chains=None,
        velocity_origin=None,
        predicted_committor=None,
        auxiliary=None,
    ):
        descriptors = np.asarray(descriptors, dtype=np.float64)
        counts = np.asarray(counts, dtype=np.float64)
        if descriptors.ndim != 2 or counts.ndim != 2 or len(descriptors) != len(counts):
            raise ValueError(
                "TrainingSet needs descriptors of shape (n, d) and counts of shape (n, n_states); got "
                f"{descriptors.shape} and {counts.shape}"
            )
        if counts.shape[1] < 2:
            raise ValueError(f"counts need one column per state, at least two; got shape {counts.shape}")
        n = len(descriptors)
        weights = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
        steps = np.full(n, -1) if steps is None else np.asarray(steps, dtype=np.int64)
        chains = np.zeros(n, np.int64) if chains is None else np.asarray(chains, dtype=np.int64)
        origin = [UNKNOWN] * n if velocity_origin is None else list(velocity_origin)
        if predicted_committor is None:
            predicted_committor = np.full(counts.shape, np.nan)
        predicted_committor = np.asarray(predicted_committor, dtype=np.float64)
        for name, column, shape in (
            ("weights", weights, (n,)),
            ("steps", steps, (n,)),
            ("chains", chains, (n,)),
            ("velocity_origin", np.asarray(origin), (n,)),
            ("predicted_committor", predicted_committor, counts.shape),
        ):
            if column.shape != shape:
                raise ValueError(f"{name} must have shape {shape} like the descriptors and counts; got {column.shape}")
        _check_rows(descriptors, counts, weights, origin)
        self._columns = {
            "descriptors": _Column(descriptors),
            "counts": _Column(counts),
            "weights": _Column(weights),
            "steps": _Column(steps),
            "chains": _Column(chains),
            "velocity_origin": _Column(np.array([VELOCITY_ORIGINS.index(o) for o in origin], dtype=np.int8)),
            "predicted_committor": _Column(predicted_committor),
            "auxiliary_descriptors": _Column(np.empty((0, descriptors.shape[1]))),
            "auxiliary_outcomes": _Column(np.empty(0, np.int64)),
            "auxiliary_is_end": _Column(np.empty(0, bool)),
            "auxiliary_displacements": _Column(np.empty((0, descriptors.shape[1]), np.float32)),
            "auxiliary_shot": _Column(np.empty(0, np.int64)),
        }
        if auxiliary is not None:
            self._add_leg_frames(auxiliary, auxiliary.shot)

    @classmethod
    def empty(cls, n_descriptors: int, n_states: int) -> TrainingSet:
        """A training set without shots."""
        return cls(np.empty((0, n_descriptors)), np.empty((0, n_states)))

    @staticmethod
    def from_storage(storage, descriptors, states: Sequence, progress: bool = True) -> TrainingSet:
        """A training set from an OPS file, whatever made it: every shooting move of it, accepted or not, is one row.

        One-way and two-way shooting in any ensemble, with the moves of this package or of OPS, and the shots of OPS's
        simulations that shoot from snapshots (`CommittorSimulation`, `ShootFromSnapshotsSimulation`,
        `SShootingSimulation`). All other moves are passed over, and so are reactive-flux simulations: their legs stop
        where they cross the dividing surface, and are no fair trials. All simulations in the file are read.

        Parameters
        ----------
        storage : openpathsampling.Storage, SimStore Storage, or path-like
            A path to a netCDF (.nc) or SimStore (.db) file is opened for reading and closed. One process can use files of
            one kind only.
        descriptors : CollectiveVariable, sequence of CollectiveVariable, or callable
            As for `CommittorLearner`; a function takes a trajectory and returns (n_frames, n_descriptors).
        states : sequence of openpathsampling.Volume
            Their order is the order of the counts. They need not be the objects that are in the file, but all states in
            which its paths end.
        progress : bool
            Show a progress bar.

        Returns
        -------
        TrainingSet
            ``steps`` are the numbers within each simulation, ``chains`` the replicas. ``predicted_committor`` is what the
            run had predicted, NaN where the file does not say. OPS files keep coordinates as float32, and so precise are
            the descriptors.

        Raises
        ------
        ValueError
            If there are no shots, no leg reached one of the states, or a leg stopped in a state that was not given.
        FileUnavailableError
            If the file cannot be opened now: a running simulation has it open, or the process lacks something.
        FileNotFoundError, ops_aimmd.storage.file_access.UnreadableFileError
            If there is no file, or it is damaged or something else.
        RuntimeError
            If this process has used an OPS file of the other kind.

        Warns
        -----
        UserWarning
            If steps could not be read and were passed over, as in the file of a run that was killed.
        """
        from ops_aimmd.storage.existing_files import training_set_from_storage

        return training_set_from_storage(storage, descriptors, states, progress)

    def append(self, result: ShootingResult) -> None:
        """Add one shooting result and its leg frames.

        Raises
        ------
        ValueError
            If the result does not fit; the training set is then unchanged.
        """
        descriptors = np.asarray(result.descriptors, dtype=np.float64)
        counts = np.asarray(result.counts, dtype=np.float64)
        if descriptors.shape != (self.n_descriptors,) or counts.shape != (self.n_states,):
            raise ValueError(
                f"this training set takes {self.n_descriptors} descriptors and {self.n_states} states; the shooting "
                f"result has descriptors of shape {descriptors.shape} and counts of shape {counts.shape}"
            )
        _check_rows(descriptors[None], counts[None], np.array([result.weight]), [result.velocity_origin])
        predicted = result.predicted_committor
        predicted = np.full(self.n_states, np.nan) if predicted is None else np.asarray(predicted, np.float64)
        if predicted.shape != (self.n_states,):
            raise ValueError(f"predicted_committor must have shape ({self.n_states},); got {predicted.shape}")
        frames = result.leg_frames
        if frames is not None and len(frames.descriptors):
            self._add_leg_frames(frames, np.full(len(frames.descriptors), len(self)))
        for name, value in (
            ("counts", counts),
            ("weights", result.weight),
            ("steps", result.step),
            ("chains", result.chain),
            ("velocity_origin", VELOCITY_ORIGINS.index(result.velocity_origin)),
            ("predicted_committor", predicted),
            ("descriptors", descriptors),
        ):
            self._columns[name].extend(np.asarray(value)[None])

    def _add_leg_frames(self, frames: LegFrames | AuxiliaryFrames, shot: np.ndarray) -> None:
        if frames.descriptors.shape[1] != self.n_descriptors:
            raise ValueError(
                f"leg frames must have {self.n_descriptors} descriptors like the shots; got {frames.descriptors.shape[1]}"
            )
        bad = np.flatnonzero(~np.isfinite(frames.descriptors).all(axis=1))
        if len(bad):
            raise ValueError(f"descriptors of leg frames must be finite; NaN or infinite in frames {bad[:10].tolist()}")
        if np.any((frames.outcomes < 0) | (frames.outcomes >= self.n_states)):
            raise ValueError(f"outcomes of leg frames must be state indices 0..{self.n_states - 1}")
        for name in ("descriptors", "outcomes", "is_end", "displacements"):
            self._columns["auxiliary_" + name].extend(getattr(frames, name))
        self._columns["auxiliary_shot"].extend(shot)

    def __len__(self) -> int:
        return self._columns["descriptors"]._size

    def __iter__(self) -> Iterator[ShootingResult]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, row: int) -> ShootingResult:
        row = range(len(self))[row]
        auxiliary = self.auxiliary
        mine = slice(*np.searchsorted(auxiliary.shot, [row, row + 1]))
        frames = LegFrames(
            auxiliary.descriptors[mine], auxiliary.outcomes[mine], auxiliary.is_end[mine], auxiliary.displacements[mine]
        )
        return ShootingResult(
            descriptors=self.descriptors[row],
            counts=self.counts[row],
            weight=float(self.weights[row]),
            step=int(self.steps[row]),
            chain=int(self.chains[row]),
            velocity_origin=str(self.velocity_origin[row]),
            predicted_committor=self.predicted_committor[row],
            leg_frames=frames if len(frames.outcomes) else None,
        )

    def __repr__(self) -> str:
        return (
            f"TrainingSet({len(self)} shots, {self.n_descriptors} descriptors, {self.n_states} states, "
            f"{len(self.auxiliary)} auxiliary frames)"
        )

    @property
    def n_descriptors(self) -> int:
        return self._columns["descriptors"].values.shape[1]

    @property
    def n_states(self) -> int:
        return self._columns["counts"].values.shape[1]

    @property
    def descriptors(self) -> np.ndarray:
        """float64 array, shape (n, d); read-only."""
        return self._columns["descriptors"].values

    def all_descriptors(self) -> np.ndarray:
        """Descriptors of the shots, then of the frames of legs, shape (n + m, d)."""
        return np.concatenate([self.descriptors, self.auxiliary.descriptors])

    @property
    def counts(self) -> np.ndarray:
        """float64 array, shape (n, n_states): legs that reached each state; read-only."""
        return self._columns["counts"].values

    @property
    def weights(self) -> np.ndarray:
        """float64 array, shape (n,); read-only."""
        return self._columns["weights"].values

    @property
    def steps(self) -> np.ndarray:
        """int array, shape (n,): MC step, -1 where unknown; read-only."""
        return self._columns["steps"].values

    @property
    def chains(self) -> np.ndarray:
        """int array, shape (n,); read-only."""
        return self._columns["chains"].values

    @property
    def velocity_origin(self) -> np.ndarray:
        """str array, shape (n,): "boltzmann", "path" or "unknown"."""
        return np.array(VELOCITY_ORIGINS)[self._columns["velocity_origin"].values]

    @property
    def predicted_committor(self) -> np.ndarray:
        """float64 array, shape (n, n_states): predicted before each shot, NaN where unknown; read-only."""
        return self._columns["predicted_committor"].values

    @property
    def auxiliary(self) -> AuxiliaryFrames:
        """Frames of the legs with the outcome of their leg; no shots, and never counted as such."""
        names = ("descriptors", "outcomes", "is_end", "displacements", "shot")
        return AuxiliaryFrames(**{name: self._columns["auxiliary_" + name].values for name in names})


def _check_rows(descriptors, counts, weights, origin) -> None:
    bad = np.flatnonzero(~np.isfinite(descriptors).all(axis=1))
    if len(bad):
        raise ValueError(
            f"descriptors must be finite; NaN or infinite in rows {bad[:10].tolist()}: look for a descriptor that is "
            "undefined there (a division by zero, an angle of collinear atoms)"
        )
    bad = np.flatnonzero(~(np.isfinite(counts) & (counts >= 0)).all(axis=1) | ~(counts.sum(axis=1) > 0))
    if len(bad):
        raise ValueError(
            "counts must be non-negative with at least one leg that reached a state per shot; "
            f"rows {bad[:10].tolist()} are not"
        )
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(bad):
        raise ValueError(f"weights must be finite and non-negative; rows {bad[:10].tolist()} are not")
    unknown = sorted(set(origin) - set(VELOCITY_ORIGINS))
    if unknown:
        raise ValueError(f"velocity_origin must be one of {VELOCITY_ORIGINS}; got {unknown}")

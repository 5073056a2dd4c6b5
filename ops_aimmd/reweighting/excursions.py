"""Excursions: stretches of trajectories between leaving a state and entering one, with how each of them was sampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np

SHOT = "shot"
EXCHANGE = "exchange"
FREE = "free"
KINDS = (SHOT, EXCHANGE, FREE)
"""Kinds of excursions that can be weighted. Others (one-way shots, interface ensembles) are left out and counted."""

NORMALISED = 1e-3
"""Deviation from 1 that the sum of the committors of a frame may have: single precision, and a margin."""


@dataclass(frozen=True)
class Excursions:
    r"""Excursions from shots and free runs: n excursions with m stored frames in all, between n_states states.

    The frames of an excursion are its *interior* frames: those outside all states. Store all of them, or every k-th; of an
    excursion shorter than k, the frame in its middle. Each stored frame stands for (length / stored frames) frames.

    Attributes
    ----------
    kind : str array, shape (n,)
        "shot": accepted or rejected two-way shot with fresh Boltzmann velocities, from a frame of the current path of an
        equilibrated chain. "exchange": the same from a configuration that is kept beside the path (an exchange shot),
        without those right after a new model version or after the configuration was reset. "free": excursion of a free run.
        Anything else is left out and counted.
    chain : int array, shape (n,)
        Chain of a shot. Number of a free run.
    step : int array, shape (n,)
        Order in time within the chain or free run.
    ends : int array, shape (n, 2)
        State at each end, in either direction of time; -1 for a leg that was stopped outside the states.
    length : int array, shape (n,)
        Number of interior frames: frames of the path minus 2.
    offsets : int array, shape (n + 1,)
        The stored frames of excursion i are ``offsets[i]`` to ``offsets[i + 1]``.
    log_committor : array, shape (m, n_states)
        ln of the committor of each stored frame, from a model that was not trained on this stretch of the chain.
    point_log_committor : array, shape (n, n_states)
        The same at the shooting point, from the same model as the frames. NaN for free runs.
    log_selection_probability : array, shape (n,)
        "shot": ln of the probability with which the shooting point was picked from the current path,
        `selection_probability_old`. Not used for the other kinds: with "exchange" it belongs to another frame.
    limit : array, shape (n,)
        Largest length that the path ensemble allows (`max_length` - 2); inf without a limit and for free runs.
    internal_frames : array, shape (n,)
        "free": frames in the state between its entry and the beginning of the excursion. 0 for shots.
    exchange_log_weights : mapping of int to array, shape (m,)
        For each model version that exchange shots were made with, ln v of all m frames with that version: the weight with
        which a frame is picked for an exchange.
    version : int array, shape (n,), optional
        "exchange": model version of the shot. 0 by default.
    failed : bool array, shape (n,), optional
        Shots that broke off (NaN). They are left out and counted.
    features, point_features : array, shape (m, d) and (n, d), optional
        Functions of the stored frames, and of the shooting points, on which the probability of a transition path may depend
        beside the committor: 1 in a channel and 0 elsewhere, or descriptors of the order of 1. They are used where the
        shots ask for them.
    channel : int array, shape (n,), optional
        Reaction channel of a transition; -1 where unknown, and for excursions that are no transition.

    Raises
    ------
    ValueError
        If shapes or values do not fit. It names the array, what came and what was expected.
    """

    kind: np.ndarray
    chain: np.ndarray
    step: np.ndarray
    ends: np.ndarray
    length: np.ndarray
    offsets: np.ndarray
    log_committor: np.ndarray
    point_log_committor: np.ndarray
    log_selection_probability: np.ndarray
    limit: np.ndarray
    internal_frames: np.ndarray
    exchange_log_weights: Mapping[int, np.ndarray] = field(default_factory=dict)
    version: np.ndarray = None  # type: ignore[assignment]
    failed: np.ndarray = None  # type: ignore[assignment]
    features: np.ndarray = None  # type: ignore[assignment]
    point_features: np.ndarray = None  # type: ignore[assignment]
    channel: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        n = len(self.kind)
        defaults = {"version": np.zeros(n, int), "failed": np.zeros(n, bool), "channel": np.full(n, -1)}
        defaults |= {"features": np.zeros((len(self.log_committor), 0)), "point_features": np.zeros((n, 0))}
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for each in fields(self):
            if each.name != "exchange_log_weights":
                object.__setattr__(self, each.name, np.asarray(getattr(self, each.name)))
        if self.log_committor.ndim != 2:
            raise ValueError(f"log_committor has shape {self.log_committor.shape}; expected (stored frames, states)")
        m, n_states = self.log_committor.shape
        shapes: dict[str, tuple] = {each.name: (n,) for each in fields(self) if each.name != "exchange_log_weights"}
        shapes |= {"ends": (n, 2), "offsets": (n + 1,), "log_committor": (m, n_states)}
        d = self.features.shape[-1]  # type: ignore[union-attr]
        shapes |= {"point_log_committor": (n, n_states), "features": (m, d), "point_features": (n, d)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}; expected {shape} for {n} excursions")
        for version, log_weights in self.exchange_log_weights.items():
            if np.shape(log_weights) != (m,):
                raise ValueError(
                    f"ln v of version {version} has shape {np.shape(log_weights)}; expected {(m,)}: one per frame"
                )
            bad = np.flatnonzero(np.isnan(log_weights) | (np.asarray(log_weights) == np.inf))
            if len(bad):
                raise ValueError(f"ln v of version {version} is NaN or inf in {len(bad)} frames, first {bad[:5].tolist()}")
        self._check_values(m, n_states)

    def _check_values(self, m: int, n_states: int) -> None:
        stored = self.stored
        if self.offsets[0] != 0 or self.offsets[-1] != m or (stored < 0).any():
            raise ValueError(
                f"offsets run from {self.offsets[0]} to {self.offsets[-1]}; expected 0 to {m}, never decreasing"
            )
        _refuse(self.ends.min(axis=1) < -1, "ends", f"-1 to {n_states - 1}")
        _refuse(self.ends.max(axis=1) >= n_states, "ends", f"-1 to {n_states - 1}: log_committor has {n_states} columns")
        _refuse(stored > np.maximum(self.length, 0), "offsets", "no more stored frames than the length")
        _refuse((stored == 0) & (self.length > 0), "offsets", "at least one stored frame of every excursion with frames")
        _refuse(np.isnan(self.limit) | (self.limit < 1), "limit", "numbers of frames, at least 1; inf for none")
        with np.errstate(invalid="ignore"):
            sums = np.exp(self.log_committor).sum(axis=1)
            wrong = np.add.reduceat(np.append(~(np.abs(sums - 1) < NORMALISED), False), self.offsets[:-1]) > 0
        _refuse(wrong & (stored > 0), "log_committor", "ln of probabilities that sum to 1 in every frame")
        for name in (SHOT, EXCHANGE):
            points = np.exp(self.point_log_committor).sum(axis=1)
            rows = (self.kind == name) & ~self.failed
            _refuse(rows & ~(np.abs(points - 1) < NORMALISED), "point_log_committor", "ln of probabilities that sum to 1")
        rows = (self.kind == SHOT) & ~self.failed
        bad = ~np.isfinite(self.log_selection_probability) | (self.log_selection_probability > 1e-9)
        _refuse(rows & bad, "log_selection_probability", "ln of a probability for every shot")
        _refuse((self.kind == FREE) & (self.ends.min(axis=1) < 0), "ends", "free runs cut to end at an entry into a state")
        missing = {*np.unique(self.version[self.kind == EXCHANGE]).tolist()} - {*self.exchange_log_weights}
        if missing:
            raise ValueError(
                f"exchange_log_weights lacks the model versions {sorted(missing)} of exchange shots; add their ln v"
            )

    @property
    def n_states(self) -> int:
        return self.log_committor.shape[1]

    @property
    def stored(self) -> np.ndarray:
        """Stored frames of each excursion, int array (n,)."""
        return np.diff(self.offsets)

    @property
    def frame_weights(self) -> np.ndarray:
        """Number of frames that each stored frame stands for, shape (m,)."""
        return np.repeat(self.length / np.maximum(self.stored, 1), self.stored)

    @property
    def owner(self) -> np.ndarray:
        """Excursion of each stored frame, int array (m,)."""
        return np.repeat(np.arange(len(self.kind)), self.stored)

    def is_transition(self) -> np.ndarray:
        """Whether each excursion joins two different states, bool array (n,)."""
        return (self.ends.min(axis=1) >= 0) & (self.ends[:, 0] != self.ends[:, 1])

    def chosen(self, rows) -> Excursions:
        """Some of the excursions: bool array (n,)."""
        frames = np.repeat(rows, self.stored)
        new = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name not in _OF_FRAMES}
        new["exchange_log_weights"] = {k: np.asarray(v)[frames] for k, v in self.exchange_log_weights.items()}
        offsets = np.cumsum(np.append(0, self.stored[rows]))
        return replace(
            self, **new, offsets=offsets, log_committor=self.log_committor[frames], features=self.features[frames]
        )


_OF_FRAMES = ("offsets", "log_committor", "exchange_log_weights", "features")


def _refuse(wrong: np.ndarray, name: str, expected: str) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        raise ValueError(
            f"{name} of {len(rows)} of {len(wrong)} excursions is wrong, first of number {rows[0]}; expected {expected}"
        )

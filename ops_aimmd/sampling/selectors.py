"""The shooting point selector that queries the learner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from openpathsampling.shooting import ShootingPointSelector
from scipy.special import logsumexp

from ops_aimmd.bounded_memory import BoundedMemory
from ops_aimmd.committor.model_version import ModelVersion
from ops_aimmd.committor.selection import log_weight_function, selection_log_weights
from ops_aimmd.sampling.learner import CommittorLearner, check_learner
from ops_aimmd.sampling.path_frames import PATHS_REMEMBERED, PathFrames, PathWeights


@dataclass(frozen=True)
class Pick:
    """A shooting point, and what it was picked with; a move carries it from the selection to the acceptance.

    Attributes
    ----------
    index : int
        Frame of the path.
    weights : PathWeights or None
        Weights of all frames of the path; None for selectors of OPS.
    """

    index: int
    weights: PathWeights | None = None

    @property
    def version(self) -> ModelVersion:
        """The model version that picked, and with which the acceptance weighs both paths."""
        return self.weights.version


class LastPicks(BoundedMemory):
    """The last pick from each path, for the moves of OPS, which carry nothing from `pick` to `probability_ratio`."""

    def __init__(self):
        super().__init__(PATHS_REMEMBERED)

    def keep(self, trajectory, pick: Pick) -> Pick:
        """Keep a pick, and give it back."""
        self[trajectory.__uuid__] = pick
        return pick

    def version(self, trajectory) -> ModelVersion | None:
        """The version that last picked from a path, whatever was published since; None if none did."""
        return self[trajectory.__uuid__].version if trajectory.__uuid__ in self else None


class CommittorSelector(ShootingPointSelector):
    r"""Picks shooting points with a probability that depends on the learned committor.

    A frame x of a path is picked with probability :math:`P(x) = w(x) / \sum_k w(x_k)` over the interior frames, where
    w is a weight of the log-odds divided by the density of transition-path frames along the committor (see
    `ops_aimmd.committor.selection`). The same immutable model version weighs the old and the new path of a step.

    It is an ordinary OPS selector, for the movers and strategies of this package and of OPS.

    Parameters
    ----------
    learner : CommittorLearner
    weight : {"lorentzian", "gaussian", "p(1-p)", "uniform"} or callable, optional
        Weight as a function of the log-odds; a callable takes log-odds (n,) and returns positive weights (n,).
    scale : float, optional
        Width of the weight in units of log-odds.
    density_adaptation : bool, optional
        Divide by the density of transition-path frames, so that shooting points spread evenly along the committor.
    pairs : sequence of (int, int), optional
        Pairs of states between which transitions count; all by default.

    References
    ----------
    Jung et al., Nat. Comput. Sci. 3, 334 (2023), doi:10.1038/s43588-023-00428-z.
    """

    def __init__(
        self,
        learner: CommittorLearner,
        weight: str | Callable = "lorentzian",
        scale: float = 1.0,
        density_adaptation: bool = True,
        pairs: Sequence[Sequence[int]] | None = None,
    ):
        super().__init__()
        check_learner(learner, "CommittorSelector(learner)")
        self.learner = learner
        self.weight = weight
        self.scale = scale
        self.density_adaptation = density_adaptation
        self.pairs = pairs
        self._log_weight = log_weight_function(weight, scale)
        for pair in pairs or ():
            if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= state < learner.n_states for state in pair):
                raise ValueError(
                    f"pairs must hold pairs of different state indices 0..{learner.n_states - 1}; got {list(pairs)}"
                )
        self._last_picks = LastPicks()

    def path_weights(self, trajectory, version: ModelVersion | None = None) -> PathWeights:
        """Weights of all frames of a path under a model version, by default that of the step; computed once for both.

        Raises
        ------
        ValueError
            If a descriptor or a weight is not a number; the message names the frames.
        """
        frames = self.learner.path_frames(trajectory)
        version = self.learner.learned_for_step.version if version is None else version
        known = frames.weights.get(self._log_weight)  # each selector has a function of its own
        if known is None or known.version is not version:
            known = frames.weights[self._log_weight] = self._weigh(version, frames)
        return known

    def _weigh(self, version: ModelVersion, frames: PathFrames) -> PathWeights:
        log_committor = np.full((len(frames.selectable), self.learner.n_states), np.nan)
        log_weights = np.full(len(frames.selectable), -np.inf)
        if not frames.selectable.any():
            return PathWeights(version, log_weights, -np.inf, log_committor)
        log_committor[frames.selectable] = version.model.log_committor(frames.descriptors[frames.selectable])
        log_weights[frames.selectable] = selection_log_weights(
            log_committor[frames.selectable],
            self._log_weight,
            version.density if self.density_adaptation else None,
            self.pairs if self.pairs is None else [tuple(pair) for pair in self.pairs],
        )
        bad = np.flatnonzero(np.isnan(log_weights) | (log_weights == np.inf))
        if len(bad):
            raise ValueError(
                f"model version {version.number} gives no valid selection weight for frames {bad[:10].tolist()}: the "
                "model has diverged; load an earlier version or start from a new model"
            )
        return PathWeights(version, log_weights, float(logsumexp(log_weights)), log_committor)

    # ---- for the movers of this package -----------------------------------------------------------------------------

    def choose(self, trajectory) -> Pick:
        """Choose a shooting point, with OPS's random number generator.

        Raises
        ------
        ValueError
            If all frames are end frames or lie inside states.
        """
        weights = self.path_weights(trajectory)
        if not self.learner.frozen:
            self.learner.simulations.expect_result(self.learner.version.number)
        if weights.log_sum == -np.inf:
            raise ValueError(
                f"a path of {len(trajectory)} frames has no frame outside of the states, so there is nothing to shoot "
                "from: store frames more often (a smaller n_steps_per_frame), or make the states smaller"
            )
        cumulative = np.cumsum(np.exp(weights.log_weights - weights.log_sum))
        selectable = np.flatnonzero(np.isfinite(weights.log_weights))
        index = np.searchsorted(cumulative, self._rng.random() * cumulative[-1], side="right")
        return Pick(int(min(index, selectable[-1])), weights)

    def ratio(self, pick: Pick, new_trajectory, new_index: int) -> float:
        """Probability of picking a frame from a new path over that of the pick, both under the version of the pick."""
        old = pick.weights.log_probability(pick.index)
        new = self.path_weights(new_trajectory, pick.version).log_probability(new_index)
        if old == -np.inf:
            raise ValueError(
                "the shooting point has no chance of being picked from the old path: it is an end frame or lies inside "
                "a state; this selector must also pick the shooting point, not only weigh it"
            )
        return float(np.exp(new - old))

    # ---- interface of OPS selectors ---------------------------------------------------------------------------------

    def pick(self, trajectory) -> int:
        """Index of a frame; see `choose`."""
        return self._last_picks.keep(trajectory, self.choose(trajectory)).index

    def f(self, snapshot, trajectory) -> float:
        """Weight of a frame of the trajectory, not normalised."""
        return float(np.exp(self.path_weights(trajectory).log_weights[_index(snapshot, trajectory)]))

    def probability(self, snapshot, trajectory) -> float:
        """Probability that the frame is picked from the trajectory."""
        return float(np.exp(self.path_weights(trajectory).log_probability(_index(snapshot, trajectory))))

    def probability_ratio(self, snapshot, old_trajectory, new_trajectory, new_snapshot=None) -> float:
        """Ratio of the probabilities of picking the shooting point from the new and from the old path.

        Parameters
        ----------
        snapshot : Snapshot
            Shooting point, a frame of the old path.
        old_trajectory, new_trajectory : Trajectory
        new_snapshot : Snapshot, optional
            The same configuration as a frame of the new path; by default `snapshot` itself.

        Returns
        -------
        float
            0 where the new path offers it as an end frame only, as the cut trials of OPS's two-way moves do.
        """
        new_snapshot = snapshot if new_snapshot is None else new_snapshot
        try:
            weights = self.path_weights(old_trajectory, self._last_picks.version(old_trajectory))
            pick = Pick(_index(snapshot, old_trajectory), weights)
            return self.ratio(pick, new_trajectory, _index(new_snapshot, new_trajectory))
        except TypeError as error:  # OPS takes a TypeError for an old signature and repeats the call without new_snapshot
            raise RuntimeError(f"the selection weights could not be evaluated: {error}") from error

    def sum_bias(self, trajectory) -> float:
        """Sum of the weights of all frames."""
        return float(np.exp(self.path_weights(trajectory).log_sum))

    def use_weight(self, weight: str | Callable) -> None:
        """Replace the weight, as where one that was a function has come back from a file by its name only."""
        self._log_weight = log_weight_function(weight, self.scale)
        self.weight = weight

    # ---- OPS storage ------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict:
        """Set-up; a weight function is stored by its name only."""
        named = self.weight if isinstance(self.weight, str) else f"function {getattr(self.weight, '__name__', '?')}"
        return {
            "learner": self.learner,
            "weight": named,
            "scale": float(self.scale),
            "density_adaptation": bool(self.density_adaptation),
            "pairs": None if self.pairs is None else [[int(i), int(j)] for i, j in self.pairs],
        }

    @classmethod
    def from_dict(cls, dct: dict) -> CommittorSelector:
        weight = dct["weight"]
        if weight.startswith("function "):
            selector = cls(**{**dct, "weight": "lorentzian"})
            selector.weight = weight
            selector._log_weight = _must_be_given_again(weight)
            return selector
        return cls(**dct)


def _must_be_given_again(weight: str) -> Callable:
    def raise_error(log_odds):
        raise RuntimeError(
            f"this selector was stored with the weight {weight!r}, but OPS keeps only its name: make the selector "
            "again with CommittorSelector(learner, weight=...)"
        )

    return raise_error


def _index(snapshot, trajectory) -> int:
    for frame in (snapshot, snapshot.reversed):  # a path that was reversed holds it with reversed velocities
        try:
            return trajectory.index(frame)
        except ValueError:
            pass
    raise ValueError(
        "the snapshot is no frame of the trajectory that it should be weighed in; pass new_snapshot, the shooting point "
        "as it stands in the new path"
    )

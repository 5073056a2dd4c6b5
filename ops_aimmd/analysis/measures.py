r"""What path sampling and committor of a run look like, in numbers with their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import xlogy

from ops_aimmd.committor.calibration import Calibration, calibration
from ops_aimmd.committor.clusters import crossing_points
from ops_aimmd.committor.correlated_shots import blocks
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.training_set import PATH, TrainingSet

from .autocorrelation import integrated_autocorrelation
from .channels import find_channels
from .expected_paths import expected_paths
from .run_data import RunData

PATH_LENGTH = "ln(path length)"

BLOCKS = 20
"""Blocks of shots for the errors of the calibration: as long as they can be, as hidden coordinates are slow. Errors of 20
blocks are 5 % larger than those of single shots where shots are independent."""

NEAR_STATE = 0.95
"""Committor of a state from which on a frame is taken for part of the state's basin."""


@dataclass(frozen=True)
class Mixing:
    """Autocorrelation of an observable of the current path, over all chains.

    Attributes
    ----------
    tau, tau_error : float
        Integrated autocorrelation time in MC steps and standard error; NaN where the observable never changed.
    n_effective, n_effective_error : float
        Number of independent paths of all chains together; 1 for a chain that never moved.
    """

    tau: float
    tau_error: float
    n_effective: float
    n_effective_error: float


@dataclass(frozen=True)
class Mean:
    """A mean and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return with_error(self.value, self.error)


@dataclass(frozen=True)
class Efficiency:
    """Transition paths among shots: those generated, and those expected before each shot.

    Attributes
    ----------
    n_shots, generated : int
    expected, error : float
        From the model, times the excess among earlier shots (:func:`.expected_paths.expected_paths`), and the standard
        deviation of independent shots.
    of_independent_legs : float
        From the model alone, 2 p (1 - p) of two states.
    """

    n_shots: int
    generated: int
    expected: float
    error: float
    of_independent_legs: float

    @property
    def deviation(self) -> float:
        """Generated minus expected, in standard errors of independent shots."""
        return (self.generated - self.expected) / self.error if self.error > 0 else np.nan


@dataclass(frozen=True)
class Adaptation:
    """How far the model still changed: shots with a frozen model (fraction), versions used, shots since the newest."""

    frozen_fraction: float
    n_versions: int
    shots_since_last: int


@dataclass(frozen=True)
class StateEvidence:
    """What speaks for or against the definition of one state; NaN where it is not known.

    Attributes
    ----------
    name : str
    dwell : float
        Frames of the current paths in its basin (its committor above `NEAR_STATE`) and outside of it, for each frame
        between the basins.
    boundary : float
        Median of its committor in the last frame of a path before the state.
    inside : float
        Median of its committor in the end frames of legs, inside the state.
    """

    name: str
    dwell: float
    boundary: float
    inside: float


def measure(run: RunData) -> dict:
    """All numbers of a run, by the names that they have in `ops_aimmd.analysis.health.Health`.

    Parameters
    ----------
    run : RunData
        With at least one shot.
    """
    points, path_of_row, scale = _crossings(run)
    mixing = _mixing(run, points, path_of_row)
    times = (run.table["path_length"] - 1) * run.time_per_frame
    half = len(times) // 2
    on_the_fly, trained = _calibrations(run)
    made, reached = _legs(run.table), run.table["reached"].sum()
    return {
        "run": run,
        "mixing": mixing,
        "transition_time": mean_of(times, mixing[PATH_LENGTH].n_effective),
        "first_half": mean_of(times[:half], independent_paths(run.table.iloc[:half])),
        "second_half": mean_of(times[half:], independent_paths(run.table.iloc[half:])),
        "efficiency": efficiency(run.table, np.arange(len(times))),
        "recent_efficiency": efficiency(run.table, np.arange(half, len(times))),
        "acceptance": float(run.table["accepted"].astype(float).mean()),
        "adaptation": adaptation(run.table),
        "n_legs": int(made),
        "n_lost_legs": int(made - reached),
        "on_the_fly": on_the_fly,
        "trained": trained,
        "channels": None if points is None else find_channels(points, path_of_row, run.chains, scale),
        "states": _state_evidence(run),
    }


# ---- path sampling ---------------------------------------------------------------------------------------------------


def mixing_of(series, chains) -> Mixing:
    """Autocorrelation of an observable, averaged over chains.

    Parameters
    ----------
    series : array-like, shape (n_rows,)
        Of the current path after each row; rows that are not finite are left out.
    chains : array-like, shape (n_rows,)
    """
    series, chains = np.asarray(series, dtype=float), np.asarray(chains)
    found = []
    n_effective, variance = 0.0, 0.0
    for chain in np.unique(chains):
        mine = series[(chains == chain) & np.isfinite(series)]
        if len(mine) < 10 or np.ptp(mine) == 0:
            n_effective += min(len(mine), 1)
            continue
        result = integrated_autocorrelation(mine)
        found.append(result)
        n_effective += result.n_effective
        variance += (result.n_effective * result.tau_error / result.tau) ** 2
    if not found:
        return Mixing(np.nan, np.nan, n_effective, np.nan)
    tau = float(np.mean([result.tau for result in found]))
    error = float(np.sqrt(np.sum([result.tau_error**2 for result in found]))) / len(found)
    return Mixing(tau, error, float(n_effective), float(np.sqrt(variance)))


def _mixing(run: RunData, points, path_of_row) -> dict[str, Mixing]:
    found = {PATH_LENGTH: _length_mixing(run.table)}
    if points is not None and len(points) > 1:
        first = (points - points.mean(axis=0)) / np.maximum(points.std(axis=0), 1e-300)
        _, _, axes = np.linalg.svd(first, full_matrices=False)
        position = np.where(path_of_row >= 0, (first @ axes[0])[path_of_row], np.nan)
        found["place of crossing (first principal component)"] = mixing_of(position, run.chains)
    return found


def _length_mixing(table: pd.DataFrame) -> Mixing:
    return mixing_of(np.log(table["path_length"].astype(float)), table["replica"])


def independent_paths(table: pd.DataFrame) -> float:
    """Independent paths in a part of the run, by its own autocorrelation: a drift is none within the halves."""
    return _length_mixing(table).n_effective


def mean_of(values, n_effective: float) -> Mean:
    """Mean over the MC steps, with the standard error of so many independent values."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return Mean(np.nan, np.nan)
    # one independent value says nothing of its own error
    error = values.std() / np.sqrt(n_effective - 1) if n_effective > 1 and values.std() > 0 else np.nan
    return Mean(float(values.mean()), float(error))


def efficiency(table: pd.DataFrame, rows) -> Efficiency | None:
    """Generated against expected transition paths; None where nothing was predicted.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns step, generated and expected, one row per shot.
    rows : int array
        Shots that are counted; the others are earlier or later ones.
    """
    table = table.assign(with_excess=expected_paths(table)).iloc[rows]
    table = table[np.isfinite(table["expected"].astype(float)) & table["generated"].notna()]
    if len(table) == 0:
        return None
    expected = table["with_excess"]
    return Efficiency(
        n_shots=len(table),
        generated=int(table["generated"].astype(float).sum()),
        expected=float(expected.sum()),
        error=float(np.sqrt((expected * (1 - expected)).sum())),
        of_independent_legs=float(table["expected"].astype(float).sum()),
    )


def adaptation(table: pd.DataFrame) -> Adaptation:
    """How far the model still changed while the rows of a step table were made."""
    versions = table["model_version"].dropna()
    newest = versions.max() if len(versions) else np.nan
    frozen = table["frozen"].astype(float).mean()
    return Adaptation(float(frozen), int(versions.nunique()), int((table["model_version"] == newest).sum()))


def _legs(table: pd.DataFrame) -> float:
    """New legs; a table that does not tell has two per shot where any shot has two."""
    if "legs" in table and table["legs"].notna().any():
        return table["legs"].fillna(table["reached"]).sum()
    return len(table) * table["reached"].max()


# ---- committor -------------------------------------------------------------------------------------------------------


def _calibrations(run: RunData) -> tuple[dict[str, Calibration], dict[str, Calibration]]:
    training_set = run.training_set
    if training_set is None or len(training_set) == 0:
        return {}, {}
    fair = fair_shots(training_set)
    of_run = np.flatnonzero(fair & np.isfinite(training_set.predicted_committor).all(axis=1) & (training_set.steps >= 0))
    recent = of_run[len(of_run) // 2 :]
    before, counts = training_set.predicted_committor, training_set.counts
    on_the_fly = by_state(before[recent], counts[recent], run.states, _blocks_of(training_set, recent))
    if run.model is None:
        return on_the_fly, {}
    unseen = np.full(before.shape, np.nan)
    unseen[recent] = before[recent]
    of_fair = np.flatnonzero(fair)
    predicted = probabilities(run.model, training_set.descriptors[fair])
    return on_the_fly, by_state(predicted, counts[fair], run.states, _blocks_of(training_set, of_fair), unseen[fair])


def _blocks_of(training_set: TrainingSet, rows: np.ndarray) -> np.ndarray:
    length = -(-len(rows) // BLOCKS)
    return blocks(training_set.chains[rows], training_set.steps[rows], max(length, 1))


def fair_shots(training_set: TrainingSet) -> np.ndarray:
    """Shots with fresh velocities, bool (n,); all, where every shot kept the velocities of its path."""
    fair = training_set.velocity_origin != PATH
    return fair if fair.any() else ~fair


def probabilities(model: CommittorModel, descriptors) -> np.ndarray:
    """Committor of every state, (n, n_states)."""
    return np.exp(model.log_committor(descriptors))


def by_state(predicted, counts, states: Sequence[str], clusters=None, unseen=None) -> dict[str, Calibration]:
    """Calibration of each state against all others; of two states, which say the same, of the last.

    Parameters
    ----------
    predicted, counts : array, shape (n, n_states)
    states : sequence of str
    clusters : array, shape (n,), optional
        Rows that may be correlated have the same value.
    unseen : array, shape (n, n_states), optional
        Predictions before each shot, NaN where there were none.
    """
    found = {}
    if len(predicted) == 0:
        return found
    for index in range(len(states)) if len(states) > 2 else [len(states) - 1]:
        reached = np.stack([counts.sum(axis=1) - counts[:, index], counts[:, index]], axis=1)
        found[states[index]] = calibration(
            np.clip(predicted[:, index], 0, 1),
            reached,
            clusters=clusters,
            unseen=None if unseen is None else np.clip(unseen[:, index], 0, 1),
        )
    return found


def constant_loss(table: pd.DataFrame) -> float:
    """Loss per leg of the best constant, from a reliability table: the entropy of the outcomes."""
    legs = table["legs"].to_numpy()
    reached = np.nansum(table["observed"].to_numpy() * legs) / legs.sum()
    return float(-xlogy(reached, reached) - xlogy(1 - reached, 1 - reached))


# ---- channels and states ---------------------------------------------------------------------------------------------


def _crossings(run: RunData) -> tuple[np.ndarray | None, np.ndarray, np.ndarray | None]:
    """Last crossing of each path with frames, the path after each row among these, and scales of the descriptors."""
    whole = [index for index, frames in enumerate(run.paths) if len(frames)]
    if run.model is None or not whole:
        return None, run.current_paths, None
    points = [crossing_points(run.paths[i], _between_ends(run.model, run.paths[i]))[-1] for i in whole]
    position = np.full(len(run.paths) + 1, -1)  # the last stands for "not known"
    position[whole] = np.arange(len(whole))
    scale = np.concatenate([run.paths[i] for i in whole]).std(axis=0)
    return np.array(points), position[run.current_paths], scale


def _between_ends(model: CommittorModel, descriptors: np.ndarray) -> np.ndarray:
    """Log-odds between the two states that a path joins: of more than two, those nearest to its ends."""
    if model.n_states == 2:
        return model.reaction_coordinate(descriptors)
    log_committor = model.log_committor(descriptors)
    first = int(np.argmax(log_committor[0]))
    others = [state for state in range(model.n_states) if state != first]
    last = max(others, key=lambda state: log_committor[-1, state])
    return log_committor[:, last] - log_committor[:, first]


def _state_evidence(run: RunData) -> list[StateEvidence]:
    if run.model is None:
        return []
    whole = [index for index, frames in enumerate(run.paths) if len(frames)]
    weights = np.bincount(run.current_paths[run.current_paths >= 0], minlength=len(run.paths))
    committors = {index: probabilities(run.model, run.paths[index]) for index in whole}
    ends = run.training_set.auxiliary if run.training_set is not None else None
    found = []
    for state, name in enumerate(run.states):
        in_basin = sum(weights[i] * (p[:, state] > NEAR_STATE).sum() for i, p in committors.items())
        between = sum(weights[i] * (p.max(axis=1) <= NEAR_STATE).sum() for i, p in committors.items())
        boundary = [max(p[0, state], p[-1, state]) for p in committors.values() if state in _end_states(p)]
        inside = np.empty(0)
        if ends is not None:
            mine = ends.is_end & (ends.outcomes == state)
            inside = probabilities(run.model, ends.descriptors[mine])[:, state] if mine.any() else inside
        found.append(
            StateEvidence(
                name,
                float(in_basin / between) if between else np.nan,
                float(np.median(boundary)) if boundary else np.nan,
                float(np.median(inside)) if len(inside) else np.nan,
            )
        )
    return found


def _end_states(committor: np.ndarray) -> set[int]:
    """States that a path joins, by the committor of its frames: of two states, both."""
    if committor.shape[1] == 2:
        return {0, 1}
    return {int(np.argmax(committor[0])), int(np.argmax(committor[-1]))}


def with_error(value: float, error: float) -> str:
    """A number with its standard error, with two digits of the error: "0.123 ± 0.045"."""
    if not np.isfinite(value):
        return "unknown"
    if not np.isfinite(error) or error <= 0:
        return f"{value:.3g}"
    digits = int(np.clip(1 - np.floor(np.log10(error)), 0, 6))
    return f"{value:.{digits}f} ± {error:.{digits}f}"

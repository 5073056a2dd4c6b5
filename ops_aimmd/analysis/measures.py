r"""What path sampling and committor of a run look like, in numbers with their errors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import expit, logit, xlogy

from ops_aimmd.analysis.channels import find_channels
from ops_aimmd.analysis.expected_paths import expected_paths
from ops_aimmd.analysis.run_data import RunData
from ops_aimmd.committor.autocorrelation import FEWEST_SAMPLES, Autocorrelation, integrated_autocorrelation
from ops_aimmd.committor.calibration import Calibration, calibration
from ops_aimmd.committor.clusters import crossing_points
from ops_aimmd.committor.correlated_shots import blocks, length_for_errors, of_few
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.training_set import PATH, TrainingSet

PATH_LENGTH = "ln(path length)"

BLOCKS, FEWEST_BLOCKS = 20, 5
"""Largest and smallest number of blocks of shots for the errors of the calibration. They are long because hidden
coordinates are slow, and longer where the outcomes are correlated. Errors from fewer than the
smallest number are not reported."""

NEAR_STATE = 0.95
"""Committor of a state from which on a frame is taken for part of the state's basin."""

TOO_SHORT = "too short to tell"


@dataclass(frozen=True)
class Mean:
    """A mean over correlated values.

    Attributes
    ----------
    error : float
        Half the length of the 68 % interval; NaN where the series is too short to tell, or constant.
    interval : tuple of two floats
        The 95 % interval; wider than 2 errors to either side where the correlation time is not well known.
    """

    value: float
    error: float
    interval: tuple[float, float] = (np.nan, np.nan)

    def __str__(self) -> str:
        return with_error(self.value, self.error)

    @property
    def in_full(self) -> str:
        """With the 95 % interval, or that the series is too short to tell."""
        if not np.isfinite(self.error):
            return f"{self} (error: {TOO_SHORT})" if np.isfinite(self.value) else str(self)
        low, high = (with_error(end, self.error).split(" ± ")[0] for end in self.interval)
        return f"{self} (95 %: {low} to {high})"


@dataclass(frozen=True)
class Efficiency:
    """Transition paths among shots: those generated, and those expected before each shot.

    Attributes
    ----------
    expected, error : float
        From the model, times the excess among earlier shots (:func:`.expected_paths.expected_paths`), and half the
        68 % interval of the difference from the number generated, which is wider where shots of a chain resemble each
        other.
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
        """Generated minus expected, in standard errors."""
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
    """All numbers of a run with at least one shot, by the names that they have in `ops_aimmd.analysis.health.Health`."""
    points, path_of_row, scale = _crossings(run)
    mixing = _mixing(run, points, path_of_row)
    table = run.table
    chains, steps = table["replica"].to_numpy(), table["step"].to_numpy()
    times = ((table["path_length"] - 1) * run.time_per_frame).to_numpy(dtype=float)
    later = in_later_half(steps)
    on_the_fly, trained = _calibrations(run)
    made, reached = _legs(run.table), run.table["reached"].sum()
    return {
        "run": run,
        "mixing": mixing,
        "transition_time": mean_of(times, chains, steps, run.same_ensemble),
        "first_half": mean_of(times[~later], chains[~later], steps[~later], run.same_ensemble),
        "second_half": mean_of(times[later], chains[later], steps[later], run.same_ensemble),
        "efficiency": efficiency(table, np.arange(len(times))),
        "recent_efficiency": efficiency(table, np.flatnonzero(later)),
        "accepted": mean_of(table["accepted"], chains, steps, run.same_ensemble),
        "generated": mean_of(table["generated"], chains, steps, run.same_ensemble),
        "adaptation": adaptation(table),
        "n_legs": int(made),
        "n_lost_legs": int(made - reached),
        "on_the_fly": on_the_fly,
        "trained": trained,
        "channels": None if points is None else find_channels(points, path_of_row, run.chains, scale),
        "states": _state_evidence(run),
    }


# ---- path sampling ---------------------------------------------------------------------------------------------------


def in_later_half(steps) -> np.ndarray:
    """Whether each row belongs to the second half of the steps, bool (n_rows,), in any order of the rows."""
    steps = np.asarray(steps)
    later = np.zeros(len(steps), dtype=bool)
    later[np.argsort(steps, kind="stable")[len(steps) // 2 :]] = True
    return later


def tau_in_words(found: Autocorrelation) -> str:
    """Autocorrelation time with its 95 % interval, or what is known of it where the run is too short."""
    low, high = found.tau_interval()
    return _in_words(found, f"more than {low:.2g} steps", f"{found.tau:.3g} ({low:.2g} to {high:.2g}) steps")


def number_in_words(found: Autocorrelation) -> str:
    """Number of independent values with its 95 % interval, or what is known of it where the run is too short."""
    low, high = found.n_effective_interval()
    return _in_words(found, f"fewer than {max(high, 1):.0f}", f"{found.n_effective:.0f} ({low:.0f} to {high:.0f})")


def _in_words(found: Autocorrelation, bound: str, value: str) -> str:
    if np.isnan(found.tau):
        return TOO_SHORT
    return f"{bound} ({TOO_SHORT} how many)" if found.too_short else value


def _mixing(run: RunData, points, path_of_row) -> dict[str, Autocorrelation]:
    series = {PATH_LENGTH: log_lengths(run.table)}
    if points is not None and len(points) > 1:
        first = (points - points.mean(axis=0)) / np.maximum(points.std(axis=0), 1e-300)
        _, _, axes = np.linalg.svd(first, full_matrices=False)
        position = np.where(path_of_row >= 0, (first @ axes[0])[path_of_row], np.nan)
        series["place of crossing (first principal component)"] = position
    chains, steps = run.table["replica"].to_numpy(), run.table["step"].to_numpy()
    return {name: integrated_autocorrelation(values, chains, steps, run.same_ensemble) for name, values in series.items()}


def log_lengths(table: pd.DataFrame) -> np.ndarray:
    """Logarithm of the length of the current path after each row of a step table."""
    return np.log(table["path_length"].to_numpy(dtype=float))


def mean_of(values, chains, steps, common_mean: bool = True) -> Mean:
    """Mean of the finite values over the steps of all chains, with an error by the autocorrelation of the same values.

    `common_mean` says whether all chains sample the same distribution.
    """
    found = integrated_autocorrelation(np.asarray(values, dtype=float), chains, steps, common_mean)
    if not found.n_effective >= FEWEST_SAMPLES:
        return Mean(found.mean, np.nan)
    half = found.mean_error(0.95)
    return Mean(found.mean, found.mean_error(), (found.mean - half, found.mean + half))


def efficiency(table: pd.DataFrame, rows) -> Efficiency | None:
    """Generated against expected transition paths among some rows of a step table; None where nothing was predicted.

    The other rows are earlier or later shots.
    """
    table = table.assign(with_excess=expected_paths(table)).iloc[rows]
    table = table[np.isfinite(table["expected"].astype(float)) & table["generated"].notna()]
    if len(table) == 0:
        return None
    expected, generated = table["with_excess"].to_numpy(dtype=float), table["generated"].to_numpy(dtype=float)
    difference = integrated_autocorrelation(generated - expected, table["replica"], table["step"])
    error = len(table) * difference.mean_error()
    return Efficiency(
        n_shots=len(table),
        generated=int(generated.sum()),
        expected=float(expected.sum()),
        error=float(error),
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
    recent = of_run[in_later_half(training_set.steps[of_run])]
    before = training_set.predicted_committor
    on_the_fly = calibration_of_blocks(training_set, recent, before[recent], run.states)
    if run.model is None:
        return on_the_fly, {}
    unseen = np.full(before.shape, np.nan)
    unseen[recent] = before[recent]
    of_fair = np.flatnonzero(fair)
    predicted = probabilities(run.model, training_set.descriptors[fair])
    return on_the_fly, calibration_of_blocks(training_set, of_fair, predicted, run.states, unseen[fair])


def calibration_of_blocks(training_set: TrainingSet, rows, predicted, states, unseen=None) -> dict[str, Calibration]:
    """Calibration by state, with errors from blocks of shots that are enlarged for few blocks (Student's t).

    Each state against all others; only the last of two states, which say the same. Errors are NaN where there are fewer
    than `FEWEST_BLOCKS` blocks.

    Parameters
    ----------
    rows : int array, shape (n,)
        Shots that are counted.
    predicted : array, shape (n, n_states)
    unseen : array, shape (n, n_states), optional
        Predictions before each shot, NaN where there were none.
    """
    if len(rows) == 0:
        return {}
    counts, chains, steps = training_set.counts[rows], training_set.chains[rows], training_set.steps[rows]
    clusters = clusters_of(predicted, counts, chains, steps)
    number = clusters.max() + 1
    factor = np.nan if number < FEWEST_BLOCKS else of_few(number) if number < BLOCKS else 1.0
    calibrations = {}
    for index in range(len(states)) if len(states) > 2 else [len(states) - 1]:
        found = calibration(
            np.clip(predicted[:, index], 0, 1),
            np.stack([counts.sum(axis=1) - counts[:, index], counts[:, index]], axis=1),
            clusters=clusters,
            unseen=None if unseen is None else np.clip(unseen[:, index], 0, 1),
        )
        errors = {name: factor * getattr(found, name) for name in ERRORS_OF_BLOCKS}
        calibrations[states[index]] = replace(found, **errors)
    return calibrations


ERRORS_OF_BLOCKS = ("slope_error", "intercept_error", "leg_correlation_error", "loss_per_leg_error")


def clusters_of(predicted, counts, chains, steps) -> np.ndarray:
    """Block of each shot, int (n,): a twentieth of all shots, or more where the outcomes of neighbours are correlated.

    What is correlated are the gradients of the likelihood by intercept and slope of the recalibration of the last state.
    """
    legs = counts.sum(axis=1)
    odds = logit(np.clip(predicted[:, -1], 1e-6, 1 - 1e-6))
    line = calibration(expit(odds), np.stack([legs - counts[:, -1], counts[:, -1]], axis=1))
    determined = np.isfinite(line.slope) and np.isfinite(line.intercept)  # not by predictions that are all the same
    residuals = counts[:, -1] - legs * (expit(line.intercept + line.slope * odds) if determined else expit(odds))
    correlated = length_for_errors(np.stack([residuals, residuals * odds], axis=1), chains, steps)
    return blocks(chains, steps, max(-(-len(legs) // BLOCKS), correlated))


def fair_shots(training_set: TrainingSet) -> np.ndarray:
    """Shots with fresh velocities, bool (n,); all, where every shot kept the velocities of its path."""
    fair = training_set.velocity_origin != PATH
    return fair if fair.any() else ~fair


def probabilities(model: CommittorModel, descriptors) -> np.ndarray:
    """Committor of every state, (n, n_states)."""
    return np.exp(model.log_committor(descriptors))


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

r"""Is the run healthy? What path sampling and committor look like, in numbers with their errors, and warnings in words.

Every check compares a difference with its own statistical error, and with a margin below which it would not matter. A
warning says what was seen and what to do. What no run can know of itself, such as channels that no path has found, is a
caution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import xlogy
from scipy.stats import chi2

from ops_aimmd.committor.calibration import Calibration, calibration
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.training import FitReport
from ops_aimmd.committor.training_set import PATH, TrainingSet

from .autocorrelation import integrated_autocorrelation
from .channels import Channels, crossing_points, find_channels
from .run_data import RunData

SIGNIFICANT = 3.0
"""Standard errors beyond which a difference is taken for real; a dozen checks give one false alarm in some thirty runs."""

INDEPENDENT_PATHS = 20
"""Fewer leave the mean transition-path time uncertain by a quarter, as its distribution is about as wide as its mean."""

DRIFT = 4.0
"""Standard errors between the halves of a run; of halves these errors are themselves uncertain by a third."""

SWITCHES = 10
"""Between channels; fewer leave their populations uncertain by a third and more."""

MIN_LEGS = 40
"""Legs below which nothing is said of the calibration."""

MIN_SHOTS_HELD_OUT = 100
"""Shots below which a held-out loss cannot tell a good model from none: its standard error is 0.03, what is to win 0.1."""

SLOPE_MARGIN, INTERCEPT_MARGIN = 0.25, 0.4
"""Of the calibration; they change a committor by less than 0.1."""

EFFICIENCY_MARGIN = 0.15
"""Relative difference between generated and expected paths."""

OVER_FIT_MARGIN = 0.15
"""Held-out loss per leg above that of the training shots, in nats; ln 2 = 0.69 is what a coin loses."""

LOST_LEGS = 0.05
"""Fraction of legs without an outcome."""

NEAR_STATE = 0.95
"""Committor of a state from which on a frame is taken for part of the state's basin."""

DWELL = 20.0
"""Time that paths spend in the basin of a state, outside of the state, in units of the time that the crossing takes: up to
10 in the systems of this package (C7eq, a disk in a wide basin), 60 where a disk was put beside its minimum."""

FEW_FRAMES = 10
"""Mean number of frames of a path."""

BOUNDARY = 0.9
"""Committor of a state at its own boundary, where it must come close to 1: 0.96 to 0.999 in the systems of this package,
0.83 where a disk was so large that it reached the saddle."""

INSIDE = 0.7
"""Committor of a state in its own frames."""

MIN_SHOTS = 50
"""Shots below which nothing is said of the states: few shots let no model come close to 1."""

RMSE_MARGIN = 0.1
"""Root mean square error of the committor, without the noise of the shots."""


@dataclass(frozen=True)
class Finding:
    """A warning or caution in words: what it is, what was seen, what to do."""

    title: str
    seen: str
    advice: str

    def __str__(self) -> str:
        return f"{self.title}. {self.seen} {self.advice}"


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
    """Transition paths among shots: those generated, and those that the model expected before each shot."""

    n_shots: int
    generated: int
    expected: float
    error: float

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


@dataclass(frozen=True)
class Health:
    """The state of a run.

    Attributes
    ----------
    run : RunData
    mixing : mapping of str to Mixing
        By observable; "ln(path length)" first.
    transition_time, first_half, second_half : Mean
        Mean duration of the transition paths over the MC steps, in `run.time_unit`, of the whole run and its halves.
    efficiency, recent_efficiency : Efficiency or None
        Of all shots with a prediction, and of their last half.
    acceptance : float
        Fraction of shots accepted.
    adaptation : Adaptation
    n_legs, n_lost_legs : int
        New legs, and those that reached no state.
    on_the_fly, trained : mapping of str to Calibration
        By state: predictions made before each of the last half of the shots, and those of the newest model for the shots
        that it was trained on. Empty where there are none.
    channels : Channels or None
    states : sequence of StateEvidence
    warnings, cautions : sequences of Finding
        What is wrong; and what this run cannot tell.
    """

    run: RunData
    mixing: Mapping[str, Mixing]
    transition_time: Mean
    first_half: Mean
    second_half: Mean
    efficiency: Efficiency | None
    recent_efficiency: Efficiency | None
    acceptance: float
    adaptation: Adaptation
    n_legs: int
    n_lost_legs: int
    on_the_fly: Mapping[str, Calibration]
    trained: Mapping[str, Calibration]
    channels: Channels | None
    states: Sequence[StateEvidence]
    warnings: Sequence[Finding] = ()
    cautions: Sequence[Finding] = ()

    @property
    def healthy(self) -> bool:
        """Whether there are no warnings."""
        return not self.warnings

    def __str__(self) -> str:
        length = self.mixing[PATH_LENGTH]
        lines = [
            f"{self.run.name}: {len(self.run.table)} shots, {self.acceptance:.2f} accepted, "
            f"{with_error(length.n_effective, length.n_effective_error)} independent paths, mean transition-path time "
            f"{self.transition_time} {self.run.time_unit}"
        ]
        lines += [f"WARNING {warning}" for warning in self.warnings] or ["no warnings"]
        return "\n".join([*lines, *(f"caution {caution}" for caution in self.cautions)])


PATH_LENGTH = "ln(path length)"


def assess(run: RunData) -> Health:
    """Measure a run, and say in words what is wrong with it.

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
    parts = {
        "run": run,
        "mixing": mixing,
        "transition_time": _mean(times, mixing[PATH_LENGTH].n_effective),
        "first_half": _mean(times[:half], _independent(run.table.iloc[:half])),
        "second_half": _mean(times[half:], _independent(run.table.iloc[half:])),
        "efficiency": efficiency(run.table),
        "recent_efficiency": efficiency(run.table.iloc[half:]),
        "acceptance": float(run.table["accepted"].astype(float).mean()),
        "adaptation": adaptation(run.table),
        "n_legs": int(made),
        "n_lost_legs": int(made - reached),
        "on_the_fly": on_the_fly,
        "trained": trained,
        "channels": None if points is None else find_channels(points, path_of_row, run.chains, scale),
        "states": _state_evidence(run),
    }
    bare = Health(**parts)
    warnings = [finding for check in CHECKS for finding in check(bare)]
    return Health(**parts, warnings=warnings, cautions=_unknowable(bare))


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


def _independent(table: pd.DataFrame) -> float:
    """Independent paths in a part of the run, by its own autocorrelation: a drift is none within the halves."""
    return _length_mixing(table).n_effective


def _mean(values, n_effective: float) -> Mean:
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return Mean(np.nan, np.nan)
    # one independent value says nothing of its own error
    error = values.std() / np.sqrt(n_effective - 1) if n_effective > 1 and values.std() > 0 else np.nan
    return Mean(float(values.mean()), float(error))


def efficiency(table: pd.DataFrame) -> Efficiency | None:
    """Generated against expected transition paths; None where nothing was predicted.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns generated and expected, one row per shot.
    """
    rows = table[np.isfinite(table["expected"].astype(float)) & table["generated"].notna()]
    if len(rows) == 0:
        return None
    expected = rows["expected"].astype(float)
    error = float(np.sqrt((expected * (1 - expected)).sum()))
    return Efficiency(len(rows), int(rows["generated"].astype(float).sum()), float(expected.sum()), error)


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
    on_the_fly = by_state(training_set.predicted_committor[recent], training_set.counts[recent], run.states)
    if run.model is None:
        return on_the_fly, {}
    predicted = probabilities(run.model, training_set.descriptors[fair])
    return on_the_fly, by_state(predicted, training_set.counts[fair], run.states)


def fair_shots(training_set: TrainingSet) -> np.ndarray:
    """Shots with fresh velocities, bool (n,); all, where every shot kept the velocities of its path."""
    fair = training_set.velocity_origin != PATH
    return fair if fair.any() else ~fair


def probabilities(model: CommittorModel, descriptors) -> np.ndarray:
    """Committor of every state, (n, n_states)."""
    return np.exp(model.log_committor(descriptors))


def by_state(predicted, counts, states: Sequence[str]) -> dict[str, Calibration]:
    """Calibration of each state against all others; of two states, which say the same, of the last.

    Parameters
    ----------
    predicted, counts : array, shape (n, n_states)
    states : sequence of str
    """
    found = {}
    if len(predicted) == 0:
        return found
    for index in range(len(states)) if len(states) > 2 else [len(states) - 1]:
        reached = np.stack([counts.sum(axis=1) - counts[:, index], counts[:, index]], axis=1)
        found[states[index]] = calibration(np.clip(predicted[:, index], 0, 1), reached)
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


# ---- warnings --------------------------------------------------------------------------------------------------------


def _check_mixing(health: Health) -> list[Finding]:
    length = health.mixing[PATH_LENGTH]
    n_rows = len(health.run.table)
    if not np.isfinite(length.tau):
        return [
            Finding(
                "The paths do not change",
                f"In {n_rows} shots {health.acceptance * n_rows:.0f} paths were accepted, and the length of the current "
                "path is always the same, so nothing can be averaged.",
                "Look at the shots: do their legs reach both states? Check states, temperature and the initial path.",
            )
        ]
    if length.n_effective + length.n_effective_error / 2 >= INDEPENDENT_PATHS:
        return []
    factor = INDEPENDENT_PATHS / max(length.n_effective, 1e-9)
    return [
        Finding(
            "Too few independent paths",
            f"The length of the current path is correlated over {with_error(length.tau, length.tau_error)} steps, so these "
            f"{n_rows} steps are worth {with_error(length.n_effective, length.n_effective_error)} independent paths.",
            f"Go on for about {max(factor, 2):.0f} times as many steps, or run more chains, before trusting averages over "
            "the paths; the committor may be good already.",
        )
    ]


def _check_convergence(health: Health) -> list[Finding]:
    first, second = health.first_half, health.second_half
    error = np.hypot(first.error, second.error)
    if not abs(first.value - second.value) > DRIFT * error:
        return []
    half = len(health.run.table) // 2
    if min(_independent(health.run.table.iloc[:half]), _independent(health.run.table.iloc[half:])) < INDEPENDENT_PATHS / 2:
        return []  # errors of halves that have not forgotten their beginning are too small
    return [
        Finding(
            "The transition-path time has drifted",
            f"Its mean is {first} {health.run.time_unit} in the first half of the run and {second} in the second, "
            f"{abs(first.value - second.value) / error:.1f} standard errors apart.",
            "Drop the first half (the initial path is forgotten slowly) and go on until halves agree.",
        )
    ]


def _check_chains(health: Health) -> list[Finding]:
    run = health.run
    if run.n_chains < 2 or not run.same_ensemble:
        return []
    lengths = np.log(run.table["path_length"].astype(float).to_numpy())
    means, errors = [], []
    for chain in np.unique(run.chains):
        mine = lengths[run.chains == chain]
        mixing = mixing_of(mine, np.zeros(len(mine)))
        mean = _mean(mine, mixing.n_effective)
        if np.isfinite(mean.error):
            means.append(mean.value)
            errors.append(mean.error)
    if len(means) < 2:
        return []
    means, weights = np.array(means), 1 / np.square(errors)
    common = np.average(means, weights=weights)
    chance = chi2.sf(np.sum(weights * (means - common) ** 2), len(means) - 1)
    if chance > 1e-3:
        return []
    return [
        Finding(
            "The chains disagree",
            f"Mean ln(path length) of the {len(means)} chains: {', '.join(f'{m:.2f}' for m in means)}, with errors of "
            f"about {np.median(errors):.2f}; by chance they differ so much in one of {1 / max(chance, 1e-9):.3g} runs.",
            "They sample different regions: look at the channels below, run longer, and do not pool the chains yet.",
        )
    ]


def _check_channels(health: Health) -> list[Finding]:
    channels = health.channels
    if channels is None or channels.n_channels < 2 or channels.n_switches >= SWITCHES:
        return []
    shares = ", ".join(f"{with_error(p, e)}" for p, e in zip(channels.populations, channels.population_errors, strict=True))
    switched = {0: "never switched", 1: "switched once"}.get(channels.n_switches, f"switched {channels.n_switches} times")
    return [
        Finding(
            "The paths stay in their channel",
            f"Paths cross the transition state in {channels.n_channels} separate places (shares of the steps {shares}), "
            f"and the current path {switched} in {channels.n_steps} steps.",
            f"The shares are not determined before some {SWITCHES} switches: start several chains from different first "
            "paths, and compare them.",
        )
    ]


def _unknowable(health: Health) -> list[Finding]:
    channels = health.channels
    if channels is None or channels.n_channels != 1 or health.run.n_chains > 1:
        return []
    return [
        Finding(
            "One channel only",
            f"All {len(channels.points)} distinct paths of this one chain cross the transition state in one place. So does "
            "a chain in a system that has one channel, and a chain that never found the others: the run cannot tell.",
            "Start a second chain from a different first path, if you can make one, and see whether it comes here.",
        )
    ]


def _check_efficiency(health: Health) -> list[Finding]:
    recent = health.recent_efficiency
    if recent is None or recent.n_shots < MIN_LEGS / 2 or not abs(recent.deviation) > SIGNIFICANT:
        return []
    if abs(recent.generated - recent.expected) < EFFICIENCY_MARGIN * recent.expected:
        return []
    more = recent.generated > recent.expected
    if more and not _check_calibration(
        health
    ):  # with inertia legs of opposite velocities part more often than chance has it
        return []
    return [
        Finding(
            "The model is mis-calibrated",
            f"Of the last {recent.n_shots} shots {recent.generated} gave a transition path; before them the model had "
            f"expected {with_error(recent.expected, recent.error)}, {abs(recent.deviation):.1f} standard errors "
            f"{'fewer' if more else 'more'}.",
            "The model is wrong where it shoots: see its calibration below, train longer, or give it better descriptors.",
        )
    ]


def _check_calibration(health: Health) -> list[Finding]:
    found = []
    for state, result in health.on_the_fly.items():
        if result.n_legs >= MIN_LEGS:
            found += _about_calibration(state, result)
    return found


def _about_calibration(state: str, result: Calibration) -> list[Finding]:
    shots = f"Predictions for the last {result.n_shots} shots"
    slope = f"a slope of {with_error(result.slope, result.slope_error)} (1 is right)"
    constant = constant_loss(result.table)
    loss = f"loss per leg {with_error(result.loss_per_leg, result.loss_per_leg_error)}, that of a constant {constant:.3f}"
    if (result.table["legs"] > 0).sum() == 1 and not np.isfinite(result.slope) and 0 < constant:
        return [
            Finding(
                "The model knows nothing",
                f"{shots} were all alike, {result.table['predicted'].dropna().iloc[0]:.2f} for {state} ({loss}).",
                "Check that the model is trained (a TrainingHook, not frozen too early), and that the descriptors change "
                "along the paths.",
            )
        ]
    if result.slope < 2 * result.slope_error:
        reverse = result.slope < -2 * result.slope_error
        return [
            Finding(
                "The model is wrong" if reverse else "The model knows nothing",
                f"{shots} have {slope} against the outcomes for {state}: they "
                f"{'point the wrong way' if reverse else 'tell nothing of them'} ({loss}).",
                "Check the order of the states and the descriptors, and train anew on the shots of this run.",
            )
        ]
    found = []
    if abs(result.slope - 1) > max(SIGNIFICANT * result.slope_error, SLOPE_MARGIN):
        sure = result.slope < 1
        found.append(
            Finding(
                "The model is too sure" if sure else "The model is too careful",
                f"{shots} have {slope} against the outcomes for {state} ({loss}).",
                "It is over-fitted: use the default regularisation, more shots or fewer descriptors."
                if sure
                else "It under-fits: train longer, with a weaker regularisation or better descriptors.",
            )
        )
    if abs(result.intercept) > max(SIGNIFICANT * result.intercept_error, INTERCEPT_MARGIN):
        found.append(
            Finding(
                "The model is shifted",
                f"{shots} are off by {with_error(result.intercept, result.intercept_error)} in the log-odds of {state}.",
                "Train anew on the shots of this run; if it stays, legs are lost or velocities are not of the temperature.",
            )
        )
    if result.rmse > max(2 * SIGNIFICANT * result.rmse_error, RMSE_MARGIN):  # the error of its square is 2 RMSE times it
        found.append(
            Finding(
                "The committor is rough",
                f"{shots} are {with_error(result.rmse, result.rmse_error)} off (root mean square, without the noise of the "
                "shots): the legs of a shot agree more often than the model can explain.",
                "The descriptors miss something that decides, or the model under-fits: add descriptors, train longer.",
            )
        )
    if result.loss_per_leg - constant > SIGNIFICANT * result.loss_per_leg_error:
        found.append(
            Finding(
                "Worse than a constant",
                f"{shots}: {loss}.",
                "Do not trust this committor; train anew on the shots of this run.",
            )
        )
    return found


def _check_over_fit(health: Health) -> list[Finding]:
    found = []
    for state, result in health.trained.items():
        before = health.on_the_fly.get(state)
        # outcomes below the floor before they were seen: the legs are not independent, and the floor does not hold
        if result.below_floor and not (before is not None and before.below_floor):
            found.append(
                Finding(
                    "The model has memorised its shots",
                    f"On the {result.n_shots} shots that it was trained on it loses {result.loss_per_leg:.3f} per leg for "
                    f"{state}; no true committor loses less than {result.loss_floor:.3f} there.",
                    "It is over-fitted: use the default regularisation and stopping, more shots or fewer descriptors.",
                )
            )
    report = _last_report(health)
    if report is None or not np.isfinite(report.held_out_loss_per_leg):
        return found
    gap = report.held_out_loss_per_leg - report.train_loss_per_leg
    error = np.hypot(report.held_out_loss_per_leg_error, report.train_loss_per_leg_error)
    held_out = with_error(report.held_out_loss_per_leg, report.held_out_loss_per_leg_error)
    if not found and gap > max(SIGNIFICANT * error, OVER_FIT_MARGIN):
        found.append(
            Finding(
                "The model is over-fitted",
                f"It loses {held_out} per leg on shots that were held out, and only {report.train_loss_per_leg:.3f} on "
                "those that it was trained on.",
                "Use the default regularisation and stopping, more shots or fewer descriptors.",
            )
        )
    counts = health.run.training_set.counts.sum(axis=0)
    constant = float(-xlogy(counts / counts.sum(), counts / counts.sum()).sum())
    if report.n_shots >= MIN_SHOTS_HELD_OUT and report.held_out_loss_per_leg > constant:
        found.append(
            Finding(
                "Training has found nothing",
                f"On held-out shots the model loses {held_out} per leg, a constant {constant:.3f}.",
                "The descriptors do not tell the outcome: add others.",
            )
        )
    return found


def _last_report(health: Health) -> FitReport | None:
    return health.run.reports[-1] if len(health.run.reports) and health.run.training_set is not None else None


def _check_legs(health: Health) -> list[Finding]:
    if health.n_lost_legs <= max(LOST_LEGS * health.n_legs, 2):
        return []
    return [
        Finding(
            "Legs without an outcome",
            f"{health.n_lost_legs} of {health.n_legs} legs reached no state: they hit the length limit or broke down.",
            "Raise max_length (n_frames_max); if legs still do not end, a state misses its basin or there is another: "
            "look where they stay. NaN: a smaller time step.",
        )
    ]


def _check_states(health: Health) -> list[Finding]:
    found = []
    if health.run.training_set is None or len(health.run.training_set) < MIN_SHOTS:
        return found
    for state in health.states:
        if state.dwell > DWELL:
            found.append(
                Finding(
                    "A state misses its basin",
                    f"For each frame of the crossing the paths spend {state.dwell:.0f} outside of {state.name} where it is "
                    f"as good as certain (committor above {NEAR_STATE:g}): they wait at its door.",
                    f"Enlarge {state.name}, or move it to where the paths stay.",
                )
            )
        if state.inside < INSIDE:
            found.append(
                Finding(
                    "The descriptors do not know a state",
                    f"Inside of {state.name} the committor of {state.name} should be 1; it is {state.inside:.2f}.",
                    "Add descriptors in which the states differ, or make the state smaller.",
                )
            )
        if state.boundary < BOUNDARY:
            found.append(
                Finding(
                    "A state is too large",
                    f"In the last frame before {state.name} its committor should be close to 1; the model gives "
                    f"{state.boundary:.2f}: the state reaches into the transition region, or frames are rare.",
                    f"Make {state.name} smaller, so that what reaches it stays there, or store frames more often.",
                )
            )
    length = health.run.table["path_length"].astype(float).mean()
    if length < FEW_FRAMES:
        found.append(
            Finding(
                "Paths of few frames",
                f"A path has {length:.1f} frames on average.",
                "Lower the number of steps per frame; if paths are that short, make the states smaller.",
            )
        )
    return found


CHECKS = (
    _check_mixing,
    _check_convergence,
    _check_chains,
    _check_channels,
    _check_efficiency,
    _check_calibration,
    _check_over_fit,
    _check_legs,
    _check_states,
)


def with_error(value: float, error: float) -> str:
    """A number with its standard error, with two digits of the error: "0.123 ± 0.045"."""
    if not np.isfinite(value):
        return "unknown"
    if not np.isfinite(error) or error <= 0:
        return f"{value:.3g}"
    digits = int(np.clip(1 - np.floor(np.log10(error)), 0, 6))
    return f"{value:.{digits}f} ± {error:.{digits}f}"

r"""Is the run healthy? What path sampling and committor look like, in numbers with their errors, and warnings in words.

Every check compares a difference with its own statistical error, and with a margin below which it would not matter. A
warning says what was seen and what to do. What no run can know of itself, such as channels that no path has found, is a
caution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import xlogy

from ops_aimmd.analysis.channels import Channels
from ops_aimmd.analysis.measures import (
    NEAR_STATE,
    PATH_LENGTH,
    Adaptation,
    Efficiency,
    Mean,
    StateEvidence,
    constant_loss,
    in_later_half,
    log_lengths,
    measure,
    number_in_words,
    tau_in_words,
    with_error,
)
from ops_aimmd.analysis.run_data import RunData
from ops_aimmd.committor.autocorrelation import Autocorrelation, chance_of_difference
from ops_aimmd.committor.calibration import Calibration

SIGNIFICANT = 3.0
"""Standard errors beyond which a difference is taken for real; a dozen checks give one false alarm in some thirty runs."""

INDEPENDENT_PATHS = 20
"""Fewer independent paths leave the mean transition-path time uncertain by a quarter: its distribution is about as wide as
its mean."""

BY_CHANCE = 2e-3
"""Probability below which a difference between chains, or between the halves of a run, is taken for real. It allows for the
uncertain correlation time, so that short runs bring fewer false alarms, not more: 0 to 2 in 1000, by simulation."""

SWITCHES = 10
"""Switches between channels; fewer leave their populations uncertain by a third and more."""

MIN_LEGS = 40
"""Legs below which nothing is said of the calibration."""

MIN_SHOTS_HELD_OUT = 100
"""Shots below which a held-out loss cannot tell a good model from none: its standard error is 0.03, what is to win 0.1."""

SLOPE_MARGIN, INTERCEPT_MARGIN = 0.25, 0.4
"""Margins of the calibration; they change a committor by less than 0.1."""

EFFICIENCY_MARGIN = 0.15
"""Relative difference between generated and expected paths."""

OVER_FIT_MARGIN = 0.15
"""Held-out loss per leg above that of the training shots, in nats; ln 2 = 0.69 is what a coin loses."""

LOST_LEGS = 0.05
"""Fraction of legs without an outcome."""

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

LEARNS_WITHIN = 30
"""Shots, beside two of each chain, within which the schedule trains for the first time."""

LEG_CORRELATION_MARGIN = 0.05
"""Correlation of the legs of a shot; a root mean square error of the committor of 0.1 gives as much."""


@dataclass(frozen=True)
class Finding:
    """A warning or caution in words: what it is, what was seen, what to do."""

    title: str
    seen: str
    advice: str

    def __str__(self) -> str:
        return f"{self.title}. {self.seen} {self.advice}"


@dataclass(frozen=True)
class Health:
    """The state of a run.

    Attributes
    ----------
    run : RunData
    mixing : mapping of str to Autocorrelation
        By observable; "ln(path length)" first.
    transition_time, first_half, second_half : Mean
        Mean duration of the transition paths over the MC steps, in `run.time_unit`, of the whole run and its halves.
    efficiency, recent_efficiency : Efficiency or None
        Transition paths among all shots with a prediction, and among the last half of these.
    accepted, generated : Mean
        Fraction of shots accepted, and of shots that gave a transition path.
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
    mixing: Mapping[str, Autocorrelation]
    transition_time: Mean
    first_half: Mean
    second_half: Mean
    efficiency: Efficiency | None
    recent_efficiency: Efficiency | None
    accepted: Mean
    generated: Mean
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

    @property
    def acceptance(self) -> float:
        """Fraction of shots accepted."""
        return self.accepted.value

    def __str__(self) -> str:
        length = self.mixing[PATH_LENGTH]
        lines = [
            f"{self.run.name}: {len(self.run.table)} shots, {self.acceptance:.2f} accepted, "
            f"independent paths: {number_in_words(length)}, mean transition-path time "
            f"{self.transition_time.in_full} {self.run.time_unit}"
        ]
        lines += [f"WARNING {warning}" for warning in self.warnings] or ["no warnings"]
        return "\n".join([*lines, *(f"caution {caution}" for caution in self.cautions)])


def assess(run: RunData) -> Health:
    """Measure a run with at least one shot, and say in words what is wrong with it."""
    parts = measure(run)
    bare = Health(**parts)
    warnings, cautions = ([finding for check in checks for finding in check(bare)] for checks in (CHECKS, UNKNOWABLE))
    return Health(**parts, warnings=warnings, cautions=cautions)


# ---- warnings --------------------------------------------------------------------------------------------------------


def _check_mixing(health: Health) -> Iterator[Finding]:
    length = health.mixing[PATH_LENGTH]
    n_rows = len(health.run.table)
    if not np.isfinite(length.tau) and health.run.table["path_length"].nunique() < 2:
        yield Finding(
            "The paths do not change",
            f"In {n_rows} shots {health.acceptance * n_rows:.0f} paths were accepted, and the length of the current "
            "path is always the same, so nothing can be averaged.",
            "Look at the shots: do their legs reach both states? Check states, temperature and the initial path.",
        )
        return
    if not length.too_short and length.n_effective_interval(0.6827)[1] >= INDEPENDENT_PATHS:
        return
    if length.too_short and not length.n_effective < INDEPENDENT_PATHS:
        return  # enough as far as one can see; _too_short says that one cannot see far
    factor = INDEPENDENT_PATHS / length.n_effective
    go_on = f"Go on for about {max(factor, 2):.0f} times as many steps" if not length.too_short else "Go on"
    yield Finding(
        "Too few independent paths",
        f"The length of the current path is correlated over {tau_in_words(length)}, so these {n_rows} steps are worth "
        f"{number_in_words(length)} independent paths.",
        f"{go_on}, or run more chains, before trusting averages over the paths; the committor may be good already.",
    )


def _check_convergence(health: Health) -> Iterator[Finding]:
    run, first, second = health.run, health.first_half, health.second_half
    times = (run.table["path_length"].to_numpy(dtype=float) - 1) * run.time_per_frame
    steps = run.table["step"].to_numpy()
    chance, _ = chance_of_difference(times, in_later_half(steps), run.chains, steps)
    if not chance < BY_CHANCE:
        return
    yield Finding(
        "The transition-path time has drifted",
        f"Its mean is {first} {run.time_unit} in the first half of the run and {second} in the second; {_one_in(chance)}.",
        "Drop the first half (the initial path is forgotten slowly) and go on until halves agree.",
    )


def _one_in(chance: float) -> str:
    return f"by chance they differ so much in one of {1 / max(chance, 1e-9):.2g} runs"


def _difference_of_chains(run: RunData) -> tuple[float, bool]:
    return chance_of_difference(log_lengths(run.table), run.chains, run.chains, run.table["step"].to_numpy())


def _check_chains(health: Health) -> Iterator[Finding]:
    run = health.run
    if run.n_chains < 2 or not run.same_ensemble:
        return
    chance, _ = _difference_of_chains(run)
    if not chance < BY_CHANCE:
        return
    means = pd.Series(log_lengths(run.table)).groupby(np.asarray(run.chains)).mean()
    yield Finding(
        "The chains disagree",
        f"Mean ln(path length) of the {len(means)} chains: {', '.join(f'{m:.2f}' for m in means)}; {_one_in(chance)}.",
        "They sample different regions: look at the channels below, run longer, and do not pool the chains yet.",
    )


def _check_channels(health: Health) -> Iterator[Finding]:
    channels = health.channels
    if channels is None or channels.n_channels < 2 or channels.n_switches >= SWITCHES:
        return
    shares = ", ".join(f"{with_error(p, e)}" for p, e in zip(channels.populations, channels.population_errors, strict=True))
    switched = {0: "never switched", 1: "switched once"}.get(channels.n_switches, f"switched {channels.n_switches} times")
    yield Finding(
        "The paths stay in their channel",
        f"Paths cross the transition state in {channels.n_channels} separate places (shares of the steps {shares}), "
        f"and the current path {switched} in {channels.n_steps} steps.",
        f"The shares are not determined before some {SWITCHES} switches: start several chains from different first "
        "paths, and compare them. Moves that switch: CommittorShootingScheme(..., exchange_temperatures=[...]).",
    )


def _too_short(health: Health) -> Iterator[Finding]:
    run, length = health.run, health.mixing[PATH_LENGTH]
    if np.isnan(length.tau) and run.table["path_length"].nunique() < 2:
        return  # _check_mixing says it
    chance, short = _difference_of_chains(run) if run.n_chains > 1 and run.same_ensemble else (np.nan, False)
    if not (length.too_short or short) or chance < BY_CHANCE:
        return
    agreement = ", nor whether the chains agree" if run.n_chains > 1 and run.same_ensemble else ""
    yield Finding(
        "Too short to tell",
        f"From these {len(run.table)} steps one cannot tell over how many steps paths are correlated, nor how far "
        f"averages over the paths are uncertain{agreement} (autocorrelation time: {tau_in_words(length)}).",
        "Go on; some 50 times the autocorrelation time are needed.",
    )


def _one_channel(health: Health) -> Iterator[Finding]:
    channels = health.channels
    if channels is None or channels.n_channels != 1 or health.run.n_chains > 1:
        return
    yield Finding(
        "One channel only",
        f"All {len(channels.points)} distinct paths of this one chain cross the transition state in one place. So does "
        "a chain in a system that has one channel, and a chain that never found the others: the run cannot tell.",
        "Start a second chain from a different first path, if you can make one, and see whether it comes here.",
    )


def _check_efficiency(health: Health) -> Iterator[Finding]:
    recent = health.recent_efficiency
    if recent is None or recent.n_shots < MIN_LEGS / 2 or not abs(recent.deviation) > SIGNIFICANT:
        return
    if abs(recent.generated - recent.expected) < EFFICIENCY_MARGIN * recent.expected:
        return
    if recent.generated > recent.expected:  # the excess that inertia brings may have grown
        return
    yield Finding(
        "The model is mis-calibrated",
        f"Of the last {recent.n_shots} shots {recent.generated} gave a transition path; the model, with the excess of "
        f"the shots before, had led to expect {with_error(recent.expected, recent.error)}, "
        f"{abs(recent.deviation):.1f} standard errors more.",
        "The model is wrong where it shoots: see its calibration below, train longer, or give it better descriptors.",
    )


def _check_calibration(health: Health) -> Iterator[Finding]:
    for state, result in health.on_the_fly.items():
        if result.n_legs >= MIN_LEGS:
            yield from _about_calibration(state, result)


def _about_calibration(state: str, result: Calibration) -> Iterator[Finding]:
    shots = f"Predictions for the last {result.n_shots} shots"
    slope = f"a slope of {with_error(result.slope, result.slope_error)} (1 is right)"
    constant = constant_loss(result.table)
    loss = f"loss per leg {with_error(result.loss_per_leg, result.loss_per_leg_error)}, that of a constant {constant:.3f}"
    if (result.table["legs"] > 0).sum() == 1 and not np.isfinite(result.slope) and 0 < constant:
        yield Finding(
            "The model knows nothing",
            f"{shots} were all alike, {result.table['predicted'].dropna().iloc[0]:.2f} for {state} ({loss}).",
            "Check that the model is trained (a TrainingHook, not frozen too early), and that the descriptors change "
            "along the paths.",
        )
        return
    if result.slope < 2 * result.slope_error:
        reverse = result.slope < -2 * result.slope_error
        yield Finding(
            "The model is wrong" if reverse else "The model knows nothing",
            f"{shots} have {slope} against the outcomes for {state}: they "
            f"{'point the wrong way' if reverse else 'tell nothing of them'} ({loss}).",
            "Check the order of the states and the descriptors, and train again on the shots of this run.",
        )
        return
    if abs(result.slope - 1) > max(SIGNIFICANT * result.slope_error, SLOPE_MARGIN):
        sure = result.slope < 1
        yield Finding(
            "The model is too sure" if sure else "The model is too careful",
            f"{shots} have {slope} against the outcomes for {state} ({loss}).",
            "It says more than it has learned: collect more shots, or leave out descriptors that do not matter."
            if sure
            else "It says less than it has learned: collect more shots, or look for better descriptors.",
        )
    if abs(result.intercept) > max(SIGNIFICANT * result.intercept_error, INTERCEPT_MARGIN):
        yield Finding(
            "The model is shifted",
            f"{shots} are off by {with_error(result.intercept, result.intercept_error)} in the log-odds of {state}.",
            "Train again on the shots of this run; if it stays, legs are lost or velocities are not of the temperature.",
        )
    if result.leg_correlation > max(SIGNIFICANT * result.leg_correlation_error, LEG_CORRELATION_MARGIN):
        yield Finding(
            "The legs of a shot agree too often",
            f"{shots}: given the prediction, the two legs of a shot have a correlation of "
            f"{with_error(result.leg_correlation, result.leg_correlation_error)} in whether they reach {state}.",
            "The descriptors miss something that decides, or the model under-fits: add descriptors, train longer. "
            "ops_aimmd.committor_simulation measures the error of the committor.",
        )
    if result.loss_per_leg - constant > SIGNIFICANT * result.loss_per_leg_error:
        yield Finding(
            "Worse than a constant",
            f"{shots}: {loss}.",
            "Do not trust this committor; train again on the shots of this run.",
        )


def _check_learning(health: Health) -> Iterator[Finding]:
    table = health.run.table
    untrained = (table["model_version"] == 0) & ~table["frozen"].fillna(False).astype(bool)
    if untrained.sum() <= LEARNS_WITHIN + 2 * health.run.n_chains:
        return
    yield Finding(
        "Nothing was learned",
        f"Of {len(table)} shots {untrained.sum()} were picked with model version 0, which no shot has trained.",
        "Attach the hook before a run, sampler.attach_hook(ops_aimmd.TrainingHook(learner, checkpoint=...)), and let "
        "ops_aimmd.resume(FILE, checkpoint=CHECKPOINT) go on with a run that was stored.",
    )


def _check_over_fit(health: Health) -> Iterator[Finding]:
    for state, result in health.trained.items():
        if result.below_floor:
            yield Finding(
                "The model has memorised its shots",
                f"On the {result.n_shots} shots that it was trained on it loses {result.loss_per_leg:.3f} per leg for "
                f"{state}; no true committor loses less than {result.loss_floor:.3f} there.",
                "It is over-fitted: use the default regularisation and stopping, more shots or fewer descriptors.",
            )
    if not health.run.reports or health.run.training_set is None:
        return
    report = health.run.reports[-1]
    if not np.isfinite(report.held_out_loss_per_leg):
        return
    gap = report.held_out_loss_per_leg - report.train_loss_per_leg
    error = np.hypot(report.held_out_loss_per_leg_error, report.train_loss_per_leg_error)
    held_out = with_error(report.held_out_loss_per_leg, report.held_out_loss_per_leg_error)
    memorised = any(result.below_floor for result in health.trained.values())
    if not memorised and gap > max(SIGNIFICANT * error, OVER_FIT_MARGIN):
        yield Finding(
            "The model is over-fitted",
            f"It loses {held_out} per leg on shots that were held out, and only {report.train_loss_per_leg:.3f} on "
            "those that it was trained on.",
            "Use the default regularisation and stopping, more shots or fewer descriptors.",
        )
    counts = health.run.training_set.counts.sum(axis=0)
    constant = float(-xlogy(counts / counts.sum(), counts / counts.sum()).sum())
    if report.n_shots >= MIN_SHOTS_HELD_OUT and report.held_out_loss_per_leg > constant:
        yield Finding(
            "Training has found nothing",
            f"On held-out shots the model loses {held_out} per leg, a constant {constant:.3f}.",
            "The descriptors do not tell the outcome: add others.",
        )


def _check_legs(health: Health) -> Iterator[Finding]:
    if health.n_lost_legs <= max(LOST_LEGS * health.n_legs, 2):
        return
    yield Finding(
        "Legs without an outcome",
        f"{health.n_lost_legs} of {health.n_legs} legs reached no state: they hit the length limit or broke down.",
        "Raise max_length (n_frames_max); if legs still do not end, a state misses its basin or there is another: "
        "look where they stay. NaN: a smaller time step.",
    )


def _check_states(health: Health) -> Iterator[Finding]:
    if health.run.training_set is None or len(health.run.training_set) < MIN_SHOTS:
        return
    for state in health.states:
        if state.dwell > DWELL:
            yield Finding(
                "A state misses its basin",
                f"For each frame of the crossing the paths spend {state.dwell:.0f} outside of {state.name} where it is "
                f"as good as certain (committor above {NEAR_STATE:g}): they wait at its door.",
                f"Enlarge {state.name}, or move it to where the paths stay.",
            )
        if state.inside < INSIDE:
            yield Finding(
                "The descriptors do not know a state",
                f"Inside of {state.name} the committor of {state.name} should be 1; it is {state.inside:.2f}.",
                "Add descriptors in which the states differ, or make the state smaller.",
            )
        if state.boundary < BOUNDARY:
            yield Finding(
                "A state is too large",
                f"In the last frame before {state.name} its committor should be close to 1; the model gives "
                f"{state.boundary:.2f}: the state reaches into the transition region, or frames are rare.",
                f"Make {state.name} smaller, so that what reaches it stays there, or store frames more often.",
            )
    length = health.run.table["path_length"].astype(float).mean()
    if length < FEW_FRAMES:
        yield Finding(
            "Paths of few frames",
            f"A path has {length:.1f} frames on average.",
            "Lower the number of steps per frame; if paths are that short, make the states smaller.",
        )


CHECKS = (
    _check_mixing,
    _check_convergence,
    _check_chains,
    _check_channels,
    _check_learning,
    _check_efficiency,
    _check_calibration,
    _check_over_fit,
    _check_legs,
    _check_states,
)

UNKNOWABLE = (_too_short, _one_channel)
"""Checks of what this run cannot tell."""

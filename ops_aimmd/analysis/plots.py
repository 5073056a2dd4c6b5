"""Pictures of a run, drawn on matplotlib axes that the caller owns.

A `table` is a step table (:func:`.series.step_table`); series have one value per row of it, shape (n_rows,).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from scipy.special import expit, logit

from ops_aimmd.analysis.expected_paths import expected_paths
from ops_aimmd.analysis.measures import mean_of
from ops_aimmd.committor.autocorrelation import integrated_autocorrelation
from ops_aimmd.committor.calibration import Calibration
from ops_aimmd.committor.fit_report import FitReport

COLOURS = {"generated": "#1b6ca8", "expected": "#e07b00", "accepted": "#2a9d58"}

PARTS = 10
"""Parts of a run, for fractions in the course of it."""

CHANNEL_COLOURS = ("#1b6ca8", "#e07b00", "#2a9d58", "#8e4a9e", "#b5332e", "#6b6b6b")


def plot_counts(axes: Axes, table: pd.DataFrame) -> None:
    """Cumulative number of transition paths: expected before each shot, generated, and accepted.

    Expected are those of the model with the excess of generated paths among the shots before, and, dotted, those of the
    model alone, for independent legs.
    """
    table = table.assign(independent=table["expected"], expected=expected_paths(table))
    lines = (("independent", ":", "expected, independent legs"), ("expected", "--", "expected, with the excess before"))
    for column, style, label in (*lines, ("generated", "-", "generated"), ("accepted", "-", "accepted")):
        colour = COLOURS.get(column, COLOURS["expected"])
        axes.plot(table["step"], table[column].astype(float).fillna(0).cumsum(), style, color=colour, label=label)
    axes.set(xlabel="MC step", ylabel="transition paths")
    axes.legend(frameon=False)


def plot_acceptance(axes: Axes, tables: Mapping[str, pd.DataFrame]) -> None:
    """Fraction of accepted and of generated transition paths of several runs, tables by name.

    The errors account for the correlation of the shots.
    """
    positions = np.arange(len(tables))
    for offset, column in ((-0.2, "generated"), (0.2, "accepted")):
        found = [mean_of(table[column].astype(float), table["replica"], table["step"]) for table in tables.values()]
        means, errors = [mean.value for mean in found], [mean.error for mean in found]
        bars = axes.bar(positions + offset, means, 0.36, yerr=errors, color=COLOURS[column], label=column, capsize=3)
        axes.bar_label(bars, labels=[f"{mean:.2f}" for mean in means], padding=2, fontsize=9)
    axes.set_xticks(positions, list(tables))
    axes.set_ylabel("fraction of shots")
    axes.margins(y=0.18)
    axes.legend(frameon=False, loc="upper right")


def plot_loss(axes: Axes, reports: Sequence[FitReport]) -> None:
    """Training and held-out loss per leg of `learner.reports` against the number of shots."""
    shots = [report.n_shots for report in reports]
    for label, name, colour in (("training", "train", "#888888"), ("held out", "held_out", "#b5332e")):
        loss = np.array([getattr(report, f"{name}_loss_per_leg") for report in reports])
        error = np.array([getattr(report, f"{name}_loss_per_leg_error") for report in reports])
        axes.plot(shots, loss, "-", color=colour, label=label)
        axes.fill_between(shots, loss - error, loss + error, color=colour, alpha=0.2, linewidth=0)
    axes.axhline(np.log(2), color="black", linewidth=0.8, linestyle=":", label="knows nothing (ln 2)")
    axes.set(xlabel="shots", ylabel="loss per leg (nats)")
    axes.legend(frameon=False)


def plot_committor_map(axes: Axes, x, y, committor, bins: int = 60):
    """Mean learned committor (n_frames,) of frames in the plane of two coordinates x, y (n_frames,).

    `bins` is the number of hexagons along x. Returns the PolyCollection, for a colour bar.
    """
    return axes.hexbin(
        x, y, C=committor, reduce_C_function=np.mean, gridsize=bins, cmap="coolwarm", vmin=0, vmax=1, linewidths=0.1
    )


def plot_disk(axes: Axes, centre, radius: float, label: str) -> None:
    """Outline and name of a state that is a disk."""
    axes.add_patch(Circle(centre, radius, fill=False, linewidth=1.5))
    axes.annotate(label, centre, ha="center", va="center")


def plot_periodic_path(axes: Axes, degrees, **style) -> None:
    """A path in the plane of two angles, degrees (n_frames, 2), without lines across the periodic boundary.

    `style` are keyword arguments of `Axes.plot`.
    """
    degrees = np.asarray(degrees, dtype=float)
    jumps = np.flatnonzero(np.abs(np.diff(degrees, axis=0)).max(axis=1) > 180) + 1
    for piece in np.split(degrees, jumps):
        axes.plot(piece[:, 0], piece[:, 1], **style)


def plot_acceptance_windows(axes: Axes, table: pd.DataFrame) -> None:
    """Fraction of accepted and of generated transition paths, and the expected one, in equal parts of a run.

    Expected is that of the model with the excess of generated paths among the shots before. Errors are those of independent
    shots, times what the correlation in the whole run brings. Each part has ten rows of the table at least.
    """
    table = table.assign(expected=expected_paths(table))
    parts = np.array_split(np.arange(len(table)), max(1, min(PARTS, len(table) // 10)))
    centres = [table["step"].iloc[rows].mean() for rows in parts]
    for column, style in (("generated", "o-"), ("accepted", "o-"), ("expected", "--")):
        tau = integrated_autocorrelation(table[column].astype(float), table["replica"], table["step"]).tau
        values = [table[column].iloc[rows].astype(float).dropna() for rows in parts]
        means = np.array([v.mean() for v in values])
        errors = [
            np.sqrt(m * (1 - m) / len(v) * np.fmax(2 * tau, 1)) if column != "expected" and len(v) else 0
            for m, v in zip(means, values, strict=True)
        ]
        axes.errorbar(centres, means, errors, fmt=style, color=COLOURS[column], label=column, capsize=2, markersize=4)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="MC step", ylabel="fraction of shots")
    axes.legend(frameon=False)


def plot_reliability(axes: Axes, calibration: Calibration) -> None:
    """Observed against predicted committor: points on the diagonal are a calibrated model."""
    table = calibration.table[calibration.table["legs"] > 0]
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    axes.errorbar(
        table["predicted"], table["observed"], table["observed_error"], fmt="o", color=COLOURS["generated"], capsize=2
    )
    if np.isfinite(calibration.slope):
        p = np.linspace(0.01, 0.99, 99)
        line = expit(calibration.intercept + calibration.slope * logit(p))
        text = f"slope {calibration.slope:.2f} ± {calibration.slope_error:.2f}"
        axes.plot(p, line, "--", color=COLOURS["expected"], label=text)
        axes.legend(frameon=False, loc="upper left")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.05, 1.05), xlabel="predicted before the shot", ylabel="observed fraction of legs")


def plot_path_times(axes: Axes, steps, times, chains, unit: str) -> None:
    """Duration of the current path after each step, chain by chain, and the running mean over all."""
    steps, times, chains = np.asarray(steps), np.asarray(times, dtype=float), np.asarray(chains)
    names = np.unique(chains)
    for name in names:
        mine = chains == name
        style = {"label": "current path"} if name == names[0] else {}
        axes.plot(steps[mine], times[mine], "-", linewidth=0.7, color="#7fa8c9", drawstyle="steps-post", **style)
    known = np.isfinite(times)
    running = np.cumsum(times[known]) / np.arange(1, known.sum() + 1)
    axes.plot(steps[known], running, color=COLOURS["expected"], linewidth=2, label="running mean")
    axes.set_yscale("log")
    axes.set(xlabel="MC step", ylabel=f"transition-path time ({unit})")
    axes.legend(frameon=False)


def plot_time_distribution(axes: Axes, times, unit: str) -> None:
    """Histogram of transition-path times in the order of the MC steps, for the whole run and its halves."""
    times = np.asarray(times, dtype=float)
    times = times[np.isfinite(times)]
    half = len(times) // 2
    shortest, longest = times.min(), times.max()
    if shortest == longest:
        shortest, longest = 0.9 * shortest, 1.1 * longest
    edges = np.geomspace(shortest, longest, min(25, max(6, len(times) // 10)))
    parts = (("first half", times[:half], "#e07b00"), ("second half", times[half:], "#1b6ca8"))
    axes.hist(times, edges, weights=np.full(len(times), 1 / len(times)), color="#cfdfeb", label="whole run")
    for label, part, colour in parts:
        weights = np.full(len(part), 1 / max(len(part), 1))
        axes.hist(part, edges, weights=weights, histtype="step", color=colour, linewidth=1.5, label=label)
    axes.set_xscale("log")
    axes.set(xlabel=f"transition-path time ({unit})", ylabel="fraction of the steps")
    axes.legend(frameon=False)


def plot_crossings(axes: Axes, points, labels, names: tuple[str, str]) -> None:
    """Where paths cross the transition state: points (n_paths, 2) in two descriptors with names, one colour per channel.

    `labels` (n_paths,) are the channels of the paths.
    """
    points, labels = np.asarray(points), np.asarray(labels)
    for channel in np.unique(labels):
        mine = labels == channel
        axes.scatter(
            *points[mine].T, s=18, color=CHANNEL_COLOURS[channel % len(CHANNEL_COLOURS)], label=f"channel {channel + 1}"
        )
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.legend(frameon=False)


def plot_channel_series(axes: Axes, steps, series, chains) -> None:
    """Channel of the current path after each step; chains lie side by side within the bar of a channel.

    Channels in `series` count from 0; -1 where the channel is not known.
    """
    steps, series, chains = np.asarray(steps), np.asarray(series), np.asarray(chains)
    names, n_channels = np.unique(chains), max(series.max(), 0) + 1
    height = 0.7 / len(names)
    for row, name in enumerate(names):
        mine_steps, mine = steps[chains == name], series[chains == name]
        starts = np.flatnonzero(np.diff(mine, prepend=-2))
        ends = [*mine_steps[starts[1:]], mine_steps[-1] + 1]
        for start, end in zip(starts, ends, strict=True):
            channel = mine[start]
            if channel >= 0:
                place = (channel + 0.65 + row * height, 0.9 * height)
                bar = [(mine_steps[start] - 0.5, end - mine_steps[start])]
                axes.broken_barh(bar, place, color=CHANNEL_COLOURS[channel % len(CHANNEL_COLOURS)], linewidth=0)
    axes.set_yticks(np.arange(n_channels) + 1)
    axes.set(ylim=(0.4, n_channels + 0.6), xlabel="MC step", ylabel="channel", xlim=(steps.min() - 1, steps.max() + 1))


def plot_agreement(axes: Axes, first, second, names: tuple[str, str]) -> None:
    """Committors (n,) of the same configurations under two models with names, one point each."""
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    axes.plot(first, second, ".", markersize=3, alpha=0.5)
    axes.set(xlabel=f"committor, {names[0]}", ylabel=f"committor, {names[1]}", xlim=(0, 1), ylim=(0, 1), aspect="equal")

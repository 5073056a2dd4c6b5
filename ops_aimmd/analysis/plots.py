"""Pictures of a run, drawn on matplotlib axes that the caller owns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from ops_aimmd.committor.training import FitReport

COLOURS = {"generated": "#1b6ca8", "expected": "#e07b00", "accepted": "#2a9d58"}


def plot_counts(axes: Axes, table: pd.DataFrame) -> None:
    """Cumulative number of transition paths: expected from the model before each shot, generated, and accepted.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    table : pandas.DataFrame
        From `step_table`.
    """
    for column, style in (("expected", "--"), ("generated", "-"), ("accepted", "-")):
        axes.plot(table["step"], table[column].astype(float).fillna(0).cumsum(), style, color=COLOURS[column], label=column)
    axes.set_xlabel("MC step")
    axes.set_ylabel("transition paths")
    axes.legend(frameon=False)


def plot_acceptance(axes: Axes, tables: Mapping[str, pd.DataFrame]) -> None:
    """Fraction of accepted and of generated transition paths of several runs, with standard errors of independent trials.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    tables : mapping of str to pandas.DataFrame
        Name of each run and its `step_table`.
    """
    positions = np.arange(len(tables))
    for offset, column in ((-0.2, "generated"), (0.2, "accepted")):
        values = [table[column].astype(float) for table in tables.values()]
        means = [v.mean() for v in values]
        errors = [np.sqrt(m * (1 - m) / len(v)) for m, v in zip(means, values, strict=True)]
        bars = axes.bar(positions + offset, means, 0.36, yerr=errors, color=COLOURS[column], label=column, capsize=3)
        axes.bar_label(bars, labels=[f"{mean:.2f}" for mean in means], padding=2, fontsize=9)
    axes.set_xticks(positions, list(tables))
    axes.set_ylabel("fraction of shots")
    axes.margins(y=0.18)
    axes.legend(frameon=False, loc="upper right")


def plot_loss(axes: Axes, reports: Sequence[FitReport]) -> None:
    """Training and held-out loss per leg against the number of shots.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    reports : sequence of FitReport
        `learner.reports`.
    """
    shots = [report.n_shots for report in reports]
    for label, name, colour in (("training", "train", "#888888"), ("held out", "held_out", "#b5332e")):
        loss = np.array([getattr(report, f"{name}_loss_per_leg") for report in reports])
        error = np.array([getattr(report, f"{name}_loss_per_leg_error") for report in reports])
        axes.plot(shots, loss, "-", color=colour, label=label)
        axes.fill_between(shots, loss - error, loss + error, color=colour, alpha=0.2, linewidth=0)
    axes.axhline(np.log(2), color="black", linewidth=0.8, linestyle=":", label="knows nothing (ln 2)")
    axes.set_xlabel("shots")
    axes.set_ylabel("loss per leg (nats)")
    axes.legend(frameon=False)


def plot_committor_map(axes: Axes, x, y, committor, bins: int = 60):
    """Mean learned committor of frames in the plane of two coordinates.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    x, y : array-like, shape (n_frames,)
        Coordinates of the frames.
    committor : array-like, shape (n_frames,)
    bins : int
        Hexagons along x.

    Returns
    -------
    matplotlib.collections.PolyCollection
        For a colour bar.
    """
    return axes.hexbin(
        x, y, C=committor, reduce_C_function=np.mean, gridsize=bins, cmap="coolwarm", vmin=0, vmax=1, linewidths=0.1
    )


def plot_disk(axes: Axes, centre, radius: float, label: str) -> None:
    """Outline and name of a state that is a disk.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    centre : (float, float)
    radius : float
    label : str
    """
    axes.add_patch(Circle(centre, radius, fill=False, linewidth=1.5))
    axes.annotate(label, centre, ha="center", va="center")


def plot_periodic_path(axes: Axes, degrees, **style) -> None:
    """A path in the plane of two angles, without lines across the periodic boundary.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    degrees : array-like, shape (n_frames, 2)
    style : keyword arguments of `Axes.plot`
    """
    degrees = np.asarray(degrees, dtype=float)
    jumps = np.flatnonzero(np.abs(np.diff(degrees, axis=0)).max(axis=1) > 180) + 1
    for piece in np.split(degrees, jumps):
        axes.plot(piece[:, 0], piece[:, 1], **style)

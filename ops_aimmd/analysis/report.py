"""A page about a run: warnings in words, numbers with their errors, pictures; one HTML file that needs nothing else.

From the command line: ``python -m ops_aimmd.analysis.report run.nc --checkpoint run.aimmd``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import ops_aimmd.analysis.html_page as page
import ops_aimmd.analysis.plots as plots
from ops_aimmd.analysis.channels import telling_descriptors
from ops_aimmd.analysis.health import Finding, Health, assess
from ops_aimmd.analysis.measures import PATH_LENGTH, TOO_SHORT, Efficiency, number_in_words, tau_in_words, with_error
from ops_aimmd.analysis.run_data import RunData, read_run


@dataclass(frozen=True)
class Picture:
    """A figure of the page: file name, title, what it shows, and how it is drawn."""

    name: str
    title: str
    caption: str
    draw: Callable[[Figure, Health], None]
    possible: Callable[[Health], bool]


def report(
    storage=None,
    checkpoint: str | os.PathLike | None = None,
    output: str | os.PathLike = "report.html",
    png_folder: str | os.PathLike | None = None,
    descriptors=None,
    states: Sequence | None = None,
    network=None,
    progress: bool = False,
) -> Health:
    """Write a page about a finished or running simulation: ``report("run.nc", checkpoint="run.aimmd")``.

    What was written by `TrainingHook` is used first: it is read in seconds. An OPS file alone, also one that was made
    without this package, is read step by step, and a committor is trained on its shots.

    Parameters
    ----------
    storage : openpathsampling.Storage, SimStore Storage, or path-like, optional
        The OPS file, netCDF or SimStore; only read.
    checkpoint : path-like, optional
        The checkpoint; only read. One of the two files is enough.
    output : path-like
        The HTML file; one that is there is replaced. It holds its pictures and needs no other file and no network.
    png_folder : path-like, optional
        Folder for the pictures as PNG files too; made if it is not there.
    descriptors : optional
        As for `ops_aimmd.CommittorLearner`; needed for an OPS file without checkpoint that does not hold them.
    states : sequence of openpathsampling.Volume, optional
        Needed for an OPS file that was made without a `CommittorLearner`.
    network : torch.nn.Module, optional
        Needed where the class of the network in the checkpoint is not from this package; see `ops_aimmd.load_learner`.
    progress : bool
        Show a progress bar while an OPS file is read.

    Returns
    -------
    Health
        The numbers of the page; ``print`` shows the warnings.

    Raises
    ------
    ValueError
        If there is neither file, no shot in them, they are of different runs, or states must be given.
    FileNotFoundError
    FileUnavailableError, ops_aimmd.storage.file_access.UnreadableFileError
        If the OPS file cannot be opened now, or is damaged, and there is no checkpoint.
    RuntimeError
        If this process has used an OPS file of the other kind.
    """
    health = assess(read_run(storage, checkpoint, descriptors, states, network, progress))
    write_page(health, output, png_folder)
    return health


def write_page(health: Health, output: str | os.PathLike, png_folder: str | os.PathLike | None = None) -> None:
    """Write the page of a run that was assessed, and its pictures as PNG files into a folder."""
    pictures = {
        picture: page.png_of(partial(picture.draw, health=health)) for picture in PICTURES if picture.possible(health)
    }
    if png_folder is not None:
        page.write_png_files(png_folder, {picture.name: png for picture, png in pictures.items()})
    run = health.run
    chains = f", {run.n_chains} chains" if run.n_chains > 1 else ""
    page.write_page(
        output,
        f"Path sampling: {run.name}",
        f"{' and '.join(run.states)}; {len(run.table)} shots{chains}",
        [
            *_verdict(health),
            page.heading("Numbers"),
            page.table(("", ""), _numbers(health)),
            *_tables(health),
            page.heading("Pictures"),
            page.figures(page.figure(picture.title, picture.caption, png) for picture, png in pictures.items()),
        ],
    )


# ---- words -----------------------------------------------------------------------------------------------------------


def _verdict(health: Health) -> Iterable[str]:
    if health.healthy:
        yield page.box(
            "good", "<p><strong>No warnings.</strong> All checks of this page are passed within their errors.</p>"
        )
    yield from (page.box("warning", _words("Warning", finding)) for finding in health.warnings)
    yield from (page.box("caution", _words("Cannot be told", finding)) for finding in health.cautions)
    yield from (page.box("note", f"<p>{escape(note)}</p>") for note in health.run.notes)


def _words(kind: str, finding: Finding) -> str:
    return (
        f"<p><strong>{kind}: {escape(finding.title)}.</strong> {escape(finding.seen)}</p>"
        f"<p>What to do: {escape(finding.advice)}</p>"
    )


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _numbers(health: Health) -> Iterable[tuple[str, str]]:
    run = health.run
    length = health.mixing[PATH_LENGTH]
    unit = run.time_unit
    n = len(run.table)
    yield "shots", f"{n}"
    yield "fraction accepted", health.accepted.in_full
    yield "fraction generated", health.generated.in_full
    yield "transition paths generated, expected (of independent legs)", _efficiency(health.efficiency)
    yield "the same, last half of the shots", _efficiency(health.recent_efficiency)
    for name, mixing in health.mixing.items():
        yield f"autocorrelation time of {name} (95 %)", tau_in_words(mixing)
    yield "independent paths (95 %)", number_in_words(length)
    yield f"mean transition-path time ({unit})", health.transition_time.in_full
    yield f"first half, second half ({unit})", f"{health.first_half.in_full}; {health.second_half.in_full}"
    if np.isfinite(run.table["frames"].astype(float)).any():
        yield "frames of dynamics", f"{run.table['frames'].astype(float).sum():.0f}"
    yield "legs, without an outcome", f"{health.n_legs}, {health.n_lost_legs}"
    adaptation = health.adaptation
    if adaptation.n_versions:
        yield "model versions used", f"{adaptation.n_versions}; the newest for {adaptation.shots_since_last} shots"
        frozen = adaptation.frozen_fraction
        yield "shots with adaptive, frozen model", f"{n * (1 - frozen):.0f}, {n * frozen:.0f}"
    if run.reports:
        last = run.reports[-1]
        yield "loss per leg, training", with_error(last.train_loss_per_leg, last.train_loss_per_leg_error)
        yield "loss per leg, held out", with_error(last.held_out_loss_per_leg, last.held_out_loss_per_leg_error)
    channels = health.channels
    if channels is not None and channels.n_channels > 1:
        rate = with_error(channels.switching_rate, channels.switching_rate_error)
        yield "channels, switches", f"{channels.n_channels}, {channels.n_switches} ({rate} per step)"
    elif channels is not None:
        yield "channels", "1"


def _efficiency(found: Efficiency | None) -> str:
    if found is None:
        return "no predictions"
    rate = found.generated / found.n_shots
    expected = f"{_told(found.expected, found.error)} ({found.of_independent_legs:.0f})"
    return f"{found.generated} ({rate:.2f} per shot), {expected}"


def _tables(health: Health) -> Iterable[str]:
    rows = [(f"{state}, before the shots", *_calibration(result)) for state, result in health.on_the_fly.items()]
    rows += [(f"{state}, trained on them", *_calibration(result)) for state, result in health.trained.items()]
    if rows:
        heads = ("committor of", "shots", "slope (1)", "intercept (0)", "correlation of legs", "loss per leg", "floor")
        yield page.heading("Calibration") + "\n" + page.table(heads, rows)
        yield (
            '<p class="about">In brackets what a right model has. Predictions made before the last half of the shots; and '
            "those of the newest model for all shots, which it was trained on. The correlation of the two legs of a shot "
            "is by the predictions before the shots: below 0 by inertia, above 0 where the model is rough or the "
            "descriptors miss something. No true model loses less than the floor, which contains a correlation below 0.</p>"
        )
    channels = health.channels
    if channels is not None and channels.n_channels > 1:
        paths = np.bincount(channels.labels)
        rows = [
            (str(k + 1), str(paths[k]), with_error(channels.populations[k], channels.population_errors[k]))
            for k in range(channels.n_channels)
        ]
        yield page.heading("Channels") + "\n" + page.table(("channel", "distinct paths", "share of the steps"), rows)
    if health.states:
        rows = [
            (state.name, f"{state.inside:.3f}", f"{state.boundary:.3f}", f"{state.dwell:.1f}") for state in health.states
        ]
        heads = ("state", "its committor inside", "in the last frame before it", "time in its basin / time of the crossing")
        yield page.heading("States") + "\n" + page.table(heads, rows)


def _calibration(result) -> tuple[str, ...]:
    return (
        f"{result.n_shots}",
        _told(result.slope, result.slope_error),
        _told(result.intercept, result.intercept_error),
        _told(result.leg_correlation, result.leg_correlation_error),
        _told(result.loss_per_leg, result.loss_per_leg_error),
        f"{result.loss_floor:.3f}",
    )


def _told(value: float, error: float) -> str:
    """A number with its error, or in words that the shots are too few to tell the error."""
    known = np.isfinite(error) or not np.isfinite(value)
    return with_error(value, error) if known else f"{value:.2f} (error: {TOO_SHORT})"


# ---- pictures --------------------------------------------------------------------------------------------------------


def _times(run: RunData) -> pd.Series:
    return (run.table["path_length"].astype(float) - 1) * run.time_per_frame


def _draw_reliability(figure: Figure, health: Health) -> None:
    panels = np.atleast_1d(figure.subplots(1, len(health.on_the_fly), sharey=True))
    for axes, (state, result) in zip(panels, health.on_the_fly.items(), strict=True):
        plots.plot_reliability(axes, result)
        axes.set_title(_plain(f"committor of {state}"), fontsize=10)


def _draw_channels(figure: Figure, health: Health) -> None:
    channels, run = health.channels, health.run
    x, y = [*telling_descriptors(channels), 0][:2]
    above, below = figure.subplots(2, 1, height_ratios=(3, 1))
    names = (_plain(run.descriptor_names[x]), _plain(run.descriptor_names[y]))
    plots.plot_crossings(above, channels.points[:, [x, y]], channels.labels, names)
    plots.plot_channel_series(below, run.table["step"], channels.series, run.chains)


def _plain(text: str) -> str:
    """matplotlib takes what stands between dollars for a formula."""
    return text.replace("$", r"\$")


PICTURES = (
    Picture(
        "counts",
        "Expected and generated transition paths",
        "Expected from the predictions before each shot, generated, and accepted. Dashed: with the excess of generated "
        "paths among all shots before, which inertia brings. Dotted: 2 p (1 - p), of independent legs.",
        lambda figure, health: plots.plot_counts(figure.subplots(), health.run.table),
        lambda health: health.efficiency is not None,
    ),
    Picture(
        "acceptance",
        "Efficiency of shooting",
        "Fractions in equal parts of the run, with errors by the correlation of the shots.",
        lambda figure, health: plots.plot_acceptance_windows(figure.subplots(), health.run.table),
        lambda health: True,
    ),
    Picture(
        "loss",
        "Learning",
        "Loss per leg of the shots that the model was trained on, and of those held out. Far apart: over-fitted.",
        lambda figure, health: plots.plot_loss(figure.subplots(), health.run.reports),
        lambda health: len(health.run.reports) > 0,
    ),
    Picture(
        "reliability",
        "Calibration of the committor",
        "Outcomes of the last half of the shots against what was predicted before each. On the diagonal: calibrated.",
        _draw_reliability,
        lambda health: len(health.on_the_fly) > 0,
    ),
    Picture(
        "path_times",
        "Transition-path time in the course of the run",
        "Long stretches of the same value are paths that were not replaced. The mean has converged when it stays.",
        lambda figure, health: plots.plot_path_times(
            figure.subplots(), health.run.table["step"], _times(health.run), health.run.chains, health.run.time_unit
        ),
        lambda health: bool(np.isfinite(_times(health.run)).any()),
    ),
    Picture(
        "path_time_distribution",
        "Distribution of the transition-path time",
        "Over the MC steps. The two halves agree when the run is long enough.",
        lambda figure, health: plots.plot_time_distribution(figure.subplots(), _times(health.run), health.run.time_unit),
        lambda health: bool(np.isfinite(_times(health.run)).any()),
    ),
    Picture(
        "channels",
        "Channels",
        "Above: where the paths cross the transition state (p = 1/2), in the two descriptors in which the channels differ "
        "most or, of one channel, that vary most. Below: the channel of the current path after each step.",
        _draw_channels,
        lambda health: health.channels is not None and health.channels.n_channels > 0,
    ),
)


# ---- command line ----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """``ops-aimmd-report run.nc --checkpoint run.aimmd``: write the page, and say what is wrong; 0, also with warnings."""
    parser = argparse.ArgumentParser(prog="ops-aimmd-report", description="Write a page about a path sampling run.")

    def make(options) -> Health:
        return report(options.storage, options.checkpoint, options.output, options.png_folder, progress=True)

    return page.run_command(parser, arguments, "report.html", make)


if __name__ == "__main__":
    raise SystemExit(main())

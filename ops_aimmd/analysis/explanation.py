"""From a run to a formula: which inputs matter, and what short formula says what the shots say; one HTML page.

From the command line: ``ops-aimmd-explain run.nc --checkpoint run.aimmd``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import ops_aimmd.analysis.html_page as page
import ops_aimmd.analysis.plots as plots
from ops_aimmd.analysis.measures import with_error
from ops_aimmd.analysis.run_data import RunData, read_run
from ops_aimmd.explain.formulas.fit_expressions import fit_expressions
from ops_aimmd.explain.formulas.front import Front
from ops_aimmd.explain.formulas.state_fronts import StateFronts
from ops_aimmd.explain.inputs.relevance import input_relevance
from ops_aimmd.explain.inputs.relevance_plots import plot_relevance

SIGNIFICANT = 2.0
"""Standard errors above zero from which an input counts as relevant."""

FEW_SHOTS = 200
"""Fewer shots hardly carry an explanation."""

FEWEST_GROUPS = 5
"""Groups of inputs among which formulas are searched in any case, the most relevant ones."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a run has learned, in a table and a formula.

    Attributes
    ----------
    run : RunData
        Shots, model and names of the descriptors.
    relevance : pandas.DataFrame
        Result of `input_relevance`.
    inputs : list of str
        Descriptors among which formulas were searched.
    front : Front or StateFronts
        Result of `fit_expressions`; ``front.best`` is the formula that was picked.
    """

    run: RunData
    relevance: pd.DataFrame
    inputs: list[str]
    front: Front | StateFronts

    @property
    def fronts(self) -> dict[str, Front]:
        """The front of each state but the first, by the name of the state."""
        fronts = self.front.fronts if isinstance(self.front, StateFronts) else (self.front,)
        return dict(zip(self.run.states[1:], fronts, strict=True))

    @property
    def warnings(self) -> list[str]:
        """Reservations about the result, one sentence each."""
        n_shots = len(self.run.training_set)
        found = [] if n_shots >= FEW_SHOTS else [f"{n_shots} shots are few: expect other inputs and formulas with more"]
        relevant = (self.relevance["loss_increase"] > SIGNIFICANT * self.relevance["standard_error"]).any()
        for state, front in self.fronts.items():
            if front.best.variables:
                continue
            if relevant:
                found.append(
                    f"inputs matter, but the shots do not yet pay for a formula of {state}: look at the other formulas of "
                    "the front, or make more shots"
                )
            else:
                found.append("no input matters: make more shots, or use descriptors that know more of the reaction")
        return found

    def __str__(self) -> str:
        shots, attrs = self.run.training_set, self.relevance.attrs
        legs = shots.counts.sum() / len(shots)
        loss = with_error(attrs["held_out_loss"] / legs, attrs["held_out_loss_error"] / legs)
        lines = [f"{self.run.name}: {len(shots)} shots; the network loses {loss} nats per held-out leg"]
        for name, row in self.relevance.head(FEWEST_GROUPS).iterrows():
            increase = with_error(row.loss_increase / legs, row.standard_error / legs)
            lines.append(f"  {name}: {increase} more without it")
        for state, front in self.fronts.items():
            best = front.best
            loss = with_error(best.cross_validated_loss, best.cross_validated_error)
            lines.append(f"log-odds of {state} = {best}   (loses {loss} per held-out leg)")
        lines += [f"WARNING {warning}" for warning in self.warnings]
        return "\n".join(lines)


def explain_run(
    storage=None,
    checkpoint: str | os.PathLike | None = None,
    output: str | os.PathLike | None = "explanation.html",
    png_folder: str | os.PathLike | None = None,
    groups=None,
    inputs: Sequence[str] | Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    time_limit: float = 20.0,
    seed: int | None = None,
    engine: str = "score",
    n_candidates: int | None = None,
    descriptors=None,
    states: Sequence | None = None,
    network=None,
    progress: bool = False,
) -> Explanation:
    """Ask a run what it has learned: ``explain_run(checkpoint="run.aimmd")``.

    The relevance of all inputs is measured on held-out shots. Formulas are then searched among those that matter
    significantly, those that are correlated with them, and at least the five most relevant groups.

    Parameters
    ----------
    storage : openpathsampling.Storage, SimStore Storage, or path-like, optional
        The OPS file; only read.
    checkpoint : path-like, optional
        The checkpoint; only read. One of the two files is enough.
    output : path-like or None
        The HTML page; one that is there is replaced. None: no page.
    png_folder : path-like, optional
        Folder for the pictures as PNG files too.
    groups : optional
        Groups of inputs, as for `input_relevance`: "inputs", "bonds", "centres", "correlation", or a mapping.
    inputs : sequence of str or int, optional
        Descriptors for the formulas, by name or column, in place of those that are found relevant.
    names : sequence of str, optional
        Names of all descriptors, in place of those that the run knows.
    time_limit : float
        CPU seconds for the formulas.
    seed : int, optional
        Seed of the replacements and of the search. The time limit cuts the search elsewhere each time: give `n_candidates`,
        and time enough, for the same formulas twice.
    engine, n_candidates
        See `fit_expressions`.
    descriptors, states, network
        As for `ops_aimmd.report`.
    progress : bool
        Show progress bars.

    Returns
    -------
    Explanation
        ``print`` shows the inputs and the formula.

    Raises
    ------
    ValueError
        If there is no model in the run or its shots are too few; and as `ops_aimmd.report`, `input_relevance` and
        `fit_expressions` do.
    """
    if output is not None and not Path(output).parent.is_dir():
        raise FileNotFoundError(f"there is no folder {Path(output).parent} for the page {Path(output).name}")
    if png_folder is not None and Path(png_folder).is_file():
        raise NotADirectoryError(f"{png_folder} is a file, expected a folder for the pictures")
    run = read_run(storage, checkpoint, descriptors, states, network, progress)
    if run.model is None:
        raise ValueError(f"nothing was learned from {run.name}: give its descriptors (descriptors=...) or its checkpoint")
    if names is not None:
        run = replace(run, descriptor_names=list(names))
    search = {"time_limit": time_limit, "engine": engine, "n_candidates": n_candidates}
    explanation = explanation_of(run, groups, inputs, seed, progress, **search)
    if output is not None:
        write_explanation(explanation, output, png_folder)
    return explanation


def explanation_of(run: RunData, groups=None, inputs=None, seed=None, progress: bool = False, **search) -> Explanation:
    """Relevance and formulas of a run that was read; arguments as for `explain_run`, `search` as for `fit_expressions`."""
    names = list(run.descriptor_names)
    relevance = input_relevance(run.model, run.training_set, groups=groups, seed=seed, names=names)
    chosen = relevant_inputs(relevance, names) if inputs is None else list(inputs)
    front = fit_expressions(run.training_set, run.model, chosen, seed=seed, names=names, progress=progress, **search)
    return Explanation(run, relevance, [names[i] if isinstance(i, Integral) else i for i in chosen], front)


def relevant_inputs(relevance: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Inputs of the groups that matter, of those that are correlated with these, and of the first groups of the table."""
    matters = (relevance["loss_increase"] > SIGNIFICANT * relevance["standard_error"]).to_numpy()
    matters[:FEWEST_GROUPS] = True
    labels = set(relevance["correlated"][matters])
    chosen = {name for row in relevance["inputs"][relevance["correlated"].isin(labels)] for name in row.split(", ")}
    return [name for name in names if name in chosen]


def write_explanation(
    explanation: Explanation, output: str | os.PathLike, png_folder: str | os.PathLike | None = None
) -> None:
    """Write the page of an explanation, and its pictures as PNG files into a folder."""
    run, warnings = explanation.run, explanation.warnings
    shown = min(len(explanation.relevance), 25)
    pictures = {
        "relevance": (
            "Which inputs matter",
            "Increase of the loss of held-out shots when an input is given the values of other shots, with two standard "
            "errors. Inputs in one grey band are correlated: only their sum means something.",
            page.png_of(lambda figure: plot_relevance(explanation.relevance, figure.subplots()), (6.0, 1.6 + 0.25 * shown)),
        )
    }
    for state, front in explanation.fronts.items():
        pictures[f"front_{state}" if len(explanation.fronts) > 1 else "front"] = (
            f"Formulas for {state}",
            "Loss against size. A longer formula pays if it loses less on held-out shots too.",
            page.png_of(lambda figure, front=front: front.plot(figure.subplots())),
        )
    if len(run.states) == 2:
        pictures["formula_and_network"] = (
            "The formula and the network",
            "Committor of both for all shooting points. They agree on the diagonal.",
            page.png_of(lambda figure: _draw_agreement(figure, explanation), (5.0, 4.5)),
        )
    if png_folder is not None:
        page.write_png_files(png_folder, {name: png for name, (_, _, png) in pictures.items()})
    page.write_page(
        output,
        f"What was learned: {run.name}",
        f"{' and '.join(run.states)}; {len(run.training_set)} shots, {len(run.descriptor_names)} descriptors",
        [
            *(page.box("warning", f"<p><strong>{escape(text[:1].upper() + text[1:])}.</strong></p>") for text in warnings),
            *_formulas(explanation),
            page.heading("Inputs"),
            _relevance_table(explanation.relevance),
            page.heading("Formulas"),
            *(_front_table(front) for front in explanation.fronts.values()),
            page.heading("Pictures"),
            page.figures(page.figure(*picture) for picture in pictures.values()),
        ],
    )


def _formulas(explanation: Explanation) -> Iterable[str]:
    for state, front in explanation.fronts.items():
        best = front.best
        loss = with_error(best.cross_validated_loss, best.cross_validated_error)
        yield page.box(
            "good",
            f"<p><strong>Log-odds of {escape(state)}</strong> = {escape(str(best))}</p>"
            f"<p>LaTeX: <code>{escape(best.latex())}</code></p>"
            f"<p>Loss per held-out leg {escape(loss)} nats; picked by {escape(front.picked_by.replace('_', ' '))} among "
            f"{front.n_tried} candidates. Other formulas of the table may be as good: it is a description of the shots, "
            "not a law.</p>",
        )
        if not np.isnan(front.network_loss_per_leg) and front.network_loss_per_leg < best.loss_per_leg - _margin(best):
            yield page.box(
                "caution",
                f"<p><strong>The network says more.</strong> On the shots that both were fitted to it loses "
                f"{front.network_loss_per_leg:.3f} per leg, the formula {best.loss_per_leg:.3f}.</p>"
                "<p>What to do: look at the longer formulas, allow more time, or more inputs. The network may also be "
                "over-fitted: its loss on held-out shots is in the report.</p>",
            )


def _margin(best) -> float:
    return SIGNIFICANT * best.cross_validated_error if np.isfinite(best.cross_validated_error) else 0.0


def _relevance_table(relevance: pd.DataFrame) -> str:
    rows = [
        (
            str(name),
            with_error(row.loss_increase, row.standard_error),
            with_error(row.conditional_increase, row.conditional_error),
            with_error(row.gradient, row.gradient_error),
            str(row.correlated),
        )
        for name, row in relevance.head(25).iterrows()
    ]
    heads = (
        "input",
        "loss increase (nats per shot)",
        "given the others (nats per shot)",
        "gradient x spread",
        "correlated group",
    )
    return page.table(heads, rows)


def _front_table(front: Front) -> str:
    rows = [
        (
            f"{formula.size}{' (picked)' if formula is front.best else ''}",
            f"{formula.loss_per_leg:.4f}",
            with_error(formula.cross_validated_loss, formula.cross_validated_error),
            f"{formula.description_length:.1f}",
            str(formula),
        )
        for formula in front
    ]
    return page.table(("size", "loss (nats per leg)", "held out (nats per leg)", "description length", "log-odds"), rows)


def _draw_agreement(figure: Figure, explanation: Explanation) -> None:
    shots = explanation.run.training_set.descriptors
    network, formula = explanation.run.model.committor(shots), explanation.front.best.committor(shots)
    plots.plot_agreement(figure.subplots(), network, formula, ("network", "formula"))


def main(arguments: Sequence[str] | None = None) -> int:
    """``ops-aimmd-explain run.nc --checkpoint run.aimmd``: write the page, and print the formula."""
    parser = argparse.ArgumentParser(prog="ops-aimmd-explain", description="Say what a path sampling run has learned.")
    parser.add_argument("--groups", choices=["inputs", "bonds", "centres", "correlation"], help="of inputs")
    parser.add_argument("--seconds", type=float, default=20.0, help="CPU time for the formulas (default: %(default)s)")
    parser.add_argument("--seed", type=int)

    def make(options) -> Explanation:
        files = options.storage, options.checkpoint, options.output, options.png_folder
        search = {"groups": options.groups, "time_limit": options.seconds, "seed": options.seed}
        return explain_run(*files, **search, progress=True)

    return page.run_command(parser, arguments, "explanation.html", make)


if __name__ == "__main__":
    raise SystemExit(main())

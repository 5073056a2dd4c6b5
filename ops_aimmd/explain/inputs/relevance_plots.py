"""Pictures of relevance: bars for inputs, and a drawing of the molecule with its atoms coloured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ops_aimmd.descriptors.topology import as_mdtraj

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOUR, CONDITIONAL_COLOUR, BAND = "#1b6ca8", "#e07b00", "#eef1f4"

N_SIGMA = 2.0
"""Length of error bars in standard errors: where the line touches zero, the input may be irrelevant."""


def plot_relevance(table: pd.DataFrame, axes=None, at_most: int = 25) -> Axes:
    """Bars of the loss increase by permutation, with the conditional one as points; correlated groups side by side.

    Bars are pale where they are less than two standard errors above zero; lines are two standard errors. Groups of
    inputs that correlate with each other lie in one grey band, marked "correlated", since only their sum means something;
    bands are sorted by their largest bar.

    Parameters
    ----------
    table : pandas.DataFrame
        From `input_relevance`.
    axes : matplotlib.axes.Axes, optional
        A new figure by default.
    at_most : int
        Rows drawn.

    Raises
    ------
    ValueError
        If the table has no permutation.
    """
    import matplotlib.pyplot as plt

    if "loss_increase" not in table:
        raise ValueError(
            f'the table needs the method "permutation" of input_relevance; its columns are {list(table.columns)}'
        )
    bands = table.groupby("correlated")["loss_increase"].transform("max")
    order = np.lexsort((-table["loss_increase"], table["correlated"], -bands))
    shown = table.iloc[order[:at_most]]
    rows = np.arange(len(shown))
    if axes is None:
        axes = plt.subplots(figsize=(6.4, 1.2 + 0.3 * len(shown)), layout="constrained")[1]
    colours = np.where(shown["loss_increase"] > N_SIGMA * shown["standard_error"], COLOUR, "#9fb6c8")
    axes.barh(rows - 0.1, shown["loss_increase"], 0.5, color=colours, xerr=N_SIGMA * shown["standard_error"], capsize=2)
    if "conditional_increase" in shown:
        points = {"fmt": "o", "markersize": 3, "color": CONDITIONAL_COLOUR, "label": "given the other inputs"}
        error = N_SIGMA * shown["conditional_error"]
        axes.errorbar(shown["conditional_increase"], rows + 0.3, xerr=error, **points)
        axes.legend(frameon=False, loc="lower right")
    _mark_correlated(axes, shown["correlated"].to_numpy())
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(rows, shown.index)
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel="increase of the loss (nats per shot)")
    return axes


def plot_atom_relevance(relevance, topology, positions, atoms=None, figure=None) -> Figure:
    """Bars per atom, and the molecule in the plane of its two long axes with the atoms coloured by relevance.

    Parameters
    ----------
    relevance : array, shape (n_atoms,)
        Per nm, from `mean_over_frames`.
    topology : mdtraj.Topology or openmm.app.Topology
        With bonds.
    positions : array, shape (n_atoms, 3)
        One frame, molecules whole.
    atoms : sequence of int, optional
        Those to draw; all by default.
    figure : matplotlib.figure.Figure, optional
        A new one by default.

    Raises
    ------
    ValueError
        If the shapes do not fit the topology.
    """
    import matplotlib.pyplot as plt

    topology = as_mdtraj(topology)
    relevance, positions = np.asarray(relevance, dtype=float), np.asarray(positions, dtype=float)
    if relevance.shape != (topology.n_atoms,) or positions.shape != (topology.n_atoms, 3):
        raise ValueError(
            f"the topology has {topology.n_atoms} atoms; got relevance of shape {relevance.shape} and positions of shape "
            f"{positions.shape}, expected ({topology.n_atoms},) and ({topology.n_atoms}, 3)"
        )
    atoms = np.arange(topology.n_atoms) if atoms is None else np.asarray(atoms)
    figure = plt.figure(figsize=(11, 4.8), layout="constrained") if figure is None else figure
    bars, drawing = figure.subplots(1, 2, width_ratios=(1, 1.1))
    colour = plt.Normalize(0, relevance[atoms].max())
    palette = plt.get_cmap("YlOrRd")
    bars.bar(
        np.arange(len(atoms)), relevance[atoms], color=palette(colour(relevance[atoms])), edgecolor="#555555", linewidth=0.5
    )
    labels = [f"{topology.atom(int(i)).residue.name} {topology.atom(int(i)).name}" for i in atoms]
    bars.set_xticks(np.arange(len(atoms)), labels, rotation=90, fontsize=8)
    bars.set_ylabel("gradient of the log-odds (1/nm)")
    _draw_molecule(drawing, topology, positions, atoms, palette(colour(relevance[atoms])))
    figure.colorbar(plt.cm.ScalarMappable(colour, palette), ax=drawing, label="gradient of the log-odds (1/nm)", shrink=0.8)
    return figure


def _draw_molecule(axes, topology, positions, atoms, colours):
    centred = positions[atoms] - positions[atoms].mean(axis=0)
    plane = centred @ np.linalg.svd(centred, full_matrices=False)[2].T
    at = dict(zip(atoms.tolist(), plane[:, :2], strict=True))
    for bond in topology.bonds:
        ends = bond.atom1.index, bond.atom2.index
        if all(end in at for end in ends):
            axes.plot(*np.array([at[end] for end in ends]).T, color="#888888", linewidth=1.5, zorder=1)
    sizes = [110 if topology.atom(int(i)).element.symbol == "H" else 380 for i in atoms]
    # far atoms first: near ones lie on top
    order = np.argsort(plane[:, 2])
    axes.scatter(
        *plane[order, :2].T, s=np.array(sizes)[order], color=colours[order], edgecolors="#555555", linewidths=0.8, zorder=2
    )
    for i, colour in zip(atoms, colours, strict=True):
        if topology.atom(int(i)).element.symbol != "H":
            ink = "black" if np.mean(colour[:3]) > 0.4 else "white"
            axes.annotate(topology.atom(int(i)).name, at[int(i)], ha="center", va="center", fontsize=7, color=ink, zorder=3)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.margins(0.12)


def _mark_correlated(axes, labels: np.ndarray) -> None:
    """A band behind neighbouring rows of one label."""
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(labels)], strict=True):
        if end - start > 1:
            axes.axhspan(start - 0.44, end - 0.6, color=BAND, zorder=0)
            style = {"ha": "right", "va": "center", "fontsize": 8, "color": "#667788"}
            axes.annotate("correlated", (0.995, (start + end - 1) / 2), xycoords=axes.get_yaxis_transform(), **style)

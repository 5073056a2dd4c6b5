"""Checks of an estimate against itself: what a referee asks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from ops_aimmd.reweighting.equilibrium import Equilibrium, reweight
from ops_aimmd.reweighting.excursions import EXCHANGE, FREE, SHOT, Excursions

REFUSED = 1e-3
"""Probability of a chi-square below which observation and estimate disagree: one in 1000 right estimates is refused."""

SETTINGS = dict(fewest=0.0, n_replicates=100)
"""Alternatives rest on a part of the data: they are shown with their errors however large these are."""


@dataclass(frozen=True)
class Agreement:
    """A chi-square test.

    Attributes
    ----------
    observed, implied : array, shape (b,)
    error : array, shape (b,)
        Standard error of the difference.
    chi_square : float
    probability : float
        Probability of a chi-square at least as large if both agree.
    """

    observed: np.ndarray
    implied: np.ndarray
    error: np.ndarray
    chi_square: float
    probability: float

    @property
    def passed(self) -> bool:
        return self.probability >= REFUSED


def agreement(observed, implied, differences) -> Agreement:
    """Test two estimates (b,) against each other with replicates (r, b) of their difference."""
    covariance = np.atleast_2d(np.cov(differences, rowvar=False))
    values, vectors = np.linalg.eigh(covariance)
    known = values > 1e-9 * values.max(initial=0)
    projected = vectors[:, known].T @ (observed - implied)
    chi_square = float((projected**2 / values[known]).sum())
    n = int(known.sum())
    return Agreement(
        observed, implied, np.sqrt(np.diag(covariance)), chi_square, float(chdtrc(n, chi_square)) if n else 1.0
    )


def transition_path_check(
    estimate: Equilibrium, states: tuple[int, int] = (0, 1), n_bins: int = 6, window: float = 4.0
) -> Agreement:
    r"""Probability P(TP|q) of a transition path through frames at log-odds q: that of shots, against that of W.

    Bins hold equally many shots. Observed is the share of transitions among the shots from a bin, each with the weight
    1/(P_sel t) that makes its shooting point one of equilibrium. The estimate implies
    :math:`\sum_i W_i [X_i \text{ is a transition}] n_i / \sum_i W_i n_i` with n the frames in the bin.

    Parameters
    ----------
    estimate : Equilibrium
    states : (int, int)
        q is the log-odds of the second against the first.
    n_bins : int
    window : float
        Shots from points with abs(q) beyond it are left out: few of them succeed, and their weights differ much.
    """
    x, used = estimate.excursions, estimate.used
    first, second = states
    rows = np.flatnonzero((x.kind == SHOT) & used)
    point = x.point_log_committor[rows, second] - x.point_log_committor[rows, first]
    rows, point = rows[np.abs(point) < window], point[np.abs(point) < window]
    edges = np.unique(np.quantile(point, np.linspace(0, 1, n_bins + 1))) if len(rows) else point
    if len(edges) < 2:
        raise ValueError(f"{len(rows)} shots start from {len(edges)} different log-odds; at least 2 are needed for a bin")
    n_bins = len(edges) - 1
    place = np.clip(np.searchsorted(edges, point, side="right") - 1, 0, n_bins - 1)
    log_t = np.full(len(used), np.nan)
    log_t[used] = estimate.ensembles.point_log_t
    equilibrium = -x.log_selection_probability[rows] - log_t[rows]
    equilibrium = np.exp(equilibrium - equilibrium.max())
    q = x.log_committor[:, second] - x.log_committor[:, first]
    inside = (q >= edges[0]) & (q <= edges[-1])
    places = np.clip(np.searchsorted(edges, q[inside], side="right") - 1, 0, n_bins - 1)
    frames = np.bincount(x.owner[inside] * n_bins + places, x.frame_weights[inside], minlength=len(x.kind) * n_bins)
    frames = frames.reshape(-1, n_bins)
    transition = x.is_transition()

    def both(weights, repeats):
        drawn = repeats[:, rows] * equilibrium
        observed = (drawn * transition[rows]) @ of_bin / (drawn @ of_bin)
        return observed, (weights * transition) @ frames / (weights @ frames)

    of_bin = (place[:, None] == np.arange(n_bins)).astype(float)
    observed, implied = (each[0] for each in both(estimate.weights[None], np.ones((1, len(used)))))
    with np.errstate(invalid="ignore", divide="ignore"):
        differences = np.subtract(*both(*estimate.replicates))
    return agreement(observed, implied, differences[np.isfinite(differences).all(axis=1)])


def rates_of_parts(excursions: Excursions, **settings) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rates, and errors of their logarithms, from parts of the data and with other choices.

    Shots alone, exchange shots alone, windows of 2 and 4 log-odds, t fitted in-sample, both halves of the run, each chain.

    Parameters
    ----------
    excursions : Excursions
    **settings
        For `reweight`.

    Returns
    -------
    dict of str to (array, array), shapes (n_states, n_states)
        What cannot be estimated is missing.
    """
    x, free = excursions, excursions.kind == FREE
    steered = ~free
    everything = np.ones(len(free), bool)
    halves = find_halves(x)
    choices: dict[str, tuple[np.ndarray, dict]] = {
        "all": (everything, {}),
        "shots alone": (free | (x.kind == SHOT), {}),
        "exchange shots alone": (free | (x.kind == EXCHANGE), {}),
        "|q| < 2": (everything, {"window": 2.0}),
        "|q| < 4": (everything, {"window": 4.0}),
        "t in-sample": (everything, {"n_folds": 1}),
        "first half": (halves == 0, {}),
        "second half": (halves == 1, {}),
    }
    for chain in np.unique(x.chain[steered]):
        choices[f"chain {chain}"] = (free | (steered & (x.chain == chain)), {})
    found = {}
    for name, (rows, changes) in choices.items():
        try:
            estimate = reweight(x.chosen(rows), **{**SETTINGS, **settings, **changes})
        except ValueError:  # a part may lack a kind of excursions
            continue
        found[name] = (estimate.rates, estimate.log_error())
    return found


def find_halves(excursions: Excursions) -> np.ndarray:
    """0 or 1 for the first and second half of each chain, and of each free run, int array (n,)."""
    x = excursions
    found = np.zeros(len(x.kind), int)
    for is_free in (False, True):
        rows = np.flatnonzero((x.kind == FREE) == is_free)
        order = rows[np.lexsort((x.step[rows], x.chain[rows]))]
        chains = x.chain[order]
        first = np.searchsorted(chains, chains)
        last = np.searchsorted(chains, chains, side="right")
        found[order] = (2 * (np.arange(len(order)) - first) >= last - first).astype(int)
    return found


@dataclass(frozen=True)
class Channels:
    """Whether the chains agree on the reaction channels.

    Attributes
    ----------
    shares : dict of int to dict of int to float
        Share of the transitions of each chain in each channel.
    equilibrated : bool
        False if a chain has never left its first channel although there are others.
    note : str
        What to do.
    """

    shares: dict[int, dict[int, float]]
    equilibrated: bool
    note: str


def channel_check(excursions: Excursions) -> Channels:
    """Channels that the transitions of each chain went through, by `Excursions.channel`.

    Raises
    ------
    ValueError
        If no transition of a shot has a channel.
    """
    x = excursions
    rows = (x.kind != FREE) & x.is_transition() & (x.channel >= 0)
    if not rows.any():
        raise ValueError(
            "no transition of a shot has a channel; give Excursions.channel (analysis.find_channels finds them)"
        )
    shares = {}
    for chain in np.unique(x.chain[rows]).tolist():
        names, numbers = np.unique(x.channel[rows & (x.chain == chain)], return_counts=True)
        shares[chain] = dict(zip(names.tolist(), (numbers / numbers.sum()).tolist(), strict=True))
    stuck = [chain for chain, of in shares.items() if len(of) == 1]
    several = len({name for of in shares.values() for name in of}) > 1
    if several and stuck:
        note = (
            f"channels not equilibrated: chains {stuck} never left their first channel; make longer chains with "
            f"exchange of "
            "shooting points, and compare the rate per chain"
        )
    elif len(shares) == 1 and stuck:
        note = "one chain in one channel: other channels are unknown; start chains from different first paths"
    else:
        note = "every chain has visited several channels" if several else "all chains are in the same channel"
    return Channels(shares, not (several and stuck), note)

r"""Densities S of the ensembles that excursions were drawn from, and the weight c of each in its own.

An excursion X occurs in equilibrium with a frequency :math:`\mu(X)`; X and its reverse count as one. It was drawn from

- :math:`\mu(X) S(X)`, :math:`S = \sum_{x \in X} u(x) t(x)`, with :math:`c = u(x)/P_{\mathrm{sel}}(x|Y)`, by a shot from
  the frame x of a path Y of the path ensemble. A path ensemble has frames x with the density :math:`\rho(x) t(x)`; c
  turns the frames that were picked into those of :math:`\rho t u`; and a path through x with fresh velocities has the
  probability :math:`\mu(X)/\rho(x)`. Any u >= 0 will do, but for the precision;
- :math:`\mu(X) V(X)`, :math:`V = \sum_{x \in X} v(x)`, c = 1, by an exchange shot from a configuration distributed as
  :math:`\rho v`, with no assumption on the committor;
- :math:`\mu(X) d_s(X)`, :math:`d_s` = half the number of ends of X in state s, c = 1, by a free run that was in s.

Paths over the length limit of shots are in none of the first two: their weight comes from free runs.

References: E. Lazzeri, H. Jung, P. G. Bolhuis, R. Covino, J. Chem. Theory Comput. 19, 9060 (2023),
doi:10.1021/acs.jctc.3c00821 (reweighting of committor-guided shots); J. Rogal, W. Lechner, J. Juraszek, B. Ensing, P. G.
Bolhuis, J. Chem. Phys. 133, 174109 (2010), doi:10.1063/1.3491817 (reweighted path ensemble).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ops_aimmd.committor.correlated_shots import Folds
from ops_aimmd.reweighting.excursions import EXCHANGE, FREE, SHOT, Excursions
from ops_aimmd.reweighting.transition_probability import (
    TransitionProbability,
    Trials,
    basis,
    effective_counts,
    orientations,
    trials,
)

FEWEST_OF_A_VERSION = 50
"""Exchange shots of one model version are an ensemble of their own; fewer do not determine its normalisation."""

FRAMES_AT_ONCE = 200_000
"""Frames that are evaluated together: 8 MB for each number per frame and basis function."""


@dataclass(frozen=True)
class ShotEnsemble:
    """How ln S of the shots with one length limit follows from the fit of t.

    Attributes
    ----------
    trials : Trials
    rows : int array
        The trials among all excursions, used or not.
    fold : int array, shape (n_used,)
        Which of the fits each excursion is weighed with: one that did not see its stretch of the chain.
    training : bool array, shape (n_folds + 1, len(rows))
        Shots that each fit has seen. The last has seen all, for free runs.
    coefficients : array, shape (n_folds + 1, k)
    slopes : array, shape (n_used, k)
        Derivatives of ln S of each excursion by the coefficients of its fit.
    column : int
        Number of the ensemble.
    """

    trials: Trials
    rows: np.ndarray
    fold: np.ndarray
    training: np.ndarray
    coefficients: np.ndarray
    slopes: np.ndarray
    column: int

    def change_of_log_s(self, repeats: np.ndarray) -> np.ndarray:
        """First-order change (r, n_used) of ln S if t is fitted to excursions repeated as `repeats` (r, n) says."""
        found = np.zeros((len(repeats), len(self.fold)))
        for fold, coefficients in enumerate(self.coefficients):
            step = self.trials.newton_step(coefficients, repeats[:, self.rows] * self.training[fold])
            of_fold = self.fold == fold
            found[:, of_fold] = step @ self.slopes[of_fold].T
        return found


@dataclass(frozen=True)
class Ensembles:
    """Ensembles of some excursions.

    Attributes
    ----------
    names : list of str
        "free runs of state s" for each state, then "shots ..." and "exchange shots ...".
    log_s : array, shape (n, n_ensembles)
    counts : array, shape (n,)
        c, scaled to the effective number of samples in each ensemble.
    ensemble : int array, shape (n,)
    shots : list of ShotEnsemble
        Empty where t is given instead of fitted.
    point_log_t : array, shape (n,)
        ln t at the shooting points of shots; NaN for the other kinds.
    """

    names: list[str]
    log_s: np.ndarray
    counts: np.ndarray
    ensemble: np.ndarray
    shots: list[ShotEnsemble]
    point_log_t: np.ndarray

    def sizes(self) -> np.ndarray:
        """Effective number of samples of each ensemble."""
        return np.bincount(self.ensemble, self.counts, minlength=len(self.names))


def usable(excursions: Excursions) -> tuple[np.ndarray, dict[str, int]]:
    """Which excursions can be weighted, bool array (n,), and how many were left out, by reason."""
    kind, x = excursions.kind, excursions
    reasons = {"other kinds": ~np.isin(kind, (SHOT, EXCHANGE, FREE)), "broke off": x.failed.astype(bool)}
    few = np.zeros(len(kind), bool)
    for version in np.unique(x.version[kind == EXCHANGE]):
        rows = (kind == EXCHANGE) & (x.version == version)
        few |= rows & (rows.sum() < FEWEST_OF_A_VERSION)
    reasons["model versions with few exchange shots"] = few
    stopped = (x.ends.min(axis=1) < 0) | (x.length > x.limit)
    reasons["over the length limit"] = stopped
    left, counted = np.ones(len(kind), bool), {}
    for reason, rows in reasons.items():
        counted[reason] = int((rows & left).sum())
        left &= ~rows
    return left, counted


def build(
    excursions: Excursions,
    used: np.ndarray,
    log_u: Callable[[np.ndarray], np.ndarray],
    transitions,
    n_folds: int = 5,
    log_t: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> Ensembles:
    """Densities of all excursions in all ensembles.

    Parameters
    ----------
    excursions : Excursions
    used : bool array, shape (n,)
        From :func:`usable`. Shots over the length limit are trials of t all the same.
    log_u : callable
        ln u (n,) from ln p (n, n_states); -inf where u is zero.
    transitions : sequence of (int, int)
        Ordered pairs of states that the path ensemble joins.
    n_folds : int
        Fits of t that leave out a part of the shots; 1 for a single fit to all of them (in-sample).
    log_t : callable, optional
        ln t (n,) from ln p (n, n_states) and features (n, d), given instead of fitted.

    Returns
    -------
    Ensembles
        Its arrays hold the used excursions, in their order.
    """
    x = excursions.chosen(used)
    half = 0.5 * (x.ends[:, :, None] == np.arange(x.n_states)).sum(axis=1)
    with np.errstate(divide="ignore"):
        columns = [*np.log(half).T]
    names = [f"free runs of state {state}" for state in range(x.n_states)]
    counts = np.ones(len(x.kind))
    ensemble = np.where(x.kind == FREE, x.ends[:, 0], -1)
    shots = []
    point_log_t = np.full(len(x.kind), np.nan)
    m = orientations(transitions, x.n_states)
    for limit in np.unique(x.limit[x.kind == SHOT]):
        rows = np.flatnonzero((x.kind == SHOT) & (x.limit == limit))
        log_c = log_u(x.point_log_committor[rows]) - x.log_selection_probability[rows]
        counts[rows], ensemble[rows] = effective_counts(log_c), len(names)
        fits: list = [log_t]
        fold = np.zeros(len(x.kind), int)
        if log_t is None:
            of_fit, every_trial, training, coefficients, fold = _fit(excursions, used, limit, log_u, m, n_folds)
            fits = [TransitionProbability(m, each) for each in coefficients]
        log_s, slopes = _log_sums(x, log_u, fits, fold)
        for number, fit in enumerate(fits):
            of_fold = rows[fold[rows] == number]
            point_log_t[of_fold] = fit(x.point_log_committor[of_fold], x.point_features[of_fold])
        if log_t is None:
            shots.append(ShotEnsemble(of_fit, every_trial, fold, training, coefficients, slopes, len(names)))
        names.append(f"shots of at most {limit:g} frames")
        columns.append(np.where(x.length <= limit, log_s, -np.inf))
    exchange = x.kind == EXCHANGE
    for version, limit in sorted({*zip(x.version[exchange].tolist(), x.limit[exchange].tolist(), strict=True)}):
        ensemble[exchange & (x.version == version) & (x.limit == limit)] = len(names)
        names.append(f"exchange shots of version {version}, at most {limit:g} frames")
        with np.errstate(divide="ignore"):
            log_v = np.asarray(x.exchange_log_weights[version]) + np.log(x.frame_weights)
        columns.append(np.where(x.length <= limit, segment_logsumexp(log_v, x.offsets), -np.inf))
    log_s = np.stack(columns, axis=1)
    impossible = ~np.isfinite(log_s[np.arange(len(ensemble)), ensemble])
    impossible &= counts > 0
    if impossible.any():
        raise ValueError(
            f"{impossible.sum()} excursions have zero probability in the ensemble that they were drawn from, first "
            f"{names[ensemble[impossible][0]]!r}: no stored frame has a weight. Store more frames, or use a wider window"
        )
    return Ensembles(names, log_s, counts, ensemble, shots, point_log_t)


def _fit(x: Excursions, used, limit, log_u, m, n_folds):
    """t of the shots with one limit: trials, rows of the used excursions, training, coefficients, fold of each used one."""
    here = (x.kind == SHOT) & ~x.failed & (x.limit == limit)  # those that ran over the limit, too
    log_c = log_u(x.point_log_committor[here]) - x.log_selection_probability[here]
    shots = trials(x.point_log_committor[here], x.point_features[here], x.ends[here], x.length[here], limit, log_c, m)
    steered = np.isin(x.kind, (SHOT, EXCHANGE))
    fold_of = np.full(len(x.kind), n_folds)
    chains = np.unique(x.chain[steered], return_inverse=True)[1]  # numbers without gaps are dealt evenly
    folds = Folds.dealt(chains, n_folds) if n_folds > 1 else None
    training = np.ones((n_folds + 1, here.sum()), bool)
    if folds is not None:
        fold_of[steered] = folds.of(chains, x.step[steered])
        training[:-1] = fold_of[here] != np.arange(n_folds)[:, None]
    coefficients = np.array([shots.fit(rows) for rows in training])
    return shots, np.flatnonzero(here), training, coefficients, fold_of[used]


def _log_sums(x: Excursions, log_u, fits, fold) -> tuple[np.ndarray, np.ndarray]:
    """ln S (n,), and its derivatives by the coefficients of the fits (n, k), a part of the excursions at a time."""
    n_functions = basis(x.log_committor[:1], x.features[:1]).shape[1]
    log_s, slopes = np.full(len(x.kind), -np.inf), np.zeros((len(x.kind), n_functions))
    parts = np.searchsorted(x.offsets, np.arange(0, x.offsets[-1] + FRAMES_AT_ONCE, FRAMES_AT_ONCE))
    parts = np.unique(np.append(np.minimum(parts, len(x.kind)), len(x.kind)))
    frame_weights = x.frame_weights
    for first, last in zip(np.append(0, parts[:-1]), parts, strict=True):
        offsets = x.offsets[first : last + 1]
        frames = slice(offsets[0], offsets[-1])
        log_committor, features, offsets = x.log_committor[frames], x.features[frames], offsets - offsets[0]
        if last == first or len(log_committor) == 0:
            continue
        owner = np.repeat(np.arange(last - first), np.diff(offsets))
        log_t = np.empty(len(log_committor))
        for number, fit in enumerate(fits):
            rows = fold[first:last][owner] == number
            log_t[rows] = fit(log_committor[rows], features[rows])
        terms = log_u(log_committor) + log_t + np.log(frame_weights[frames])
        sums = segment_logsumexp(terms, offsets)
        log_s[first:last] = sums
        with np.errstate(invalid="ignore"):
            share = np.where(np.isfinite(terms), np.exp(terms - sums[owner]), 0.0) * -np.expm1(log_t)
        full = np.diff(offsets) > 0
        weighted = share[:, None] * basis(log_committor, features)
        slopes[first:last][full] = np.add.reduceat(weighted, offsets[:-1][full])
    return log_s, slopes


def segment_logsumexp(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """ln sum exp of the values (m,) between each two offsets (n + 1,), shape (n,); -inf for none."""
    found = np.full(len(offsets) - 1, -np.inf)
    full = np.flatnonzero(np.diff(offsets) > 0)
    if len(full) == 0:
        return found
    peaks = np.maximum.reduceat(values, offsets[full])
    peaks = np.where(np.isfinite(peaks), peaks, 0.0)
    with np.errstate(divide="ignore"):
        sums = np.add.reduceat(np.exp(values - np.repeat(peaks, np.diff(offsets)[full])), offsets[full])
        found[full] = np.log(sums) + peaks
    return found

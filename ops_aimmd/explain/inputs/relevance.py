r"""Which inputs does the learned committor use? The loss on held-out shots when the values of an input are replaced.

With the negative log-likelihood :math:`\ell` of a shot (:mod:`ops_aimmd.committor.likelihood`) and new values for the
inputs of a group, the relevance is :math:`\langle \ell(x') - \ell(x) \rangle` in nats per shot. Permuted values of an input
that is independent of all others and of the outcomes are distributed as before, and its expected relevance is zero *on
shots that the model was not trained on*; on its training shots it is positive.

**Standard errors** hold for the shots being a sample. A mean over pairs of a shot i and the donor j of its new values
varies with both, so the error is that of the mean of :math:`\psi_i = a_i + b_i - 2 \bar a`, with the mean increase
:math:`a_i` where i is the shot and :math:`b_i` where it is the donor (Hoeffding's projection; Ann. Math. Statist. 19, 293
(1948), doi:10.1214/aoms/1177730196). Sums over blocks of consecutive shots of a chain allow for their correlation.

Where members judge the shots of their own folds, each pair of shots of different folds counts twice, and for an irrelevant
input this doubles the variance. (In a linear model, with the sum S of the scores of all shots and :math:`S_k` of those of
fold k, the increase is proportional to :math:`\sum_k S_k (S - S_k)`. For K folds of unit variance its variance is
:math:`2 K (K - 1)`; with the models taken as given it would be :math:`K (K - 1)`.) All errors there are enlarged by
:math:`\sqrt 2`: right where zero is to be told from more, too careful for large relevances.

**Correlated inputs.** The network may use either, and a permutation also breaks their link: relevance is shared
arbitrarily. Read rows with the same label in the column "correlated" as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ops_aimmd.committor.correlated_shots import error_of_sum
from ops_aimmd.committor.likelihood import negative_log_likelihood
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.networks import StackedNetwork, member_logits
from ops_aimmd.committor.optimisation import TrainingData
from ops_aimmd.committor.training import check_model
from ops_aimmd.committor.training_set import TrainingSet
from ops_aimmd.explain.inputs.gradients import gradient_scores
from ops_aimmd.explain.inputs.grouping import CORRELATED, check_names, correlated, resolve_groups
from ops_aimmd.explain.inputs.replacement import REPLACEMENTS, Permutation

METHODS = (*REPLACEMENTS, "gradient")

MARGIN = 8
"""Factor on the length of blocks: the chance of the replacements hides the end of the correlation."""

SHARED_SHOTS = 2.0
"""Factor on the variance where shots are judged by models that were trained on the other judged ones."""


def input_relevance(
    model: CommittorModel,
    training_set: TrainingSet,
    groups=None,
    n_repeats: int = 10,
    seed=1,
    names: Sequence[str] | None = None,
    held_out: TrainingSet | None = None,
    methods: Sequence[str] = METHODS,
    correlation: float = CORRELATED,
) -> pd.DataFrame:
    """How much worse the model predicts held-out shots without the values of each group of inputs.

    Parameters
    ----------
    model : CommittorModel
        Trained by `fit` or a learner; it is not changed.
    training_set : TrainingSet
        The shots that it was trained on, in their order. Every shot is judged by the member of the ensemble that was not
        trained on it (`fit` deals the shots into folds, and a shot keeps its fold while the set grows; a model that is no
        ensemble leaves out one fold). When to stop training and how to scale the inputs was decided with all shots;
        `held_out` avoids even that.
    groups : None, str or mapping, optional
        None: sine and cosine of one angle together, all other inputs alone. "inputs": each alone. "bonds": dihedral
        angles by central bond. "centres": symmetry functions by central atom. "correlation": correlated inputs together. A
        mapping of group name to names or numbers of inputs; functions of :mod:`.grouping` make such.
    n_repeats : int
        Replacements of each group.
    seed : int, optional
        Seed of the replacements.
    names : sequence of str, optional
        Names of the inputs, for instance ``descriptors.names``. Default: "input 0", "input 1", ...
    held_out : TrainingSet, optional
        Shots that no member was trained on; they are judged by all members instead, and `training_set` is not used.
        Give it for a model that `fit` has not trained on `training_set`, such as one from a formula.
    methods : sequence of {"permutation", "conditional", "noise", "gradient"}
        See :mod:`.replacement`.
    correlation : float
        Rank correlation from which groups count as correlated.

    Returns
    -------
    pandas.DataFrame
        One row per group, under its name, the most relevant first. Columns:

        - inputs : str, names of the inputs;
        - loss_increase, standard_error : by permutation, nats per shot. The error includes shots and repeats;
        - repeats_error : the part of it that more repeats would remove;
        - ensemble_error : standard error over the members, each on its held-out shots;
        - conditional_increase, conditional_error : by conditional permutation. Small for an input that the others replace;
        - noise_increase, noise_error : by uniform noise;
        - gradient, gradient_error : mean size of dq/dx times std(x), error over the members;
        - correlated : int, label of groups that correlate with each other.

        ``attrs`` holds n_shots (judged), held_out_loss and its error (nats per shot, mean of single members).

    Raises
    ------
    ValueError
        If model and shots do not fit together, no or one shot is held out, or groups, names or methods are wrong.
    """
    shots = _judged(model, training_set if held_out is None else held_out, held_out is not None)
    names = check_names(names, model.n_descriptors)
    columns = resolve_groups(groups, names, shots.descriptors)
    unknown = set(methods) - set(METHODS)
    if unknown or not len(methods):
        raise ValueError(f"methods must be some of {METHODS}; got {list(methods)}")
    if int(n_repeats) != n_repeats or n_repeats < 1:
        raise ValueError(f"n_repeats must be a positive integer; got {n_repeats!r}")
    members = list(columns.values())
    index = pd.Index(columns, name="group")
    table = pd.DataFrame({"inputs": [", ".join(names[c] for c in group) for group in members]}, index=index)
    for method in (method for method in REPLACEMENTS if method in methods):
        rng = np.random.default_rng([list(REPLACEMENTS).index(method), *np.random.SeedSequence(seed).generate_state(2)])
        replacement = REPLACEMENTS[method](shots.descriptors, rng)
        increase = _loss_increase(model.frozen_copy().cpu(), shots, members, replacement, int(n_repeats))
        if method == "permutation":
            table = table.assign(**increase)
        else:
            table[f"{method}_increase"], table[f"{method}_error"] = increase["loss_increase"], increase["standard_error"]
    if "gradient" in methods:
        table["gradient"], table["gradient_error"] = gradient_scores(
            model, shots.descriptors, shots.of_shots(shots.weights), members
        )
    table["correlated"] = correlated(shots.descriptors, members, correlation)
    table.attrs["n_shots"] = len(shots.descriptors)
    table.attrs["held_out_loss"], table.attrs["held_out_loss_error"] = _loss(model, shots)
    return table.sort_values(table.columns[1], ascending=False, kind="stable")


@dataclass(frozen=True)
class _Judged:
    """Shots that at least one member was not trained on.

    Attributes
    ----------
    rows : int array, shape (n_members, m)
        Shots that each member was not trained on.
    weights : array, shape (n_members, m)
        Weights of these shots; they sum up to n. Members with fewer than m shots have some of weight 0.
    new_to_all : bool
        Whether no member was trained on any of them.
    """

    descriptors: np.ndarray
    counts: np.ndarray
    chains: np.ndarray
    steps: np.ndarray
    rows: np.ndarray
    weights: np.ndarray
    new_to_all: bool

    def of_shots(self, values: np.ndarray) -> np.ndarray:
        """Sums (n, ...) over all that is judged of each shot, of values (n_members, m, ...)."""
        sums = np.zeros((len(self.descriptors), *values.shape[2:]))
        np.add.at(sums, self.rows, values)
        return sums

    def standard_error(self, influence: np.ndarray) -> np.ndarray:
        """Standard error of the mean of columns (n, ...) that vary from shot to shot, by sums over blocks of a chain."""
        errors = error_of_sum(influence - influence.mean(axis=0), self.chains, self.steps, MARGIN) / len(influence)
        return errors.reshape(influence.shape[1:])


def _judged(model: CommittorModel, shots: TrainingSet, new_to_all: bool) -> _Judged:
    check_model(model, shots)
    n_members = getattr(model.network, "n_members", 1)
    if new_to_all:
        weights = np.tile(shots.weights, (n_members, 1))
    elif len(shots):
        # where the folds are dealt for training: a second rule here could judge shots by members that know them
        weights = TrainingData.of(model, shots, (0.0, 0.0), 0, None).held_out
    else:
        weights = np.zeros((n_members, 0))
    kept = np.flatnonzero(weights.sum(axis=0) > 0)
    if len(kept) < 2:
        raise ValueError(
            f"of {len(shots)} shots {len(kept)} were held out from the training of some member, and at least two are "
            "needed: collect more shots, or pass held_out=TrainingSet(...) with shots that the model was not trained on"
        )
    weights = weights[:, kept] * (len(kept) / weights.sum())
    # each member's own shots first; the rest of its row has weight 0
    rows = np.argsort(weights == 0, axis=1, kind="stable")[:, : (weights > 0).sum(axis=1).max()]
    weights = np.take_along_axis(weights, rows, axis=1)
    chains, steps = shots.chains[kept], shots.steps[kept]
    return _Judged(shots.descriptors[kept], shots.counts[kept], chains, steps, rows, weights, new_to_all)


@torch.no_grad()
def _loss(model: CommittorModel, shots: _Judged) -> tuple[float, float]:
    losses = _member_losses(model.frozen_copy().cpu(), shots, torch.tensor(shots.descriptors)).numpy()
    of_shots = shots.of_shots(shots.weights * losses)
    mean = of_shots.mean()
    return float(mean), float(shots.standard_error(of_shots - mean * shots.of_shots(shots.weights)))


def _member_losses(model: CommittorModel, shots: _Judged, x: torch.Tensor) -> torch.Tensor:
    """Loss of the shots of each member, (n_members, m), for descriptors x (n, d)."""
    model = model.of_judges
    inputs = model.inputs(x)[torch.tensor(shots.rows)]
    if isinstance(model.network, StackedNetwork):
        logits = model.network.logits(inputs)
    else:
        logits = torch.stack([member_logits(model.network, part)[k] for k, part in enumerate(inputs)])
    counts = torch.tensor(shots.counts[shots.rows], dtype=torch.float64)
    return negative_log_likelihood(model.calibrated(logits.double()), counts)


@torch.no_grad()
def _loss_increase(
    model: CommittorModel, shots: _Judged, groups: list[list[int]], replacement: Permutation, n_repeats: int
) -> dict[str, np.ndarray]:
    """Columns of the table for one kind of replacement."""
    n, n_groups = len(shots.descriptors), len(groups)
    as_shot, as_donor = np.zeros((n, n_groups)), np.zeros((n, n_groups))
    of_repeats, of_members = np.empty((n_repeats, n_groups)), np.zeros((len(shots.weights), n_groups))
    x = torch.tensor(shots.descriptors)
    before = _member_losses(model, shots, x)
    for repeat in range(n_repeats):
        increases, donors = [], []
        for columns in groups:
            replaced = x.clone()
            values, rows = replacement.draw(columns)
            replaced[:, columns] = torch.tensor(values)
            increases.append(_member_losses(model, shots, replaced) - before)
            donors.append(rows)
        increase = torch.stack(increases).movedim(0, -1).numpy()
        weighted = shots.weights[:, :, None] * increase
        of_members += weighted.sum(axis=1) / n_repeats
        weighted = shots.of_shots(weighted)
        of_repeats[repeat] = weighted.mean(axis=0)
        as_shot += weighted / n_repeats
        for group, rows in enumerate(donors):
            if rows is not None:
                as_donor[rows, group] += weighted[:, group] / n_repeats
    per_member = shots.weights.sum(axis=1)
    judging = per_member > 0
    of_members = of_members[judging] / per_member[judging, None]
    repeats_error = _error_of_mean(of_repeats)
    return {
        "loss_increase": as_shot.mean(axis=0),
        "standard_error": _total_error(shots, as_shot, as_donor, repeats_error),
        "repeats_error": repeats_error,
        "ensemble_error": _error_of_mean(of_members),
    }


def _total_error(shots: _Judged, as_shot: np.ndarray, as_donor: np.ndarray, repeats_error: np.ndarray) -> np.ndarray:
    """Standard error of the increase with regard to shots and repeats.

    Where new values come from shots, the chance of the repeats is in the influence of a shot twice, as shot and as donor.
    """
    variance = shots.standard_error(as_shot + as_donor) ** 2
    once = np.where(as_donor.any(axis=0), np.nan_to_num(repeats_error) ** 2, 0.0)
    return np.sqrt(np.maximum(variance - once, once) * (1.0 if shots.new_to_all else SHARED_SHOTS))


def _error_of_mean(values: np.ndarray) -> np.ndarray:
    """Standard error of the mean of independent rows; NaN for a single one."""
    if len(values) < 2:
        return np.full(values.shape[1], np.nan)
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))

r"""Transfer learning: initialise a committor model from one trained on a related system.

What is kept is the network. Its columns are matched by name (:func:`match_columns`). A column that only the new system has
starts with weights of zero; one that only the old system has is held at its mean.

**Scaling.** Each column is scaled so that the new system covers the range of inputs that the network has learned on: mean
and standard deviation of the new data take the place of those of the old. Where there are few frames, both are mixed,
as if the old ones came from `PRIOR_FRAMES` frames.

**Calibration.** A model knows another system less well than its own, so that its log-odds are too large there. They are
multiplied by a slope and shifted, which few shots can determine (Platt scaling; A. Niculescu-Mizil and R. Caruana 2005,
doi:10.1145/1102351.1102430; :mod:`.recalibration`), under a prior that expects a slope of `SLOPE` and no shift.

**Training.** Then all weights are trained further with `FINE_TUNING` of the usual learning rate (less with few shots, which
should not undo what many have taught), for a third of the usual epochs. Beside it a model is started anew, and from
`training.MIN_SHOTS_TO_DECIDE` shots on the held-out shots decide which of the two goes on, again whenever the number of
shots has grown by `COMPARE_AGAIN`. The transferred one is left if all held-out shots together are more probable by
`EVIDENCE_AGAINST` without it. So a source which misleads does so only for a while, and one that helps at first may be left
later. As long as chance would decide, little is lost: a source that misleads is flattened by its calibration.

`benchmarks/transfer.py` compares the alternatives: other learning rates, frozen first layers, inputs that keep their scale.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import nn

import ops_aimmd.committor.networks as networks
from ops_aimmd.committor.autocorrelation import independent_values
from ops_aimmd.committor.fit_report import FitReport
from ops_aimmd.committor.input_scaling import WIDTHS, InputScaling
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.optimisation import held_out_losses
from ops_aimmd.committor.recalibration import slope_and_shifts
from ops_aimmd.committor.training import LEARNING_RATE, MIN_SHOTS_TO_DECIDE, fit
from ops_aimmd.committor.training_set import TrainingSet

PRIOR_FRAMES = 10
"""Frames that the moments of the source count for, where there are few new ones."""

SLOPE, SPREAD_OF_SLOPE = 0.6, 0.4
"""Factor on the log-odds of the source that is expected on a new system, and the standard deviation of its logarithm."""

SPREAD_OF_SHIFT = 0.4
"""Standard deviation of the shift of the log-odds that is expected."""

FINE_TUNING = 0.1
"""Learning rate of transferred weights in units of the usual one, where there are many shots."""

MANY_SHOTS = 100
"""At so many shots it is half of that; it is proportional to the shots where there are few."""

EVIDENCE_AGAINST = 3.0
"""Nats by which all held-out shots together must be more probable without the source (odds of 20) for it to be left."""

COMPARE_AGAIN = 1.5
"""Growth of the number of shots after which both starts are compared again."""


@dataclass(frozen=True)
class ColumnMap:
    """Which descriptor of the source each descriptor of the target is.

    Attributes
    ----------
    columns : tuple of int
        For each column of the target that of the source, -1 where it has none.
    new, dropped : tuple of str
        Names of the columns that only the target, only the source has.
    """

    columns: tuple[int, ...]
    new: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{sum(column >= 0 for column in self.columns)} of {len(self.columns)} descriptors are known to the source"
        if self.new:
            text += f"; new, without weight at first: {_listed(self.new)}"
        if self.dropped:
            text += f"; only in the source, held at their mean: {_listed(self.dropped)}"
        return text


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def match_columns(source: Sequence[str], target: Sequence[str], rename: Mapping[str, str] | None = None) -> ColumnMap:
    """Match descriptors by name.

    Parameters
    ----------
    source, target : sequence of str
        Names of the columns.
    rename : mapping of str to str, optional
        Words in the names of the source and what stands for them in the target, all replaced at once:
        ``{"Li": "Na"}`` makes "Li O G2 r=0.25" of the source "Na O G2 r=0.25". Whole names will do, too.

    Raises
    ------
    ValueError
        If nothing matches, names occur twice (after renaming), or a word to rename is in no name.
    """
    renamed = _renamed(source, rename or {})
    for whose, names in (("source", renamed), ("target", list(target))):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"descriptors of the {whose} are matched by name, but several are called {_listed(twice)}")
    place = {name: column for column, name in enumerate(renamed)}
    columns = tuple(place.get(name, -1) for name in target)
    if max(columns, default=-1) < 0:
        raise ValueError(
            f"source and target have no descriptor in common: the source has {_listed(renamed)}, the target "
            f'{_listed(target)}; name the words that differ, rename={{"word in the source": "word in the target"}}'
        )
    dropped = tuple(name for column, name in enumerate(renamed) if column not in set(columns))
    return ColumnMap(columns, tuple(n for n, c in zip(target, columns, strict=True) if c < 0), dropped)


def _renamed(names: Sequence[str], rename: Mapping[str, str]) -> list[str]:
    patterns = {word: re.compile(rf"(?<!\w){re.escape(word)}(?!\w)") for word in rename}
    unused = [word for word, pattern in patterns.items() if not any(pattern.search(name) for name in names)]
    if unused:
        raise ValueError(f"rename: no descriptor of the source, {_listed(names)}, has the word {_listed(unused)}")
    if not rename:
        return list(names)
    longest_first = sorted(patterns, key=len, reverse=True)
    any_word = re.compile("|".join(patterns[word].pattern for word in longest_first))
    return [any_word.sub(lambda match: rename[match.group()], name) for name in names]


@dataclass(frozen=True)
class TransferredStart:
    """The model of another system as a function of the descriptors of this one.

    Attributes
    ----------
    model : CommittorModel
        Scaled for descriptors of the following moments.
    mean, std : array, shape (d,)
        Of each descriptor; 0 where it is not known to the source, or did not vary there.
    """

    model: CommittorModel
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, model: CommittorModel, training_set: TrainingSet, columns: Sequence[int]) -> TransferredStart:
        """From a trained model, the shots that it was trained on, and `ColumnMap.columns`.

        Raises ValueError if there are no shots, or the network is not one of this package.
        """
        if len(training_set) == 0:
            raise ValueError("the source has seen no shot, so there is nothing to transfer")
        if not (networks.is_of_this_package(model.network) and isinstance(model.network, networks.StackedNetwork)):
            raise ValueError(
                f"only networks of this package can be transferred; the source has a {type(model.network).__name__}. "
                "For the same descriptors in the same order: CommittorLearner(descriptors, states, model=source.model)"
            )
        of_data = InputScaling.of(training_set.all_descriptors(), len(training_set))
        mean, std = of_data.mean, of_data.std
        of_source = np.asarray(columns)
        used = (of_source >= 0) & (std[of_source] > 0)
        taken = np.where(used, of_source, 0)
        start = CommittorModel(_with_columns(model, of_source, used, mean), len(columns), model.n_states)
        start.to(dtype=model.dtype, device=model.device)
        start.set_scaling(
            *(
                None if values is None else np.where(used, values[taken], unknown)
                for values, unknown in zip(model.scaling(), (0.0, 0.0, -1.0, 1.0), strict=True)
            )
        )
        start.slope.copy_(model.slope)
        return cls(start.frozen_copy(), np.where(used, mean[taken], 0.0), np.where(used, std[taken], 0.0))

    def adapted(self, descriptors: np.ndarray, weight: float = 1.0, n_shots: int = 0) -> TransferredStart:
        """Scale the columns for data of this system, and bound them beyond these data and what the source has learned on.

        Parameters
        ----------
        descriptors : array, shape (n, d)
            The first `n_shots` rows are shots (`InputScaling.of`).
        weight : float
            1: mean and standard deviation become those of the data, 0: they stay. Columns that the source does not know
            always get those of the data.
        """
        of_data = InputScaling.of(descriptors, n_shots)
        known = self.std > 0
        mean = np.where(known, (1 - weight) * self.mean + weight * of_data.mean, of_data.mean)
        std = np.where(known, (1 - weight) * self.std + weight * of_data.std, of_data.std)
        varies = std > 0
        ratio = np.where(known & varies, std, 1) / np.where(known, self.std, 1)
        shift, scale, *_ = self.model.scaling()
        model = self.model.copy()
        model.set_scaling(
            np.where(known, mean - (self.mean - shift) * ratio, mean),
            np.where(known, scale / ratio, varies / np.where(varies, std, 1)),
            np.minimum(of_data.lower, mean - WIDTHS * std),
            np.maximum(of_data.upper, mean + WIDTHS * std),
        )
        return TransferredStart(model, mean, std)

    def recalibrated(self, training_set: TrainingSet) -> TransferredStart:
        r"""Multiply the log-odds by a slope and shift them, as the shots of this system ask for.

        The most probable slope and shifts (one for each output of the network) under the likelihood of the shots and a
        normal prior of the shifts and of the logarithm of the slope; without any shot a slope of `SLOPE`.
        """
        counts = training_set.counts * training_set.weights[:, None]
        with torch.no_grad():
            x = torch.tensor(training_set.descriptors, device=self.model.device)
            logits = self.model(x).double().cpu().numpy()

        slope, shifts = slope_and_shifts(logits, counts, SLOPE, SPREAD_OF_SLOPE, SPREAD_OF_SHIFT)
        model = self.model.copy()
        slope *= float(model.slope)
        model.slope.fill_(1.0)
        layers = cast(networks.StackedNetwork, model.network).output_layers()
        with torch.no_grad():
            for layer in layers:
                layer.weight.mul_(slope)
                layer.bias.mul_(slope)
            layers[0].bias.add_(torch.tensor(shifts).to(layers[0].bias))
        return TransferredStart(model, self.mean, self.std)


def _with_columns(model: CommittorModel, columns, used: np.ndarray, mean: np.ndarray) -> networks.StackedNetwork:
    """A copy of the network with inputs in another order; inputs that go are held at the mean."""
    network = cast(networks.StackedNetwork, copy.deepcopy(model.network))
    network.n_inputs = len(columns)
    (scaled_mean,) = model.inputs(torch.from_numpy(mean)[None].to(model.device))
    gone = np.setdiff1d(np.arange(model.n_descriptors), columns[used])
    with torch.no_grad():
        for layer in network.input_layers():
            weight = layer.weight.new_zeros(network.n_members, len(columns), layer.weight.shape[2])
            weight[:, np.flatnonzero(used)] = layer.weight[:, columns[used]]
            layer.bias.add_(scaled_mean[None, None, gone] @ layer.weight[:, gone])
            layer.weight = nn.Parameter(weight)
    return network


def start_for(start: TransferredStart, training_set: TrainingSet) -> TransferredStart:
    """Scaled and calibrated for the shots of this system, before any weight is trained further."""
    x = training_set.all_descriptors()
    return start.adapted(x, len(x) / (len(x) + PRIOR_FRAMES), len(training_set)).recalibrated(training_set)


def _fine_tuning(n_shots: int) -> float:
    return FINE_TUNING * n_shots / (n_shots + MANY_SHOTS)


def _held_out_gain(model: CommittorModel, other: CommittorModel, training_set: TrainingSet) -> float:
    """By how much the held-out shots are more probable under a model than under another one, in nats.

    Correlated shots count as so many independent ones as they are worth.
    """
    losses, of_other = (held_out_losses(m, training_set) for m in (model, other))
    gains = training_set.weights * ~model.is_far(training_set.descriptors) * (of_other - losses)
    known = np.isfinite(gains)
    if not known.any():
        return 0.0
    independent = independent_values(gains[known], training_set.chains[known], training_set.steps[known])
    return float(gains[known].mean() * independent)


def fit_transferred(
    start: TransferredStart,
    model: CommittorModel,
    training_set: TrainingSet,
    seed=None,
    previous: FitReport | None = None,
    learning_rate: float = LEARNING_RATE,
    **options,
) -> tuple[CommittorModel, FitReport]:
    """Train from a transferred start or anew, as the held-out shots decide.

    Parameters
    ----------
    model : CommittorModel
        The present model, which goes on where nothing is to be decided; not changed.
    training_set, seed, previous, learning_rate, options
        As for `fit`. Models that are started anew have the default network.

    Returns
    -------
    model : CommittorModel
    report : FitReport
        With ``start`` and, if they were compared, the loss of the other one.
    """
    began = time.perf_counter()
    n_shots = len(training_set)
    if previous is not None and n_shots < COMPARE_AGAIN * previous.decided_at:
        model = model.copy().requires_grad_(True)
        rate = learning_rate * (_fine_tuning(n_shots) if previous.start == "transferred" else 1)
        report = fit(model, training_set, seed, previous=previous, learning_rate=rate, **options)
        return model, replace(report, start=previous.start)
    anew = CommittorModel.for_descriptors(start.model.n_descriptors, start.model.n_states, seed=seed, device=model.device)
    report = fit(anew, training_set, seed, learning_rate=learning_rate, **options)
    adapted = start_for(start, training_set)
    transferred = adapted.model.requires_grad_(True)
    transferred.folds = anew.folds
    options["auxiliary_weights"] = report.auxiliary_weights
    rate = learning_rate * _fine_tuning(n_shots)
    of_transferred = fit(transferred, training_set, seed, start_anew=False, learning_rate=rate, **options)
    relevance = tuple(float(r) for r in transferred.scale.double().cpu().numpy() * adapted.std)
    of_transferred = replace(of_transferred, start="transferred", relevance=relevance, decided_at=report.decided_at)
    if n_shots >= MIN_SHOTS_TO_DECIDE and _held_out_gain(anew, transferred, training_set) > EVIDENCE_AGAINST:
        model, report, other = anew, report, of_transferred
    else:
        model, report, other = transferred, of_transferred, report
    seconds = time.perf_counter() - began
    return model, replace(report, loss_of_other_start=other.held_out_loss, seconds=seconds)

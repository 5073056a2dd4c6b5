r"""Training the committor on shooting results, stopped by shots that were held out.

The shots are dealt into folds, in blocks of consecutive shots of a chain, because consecutive shots of path sampling
resemble each other. Member k of an ensemble never sees fold k. Its loss there is an honest estimate of how well it
predicts new shots, and as every shot is held out by one member, the sum over the folds is the cross-validated loss:
training stops where that is lowest. A shot keeps its fold while the training set grows, so a model that is trained
further is still tested on shots that it has not seen.

Frames of the legs (``training_set.auxiliary``) enter with a weight that the held-out *shooting points* choose: if they
do not lower the cross-validated loss of the shots, they are left out. They are never part of a reported loss.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ops_aimmd.committor.likelihood import negative_log_likelihood
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.training_set import TrainingSet

NO_AUXILIARY = (0.0, 0.0)
AUXILIARY_CANDIDATES = (NO_AUXILIARY, (0.1, 0.0), (0.1, 1.0))
"""Trials that (the end frame, all other frames together) of one leg count for: tried by ``auxiliary_weights="auto"``."""

N_FOLDS = 5
SHOTS_PER_BLOCK = 2


@dataclass(frozen=True)
class DiminishingSchedule:
    """When to train: every few shots at first, then whenever the number of shots has grown by a fraction.

    The adaptation diminishes, so that a chain guided by the model approaches one with a fixed model.

    Attributes
    ----------
    every : int
        Train after this many new shots ...
    until : int
        ... up to this many shots in all.
    growth : float
        Afterwards train when the number of shots has grown by this fraction since the last training.
    """

    every: int = 3
    until: int = 30
    growth: float = 0.1

    def __post_init__(self):
        if self.every < 1 or self.until < 0 or not self.growth > 0:
            raise ValueError(
                "a schedule needs every >= 1, until >= 0 and growth > 0; got "
                f"every={self.every}, until={self.until}, growth={self.growth}"
            )

    def due(self, n_shots: int, n_shots_at_last_training: int) -> bool:
        """True if the model should be trained now; 0 shots at the last training stands for none yet."""
        new = n_shots - n_shots_at_last_training
        if new < self.every:
            return False
        return n_shots <= self.until or new >= self.growth * n_shots_at_last_training


@dataclass(frozen=True)
class FitReport:
    """What a training did. Losses are negative log-likelihoods in nats, weighted means with standard errors.

    Attributes
    ----------
    n_shots : int
    n_legs : float
        Legs that reached a state.
    train_loss, train_loss_error : float
        Loss per shot of the shots that the members were trained on.
    held_out_loss, held_out_loss_error : float
        Loss per shot of the shots held out; NaN where none could be.
    train_loss_per_leg, held_out_loss_per_leg : float
        The same per leg (ratio of sums); the errors scale alike.
    epochs : int
        Epochs after which the model was kept.
    auxiliary_weights : tuple of float
        Trials that (end frame, other frames together) of a leg counted for.
    auxiliary_decided_at : int
        Number of shots when these weights were chosen; 0 if they were given.
    seconds : float
        Wall time.
    """

    n_shots: int
    n_legs: float
    train_loss: float
    train_loss_error: float
    held_out_loss: float
    held_out_loss_error: float
    train_loss_per_leg: float
    train_loss_per_leg_error: float
    held_out_loss_per_leg: float
    held_out_loss_per_leg_error: float
    epochs: int
    auxiliary_weights: tuple[float, float]
    auxiliary_decided_at: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.n_shots} shots ({self.n_legs:g} legs), {self.epochs} epochs in {self.seconds:.2f} s; loss per leg: "
            f"training {self.train_loss_per_leg:.3f} +- {self.train_loss_per_leg_error:.3f}, "
            f"held out {self.held_out_loss_per_leg:.3f} +- {self.held_out_loss_per_leg_error:.3f}; "
            "trials per leg from its end and its other frames: {:g}, {:g}".format(*self.auxiliary_weights)
        )


def fit(
    model: CommittorModel,
    training_set: TrainingSet,
    seed=None,
    auxiliary_weights="auto",
    previous: FitReport | None = None,
    max_epochs: int = 200,
    patience: int = 30,
    learning_rate: float = 0.02,
    weight_decay: float = 1.0,
    max_auxiliary_frames: int = 5000,
) -> FitReport:
    """Train a model in place, input scaling included.

    Parameters
    ----------
    model : CommittorModel
        Trained further from the weights it has; unchanged if an error is raised.
    training_set : TrainingSet
        At least one shot.
    seed : int, optional
        Seed of the choice of auxiliary frames where there are more than ``max_auxiliary_frames``.
    auxiliary_weights : "auto" or (float, float)
        Trials that (the end frame, all other frames together) of one leg count for. "auto": that of
        ``AUXILIARY_CANDIDATES`` with the lowest cross-validated loss of the shots; decided again when the number of
        shots has doubled since ``previous.auxiliary_decided_at``.
    previous : FitReport, optional
        Report of the last training on this growing set.
    max_epochs, patience : int
        Upper limit, and epochs without a lower held-out loss after which training stops.
    learning_rate : float
        Of Adam, on all shots at once.
    weight_decay : float
        Precision of the Gaussian prior on the weights, in nats: keeps the logits finite where the shots are separable.
    max_auxiliary_frames : int
        Bound on the cost.

    Returns
    -------
    FitReport

    Raises
    ------
    ValueError
        If the set is empty or does not fit the model.
    """
    start = time.perf_counter()
    _check(model, training_set)
    rng = np.random.default_rng(seed)
    decided_at = 0
    if auxiliary_weights != "auto":
        candidates = [tuple(float(w) for w in auxiliary_weights)]
    elif len(training_set.auxiliary) == 0:
        candidates = [NO_AUXILIARY]
    elif previous is not None and 0 < len(training_set) < 2 * previous.auxiliary_decided_at:
        candidates, decided_at = [previous.auxiliary_weights], previous.auxiliary_decided_at
    else:
        candidates, decided_at = list(AUXILIARY_CANDIDATES), len(training_set)

    trials = []
    for weights in candidates:
        trial = model.copy()
        data = _Data.of(trial, training_set, weights, max_auxiliary_frames, rng)
        trial.shift.copy_(data.shift)
        trial.scale.copy_(data.scale)
        epochs = _train(trial, data, max_epochs, patience, learning_rate, weight_decay)
        trials.append((data.losses(trial), weights, epochs, trial))
    losses, weights, epochs, best = min(trials, key=lambda t: np.inf if np.isnan(t[0][4]) else t[0][4])
    model.load_state_dict(best.state_dict())
    return FitReport(
        len(training_set),
        float(training_set.counts.sum()),
        *losses,
        epochs=epochs,
        auxiliary_weights=weights,
        auxiliary_decided_at=decided_at,
        seconds=time.perf_counter() - start,
    )


def folds(chains: np.ndarray, n_folds: int = N_FOLDS, shots_per_block: int = SHOTS_PER_BLOCK) -> np.ndarray:
    """Fold of each shot: blocks of consecutive shots of a chain are dealt in turn; appending changes no fold.

    Parameters
    ----------
    chains : int array, shape (n,)

    Returns
    -------
    int array, shape (n,)
    """
    rank = np.empty(len(chains), dtype=np.int64)
    for offset, chain in enumerate(np.unique(chains)):
        rows = np.flatnonzero(chains == chain)
        rank[rows] = np.arange(len(rows)) // shots_per_block + offset
    return rank % n_folds


def _check(model: CommittorModel, training_set: TrainingSet) -> None:
    if len(training_set) == 0:
        raise ValueError("fit needs at least one shot; the training set is empty")
    expected = (model.n_descriptors, model.n_states)
    got = (training_set.n_descriptors, training_set.n_states)
    if expected != got:
        raise ValueError(
            f"the model takes {expected[0]} descriptors and {expected[1]} states; the training set has {got[0]} "
            f"descriptors and {got[1]} states"
        )
    if not training_set.weights.sum() > 0:
        raise ValueError("fit needs at least one shot of positive weight")


@dataclass
class _Data:
    """Shots first, then auxiliary frames, as tensors; rows of ``train`` and ``held_out`` are members."""

    shift: Tensor
    scale: Tensor
    descriptors: Tensor
    counts: Tensor
    train: Tensor
    held_out: Tensor
    n_shots: int

    @classmethod
    def of(cls, model, training_set, auxiliary_weights, max_auxiliary_frames, rng) -> _Data:
        n_members = getattr(model.network, "n_members", 1)
        n_folds = max(n_members, 2) if n_members > 1 else N_FOLDS
        n_shots = len(training_set)
        x, counts, weights = training_set.descriptors, training_set.counts, training_set.weights
        fold = folds(training_set.chains, n_folds)
        frames = training_set.auxiliary
        rows, frame_weights = _auxiliary_rows(frames, auxiliary_weights, max_auxiliary_frames, rng)
        if len(rows):
            shot = frames.shot[rows]
            x = np.concatenate([x, frames.descriptors[rows]])
            counts = np.concatenate([counts, np.eye(training_set.n_states)[frames.outcomes[rows]]])
            weights = np.concatenate([weights, frame_weights * training_set.weights[shot]])
            fold = np.concatenate([fold, fold[shot]])
        mean = training_set.descriptors.mean(axis=0)
        spread = training_set.descriptors.std(axis=0)
        varies = spread > 1e-9 * np.maximum(np.abs(mean), 1e-9)
        scale = np.where(varies, 1 / np.where(varies, spread, 1), 0)
        out = fold == np.arange(n_members)[:, None]
        if (fold[:n_shots] == fold[0]).all():
            out[:] = False
        tensor = lambda a: torch.as_tensor(np.array(a), dtype=model.dtype, device=model.device)  # noqa: E731
        return cls(
            tensor(mean),
            tensor(scale),
            tensor(x),
            tensor(counts),
            tensor(weights * ~out),
            tensor((weights * out)[:, :n_shots]),
            n_shots,
        )

    def losses(self, model) -> tuple[float, ...]:
        with torch.no_grad():
            logits = model.member_logits(self.descriptors[: self.n_shots])
            nll = negative_log_likelihood(logits, self.counts[: self.n_shots]).double().cpu().numpy()
        legs = self.counts[: self.n_shots].sum(dim=1).double().cpu().numpy()
        train = self.train[:, : self.n_shots].double().cpu().numpy()
        held_out = self.held_out.double().cpu().numpy()
        ones = np.ones_like(legs)
        return (
            *_mean_and_error(nll, train, ones),
            *_mean_and_error(nll, held_out, ones),
            *_mean_and_error(nll, train, legs),
            *_mean_and_error(nll, held_out, legs),
        )


def _mean_and_error(nll, weights, size) -> tuple[float, float]:
    """Ratio of sums over the shots, sum w nll / sum w size, and its standard error (shots are independent)."""
    numerator, denominator = (weights * nll).sum(axis=0), (weights * size).sum(axis=0)
    total = denominator.sum()
    if not total > 0:
        return np.nan, np.nan
    mean = numerator.sum() / total
    return float(mean), float(np.sqrt(((numerator - mean * denominator) ** 2).sum()) / total)


def _auxiliary_rows(frames, auxiliary_weights, max_frames, rng) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the frames that are used, and the weight of each; a leg is a (shot, outcome) pair."""
    end_weight, frame_weight = auxiliary_weights
    weight = np.where(frames.is_end, end_weight, frame_weight)
    rows = np.flatnonzero(weight > 0)
    if len(rows) == 0:
        return rows, np.empty(0)
    thinning = 1.0
    if len(rows) > max_frames:
        thinning = len(rows) / max_frames
        rows = np.sort(rng.choice(rows, max_frames, replace=False))
    ends = np.flatnonzero(frames.is_end)
    per_shot = np.bincount(frames.shot[frames.is_end], minlength=frames.shot.max() + 1)
    per_leg = np.bincount(frames.shot[~frames.is_end], minlength=frames.shot.max() + 1) / np.maximum(per_shot, 1)
    del ends
    share = np.where(frames.is_end, 1.0, np.maximum(per_leg[frames.shot], 1.0))
    return rows, (weight / share)[rows] * thinning


def _train(model, data: _Data, max_epochs, patience, learning_rate, weight_decay) -> int:
    """Adam on all members at once; leaves the weights of the epoch with the lowest held-out loss."""
    parameters = [p for p in model.network.parameters() if p.requires_grad]
    penalised = [p for name, p in model.network.named_parameters() if p.requires_grad and not name.endswith("bias")]
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    per_member = data.train[:, : data.n_shots].sum(dim=1).mean()
    can_stop = bool(data.held_out.sum() > 0)
    best_loss, best_epoch, best = np.inf, 0, None
    was_training = model.training
    model.train()
    for epoch in range(max_epochs + 1):
        optimiser.zero_grad()
        nll = negative_log_likelihood(model.member_logits(data.descriptors), data.counts)
        if can_stop:
            loss = float((data.held_out * nll.detach()[:, : data.n_shots]).sum())
            if loss < best_loss:
                best_loss, best_epoch = loss, epoch
                best = [p.detach().clone() for p in parameters]
            elif epoch - best_epoch > patience:
                break
        objective = (data.train * nll).sum() + 0.5 * weight_decay * sum(p.square().sum() for p in penalised)
        (objective / per_member).backward()
        optimiser.step()
    if best is not None:
        with torch.no_grad():
            for p, value in zip(parameters, best, strict=True):
                p.copy_(value)
    model.train(was_training)
    return best_epoch if can_stop else max_epochs

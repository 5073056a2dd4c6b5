r"""Training the committor on shooting results, judged by shots that were held out.

**Folds.** The shots are dealt into folds, in short blocks of consecutive shots of a chain. Member k of an ensemble never
sees fold k. Its loss there is an honest estimate of how well it predicts new shots, and as every shot is held out by
one member, the sum over the folds is a cross-validated loss at no extra cost. A shot keeps its fold while the training
set grows, so a model that is trained further is still tested on shots that it has never seen.

**Objective.** The posterior of the weights: log-likelihood of the shots plus the log-prior of :mod:`.networks`. The
prior keeps the log-odds finite where the outcomes are separable and gives a weak prediction from a single shot.

**What the held-out shots decide**, always by the same rule: a default is kept unless the alternative has a loss lower by
more than two standard errors of the difference, shot by shot.

- *When to stop.* The last epoch is the default, an earlier one the alternative.
- *Relevance.* A first network with a stiff prior measures how strongly its log-odds depend on each descriptor. The
  alternative to descriptors of equal variance is to scale them by that, so that irrelevant ones cannot be used for
  memorising (automatic relevance determination; R. M. Neal 1996, doi:10.1007/978-1-4612-0745-0).
- *Auxiliary data.* End frames, with a small weight, are the default; none at all, or the other frames of the legs too,
  the alternatives. They never enter a reported loss.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ops_aimmd.committor import networks
from ops_aimmd.committor.likelihood import negative_log_likelihood
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.training_set import TrainingSet

N_FOLDS = 5
"""Folds where the network is no ensemble; an ensemble has one per member."""

SHOTS_PER_BLOCK = 2

DECIDE_AGAIN = 3.0
"""Growth of the number of shots after which relevance and auxiliary data are decided again."""

MIN_SHOTS_TO_DECIDE = 20
"""Below, held-out losses decide nothing and the defaults hold."""

ENDS = (0.15, 0.0)
AUXILIARY_CANDIDATES = (ENDS, (0.0, 0.0), (0.15, 1.0))
"""Trials that (the end frame, all other frames together) of one leg count for; the first is the default."""

SIGNIFICANT = 2.0
"""Standard errors of the difference in held-out loss by which an alternative must beat a default."""

STIFFNESS = 6.0
"""Factor on the prior's precision while relevance is measured."""

RELEVANT, IRRELEVANT = 0.4, 0.02
"""A descriptor whose influence is this fraction of the largest one is fully relevant; scales are never below the second."""


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
        The same per leg (ratio of sums), each with its ``_error``.
    epochs : int
        Epochs of the training that was kept.
    auxiliary_weights : tuple of float
        Trials that (end frame, other frames together) of a leg counted for.
    relevance : tuple of float
        Scale of each descriptor in units of its inverse standard deviation; all 1 where the held-out shots asked for
        no distinction, 0 where the descriptor does not vary.
    decided_at : int
        Number of shots when auxiliary weights and relevance were decided; 0 where there were too few shots.
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
    relevance: tuple[float, ...]
    decided_at: int
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
    relevance: str | None = "auto",
    previous: FitReport | None = None,
    start_anew: bool = True,
    max_epochs: int = 60,
    learning_rate: float = 0.03,
    weight_decay: float = 0.25,
    max_auxiliary_frames: int = 300,
) -> FitReport:
    """Train a model in place, input scaling included.

    Parameters
    ----------
    model : CommittorModel
        Unchanged if an error is raised.
    training_set : TrainingSet
        At least one shot.
    seed : int, optional
        Of the initial weights, and of the choice of auxiliary frames where there are more than ``max_auxiliary_frames``.
    auxiliary_weights : "auto" or (float, float)
        Trials that (the end frame, all other frames together) of one leg count for. "auto": the held-out shots choose
        from ``AUXILIARY_CANDIDATES``.
    relevance : "auto" or None
        "auto": the held-out shots decide whether descriptors are scaled by their relevance. None: equal variances.
    previous : FitReport, optional
        Report of the last training of this model on the same growing set. What it decided is kept, and the model is
        trained further for a third of ``max_epochs``, until the number of shots has grown threefold since.
    start_anew : bool
        True: without ``previous`` a network of this package is started anew from ``seed``; a network of one's own is always
        trained further from the weights it has. False: the weights and the input scaling that the model has are always
        kept and trained further, as for a model that was trained on other data.
    max_epochs : int
        Epochs of Adam (Kingma and Ba 2015, arXiv:1412.6980) on all data at once; each takes ten milliseconds or less.
    learning_rate : float
        Its maximum; it rises and then falls to zero along a cosine.
    weight_decay : float
        Precision of the prior in units of the natural one (:func:`.networks.log_prior`).
    max_auxiliary_frames : int
        Bound on the cost: a random choice of as many takes the weight of all.

    Returns
    -------
    FitReport

    Raises
    ------
    ValueError
        If the set is empty or does not fit the model, or the model is frozen.
    FloatingPointError
        If training diverged.
    """
    start = time.perf_counter()
    _check(model, training_set)
    if relevance not in ("auto", None):
        raise ValueError(f'relevance must be "auto" or None; got {relevance!r}')
    trainer = _Trainer(
        training_set,
        np.random.SeedSequence(seed),
        max_epochs,
        learning_rate,
        weight_decay,
        max_auxiliary_frames,
    )
    n_shots = len(training_set)
    given = None if auxiliary_weights == "auto" else tuple(float(w) for w in auxiliary_weights)
    if not start_anew:
        decided_at = 0
        chosen = trainer.train_further(model, given or ENDS, np.ones(model.n_descriptors))
    elif previous is not None and n_shots < DECIDE_AGAIN * previous.decided_at:
        decided_at = previous.decided_at
        chosen = trainer.train_further(model, given or previous.auxiliary_weights, previous.relevance)
    else:
        decided_at = n_shots if n_shots >= MIN_SHOTS_TO_DECIDE else 0
        chosen = _decide(trainer, model, given, relevance) if decided_at else trainer.train(model, given or ENDS)
    model.load_state_dict(chosen.model.state_dict())
    return FitReport(
        n_shots=n_shots,
        n_legs=float(training_set.counts.sum()),
        **chosen.losses(),
        epochs=chosen.epochs,
        auxiliary_weights=chosen.auxiliary_weights,
        relevance=tuple(float(r) for r in chosen.relevance),
        decided_at=decided_at,
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
    chains = np.asarray(chains)
    rank = np.empty(len(chains), dtype=np.int64)
    for chain in np.unique(chains):
        rows = np.flatnonzero(chains == chain)
        rank[rows] = np.arange(len(rows)) // shots_per_block + chain
    return rank % n_folds


def _check(model: CommittorModel, training_set: TrainingSet) -> None:
    if not isinstance(model, CommittorModel) or not isinstance(training_set, TrainingSet):
        raise ValueError(
            "fit takes a CommittorModel and a TrainingSet, fit(model, TrainingSet(descriptors, counts)); got "
            f"{type(model).__name__} and {type(training_set).__name__}"
        )
    if len(training_set) == 0:
        raise ValueError("fit needs at least one shot; the training set is empty")
    expected = (model.n_descriptors, model.n_states)
    got = (training_set.n_descriptors, training_set.n_states)
    if expected != got:
        raise ValueError(
            f"the model takes {expected[0]} descriptors and {expected[1]} states; the training set has {got[0]} "
            f"descriptors and {got[1]} states"
        )
    if not any(parameter.requires_grad for parameter in model.network.parameters()):
        raise ValueError("the model is frozen: no parameter requires a gradient. Use model.copy().requires_grad_(True)")
    if not training_set.weights.sum() > 0:
        raise ValueError("fit needs at least one shot of positive weight")


def _decide(trainer: _Trainer, model: CommittorModel, auxiliary_weights, relevance) -> _Trained:
    """Let the held-out shots choose relevance, then auxiliary data."""
    default = auxiliary_weights or ENDS
    chosen = trainer.train(model, default)
    if relevance == "auto" and model.n_descriptors > 1 and isinstance(model.network, networks.StackedNetwork):
        stiff = trainer.train(model, default, stiffness=STIFFNESS)
        sharpened = trainer.train(model, default, stiff.measured_relevance())
        chosen = sharpened if sharpened.held_out_mean() < chosen.held_out_mean() else chosen
    if auxiliary_weights is None and len(trainer.training_set.auxiliary):
        for weights in AUXILIARY_CANDIDATES[1:]:
            candidate = trainer.train(model, weights, chosen.relevance)
            chosen = candidate if candidate.is_better_than(chosen) else chosen
    return chosen


@dataclass(frozen=True)
class _Trained:
    """A trained model with all that the comparison with another one needs."""

    model: CommittorModel
    data: _Data
    auxiliary_weights: tuple[float, float]
    relevance: np.ndarray
    epochs: int
    nll: np.ndarray  # (n_members, n_shots)

    def held_out_mean(self) -> float:
        """Cross-validated loss per shot; NaN where no shot was held out."""
        total = self.data.held_out.sum()
        return float((self.data.held_out * self.nll).sum() / total) if total > 0 else np.nan

    def is_better_than(self, other: _Trained) -> bool:
        """By more than two standard errors of the difference, in the held-out shots."""
        return _is_better(self.nll, other.nll, self.data.held_out)

    def measured_relevance(self) -> np.ndarray:
        """Influence of each descriptor on the log-odds, squared and clipped; its mean square over descriptors is 1."""
        influence = _influence(self.model, self.data.descriptors[: self.data.n_shots])
        if not influence.max() > 0:
            return self.relevance
        relevance = np.clip((influence / influence.max() / RELEVANT) ** 2, IRRELEVANT, 1) * (self.relevance > 0)
        return relevance * np.sqrt((self.relevance > 0).sum() / (relevance**2).sum())

    def losses(self) -> dict[str, float]:
        legs = self.data.counts[: self.data.n_shots].sum(dim=1).double().cpu().numpy()
        train = self.data.train[:, : self.data.n_shots].double().cpu().numpy()
        result = {}
        for name, weights in (("train_loss", train), ("held_out_loss", self.data.held_out)):
            result[name], result[name + "_error"] = _ratio(self.nll, weights, np.ones_like(legs))
            result[name + "_per_leg"], result[name + "_per_leg_error"] = _ratio(self.nll, weights, legs)
        return result


def _ratio(nll, weights, size) -> tuple[float, float]:
    """Ratio of sums over shots, sum w nll / sum w size, and its standard error (outcomes of shots are independent)."""
    numerator, denominator = (weights * nll).sum(axis=0), (weights * size).sum(axis=0)
    total = denominator.sum()
    if not total > 0:
        return np.nan, np.nan
    mean = numerator.sum() / total
    return float(mean), float(np.sqrt(((numerator - mean * denominator) ** 2).sum()) / total)


def _is_better(nll: np.ndarray, other: np.ndarray, held_out: np.ndarray) -> bool:
    difference, error = _ratio(nll - other, held_out, np.ones(nll.shape[-1]))
    return bool(difference < -SIGNIFICANT * error)


def _influence(model: CommittorModel, x: Tensor) -> np.ndarray:
    """Root mean square derivative of the logits (less their mean over states) by each descriptor, in units of 1/std."""
    std = torch.where(model.scale > 0, 1 / model.scale, torch.zeros_like(model.scale))
    x = x.clone().requires_grad_(True)
    logits = model(x)
    if logits.shape[1] > 1:
        logits = logits - logits.mean(dim=1, keepdim=True)
    squares = sum(torch.autograd.grad(column.sum(), x, retain_graph=True)[0].square() for column in logits.T)
    return (squares.mean(dim=0).sqrt() * std).double().cpu().numpy()


@dataclass(frozen=True)
class _Data:
    """Shots first, then auxiliary frames, as tensors; ``train`` and ``held_out`` are weights, one row per member."""

    descriptors: Tensor
    counts: Tensor
    train: Tensor
    held_out: np.ndarray
    n_shots: int

    @classmethod
    def of(cls, model: CommittorModel, training_set: TrainingSet, auxiliary_weights, max_frames, rng) -> _Data:
        n_members = getattr(model.network, "n_members", 1)
        fold = folds(training_set.chains, n_members if n_members > 1 else N_FOLDS)
        if (fold == fold[0]).all():
            fold = np.full_like(fold, -1)
        x, counts, weights = training_set.descriptors, training_set.counts, training_set.weights
        frames = training_set.auxiliary
        rows, frame_weights = _choose_frames(frames, auxiliary_weights, max_frames, rng)
        shot = frames.shot[rows]
        x = np.concatenate([x, frames.descriptors[rows]])
        counts = np.concatenate([counts, np.eye(training_set.n_states)[frames.outcomes[rows]]])
        weights = np.concatenate([weights, frame_weights * weights[shot]])
        held_out = np.concatenate([fold, fold[shot]]) == np.arange(n_members)[:, None]
        n_shots = len(training_set)

        def tensor(array):
            return torch.tensor(array, dtype=model.dtype, device=model.device)

        return cls(tensor(x), tensor(counts), tensor(weights * ~held_out), (weights * held_out)[:, :n_shots], n_shots)


def _choose_frames(frames, auxiliary_weights, max_frames, rng) -> tuple[np.ndarray, np.ndarray]:
    """Rows of auxiliary frames to train on, and the weight of each."""
    per_end, per_leg = auxiliary_weights
    n_ends = np.bincount(frames.shot[frames.is_end])
    n_others = np.bincount(frames.shot[~frames.is_end], minlength=len(n_ends))
    legs = np.maximum(n_ends, 1)[frames.shot] if len(n_ends) else np.ones(len(frames))
    weights = np.where(frames.is_end, per_end, per_leg * legs / np.maximum(n_others, 1)[frames.shot])
    rows = np.flatnonzero(weights > 0)
    if len(rows) <= max_frames:
        return rows, weights[rows]
    chosen = np.sort(rng.choice(rows, max_frames, replace=False))
    return chosen, weights[chosen] * weights[rows].sum() / weights[chosen].sum()


@dataclass(frozen=True)
class _Trainer:
    training_set: TrainingSet
    seed: np.random.SeedSequence
    max_epochs: int
    learning_rate: float
    weight_decay: float
    max_auxiliary_frames: int

    def train(self, model: CommittorModel, auxiliary_weights, relevance=None, stiffness=1.0) -> _Trained:
        """Train a copy of the model, from new weights where the network can be started anew."""
        trial = model.copy()
        shift, std = self._moments()
        varies = std > 1e-9 * np.abs(shift)
        relevance = varies * (np.ones(len(std)) if relevance is None else relevance)
        with torch.no_grad():
            trial.shift.copy_(torch.from_numpy(shift))
            trial.scale.copy_(torch.from_numpy(relevance / np.where(varies, std, 1)))
        if isinstance(trial.network, networks.StackedNetwork):
            trial.network.restart(int(self.seed.generate_state(1)[0]))
        return self._optimise(trial, auxiliary_weights, relevance, self.max_epochs, stiffness)

    def train_further(self, model: CommittorModel, auxiliary_weights, relevance) -> _Trained:
        """Train a copy of the model from its present weights; its input scaling is kept."""
        return self._optimise(model.copy(), auxiliary_weights, relevance, math.ceil(self.max_epochs / 3), 1.0)

    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        x = np.concatenate([self.training_set.descriptors, self.training_set.auxiliary.descriptors])
        return x.mean(axis=0), x.std(axis=0)

    def _optimise(self, trial: CommittorModel, auxiliary_weights, relevance, max_epochs, stiffness) -> _Trained:
        rng = np.random.default_rng(self.seed)
        data = _Data.of(trial, self.training_set, auxiliary_weights, self.max_auxiliary_frames, rng)
        epochs, nll = _optimise(trial, data, max_epochs, self.learning_rate, self.weight_decay * stiffness)
        return _Trained(trial, data, auxiliary_weights, np.asarray(relevance, dtype=float), epochs, nll)


def _optimise(model, data: _Data, max_epochs, max_learning_rate, weight_decay) -> tuple[int, np.ndarray]:
    """Train in place; returns the epochs kept and the loss (n_members, n_shots) of every shot under every member.

    A pass over the data gives the gradient and, from the shots that each member does not train on, the held-out loss.
    """
    parameters = [p for p in model.network.parameters() if p.requires_grad]
    optimiser = _Adam(parameters)
    # a common factor; Adam does not see it, except through the size of its epsilon
    per_shot = 1 / data.train[:, : data.n_shots].sum().clamp(min=1e-12)
    can_compare = data.held_out.sum() > 0
    snapshots = []
    every = max(max_epochs // 10, 1)
    was_training = model.training
    model.train()
    for epoch in range(max_epochs + 1):
        nll = negative_log_likelihood(model.member_logits(data.descriptors), data.counts)
        if epoch == max_epochs or (can_compare and epoch and epoch % every == 0):
            snapshots.append(
                (
                    epoch,
                    nll.detach()[:, : data.n_shots].double().cpu().numpy(),
                    [p.detach().clone() for p in parameters],
                )
            )
        if epoch == max_epochs:
            break
        loss = (data.train * nll).sum() - weight_decay * networks.log_prior(model.network)
        gradients = torch.autograd.grad(loss * per_shot, parameters, allow_unused=True)
        optimiser.step(gradients, max_learning_rate * _learning_rate_shape((epoch + 1) / max_epochs))
    model.train(was_training)
    epochs, nll, values = last = snapshots[-1]
    if not np.isfinite(nll).all():
        raise FloatingPointError(
            "training diverged: the loss is not finite. Look for extreme descriptors, or lower the learning rate"
        )
    if can_compare:
        best = min(snapshots, key=lambda snapshot: (data.held_out * snapshot[1]).sum())
        epochs, nll, values = best if _is_better(best[1], last[1], data.held_out) else last
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
    return epochs, nll


class _Adam:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980). The one of torch imports its compiler first, which takes 1.4 s."""

    def __init__(self, parameters: list[Tensor], betas=(0.9, 0.99), epsilon: float = 1e-8):
        self.parameters = parameters
        self.betas = betas
        self.epsilon = epsilon
        self.means = [torch.zeros_like(p) for p in parameters]
        self.squares = [torch.zeros_like(p) for p in parameters]
        self.n_steps = 0

    @torch.no_grad()
    def step(self, gradients, learning_rate: float) -> None:
        self.n_steps += 1
        first, second = (1 - beta**self.n_steps for beta in self.betas)
        for parameter, gradient, mean, square in zip(self.parameters, gradients, self.means, self.squares, strict=True):
            if gradient is None:  # a parameter that the network does not use
                continue
            mean.lerp_(gradient, 1 - self.betas[0])
            square.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
            denominator = square.sqrt().div_(math.sqrt(second)).add_(self.epsilon)
            parameter.addcdiv_(mean, denominator, value=-learning_rate / first)


def _learning_rate_shape(fraction: float) -> float:
    """Half a cosine up to 1 over the first 30 % of the epochs, half a cosine down to 0 over the rest."""
    if fraction < 0.3:
        return 0.52 - 0.48 * math.cos(math.pi * fraction / 0.3)
    return 0.5 + 0.5 * math.cos(math.pi * (fraction - 0.3) / 0.7)

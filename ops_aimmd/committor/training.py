r"""Training the committor on shooting results, judged by shots that were held out.

**Folds.** The shots are dealt into folds: whole chains where there are as many as folds, or else blocks of consecutive
shots of a chain. Member k of an ensemble never sees fold k. Its loss there estimates how well it predicts new shots, and as
every shot is held out by one member, the sum over the folds is a cross-validated loss at no extra cost. Where the outcomes
of consecutive shots are more alike than the model explains, because a slow coordinate is missing among the descriptors, the
shots next to those of fold k tell member k of their outcomes. Then the blocks are longer, and it does not see these
neighbours, either. A shot keeps its fold while the training set grows, until a model is started from new weights.

**Judges and the published network.** The members above are the judges. A network that is trained from the same weights and
as far, but on all shots, makes the predictions. Where blocks are long, a judge misses much of a chain, and predicts other
chains worse than the data allow. Held-out losses and the slope are those of the judges.

**Objective.** The posterior of the weights: log-likelihood of the shots plus the log-prior of :mod:`.networks`. The
prior keeps the log-odds finite where the outcomes are separable and gives a weak prediction from a single shot.

**Slope.** Networks that learn from few shots are too sure of themselves. Frames of legs, which still have a velocity, teach
steeper log-odds than the average over velocities has. The log-odds are multiplied by the slope that shots ask for which had
not been seen when they were predicted (:func:`.recalibration.expected_slope`): by members that they are held out from, and
by earlier versions of the model. All losses below are those with the slope.

**What the held-out shots decide**, always by the same rule: a default is kept unless the alternative has a loss lower by
more than two standard errors of the difference, which know of correlated shots.

- *When to stop.* The last epoch is the default, an earlier one the alternative. Frames of legs keep a network from
  memorising, and need many epochs. Without them the epoch of the lowest loss is kept.
- *Relevance.* A first network with a stiff prior measures how strongly its log-odds depend on each descriptor. The
  alternative to descriptors of equal variance is to scale them by that, so that irrelevant ones cannot be used for
  memorising (automatic relevance determination; R. M. Neal 1996, doi:10.1007/978-1-4612-0745-0).
- *Auxiliary data.* End frames, whose committor is known, and the other frames of the legs by way of :mod:`.martingale` are
  the default; less of them or none the alternatives. They never enter a reported loss.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import ops_aimmd.committor.networks as networks
from ops_aimmd.committor.correlated_shots import Folds, block_length
from ops_aimmd.committor.fit_report import FitReport
from ops_aimmd.committor.input_scaling import InputScaling
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.optimisation import SHOTS_PER_EPOCH, TrainingData, optimise
from ops_aimmd.committor.training_set import TrainingSet

LEARNING_RATE = 0.03
"""Peak learning rate."""

DECIDE_AGAIN = 3.0
"""Growth of the number of shots after which relevance and auxiliary data are decided again."""

ALL_EFFORT = 200
"""Legs from which training takes all its epochs and frames. The first shots need half of each."""

ON_ALL_SHOTS = 0.6
"""Least number of epochs of the training with nothing held out, relative to a training from new weights."""

MIN_SHOTS_TO_DECIDE = 20
"""Independent ones: below, held-out losses decide nothing and the defaults hold."""

AUXILIARY_CANDIDATES = ((0.15, 10.0), (0.15, 0.0), (0.0, 0.0))
"""Trials that (the end frame, all other frames together) of one leg count for; the first is the default."""

STIFFNESS = 6.0
"""Factor on the prior's precision while relevance is measured."""

RELEVANT, IRRELEVANT = 0.4, 0.02
"""A descriptor whose influence is this fraction of the largest one is fully relevant; scales are never below the second."""


def fit(
    model: CommittorModel,
    training_set: TrainingSet,
    seed=None,
    auxiliary_weights="auto",
    relevance: str | None = "auto",
    previous: FitReport | None = None,
    start_anew: bool = True,
    max_epochs: int = 150,
    learning_rate: float = LEARNING_RATE,
    weight_decay: float = 0.25,
    frames_per_epoch: int = 1000,
) -> FitReport:
    """Train a model in place, input scaling included.

    Parameters
    ----------
    model : CommittorModel
        Unchanged if an error is raised.
    training_set : TrainingSet
        At least one shot.
    seed : int, optional
        Of the initial weights and of the choice of auxiliary frames.
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
        kept and trained further, as for a model that was trained on other data, or a formula with a network beside it.
    max_epochs : int
        Epochs of Adam (Kingma and Ba 2015, arXiv:1412.6980) on all data at once; each takes ten milliseconds or less.
        With fewer than ``ALL_EFFORT`` legs there are fewer epochs, down to a half.
    learning_rate : float
        Its maximum; it rises and then falls to zero along a cosine.
    weight_decay : float
        Precision of the prior in units of the natural one (:func:`.networks.log_prior`).
    frames_per_epoch : int
        Bound on the cost: each epoch uses about as many frames of legs, in turns, and at most as many ends; they have the
        weight of all. Fewer with few legs, as for ``max_epochs``.

    Raises
    ------
    ValueError
        If the set is empty or does not fit the model, or the model is frozen.
    FloatingPointError
        If training diverged.
    """
    start = time.perf_counter()
    check_model(model, training_set)
    if len(training_set) == 0:
        raise ValueError("fit needs at least one shot; the training set is empty")
    if not any(parameter.requires_grad for parameter in model.network.parameters()):
        raise ValueError("the model is frozen: no parameter requires a gradient. Use model.copy().requires_grad_(True)")
    if not training_set.weights.sum() > 0:
        raise ValueError("fit needs at least one shot of positive weight")
    if relevance not in ("auto", None):
        raise ValueError(f'relevance must be "auto" or None; got {relevance!r}')
    n_shots, x = len(training_set), training_set.all_descriptors()
    scaling = InputScaling.of(x, n_shots)
    scaling.warn(x, n_shots)
    del x  # as large as the training set
    effort = min(0.5 + 0.5 * float(training_set.counts.sum()) / ALL_EFFORT, 1.0)
    trainer = _Trainer(
        training_set,
        Folds.dealt(training_set.chains, model.n_folds),
        scaling,
        np.random.SeedSequence(seed),
        math.ceil(effort * max_epochs),
        learning_rate,
        weight_decay,
        math.ceil(effort * frames_per_epoch),
        () if previous is None else (*previous.earlier_slopes, (previous.n_shots, previous.slope)),
    )
    candidates = trainer.candidates() if auxiliary_weights == "auto" else [tuple(float(w) for w in auxiliary_weights)]
    if not start_anew or getattr(model.network, "is_of_raw_descriptors", False):
        decided_at = 0
        chosen = trainer.train_further(model, candidates[0], np.ones(model.n_descriptors))
    elif previous is not None and n_shots < DECIDE_AGAIN * previous.decided_at:
        decided_at = previous.decided_at
        weights = previous.auxiliary_weights if auxiliary_weights == "auto" else candidates[0]
        chosen = trainer.train_further(model, weights, previous.relevance, previous.velocity_memory)
    else:
        decided_at = n_shots if n_shots >= MIN_SHOTS_TO_DECIDE else 0
        chosen = _decide(trainer, model, candidates, relevance) if decided_at else trainer.train(model, candidates[0])
    published = trainer.published(chosen)
    model.load_state_dict(published.state_dict())
    model.folds = published.folds
    return FitReport(
        n_shots=n_shots,
        n_legs=float(training_set.counts.sum()),
        **chosen.losses(),
        epochs=chosen.epochs,
        auxiliary_weights=chosen.auxiliary_weights,
        relevance=tuple(float(r) for r in chosen.relevance),
        velocity_memory=chosen.velocity_memory,
        decided_at=decided_at,
        seconds=time.perf_counter() - start,
        slope=float(model.slope),
        earlier_slopes=trainer.earlier_slopes,
    )


def check_model(model, shots) -> None:
    """Raise ValueError unless these are a model and a training set of the same descriptors and states."""
    if not isinstance(model, CommittorModel) or not isinstance(shots, TrainingSet):
        types = f"{type(model).__name__} and {type(shots).__name__}"
        raise ValueError(f"expected a CommittorModel, such as learner.model, and a TrainingSet, in this order; got {types}")
    expected, got = (f"{one.n_descriptors} descriptors and {one.n_states} states" for one in (model, shots))
    if expected != got:
        raise ValueError(f"the model takes {expected}; the training set has {got}")


def _decide(trainer: _Trainer, model: CommittorModel, candidates, relevance) -> _Trained:
    """Let the held-out shots choose relevance, then auxiliary data."""
    default = candidates[0]
    chosen = trainer.train(model, default)
    correlated = 1
    while (found := block_length(*chosen.data.residuals(chosen.model))) > correlated:  # long blocks show more of it
        correlated, folds = found, Folds.dealt(trainer.training_set.chains, model.n_folds, found)
        if folds == trainer.folds:
            break
        trainer = replace(trainer, folds=folds)
        chosen = trainer.train(model, default)
    if chosen.data.worth(chosen.model) < MIN_SHOTS_TO_DECIDE:
        trainer = replace(trainer, decides=False)
        return trainer.train(model, default)
    if relevance == "auto" and model.n_descriptors > 1 and isinstance(model.network, networks.StackedNetwork):
        stiff = trainer.train(model, default, stiffness=STIFFNESS)
        sharpened = trainer.train(model, default, stiff.measured_relevance())
        chosen = sharpened if sharpened.is_better_than(chosen) else chosen
    for weights in candidates[1:]:
        candidate = trainer.train(model, weights, chosen.relevance)
        chosen = candidate if candidate.is_better_than(chosen) else chosen
    return chosen


@dataclass(frozen=True)
class _Trained:
    """A trained model with all that the comparison with another one needs."""

    start: CommittorModel
    model: CommittorModel
    data: TrainingData
    auxiliary_weights: tuple[float, float]
    relevance: np.ndarray
    velocity_memory: float
    max_epochs: int
    epochs: int
    nll: np.ndarray  # (n_members, n_shots)

    def is_better_than(self, other: _Trained) -> bool:
        """In the held-out shots, by some standard errors of the difference."""
        return self.data.is_better(self.nll, other.nll)

    def measured_relevance(self) -> np.ndarray:
        """Influence of each descriptor on the log-odds, squared and clipped; its mean square over descriptors is 1."""
        influence = _influence(self.model, self.data.descriptors[: self.data.n_shots])
        if not influence.max() > 0:
            return self.relevance
        relevance = np.clip((influence / influence.max() / RELEVANT) ** 2, IRRELEVANT, 1) * (self.relevance > 0)
        return relevance * np.sqrt((self.relevance > 0).sum() / (relevance**2).sum())

    def losses(self) -> dict[str, Any]:
        legs = self.data.counts[: self.data.n_shots].sum(dim=1).double().cpu().numpy()
        train = self.data.train[:, : self.data.n_shots].double().cpu().numpy()
        result = {}
        for name, weights in (("train_loss", train), ("held_out_loss", self.data.held_out)):
            result[name], result[name + "_error"] = self.data.weighted_ratio(self.nll, weights, np.ones_like(legs))
            result[name + "_per_leg"], result[name + "_per_leg_error"] = self.data.weighted_ratio(self.nll, weights, legs)
        return result


def _influence(model: CommittorModel, x: Tensor) -> np.ndarray:
    """Root mean square derivative of the logits (less their mean over states) by each descriptor, in units of 1/std."""
    std = torch.where(model.scale > 0, 1 / model.scale, torch.zeros_like(model.scale))
    x = x.clone().requires_grad_(True)
    logits = model(x)
    if logits.shape[1] > 1:
        logits = logits - logits.mean(dim=1, keepdim=True)
    gradients = (torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in logits.T)
    squares = sum(((gradient * std).square() for gradient in gradients), start=torch.zeros_like(x))
    return squares.mean(dim=0).sqrt().double().cpu().numpy()


@dataclass(frozen=True)
class _Trainer:
    training_set: TrainingSet
    folds: Folds
    scaling: InputScaling
    seed: np.random.SeedSequence
    max_epochs: int
    learning_rate: float
    weight_decay: float
    frames_per_epoch: int
    earlier_slopes: tuple[tuple[int, float], ...]
    decides: bool = True

    def candidates(self) -> list[tuple[float, float]]:
        """Weights of auxiliary data to choose from, as far as there are such data; the default first."""
        frames = self.training_set.auxiliary
        present = frames.is_end.any(), np.isfinite(frames.displacements[~frames.is_end]).any()
        found = ((float(end * present[0]), float(others * present[1])) for end, others in AUXILIARY_CANDIDATES)
        return list(dict.fromkeys(found))

    def train(self, model: CommittorModel, auxiliary_weights, relevance=None, stiffness=1.0) -> _Trained:
        """Train a copy of the model, from new weights where the network can be started anew."""
        trial = model.of_judges.copy()
        trial.folds = self.folds
        of_data = self.scaling
        varies = of_data.std > 0
        relevance = varies * (np.ones(len(varies)) if relevance is None else relevance)
        trial.set_scaling(of_data.mean, relevance / np.where(varies, of_data.std, 1), of_data.lower, of_data.upper)
        if isinstance(trial.network, networks.StackedNetwork):
            trial.network.restart(int(self.seed.generate_state(1)[0]))
        return self._optimise(trial, auxiliary_weights, relevance, self.max_epochs, stiffness)

    def train_further(self, model: CommittorModel, auxiliary_weights, relevance, velocity_memory=0.0) -> _Trained:
        """Train a copy of the model from its present weights; its input scaling and folds are kept."""
        epochs = math.ceil(self.max_epochs / 3)
        trial = model.of_judges.copy()
        trial.folds = trial.folds or self.folds
        return self._optimise(trial, auxiliary_weights, relevance, epochs, 1.0, velocity_memory)

    def published(self, trained: _Trained) -> CommittorModel:
        """The trained model with a network that has seen all shots; the one that has not becomes its judges.

        Both are trained from the same weights, and as far. There are no judges with few legs, which tell little, and with
        very many shots, since a part of them tells as much.
        """
        data = trained.data
        few = not data.held_out.any() or data.counts[: data.n_shots].sum() < ALL_EFFORT
        if few or data.n_shots > SHOTS_PER_EPOCH:
            return trained.model
        epochs = max(trained.max_epochs, math.ceil(ON_ALL_SHOTS * self.max_epochs))
        last = math.ceil(epochs * trained.epochs / trained.max_epochs)
        model, known = trained.start.copy(), data.known_to_all()
        optimise(model, known, epochs, self.learning_rate, self.weight_decay, trained.velocity_memory, last)
        model.slope.copy_(trained.model.slope)
        model.judges = trained.model.network
        return model

    def _optimise(self, trial, auxiliary_weights, relevance, max_epochs, stiffness, velocity_memory=0.0) -> _Trained:
        rng, start = np.random.default_rng(self.seed), trial.copy()
        data = TrainingData.of(trial, self.training_set, auxiliary_weights, self.frames_per_epoch, rng, self.earlier_slopes)
        if not self.decides:
            data = replace(data, deciding=np.zeros_like(data.deciding))
        weight_decay = self.weight_decay * stiffness
        epochs, memory, nll = optimise(trial, data, max_epochs, self.learning_rate, weight_decay, velocity_memory)
        relevance = np.asarray(relevance, dtype=float)
        return _Trained(start, trial, data, auxiliary_weights, relevance, memory, max_epochs, epochs, nll)

"""The inner loop of training: full passes over the data, Adam, and the epoch to keep."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

import ops_aimmd.committor.networks as networks
from ops_aimmd.committor.autocorrelation import independent_values
from ops_aimmd.committor.correlated_shots import Folds, error_of_sum, position_in_chain
from ops_aimmd.committor.likelihood import log_committor, negative_log_likelihood
from ops_aimmd.committor.martingale import Legs, batches_of_legs
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.recalibration import AS_IT_IS, TAUGHT_BY_FRAMES, expected_slope
from ops_aimmd.committor.training_set import TrainingSet

OUTLYING = 0.5
"""Weight in training of a configuration with an outlying descriptor, which is as likely an error as it has a meaning."""

SIGNIFICANT = 2.0
"""Standard errors of the difference in held-out loss by which an alternative must beat a default."""

RECENT = 2.0
"""Power of the position in its chain with which a shot counts for the slope. The next shots resemble the last ones."""

LARGEST_LOGIT = 40.0
"""Logarithms of probabilities that have become zero count as minus this."""

NUMBERS_KEPT = 2**26
"""Inputs of batches of legs that are kept between epochs. Those of larger sets are made again for each epoch."""

SHOTS_PER_EPOCH = 20_000
"""An epoch uses about as many shots at most, in turns, with the weight of all. The slope, too, comes from as many."""

MEMORY_LEARNING_RATE = 0.03
"""Learning rate of the velocity memory, relative to `Legs.typical_memory`."""

LONGEST_MEMORY = 3.0
"""Largest velocity memory, relative to `Legs.typical_memory`."""


@dataclass(frozen=True)
class TrainingData:
    """Shots, ends of legs and frames of legs as tensors.

    Attributes
    ----------
    descriptors, counts : tensor, shape (n_rows, d), (n_rows, n_states)
        Shots first, then ends of legs. Descriptors are in double precision.
    weights : tensor, shape (n_rows,)
        Weights in training.
    known : bool tensor, shape (n_members, n_rows)
        What each member trains on.
    held_out : array, shape (n_members, n_shots)
        Weights of the shots that each member does not see.
    deciding : array, shape (n_members, n_shots)
        The same, 0 for shots with an outlying descriptor (`is_far`): of those the model knows nothing.
    chains, steps : int array, shape (n_shots,)
    legs : list of (Legs, tensor of shape (m,))
        Other frames of the legs in batches, one for each epoch, and their weights. They are known as their shots are.
    foreseen : array, shape (n_shots, k)
        Logits, before they were calibrated, with which earlier versions of the model predicted a shot; NaN where none did.
    """

    descriptors: Tensor
    counts: Tensor
    weights: Tensor
    known: Tensor
    held_out: np.ndarray
    deciding: np.ndarray
    n_shots: int
    chains: np.ndarray
    steps: np.ndarray
    folds: Folds
    legs: list[tuple[Legs, Tensor]]
    foreseen: np.ndarray

    @classmethod
    def of(
        cls, model: CommittorModel, training_set: TrainingSet, auxiliary_weights, max_frames, rng, earlier_slopes=()
    ) -> TrainingData:
        """
        Parameters
        ----------
        model : CommittorModel
            With `folds`; without, those of uncorrelated shots are taken.
        auxiliary_weights : (float, float)
            Trials that (the end frame, all other frames together) of a leg count for.
        max_frames : int
            Frames of legs in a batch, and ends; each batch has the weight of all.
        earlier_slopes : sequence of (int, float)
            As in :class:`.FitReport`.
        """

        def tensor(array, dtype=model.dtype):
            return torch.tensor(array, dtype=dtype, device=model.device)

        per_end, per_leg = auxiliary_weights
        n_members = getattr(model.network, "n_members", 1)
        chains, steps = training_set.chains, training_set.steps
        folds = model.folds or Folds.dealt(chains, model.n_folds)
        fold = folds.of(chains, steps)
        if (fold == fold[0]).all():
            fold = np.full_like(fold, -1)
        members = np.arange(n_members)[:, None]
        weights, frames = training_set.weights, training_set.auxiliary
        ends = np.flatnonzero(frames.is_end) if per_end > 0 else np.empty(0, int)
        total = weights[frames.shot[ends]].sum()
        if len(ends) > max_frames:
            ends = np.sort(rng.choice(ends, max_frames, replace=False))
        of_ends = weights[frames.shot[ends]]
        of_ends = of_ends * (per_end * total / max(of_ends.sum(), 1e-300))
        x = np.concatenate([training_set.descriptors, frames.descriptors[ends]])
        far = model.is_far(x)
        counts = np.concatenate([training_set.counts, np.eye(training_set.n_states)[frames.outcomes[ends]]])
        n_shots = len(training_set)
        held_out = fold == members
        known = ~held_out & ~folds.gaps(chains, steps)[:n_members]
        known[known.sum(axis=1) == 0] = ~held_out[known.sum(axis=1) == 0]  # too few shots for gaps
        legs = []
        for batch in batches_of_legs(frames, training_set.n_states, max_frames, rng, tensor) if per_leg > 0 else ():
            of_frames = weights[batch.shot]
            of_frames = of_frames * (per_leg * weights[frames.shot[frames.is_end]].sum() / max(of_frames.sum(), 1e-300))
            of_frames = of_frames * np.where(model.is_far(batch.descriptors), OUTLYING, 1.0)
            legs.append((batch, tensor(of_frames)))
        return cls(
            tensor(x, torch.float64),
            tensor(counts),
            tensor(np.concatenate([weights, of_ends]) * np.where(far, OUTLYING, 1.0)),
            tensor(np.concatenate([known, known[:, frames.shot[ends]]], axis=1), torch.bool),
            weights * held_out,
            weights * held_out * ~far[:n_shots],
            n_shots,
            chains,
            steps,
            folds,
            legs,
            foreseen_logits(training_set.predicted_committor, earlier_slopes),
        )

    @property
    def train(self) -> Tensor:
        """Weights in the training of each member, (n_members, n_rows)."""
        return self.weights * self.known

    def known_to_all(self) -> TrainingData:
        """The same data, with nothing held out from any member."""
        nothing = np.zeros_like(self.held_out)
        return replace(self, known=torch.ones_like(self.known), held_out=nothing, deciding=nothing)

    def mean_of_judges(self, values: np.ndarray) -> np.ndarray:
        """Mean (n_shots, ...) of values (n_members, n_shots, ...) over the members that have not seen a shot, or NaN."""
        judges = (self.held_out > 0).reshape(*self.held_out.shape, *[1] * (values.ndim - 2))
        with np.errstate(invalid="ignore"):
            return (judges * values).sum(axis=0) / judges.sum(axis=0)

    def slope(self, logits: Tensor) -> float:
        """Slope for the logits (n_members, n_shots, k) of a network, by predictions for shots that were not seen.

        Members that a shot was held out from have seen fewer shots, but later ones; earlier versions of the model saw what
        the chain had made before. Where a shot has both predictions, each counts half.
        """
        weights = self.deciding.max(axis=0) * (RECENT + 1) * position_in_chain(self.chains, self.steps) ** RECENT
        rows = slice(None, None, -(-self.n_shots // SHOTS_PER_EPOCH))
        counts = (self.counts[: self.n_shots].double().cpu().numpy() * weights[:, None])[rows]
        predictions = [self.mean_of_judges(logits.double().cpu().numpy())[rows], self.foreseen[rows]]
        known = [np.isfinite(prediction).all(axis=1) & (weights[rows] > 0) for prediction in predictions]
        share = 1 / np.maximum(np.sum(known, axis=0), 1)[:, None]
        return expected_slope(
            np.concatenate([prediction[found] for prediction, found in zip(predictions, known, strict=True)]),
            np.concatenate([(share * counts)[found] for found in known]),
            TAUGHT_BY_FRAMES if self.legs else AS_IT_IS,
        )

    def worth(self, model: CommittorModel) -> float:
        """Number of independent shots, by the correlation of the residuals."""
        residuals, chains, steps = self.residuals(model)
        return min((independent_values(column, chains, steps) for column in residuals.T), default=0.0)

    def residuals(self, model: CommittorModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residuals of the held-out predictions, shape (m, n_states - 1), with chain and step of each of the m shots."""
        with torch.no_grad():
            p = log_committor(model.of_judges.member_logits(self.descriptors[: self.n_shots])).exp().double().cpu().numpy()
        counts = self.counts[: self.n_shots].double().cpu().numpy()
        residuals = counts - counts.sum(axis=1, keepdims=True) * self.mean_of_judges(p)
        judged = np.isfinite(residuals).all(axis=1)
        return residuals[judged, 1:], self.chains[judged], self.steps[judged]

    def weighted_ratio(self, nll, weights, size) -> tuple[float, float]:
        """Ratio of sums over shots, sum w nll / sum w size, and its standard error."""
        numerator, denominator = (weights * nll).sum(axis=0), (weights * size).sum(axis=0)
        total = denominator.sum()
        if not total > 0:
            return np.nan, np.nan
        mean = numerator.sum() / total
        used = denominator > 0
        deviations = (numerator - mean * denominator)[used]
        (error,) = error_of_sum(deviations, self.chains[used], self.steps[used])
        return float(mean), float(error / total)

    def is_better(self, nll: np.ndarray, other: np.ndarray) -> bool:
        """Whether a loss of the deciding shots is lower by more than some standard errors of the difference."""
        difference, error = self.weighted_ratio(nll - other, self.deciding, np.ones(nll.shape[-1]))
        return bool(difference < -SIGNIFICANT * error)


def foreseen_logits(predicted: np.ndarray, earlier_slopes) -> np.ndarray:
    """Logits (n, k) of the predictions before each shot (n, n_states), divided by the slope that the model then had.

    NaN for shots before the first of the trainings. Rows are in the order in which the shots came.
    """
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(predicted), -LARGEST_LOGIT)
    logits = logits[:, 1:] - logits[:, :1] if logits.shape[1] == 2 else logits
    n_shots, slopes = np.array([(0, np.nan), *earlier_slopes]).T
    return logits / slopes[np.searchsorted(n_shots, np.arange(len(logits)), side="right") - 1, None]


def held_out_losses(model: CommittorModel, training_set: TrainingSet) -> np.ndarray:
    """Loss of each shot, (n_shots,), under the members that have not seen it; NaN where all have."""
    data = TrainingData.of(model, training_set, (0.0, 0.0), 0, np.random.default_rng(0))
    with torch.no_grad():
        nll = negative_log_likelihood(model.of_judges.member_logits(data.descriptors), data.counts).double().cpu().numpy()
    return data.mean_of_judges(nll)


def optimise(
    model: CommittorModel,
    data: TrainingData,
    max_epochs: int,
    max_learning_rate: float,
    weight_decay: float,
    memory: float,
    last: int | None = None,
) -> tuple[int, float, np.ndarray]:
    """Train in place, and calibrate.

    A pass over the data gives the gradient and, from the shots that each member does not train on, the slope of the
    log-odds and the held-out loss. Of large sets a pass takes a part (`SHOTS_PER_EPOCH`).

    Parameters
    ----------
    memory : float
        Memory of velocities to begin with, in frames.
    last : int, optional
        Epoch after which training ends, while the learning rate goes by ``max_epochs``.

    Returns
    -------
    epochs : int
        Epochs of the state that is kept.
    memory : float
    nll : array, shape (n_members, n_shots)
        Loss of every shot under every member.
    """
    parameters: list[Tensor] = [p for p in model.network.parameters() if p.requires_grad]
    optimiser = Adam(parameters)
    unit = data.legs[0][0].typical_memory if data.legs else 0.0
    relative = min(memory / unit, LONGEST_MEMORY) if unit > 0 else 0.0
    factor = torch.tensor(relative, dtype=model.dtype, device=model.device, requires_grad=unit > 0)
    factors = [factor] if unit > 0 else []
    optimiser_of_factor = Adam(factors)
    # a common factor; Adam does not see it, except through the size of its epsilon
    train = data.train
    per_shot = 1 / train[:, : data.n_shots].sum().clamp(min=1e-12)
    can_compare = data.deciding.sum() > 0
    is_exact = getattr(model.network, "is_of_raw_descriptors", False)  # a formula says what it says
    snapshots = []
    was_training = model.training
    model.train()
    inputs = model.inputs(data.descriptors)
    n_parts = -(-len(inputs) // SHOTS_PER_EPOCH)
    every = max(max_epochs // (10 if n_parts == 1 else 4), 1)  # states to choose from; each costs a pass over all shots
    parts = [(inputs[n::n_parts], data.counts[n::n_parts], n_parts * train[:, n::n_parts]) for n in range(n_parts)]
    size = 2 * model.n_descriptors * max((len(legs) for legs, _ in data.legs), default=1)
    kept = {n: _inputs_of_legs(model, legs) for n, (legs, _) in enumerate(data.legs[: NUMBERS_KEPT // size])}
    last = max_epochs if last is None else last
    for epoch in range(last + 1):
        of_part, counts, train = parts[epoch % n_parts]
        logits = networks.member_logits(model.network, of_part)
        if epoch == last or (can_compare and epoch and epoch % every == 0):
            with torch.no_grad():
                of_all = logits if n_parts == 1 else networks.member_logits(model.network, inputs[: data.n_shots])
            of_shots = of_all.detach()[:, : data.n_shots].double()
            model.slope.fill_(data.slope(of_shots) if can_compare and not is_exact else 1.0)
            loss_of_shots = negative_log_likelihood(model.calibrated(of_shots), data.counts[: data.n_shots]).cpu().numpy()
            values = [value.detach().clone() for value in (*parameters, model.slope)]
            snapshots.append((epoch, factor.item() * unit, loss_of_shots, values))
        if epoch == last:
            break
        learning_rate = _learning_rate_shape((epoch + 1) / max_epochs)
        nll = negative_log_likelihood(logits, counts)
        loss = (train * nll).sum() - weight_decay * networks.log_prior(model.network)
        if data.legs:
            number = epoch % len(data.legs)
            legs, weights = data.legs[number]
            weights = weights * data.known[:, torch.as_tensor(legs.shot, device=model.device)]
            of_legs = kept[number] if number in kept else _inputs_of_legs(model, legs)
            loss = loss + _loss_of_legs(model.network, legs, weights, *of_legs, factor * unit)
        gradients = torch.autograd.grad(loss * per_shot, parameters + factors, allow_unused=True)
        optimiser.step(gradients[: len(parameters)], max_learning_rate * learning_rate)
        optimiser_of_factor.step(gradients[len(parameters) :], MEMORY_LEARNING_RATE * learning_rate)
        with torch.no_grad():
            factor.clamp_(0.0, LONGEST_MEMORY)
    model.train(was_training)
    chosen = final = snapshots[-1]
    if not np.isfinite(final[2]).all():
        raise FloatingPointError(
            "training diverged: the loss is not finite. Look for extreme descriptors, or lower the learning rate"
        )
    if can_compare:
        best = min(snapshots, key=lambda snapshot: (data.deciding * snapshot[2]).sum())
        stops = not data.legs or data.is_better(best[2], final[2])  # what later frames teach takes its time to settle
        chosen = best if stops else final
    epochs, memory, losses, values = chosen
    with torch.no_grad():
        for parameter, value in zip((*parameters, model.slope), values, strict=True):
            parameter.copy_(value)
    return epochs, memory, losses


def _inputs_of_legs(model: CommittorModel, legs: Legs) -> tuple[Tensor, Tensor]:
    """Inputs of the network at the frames, and their changes since the frame before."""
    x, before = (
        model.inputs(torch.as_tensor(values, dtype=torch.float64, device=model.device))
        for values in (legs.descriptors, legs.descriptors - legs.displacements)
    )
    return x, x - before


def _loss_of_legs(network, legs: Legs, weights: Tensor, inputs: Tensor, changes: Tensor, memory: Tensor) -> Tensor:
    """Frames of legs against what the network itself believes of later frames (which is not differentiated)."""
    logits = networks.member_logits(network, inputs, changes, memory.to(inputs.dtype))
    with torch.no_grad():
        targets = legs.targets(log_committor(logits).exp())
    return (weights * negative_log_likelihood(logits, targets)).sum()


class Adam:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980). The one of torch imports its compiler first, which takes 1.4 s."""

    betas, epsilon = (0.9, 0.99), 1e-8

    def __init__(self, parameters: list[Tensor]):
        self.parameters = parameters
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

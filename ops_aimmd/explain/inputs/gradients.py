"""Derivatives of the learned reaction coordinate with respect to its inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ops_aimmd.committor.input_scaling import InputScaling
from ops_aimmd.committor.likelihood import log_committor
from ops_aimmd.committor.model import CommittorModel


def double_copy(model: CommittorModel) -> CommittorModel:
    """An independent copy in double precision on the CPU, in evaluation mode: single precision spoils derivatives."""
    return model.frozen_copy().to(dtype=torch.float64, device="cpu")


def reaction_coordinates_of(model: CommittorModel, x: Tensor) -> Tensor:
    """Log-odds (n, 1) of two states; logits less their mean over more states (n, n_states); carries gradients."""
    return _centred(model(x))


def _centred(logits: Tensor) -> Tensor:
    return logits if logits.shape[-1] == 1 else logits - logits.mean(dim=-1, keepdim=True)


def reaction_coordinate_of(model: CommittorModel, x: Tensor, state: int | None) -> Tensor:
    """Log-odds of the last of two states, or ``ln p`` of a state, shape (n, 1); carries gradients.

    Raises ValueError if there are more than two states and none is chosen, or the state does not exist.
    """
    if state is None and model.n_states > 2:
        raise ValueError(f"the model knows {model.n_states} states: say which, state=0 to {model.n_states - 1}")
    if state is not None and not 0 <= state < model.n_states:
        raise ValueError(f"states count from 0 to {model.n_states - 1}; got {state}")
    logits = model(x)
    return logits[:, :1] if state is None else log_committor(logits)[:, [state]]


def gradient_scores(model: CommittorModel, x: np.ndarray, weights: np.ndarray, groups: Sequence[Sequence[int]]):
    r"""Mean size of the change of the reaction coordinate for a change of a group of inputs by its standard deviation.

    :math:`\langle [\sum_{j \in G} (\sigma_j\, \partial q / \partial x_j)^2]^{1/2} \rangle` over shots of descriptors x (n,
    d) with weights (n,); of more than two states the squares are summed over the logits less their mean. Outlying values do
    not count in :math:`\sigma_j` (`InputScaling`). Returns the scores (n_groups,) of the mean over the ensemble, and the
    standard errors over its members (NaN for a single one).
    """
    model = double_copy(model)
    inputs = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    members = _centred(model.member_logits(inputs))
    n_members, _, n_outputs = members.shape
    gradients = np.empty((n_members, n_outputs, *x.shape))
    for member in range(n_members):
        for output in range(n_outputs):
            total = members[member, :, output].sum()
            gradients[member, output] = torch.autograd.grad(total, inputs, retain_graph=True)[0].numpy()
    gradients *= InputScaling.of(x).std

    def scores(of):
        squares = [(of[..., list(group)] ** 2).sum(axis=(-3, -1)) for group in groups]
        return np.average(np.sqrt(squares), axis=-1, weights=weights)

    of_members = scores(gradients)  # (n_groups, n_members)
    errors = of_members.std(axis=1, ddof=1) / np.sqrt(n_members) if n_members > 1 else np.full(len(groups), np.nan)
    return scores(gradients.mean(axis=0)), errors

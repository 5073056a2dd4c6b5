"""How the learned reaction coordinate changes with its inputs: derivatives, and what each input adds to one value of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ops_aimmd.committor.input_scaling import InputScaling
from ops_aimmd.committor.likelihood import log_committor
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.explain.inputs.grouping import check_names, resolve_groups

COMPLETE = 1e-2
"""Error of the sum of integrated gradients, relative to 1 + its size, from which more steps are needed."""


def double_copy(model: CommittorModel) -> CommittorModel:
    """An independent copy in double precision on the CPU, in evaluation mode: single precision spoils derivatives."""
    return model.frozen_copy().to(dtype=torch.float64, device="cpu")


def reaction_coordinates(logits: Tensor) -> Tensor:
    """Of two states the log-odds (..., 1); of more the logits less their mean over states (..., n_states)."""
    return logits if logits.shape[-1] == 1 else logits - logits.mean(dim=-1, keepdim=True)


def reaction_coordinate_of(model: CommittorModel, x: Tensor, state: int | None) -> Tensor:
    """Log-odds of the last of two states, or ``ln p`` of a state, shape (n,); carries gradients.

    Raises
    ------
    ValueError
        If there are more than two states and none is chosen, or the state does not exist.
    """
    if state is None and model.n_states > 2:
        raise ValueError(f"the model knows {model.n_states} states: say of which, state=0 to {model.n_states - 1}")
    if state is not None and not 0 <= state < model.n_states:
        raise ValueError(f"states count from 0 to {model.n_states - 1}; got {state}")
    logits = model(x)
    return logits[:, 0] if state is None else log_committor(logits)[:, state]


def gradient_scores(model: CommittorModel, x: np.ndarray, weights: np.ndarray, groups: Sequence[Sequence[int]]):
    r"""Mean size of the change of the reaction coordinate for a change of a group of inputs by its standard deviation.

    :math:`\langle [\sum_{j \in G} (\sigma_j\, \partial q / \partial x_j)^2]^{1/2} \rangle`; of more than two states the
    squares are summed over the logits less their mean. Outlying values do not count in :math:`\sigma_j` (`InputScaling`).

    Parameters
    ----------
    model : CommittorModel
    x : array, shape (n, d)
    weights : array, shape (n,)
        Of the mean.
    groups : sequence of sequences of int

    Returns
    -------
    scores, errors : array, shape (n_groups,)
        Of the mean over the ensemble, and the standard error over its members (NaN for a single one).
    """
    model = double_copy(model)
    inputs = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    members = reaction_coordinates(model.member_logits(inputs))
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


def integrated_gradients(
    model: CommittorModel, descriptors, baseline=None, state=None, names=None, groups=None, n_steps: int = 64
) -> pd.DataFrame:
    r"""What each input adds to the reaction coordinate of single configurations, compared with a baseline.

    :math:`(x_j - b_j) \int_0^1 \partial_j q(b + t (x - b))\, dt`; the sum over inputs is :math:`q(x) - q(b)`. Sundararajan,
    Taly, Yan, Proc. ICML 2017, arXiv:1703.01365. The straight line is drawn between the inputs of the network. They differ
    from the descriptors by shift and scale, which change nothing, and by the bound of outlying descriptors.

    Parameters
    ----------
    model : CommittorModel
    descriptors : array, shape (n, d)
        Configurations.
    baseline : array, shape (d,), optional
        What to compare with, for instance the mean of a state. Default: the mean of the data the model was trained on,
        which is where its input scaling is zero.
    state : int, optional
        Explain ``ln p`` of this state; needed for more than two states. Default: the log-odds of the last of two.
    names : sequence of str, optional
        Of the inputs.
    groups : None, str or mapping, optional
        As in `input_relevance`; contributions of a group are summed.
    n_steps : int
        Points of the Gauss-Legendre quadrature.

    Returns
    -------
    pandas.DataFrame
        One row per configuration, one column per group. ``attrs["baseline_value"]`` is :math:`q(b)`.

    Raises
    ------
    ValueError
        For wrong shapes, numbers that are not finite, and if the sum misses :math:`q(x) - q(b)` by more than one per cent.
    """
    from captum.attr import IntegratedGradients

    x = np.asarray(descriptors, dtype=np.float64)
    baseline = model.shift.double().cpu().numpy() if baseline is None else np.asarray(baseline, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != model.n_descriptors or baseline.shape != (model.n_descriptors,):
        raise ValueError(
            f"this model takes descriptors (n, {model.n_descriptors}) and a baseline ({model.n_descriptors},); got shapes "
            f"{x.shape} and {baseline.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad) or not np.isfinite(baseline).all():
        raise ValueError(f"descriptors and baseline must be finite; rows {bad[:10].tolist()} or the baseline are not")
    columns = resolve_groups(groups, check_names(names, x.shape[1]), x)
    copy = double_copy(model)
    inputs, start = copy.inputs(torch.tensor(x)), copy.inputs(torch.tensor(baseline)[None])
    copy.set_scaling(np.zeros(x.shape[1]), np.ones(x.shape[1]))
    method = IntegratedGradients(lambda t: reaction_coordinate_of(copy, t, state))
    added = method.attribute(inputs, start.expand_as(inputs), n_steps=n_steps, internal_batch_size=max(len(x), 10_000))
    with torch.no_grad():
        value = float(reaction_coordinate_of(copy, start, state))
        change = reaction_coordinate_of(copy, inputs, state).numpy() - value
    added = added.numpy()
    error = np.abs(added.sum(axis=1) - change) / (1 + np.abs(change))
    if len(x) and error.max() > COMPLETE:
        raise ValueError(
            f"integrated gradients of row {error.argmax()} sum up to {added[error.argmax()].sum():.4g}, but the reaction "
            f"coordinate changes by {change[error.argmax()]:.4g}: raise n_steps from {n_steps}"
        )
    table = pd.DataFrame({name: added[:, group].sum(axis=1) for name, group in columns.items()})
    table.attrs["baseline_value"] = value
    return table

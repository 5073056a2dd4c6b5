r"""A formula as a model: what learners, selectors and calibration take a network for.

A formula holds within the range of the shots it was fitted to. Outside of it a logarithm may be undefined and an
exponential absurd, so there another model answers, the network that the formula was compared with; where there is none,
descriptors are taken at the edge of the range. Within, the log-odds are held to the range that the formula had on the
shots, widened by `MARGIN`.

A shooting point selector may use any function of the configuration as its weight: sampling guided by a formula with such
a domain is exact as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.networks import network_from_description, register_network
from ops_aimmd.explain.formulas.expressions import BINARY, UNARY, Node, Tape, from_json, inputs, to_json

MARGIN = 1.0
"""Units of log-odds by which the formula may leave the range that it had on its shots."""

_TORCH = {op: getattr(torch, op) for op in UNARY + BINARY}


class BoundedExpression(NamedTuple):
    """What a model needs to know of a `Formula`: its expression, the range of the descriptors (d,), its own range there."""

    node: Node
    lower: np.ndarray
    upper: np.ndarray
    log_odds_range: tuple[float, float]


class ExpressionModule(nn.Module):
    """One expression in torch: descriptors (n, d) -> values (n,). Its constants are a buffer, not trained."""

    def __init__(self, node: Node):
        super().__init__()
        self.node = node
        self.tape = Tape(node)
        self.register_buffer("constants", torch.tensor(self.tape.constants, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        values: list = []
        remaining = iter(self.constants.unbind())
        for op, args, value in zip(self.tape.ops, self.tape.args, self.tape.values, strict=True):
            if op == "input":
                values.append(x[:, value])
            elif op == "constant":
                values.append(next(remaining))
            elif op == "number":
                values.append(torch.as_tensor(value, dtype=x.dtype, device=x.device))
            else:
                values.append(_TORCH[op](*(values[k] for k in args)))
        return values[-1].expand(x.shape[0])


@register_network
class FormulaNetwork(nn.Module):
    """Formulas used as a network: descriptors (n, d) -> logits (n, 1), or (n, n_states) for more than two states.

    Parameters
    ----------
    parts : sequence of Formula or BoundedExpression
        Log-odds of each state but the first against the first.
    fallback : CommittorModel, optional
        Answers outside of the range of the shots.
    """

    is_of_raw_descriptors = True
    """Training must leave the input scaling of its model alone."""

    def __init__(self, parts: Sequence[BoundedExpression], fallback: CommittorModel | None = None):
        super().__init__()
        self.n_inputs = len(parts[0].lower)
        self.n_outputs = 1 if len(parts) == 1 else len(parts) + 1
        self.expressions = nn.ModuleList(ExpressionModule(part.node) for part in parts)
        self.fallback = fallback
        lower = torch.full((len(parts), self.n_inputs), -torch.inf, dtype=torch.float64)
        upper = -lower
        for k, part in enumerate(parts):
            columns = list(inputs(part.node))
            lower[k, columns] = torch.tensor(part.lower[columns])
            upper[k, columns] = torch.tensor(part.upper[columns])
        self.register_buffer("lower", lower)
        self.register_buffer("upper", upper)
        ranges = torch.tensor([part.log_odds_range for part in parts], dtype=torch.float64)
        self.register_buffer("smallest", ranges[:, 0] - MARGIN)
        self.register_buffer("largest", ranges[:, 1] + MARGIN)

    def description(self) -> dict:
        """Expressions and architecture of the fallback as plain JSON types; all numbers that matter are in the state."""
        return {
            "kind": type(self).__name__,
            "n_inputs": self.n_inputs,
            "expressions": [to_json(expression.node) for expression in self.expressions],
            "fallback": None if self.fallback is None else self.fallback.description(),
        }

    @classmethod
    def rebuild(cls, n_inputs: int, expressions: list, fallback: dict | None, seed=None) -> FormulaNetwork:
        """From `description`; nothing is executed. Load the state afterwards."""
        edge = np.zeros(n_inputs)
        parts = [BoundedExpression(from_json(tree, n_inputs), edge, edge, (0.0, 0.0)) for tree in expressions]
        if fallback is not None:
            network = network_from_description(fallback["network"])
            fallback = CommittorModel(network, fallback["n_descriptors"], fallback["n_states"]).to(torch.float64)
        return cls(parts, fallback)

    def inside(self, x: Tensor) -> Tensor:
        """Whether configurations (n, d) lie in the range of the shots, bool (n,)."""
        return ((x[:, None] >= self.lower) & (x[:, None] <= self.upper)).all(dim=2).all(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        columns = []
        for k, expression in enumerate(self.expressions):
            at_edge = torch.minimum(torch.maximum(x, self.lower[k]), self.upper[k])  # no NaN, and none in gradients
            columns.append(expression(at_edge).clamp(self.smallest[k], self.largest[k]))
        logits = torch.stack(columns, dim=1)
        if self.n_outputs > 1:
            logits = torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)
        if self.fallback is None:
            return logits
        return torch.where(self.inside(x)[:, None], logits, self.fallback(x))


def formula_model(parts: Sequence[BoundedExpression], fallback=None) -> CommittorModel:
    """A `CommittorModel` that computes formulas, in double precision.

    Use it as the model of a learner, ``CommittorLearner(descriptors, states, model=front.best.to_model(learner))``. A
    formula has nothing to train: a learner that is not frozen adapts the density of transition-path frames, and trains the
    fallback if there is one, as ``ops_aimmd.fit`` does. A frozen one has no density.

    Parameters
    ----------
    parts : sequence of Formula or BoundedExpression
        Log-odds of each state but the first against the first.
    fallback : CommittorModel or CommittorLearner, optional
        Answers, as it is now, outside of the range of the shots that the formula was fitted to. Without one, descriptors
        are taken at the edge of that range.

    Raises
    ------
    ValueError
        If the fallback is of other descriptors or states.
    """
    n_descriptors, n_states = len(parts[0].lower), len(parts) + 1
    if fallback is not None:
        fallback = getattr(fallback, "model", fallback)
        if not isinstance(fallback, CommittorModel):
            raise ValueError(
                f"the fallback must be a CommittorModel or a learner that has one; got {type(fallback).__name__}"
            )
        if (fallback.n_descriptors, fallback.n_states) != (n_descriptors, n_states):
            raise ValueError(
                f"the formula is of {n_descriptors} descriptors and {n_states} states; the fallback takes "
                f"{fallback.n_descriptors} and {fallback.n_states}"
            )
        fallback = fallback.frozen_copy().to(dtype=torch.float64, device="cpu")
    network = FormulaNetwork(parts, fallback)
    return CommittorModel(network, n_descriptors, n_states).to(dtype=torch.float64).eval().requires_grad_(False)


def torchscript(model: CommittorModel) -> torch.jit.ScriptModule:
    """A formula model as TorchScript: descriptors (n, d), float64 -> logits.

    Tracing records it exactly: no step of the evaluation depends on the values.
    """
    example = torch.zeros(3, model.n_descriptors, dtype=model.dtype, device=model.device)
    return torch.jit.trace(model, example)

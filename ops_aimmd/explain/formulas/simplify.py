"""Constants that are not needed: each is tried at 0, 1 and -1, where its standard error says that this may cost little."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ops_aimmd.explain.formulas.expressions import Node, constants, number, replace, subtrees

ROUND_VALUES = (0.0, 1.0, -1.0)

WORTH_TRYING = 12.0
"""Nats of loss, by Wald's quadratic approximation, above which a round value is not tried."""


def simplified(node: Node, errors: np.ndarray, values=ROUND_VALUES) -> Iterator[Node]:
    """Forms with one constant fixed at a round value, those first that should cost least; not fitted yet.

    ``errors`` (k,) are the standard errors of the constants.
    """
    trials = []
    for k, (value, error) in enumerate(zip(constants(node), errors, strict=True)):
        for round_value in values:
            cost = 0.5 * ((value - round_value) / error) ** 2 if error > 0 else np.inf
            if cost < WORTH_TRYING:
                trials.append((cost, k, round_value))
    for _, k, round_value in sorted(trials):
        yield with_number(node, k, round_value)


def with_number(node: Node, k: int, value: float) -> Node:
    """The tree with its k-th constant replaced by a number."""
    paths = [path for path, part in subtrees(node) if part.op == "constant"]
    return replace(node, paths[k], number(value))

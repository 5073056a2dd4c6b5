"""Random changes of an expression, which complement the growth that the score test guides."""

from __future__ import annotations

import functools
import itertools
import operator

import numpy as np

from ops_aimmd.explain.formulas import expressions as ex
from ops_aimmd.explain.formulas.expressions import Node, OutsideDomain


class NothingToChange(Exception):
    """An expression has no part of the kind that a move changes."""


def random_change(node: Node, other: Node, columns: np.ndarray, rng: np.random.Generator) -> Node:
    """The expression after one random move; unchanged where it has no part that the move could change.

    Crossover takes a part of ``other``; start values of new constants follow from the inputs ``columns`` (d, n).
    """
    move = MOVES[rng.integers(len(MOVES))]
    try:
        return _cross_over(node, other, rng) if move is _cross_over else move(node, columns, rng)
    except NothingToChange:
        return node


def _pick(node: Node, rng: np.random.Generator, wanted) -> tuple[tuple, Node]:
    candidates = [(path, part) for path, part in ex.subtrees(node) if wanted(part)]
    if not candidates:
        raise NothingToChange
    return candidates[rng.integers(len(candidates))]


def _depends_on_inputs(part: Node) -> bool:
    return part.op not in ("constant", "number")


def _prune(node: Node, columns: np.ndarray, rng: np.random.Generator) -> Node:
    """Replace an operation by one of its arguments."""
    path, part = _pick(node, rng, lambda part: part.args)
    return ex.replace(node, path, part.args[rng.integers(len(part.args))])


def of_one_input(node: Node) -> list[tuple[Node, tuple]]:
    """Parts that depend on a single input: pairs of the tree and a path. A denominator counts as its reciprocal too."""
    result = []
    for path, part in ex.subtrees(node):
        if len(ex.inputs(part)) == 1:
            result.append((node, path))
        elif part.op == "div" and len(ex.inputs(part.args[1])) == 1:
            result.append((ex.replace(node, path, part.args[0] * (ex.number(1) / part.args[1])), (*path, 1)))
    return result


def reshaped(node: Node, path: tuple, columns: np.ndarray) -> list[Node]:
    """The trees in which a simple function of the same input replaces a part that depends on a single input.

    The functions begin as close to the part as a factor, or a factor and a summand, can bring them.
    """
    column = ex.inputs(ex.at(node, path))[0]
    old = _values_at(node, path, columns)
    result = []
    for shape in _shapes(column, columns[column]):
        try:
            new = ex.evaluate(shape, columns)
        except OutsideDomain:
            continue
        factor = float(old @ new / (new @ new))
        slope = float(np.cov(old, new)[0, 1] / max(new.var(), 1e-300))
        result.append(ex.replace(node, path, ex.constant(factor) * shape))
        summand = ex.constant(float(old.mean() - slope * new.mean()))
        result.append(ex.replace(node, path, ex.constant(slope) * shape + summand))
    return result


def _shapes(column: int, values: np.ndarray) -> list[Node]:
    variable, spread = ex.x(column), float(values.std()) or 1.0
    offset = ex.constant(0.6 * spread)
    squared = ex.constant(1 / (values**2).mean()) * ex.square(variable)
    return [
        variable,
        ex.square(variable),
        ex.log(variable),
        ex.sqrt(variable),
        ex.number(1) / variable,
        ex.exp(ex.constant(-1 / spread) * variable),
        ex.exp(ex.constant(1 / spread) * variable),
        ex.number(1) / (variable + offset),
        ex.number(1) / (ex.number(1) + squared),
        ex.exp(ex.constant(-0.5 / spread**2) * ex.square(variable - ex.constant(float(values.mean())))),
    ]


def _change_shape(node: Node, columns: np.ndarray, rng: np.random.Generator) -> Node:
    parts = of_one_input(node)
    candidates = reshaped(*parts[rng.integers(len(parts))], columns) if parts else []
    return candidates[rng.integers(len(candidates))] if candidates else node


def grouped(node: Node, path: tuple, rng: np.random.Generator) -> tuple[Node, tuple]:
    """The tree with some of the terms of a sum together, and the path to these: what is done to them is done to all."""
    terms = _summands(ex.at(node, path))
    if len(terms) < 3:
        return node, path
    order = rng.permutation(len(terms))
    n_together = int(rng.integers(2, len(terms)))
    together, rest = (_added([terms[k] for k in part]) for part in (order[:n_together], order[n_together:]))
    return ex.replace(node, path, together + rest), (*path, 0)


def without_two(node: Node) -> list[Node]:
    """The expression without each pair of its summands, where at least one is left: two may stand for a single term."""
    terms = _summands(node)
    pairs = itertools.combinations(range(len(terms)), 2) if len(terms) >= 3 else []
    return [_added([term for k, term in enumerate(terms) if k not in pair]) for pair in pairs]


def _summands(node: Node) -> list[Node]:
    if node.op not in ("add", "sub"):
        return [node]
    second = _summands(node.args[1])
    return _summands(node.args[0]) + (second if node.op == "add" else [ex.number(-1) * term for term in second])


def _added(terms: list[Node]) -> Node:
    return functools.reduce(operator.add, terms)


def prune_summand(node: Node, rng: np.random.Generator) -> Node | None:
    """The expression without one of its summands; None if it has none."""
    try:
        path, part = _pick(node, rng, lambda part: part.op in ("add", "sub"))
    except NothingToChange:
        return None
    return ex.replace(node, path, part.args[rng.integers(2)])


def _values_at(node: Node, path: tuple, columns: np.ndarray) -> np.ndarray:
    tape = ex.Tape(ex.at(node, path))
    return np.broadcast_to(tape.forward(columns, tape.constants)[-1], columns.shape[1:])


def _wrap(node: Node, columns: np.ndarray, rng: np.random.Generator) -> Node:
    """Apply a function to a part, with start values under which it is defined and of order one."""
    path, part = _pick(node, rng, _depends_on_inputs)
    values = _values_at(node, path, columns)
    spread = float(values.std()) or 1.0
    lowest = float(values.min())
    positive = part if lowest > 0 else part + ex.constant(0.5 * spread - lowest)
    kind = rng.choice(["exp", "log", "sqrt", "square", "inverse", "bump"])
    if kind == "exp":
        new = ex.exp(ex.constant(rng.choice([-1.0, 1.0]) / spread) * part)
    elif kind in ("log", "sqrt"):
        new = Node(kind, (positive,))
    elif kind == "square":
        new = ex.square(part - ex.constant(rng.choice([0.0, values.mean()])))
    elif kind == "inverse":
        new = ex.number(1) / (positive + ex.constant(0.1 * spread))
    else:
        centred = ex.square(part - ex.constant(rng.choice(values)))
        new = ex.exp(ex.constant(-rng.uniform(0.3, 3) / spread**2) * centred)
    return ex.replace(node, path, ex.constant(spread) * new if rng.random() < 0.5 else new)


def _shift(node: Node, columns: np.ndarray, rng: np.random.Generator) -> Node:
    path, part = _pick(node, rng, _depends_on_inputs)
    spread = float(_values_at(node, path, columns).std())
    return ex.replace(node, path, part + ex.constant(rng.normal() * 0.3 * (spread or 1.0)))


def _change_operation(node: Node, columns: np.ndarray, rng: np.random.Generator) -> Node:
    path, part = _pick(node, rng, lambda part: part.args)
    args = part.args if rng.random() < 0.5 else part.args[::-1]
    return ex.replace(node, path, Node(str(rng.choice(ex.UNARY if len(args) == 1 else ex.BINARY)), args))


def _change_input(node: Node, columns: np.ndarray, rng: np.random.Generator) -> Node:
    """Another input, or a product or ratio with one, often an input that the expression already has."""
    path, part = _pick(node, rng, lambda part: part.op == "input")
    used = ex.inputs(node)
    new = ex.x(int(rng.choice(used)) if rng.random() < 0.3 else int(rng.integers(len(columns))))
    kind = rng.integers(4)
    return ex.replace(node, path, (new, new, part * new, part / new)[kind])


def _cross_over(node: Node, other: Node, rng: np.random.Generator) -> Node:
    path, _ = _pick(node, rng, lambda part: True)
    return ex.replace(node, path, _pick(other, rng, _depends_on_inputs)[1])


MOVES = (_prune, _prune, _wrap, _shift, _change_operation, _change_input, _cross_over, _change_shape, _change_shape)

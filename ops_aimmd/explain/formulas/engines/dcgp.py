r"""Differentiable Cartesian genetic programming, the engine of the AIMMD paper.

An expression is a graph on a fixed grid, described by a list of integers: each node has an operation and two arguments,
which are inputs or nodes before it, and one node is the output. Nodes that the output does not reach are silent, and
mutations drift there (J. F. Miller, Cartesian Genetic Programming, Springer 2011, doi:10.1007/978-3-642-17310-3). Each
generation mutates the best graph into a few others; the best of these replaces it if it is not worse (a 1 + lambda
strategy). Constants are fitted by damped Newton steps on exact derivatives (Izzo, Biscani and Mereta 2017,
doi:10.1007/978-3-319-55696-3_3). The score is the loss per leg plus a penalty for every operation, as in Jung et al., Nat.
Comput. Sci. 3, 334 (2023), doi:10.1038/s43588-023-00428-z. At a standstill the search starts again, with each penalty in
turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ops_aimmd.explain.formulas.archive import Archive
from ops_aimmd.explain.formulas.canonical import canonical
from ops_aimmd.explain.formulas.constants import Fitted, Shots, refit
from ops_aimmd.explain.formulas.expressions import LEAVES, UNARY, Node, OutsideDomain, constant, constants, subtrees, x

COLUMNS, N_CONSTANTS = 16, 3
"""Nodes of the grid (of one row), and constants among the inputs."""

OPERATIONS = ("add", "sub", "mul", "div", "exp", "log")
"""From the paper's list; square and root are products and exponentials of these."""

OFFSPRING, MUTATED_GENES = 4, (1, 6)
"""Mutants of a generation, and the least and most genes that are mutated in each."""

PENALTIES = (1e-3, 3e-3, 1e-2)
"""Nats per leg for each operation; the last is that of the most readable formulas of the paper."""

STANDSTILL = 300
"""Generations without improvement after which the search starts again."""

LARGEST_SIZE, NEWTON_STEPS, TOLERANCE = 60, 12, 0.05


@dataclass(frozen=True)
class Graph:
    """Genes of a graph: operations (COLUMNS,), arguments (COLUMNS, 2), output, and start values of the constants.

    Arguments are numbered: inputs first, then constants, then nodes.
    """

    operations: np.ndarray
    arguments: np.ndarray
    output: int
    constants: np.ndarray

    def tree(self, n_inputs: int) -> Node | None:
        """The expression that the output computes; None if it would be too large."""
        first = n_inputs + len(self.constants)
        known: list[Node] = [x(i) for i in range(n_inputs)] + [constant(c) for c in self.constants]
        for operation, arguments in zip(self.operations, self.arguments, strict=True):
            op = OPERATIONS[operation]
            args = [known[a] for a in arguments[: 1 if op in UNARY else 2]]
            oversized = any(arg is None for arg in args) or sum(arg.size for arg in args) > LARGEST_SIZE
            known.append(None if oversized else Node(op, tuple(args)))
        return known[first + self.output]


def random_graph(n_inputs: int, rng: np.random.Generator) -> Graph:
    """Genes drawn at random."""
    arguments = np.array([[_source(k, n_inputs, rng) for _ in range(2)] for k in range(COLUMNS)])
    operations = rng.integers(len(OPERATIONS), size=COLUMNS)
    return Graph(operations, arguments, int(rng.integers(COLUMNS)), rng.normal(size=N_CONSTANTS))


def _source(column: int, n_inputs: int, rng: np.random.Generator) -> int:
    """An input, a constant, or one of the nodes before the column."""
    return int(rng.integers(n_inputs + N_CONSTANTS + column))


def mutated(graph: Graph, n_inputs: int, rng: np.random.Generator) -> Graph:
    """A copy with some genes drawn again."""
    operations, arguments, output = graph.operations.copy(), graph.arguments.copy(), graph.output
    values = graph.constants.copy()
    for _ in range(rng.integers(*MUTATED_GENES)):
        gene = int(rng.integers(3 * COLUMNS + 2))
        if gene < COLUMNS:
            operations[gene] = rng.integers(len(OPERATIONS))
        elif gene < 3 * COLUMNS:
            column, which = divmod(gene - COLUMNS, 2)
            arguments[column, which] = _source(column, n_inputs, rng)
        elif gene == 3 * COLUMNS:
            output = int(rng.integers(COLUMNS))
        else:
            values[rng.integers(N_CONSTANTS)] *= rng.normal(1.0, 0.5)
    return Graph(operations, arguments, output, values)


def dcgp_search(
    shots: Shots, n_inputs: int, rng: np.random.Generator, keep_going: Callable[[int], bool]
) -> tuple[list[Node], int]:
    """Candidates of all sizes, and how many were fitted, while ``keep_going(n_fitted)``."""
    archive = Archive(shots, n_inputs, LARGEST_SIZE)
    while keep_going(archive.n_tried):
        for penalty in PENALTIES:
            _evolve(shots, rng, archive, penalty, keep_going)
    return archive.candidates(), archive.n_tried


def _evolve(shots: Shots, rng, archive: Archive, penalty: float, keep_going) -> None:
    best, best_score, idle = random_graph(shots.n_inputs, rng), np.inf, 0
    while idle < STANDSTILL and keep_going(archive.n_tried):
        idle += 1
        for graph in [mutated(best, shots.n_inputs, rng) for _ in range(OFFSPRING)]:
            fitted = _fitted(graph, archive)
            archive.n_tried += 1
            if fitted is None:
                continue
            archive.offer(fitted, fitted.loss)
            score = fitted.loss / shots.legs.sum() + penalty * n_operations(fitted.node)
            if score <= best_score:
                idle = 0 if score < best_score - 1e-9 else idle
                best, best_score = graph, score


def n_operations(node: Node) -> int:
    """Operations in an expression."""
    return sum(part.op not in LEAVES for _, part in subtrees(node))


def _fitted(graph: Graph, archive: Archive) -> Fitted | None:
    """The graph's expression times a constant plus a constant, all constants fitted."""
    tree = graph.tree(archive.shots.n_inputs)
    if tree is None:
        return None
    try:
        node = canonical(constant(1.0) * tree + constant(0.0))
        if len(constants(node)) > archive.most_constants:
            return None
        return refit(node, archive.shots, TOLERANCE, NEWTON_STEPS)
    except OutsideDomain:
        return None

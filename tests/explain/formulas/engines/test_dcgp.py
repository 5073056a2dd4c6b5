"""Cartesian genetic programming."""

import numpy as np
from scipy.special import expit

from ops_aimmd.committor.training_set import TrainingSet
from ops_aimmd.explain.formulas.engines import dcgp
from ops_aimmd.explain.formulas.expressions import Node, constant, skeleton, x
from ops_aimmd.explain.formulas.fit_expressions import fit_expressions


def test_a_graph_computes_the_expression_of_its_genes():
    n_inputs = 2
    first = n_inputs + dcgp.N_CONSTANTS
    graph = dcgp.random_graph(n_inputs, np.random.default_rng(0))
    graph.operations[:3] = [dcgp.OPERATIONS.index(op) for op in ("mul", "exp", "add")]
    graph.arguments[:3] = [[0, 1], [first, 0], [first + 1, n_inputs]]
    graph = dcgp.Graph(graph.operations, graph.arguments, 2, graph.constants)
    expected = Node("add", (Node("exp", (Node("mul", (x(0), x(1))),)), constant(graph.constants[0])))
    assert graph.tree(n_inputs) == expected


def test_arguments_come_from_before_and_mutants_differ():
    rng = np.random.default_rng(0)
    graph = dcgp.random_graph(3, rng)
    first = 3 + dcgp.N_CONSTANTS
    forms = set()
    for _ in range(200):
        graph = dcgp.mutated(graph, 3, rng)
        assert all((graph.arguments[k] < first + k).all() for k in range(dcgp.COLUMNS))
        tree = graph.tree(3)
        forms |= set() if tree is None else {skeleton(tree)}
    assert len(forms) > 20


def test_it_finds_a_product_in_two_inputs():
    rng = np.random.default_rng(0)
    points = rng.uniform(0.2, 2, (500, 2))
    reached = rng.binomial(2, expit(3 * points[:, 0] * points[:, 1] - 3))
    training_set = TrainingSet(points, np.stack([2 - reached, reached], axis=1))
    options = {"engine": "dcgp", "seed": 0, "time_limit": 30, "n_candidates": 800, "progress": False}
    front = fit_expressions(training_set, **options)
    assert front.best.inputs == (0, 1)
    p, true = front.best.committor(points), expit(3 * points[:, 0] * points[:, 1] - 3)
    assert np.sqrt(np.mean((p - true) ** 2)) < 0.05  # two constants of 1000 legs: 0.01; the best of one input: 0.2
    assert [f.node for f in fit_expressions(training_set, **options)] == [f.node for f in front]


def test_a_penalty_on_operations_counts_operations():
    assert dcgp.n_operations(Node("exp", (Node("mul", (x(0), constant(2.0))),))) == 2

"""Genetic programming by pyoperon; all but the messages are skipped where it is not installed."""

import sys
import time
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest
from scipy.special import expit

from ops_aimmd.committor.training_set import TrainingSet
from ops_aimmd.explain.formulas.constants import Shots
from ops_aimmd.explain.formulas.engines import operon
from ops_aimmd.explain.formulas.expressions import Node, evaluate, number, x
from ops_aimmd.explain.formulas.fit_expressions import fit_expressions


def is_installed():
    try:
        return version("pyoperon").startswith(operon.SUPPORTED)
    except PackageNotFoundError:
        return False


needs_pyoperon = pytest.mark.skipif(not is_installed(), reason="needs pyoperon 0.4: pip install 'pyoperon>=0.4,<0.5'")


def shots_of(log_odds, n, seed, legs=2, n_inputs=3):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0.2, 2, (n, n_inputs))
    reached = rng.binomial(legs, expit(log_odds(points.T)))
    return points, np.stack([legs - reached, reached], axis=1)


def product(columns):
    return 3 * columns[0] * columns[1] - 3


def test_what_to_install_is_said_where_pyoperon_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyoperon", None)  # as if it were not installed
    training_set = TrainingSet(*shots_of(product, 50, seed=0))
    with pytest.raises(ImportError, match=r"pip install 'ops_aimmd\[operon\]' or 'pyoperon>=0.4,<0.5'"):
        fit_expressions(training_set, engine="operon", progress=False)
    fit_expressions(training_set, engine="score", time_limit=0.1, progress=False)  # the others do without


def test_another_version_of_pyoperon_is_refused(monkeypatch):
    monkeypatch.setattr(operon, "version", lambda name: "0.6.2")
    monkeypatch.setitem(sys.modules, "pyoperon", sys)
    with pytest.raises(ImportError, match=r"0.6.2 is installed"):
        operon.import_pyoperon()
    monkeypatch.setattr(operon, "version", lambda name: "0.4.0")
    assert operon.import_pyoperon() is sys  # the control


def test_the_working_response_on_the_rows_drawn_has_the_gradient_and_the_information_of_the_likelihood():
    points, counts = shots_of(product, 4000, seed=1)
    rng = np.random.default_rng(2)
    legs = counts.sum(axis=1) * rng.choice([1.0, 3.0], len(points))  # weights of shots
    shots = Shots(points.T.copy(), counts[:, 1] * legs / 2, legs, np.zeros(len(points), int))
    q = 0.8 * product(points.T) + 0.2
    p, psi = expit(q), points[:, 0] - points[:, 0].mean()
    response, rows = operon._working_response(q, shots, rng)
    total = (legs * p * (1 - p)).sum() / len(rows)
    gradient, information = psi @ (shots.reached - legs * p), psi**2 @ (legs * p * (1 - p))
    assert total * (psi[rows] ** 2).sum() == pytest.approx(information, rel=0.03)
    assert (psi**2).sum() * total != pytest.approx(information, rel=0.03)  # the control: all rows alike
    repeats = []
    for _ in range(20):
        rows = operon._working_response(q, shots, rng)[1]
        repeats.append(total * (psi[rows] @ (response - q)[rows]))
    error = np.std(repeats) / np.sqrt(len(repeats))
    assert abs(np.mean(repeats) - gradient) < 4 * error
    assert error < 0.1 * abs(gradient)


@needs_pyoperon
def test_trees_of_operon_are_the_same_functions_here():
    pyoperon = operon.import_pyoperon()
    rng = np.random.default_rng(0)
    columns, scales = rng.uniform(1, 2, (3, 20)), np.array([1.0, 2.0, 0.5])
    data = np.asfortranarray((columns / scales[:, None]).T)
    dataset = pyoperon.Dataset(data)
    variables = sorted(dataset.Variables, key=lambda variable: variable.Index)
    inputs = {variable.Hash: x(k) for k, variable in enumerate(variables)}
    kinds, table = operon._kinds(pyoperon), pyoperon.DispatchTable()

    def variable(k):
        node = pyoperon.Node.Variable(2.5 + k)
        node.HashValue = variables[k].Hash
        return node

    make, order_matters = pyoperon.Node, 0
    for outer in (make.Sub, make.Div, make.Add, make.Mul):
        for inner in (make.Sub, make.Div):
            for function in (make.Exp, make.Sqrt, make.Log, make.Square):
                nodes = [variable(0), make.Constant(0.3), make.Square(), variable(1), inner(), function()]
                nodes += [variable(2), outer()]
                tree = pyoperon.Tree(nodes).UpdateNodes()
                theirs = pyoperon.Evaluate(table, tree, dataset, pyoperon.Range(0, dataset.Rows))
                ours = operon.from_operon(tree.Nodes, kinds, inputs, scales)
                assert np.allclose(evaluate(ours, columns), theirs, rtol=1e-4, atol=1e-5)
                swapped = Node(ours.op, ours.args[::-1])
                order_matters += not np.allclose(evaluate(swapped, columns), theirs, rtol=1e-4, atol=1e-5)
    assert order_matters == 16  # the control: differences and ratios


@needs_pyoperon
def test_it_finds_a_product_in_two_inputs_and_again_with_the_same_seed():
    points, counts = shots_of(product, 500, seed=0)
    options = {"engine": "operon", "seed": 0, "time_limit": 60, "n_candidates": 50_000, "progress": False}
    front = fit_expressions(TrainingSet(points, counts), **options)
    assert front.best.inputs == (0, 1)
    p, true = front.best.committor(points), expit(product(points.T))
    assert np.sqrt(np.mean((p - true) ** 2)) < 0.05  # two constants of 1000 legs: 0.01; the best of one input: 0.2
    assert 50_000 <= front.n_tried < 200_000
    again = fit_expressions(TrainingSet(points, counts), **options)
    assert [f.node for f in again] == [f.node for f in front]
    other = fit_expressions(TrainingSet(points, counts), **{**options, "seed": 1})
    assert [f.node for f in other] != [f.node for f in front]


@needs_pyoperon
def test_shuffled_outcomes_give_the_constant():
    points, counts = shots_of(product, 300, seed=3, n_inputs=10)
    counts = np.random.default_rng(0).permutation(counts)
    front = fit_expressions(TrainingSet(points, counts), engine="operon", seed=0, time_limit=2, progress=False)
    assert front.best.inputs == ()


@needs_pyoperon
def test_the_time_limit_holds_for_the_thread_of_operon_too():
    training_set = TrainingSet(*shots_of(product, 3000, seed=4, n_inputs=10))
    start = time.process_time()
    fit_expressions(training_set, engine="operon", seed=0, time_limit=3, progress=False)
    assert 2 < time.process_time() - start < 4.5


@needs_pyoperon
def test_an_input_that_is_zero_where_two_states_are_compared():
    points, counts = shots_of(product, 300, seed=5)
    third = np.array([[0.0, 1.0, 1.0]]), np.array([[0, 0, 2]])
    points[:, 2] = 0.0
    points, counts = np.vstack([points, third[0]]), np.vstack([np.pad(counts, ((0, 0), (0, 1))), third[1]])
    counts[0] = (1, 0, 1)
    fronts = fit_expressions(TrainingSet(points, counts), engine="operon", seed=0, time_limit=2, progress=False)
    assert all(np.isfinite(f.loss) for front in fronts for f in front)


@needs_pyoperon
def test_a_tree_without_variation_is_no_proposal():
    assert operon._scaled(x(0) - x(0), np.zeros(5), np.arange(5.0)) is None
    assert operon._scaled(number(1), np.full(5, np.nan), np.arange(5.0)) is None
    assert operon._scaled(x(0), np.arange(5.0), np.arange(5.0)) is not None

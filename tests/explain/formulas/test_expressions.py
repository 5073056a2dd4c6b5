"""Expressions: values and derivatives against sympy and finite differences, the canonical form, files."""

import json

import numpy as np
import pytest
import sympy
from scipy.special import expit

from ops_aimmd.explain.formulas import expressions as ex
from ops_aimmd.explain.formulas.canonical import canonical, with_common_factors
from ops_aimmd.explain.formulas.constants import Shots
from ops_aimmd.explain.formulas.engines.moves import grouped, of_one_input, without_two
from ops_aimmd.explain.formulas.engines.score_search import ScoreSearch
from ops_aimmd.explain.formulas.engines.scoring import _solved
from ops_aimmd.explain.formulas.expressions import OutsideDomain, Tape, constant, evaluate, number, skeleton, x

COLUMNS = np.random.default_rng(0).uniform(0.3, 2.0, (3, 50))

EXPRESSIONS = {
    "sum": constant(2.3) * x(0) + (ex.log(x(1)) - constant(0.4)),
    "ratio": constant(1.7) * x(0) / (ex.square(x(1)) + constant(0.35)),
    "bump": constant(6.0) * ex.exp(constant(-2.0) * ex.square(x(2) - constant(1.3))),
    "root": ex.sqrt(x(0) * x(1) + constant(0.3)),
    "power of a ratio": ex.exp(constant(0.7) * ex.log(x(0) / x(2))),
}


def random_tree(rng, depth):
    if depth == 0 or rng.random() < 0.2:
        value = rng.uniform(0.5, 2) * rng.choice([-1, 1])
        return (x(int(rng.integers(3))), constant(value), number(1.0))[rng.integers(3)]
    if rng.random() < 0.35:
        return ex.Node(str(rng.choice(ex.UNARY)), (random_tree(rng, depth - 1),))
    return ex.Node(str(rng.choice(ex.BINARY)), (random_tree(rng, depth - 1), random_tree(rng, depth - 1)))


def defined_trees(n, seed):
    """Random trees with moderate values on the columns."""
    rng = np.random.default_rng(seed)
    while n:
        tree = random_tree(rng, int(rng.integers(1, 6)))
        try:
            values = evaluate(tree, COLUMNS)
        except OutsideDomain:
            continue
        if np.isfinite(values).all() and np.abs(values).max() < 1e6:
            n -= 1
            yield tree, values


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_values_agree_with_sympy(name):
    symbols = sympy.symbols("a b c")
    function = sympy.lambdify(symbols, ex.to_sympy(EXPRESSIONS[name], symbols), "numpy")
    assert np.allclose(evaluate(EXPRESSIONS[name], COLUMNS), function(*COLUMNS), rtol=1e-13)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_derivatives_by_constants_and_by_nodes(name):
    tape = Tape(EXPRESSIONS[name])
    adjoints = tape.backward(tape.forward(COLUMNS, tape.constants))
    jacobian = tape.jacobian(adjoints, COLUMNS.shape[1])
    for k in range(len(tape.constants)):
        step = np.zeros(len(tape.constants))
        step[k] = 1e-6
        difference = tape.forward(COLUMNS, tape.constants + step)[-1] - tape.forward(COLUMNS, tape.constants - step)[-1]
        assert np.allclose(jacobian[k], difference / 2e-6, rtol=1e-7, atol=1e-8)
        assert not np.allclose(jacobian[k], 1.01 * difference / 2e-6, rtol=1e-7, atol=1e-8)


def test_derivatives_by_nodes_are_those_of_a_constant_added_there():
    for tree, _ in defined_trees(50, seed=1):
        tape = Tape(tree)
        adjoints = tape.backward(tape.forward(COLUMNS, tape.constants), all_nodes=True)
        for (path, part), adjoint in zip(ex.subtrees(tree), adjoints, strict=True):
            moved = [ex.replace(tree, path, part + number(h)) for h in (1e-6, -1e-6)]
            try:
                above, below = (evaluate(m, COLUMNS) for m in moved)
            except OutsideDomain:
                continue
            scale = 1 + np.abs(adjoint) + np.abs(above)
            assert np.all(np.abs((above - below) / 2e-6 - adjoint) < 1e-4 * scale**2)


def test_poles_and_edges_of_the_domain_within_the_rows_are_refused():
    for tree in (number(1) / (x(0) - constant(1.0)), ex.log(x(0) - constant(1.0))):
        with pytest.raises(OutsideDomain):
            evaluate(tree, COLUMNS)
        evaluate(tree, COLUMNS + 5.0)  # the control: no pole there


def test_the_canonical_form_is_the_same_function_with_no_more_constants():
    checked = 0
    for tree, values in defined_trees(2000, seed=2):
        try:
            form = canonical(tree)
        except OutsideDomain:
            continue
        checked += 1
        assert np.allclose(evaluate(form, COLUMNS), values, rtol=1e-6, atol=1e-9 * (1 + np.abs(values).max()))
        assert len(ex.constants(form)) <= len(ex.constants(tree))
    assert checked > 1500


@pytest.mark.parametrize(
    "redundant, expected",
    [
        (constant(2) * (constant(3) * x(0)), "(c*x0)"),
        (constant(1) + (x(0) + constant(2)), "(x0+c)"),
        (constant(2) * ex.exp(x(0) + constant(1)), "(c*exp(x0))"),
        (ex.log(constant(2) * x(0)) + constant(1), "(log(x0)+c)"),
        (x(0) - x(0), "0"),
        (x(1) * x(0), "(x0*x1)"),
        (constant(2) * (constant(3) * x(0) + constant(1) * x(1)), "((c*x0)+(c*x1))"),
        (constant(2) * (x(0) - x(1)), "(c*(x0-x1))"),
        (ex.square(x(0) + constant(3)) - ex.square(x(0)) + constant(1), "((c*x0)+c)"),
    ],
)
def test_constants_that_do_nothing_are_taken_out(redundant, expected):
    assert skeleton(canonical(redundant)) == expected


def test_a_common_factor_is_taken_out_of_a_sum():
    product = x(0) * x(2) - x(1) * x(2)
    tree = canonical(constant(5.0) * (product * ex.exp(x(1))) + x(0))
    assert [skeleton(canonical(form)) for form in with_common_factors(tree)] == ["((c*(((x0-x1)*exp(x1))*x2))+x0)"]
    own = ex.exp(constant(1.0) * x(2))  # each of two such has a constant of its own
    assert with_common_factors(x(0) * own + x(1) * own) == []


def test_a_common_factor_taken_out_leaves_the_function_as_it_is():
    checked, trees = 0, [tree for tree, _ in defined_trees(400, seed=3)]
    for first, second in zip(trees[::2], trees[1::2], strict=True):
        tree = x(0) * first / x(1) + second / x(1)
        values = evaluate(tree, COLUMNS)
        for form in with_common_factors(tree):
            checked += 1
            assert np.allclose(evaluate(form, COLUMNS), values, rtol=1e-6, atol=1e-9 * (1 + np.abs(values).max()))
    assert checked > 100


def test_the_terms_of_a_sum_are_put_together_and_denominators_count_as_reciprocals():
    rng = np.random.default_rng(0)
    tree = x(0) + ex.log(x(1)) + (ex.square(x(2)) - x(1))
    seen = set()
    for _ in range(50):
        form, path = grouped(tree, (), rng)
        assert np.allclose(evaluate(form, COLUMNS), evaluate(tree, COLUMNS)) and path == (0,)
        seen.add(frozenset(ex.inputs(ex.at(form, path))))
    assert {frozenset({0, 1}), frozenset({1, 2}), frozenset({0, 2})} <= seen
    assert grouped(x(0) + x(1), (), rng) == (x(0) + x(1), ())  # nothing to choose
    ratio = x(0) / (x(1) + constant(0.5))
    parts = [skeleton(ex.at(form, path)) for form, path in of_one_input(ratio)]
    assert sorted(parts) == ["(1/(x1+c))", "(x1+c)", "x0", "x1"]


def test_equal_trees_with_constants_of_their_own_are_not_merged():
    two = [ex.exp(constant(-1.0) * x(0))] * 2
    assert len(ex.constants(canonical(constant(1.0) * two[0] - constant(2.0) * two[1]))) == 4
    assert skeleton(canonical(constant(1.0) * x(0) + constant(2.0) * x(0))) == "(c*x0)"  # the control


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_files_give_back_the_same_tree(name):
    tree = EXPRESSIONS[name]
    assert ex.from_json(json.loads(json.dumps(ex.to_json(tree))), 3) == tree


@pytest.mark.parametrize(
    "text",
    [
        "\"__import__('os')\"",
        '["eval", ["input", 0]]',
        '["input", 3]',
        '["input", 0.5]',
        '["constant", "1"]',
        '["constant", NaN]',
        '["add", ["input", 0]]',
        '["exp"]',
        "[]",
        "[" * 150 + "]" * 150,
    ],
)
def test_anything_else_in_a_file_is_refused(text):
    with pytest.raises(ValueError):
        ex.from_json(json.loads(text), 3)


def test_the_code_of_forms_is_a_probability():
    assert sum(ex.CODE.values()) == pytest.approx(1)
    assert set(ex.CODE) == {*ex.UNARY, *ex.BINARY, *ex.LEAVES}
    assert ex.code_length(EXPRESSIONS["bump"], 20) > ex.code_length(EXPRESSIONS["bump"], 5)


def test_constants_that_do_not_act_are_no_obstacle():
    """A matrix of constants that is singular to the last bit has ended a search of minutes with an error."""
    rows = np.array([[1.0, 2.0], [3.0, 4.0]])
    regular = np.array([[2.0, 0.5], [0.5, 1.0]])
    np.testing.assert_allclose(_solved(regular, rows), rows @ np.linalg.inv(regular))
    singular = np.array([[2.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(_solved(singular, rows), [[0.5, 0.0], [1.5, 0.0]])


def test_a_search_goes_on_where_constants_cannot_be_combined(monkeypatch):
    """The square of a large constant has ended a search with an error."""
    rng = np.random.default_rng(1)
    shots = Shots(
        rng.uniform(0.5, 1.5, (2, 300)), rng.integers(0, 3, 300).astype(float), np.full(300, 2.0), np.zeros(300, int)
    )
    huge = ex.square(constant(1e200) * x(0))
    large = huge + x(1) + (huge + x(0))
    with pytest.raises(OutsideDomain, match="cannot be combined"):
        canonical(large)
    search = ScoreSearch(shots, 2, rng)
    regrown = []
    monkeypatch.setattr(
        search, "_children", lambda parent: regrown.append(parent) or search._refitted_with_a_constant(large)
    )
    search.run(lambda n_tried: len(regrown) < 5, 0.5, shapes=False)
    assert len(regrown) == 5


def test_without_two_summands():
    one, two, three = constant(2.0) * x(0), ex.log(x(1)), ex.square(x(2))
    assert without_two(one + two + three) == [three, two, one]
    minus_three = number(-1) * three
    assert without_two(one + two - three) == [minus_three, two, one]
    assert without_two(one + two) == without_two(one) == []


def test_a_sweep_finds_one_term_for_two(monkeypatch):
    """A logarithm and an exponential nearly stand for a share of two inputs; without either the fit is worse."""
    rng = np.random.default_rng(5)
    columns = rng.uniform(0.1, 2.0, (6, 3000))
    log_odds = 12 * columns[0] / (columns[0] + columns[1]) - 1.5 * columns[2] / columns[3] - 4.2
    shots = Shots(columns, rng.binomial(2, expit(log_odds)), np.full(3000, 2), np.zeros(3000, int))
    share = constant(12.0) * (x(0) / (x(0) + x(1))) + constant(-4.2)
    truth = share + constant(-1.5) * (x(2) / x(3))
    pair = constant(2.8) * ex.log(x(0)) + constant(8.6) * ex.exp(constant(-1.1) * x(1))
    trap = pair + constant(-1.5) * (x(2) / x(3)) + constant(-1.0)

    def swept():
        search = ScoreSearch(shots, 6, np.random.default_rng(0))
        search.archive.consider(trap)
        search._sweep(search.archive.best.fitted.node)
        return skeleton(search.archive.best.fitted.node)

    assert swept() == skeleton(canonical(truth))
    monkeypatch.setattr("ops_aimmd.explain.formulas.engines.score_search.without_two", lambda node: [])
    assert swept() != skeleton(canonical(truth))  # control

"""Formulas as they are written: short constants, no large terms that cancel, and hardly any loss."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from ops_aimmd.committor.likelihood import binomial_derivatives
from ops_aimmd.explain.formulas.constants import Shots, refit
from ops_aimmd.explain.formulas.expressions import (
    constant,
    constants,
    evaluate,
    exp,
    log,
    number,
    sqrt,
    square,
    with_constants,
    x,
)
from ops_aimmd.explain.formulas.formula import Formula
from ops_aimmd.explain.formulas.front import make_front
from ops_aimmd.explain.formulas.readable import cancellation, readable, text_of

TRUTHS = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "symbolic_truths.py"))["TRUTHS"]


def total(*terms):
    """c * term + c * term + ... + c"""
    result = constant(0.0)
    for start, term in terms:
        result = constant(start) * term + result
    return result


FORMS = {
    "sum": total((2, x(0)), (-2, x(1) * x(2)), (1, log(x(3)))),
    "dihedrals": total((2, x(1) * x(3)), (2, x(0) * x(2)), (-1, x(4)), (2, x(16))),
    "ratios": total((5, (x(0) - x(1)) / (x(0) + x(1))), (-1, x(2) / x(3))),
    "exp+ratio": total((5, x(0)), (-2, exp(constant(-3) * x(1))), (-4, x(2) / (x(3) + constant(0.3)))),
    "nested": total((5, (x(0) - x(1)) * x(2) / (number(1) + square(x(3)))), (1, x(4))),
    "bump": total(
        (6, exp(constant(-2) * square(x(0) - constant(1.3)))),
        (-3, sqrt(x(1) * x(2) + constant(0.3))),
        (1, x(3)),
    ),
}

SIZE, TEMPERATURE = x(0), x(1)

NUCLEATION = {
    "Arrhenius": total((0.02, SIZE), (-1e12, exp(constant(-7300.0) / TEMPERATURE))),
    "linear": total((0.02, SIZE), (-0.5, TEMPERATURE)),
    "quadratic": total((0.02, SIZE), (-0.5, TEMPERATURE), (-0.01, square(TEMPERATURE))),
    "logarithm": total((0.02, SIZE), (-100, log(TEMPERATURE))),
}


def nuclei(n=1500, seed=0):
    """Shots like those of a nucleation: a size of some hundreds, and four temperatures far from zero."""
    rng = np.random.default_rng(seed)
    size, temperature = rng.gamma(4, 80, n), rng.choice([270.0, 275, 280, 285], n)
    reached = rng.binomial(2, expit(0.025 * size - 12 * np.exp(-7300 * (1 / temperature - 1 / 279)) + 4.4))
    return np.column_stack([size, temperature]), np.stack([2 - reached, reached], axis=1)


def shots_of(points, counts):
    columns = np.ascontiguousarray(points.T)
    return Shots(columns, counts[:, 1].astype(float), counts.sum(axis=1).astype(float), np.zeros(len(points), int))


def fronts_of(form, points, counts, names):
    forms = form if isinstance(form, list) else [form]
    return make_front(
        forms, shots_of(points, counts), range(len(names)), tuple(names), points, "description_length", 1, 0.0
    )


def lost(formula, node, points, counts):
    """Nats per leg that another expression loses more than the formula."""
    losses = [
        binomial_derivatives(evaluate(one, points.T), counts[:, 1], counts.sum(axis=1))[0].sum()
        for one in (node, formula.node)
    ]
    return (losses[0] - losses[1]) / counts.sum()


@pytest.mark.parametrize("name", TRUTHS)
def test_what_is_written_loses_less_than_a_thousandth_of_a_nat(name):
    points, counts = TRUTHS[name].sample(600, seed=1)
    names = [f"x{i}" for i in range(points.shape[1])]
    formula = fronts_of(FORMS[name], points, counts, names)[-1]
    assert formula.inputs == TRUTHS[name].variables
    assert lost(formula, formula.written(), points, counts) < 1e-3
    assert formula.constants["rounded"].map(lambda value: len(f"{abs(value):g}".replace(".", "").strip("0"))).max() <= 4
    new, new_counts = TRUTHS[name].sample(2000, seed=2)
    assert abs(lost(formula, formula.written(), new, new_counts)) < 5e-3


def test_control_one_digit_is_too_few():
    points, counts = TRUTHS["dihedrals"].sample(600, seed=1)
    formula = fronts_of(FORMS["dihedrals"], points, counts, [f"x{i}" for i in range(20)])[-1]
    one_digit = with_constants(formula.node, [float(f"{value:.0e}") for value in constants(formula.node)])
    assert lost(formula, one_digit, points, counts) > 1e-3


@pytest.mark.parametrize("name", NUCLEATION)
def test_large_terms_and_prefactors_are_not_written(name):
    points, counts = nuclei()
    formula = fronts_of(NUCLEATION[name], points, counts, ["n", "T"])[-1]
    assert formula.variables == ("n", "T")
    assert lost(formula, formula.written(), points, counts) < 1e-3
    values = formula.constants["rounded"].abs()
    assert values.max() < 1e4 and values.min() > 1e-4
    # the control: the constants of the form without centring, each rounded to its own standard error
    fitted = refit(NUCLEATION[name], shots_of(points, counts))
    digits = -np.floor(np.log10(fitted.standard_errors())).astype(int)
    rounded = [round(float(value), int(d)) for value, d in zip(constants(fitted.node), digits, strict=True)]
    assert lost(formula, with_constants(fitted.node, rounded), points, counts) > 1e-3


def test_how_a_rate_is_written():
    points, counts = nuclei()
    formula = fronts_of(NUCLEATION["Arrhenius"], points, counts, ["n", "T"])[-1]
    assert "*exp(-" in str(formula) and "(1/T - 1/27" in str(formula)
    assert r"\frac{1}{T}" in formula.latex() and r"\frac{1}{27" in formula.latex()


@pytest.mark.parametrize("node", [*FORMS.values(), *NUCLEATION.values()])
def test_the_function_and_the_number_of_constants_stay(node):
    columns = np.vstack([np.random.default_rng(0).uniform(200, 300, (2, 50)), np.full((18, 50), 1.5)])
    columns[2:] += np.random.default_rng(1).uniform(0, 1, (18, 50))
    result = readable(node, columns)
    assert np.allclose(evaluate(result, columns), evaluate(node, columns), rtol=1e-9)
    assert len(constants(result)) == len(constants(node))


@pytest.mark.parametrize(
    "node", [*FORMS.values(), x(0) - (x(1) + constant(-2.5e-7)), number(-1) * (x(0) - constant(-1) * x(1))]
)
def test_the_text_has_the_value_of_the_expression(node):
    columns = np.random.default_rng(0).uniform(0.5, 2, (20, 30))
    namespace = {f"x{i}": column for i, column in enumerate(columns)} | {f: getattr(np, f) for f in ("exp", "log", "sqrt")}
    text = text_of(node, [f"x{i}" for i in range(20)])
    assert np.allclose(eval(text, namespace), evaluate(node, columns)), text


def test_small_inputs_are_scaled():
    columns = 1e-6 * np.random.default_rng(0).uniform(1, 3, (1, 50))
    assert text_of(readable(total((2e6, x(0))), columns), ["r"]) == "2*r/1e-6 + 0"
    assert text_of(readable(total((3e12, square(x(0)))), columns), ["r"]) == "3*(r/1e-6)**2 + 0"


def test_of_equal_forms_the_one_without_large_cancelling_terms_is_kept():
    rng = np.random.default_rng(0)
    first, third = rng.normal(size=(2, 800))
    points = np.column_stack([first, first + 0.01 * third, third])
    reached = rng.binomial(2, expit(2 * third))
    counts = np.stack([2 - reached, reached], axis=1)
    large, small = total((-200, x(0)), (200, x(1))), total((0.1, x(0)), (2, x(2)))
    assert cancellation(large, points.T) > 50 > 3 > cancellation(small, points.T)
    for forms in ([large, small], [small, large]):
        front = fronts_of(forms, points, counts, ["a", "b", "c"])
        assert [f.variables for f in front if f.node.has_constants and f.inputs] == [("a", "c")]


def test_formulas_of_version_0_1_0_are_written_with_four_digits():
    points, counts = nuclei(200)
    document = json.loads(json.dumps(fronts_of(NUCLEATION["linear"], points, counts, ["n", "T"])[-1].to_dict()))
    again = Formula.from_dict(document)
    assert str(again) == str(Formula.from_dict(again.to_dict()))
    del document["rounded_constants"], document["n_parts"]
    old = Formula.from_dict(document)
    assert np.allclose(old.constants["rounded"], old.constants["value"], rtol=5e-4)
    assert old.size == old.node.size
    with pytest.raises(ValueError):
        Formula.from_dict({**document, "rounded_constants": [1.0]})


def test_sines_and_cosines_are_written_as_functions():
    names = ("phi sin", "phi ALA 2 cos", "basin")
    form = constant(2.0) * x(0) + x(1) * x(2)
    formula = Formula(form, names, np.array([0.1]), np.zeros(3), np.ones(3), (-1, 1), 1.0, 1.0, 1.0, 0.1, 1.0)
    assert str(formula) == "2*sin(phi) + cos(phi ALA 2)*basin"
    assert formula.latex() == r"2 \sin(\phi) + \cos(\mathrm{phi\ ALA\ 2}) basin"
    assert {str(symbol) for symbol in formula.sympy.free_symbols} == set(names)  # by these names columns are found

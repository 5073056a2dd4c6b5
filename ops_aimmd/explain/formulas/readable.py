r"""Formulas as they are written: constants of order one, rounded to their standard errors.

The function stays the same. A term :math:`c\,u` with a mean much larger than its spread is written :math:`c\,(u - u_0)`; a
fitted summand takes up :math:`c\,u_0`. In the same way :math:`c\,e^{a / T}` becomes :math:`c'\,e^{a (1 / T - 1 / T_0)}`,
without a prefactor of 1e12. These constants are less correlated with each other than those of the canonical form, and can
be rounded one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ops_aimmd.explain.formulas.canonical import Coefficient, Sum, sum_of
from ops_aimmd.explain.formulas.constants import Shots, minimise
from ops_aimmd.explain.formulas.expressions import Node, OutsideDomain, Tape, constants, evaluate, exp, log, number, square
from ops_aimmd.explain.formulas.simplify import with_number

HARDLY_VARIES = 10.0
"""Mean of a term, in standard deviations over the shots, beyond which it is centred."""

SMALLEST, LARGEST = 1e-4, 1e5
"""Coefficients outside of this range are brought to order one."""

LOST_PER_LEG = 5e-4
"""Nats per leg that rounding may cost."""

MOST_DIGITS = 15

ROUNDING_TOLERANCE, ROUNDING_STEPS = 1e-3, 10
"""When the other constants are fitted after one was rounded: nats that one more step may promise, and most steps."""


def readable(node: Node, columns: np.ndarray) -> Node:
    """The function of a canonical form on inputs (d, n), with as many constants, of order one."""
    if not node.args:
        return node
    total = _polynomials_centred(sum_of(node), columns)
    summand, terms = total.summand, []
    for coefficient, core in total.terms:
        core, factor = _core(core, columns, coefficient)
        coefficient = Coefficient(coefficient.value * factor, coefficient.free)
        if coefficient.free and summand.free:
            core, offset = _centred(core, columns)
            summand = Coefficient(summand.value + coefficient.value * offset, True)
        if _is_ugly(coefficient):
            core, scale = _scaled(core, columns)
            coefficient = Coefficient(coefficient.value * scale, True)
        terms.append((coefficient, core))
    return Sum(summand, terms).node()


def _core(core: Node, columns: np.ndarray, coefficient: Coefficient) -> tuple[Node, float]:
    """A term without its coefficient in readable form, and the factor that its coefficient takes up."""
    if core.op in ("mul", "div"):
        (first, up), (second, down) = (_core(arg, columns, coefficient) for arg in core.args)
        return Node(core.op, (first, second)), up * down if core.op == "mul" else up / down
    if core.op != "exp" or not coefficient.free:
        return Node(core.op, tuple(readable(arg, columns) for arg in core.args), core.value), 1.0
    exponent = sum_of(core.args[0])
    terms, total = [], 0.0
    for c, u in exponent.terms:
        centred, offset = _centred(u, columns, 0.0 if _is_ugly(coefficient) else HARDLY_VARIES)
        terms.append((c, centred))
        total += c.value * offset
    return exp(Sum(exponent.summand, terms).node()), math.exp(total)


def _is_ugly(coefficient: Coefficient) -> bool:
    return coefficient.free and not SMALLEST <= abs(coefficient.value) < LARGEST


def _scaled(core: Node, columns: np.ndarray) -> tuple[Node, float]:
    """A product of inputs with each divided by its size, a power of ten, and the factor that its coefficient takes up."""
    if core.op == "square":
        scaled, scale = _scaled(core.args[0], columns)
        return square(scaled), scale**2
    if core.op == "mul":
        (first, one), (second, other) = (_scaled(arg, columns) for arg in core.args)
        return Node("mul", (first, second)), one * other
    if core.op not in ("input", "add", "sub"):
        return core, 1.0
    scale = 10.0 ** round(math.log10(np.sqrt(np.mean(evaluate(core, columns) ** 2))))
    return core / number(scale), scale


def _centred(u: Node, columns: np.ndarray, beyond: float = HARDLY_VARIES) -> tuple[Node, float]:
    """A term less a round number near its mean, and this number; the term and 0 where it varies enough."""
    values = evaluate(u, columns)
    if values.std() == 0 or abs(values.mean()) <= beyond * values.std():
        return u, 0.0
    if u.op == "log" or (u.op == "div" and u.args[0] == number(1)):
        typical = round_number(evaluate(u.args[-1], columns))
        if u.op == "log" and typical > 0:
            return log(u.args[0] / number(typical)), math.log(typical)
        if u.op == "div" and typical != 0:
            return u - number(1) / number(typical), 1 / typical
    typical = round_number(values)
    return u - number(typical) if typical > 0 else u + number(-typical), typical


def _polynomials_centred(total: Sum, columns: np.ndarray) -> Sum:
    """Sums with u^2 and u: both of u less a round number."""
    for k, (a, core) in enumerate(total.terms):
        linear = [i for i, (c, u) in enumerate(total.terms) if core == square(u) and c.free]
        if not (linear and a.free and total.summand.free):
            continue
        (i,), u = linear, core.args[0]
        centred, u0 = _centred(u, columns)
        if u0:
            b = total.terms[i][0].value + 2 * a.value * u0
            terms = list(total.terms)
            terms[k], terms[i] = (a, square(centred)), (Coefficient(b, True), centred)
            total = Sum(Coefficient(total.summand.value + (b - a.value * u0) * u0, True), terms)
    return total


def round_number(values: np.ndarray) -> float:
    """A number near the mean with as few digits as the standard deviation allows."""
    return round(float(values.mean()), -math.floor(math.log10(values.std())))


def cancellation(node: Node, columns: np.ndarray) -> float:
    """How much larger than a sum its terms are: the largest ratio of standard deviations in an expression, at least 1."""
    tape = Tape(node)
    with np.errstate(all="ignore"):
        spread = [np.std(value) for value in tape.forward(columns, tape.constants)]
    pairs = zip(tape.ops, tape.args, spread, strict=True)
    ratios = [
        max(spread[a] for a in args) / s if 0 < s < np.inf else np.inf for op, args, s in pairs if op in ("add", "sub")
    ]
    return max(ratios, default=1.0)


def rounded_constants(node: Node, errors: Sequence[float], shots: Shots) -> np.ndarray:
    """Constants with no more digits than their standard errors justify, or a digit more where it is needed.

    Each constant is rounded to the first digit of its standard error, and the others are fitted again. A digit is added
    where rounding costs more than its part of `LOST_PER_LEG`.
    """
    values = constants(node)
    rounded, allowed = [], LOST_PER_LEG * shots.legs.sum() / max(len(values), 1)
    fitted = minimise(node, shots, ROUNDING_TOLERANCE, 0)
    for error in errors:
        value = constants(fitted.node)[0]
        size = min(error, abs(value)) or 1.0
        for digits in range(MOST_DIGITS):
            candidate = round(float(value), digits - math.floor(math.log10(size)))
            try:
                trial = minimise(with_number(fitted.node, 0, candidate), shots, ROUNDING_TOLERANCE, ROUNDING_STEPS)
            except OutsideDomain:
                continue
            if trial.loss < fitted.loss + allowed:
                break
        else:
            return values
        rounded.append(candidate)
        fitted = trial
    return np.array(rounded)


_PLAIN = {"exp": "exp({})", "log": "log({})", "sqrt": "sqrt({})", "square": "{}**2", "mul": "{}*{}", "div": "{}/{}"}
_LATEX = {
    "exp": "e^{{{}}}",
    "log": r"\log\left({}\right)",
    "sqrt": r"\sqrt{{{}}}",
    "square": "{}^{{2}}",
    "mul": "{} {}",
    "div": r"\frac{{{}}}{{{}}}",
}
_SUM, _PRODUCT, _POWER, _ATOM = range(4)


def text_of(node: Node, names: Sequence[str], latex: bool = False) -> str:
    """An expression as text, in Python's notation or LaTeX; ``names`` of all inputs are taken as they are."""
    return _text(node, names, latex)[0]


def _text(node: Node, names: Sequence[str], latex: bool) -> tuple[str, int]:
    """Text, and how strongly its last operation binds."""

    def within(arg: Node, strength: int) -> str:
        text, own = _text(arg, names, latex)
        return text if own >= strength else rf"\left({text}\right)" if latex else f"({text})"

    forms = _LATEX if latex else _PLAIN
    if node.op == "input":
        return names[int(node.value)], _ATOM
    if node.op in ("constant", "number"):
        return _number(node.value, latex), _ATOM if node.value >= 0 else _SUM
    if node.op in ("add", "sub"):
        first, second = within(node.args[0], _SUM), within(node.args[1], _SUM if node.op == "add" else _PRODUCT)
        if node.op == "add" and second.startswith("-"):
            return f"{first} - {second[1:].lstrip()}", _SUM
        return f"{first} {'+' if node.op == 'add' else '-'} {second}", _SUM
    if node.op in ("mul", "div") and node.args[0].op in ("constant", "number") and node.args[0].value < 0:
        positive = node.args[0]._replace(value=-node.args[0].value)
        return "-" + within(Node(node.op, (positive, node.args[1])), _PRODUCT), _SUM
    if node.op == "mul" and node.args[0].op in ("constant", "number") and node.args[0].value == 1:
        return _text(node.args[1], names, latex)
    if node.op == "mul" and node.args[1].op == "div" and node.args[1].args[0] == number(1):
        return _text(node.args[0] / node.args[1].args[1], names, latex)
    if node.op == "mul":
        return _product(*(within(arg, _PRODUCT) for arg in node.args), latex), _PRODUCT
    if node.op == "div":
        strengths = (_SUM, _SUM) if latex else (_PRODUCT, _POWER)
        return forms["div"].format(*map(within, node.args, strengths)), _PRODUCT
    text = forms[node.op].format(within(node.args[0], _ATOM if node.op == "square" else _SUM))
    return text, _POWER if node.op == "square" or (latex and node.op == "exp") else _ATOM


def _product(first: str, second: str, latex: bool) -> str:
    if latex and second[0].isdigit():
        return rf"{first} \cdot {second}"
    return (_LATEX if latex else _PLAIN)["mul"].format(first, second)


def _number(value: float, latex: bool) -> str:
    mantissa, _, exponent = f"{value:.12g}".partition("e")
    if not exponent:
        return mantissa
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if latex else f"{mantissa}e{int(exponent)}"

r"""The canonical form of an expression: the same function in one way only, and without constants that do nothing.

The likelihood cannot tell :math:`c_1 (c_2 x)` from :math:`c x`, nor :math:`e^{c_1 + x}` from :math:`c\,e^x`; the
information matrix of such constants is singular. Here sums and products are flattened, sorted and merged, and constant
factors and summands are pulled out of products, exponentials, logarithms, roots and squares, as far as the sign of
the constants allows. Equal sub-trees are merged only where they hold no constants: equal constants may still be
fitted to different values.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from dataclasses import dataclass, field

from ops_aimmd.explain.formulas.expressions import (
    Node,
    OutsideDomain,
    at,
    constant,
    exp,
    log,
    number,
    replace,
    skeleton,
    sqrt,
    square,
    subtrees,
)

SMALLEST_COEFFICIENT = 1e-12
"""A coefficient below this is not divided by."""

NOT_COMBINED = (ZeroDivisionError, OverflowError, ValueError)
"""What floating point says of constants that cannot be combined."""

MOST_PASSES = 3
"""One pass is nearly always enough; sorting what a pass has merged may take another."""


@dataclass
class Coefficient:
    """A factor or summand: a constant if ``free``, else a number."""

    value: float
    free: bool = False

    def __mul__(self, other: Coefficient) -> Coefficient:
        return Coefficient(self.value * other.value, self.free or other.free)

    def __add__(self, other: Coefficient) -> Coefficient:
        return Coefficient(self.value + other.value, self.free or other.free)

    def node(self) -> Node:
        return constant(self.value) if self.free else number(self.value)


ZERO, ONE = Coefficient(0.0), Coefficient(1.0)


@dataclass
class _Product:
    coefficient: Coefficient
    above: list = field(default_factory=list)
    below: list = field(default_factory=list)

    def __mul__(self, other: _Product) -> _Product:
        return _Product(self.coefficient * other.coefficient, self.above + other.above, self.below + other.below)

    def __truediv__(self, other: _Product) -> _Product:
        inverse = Coefficient(1 / other.coefficient.value, other.coefficient.free)
        return _Product(self.coefficient * inverse, self.above + other.below, self.below + other.above)

    def core(self) -> Node | None:
        """The product without its coefficient, sorted and cancelled; None if nothing is left."""
        above, below = sorted(self.above, key=skeleton), sorted(self.below, key=skeleton)
        for node in list(above):
            if node in below and not node.has_constants:
                above.remove(node)
                below.remove(node)
        top, bottom = _multiply(above), _multiply(below)
        if bottom is None:
            return top
        return (number(1) if top is None else top) / bottom


def _multiply(nodes: list) -> Node | None:
    """The product of the factors, with every two equal ones replaced by a square; None if there are none."""
    factors: list = []
    for node in nodes:
        if factors and factors[-1] == node and not node.has_constants:
            factors[-1] = square(node)
        else:
            factors.append(node)
    return functools.reduce(operator.mul, factors) if factors else None


@dataclass
class Sum:
    summand: Coefficient
    terms: list  # of (coefficient, core)

    def merged(self) -> Sum:
        terms: list = []
        for coefficient, core in sorted(self.terms, key=lambda term: skeleton(term[1])):
            if terms and terms[-1][1] == core and not core.has_constants:
                terms[-1] = (terms[-1][0] + coefficient, core)
            else:
                terms.append((coefficient, core))
        return Sum(self.summand, [(c, core) for c, core in terms if c.free or c.value != 0])._without_shifted_squares()

    def _without_shifted_squares(self) -> Sum:
        """Multiply out (u + c)^2 in a sum that has u^2 and a constant too: it is u^2 and u, each with a coefficient."""
        for k, (coefficient, core) in enumerate(self.terms if self.summand.free else []):
            if core.op != "square" or core.args[0].op != "add" or core.args[0].args[1].op != "constant":
                continue
            u, shift = core.args[0].args
            if u.op in ("add", "sub") or u.has_constants or not any(other == square(u) for _, other in self.terms):
                continue
            linear = Coefficient(2 * coefficient.value * shift.value, True)
            summand = Coefficient(self.summand.value + coefficient.value * shift.value**2, True)
            terms = [*self.terms[:k], *self.terms[k + 1 :], (coefficient, square(u)), (linear, u)]
            return Sum(summand, terms).merged()
        return self

    def scaled(self, coefficient: Coefficient) -> Sum:
        terms = [(c * coefficient, core) for c, core in self.terms]
        summand = self.summand if self.summand == ZERO else self.summand * coefficient
        return Sum(summand, terms)

    def node(self) -> Node:
        result = None
        for coefficient, core in self.terms:
            if result is not None and coefficient == Coefficient(-1.0):
                result = result - core
                continue
            term = core if coefficient == ONE else coefficient.node() * core
            result = term if result is None else result + term
        if result is None:
            return self.summand.node()
        return result if self.summand == ZERO else result + self.summand.node()

    def n_numbers(self) -> int:
        """How many coefficients are numbers."""
        return sum(not c.free for c, _ in self.terms) + (self.summand.value != 0 and not self.summand.free)

    def factored(self) -> _Product:
        """As a product of its first coefficient and the rest, if all coefficients are constants."""
        if not self.terms:
            return _Product(self.summand)
        if len(self.terms) == 1 and self.summand == ZERO:
            return _times_core(*self.terms[0])
        nonzero = [c for c, _ in self.terms] + ([] if self.summand == ZERO else [self.summand])
        free = [c for c, _ in self.terms if SMALLEST_COEFFICIENT < abs(c.value) < math.inf]
        if not free or not all(c.free for c in nonzero):  # dividing by a constant would make constants of numbers
            return _Product(ONE, [self.node()])
        first = free[0]
        terms = [(_divided(c, first), core) for c, core in self.terms]
        summand = self.summand if self.summand == ZERO else _divided(self.summand, first)
        return _Product(Coefficient(first.value, True), [Sum(summand, terms).node()])


def _divided(coefficient: Coefficient, first: Coefficient) -> Coefficient:
    """The first coefficient becomes the number 1, the others stay constants."""
    return ONE if coefficient is first else Coefficient(coefficient.value / first.value, True)


def _times_core(coefficient: Coefficient, core: Node) -> _Product:
    return _Product(coefficient) * _product(core) if core.op in ("mul", "div") else _Product(coefficient, [core])


def canonical(node: Node) -> Node:
    """The canonical form; its constants are start values for a fit.

    Raises `OutsideDomain` where the constants cannot be combined in floating point.
    """
    for _ in range(MOST_PASSES):
        try:
            result = sum_of(node).node()
        except NOT_COMBINED as error:
            raise OutsideDomain(f"constants cannot be combined: {error}") from error
        if result == node:
            break
        node = result
    return node


def with_common_factors(node: Node) -> list[Node]:
    """The tree with a factor that several terms of a sum share taken out of them: x z + y z as z (x + y), each in turn.

    A factor that holds constants is none that terms share: they may be fitted to different values.
    """
    result = []
    for path, part in subtrees(node):
        if part.op not in ("add", "sub") or (path and at(node, path[:-1]).op in ("add", "sub")):
            continue
        try:
            total = sum_of(part)
            products = [(coefficient, _product(core)) for coefficient, core in total.terms]
        except NOT_COMBINED:
            continue
        for side in ("above", "below"):
            shared = [factor for _, product in products for factor in dict.fromkeys(getattr(product, side))]
            for factor in dict.fromkeys(f for f in shared if shared.count(f) > 1 and not f.has_constants):
                result.append(replace(node, path, _taken_out(total, products, side, factor)))
    return result


def _taken_out(total: Sum, products: list, side: str, factor: Node) -> Node:
    within, rest = Sum(ZERO, []), Sum(total.summand, [])
    for (coefficient, core), (_, product) in zip(total.terms, products, strict=True):
        factors = list(getattr(product, side))
        if factor not in factors:
            rest.terms.append((coefficient, core))
            continue
        factors.remove(factor)
        core = dataclasses.replace(product, **{side: factors}).core()
        if core is None:
            within.summand = within.summand + coefficient
        else:
            within.terms.append((coefficient, core))
    together = factor * within.node() if side == "above" else within.node() / factor
    return together + rest.node()


def sum_of(node: Node) -> Sum:
    if node.op in ("constant", "number"):
        return Sum(Coefficient(node.value, node.op == "constant"), [])
    if node.op in ("add", "sub"):
        first, second = sum_of(node.args[0]), sum_of(node.args[1])
        if node.op == "sub":
            second = second.scaled(Coefficient(-1.0))
        return Sum(first.summand + second.summand, first.terms + second.terms).merged()
    if node.op == "log":
        return _log(_product(node.args[0]))
    product = _product(node)
    core = product.core()
    if core is None or product.coefficient == ZERO:
        return Sum(product.coefficient, [])
    if core.op in ("add", "sub"):
        inner = sum_of(core)
        if not product.coefficient.free or inner.n_numbers() == 1:  # else c (x - y) would get a second constant
            return inner.scaled(product.coefficient)
    return Sum(ZERO, [(product.coefficient, core)])


def _log(product: _Product) -> Sum:
    """A free factor of the argument is a summand; ln e^u is u."""
    summand = Coefficient(math.log(abs(product.coefficient.value)), True) if product.coefficient.free else ZERO
    argument = _with_sign(product)
    if argument.op == "exp":
        inner = sum_of(argument.args[0])
        return Sum(summand + inner.summand, inner.terms)
    if argument == number(1):
        return Sum(summand, [])
    return Sum(summand, [(ONE, log(argument))])


def _product(node: Node) -> _Product:
    if node.op in ("constant", "number"):
        return _Product(Coefficient(node.value, node.op == "constant"))
    if node.op == "input":
        return _Product(ONE, [node])
    if node.op == "mul":
        return _product(node.args[0]) * _product(node.args[1])
    if node.op == "div":
        return _product(node.args[0]) / _product(node.args[1])
    if node.op == "exp":
        inner = sum_of(node.args[0])
        coefficient = Coefficient(math.exp(inner.summand.value), inner.summand.free)
        if len(inner.terms) == 1 and inner.terms[0][0] == ONE and inner.terms[0][1].op == "log":
            return _product(inner.terms[0][1].args[0]) * _Product(coefficient)
        if not inner.terms:
            return _Product(coefficient)
        return _Product(coefficient, [exp(Sum(ZERO, inner.terms).node())])
    if node.op in ("sqrt", "square"):
        return _power(node.op, _product(node.args[0]))
    return sum_of(node).factored()


def _power(op: str, product: _Product) -> _Product:
    coefficient = product.coefficient
    if op == "square":
        above, below = product.above, product.below
        squared = Coefficient(coefficient.value**2, coefficient.free)
        return _Product(squared, [_square(n) for n in above], [_square(n) for n in below])
    magnitude = Coefficient(math.sqrt(abs(coefficient.value)), coefficient.free)
    signed = _with_sign(product)
    if signed.op == "number":
        return _Product(magnitude)
    return _Product(magnitude if coefficient.free else ONE, [sqrt(signed)])


def _square(node: Node) -> Node:
    return node.args[0] if node.op == "sqrt" else square(node)


def _with_sign(product: _Product) -> Node:
    """The product with the magnitude of its coefficient taken away where that is free; its sign stays."""
    coefficient = product.coefficient
    if coefficient.free:
        coefficient = Coefficient(math.copysign(1.0, coefficient.value))
    core = product.core()
    if core is None:
        return number(coefficient.value)
    if coefficient == ONE:
        return core
    return Sum(ZERO, [(coefficient, core)]).node()

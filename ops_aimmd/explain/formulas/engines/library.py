r"""The library of terms that score-guided search grows expressions from.

Every term :math:`\psi` is an expression of one or two inputs, with the constants in it at start values that follow from
the data: powers, logarithms, roots, exponentials, squares and Gaussian bumps around quantiles, products, ratios,
shares :math:`a/(a + c b)` and geometric means. Terms that are undefined, constant or not finite on the shots are left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ops_aimmd.explain.formulas.expressions import (
    Node,
    OutsideDomain,
    constant,
    evaluate,
    exp,
    log,
    number,
    sqrt,
    square,
    x,
)

RATES = (-3.0, -1.0, 1.0)
"""Rates of exponentials, in units of the inverse standard deviation."""

CENTRES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Quantiles around which squares and bumps are centred."""

OFFSET = 0.6
"""Offset of denominators, in standard deviations."""

WIDTHS = (0.35, 1.0)
"""Widths of bumps, in standard deviations."""

SMALLEST_DEVIATION = 1e-4
"""In units of the root mean square, what single precision resolves."""

FLATTEST = 1e-9
"""Standard deviation of a term, relative to its root mean square, below which it counts as constant."""


class Library:
    """Terms (a list of Node, the first is the number 1) and their values (float32, shape (m, n)) on inputs of shape (d, n).

    Values are divided by ``scales`` (m,), the root mean square of each term; ``deviations`` (m,) are what remains of the
    standard deviations.
    """

    def __init__(self, columns: np.ndarray):
        self.terms: list[Node] = []
        rows, scales = [], []
        for term in _terms(columns):
            try:
                values = evaluate(term, columns)
            except OutsideDomain:
                continue
            scale = np.sqrt(np.mean(values**2))
            flat = term.op != "number" and not np.std(values) > FLATTEST * scale
            if not np.isfinite(scale) or scale == 0 or flat:
                continue
            self.terms.append(term)
            rows.append((values / scale).astype(np.float32))
            scales.append(scale)
        self.scales = np.array(scales)
        self.values = np.array(rows)
        self.deviations = np.maximum(self.values.std(axis=1), SMALLEST_DEVIATION)
        self.deviations[0] = 1.0  # the number 1


def _terms(columns: np.ndarray) -> Iterator[Node]:
    yield number(1)
    spread = columns.std(axis=1)
    for i in np.flatnonzero(spread > FLATTEST * np.abs(columns).max(axis=1)):
        yield from _of_one_input(int(i), columns[i], spread[i])
        for j in np.flatnonzero(spread > 0):
            if i != j:
                yield from _of_two_inputs(int(i), int(j), spread)


def _of_one_input(i: int, values: np.ndarray, spread: float) -> Iterator[Node]:
    variable = x(i)
    yield variable
    yield from (square(variable), sqrt(variable), log(variable), number(1) / variable)
    if values.min() <= 0:
        shifted = variable + constant(0.5 * spread - values.min())
        yield from (log(shifted), number(1) / shifted)
    for rate in RATES:
        yield exp(constant(rate / spread) * variable)
    for quantile in CENTRES:
        deviation = square(variable - constant(np.quantile(values, quantile)))
        yield deviation
        for width in WIDTHS:
            yield exp(constant(-0.5 / (width * spread) ** 2) * deviation)


def _of_two_inputs(i: int, j: int, spread: np.ndarray) -> Iterator[Node]:
    yield x(i) / x(j)
    yield x(i) / (x(j) + constant(OFFSET * spread[j]))
    if i < j:
        yield x(i) * x(j)
        yield sqrt(x(i) * x(j))
        yield x(i) / (x(i) + x(j))
        if not 0.5 < spread[i] / spread[j] < 2:
            yield x(i) / (x(i) + constant(spread[i] / spread[j]) * x(j))

"""What a search has found so far: the few best expressions of each size, and their description lengths."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ops_aimmd.explain.formulas.canonical import canonical, with_common_factors
from ops_aimmd.explain.formulas.constants import COARSE_TOLERANCE, Fitted, Shots, minimise
from ops_aimmd.explain.formulas.expressions import Node, OutsideDomain, code_length, constants, inputs, skeleton
from ops_aimmd.explain.formulas.simplify import simplified

KEPT_PER_SIZE = 6

FORM_WEIGHT = 0.5
"""Weight of the code length of the form. Many trees say nearly the same, so there are fewer forms that the shots can tell
apart than trees. It is not so of the variables: to name one costs in full. Shuffled outcomes still give the constant
(benchmarks/symbolic_truths.py)."""

ANY_SIZE = 0.25
"""Fraction of parents with a size drawn at random."""

TEMPERATURES = (3.0, 10.0, 30.0)
"""Nats of description length: the other parents are drawn with probability exp(-length / temperature)."""

BEHIND = 4.0
"""Nats, on few shots, that an expression may be behind a smaller one, or behind the worst of its size."""

TOLERANCE, MOST_STEPS = 0.02, 12
"""Nats that one more step may promise when a fit in a search stops, and its most steps."""

MOST_TRIES = 3
"""Fits of one form, from different start values, in a search."""


def description_length(
    fitted: Fitted, n_shots: float, n_inputs: int, evidence: float = 1.0, n_candidates: int = 1
) -> float:
    r"""Nats that describe the outcomes and the expression.

    .. math::  \epsilon\,\mathrm{loss} + \tfrac{k}{2} \left[\ln (n_\mathrm{eff} / 12) + 1\right] + w\,L(\mathrm{form})
        + m \ln n_\mathrm{inputs} + [\mathrm{form} \ne c] \ln n_\mathrm{candidates}

    k constants, written down as finely as :math:`n_\mathrm{eff}` shots can tell them (Wallace and Freeman 1987,
    doi:10.1111/j.2517-6161.1987.tb01695.x), the code length of the form, the logarithm of how many forms as long there
    are to choose from, and the names of its m variables. The last term holds for all but the constant: the best of
    thousands of candidates must be better than chance would make the best of so many.

    Parameters
    ----------
    n_shots : float
        Effective number of shots.
    n_inputs : int
        Inputs that there were to choose from, before any screening.
    evidence : float
        Effective over actual number of shots.
    n_candidates : int
        Candidates tried.
    """
    n_variables = len(inputs(fitted.node))
    chance = math.log(n_candidates) if n_variables else 0.0
    form = FORM_WEIGHT * code_length(fitted.node, max(n_variables, 1)) + n_variables * math.log(n_inputs)
    return evidence * fitted.loss + 0.5 * len(fitted.information) * (math.log(max(n_shots / 12, 1.0)) + 1) + form + chance


def most_constants(shots: Shots) -> int:
    """How many constants these shots can determine: one for every ten legs of the rarer outcome, but at least two.

    With fewer events for each constant their estimates are biased and separable outcomes are the rule (Peduzzi et al.
    1996, doi:10.1016/S0895-4356(96)00236-3).
    """
    reached = shots.reached.sum()
    return max(int(min(reached, shots.legs.sum() - reached) / 10), 2)


class Entry(NamedTuple):
    """An expression in the archive, its loss on the few shots that a fit begins with, its description length, its form."""

    fitted: Fitted
    coarse_loss: float
    length: float
    form: str


class Archive:
    """Fits candidates and keeps the best expressions of every size, up to a largest size.

    ``n_inputs`` counts the inputs that there were to choose from, before any screening.
    """

    def __init__(self, shots: Shots, n_inputs: int, largest_size: int):
        self.shots = shots
        self.n_inputs = n_inputs
        self.n_tried = 0
        self.largest_size, self.most_constants = largest_size, most_constants(shots)
        self._coarse = shots if shots.coarser is None else shots.coarser
        self._by_size: dict[int, list[Entry]] = {}
        self._tries: dict[str, int] = {}

    def consider(self, node: Node, round_values: Sequence[float] = (0.0,)) -> None:
        """Fit a candidate and offer it. Simplify it as long as the result has the least description length of all."""
        fitted = self._fit(node)
        while fitted is not None:
            best = None
            simpler = simplified(fitted.node, fitted.standard_errors(), round_values)
            for other in [*with_common_factors(fitted.node), *simpler]:
                best = self._fit(other) or best
            fitted = best

    def coarsely_fitted(self, node: Node, limit: float = math.inf) -> Fitted:
        """The canonical form fitted to the few shots that a fit begins with."""
        return minimise(canonical(node), self._coarse, COARSE_TOLERANCE, MOST_STEPS, limit)

    def _fit(self, node: Node) -> Fitted | None:
        """The fitted candidate if it has the least description length of all."""
        try:
            node = canonical(node)
            is_large = node.size > self.largest_size or len(constants(node)) > self.most_constants
            if is_large or not self._wants(skeleton(node)):
                return None
            self.n_tried += 1
            limit = self._limit(node.size)
            coarse = self.coarsely_fitted(node, limit)
            if coarse.loss > limit:
                return None
            fitted = minimise(coarse.node, self.shots, TOLERANCE, MOST_STEPS)
        except OutsideDomain:
            return None
        return fitted if self.offer(fitted, coarse.loss) else None

    def _wants(self, form: str) -> bool:
        """Whether a form has been tried less than `MOST_TRIES` times; counts one try."""
        tries = self._tries.get(form, 0)
        self._tries[form] = tries + 1
        return tries < MOST_TRIES

    def _limit(self, size: int) -> float:
        """Loss on few shots above which an expression of this size will hardly find a place."""
        losses = [entry.coarse_loss for other, entries in self._by_size.items() if other <= size for entry in entries]
        limit = min(losses, default=math.inf)
        same_size = self._by_size.get(size, [])
        if len(same_size) >= KEPT_PER_SIZE:
            limit = min(limit, max(entry.coarse_loss for entry in same_size))
        return limit + BEHIND

    def offer(self, fitted: Fitted, coarse_loss: float) -> bool:
        """Keep an expression if it is one of the best of its size; True if it has the least description length of all."""
        length = description_length(fitted, len(self.shots), self.n_inputs)
        entry = Entry(fitted, coarse_loss, length, skeleton(fitted.node))
        best = not self._by_size or length < self.best.length - 1e-6
        same_size = self._by_size.setdefault(fitted.node.size, [])
        known = [other for other in same_size if other.form == entry.form]
        if known:
            if known[0].length <= length:
                return False
            same_size.remove(known[0])
        same_size.append(entry)
        same_size.sort(key=lambda other: other.fitted.loss)
        del same_size[KEPT_PER_SIZE:]
        return best

    def __iter__(self) -> Iterator[Entry]:
        return (entry for _, entries in sorted(self._by_size.items()) for entry in entries)

    def candidates(self) -> list[Node]:
        """The two best expressions of every size, and that with the least description length."""
        best = [entry.fitted.node for _, entries in sorted(self._by_size.items()) for entry in entries[:2]]
        return [*best, self.best.fitted.node]

    @property
    def best(self) -> Entry:
        """The expression with the least description length."""
        return min(self, key=lambda entry: entry.length)

    def draw(self, rng: np.random.Generator) -> Entry:
        """A parent, mostly drawn by description length; some are of a size drawn at random, which keeps early forks."""
        entries = list(self)
        lengths = np.array([entry.length for entry in entries])
        if rng.random() < ANY_SIZE:
            largest = entries[int(np.argmin(lengths))].fitted.node.size
            same_size = self._by_size[rng.choice([size for size in self._by_size if size <= largest])]
            return same_size[min(int(rng.geometric(0.5)) - 1, len(same_size) - 1)]
        temperature = rng.choice(TEMPERATURES)
        return entries[int(np.argmin(lengths + temperature * rng.gumbel(size=len(lengths))))]

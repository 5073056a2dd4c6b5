"""What a search has found so far: for each size the few best expressions, and how each would be described shortest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ops_aimmd.explain.formulas.constants import Fitted, Shots
from ops_aimmd.explain.formulas.expressions import Node, code_length, inputs, skeleton

KEPT_PER_SIZE = 6

FORM_WEIGHT = 0.5
"""Weight of the code length of the form. Many trees say nearly the same, so there are fewer forms that the shots can tell
apart than trees. It is not so of the variables: to name one costs in full. Shuffled outcomes still give the constant
(benchmarks/symbolic_truths.py)."""

ANY_SIZE = 0.25
"""Fraction of parents whose size is drawn at random."""

TEMPERATURES = (3.0, 10.0, 30.0)
"""Nats of description length: the other parents are drawn with probability exp(-length / temperature)."""

BEHIND = 4.0
"""Nats, on few shots, that an expression may be behind a smaller one, or behind the worst of its size."""

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
        Inputs that there are to choose from, before any screening.
    evidence : float
        Effective over actual number of shots.
    n_candidates : int
        How many have been tried.
    """
    n_variables = len(inputs(fitted.node))
    chance = math.log(n_candidates) if n_variables else 0.0
    form = FORM_WEIGHT * code_length(fitted.node, max(n_variables, 1)) + n_variables * math.log(n_inputs)
    return evidence * fitted.loss + 0.5 * fitted.n_constants * (math.log(max(n_shots / 12, 1.0)) + 1) + form + chance


def most_constants(shots: Shots) -> int:
    """How many constants these shots can determine: one for every ten legs of the rarer outcome, but at least two.

    With fewer events for each constant their estimates are biased and separable outcomes are the rule (Peduzzi et al.
    1996, doi:10.1016/S0895-4356(96)00236-3).
    """
    reached = shots.reached.sum()
    return max(int(min(reached, shots.legs.sum() - reached) / 10), 2)


@dataclass(frozen=True)
class Entry:
    """An expression in the archive.

    Attributes
    ----------
    fitted : Fitted
    coarse_loss : float
        Loss of the fit to the few shots that a search begins with.
    length : float
        Description length.
    form : str
    """

    fitted: Fitted
    coarse_loss: float
    length: float
    form: str


class Archive:
    """The best expressions of every size.

    Parameters
    ----------
    n_shots, n_inputs
        As in `description_length`.
    """

    def __init__(self, n_shots: float, n_inputs: int):
        self.n_shots = n_shots
        self.n_inputs = n_inputs
        self.n_tried = 0
        self._by_size: dict[int, list[Entry]] = {}
        self._tries: dict[str, int] = {}

    def wants(self, form: str) -> bool:
        """Whether a form has been tried less than `MOST_TRIES` times; counts one try."""
        tries = self._tries.get(form, 0)
        self._tries[form] = tries + 1
        return tries < MOST_TRIES

    def limit(self, size: int) -> float:
        """Loss on few shots from which on an expression of this size will hardly find a place."""
        losses = [entry.coarse_loss for other, entries in self._by_size.items() if other <= size for entry in entries]
        limit = min(losses, default=math.inf)
        same_size = self._by_size.get(size, [])
        if len(same_size) >= KEPT_PER_SIZE:
            limit = min(limit, max(entry.coarse_loss for entry in same_size))
        return limit + BEHIND

    def take(self, other: Archive) -> None:
        """Offer everything that another archive of the same shots holds."""
        for entry in other:
            self.offer(entry.fitted, entry.coarse_loss)

    def offer(self, fitted: Fitted, coarse_loss: float) -> bool:
        """Keep an expression if it is one of the best of its size; True if it has the least description length of all."""
        length = description_length(fitted, self.n_shots, self.n_inputs)
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

    def candidates(self, per_size: int = 2) -> list[Node]:
        """The few best expressions of every size."""
        return [entry.fitted.node for _, entries in sorted(self._by_size.items()) for entry in entries[:per_size]]

    @property
    def best(self) -> Entry:
        """The expression with the least description length."""
        return min(self, key=lambda entry: entry.length)

    def draw(self, rng: np.random.Generator) -> Entry:
        """A parent: mostly by description length, else one of a size drawn at random, so that early forks are not lost."""
        entries = list(self)
        lengths = np.array([entry.length for entry in entries])
        if rng.random() < ANY_SIZE:
            largest = entries[int(np.argmin(lengths))].fitted.node.size
            same_size = self._by_size[rng.choice([size for size in self._by_size if size <= largest])]
            return same_size[min(int(rng.geometric(0.5)) - 1, len(same_size) - 1)]
        temperature = rng.choice(TEMPERATURES)
        return entries[int(np.argmin(lengths + temperature * rng.gumbel(size=len(lengths))))]

"""Score-guided search for expressions (the default engine).

An expression grows where the likelihood asks for it: the score test of `.scoring` estimates what each term of a library
would gain at a node, and one term is drawn with Gumbel noise. Random moves and constants tried at zero complement growth;
an archive keeps the best expressions of every size. When one expression has been the best for a while, all its neighbours
are tried.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np

from ops_aimmd.explain.formulas import expressions as ex
from ops_aimmd.explain.formulas.archive import Archive
from ops_aimmd.explain.formulas.constants import Shots
from ops_aimmd.explain.formulas.engines.moves import (
    grouped,
    of_one_input,
    prune_summand,
    random_change,
    reshaped,
    without_two,
)
from ops_aimmd.explain.formulas.engines.scoring import ScoreTest
from ops_aimmd.explain.formulas.expressions import Node, OutsideDomain

RANDOM_MOVES, REGROWTH = 0.35, 0.3
"""Fractions of the moves; the others grow."""

SCORES_REMEMBERED = 500

SETTLED, SWEPT_TERMS = 40, 4
"""Candidates after which what is still the best has all its neighbours tried; terms tried for each summand."""

WORTH_A_FIT = 0.5
"""Nats that a new term must promise."""

MOST_IDLE = 1000
"""Moves in a row without a form that is new after which a search ends."""

CHILDREN_PER_SCORING = 4

LARGEST_SIZE = 45
"""Nodes beyond which nothing grows."""


class ScoreSearch:
    """A search that can be continued on more shots.

    ``n_inputs`` counts the inputs before any screening; ``start_from`` is a search on fewer shots of the same inputs.
    """

    def __init__(self, shots: Shots, n_inputs: int, rng: np.random.Generator, start_from: ScoreSearch | None = None):
        self.shots = shots
        self.rng = rng
        self.archive = Archive(shots, n_inputs, LARGEST_SIZE)
        self._test = ScoreTest(shots)
        self._scores: dict = {}
        self._swept: set[str] = set()
        self._islands: list[Archive] = []
        self._at_root, self._shapes = 0.5, True
        self._best_form, self._best_since = "", 0
        self._tried_before = 0 if start_from is None else start_from.n_tried
        for node in [ex.constant(0.0)] if start_from is None else [entry.fitted.node for entry in start_from.archive]:
            self.archive.consider(node)

    @property
    def n_tried(self) -> int:
        """Candidates fitted so far."""
        return self._tried_before + self.archive.n_tried

    def summary(self) -> str:
        """A few words for a progress bar."""
        best = self.archive.best.fitted
        return f"{self.n_tried} tried, {best.loss / self.shots.legs.sum():.4f} nats per leg at size {best.node.size}"

    def start_island(self) -> None:
        """Begin again with a constant; `join_islands` brings back what was found until then."""
        self._islands.append(self.archive)
        self._tried_before += self.archive.n_tried
        self.archive = Archive(self.shots, self.archive.n_inputs, LARGEST_SIZE)
        self.archive.consider(ex.constant(0.0))

    def join_islands(self) -> None:
        """Put the expressions of all islands into one archive."""
        for island in self._islands:
            for entry in island:
                self.archive.offer(entry.fitted, entry.coarse_loss)
        self._islands = []

    def run(self, keep_going: Callable[[int], bool], at_root: float = 0.5, shapes: bool = True) -> None:
        """Search while ``keep_going(n_tried)``, or until hardly anything is left to try.

        ``at_root`` is the probability that growth adds a term to the whole expression rather than somewhere within it;
        ``shapes`` says whether every function of one input is tried in place of others, in what has been the best for a
        while.
        """
        self._at_root, self._shapes = at_root, shapes
        idle = 0
        while idle < MOST_IDLE and keep_going(self.n_tried):
            tried = self.n_tried
            self._move()
            idle = 0 if self.n_tried > tried else idle + 1

    def _move(self) -> None:
        best = self.archive.best
        if best.form != self._best_form:
            self._best_form, self._best_since = best.form, self.n_tried
        if self.n_tried - self._best_since > SETTLED and best.form not in self._swept:
            self._swept.add(best.form)
            self._sweep(best.fitted.node)
            return
        with suppress(OutsideDomain):
            for child in self._children(self.archive.draw(self.rng).fitted.node):
                self.archive.consider(child)

    def _sweep(self, node: Node) -> None:
        """All neighbours that the score test favours: another term or shape for each part, one more term at each node."""
        for tree, path in of_one_input(node) if self._shapes else []:
            with suppress(OutsideDomain):
                for child in reshaped(tree, path, self._test.shots.columns):
                    self.archive.consider(child)
        for rest in without_two(node):
            with suppress(OutsideDomain):
                self._replace_what_is_gone(rest, twice=True)
        for path, part in list(ex.subtrees(node)):
            with suppress(OutsideDomain):
                if part.op in ("add", "sub"):
                    for keep in part.args:
                        self._replace_what_is_gone(ex.replace(node, path, keep))
                if part.op not in ("constant", "number"):
                    self._try_best_terms(node, path, False, 1)
                    self._try_best_terms(node, path, True, 1)

    def _replace_what_is_gone(self, rest: Node, twice: bool = False) -> None:
        """Add the best terms to what is left of an expression; twice: add to each result the best term again."""
        without = self._refitted_with_a_constant(rest)
        self._try_best_terms(without, (), False, SWEPT_TERMS)
        for child in self._with_best_terms(without, (), False, SWEPT_TERMS) if twice else []:
            self._try_best_terms(self.archive.coarsely_fitted(child).node, (), False, 1)

    def _try_best_terms(self, node: Node, path: tuple, factor: bool, n_terms: int) -> None:
        for child in self._with_best_terms(node, path, factor, n_terms):
            self.archive.consider(child)

    def _with_best_terms(self, node: Node, path: tuple, factor: bool, n_terms: int) -> list[Node]:
        gains, starts, answers = self._test(node, path, factor)
        best = [int(term) for term in np.argsort(gains)[::-1][:n_terms] if gains[term] > WORTH_A_FIT]
        return [self._insert(node, path, term, starts[term], answers[term], factor) for term in best]

    def _children(self, parent: Node) -> list[Node]:
        """The parent after a random change, with another term for one of its summands, or with one more term."""
        move = self.rng.random()
        if move < RANDOM_MOVES:
            other = self.archive.draw(self.rng).fitted.node
            return [random_change(parent, other, self._test.shots.columns, self.rng)]
        if move >= RANDOM_MOVES + REGROWTH:
            return self._grown(parent)
        without = prune_summand(parent, self.rng)
        return [] if without is None else self._grown(self._refitted_with_a_constant(without), at_root=True)

    def _refitted_with_a_constant(self, rest: Node) -> Node:
        """What is left of an expression, and a constant: the term that was there may have stood for one as well."""
        return self.archive.coarsely_fitted(rest + ex.constant(0.0)).node

    def _grown(self, node: Node, at_root: bool = False) -> list[Node]:
        """Children of an expression with one more term, drawn by the gain that the score test promises."""
        places = [path for path, part in ex.subtrees(node) if part.op not in ("constant", "number")]
        path = (
            places[self.rng.integers(len(places))] if places and not at_root and self.rng.random() > self._at_root else ()
        )
        factor = self.rng.random() < 0.5
        if factor:
            node, path = grouped(node, path, self.rng)
            factor = path != ()  # one of the whole expression is seldom worth it
        key = (ex.skeleton(node), path, factor)
        if key not in self._scores:
            self._scores[key] = self._test(node, path, factor)
            if len(self._scores) > SCORES_REMEMBERED:
                del self._scores[next(iter(self._scores))]
        gains, starts, answers = self._scores[key]
        children = self._draw(gains)
        gains[children] = 0.0
        return [self._insert(node, path, term, starts[term], answers[term], factor) for term in children]

    def _draw(self, gains: np.ndarray) -> list[int]:
        drawn = []
        for _ in range(CHILDREN_PER_SCORING):
            noise = gains.max() * self.rng.choice([0.03, 0.1, 0.3])
            drawn.append(int(np.argmax(gains + noise * self.rng.gumbel(size=len(gains)))))
        return [term for term in dict.fromkeys(drawn) if gains[term] > WORTH_A_FIT]

    def _insert(self, node: Node, path: tuple, term: int, start: float, answer: np.ndarray, factor: bool) -> Node:
        """With a term; its old constants answer to it where that is the better start for a fit."""
        psi, one = self._test.library.terms[term], ex.number(1)
        factors = (
            lambda part: part * (one + ex.constant(start) * psi),
            lambda part: part / (one + ex.constant(-start) * psi),
            lambda part: part * ex.exp(ex.constant(start) * psi),
        )
        insert = factors[self.rng.integers(3)] if factor else lambda part: part + ex.constant(start) * psi
        answered = ex.with_constants(node, ex.constants(node) + answer)
        return min((ex.replace(old, path, insert(ex.at(old, path))) for old in (answered, node)), key=self._test.loss)

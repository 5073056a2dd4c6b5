r"""What each term of a library would gain at a node of an expression, without a single fit.

For a node s with adjoint :math:`D = \partial q / \partial s`, residual :math:`r = n_B - N p` and information
:math:`W = N p (1 - p)`, inserting :math:`s + c\,\psi` gains

.. math::  \frac{U^2}{2 I}, \qquad U = \psi^\top (D r), \qquad I = (\psi^2)^\top (D^2 W) - b^\top H^{-1} b,

with :math:`b = J^\top D W \psi`, to second order in c, Rao's score test (1948, doi:10.1017/S0305004100023987); the old
constants answer to the new one by :math:`-c\,H^{-1} b`. So a few matrix products score every term. A factor
:math:`s (1 + c\,\psi)` has the adjoint :math:`D s`, and to the same order stands for :math:`s / (1 - c\,\psi)` and
:math:`s\,e^{c \psi}`.

A term with a heavy tail, such as a ratio with a denominator close to zero, has most of its information in a few shots.
Their outcomes are soon certain as c grows, and the second order is far off there. So the best terms are followed along

.. math::  q + c\,(D \psi - J^\top H^{-1} b)

to where the likelihood is largest, and are given the gain and the c that are found there.
"""

from __future__ import annotations

import numpy as np

from ops_aimmd.committor.likelihood import binomial_derivatives
from ops_aimmd.explain.formulas.constants import Shots
from ops_aimmd.explain.formulas.engines.library import Library
from ops_aimmd.explain.formulas.expressions import Node, OutsideDomain, Tape, evaluate, subtrees

SCORED_SHOTS, SCORED_EXACTLY = 750, 300
"""Shots on which terms are scored, and how many terms of the largest scores get their information computed."""

FOLLOWED, STEPS = 64, 2
"""How many of the best terms are followed to the maximum of the likelihood, and in how many steps."""

SMALLEST_SHARE = 1e-4
"""Share of the information of a new constant that must be left after projection on the old ones."""


class ScoreTest:
    """Scores the terms of a library on some of the shots, evenly spread over all (attribute ``shots``)."""

    def __init__(self, shots: Shots):
        self.shots = shots.rows(slice(None, None, max(len(shots) // SCORED_SHOTS, 1)))
        self.library = Library(self.shots.columns)
        self._shots_per_scored = len(shots) / len(self.shots)

    def __call__(self, node: Node, path: tuple, factor: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For every term: gain in nats of all shots, start value of its constant, and the answer of the old ones.

        The term is inserted at ``path`` of an expression with fitted constants, as a factor or as a summand. Returns gains
        and starts (m,), zero for terms that promise nothing or were not looked at closely, and answers (m, k), which are to
        be added to the constants of the expression.
        """
        tape, n = Tape(node), len(self.shots)
        position = [place for place, _ in subtrees(node)].index(path)
        with np.errstate(all="ignore"):
            values = tape.forward(self.shots.columns, tape.constants)
            adjoints = tape.backward(values, all_nodes=True)
            q = np.broadcast_to(values[-1], n)
            adjoint = np.broadcast_to(adjoints[position] * (values[position] if factor else 1.0), n)
            chosen, gain, start, answer = self._best(adjoint, q, tape.jacobian(adjoints, n))
            answer = -start[:, None] * answer
        m = len(self.library.terms)
        gains, starts, answers = np.zeros(m), np.zeros(m), np.zeros((m, len(tape.constants)))
        gains[chosen] = gain * self._shots_per_scored
        starts[chosen] = start / self.library.scales[chosen]
        answers[chosen] = answer
        return gains, starts, answers

    def loss(self, node: Node) -> float:
        """Negative log-likelihood of the scored shots; infinite where the expression is undefined."""
        try:
            q = evaluate(node, self.shots.columns)
        except OutsideDomain:
            return np.inf
        with np.errstate(all="ignore"):
            loss = float(binomial_derivatives(q, self.shots.reached, self.shots.legs)[0].sum())
        return loss if np.isfinite(loss) else np.inf

    def _best(self, adjoint, q, jacobian) -> tuple[np.ndarray, ...]:
        """The terms of the largest scores, their gains on the scored shots, constants in units of their scales, answers."""
        _, gradient, curvature = binomial_derivatives(q, self.shots.reached, self.shots.legs)
        values = self.library.values
        score = (values @ (-adjoint * gradient).astype(np.float32)).astype(np.float64)
        ranked = np.nan_to_num(np.abs(score) / self.library.deviations)
        few = np.argpartition(-ranked, min(SCORED_EXACTLY, len(ranked) - 1))[:SCORED_EXACTLY]
        psi, score = values[few], score[few]
        weighted = curvature * adjoint
        raw = (psi**2 @ (adjoint * weighted).astype(np.float32)).astype(np.float64)
        overlap = (psi @ (jacobian * weighted).astype(np.float32).T).astype(np.float64)
        own = (jacobian * curvature) @ jacobian.T
        own += np.diag(1e-8 * np.diag(own) + 1e-300)
        answers = _solved(own, overlap)
        information = raw - (overlap * answers).sum(axis=1)
        usable = np.isfinite(information) & np.isfinite(score) & (information > SMALLEST_SHARE * raw) & (raw > 0)
        few, score, information, answers = few[usable], score[usable], information[usable], answers[usable]
        gain, start = score**2 / (2 * information), score / information
        best = np.argsort(-gain)[:FOLLOWED]
        directions = values[few[best]] * adjoint.astype(np.float32) - (answers[best] @ jacobian).astype(np.float32)
        gain[best], start[best] = self._followed(directions, q, score[best], start[best])
        return few, gain, start, answers

    def _followed(self, directions: np.ndarray, q, score, start) -> tuple[np.ndarray, np.ndarray]:
        """Gain and c near the maximum of the likelihood at q + c * direction, for each row of (m, n) by itself.

        The slope falls as c grows: where it has changed its sign its root is interpolated, and until then c doubled.
        """
        reached, legs = (array.astype(np.float32) for array in (self.shots.reached, self.shots.legs))
        q, c = q.astype(np.float32), start.astype(np.float32)
        low, high = np.zeros_like(c), np.full_like(c, np.nan)
        slope_low, slope_high = np.abs(score), np.full_like(c, np.nan)
        for _ in range(STEPS):
            p = 1 / (1 + np.exp(-(q + c[:, None] * directions)))
            slope = np.sign(start) * np.einsum("mn,mn->m", directions, reached - legs * p)
            beyond = slope < 0
            high, slope_high = np.where(beyond, c, high), np.where(beyond, slope, slope_high)
            low, slope_low = np.where(beyond, low, c), np.where(beyond, slope_low, slope)
            root = low + (high - low) * slope_low / (slope_low - slope_high)
            c = np.where(np.isnan(high), 2 * low, root)
        losses = [binomial_derivatives(log_odds, reached, legs)[0] for log_odds in (q, q + c[:, None] * directions)]
        gain = np.nan_to_num(losses[0].sum() - losses[1].sum(axis=1))
        return gain.astype(np.float64), c.astype(np.float64)


def _solved(matrix: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows times the inverse of a symmetric matrix; times its pseudo-inverse where constants do not act at all."""
    try:
        return np.linalg.solve(matrix, rows.T).T
    except np.linalg.LinAlgError:
        return rows @ np.linalg.pinv(matrix, hermitian=True)

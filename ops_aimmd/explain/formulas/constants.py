r"""Constants of an expression under the likelihood of the shots.

With :math:`J = \partial q / \partial c` from the tape, a step solves :math:`[H + \lambda\,\mathrm{diag}(H)]\,\delta = -g`
with :math:`g = J^\top (N p - n_B)` and the Fisher information :math:`H = J^\top W J`, :math:`W = N p (1 - p)` (the damping:
Marquardt 1963, doi:10.1137/0111030, which makes it blind to the units of the constants). The rows are taken in
blocks that stay in the processor's cache.

All log-odds together have the prior of one observation, :math:`\tfrac{1}{2n} \sum_i q_i^2 / \sigma^2`. It costs next to
nothing where shots determine the constants, and holds the log-odds finite where the outcomes are separable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.linalg.lapack import dposv

from ops_aimmd.committor.correlated_shots import blocks, jackknife_covariance, length_for_errors, of_few
from ops_aimmd.committor.likelihood import binomial_derivatives
from ops_aimmd.explain.formulas.expressions import Node, OutsideDomain, Tape, constants, with_constants

PRIOR_LOG_ODDS = 10.0
"""Standard deviation of the prior of the log-odds: committors of 5e-5 are within one of them."""

ROWS_PER_BLOCK = 12000

COARSE_TOLERANCE = 0.2
"""Nats: the fit to some of the shots is only a start."""

FINAL_TOLERANCE = 1e-10
"""Nats that one more step may promise when a fit stops."""

FIRST_DAMPING, SINGULAR_DAMPING, LARGEST_DAMPING = 1e-3, 1e-6, 1e9

GIVEN_UP_BEYOND = 3.0
"""A fit is given up where so many times the gain that the next step promises would not reach the limit."""

UNSEEN = 1e-6
"""Nats: a last step that promises less is taken without another look at the shots, if the steps shrink fast enough."""

IDENTIFIED = 1e-11
"""Smallest eigenvalue of an information matrix, scaled to a unit diagonal, that is inverted."""


@dataclass(frozen=True)
class Shots:
    """Outcomes of shots between two states, and the inputs of an expression; in time, chain after chain.

    Attributes
    ----------
    columns : array, shape (d, n)
        One contiguous row per input.
    reached, legs : array, shape (n,)
        Legs that reached the last state, and all legs, times the weight of the shot.
    chains : int array, shape (n,)
    """

    columns: np.ndarray
    reached: np.ndarray
    legs: np.ndarray
    chains: np.ndarray

    @cached_property
    def coarser(self) -> Shots | None:
        """Every k-th shot, contiguous, on which a fit starts; None where the shots are few."""
        stride = max(len(self) // (3000 if len(self) > 20000 else 600), 1)
        return self.rows(slice(None, None, stride)) if stride > 2 else None

    def __len__(self) -> int:
        return len(self.legs)

    @property
    def n_inputs(self) -> int:
        return len(self.columns)

    def rows(self, rows) -> Shots:
        """Some of the shots: an index array or a slice."""
        arrays = (self.columns[:, rows], self.reached[rows], self.legs[rows], self.chains[rows])
        return Shots(*(np.ascontiguousarray(array) for array in arrays))

    @property
    def time(self) -> np.ndarray:
        """What :mod:`.correlated_shots` takes as steps."""
        return np.arange(len(self))

    def inputs(self, columns) -> Shots:
        """Some of the inputs."""
        return replace(self, columns=np.ascontiguousarray(self.columns[list(columns)]))


@dataclass(frozen=True)
class Fitted:
    """An expression with fitted constants, its loss and the Fisher information (k, k) of the constants.

    The loss is the negative log-likelihood of all shots in nats, prior included.
    """

    node: Node
    loss: float
    information: np.ndarray

    def standard_errors(self) -> np.ndarray:
        """Standard errors of the constants, shape (k,), for independent shots; infinite where undetermined.

        The search uses them to see which constants matter. Formulas report `errors_of_constants`.
        """
        scale = np.sqrt(np.diag(self.information))
        if len(self.information) == 0:
            return scale
        if not np.isfinite(self.information).all() or not (scale > 0).all():
            return np.full(len(self.information), np.inf)
        values, vectors = np.linalg.eigh(self.information / np.outer(scale, scale))
        if values[0] < IDENTIFIED:
            return np.full(len(self.information), np.inf)
        return np.sqrt((vectors**2 / values).sum(axis=1)) / scale


def errors_of_constants(fitted: Fitted, shots: Shots) -> np.ndarray:
    """Standard errors of the constants, (k,), right for correlated shots and legs; infinite where undetermined.

    The jackknife over blocks of shots, as long as the gradients of the log-likelihood are correlated.
    """
    scale = fitted.standard_errors()
    if len(scale) == 0 or not np.isfinite(scale).all():
        return scale
    tape = Tape(fitted.node)
    values = tape.forward(shots.columns, tape.constants)
    q = values[-1] + np.zeros(len(shots))
    _, residual, curvature = binomial_derivatives(q, shots.reached, shots.legs)
    jacobian = tape.jacobian(tape.backward(values), len(shots)) * scale[:, None]
    scores = (jacobian * residual).T
    length = length_for_errors(scores, shots.chains, shots.time)
    clusters = blocks(shots.chains, shots.time, length)
    covariance = jackknife_covariance(scores, jacobian.T[:, :, None] * (jacobian * curvature).T[:, None, :], clusters)
    factor = of_few(clusters.max() + 1) if length > 1 else 1.0
    return np.nan_to_num(scale * np.sqrt(np.diag(covariance)) * factor, nan=np.inf)


def derivatives(
    tape: Tape, shots: Shots, constants: np.ndarray, limit: float = np.inf
) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, gradient (k,) and Fisher information (k, k) of the constants.

    The loss is infinite outside the domain, and where it is not below ``limit``: no derivatives are needed there.
    """
    precision, k = 1 / (PRIOR_LOG_ODDS**2 * len(shots)), len(constants)
    loss, gradient, information = 0.0, np.zeros(k), np.zeros((k, k))
    signs: list[list[bool]] = []
    for start in range(0, len(shots), ROWS_PER_BLOCK):
        rows = slice(start, start + ROWS_PER_BLOCK)
        try:
            values = tape.forward(shots.columns[:, rows], constants)
        except OutsideDomain:
            return np.inf, gradient, information
        q = values[-1] + np.zeros(len(shots.legs[rows]))
        shot_loss, residual, curvature = binomial_derivatives(q, shots.reached[rows], shots.legs[rows])
        loss += float(shot_loss.sum() + 0.5 * precision * (q @ q))
        if not loss < limit:
            return np.inf, gradient, information
        jacobian = tape.jacobian(tape.backward(values), len(q))
        gradient = gradient + jacobian @ (residual + precision * q)
        information = information + (jacobian * (curvature + precision)) @ jacobian.T
        if len(shots) > ROWS_PER_BLOCK:  # a denominator has one sign within a block, and must have the same in all
            signs.append([np.max(values[args[1]]) > 0 for op, args in zip(tape.ops, tape.args, strict=True) if op == "div"])
    return np.inf if any(s != signs[0] for s in signs) else loss, gradient, information


def refit(node: Node, shots: Shots, tolerance: float = FINAL_TOLERANCE, max_steps: int = 100) -> Fitted:
    """Fit the constants of an expression from the values they have; of many shots, some first.

    The fit stops where one more step promises less than ``tolerance`` nats. Raises `OutsideDomain` if the expression is
    undefined on the shots with the constants that it has.
    """
    if shots.coarser is not None:
        enough = max(tolerance, COARSE_TOLERANCE, 0.5 * len(constants(node)))  # a fit to all shots will differ by as much
        started = refit(node, shots.coarser, enough, max_steps).node
        try:
            return minimise(started, shots, tolerance, max_steps)
        except OutsideDomain:  # a pole that the few shots did not see
            pass
    return minimise(node, shots, tolerance, max_steps)


def minimise(node: Node, shots: Shots, tolerance: float, max_steps: int, limit: float = np.inf) -> Fitted:
    """`refit` on all these shots from the first step on; given up where it will hardly come below a limit."""
    tape = Tape(node)
    constants = tape.constants
    with np.errstate(all="ignore"):
        loss, gradient, information = derivatives(tape, shots, constants)
        if not np.isfinite(loss):
            raise OutsideDomain
        damping, growth, last_promise = FIRST_DAMPING, 10.0, np.inf
        for _ in range(max_steps if len(constants) else 0):
            step = _step(information, gradient, damping)
            promise = np.inf if step is None else 0.5 * abs(gradient @ step)
            if promise < tolerance or loss - GIVEN_UP_BEYOND * promise > limit:
                break
            if promise < UNSEEN and promise**2 < tolerance * last_promise:
                constants, loss = constants + step, loss - promise
                break
            trial = None if step is None else derivatives(tape, shots, constants + step, loss)
            if trial is not None and trial[0] < loss:
                constants = constants + step
                gained = loss - trial[0]
                loss, gradient, information = trial
                damping, growth, last_promise = 0.1 * damping, 10.0, promise
                if gained < tolerance:
                    break
            else:
                damping, growth = growth * max(damping, SINGULAR_DAMPING), 10 * growth
                if damping > LARGEST_DAMPING:
                    break
    return Fitted(with_constants(node, constants), loss, information)


def _step(information: np.ndarray, gradient: np.ndarray, damping: float) -> np.ndarray | None:
    damped = information.copy()
    damped.flat[:: len(gradient) + 1] *= 1 + damping
    _, step, failed = dposv(damped, -gradient)
    return None if failed or not np.isfinite(step).all() else step

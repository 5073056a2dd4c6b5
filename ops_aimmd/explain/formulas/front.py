r"""The front: for every size the expression of least loss, and how to pick one.

The back end of all engines: candidates are fitted again to all shots, each constant is tried at 0, 1 and -1 and left out
where that shortens the description, constants that the shots do not determine disqualify a form, and what is left is
judged on held-out blocks of shots.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ops_aimmd.committor.autocorrelation import independent_values
from ops_aimmd.committor.correlated_shots import Folds, block_length, error_of_sum
from ops_aimmd.committor.likelihood import binomial_derivatives
from ops_aimmd.explain.formulas.archive import description_length, most_constants
from ops_aimmd.explain.formulas.canonical import NOT_COMBINED, canonical, with_common_factors
from ops_aimmd.explain.formulas.constants import FINAL_TOLERANCE, Fitted, Shots, errors_of_constants, minimise, refit
from ops_aimmd.explain.formulas.expressions import Node, OutsideDomain, constant, evaluate, skeleton, with_inputs
from ops_aimmd.explain.formulas.formula import Formula
from ops_aimmd.explain.formulas.readable import cancellation, readable, rounded_constants
from ops_aimmd.explain.formulas.screening import flexible_log_odds
from ops_aimmd.explain.formulas.simplify import simplified

FORMAT = "ops_aimmd front 1"

PICKS = ("description_length", "cross_validation", "1-SE")

N_FOLDS = 5

FEWEST_SHOTS_TO_VALIDATE = 20

LEAST_GAIN = 0.5
"""Nats of loss by which a larger expression must beat all smaller ones to be on the front."""

LEAST_CANCELLATION = 3.0
"""Spread of a term over that of its sum, up to which a sum counts as one without cancellation."""

MOST_STEPS = 40
"""Most steps of one fit; a form that needs more has constants that the shots hardly determine."""

LONGEST_TITLE = 60
"""Characters of a formula that a picture has room for."""

CLOSE_ENOUGH = 1e-3
"""Nats that one more step may promise when a candidate is compared; what is on the front is fitted to the end."""

POLISHED = 12
"""Candidates with the shortest descriptions for which simpler forms are tried."""


@dataclass(frozen=True, eq=False)
class Front:
    """Formulas of growing size and falling loss.

    Indexing and iteration give `Formula` objects in the order of size; the first is the constant.

    Attributes
    ----------
    formulas : tuple of Formula
    picked_by : str
        The rule behind `best`.
    n_shots, effective_shots : float
        Shots, and independent ones among them by the residuals of a flexible regression.
    n_tried : int
        Candidates that the search has fitted.
    network_loss_per_leg : float
        Loss per leg of the model that was given for comparison, on the same shots, which it may have been trained on;
        NaN if none was.
    """

    formulas: tuple[Formula, ...]
    picked_by: str
    n_shots: int
    effective_shots: float
    n_tried: int
    network_loss_per_leg: float = math.nan

    def __len__(self) -> int:
        return len(self.formulas)

    def __getitem__(self, index: int) -> Formula:
        return self.formulas[index]

    @property
    def best(self) -> Formula:
        """The formula that the rule `picked_by` picks."""
        return self.pick(self.picked_by)

    def pick(self, by: str = "description_length", size: int | None = None) -> Formula:
        """A formula of the front.

        Parameters
        ----------
        by : {"description_length", "cross_validation", "1-SE"}
            Least description length; least held-out loss; or the smallest with a held-out loss within one standard error of
            the least (Breiman et al., Classification and Regression Trees, 1984). ValueError if nothing was held out.
        size : int, optional
            Instead: the largest that has at most this size.
        """
        if size is not None:
            return [formula for formula in self.formulas if formula.size <= max(size, self.formulas[0].size)][-1]
        if by not in PICKS:
            raise ValueError(f"by must be one of {PICKS}; got {by!r}")
        if by == "description_length":
            return min(self.formulas, key=lambda formula: formula.description_length)
        held_out = np.array([formula.cross_validated_loss for formula in self.formulas])
        if np.isnan(held_out).all():
            raise ValueError(
                f"no shots were held out: {self.n_shots} are too few (at least {FEWEST_SHOTS_TO_VALIDATE}); "
                'pick by "description_length" or by size'
            )
        best = int(np.nanargmin(held_out))
        if by == "cross_validation":
            return self.formulas[best]
        limit = held_out[best] + self.formulas[best].cross_validated_error
        return self.formulas[int(np.flatnonzero(held_out <= limit)[0])]

    def to_pandas(self) -> pd.DataFrame:
        """One row per formula: size, constants, losses in nats per leg, description length, variables, formula, picked."""
        best, losses = self.best, ("loss_per_leg", "cross_validated_loss", "cross_validated_error", "description_length")
        return pd.DataFrame(
            {
                "size": [f.size for f in self],
                "n_constants": [len(f.standard_errors) for f in self],
                **{name: [getattr(f, name) for f in self] for name in losses},
                "variables": [", ".join(f.variables) for f in self],
                "formula": [str(f) for f in self],
                "picked": [f is best for f in self],
            }
        )

    def __str__(self) -> str:
        table = self.to_pandas()[["size", "loss_per_leg", "cross_validated_loss", "formula", "picked"]]
        return table.to_string(index=False, float_format=lambda value: f"{value:.4f}")

    def plot(self, axes=None):
        """Loss per leg against size, and the picked formula, in new matplotlib axes or those given."""
        import matplotlib.pyplot as plt

        if axes is None:
            axes = plt.subplots(layout="constrained")[1]
        size = [f.size for f in self]
        held_out = [f.cross_validated_loss for f in self]
        axes.plot(size, [f.loss_per_leg for f in self], "o-", label="all shots")
        axes.errorbar(size, held_out, [f.cross_validated_error for f in self], fmt="s--", capsize=3, label="held-out shots")
        if not math.isnan(self.network_loss_per_leg):
            axes.axhline(self.network_loss_per_leg, color="0.5", linestyle=":", label="network, all shots")
        best = self.best
        axes.plot(best.size, best.loss_per_leg, "o", markersize=14, fillstyle="none", color="C3", label="picked")
        axes.set(
            xlabel="size (operations, variables and constants)",
            ylabel="loss / nats per leg",
            title=f"q = ${best.latex()}$" if len(str(best)) <= LONGEST_TITLE else f"picked: size {best.size}",
        )
        axes.legend()
        return axes

    def to_json(self, path=None) -> str:
        """The front as JSON text, also written to ``path`` if given."""
        network = None if math.isnan(self.network_loss_per_leg) else self.network_loss_per_leg
        formulas = [formula.to_dict() for formula in self.formulas]
        return write_document({"format": FORMAT, **vars(self), "network_loss_per_leg": network, "formulas": formulas}, path)

    @classmethod
    def from_json(cls, text) -> Front:
        """From the text of `to_json`, or a path (`pathlib.Path`) to it; nothing in it is executed.

        Raises ValueError if it is not what `to_json` writes.
        """
        document = read_document(text, FORMAT)
        try:
            network = document["network_loss_per_leg"]
            return cls(
                formulas=tuple(Formula.from_dict(dct) for dct in document["formulas"]),
                picked_by=str(document["picked_by"]),
                n_shots=int(document["n_shots"]),
                effective_shots=float(document["effective_shots"]),
                n_tried=int(document["n_tried"]),
                network_loss_per_leg=math.nan if network is None else float(network),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"this front of formulas is damaged: {error!r}") from error


def write_document(document: dict, path) -> str:
    """The document as JSON text, also written to ``path`` if given."""
    text = json.dumps(document)
    if path is not None:
        Path(path).write_text(text)
    return text


def read_document(text, expected: str) -> dict:
    """The document of a JSON text, or of a `pathlib.Path` to one; raises ValueError for another format."""
    document = json.loads(text.read_text() if isinstance(text, Path) else text)
    if not isinstance(document, dict) or document.get("format") != expected:
        raise ValueError(f"expected a document {expected!r} as to_json writes it; got {str(document)[:80]!r}")
    return document


def make_front(
    candidates: Iterable[Node],
    shots: Shots,
    columns: Sequence[int],
    names: tuple[str, ...],
    descriptors: np.ndarray,
    pick: str,
    n_tried: int,
    seconds: float,
) -> Front:
    """Refit, simplify and validate candidates, which are expressions of the inputs of ``shots``.

    ``columns`` says which of all ``descriptors`` (n, d) each of these inputs is. Simpler forms are tried for so many CPU
    ``seconds``; every candidate of the front is refitted in any case.
    """
    n_inputs = descriptors.shape[1]
    fitted = _refitted([constant(0.0), *candidates], shots)
    effective = effective_shots(shots)
    evidence = effective / len(shots)

    def length(f: Fitted) -> float:
        return description_length(f, effective, n_inputs, evidence, max(n_tried, 1))

    fitted = _polished(fitted, shots, length, time.thread_time() + seconds)
    formulas = []
    for candidate in _pareto(fitted, length):
        candidate = _without_cancellation(candidate, fitted, length, shots)
        f = minimise(_readable(candidate.node, shots), shots, FINAL_TOLERANCE, MOST_STEPS)
        if not np.isfinite(f.standard_errors()).all():  # outcomes that are separable: the last steps went on and on
            continue
        q = evaluate(f.node, shots.columns)
        held_out = cross_validated(f.node, shots)
        errors = errors_of_constants(f, shots)
        formulas.append(
            Formula(
                node=with_inputs(f.node, columns),
                names=names,
                standard_errors=errors,
                lower=descriptors.min(axis=0),
                upper=descriptors.max(axis=0),
                log_odds_range=(float(q.min()), float(q.max())),
                loss=f.loss,
                loss_per_leg=f.loss / shots.legs.sum(),
                cross_validated_loss=held_out[0],
                cross_validated_error=held_out[1],
                description_length=length(candidate),
                rounded_constants=rounded_constants(f.node, errors, shots),
                n_parts=candidate.node.size,
            )
        )
    return Front(tuple(formulas), pick, len(shots), effective, n_tried)


def _refitted(candidates: Iterable[Node], shots: Shots) -> list[Fitted]:
    """The candidates fitted to all shots, equal forms once; without undefined ones and undetermined constants."""
    best: dict[str, Fitted] = {}
    for node in candidates:
        try:
            fitted = refit(canonical(node), shots, CLOSE_ENOUGH, MOST_STEPS)
        except OutsideDomain:
            continue
        form = skeleton(fitted.node)
        determined = np.isfinite(fitted.standard_errors()).all() and len(fitted.information) <= most_constants(shots)
        if determined and (form not in best or fitted.loss < best[form].loss):
            best[form] = fitted
    return list(best.values())


def _polished(fitted: list[Fitted], shots: Shots, length, until: float) -> list[Fitted]:
    """With simpler forms of the best candidates, as long as these have shorter descriptions."""
    known = {skeleton(f.node) for f in fitted}
    queue = sorted(_pareto(fitted, length), key=length)[:POLISHED]
    while queue and time.thread_time() < until:
        parent = queue.pop(0)
        simpler = [*with_common_factors(parent.node), *simplified(parent.node, parent.standard_errors())]
        for node in simpler:
            with suppress(OutsideDomain):
                node = canonical(node)
            if skeleton(node) in known:
                continue
            known.add(skeleton(node))
            for child in _refitted([node], shots):
                fitted.append(child)
                if length(child) < length(parent):
                    queue.insert(0, child)
    return fitted


def _pareto(fitted: list[Fitted], length) -> list[Fitted]:
    """The front of loss against size, and in it the candidate with the shortest description."""
    front: list[Fitted] = []
    for f in sorted(fitted, key=lambda f: (f.node.size, f.loss)):
        if not front or f.loss < front[-1].loss - LEAST_GAIN:
            front.append(f)
    shortest = min(fitted, key=length)
    if not any(f is shortest for f in front):
        front = [f for f in front if f.node.size != shortest.node.size] + [shortest]
    return sorted(front, key=lambda f: f.node.size)


def _without_cancellation(f: Fitted, others: list[Fitted], length, shots: Shots) -> Fitted:
    """The form of least cancellation among those of the same size that describe the shots as well."""
    same_size = [other for other in others if other.node.size == f.node.size]
    equals = [other for other in same_size if max(other.loss - f.loss, length(other) - length(f)) < LEAST_GAIN]
    return min([f, *equals], key=lambda other: max(cancellation(other.node, shots.columns), LEAST_CANCELLATION))


def _readable(node: Node, shots: Shots) -> Node:
    """The readable form, unless it cannot be evaluated."""
    try:
        with np.errstate(all="ignore"):
            result = readable(node, shots.columns)
        same = np.allclose(evaluate(result, shots.columns), evaluate(node, shots.columns), rtol=1e-6, atol=1e-6)
    except (OutsideDomain, *NOT_COMBINED):
        return node
    return result if same else node


def cross_validated(node: Node, shots: Shots) -> tuple[float, float]:
    """Held-out loss per leg with its standard error; constants are fitted to the other folds, as in training.

    NaN where the shots are too few, or where the formula is undefined on held-out shots.
    """
    if len(shots) < FEWEST_SHOTS_TO_VALIDATE:
        return math.nan, math.nan
    correlated = block_length(_residuals(evaluate(node, shots.columns), shots), shots.chains, shots.time)
    folds = Folds.dealt(shots.chains, N_FOLDS, correlated)
    fold, gaps = folds.of(shots.chains, shots.time), folds.gaps(shots.chains, shots.time)
    losses = np.full(len(shots), np.nan)
    for k in np.unique(fold):
        try:
            fitted = refit(node, shots.rows((fold != k) & ~gaps[k]), tolerance=1e-3)
            held_out = shots.rows(fold == k)
            q = evaluate(fitted.node, held_out.columns)
            losses[fold == k] = binomial_derivatives(q, held_out.reached, held_out.legs)[0]
        except OutsideDomain:
            return math.nan, math.nan
    mean = losses.sum() / shots.legs.sum()
    (error,) = error_of_sum(losses - mean * shots.legs, shots.chains, shots.time)
    return float(mean), float(error / shots.legs.sum())


def effective_shots(shots: Shots) -> float:
    """Number of independent shots, by the correlation of their residuals.

    Consecutive shots are no separate evidence where something slow that no input tells decides their outcomes. Their
    residuals are then correlated under any function of the inputs. Under a poor one they are correlated for another reason:
    it is wrong in the same way for neighbours. So the residuals are those of a flexible regression, whatever the search has
    found.
    """
    if len(shots) < FEWEST_SHOTS_TO_VALIDATE:
        return float(len(shots))
    return independent_values(_residuals(flexible_log_odds(shots), shots), shots.chains, shots.time)


def _residuals(log_odds: np.ndarray, shots: Shots) -> np.ndarray:
    return binomial_derivatives(log_odds, shots.reached, shots.legs)[1]

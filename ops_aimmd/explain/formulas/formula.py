r"""A fitted formula: log-odds of the last of two states as an expression of named inputs."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.explain.formulas import expressions
from ops_aimmd.explain.formulas.expressions import Node, OutsideDomain, evaluate
from ops_aimmd.explain.formulas.formula_model import formula_model, torchscript
from ops_aimmd.explain.formulas.readable import text_of

DIGITS = 4
"""Significant digits of constants that were not rounded to their standard errors."""


@dataclass(frozen=True, eq=False)
class Formula:
    r"""A short formula of the committor.

    Attributes
    ----------
    node : Node
        The expression of the log-odds :math:`q = \ln p_B / (1 - p_B)`.
    names : tuple of str
        Names of all descriptors.
    standard_errors : array, shape (k,)
        Standard errors of the constants, from the Fisher information; infinite where the shots do not determine a constant.
    lower, upper : array, shape (d,)
        Range of each descriptor in the training set.
    log_odds_range : (float, float)
        Range of the formula on the training set.
    loss, loss_per_leg : float
        Negative log-likelihood of the training set in nats.
    cross_validated_loss, cross_validated_error : float
        Loss per leg of held-out shots, constants fitted to the others; NaN where there are too few shots.
    description_length : float
        In nats; see `ops_aimmd.explain.formulas.archive.description_length`.
    rounded_constants : array, shape (k,), optional
        The constants as they are written, rounded to their standard errors; without it they are written with four digits.
    n_parts : int, optional
        Operations, variables and constants, without the numbers by which variables are centred and scaled.
    """

    node: Node
    names: tuple[str, ...]
    standard_errors: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    log_odds_range: tuple[float, float]
    loss: float
    loss_per_leg: float
    cross_validated_loss: float
    cross_validated_error: float
    description_length: float
    rounded_constants: np.ndarray | None = None
    n_parts: int | None = None

    @property
    def inputs(self) -> tuple[int, ...]:
        """Columns of the descriptors that the formula depends on."""
        return expressions.inputs(self.node)

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the descriptors that the formula depends on."""
        return tuple(self.names[i] for i in self.inputs)

    @property
    def size(self) -> int:
        """Number of operations, variables and constants."""
        return self.node.size if self.n_parts is None else self.n_parts

    @property
    def constants(self) -> pd.DataFrame:
        """Fitted constants, in the order in which the formula is written: columns value, standard_error, rounded."""
        values = expressions.constants(self.node)
        columns = {
            "value": values,
            "standard_error": self.standard_errors,
            "rounded": expressions.constants(self.written()),
        }
        return pd.DataFrame(columns)

    def written(self, digits: int | None = None) -> Node:
        """The expression with rounded constants: to this many significant digits, or to their standard errors."""
        if digits is None and self.rounded_constants is not None:
            return expressions.with_constants(self.node, self.rounded_constants)
        digits = DIGITS if digits is None else digits
        return expressions.with_constants(self.node, [float(f"{c:.{digits}g}") for c in expressions.constants(self.node)])

    def reaction_coordinate(self, x) -> np.ndarray:
        """Log-odds (n,) of the last state, for all descriptors (n, d), also those that the formula does not use.

        Raises ValueError for another shape, or where the formula is undefined (`to_model` gives an object that is defined
        everywhere).
        """
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.names):
            raise ValueError(f"this formula takes descriptors of shape (n, {len(self.names)}); got shape {x.shape}")
        try:
            q = evaluate(self.node, x.T)
        except OutsideDomain:
            q = np.array([_value(self.node, row) for row in x])
        bad = np.flatnonzero(~np.isfinite(q))
        if len(bad):
            raise ValueError(
                f"the formula {self} is undefined in rows {bad[:10].tolist()} of {len(x)}: a logarithm, root or division "
                "outside its domain, or descriptors that are not finite. to_model() gives a model for all configurations"
            )
        return q

    def committor(self, x) -> np.ndarray:
        """Probability of reaching the last state, shape (n,); otherwise like `reaction_coordinate`."""
        return expit(self.reaction_coordinate(x))

    @property
    def sympy(self):
        """The log-odds as a sympy expression, with all digits."""
        import sympy

        return expressions.to_sympy(self.node, [sympy.Symbol(name) for name in self.names])

    def latex(self, digits: int | None = None) -> str:
        """The log-odds in LaTeX, constants rounded to their standard errors, or to this many significant digits."""
        return text_of(self.written(digits), [latex_name(name) for name in self.names], latex=True)

    def __str__(self) -> str:
        angles = (ANGLE.fullmatch(name) for name in self.names)
        names = [f"{angle[2]}({angle[1]})" if angle else name for angle, name in zip(angles, self.names, strict=True)]
        return text_of(self.written(), names)

    def to_model(self, fallback=None) -> CommittorModel:
        """A CommittorModel that computes this formula; see `ops_aimmd.explain.formulas.formula_model.formula_model`."""
        return formula_model([self], fallback)

    def to_torchscript(self, fallback=None):
        """`to_model` as TorchScript, for programs without Python: descriptors (n, d), float64 -> log-odds (n, 1)."""
        return torchscript(self.to_model(fallback))

    def to_dict(self) -> dict:
        """Everything as plain JSON types."""
        return {
            "node": expressions.to_json(self.node),
            "names": list(self.names),
            "standard_errors": [float(e) if np.isfinite(e) else None for e in self.standard_errors],
            "lower": self.lower.tolist(),
            "upper": self.upper.tolist(),
            "log_odds_range": list(self.log_odds_range),
            "rounded_constants": None if self.rounded_constants is None else self.rounded_constants.tolist(),
            "n_parts": self.n_parts,
            **{name: _or_none(getattr(self, name)) for name in _FIGURES},
        }

    @classmethod
    def from_dict(cls, dct: dict) -> Formula:
        """From `to_dict`; nothing is executed. Raises ValueError if it is not what `to_dict` writes."""
        try:
            names = tuple(str(name) for name in dct["names"])
            node = expressions.from_json(dct["node"], len(names))
            errors = np.array([np.inf if e is None else float(e) for e in dct["standard_errors"]])
            lower, upper = (np.array(dct[key], dtype=np.float64) for key in ("lower", "upper"))
            first, last = (float(q) for q in dct["log_odds_range"])
            rounded, n_parts = (dct.get(key) for key in ("rounded_constants", "n_parts"))  # not in files of version 0.1.0
            rounded = None if rounded is None else np.array(rounded, dtype=np.float64)
            n_parts = None if n_parts is None else int(n_parts)
            figures = {name: np.nan if dct[name] is None else float(dct[name]) for name in _FIGURES}
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no formula written by to_dict: {error!r}") from error
        lengths = {len(errors), len(expressions.constants(node)), *([] if rounded is None else [len(rounded)])}
        if not lower.shape == upper.shape == (len(names),) or len(lengths) != 1:
            raise ValueError("the arrays of the stored formula do not fit its expression")
        return cls(node, names, errors, lower, upper, (first, last), **figures, rounded_constants=rounded, n_parts=n_parts)


_FIGURES = ("loss", "loss_per_leg", "cross_validated_loss", "cross_validated_error", "description_length")


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _value(node: Node, row: np.ndarray) -> float:
    """Value for one configuration, NaN where undefined: alone it may be on one side of a pole."""
    try:
        return float(evaluate(node, row[:, None])[0])
    except OutsideDomain:
        return np.nan


ANGLE = re.compile("(.+) (sin|cos)")
"""Names of descriptors that are the sine or cosine of an angle."""


def latex_name(name: str) -> str:
    """LaTeX of the name of a descriptor: "phi sin" is the sine of phi."""
    import sympy

    if angle := ANGLE.fullmatch(name):
        return rf"\{angle[2]}({latex_name(angle[1])})"
    return sympy.latex(sympy.Symbol(name)) if name.isidentifier() else upright(name)


def upright(name: str) -> str:
    """LaTeX of a name that is no identifier; characters that LaTeX or matplotlib would take for commands become spaces."""
    return r"\mathrm{" + re.sub(r"[^\w.,=+\-()/']|_", r"\\ ", name) + "}"

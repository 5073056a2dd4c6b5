r"""Formulas for more than two states: log-odds of each state against the first."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import softmax

from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.explain.formulas.formula import Formula
from ops_aimmd.explain.formulas.formula_model import formula_model
from ops_aimmd.explain.formulas.front import Front, read_document, write_document

FORMAT = "ops_aimmd fronts 1"


@dataclass(frozen=True, eq=False)
class StateFormulas:
    r"""Formulas :math:`q_i = \ln p_i / p_0` for the states 1, 2, ...; :math:`p = \mathrm{softmax}(0, q_1, q_2, \dots)`."""

    formulas: tuple[Formula, ...]

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of all descriptors that any formula depends on."""
        return tuple(dict.fromkeys(name for formula in self.formulas for name in formula.variables))

    @property
    def sympy(self) -> tuple:
        """The log-odds as sympy expressions."""
        return tuple(formula.sympy for formula in self.formulas)

    def latex(self, digits: int | None = None) -> str:
        """One line of LaTeX for each state but the first."""
        lines = (rf"\ln p_{{{i}}}/p_0 &= {f.latex(digits)}" for i, f in enumerate(self.formulas, start=1))
        return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"

    def committor(self, x) -> np.ndarray:
        """Probability of reaching each state, (n, n_states), for descriptors (n, d)."""
        q = [formula.reaction_coordinate(x) for formula in self.formulas]
        return softmax(np.stack([np.zeros_like(q[0]), *q], axis=1), axis=1)

    def reaction_coordinate(self, x) -> np.ndarray:
        """``ln p_i``, (n, n_states)."""
        return np.log(self.committor(x))

    def to_model(self, fallback=None) -> CommittorModel:
        """A CommittorModel that computes these formulas; see `ops_aimmd.explain.formulas.formula_model.formula_model`."""
        return formula_model(self.formulas, fallback)

    def __str__(self) -> str:
        return "\n".join(f"ln p{i}/p0 = {formula}" for i, formula in enumerate(self.formulas, start=1))


@dataclass(frozen=True, eq=False)
class StateFronts:
    """One `Front` for each state but the first; indexing and iteration give them."""

    fronts: tuple[Front, ...]

    def __len__(self) -> int:
        return len(self.fronts)

    def __getitem__(self, index: int) -> Front:
        return self.fronts[index]

    @property
    def best(self) -> StateFormulas:
        """The formula of each front that its rule picks."""
        return StateFormulas(tuple(front.best for front in self.fronts))

    def pick(self, by: str = "description_length", size: int | None = None) -> StateFormulas:
        """As `Front.pick`, for each front."""
        return StateFormulas(tuple(front.pick(by, size) for front in self.fronts))

    def to_pandas(self):
        """The tables of all fronts below each other, with a column ``state``."""
        tables = [front.to_pandas().assign(state=i) for i, front in enumerate(self.fronts, start=1)]
        return pd.concat(tables, ignore_index=True)

    def to_json(self, path=None) -> str:
        """As JSON text, also written to ``path`` if given."""
        return write_document({"format": FORMAT, "fronts": [json.loads(front.to_json()) for front in self.fronts]}, path)

    @classmethod
    def from_json(cls, text) -> StateFronts:
        """From the text of `to_json` or a `pathlib.Path` to it; nothing in it is executed."""
        fronts = read_document(text, FORMAT)["fronts"]
        return cls(tuple(Front.from_json(json.dumps(front)) for front in fronts))

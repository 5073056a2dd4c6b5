"""What an input is replaced by when its relevance is asked for: another shot's value, its residual, or noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ops_aimmd.committor.input_scaling import InputScaling


class Permutation:
    """Values of another shot: keeps the distribution of the group and cuts its link to everything else.

    Breiman, Machine Learning 45, 5 (2001), doi:10.1023/A:1010933404324. Shots have descriptors x (n, d).
    """

    def __init__(self, x: np.ndarray, rng: np.random.Generator):
        self.x = x
        self.rng = rng

    def draw(self, columns: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        """New values (n, n_columns), and the shot that each row's values come from (n,), None where from none."""
        donors = self.rng.permutation(len(self.x))
        return self.x[np.ix_(donors, columns)], donors


class ConditionalPermutation(Permutation):
    r"""What the other inputs say about the group is kept, and only the rest comes from another shot.

    That rest is the residual of a ridge regression of the group on all other inputs. With the correlation matrix C of the
    inputs and :math:`P = (C + \lambda 1)^{-1}`, the residuals of a group G are :math:`Z P_{\cdot G} (P_{GG})^{-1}` for
    standardised inputs Z, so that one inverse serves all groups. :math:`\lambda = d / n`: d inputs fitted to n shots would
    explain that fraction of anything. Outlying values count as if they lay at the end of the range of `InputScaling`.
    """

    def __init__(self, x, rng):
        super().__init__(x, rng)
        n, d = x.shape
        scaling = InputScaling.of(x)
        self._scale = np.where(scaling.std > 0, scaling.std, 1)
        self._z = (np.clip(x, scaling.lower, scaling.upper) - scaling.mean) / self._scale
        self._precision = np.linalg.inv(self._z.T @ self._z / n + d / n * np.eye(d))

    def residuals(self, columns: Sequence[int]) -> np.ndarray:
        """What the other inputs do not say about these, (n, n_columns), in units of the inputs."""
        within = self._precision[np.ix_(columns, columns)]
        return self._z @ np.linalg.solve(within, self._precision[columns]).T * self._scale[columns]

    def draw(self, columns):
        donors = self.rng.permutation(len(self.x))
        residuals = self.residuals(columns)
        return self.x[:, columns] - residuals + residuals[donors], donors


class Noise(Permutation):
    """Uniform noise over the range of each input in the shots, as in Jung et al. (2023).

    Nat. Comput. Sci. 3, 334 (2023), doi:10.1038/s43588-023-00428-z. It asks the model about configurations that do not
    exist, and favours inputs with a range much wider than their spread.
    """

    def draw(self, columns):
        low, high = self.x[:, columns].min(axis=0), self.x[:, columns].max(axis=0)
        return self.rng.uniform(low, high, size=(len(self.x), len(columns))), None


REPLACEMENTS = {"permutation": Permutation, "conditional": ConditionalPermutation, "noise": Noise}

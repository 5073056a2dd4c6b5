"""Expected transition paths: the predictions before each shot, and the excess that earlier shots have shown.

The committor gives the probability of a transition path, 2 p (1 - p) of two states, for legs that are independent. With
inertia the two legs have opposite velocities and part more often: the model may be right and still expect too few.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

SIGNIFICANT_EXCESS = 2.0
"""Standard errors beyond which more paths than expected among the earlier shots are counted as an excess."""


def expected_paths(table: pd.DataFrame) -> np.ndarray:
    """Probability of a transition path for each shot, with the excess among all shots of earlier steps.

    The excess is the ratio of generated to expected paths, at least 1: too few paths are a fault of the model, which an
    adapted expectation would hide. As it is known before each shot, generated minus expected paths add up like the
    deviations of independent shots.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns step, generated and expected, one row per shot, in any order.

    Returns
    -------
    array, shape (n_rows,)
        NaN where nothing was predicted.
    """
    expected = table["expected"].to_numpy(dtype=float)
    generated = table["generated"].to_numpy(dtype=float)
    known = np.isfinite(expected) & np.isfinite(generated)
    expected_before, generated_before, variance_before = (
        _sum_of_earlier_steps(table["step"].to_numpy(), np.where(known, values, 0.0))
        for values in (expected, generated, expected * (1 - expected))
    )
    significant = generated_before - expected_before > SIGNIFICANT_EXCESS * np.sqrt(variance_before)
    ratio = np.divide(
        generated_before, expected_before, out=np.ones_like(expected), where=significant & (expected_before > 0)
    )
    return np.minimum(ratio * expected, 1.0)


def _sum_of_earlier_steps(steps, values) -> np.ndarray:
    """Sum of the values of all rows of earlier steps, for each row: chains of one run make their steps side by side."""
    _, row = np.unique(steps, return_inverse=True)
    of_step = np.bincount(row, weights=values)
    return (np.cumsum(of_step) - of_step)[row]

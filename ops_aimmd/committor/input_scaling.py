r"""Location and spread of descriptors that a few outlying values cannot change, and where a bound of them begins.

Descriptors may hold values that say nothing of the rest: 1/r at contact, the energy of a clash, 9999 for "not found". The
mean and the standard deviation follow the largest value, however wrong it is. Here the central half of a column gives its
*width* (interquartile range over 1.349, the standard deviation of a normal distribution). Values within `WIDTHS` widths
of the median count as they are, values beyond as if they lay there (winsorised; J. W. Tukey, Ann. Math. Stat. 33, 1 (1962),
doi:10.1214/aoms/1177704711). Where there are none beyond, mean and standard deviation are the usual ones.

If more than `FEW` of the values lie beyond, they are no outliers but a part of the distribution: the second of two far
peaks, or all that ever happens in a column that is zero most of the time. Then their median distance is the width.
"""

from __future__ import annotations

import warnings
from dataclasses import astuple, dataclass

import numpy as np

WIDTHS = 10.0
"""Widths from the median up to which a value counts as it is."""

FEW = 0.05
"""Largest share of values that may be outliers."""

FAR = 100.0
"""Widths from the median from which outliers are worth a warning, and their shots decide nothing when held out.

Student's t with 3 degrees of freedom has one value in a million there.
"""

NORMAL = 1.349
"""Interquartile range of a normal distribution in units of its standard deviation."""

ROUNDING = 1e-13
"""Spread of a constant, in units of its size: some hundred units in the last place of double precision."""

ENOUGH = 20
"""Shots from which their own range counts where frames of legs, which may all lie close to the states, are far more."""

NUMBERS_AT_ONCE = 2**22
"""Larger arrays are taken by parts of their columns, so that copies of them do not fill the memory."""


class OutlyingDescriptorsWarning(UserWarning):
    """Some descriptors lie so far from all others that they hardly count in training."""


@dataclass(frozen=True)
class InputScaling:
    """How columns of descriptors are scaled.

    Attributes
    ----------
    mean, std : array, shape (d,)
        Mean and standard deviation of the winsorised columns; the latter is exactly 0 where a column does not vary.
    lower, upper : array, shape (d,)
        Ends of the range, `WIDTHS` widths to either side of the median, in which values count as they are.
    """

    mean: np.ndarray
    std: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @classmethod
    def of(cls, descriptors: np.ndarray, n_shots: int = 0) -> InputScaling:
        """From data.

        Parameters
        ----------
        descriptors : array, shape (n, d)
            Finite.
        n_shots : int
            The first rows are shots, whose own range, too, counts as it is.
        """
        x = np.asarray(descriptors, dtype=np.float64)
        if x.size > NUMBERS_AT_ONCE and x.shape[1] > 1:
            halves = (astuple(cls.of(half, n_shots)) for half in np.array_split(x, 2, axis=1))
            return cls(*map(np.concatenate, zip(*halves, strict=True)))
        centre, width = _centre_and_width(x)
        lower, upper = centre - WIDTHS * width, centre + WIDTHS * width
        if ENOUGH <= n_shots < len(x):
            of_shots, width_of_shots = _centre_and_width(x[:n_shots])
            lower = np.minimum(lower, of_shots - WIDTHS * width_of_shots)
            upper = np.maximum(upper, of_shots + WIDTHS * width_of_shots)
        varies = upper / 2 - lower / 2 > 0
        unit = np.where(varies, upper / 2 - lower / 2, np.maximum(np.abs(centre), 1.0))
        within = (np.clip(x, lower, upper) - centre) / unit  # squares of values of any size are finite
        mean, std = centre + unit * within.mean(axis=0), unit * within.std(axis=0)
        std = np.where(varies & (std > ROUNDING * np.abs(mean)), std, 0.0)
        return cls(mean, std, np.where(varies, lower, centre - unit), np.where(varies, upper, centre + unit))

    def warn(self, descriptors: np.ndarray, n_shots: int) -> None:
        """Warn of values further than `FAR` widths from the median: their columns, and their rows among the shots.

        They must be as many standard deviations from the mean. A skewed column, such as a cosine near -1, has rare values
        that are far in units of its width and have a meaning.
        """
        far = is_far(descriptors, self.lower, self.upper)
        parts = []
        for column in np.flatnonzero(far.any(axis=0) & (self.std > 0)).tolist():
            with np.errstate(over="ignore"):
                from_mean = np.abs(descriptors[:, column] - self.mean[column])
            rows = np.flatnonzero(far[:, column] & (from_mean > FAR * self.std[column]))
            if not len(rows):
                continue
            shots = rows[rows < n_shots].tolist()
            worst = descriptors[rows[from_mean[rows].argmax()], column]
            part = f"column {column} (up to {worst:.3g}; usual are {self.mean[column]:.3g} +- {self.std[column]:.2g}): "
            where = [f"shots {shots[:10]}" + (f" and {len(shots) - 10} more" if len(shots) > 10 else "")] if shots else []
            where += [f"{len(rows) - len(shots)} frames of legs"] if len(rows) > len(shots) else []
            parts.append(part + ", ".join(where))
        if not parts:
            return
        warnings.warn(
            f"some descriptors lie more than {FAR:g} times the usual spread from all others and hardly count in training: "
            f"{'; '.join(parts[:10])}. Columns and rows count from 0. If these values have no meaning, mend the descriptor",
            OutlyingDescriptorsWarning,
            stacklevel=3,
        )


def is_far(descriptors: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Whether values (n, d) lie further than `FAR` widths from the middle of the range; bool (n, d)."""
    middle, farthest = upper / 2 + lower / 2, FAR / WIDTHS * (upper / 2 - lower / 2)
    n_parts = -(-descriptors.size // NUMBERS_AT_ONCE)
    with np.errstate(over="ignore"):
        parts = [np.abs(rows - middle) > farthest for rows in np.array_split(descriptors, max(n_parts, 1))]
    return np.concatenate(parts)


def _centre_and_width(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median of each column, and the width of what is no outlier; 0 where it does not vary."""
    low, centre, high = np.quantile(x, [0.25, 0.5, 0.75], axis=0)
    width = (high - low) / NORMAL
    with np.errstate(over="ignore"):
        distance = np.abs(x - centre)
    noise = ROUNDING * np.abs(centre)
    for column, of_values in enumerate(distance.T):
        while True:
            constant = width[column] <= noise[column]
            beyond = of_values[of_values > (noise[column] if constant else WIDTHS * width[column])]
            if not len(beyond) or (not constant and len(beyond) <= max(FEW * len(x), 1)):
                break
            width[column] = np.median(beyond)
        width[column] = 0.0 if constant else width[column]
    return centre, width

r"""Autocorrelation times of paths and shots with their intervals, and how many independent ones a run is worth.

The integrated autocorrelation time of a stationary series is :math:`\tau = 1/2 + \sum_{t>0} \rho(t)` steps, so that n steps
are worth :math:`n / (2\tau)` independent samples (A. Sokal, in Functional Integration, NATO ASI B 361, 131 (1997),
doi:10.1007/978-1-4899-0319-8_6). Summing estimated autocorrelations up to a window, with or without a correction for the
subtracted mean (U. Wolff, Comput. Phys. Commun. 156, 143 (2004), doi:10.1016/S0010-4655(03)00467-3), gives a value far too
small where the series is no longer than some tens of :math:`\tau`, with an error that is too small as well.

Here the autocorrelation is that of a reversible Markov chain, a sum of exponentials: one, one beside white noise, or two.
Each such model gets the likelihood of the periodogram, with the periodogram that the model leads to expect in a series of
this length (A. M. Sykulski et al., Biometrika 106, 251 (2019), doi:10.1093/biomet/asy071). The periodogram does not contain
the mean, so that subtracting the mean brings no bias. The posterior over the models gives medians and intervals, and the
mean of the series a distribution with the tails that an uncertain :math:`\tau` brings. Chains add up their likelihoods; the
means of chains that sample the same are the frequency zero of the common series.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy.special import chdtrc, ndtr

from ops_aimmd.committor.correlated_shots import in_time

FEWEST_SAMPLES = 5.0
"""A run is too short to tell where the lower end of the 95 % interval is fewer independent samples than these."""

RATIO = 1.3
"""Ratio of neighbouring relaxation times in models of two exponentials. Those of one exponential beside noise are four
times as dense, those of one alone as dense as the standard error of the best known, sqrt(2 / n) of its value."""

FASTEST, FASTEST_BESIDE_NOISE, SLOWEST_ANTICORRELATED = 0.35, 1.0, 2.0
"""Relaxation times in steps. Towards white noise the autocorrelation at distance 1 goes to 0 in equal steps. Times of
anticorrelated steps end early, as they change tau by less than 1/2."""

SHARES, SHARES_BESIDE_NOISE = np.arange(0.1, 0.95, 0.1), np.arange(0.1, 0.95, 0.025)
"""Share of the slower of two exponentials in the variance."""

PRIOR = np.array([8.0, 3.0, 1.0]) / 12
"""Prior probability of one exponential, of one beside white noise, and of two. Inside each, relaxation times are uniform
in their logarithm up to the length of the series, shares are uniform. Chosen by simulation (the tests of the coverage of
intervals): with more of the last two, uncorrelated values take longer to show that they are; with less, slow parts are
missed."""

RESOLVED = 10_000
"""The grid of models is fine enough for so many values. The likelihood of longer series is flattened to it."""

BIN_WIDTH = 0.15
"""Width in the logarithm of the frequency over which ordinates of the periodogram are averaged; the first ones are not."""


@dataclass(frozen=True)
class Autocorrelation:
    """What a series, or several chains of it, tell about the integrated autocorrelation time.

    Attributes
    ----------
    n : int
        Number of values in all chains.
    mean : float
        Mean of all values.
    taus : array, shape (m,)
        Integrated autocorrelation time of each model in steps, in rising order; a single NaN where the series says nothing,
        as it is constant or shorter than 10.
    weights : array, shape (m,)
        Posterior probabilities of the models.
    variances : array, shape (m,)
        Variance of a mean over all n values, times n, by each model.
    """

    n: int
    mean: float
    taus: np.ndarray
    weights: np.ndarray
    variances: np.ndarray

    def _quantiles(self, *levels: float) -> np.ndarray:
        below = np.cumsum(self.weights) - self.weights / 2
        return np.interp(levels, below, self.taus)

    @cached_property
    def tau(self) -> float:
        """Integrated autocorrelation time in steps (median)."""
        return float(self._quantiles(0.5)[0])

    @cached_property
    def too_short(self) -> bool:
        """Whether the series is too short to tell: it may be worth fewer than `FEWEST_SAMPLES` independent values."""
        return not self.n / (2 * self._quantiles(0.975)[0]) >= FEWEST_SAMPLES

    def tau_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Interval that holds tau with this probability; without an upper end where the series is too short."""
        low, high = self._quantiles((1 - level) / 2, (1 + level) / 2)
        return float(low), np.inf if self.too_short else float(high)

    @property
    def tau_error(self) -> float:
        """Half the length of the 68 % interval; NaN where the series is too short to tell."""
        return _half(self.tau_interval(0.6827))

    @property
    def n_effective(self) -> float:
        """Number of independent values, n / (2 tau)."""
        return self.n / (2 * self.tau)

    def n_effective_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Interval of the number of independent values; from 0 where the series is too short."""
        low, high = self.tau_interval(level)
        return self.n / (2 * high), self.n / (2 * low)

    @property
    def n_effective_error(self) -> float:
        """Half the length of the 68 % interval; NaN where the series is too short to tell."""
        return np.nan if self.too_short else _half(self.n_effective_interval(0.6827))

    def chance(self, deviation: float, n: float | None = None) -> float:
        """Probability that a mean of n values, by default of all, is at least so far from the truth in either direction."""
        return float(2 * self.weights @ ndtr(-abs(deviation) * np.sqrt((n or self.n) / self.variances)))

    def mean_error(self, level: float = 0.6827) -> float:
        """Half the length of the interval around the mean that holds the truth with this probability."""
        from scipy.optimize import brentq  # takes long to import

        largest = 10 * np.sqrt(self.variances.max() / self.n)
        if not np.isfinite(largest) or largest == 0:
            return np.nan
        return float(brentq(lambda d: self.chance(d) - (1 - level), 0, largest, xtol=1e-6 * largest))


def _half(interval: tuple[float, float]) -> float:
    return (interval[1] - interval[0]) / 2 if np.isfinite(interval).all() else np.nan


def integrated_autocorrelation(series, chains=None, steps=None, common_mean: bool = True) -> Autocorrelation:
    """Integrated autocorrelation time of a series, of one chain or several.

    Parameters
    ----------
    series : array-like, shape (n,)
        Values that are not finite are left out.
    chains : array-like, shape (n,), optional
        Chain of each value; without it there is one.
    steps : array-like, shape (n,), optional
        Step of each value; without it values come in the order of time. The order of the chains does not matter.
    common_mean : bool
        Whether the chains sample the same distribution, so that the differences of their means tell about tau.
    """
    return _posterior(_chains(series, chains, steps), common_mean)


def independent_values(values, chains, steps) -> float:
    """Number of independent values, from 1 to n, that n correlated ones are worth.

    Parameters as for :func:`integrated_autocorrelation`. Chains of fewer than 10 values count as one value each, as their
    correlation cannot be told.
    """
    values = np.asarray(values, dtype=float)
    if len(values) == 0 or not np.ptp(values) > 0:
        return float(len(values))
    found = integrated_autocorrelation(values, chains, steps).n_effective
    return float(np.clip(found if np.isfinite(found) else len(np.unique(chains)), 1.0, len(values)))


def chance_of_difference(series, groups, chains, steps=None) -> tuple[float, bool]:
    """Probability that the means of groups differ at least as much, where all groups sample the same distribution.

    Groups (n,) are for example the chains, or the halves of the run: the part of a chain in one group is one series. Other
    parameters as for :func:`integrated_autocorrelation`.

    Returns
    -------
    chance : float
        NaN where there are fewer than two groups or the series says nothing.
    too_short : bool
        Whether the series is too short to tell.
    """
    series, groups = np.asarray(series, dtype=float), np.asarray(groups)
    _, parts = np.unique(np.stack([np.asarray(chains), groups]), axis=1, return_inverse=True)
    within = integrated_autocorrelation(series, np.ravel(parts), steps, common_mean=False)
    known = np.isfinite(series)
    parts = [series[known & (groups == group)] for group in np.unique(groups[known])]
    means = [(len(part), part.mean()) for part in parts]
    if len(means) < 2 or np.isnan(within.tau):
        return np.nan, True
    numbers, means = np.transpose(means)
    squares = numbers @ (means - np.average(means, weights=numbers)) ** 2
    return float(within.weights @ chdtrc(len(means) - 1, squares / within.variances)), within.too_short


def _chains(series, chains, steps) -> list[np.ndarray]:
    series = np.asarray(series, dtype=float)
    if series.ndim != 1:
        raise ValueError(f"an autocorrelation needs one value per step, shape (n,); got shape {series.shape}")
    chains = np.zeros(len(series), dtype=int) if chains is None else np.asarray(chains)
    order = in_time(chains, np.arange(len(series)) if steps is None else steps)
    order = order[np.isfinite(series[order])]
    return np.split(series[order], np.flatnonzero(np.diff(chains[order])) + 1)


# ---- posterior -------------------------------------------------------------------------------------------------------


def _posterior(chains: list[np.ndarray], common_mean: bool) -> Autocorrelation:
    together = np.concatenate(chains)
    n, longest = len(together), max(map(len, chains))
    mean = float(together.mean()) if n else np.nan
    if longest < 10 or not any(np.ptp(chain) for chain in chains if len(chain)):
        nothing = np.array([np.nan])
        return Autocorrelation(n, mean, nothing, np.ones(1), nothing)
    taus, prior = _models(longest)[3:]
    logarithms, powers, variances = np.zeros((3, len(taus)))
    numbers = 0.0
    for chain in chains:
        edges, number, inverse, logarithm, at_zero = _spectra(len(chain), longest)
        periodogram = np.abs(np.fft.rfft(chain - chain.mean())) ** 2 / len(chain)
        if len(edges):
            powers = powers + inverse @ np.add.reduceat(periodogram * _ordinates(len(chain)), edges)
            logarithms = logarithms + logarithm
            numbers = numbers + float(number)
        if common_mean and len(chains) > 1:
            share = (1 - 1 / len(chains)) / 2  # one ordinate of all chains is the mean, which is not known
            powers = powers + len(chain) * (chain.mean() - mean) ** 2 / at_zero / 2
            logarithms = logarithms + share * np.log(at_zero)
            numbers += share
        variances = variances + len(chain) / n * at_zero
    likelihood = -(logarithms + numbers * np.log(powers)) / _excess_of_repeats(chains) / max(n / RESOLVED, 1)
    weights = prior * np.exp(likelihood - likelihood.max())
    likely = weights > 1e-7 * weights.max()
    weights, variances = weights[likely] / weights[likely].sum(), (variances * powers / numbers)[likely]
    return Autocorrelation(n, mean, taus[likely], weights, variances)


def _excess_of_repeats(chains: list[np.ndarray]) -> float:
    r"""Variance of an estimated autocorrelation over that in a Gaussian series, as rejected steps repeat the value before.

    A chain that repeats its value with probability r and else draws an independent normal one has an estimated
    autocorrelation at distance 1 of variance :math:`E[\eta^2 x^2] / n`, with the innovations :math:`\eta`. This is
    :math:`(1 + 3r) / (1 + r)` times that of a Gaussian series of the same autocorrelation. Repeats that independent values
    of few kinds would show are not counted.
    """
    repeats = np.mean(np.concatenate([chain[1:] == chain[:-1] for chain in chains]))
    kinds = np.unique(np.concatenate(chains), return_counts=True)[1]
    by_chance = np.sum((kinds / kinds.sum()) ** 2)
    rejected = max((repeats - by_chance) / (1 - by_chance), 0.0)
    return (1 + 3 * rejected) / (1 + rejected)


def _relaxation(longest: int, ratio: float) -> np.ndarray:
    """Autocorrelations at distance 1 of exponentials: anticorrelated ones, white noise, slower and slower ones."""
    times = np.exp(np.arange(np.log(FASTEST), np.log(longest), np.log(ratio)))
    n_fast = max(round(FASTEST / np.log(ratio)), 1)  # as dense as the first two of the times
    decays = np.concatenate([np.arange(1, n_fast) / n_fast * np.exp(-1 / FASTEST), np.exp(-1 / times)])
    return np.concatenate([-decays[decays < np.exp(-1 / SLOWEST_ANTICORRELATED)][::-1], [0.0], decays])


@lru_cache(maxsize=16)
def _models(longest: int) -> tuple[np.ndarray, ...]:
    """Both autocorrelations at distance 1, share of the second, tau and prior probability of each model, by rising tau."""
    one, two = _relaxation(longest, min(RATIO**0.25, np.exp(np.sqrt(2 / longest)))), _relaxation(longest, RATIO)
    slow = _relaxation(longest, RATIO**0.25)
    slow = slow[slow > np.exp(-1 / FASTEST_BESIDE_NOISE)]
    first, second = np.triu_indices(len(two), 1)
    pairs = (two[second] > 0) & (two[first] != 0)
    families = [
        (one, one, np.ones(1)),
        (np.zeros(len(slow)), slow, SHARES_BESIDE_NOISE),
        (two[first[pairs]], two[second[pairs]], SHARES),
    ]
    columns = [
        (np.repeat(a, len(s)), np.repeat(b, len(s)), np.tile(s, len(a)), np.full(len(a) * len(s), p / (len(a) * len(s))))
        for (a, b, s), p in zip(families, PRIOR, strict=True)
        if len(a)
    ]
    a, b, share, prior = map(np.concatenate, zip(*columns, strict=True))
    tau = 0.5 + (1 - share) * a / (1 - a) + share * b / (1 - b)
    order = np.argsort(tau)
    return a[order], b[order], share[order], tau[order], prior[order]


def _ordinates(n: int) -> np.ndarray:
    """Weight of each ordinate of a periodogram: the mean does not count, the last of an even number of values is real."""
    weights = np.ones(n // 2 + 1)
    weights[0] = 0
    if n % 2 == 0:
        weights[-1] = 0.5
    return weights


@lru_cache(maxsize=16)
def _spectra(n: int, longest: int) -> tuple[np.ndarray, ...]:
    """What the models say of the periodogram of n values.

    Returns
    -------
    edges : int array
        First ordinate of each bin.
    number : float
        Ordinates of all bins.
    inverse : array, shape (m, n_bins)
        1 over the expected periodogram.
    logarithm : array, shape (m,)
        Sum over the ordinates of its logarithm.
    at_zero : array, shape (m,)
        Expected at frequency 0: the variance of the mean, times n.
    """
    a, b, share = _models(longest)[:3]
    last = n // 2
    bins = np.exp(np.arange(np.log(12), np.log(max(last, 12)), BIN_WIDTH))
    edges = np.unique(np.concatenate([np.arange(1, 12), bins]).astype(int))
    edges = edges[edges <= last]
    middle = (edges + np.append(edges[1:], last + 1) - 1) / 2
    angles = 2 * np.pi * np.append(middle, 0.0) / n
    decays, rows = np.unique(np.concatenate([a, b]), return_inverse=True)
    of_decay = _expected_periodogram(decays, angles, n)
    first, second = of_decay[rows[: len(a)]], of_decay[rows[len(a) :]]
    spectrum = (1 - share)[:, None] * first + share[:, None] * second
    number = np.add.reduceat(_ordinates(n), edges) if len(edges) else np.empty(0)
    at_bins = spectrum[:, :-1]
    return edges, number.sum(), 1 / at_bins, np.log(at_bins) @ number, spectrum[:, -1]


def _expected_periodogram(decays, angles, n: int) -> np.ndarray:
    r""":math:`\sum_{|t|<n} (1 - |t|/n) \lambda^{|t|} e^{i \omega t}` at frequencies that are multiples of 2 pi / n."""
    z = decays[:, None] * np.exp(1j * angles)
    left = 1 - decays[:, None] ** n
    return 2 * np.real(1 / (1 - z) - z * left / (n * (1 - z) ** 2)) - 1

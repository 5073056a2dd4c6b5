r"""How many independent paths is a run worth?

The statistical inefficiency :math:`g = 1 + 2 \sum_{t>0} \rho(t)` of a stationary series is the number of MC steps per
independent sample; :math:`\tau = g / 2` is the integrated autocorrelation time. The sum is cut at the first
:math:`M \ge 5 g/2` (Sokal's automatic window), which costs a small bias and gives the relative standard error
:math:`\sqrt{2 (2M + 1) / n}`.

Reference: Sokal, in Functional Integration, NATO ASI B 361, 131 (1997), doi:10.1007/978-1-4899-0319-8_6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WINDOW = 5.0


@dataclass(frozen=True)
class Autocorrelation:
    """Integrated autocorrelation time of a series.

    Attributes
    ----------
    tau : float
        Integrated autocorrelation time ``g / 2`` in steps, so that ``n / (2 tau)`` samples are independent.
    tau_error : float
        Its standard error.
    n : int
        Length of the series.
    """

    tau: float
    tau_error: float
    n: int

    @property
    def n_effective(self) -> float:
        """Number of independent samples."""
        return self.n / (2 * self.tau)


def integrated_autocorrelation(series) -> Autocorrelation:
    """Integrated autocorrelation time of a one-dimensional series.

    Parameters
    ----------
    series : array-like, shape (n,)

    Raises
    ------
    ValueError
        If the series is shorter than 10, not finite, or constant.
    """
    x = np.asarray(series, dtype=float)
    if x.ndim != 1 or len(x) < 10 or not np.isfinite(x).all():
        raise ValueError(f"an autocorrelation needs a finite series of at least 10 values; got shape {x.shape}")
    n = len(x)
    x = x - x.mean()
    if not np.any(x):
        raise ValueError("the series is constant, so its autocorrelation time is not defined (nothing was accepted?)")
    spectrum = np.abs(np.fft.rfft(x, 2 * n)) ** 2
    correlation = np.fft.irfft(spectrum)[:n]
    taus = 0.5 + np.cumsum(correlation[1:] / correlation[0])
    taus = np.concatenate([[0.5], taus])
    inside = np.arange(n) >= WINDOW * taus
    window = int(np.argmax(inside)) if inside.any() else n - 1
    tau = max(float(taus[window]), 0.5)
    return Autocorrelation(tau, tau * np.sqrt(2 * (2 * window + 1) / n), n)

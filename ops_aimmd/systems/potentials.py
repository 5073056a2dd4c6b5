r"""Two-dimensional model potentials, a bath of irrelevant oscillators, and their face towards OPS.

Every potential answers twice: :meth:`Potential.value` and :meth:`Potential.gradient` for many points at once,
and :meth:`Potential.point_value` and :meth:`Potential.point_gradient` for a single one. The second pair
exists because OPS's toy engine asks for one gradient per integration step, where numpy on arrays of two
numbers would cost ten times the arithmetic.

Energies and lengths are in the units in which the potential is usually written; temperatures are kT in the
same units of energy.
"""

from __future__ import annotations

import abc
import dataclasses
import math

import numpy as np
from openpathsampling.engines.toy import PES


class Potential(abc.ABC):
    """A potential energy surface V(x) of ``n_dim`` coordinates, pure numpy.

    Members are frozen dataclasses: the parameters are the fields, and :meth:`to_dict` and
    :func:`potential_from_dict` take them to plain numbers and back.
    """

    n_dim = 2

    @abc.abstractmethod
    def value(self, x):
        """Potential energy (n,) of points (n, n_dim); ValueError for another shape."""

    @abc.abstractmethod
    def gradient(self, x):
        """Gradient dV/dx (n, n_dim) at points (n, n_dim); ValueError for another shape."""

    @abc.abstractmethod
    def point_gradient(self, x):
        """Gradient (n_dim,) at a single point (n_dim,), in a few microseconds; newly allocated."""

    def point_value(self, x):
        """Potential energy of a single point (n_dim,), a float."""
        return float(self.value(np.asarray(x)[None, :])[0])

    def to_dict(self):
        """The potential as a dictionary of plain python values: its kind and its parameters."""
        return {"kind": type(self).__name__, "parameters": dataclasses.asdict(self)}


def _points(x, n_dim):
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] != n_dim:
        raise ValueError(
            f"Got points of shape {x.shape}, expected (n, {n_dim}): one row per point. Write x[None, :] for a single point."
        )
    return x


_MUELLER_BROWN_TERMS = (
    # amplitude, a, b, c, x0, y0 of A exp(a (x-x0)^2 + b (x-x0)(y-y0) + c (y-y0)^2): table 1 of the paper
    (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
    (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
    (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
    (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
)


@dataclasses.dataclass(frozen=True)
class MuellerBrown(Potential):
    r"""The potential of Müller and Brown with its standard parameters, three minima and two saddles.

    .. math:: V(x, y) = \sum_{k=1}^4 A_k \exp[a_k (x-x_k)^2 + b_k (x-x_k)(y-y_k) + c_k (y-y_k)^2]

    References
    ----------
    K. Müller, L. D. Brown, Theor. Chim. Acta 53, 75 (1979), doi:10.1007/BF00547608
    """

    def value(self, x):
        x = _points(x, 2)
        total = 0.0
        for amplitude, a, b, c, x0, y0 in _MUELLER_BROWN_TERMS:
            dx, dy = x[:, 0] - x0, x[:, 1] - y0
            total = total + amplitude * np.exp(a * dx * dx + b * dx * dy + c * dy * dy)
        return total

    def gradient(self, x):
        x = _points(x, 2)
        out = np.zeros(x.shape)
        for amplitude, a, b, c, x0, y0 in _MUELLER_BROWN_TERMS:
            dx, dy = x[:, 0] - x0, x[:, 1] - y0
            term = amplitude * np.exp(a * dx * dx + b * dx * dy + c * dy * dy)
            out[:, 0] += term * (2.0 * a * dx + b * dy)
            out[:, 1] += term * (b * dx + 2.0 * c * dy)
        return out

    def point_gradient(self, x):
        x0, y0 = x.tolist()
        exp = math.exp
        dx1, dx3, dx4 = x0 - 1.0, x0 + 0.5, x0 + 1.0
        dy2, dy3, dy4 = y0 - 0.5, y0 - 1.5, y0 - 1.0
        try:
            e1 = -200.0 * exp(-dx1 * dx1 - 10.0 * y0 * y0)
            e2 = -100.0 * exp(-x0 * x0 - 10.0 * dy2 * dy2)
            e3 = -170.0 * exp(-6.5 * dx3 * dx3 + 11.0 * dx3 * dy3 - 6.5 * dy3 * dy3)
            e4 = 15.0 * exp(0.7 * dx4 * dx4 + 0.6 * dx4 * dy4 + 0.7 * dy4 * dy4)
        except OverflowError:  # a diverged trajectory: numpy answers with inf, as an engine expects
            with np.errstate(all="ignore"):
                return self.gradient(x[None, :])[0]
        return np.array(
            (
                -2.0 * dx1 * e1 - 2.0 * x0 * e2 + (11.0 * dy3 - 13.0 * dx3) * e3 + (1.4 * dx4 + 0.6 * dy4) * e4,
                -20.0 * y0 * e1 - 20.0 * dy2 * e2 + (11.0 * dx3 - 13.0 * dy3) * e3 + (0.6 * dx4 + 1.4 * dy4) * e4,
            )
        )


_SQRT_HALF = math.sqrt(0.5)


@dataclasses.dataclass(frozen=True)
class WolfeQuapp(Potential):
    r"""Wolfe-Quapp potential, doubled and rotated by 45 degrees: two channels between two deep minima.

    .. math:: V = 2 (u^4 + v^4 - 2u^2 - 4v^2 + uv + 0.3u + 0.1v), \quad
              u = (x - y)/\sqrt2, \quad v = (x + y)/\sqrt2

    References
    ----------
    S. Wolfe, H. B. Schlegel, I. G. Csizmadia, F. Bernardi, J. Am. Chem. Soc. 97, 2020 (1975),
    doi:10.1021/ja00841a005; W. Quapp, J. Chem. Phys. 122, 174106 (2005), doi:10.1063/1.1885467
    """

    def value(self, x):
        x = _points(x, 2)
        u, v = _SQRT_HALF * (x[:, 0] - x[:, 1]), _SQRT_HALF * (x[:, 0] + x[:, 1])
        return 2.0 * (u * u * (u * u - 2.0) + v * v * (v * v - 4.0) + u * v + 0.3 * u + 0.1 * v)

    def gradient(self, x):
        x = _points(x, 2)
        u, v = _SQRT_HALF * (x[:, 0] - x[:, 1]), _SQRT_HALF * (x[:, 0] + x[:, 1])
        du = 2.0 * (4.0 * u * (u * u - 1.0) + v + 0.3)
        dv = 2.0 * (4.0 * v * (v * v - 2.0) + u + 0.1)
        out = np.empty(x.shape)
        out[:, 0] = _SQRT_HALF * (dv + du)
        out[:, 1] = _SQRT_HALF * (dv - du)
        return out

    def point_gradient(self, x):
        x0, y0 = x.tolist()
        u, v = _SQRT_HALF * (x0 - y0), _SQRT_HALF * (x0 + y0)
        du = 2.0 * (4.0 * u * (u * u - 1.0) + v + 0.3)
        dv = 2.0 * (4.0 * v * (v * v - 2.0) + u + 0.1)
        return np.array((_SQRT_HALF * (dv + du), _SQRT_HALF * (dv - du)))


@dataclasses.dataclass(frozen=True)
class HummerSzabo(Potential):
    r"""A quartic double well coupled to a harmonic coordinate; the two deep minima lie at -(1, 1) and (1, 1).

    .. math:: V(x, y) = b (x^2 - 1)^2 + b (x - y)^2

    Parameters
    ----------
    b : float
        height of the barrier at (0, 0); default 5.
    """

    b: float = 5.0

    def value(self, x):
        x = _points(x, 2)
        well, coupling = x[:, 0] * x[:, 0] - 1.0, x[:, 0] - x[:, 1]
        return self.b * (well * well + coupling * coupling)

    def gradient(self, x):
        x = _points(x, 2)
        well, coupling = x[:, 0] * x[:, 0] - 1.0, x[:, 0] - x[:, 1]
        out = np.empty(x.shape)
        out[:, 0] = self.b * (4.0 * x[:, 0] * well + 2.0 * coupling)
        out[:, 1] = -2.0 * self.b * coupling
        return out

    def point_gradient(self, x):
        x0, y0 = x.tolist()
        coupling = 2.0 * (x0 - y0)
        return np.array((self.b * (4.0 * x0 * (x0 * x0 - 1.0) + coupling), -self.b * coupling))


@dataclasses.dataclass(frozen=True)
class TwoGaussianWells(Potential):
    r"""Two Gaussian wells at -(0.75, 0.5) and (0.75, 0.5) between steep walls.

    .. math:: V = 0.2\, x^6 + y^6 - A \left[e^{-\alpha |r - r_0|^2} + e^{-\alpha |r + r_0|^2}\right],
              \quad r_0 = (0.75, 0.5)

    Parameters
    ----------
    depth : float
        A > 0; default 0.7.
    alpha : float
        inverse squared width; default 12.
    """

    depth: float = 0.7
    alpha: float = 12.0

    def value(self, x):
        x = _points(x, 2)
        x0, y0 = x[:, 0], x[:, 1]
        x2, y2 = x0 * x0, y0 * y0
        wells = self._well(x0 - 0.75, y0 - 0.5) + self._well(x0 + 0.75, y0 + 0.5)
        return 0.2 * x2 * x2 * x2 + y2 * y2 * y2 - wells

    def _well(self, dx, dy):
        return self.depth * np.exp(-self.alpha * (dx * dx + dy * dy))

    def gradient(self, x):
        x = _points(x, 2)
        x0, y0 = x[:, 0], x[:, 1]
        x2, y2 = x0 * x0, y0 * y0
        right, left = self._well(x0 - 0.75, y0 - 0.5), self._well(x0 + 0.75, y0 + 0.5)
        both, difference = 2.0 * self.alpha * (right + left), 2.0 * self.alpha * (left - right)
        out = np.empty(x.shape)
        out[:, 0] = x0 * (1.2 * x2 * x2 + both) + 0.75 * difference
        out[:, 1] = y0 * (6.0 * y2 * y2 + both) + 0.5 * difference
        return out

    def point_gradient(self, x):
        x0, y0 = x.tolist()
        dx, dy, alpha = x0 - 0.75, y0 - 0.5, self.alpha
        right = math.exp(-alpha * (dx * dx + dy * dy))
        dx, dy = x0 + 0.75, y0 + 0.5
        left = math.exp(-alpha * (dx * dx + dy * dy))
        prefactor = 2.0 * alpha * self.depth
        both, difference = prefactor * (right + left), prefactor * (left - right)
        x2, y2 = x0 * x0, y0 * y0
        return np.array((x0 * (1.2 * x2 * x2 + both) + 0.75 * difference, y0 * (6.0 * y2 * y2 + both) + 0.5 * difference))


@dataclasses.dataclass(frozen=True)
class WithBath(Potential):
    r"""A two-dimensional potential beside a bath of independent harmonic oscillators.

    .. math:: V(x) = V_2(x_1, x_2) + \tfrac12 \sum_i k_i x_{2+i}^2

    Nothing couples the two, so the committor is that of ``core`` and depends on the first two coordinates
    only: the others are what a relevance analysis must reject.

    Parameters
    ----------
    core : Potential
        a potential of two coordinates.
    stiffness : tuple of float
        force constants k_i > 0, one per oscillator.
    """

    core: Potential
    stiffness: tuple

    def __post_init__(self):
        if self.core.n_dim != 2:
            raise ValueError(f"Got a core of {self.core.n_dim} coordinates, expected a potential of two.")
        if not self.stiffness or min(self.stiffness) <= 0.0:
            raise ValueError(
                f"Got force constants {self.stiffness}, expected one or more positive numbers. "
                "Without oscillators use the two-dimensional potential itself."
            )
        # private and derived: the two leading zeros let a single product serve all coordinates
        object.__setattr__(self, "_stiffness", np.array((0.0, 0.0, *self.stiffness)))

    @property
    def n_dim(self):
        """Number of coordinates: two and those of the bath."""
        return 2 + len(self.stiffness)

    def value(self, x):
        x = _points(x, self.n_dim)
        return self.core.value(x[:, :2]) + 0.5 * (x * x) @ self._stiffness

    def gradient(self, x):
        x = _points(x, self.n_dim)
        out = x * self._stiffness
        out[:, :2] = self.core.gradient(x[:, :2])
        return out

    def point_gradient(self, x):
        out = x * self._stiffness
        out[:2] = self.core.point_gradient(x[:2])
        return out

    def to_dict(self):
        return {
            "kind": "WithBath",
            "parameters": {"core": self.core.to_dict(), "stiffness": [float(k) for k in self.stiffness]},
        }


def potential_from_dict(dct):
    """The potential that :meth:`Potential.to_dict` wrote.

    Parameters
    ----------
    dct : dict
        ``{"kind": name of the class, "parameters": its fields}``

    Raises
    ------
    ValueError
        for a kind that this module does not have.
    """
    kinds = {kind.__name__: kind for kind in (MuellerBrown, WolfeQuapp, HummerSzabo, TwoGaussianWells)}
    kind, parameters = dct["kind"], dct["parameters"]
    if kind == "WithBath":
        return WithBath(potential_from_dict(parameters["core"]), tuple(parameters["stiffness"]))
    if kind not in kinds:
        raise ValueError(f"Got a potential of kind {kind!r}, expected one of {sorted(kinds)} or 'WithBath'.")
    return kinds[kind](**parameters)


class PotentialSurface(PES):
    """A :class:`Potential` as the potential energy surface of OPS's toy engine.

    Stored by kind and parameters, so it comes back from netCDF and SimStore files wherever this module has
    been imported before the file is opened.
    """

    def __init__(self, potential):
        super().__init__()
        self.potential = potential

    def V(self, sys):
        """Potential energy of the engine's present positions."""
        return self.potential.point_value(sys.positions)

    def dVdx(self, sys):
        """Gradient (n_dim,) at the engine's present positions."""
        return self.potential.point_gradient(sys.positions)

    def to_dict(self):
        return {"potential": self.potential.to_dict()}

    @classmethod
    def from_dict(cls, dct):
        return cls(potential_from_dict(dct["potential"]))

    def __repr__(self):
        return f"PotentialSurface({self.potential!r})"

r"""Free energies of functions of configurations, :math:`F(z) = -kT \ln P(z)`, from weighted excursions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix

from ops_aimmd.reweighting.excursions import FREE, Excursions
from ops_aimmd.reweighting.rates import kinetics


@dataclass(frozen=True)
class FreeEnergy:
    """Free energy on one or two functions of configurations.

    Attributes
    ----------
    edges : tuple of arrays
        Edges of the bins of each function.
    values : array, shape (b,) or (b, b')
        In kT, 0 at the minimum; inf in bins that were not visited.
    error : array of the same shape
        Standard error, in kT, of -ln of the probability; inf where some replicate of the bootstrap has not visited the bin.
    probability : array of the same shape
        Share of the equilibrium time in each bin.
    """

    edges: tuple[np.ndarray, ...]
    values: np.ndarray
    error: np.ndarray
    probability: np.ndarray


def free_energy(
    excursions: Excursions, weights, repeats, values, bins, internal_values=None, internal_owner=None, factor: float = 1.0
) -> FreeEnergy:
    """Free energy; see `Equilibrium.free_energy`.

    Parameters
    ----------
    weights, repeats : array, shape (1 + r, n)
        Those of the estimate come first, then those of the replicates of the bootstrap.
    factor : float
        Multiplies the errors.

    Raises
    ------
    ValueError
        If the values are not one or two per frame, or not finite.
    """
    values = _columns(values, "values", len(excursions.log_committor))
    edges = tuple(np.asarray(each, dtype=float) for each in (bins if values.shape[1] == 2 else [bins]))
    shape = tuple(len(each) - 1 for each in edges)
    found = kinetics(excursions, weights, repeats)
    size = (int(np.prod(shape)), len(excursions.kind))
    frames = _histogram(values, edges, excursions.owner, excursions.frame_weights, size)
    density = (frames @ weights.T).T * found.scale[:, None]
    if internal_values is not None:
        inside = _columns(internal_values, "internal_values", len(internal_owner))
        owner = np.asarray(internal_owner)
        if (excursions.kind[owner] != FREE).any():
            raise ValueError("internal_owner names excursions that are not of free runs; expected the one that follows")
        for state in range(excursions.n_states):
            rows = excursions.ends[owner, 0] == state
            counts = _histogram(inside[rows], edges, owner[rows], np.ones(rows.sum()), size)
            drawn = repeats[:, owner[rows]].sum(axis=1)
            time = found.departures[:, state] * found.internal[:, state]
            density += (counts @ repeats.T).T * (time / np.maximum(drawn, 1))[:, None]
    with np.errstate(divide="ignore"):
        energy = -np.log(density)
    lowest = energy[0].min()
    replicas = energy[1:]
    seen = np.isfinite(replicas).all(axis=0) & (len(replicas) > 1)
    error = np.full(replicas.shape[1], np.inf)
    error[seen] = replicas[:, seen].std(axis=0, ddof=1) * factor
    return FreeEnergy(edges, (energy[0] - lowest).reshape(shape), error.reshape(shape), density[0].reshape(shape))


def _columns(values, name: str, n: int) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) != n or values.shape[1] not in (1, 2):
        raise ValueError(f"{name} has shape {values.shape}; expected one or two numbers for each of {n} frames")
    bad = np.flatnonzero(np.isnan(values).any(axis=1))
    if len(bad):
        raise ValueError(f"{name} is NaN in {len(bad)} frames, first {bad[:5].tolist()}; leave no frame undefined")
    return values


def _histogram(values, edges, owner, weights, size) -> coo_matrix:
    """Frames of each excursion in each bin, sparse (n_bins, n)."""
    places = [np.searchsorted(each, column, side="right") - 1 for each, column in zip(edges, values.T, strict=True)]
    inside = np.all([(place >= 0) & (place < len(e) - 1) for place, e in zip(places, edges, strict=True)], axis=0)
    bins = np.ravel_multi_index([place[inside] for place in places], [len(e) - 1 for e in edges])
    return coo_matrix((weights[inside], (bins, owner[inside])), shape=size).tocsr()

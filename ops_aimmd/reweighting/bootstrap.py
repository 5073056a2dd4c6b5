"""Block bootstrap: stretches of chains and whole free runs are drawn again, with repetition.

B. Efron, Ann. Stat. 7, 1 (1979), doi:10.1214/aos/1176344552; H. R. Kuensch, Ann. Stat. 17, 1217 (1989),
doi:10.1214/aos/1176347265 (blocks of correlated values).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ops_aimmd.committor.correlated_shots import blocks, length_for_errors, of_few
from ops_aimmd.reweighting.excursions import FREE, Excursions

FEWEST_RUNS = 10
"""With fewer free runs from a state, stretches of them are drawn instead of whole runs ..."""

STRETCHES = 20
"""... in so many stretches, or fewer and longer ones if excursions are correlated for longer."""


@dataclass(frozen=True)
class Blocks:
    """What is drawn again as a whole.

    Attributes
    ----------
    block : int array, shape (n,)
        Block of each excursion.
    stratum : int array, shape (n_blocks,)
        0 for shots; 1 + s for free runs that began in state s. Each stratum keeps its number of blocks.
    """

    block: np.ndarray
    stratum: np.ndarray

    def repeats(self, n_replicates: int, rng: np.random.Generator, only: int | None = None) -> np.ndarray:
        """How often each excursion is drawn, (n_replicates, n); blocks of other strata than `only` once."""
        found = np.ones((n_replicates, len(self.stratum)))
        for stratum in np.unique(self.stratum):
            if only in (None, stratum):
                rows = np.flatnonzero(self.stratum == stratum)
                found[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=n_replicates)
        return found[:, self.block]

    def factor(self) -> float:
        """Factor on errors for the number of blocks of the stratum with the fewest (Student's t)."""
        return of_few(int(np.unique(self.stratum, return_counts=True)[1].min()))


def find_blocks(excursions: Excursions, values: np.ndarray) -> Blocks:
    """Blocks of excursions.

    Parameters
    ----------
    excursions : Excursions
    values : array, shape (n, k)
        What the shots contribute to the estimates: their correlation in time tells how long blocks have to be.
    """
    x = excursions
    block = np.empty(len(x.kind), int)
    strata: list[np.ndarray] = []

    def add(rows, labels, stratum):
        names, numbers = np.unique(labels, return_inverse=True)
        block[rows] = numbers + sum(map(len, strata))
        strata.append(np.full(len(names), stratum))

    shots = np.flatnonzero(x.kind != FREE)
    if len(shots):
        length = length_for_errors(values[shots], x.chain[shots], x.step[shots])
        add(shots, blocks(x.chain[shots], x.step[shots], length), 0)
    free = np.flatnonzero(x.kind == FREE)
    order = free[np.lexsort((x.step[free], x.chain[free]))]
    runs, first = np.unique(x.chain[order], return_index=True)
    start = dict(zip(runs.tolist(), x.ends[order[first], 0].tolist(), strict=True))
    starts = np.array([start[run] for run in x.chain[free].tolist()])
    for state in np.unique(starts):
        rows = free[starts == state]
        labels = x.chain[rows]
        if len(np.unique(labels)) < FEWEST_RUNS:
            length = length_for_errors(values[rows], x.chain[rows], x.step[rows])
            labels = blocks(x.chain[rows], x.step[rows], max(length, len(rows) // STRETCHES, 1))
        add(rows, labels, 1 + state)
    return Blocks(block, np.concatenate(strata))

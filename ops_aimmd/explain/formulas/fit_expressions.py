r"""Which short formula says what the shots say? Symbolic regression of the log-odds under the likelihood of the shots.

Formulas are fitted to the shots, not to the output of a network: they would copy its errors. A network serves for
comparison and, where there are many descriptors, its gradients help to choose among them.

With more than two states, the log-odds :math:`\ln p_i / p_0` of each state against the first are fitted one by one to
the legs that reached either (Begg and Gray 1984, doi:10.1093/biomet/71.1.11).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from numbers import Number

import numpy as np
import torch
from tqdm.auto import tqdm

from ops_aimmd.committor.correlated_shots import in_time
from ops_aimmd.committor.density import pair_log_odds
from ops_aimmd.committor.input_scaling import InputScaling
from ops_aimmd.committor.likelihood import binomial_derivatives
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.training import check_model
from ops_aimmd.committor.training_set import TrainingSet
from ops_aimmd.explain.formulas.constants import Shots
from ops_aimmd.explain.formulas.engines.dcgp import dcgp_search
from ops_aimmd.explain.formulas.engines.operon import import_pyoperon, operon_search
from ops_aimmd.explain.formulas.engines.score_search import ScoreSearch
from ops_aimmd.explain.formulas.expressions import Node
from ops_aimmd.explain.formulas.front import PICKS, Front, make_front
from ops_aimmd.explain.formulas.screening import MOST_INPUTS, screen
from ops_aimmd.explain.formulas.state_fronts import StateFronts
from ops_aimmd.explain.inputs.grouping import check_names, columns_of

ENGINES = ("score", "dcgp", "operon")

SHOTS_IN_SEARCH = (4000, 16000)
"""Shots that the search works on at first, and in its second half; formulas are fitted to all in the end."""

SECONDS_PER_ISLAND, FEWEST_ISLANDS, MOST_ISLANDS, SHARE_OF_ISLANDS = 2.5, 2, 6, 0.55
"""Searches from nothing, one for each so many seconds of the time limit, which together take this share of the search;
then one search goes on from all of them. Greedy growth may take a wrong turn early, but seldom in all."""

AT_ROOT = (0.85, 0.3)
"""Islands in turn mostly add terms to the whole expression, or mostly work within it."""

SHARE_OF_FRONT = 0.15
"""Share of the time limit that is kept for the front."""


def fit_expressions(
    training_set: TrainingSet,
    model: CommittorModel | None = None,
    inputs: Sequence[int] | Sequence[str] | None = None,
    engine: str = "score",
    time_limit: float = 20,
    seed=None,
    names: Sequence[str] | None = None,
    pick: str = "description_length",
    n_candidates: int | None = None,
    progress: bool = True,
) -> Front | StateFronts:
    """Search for short formulas of the committor.

    Parameters
    ----------
    training_set : TrainingSet
        Shots of two or more states; at least two states must have been reached.
    model : CommittorModel, optional
        For comparison, and to help choosing among more than 40 descriptors, of any number of states.
    inputs : sequence of int or str, optional
        Descriptors to search among, by column or name; all by default.
    engine : {"score", "dcgp", "operon"}
        Score-guided search; differentiable Cartesian genetic programming as in Jung et al. 2023; or genetic programming by
        pyoperon, where that is installed, which proposes forms for the other engines' fit of constants.
    time_limit : float
        CPU seconds of this thread (with "operon", which works in a thread of its own: of this process), for the search and
        the making of the front. Of more than two states: for all together.
    seed : int, optional
        Fixes the search, as far as the time limit does not cut it at different points: see ``n_candidates``.
    names : sequence of str, optional
        Names of all descriptors, for instance ``descriptors.names``; x0, x1, ... by default.
    pick : {"description_length", "cross_validation", "1-SE"}
        The rule for ``front.best``.
    n_candidates : int, optional
        Stop the search after this many candidates, which makes it reproducible where the time limit is not reached before.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Front
        Formulas of growing size; of more than two states `StateFronts`, one front for each state but the first.

    Raises
    ------
    ValueError
        For an empty training set, outcomes of one state only, no input that varies, or arguments that do not fit.
    ImportError
        For "operon" without pyoperon 0.4.
    """
    _check(training_set, model, engine, pick, time_limit)
    names = tuple(check_names(names, training_set.n_descriptors, default="x{}"))
    columns = list(dict.fromkeys(columns_of(names if inputs is None else inputs, names)))
    columns = _varying(training_set.descriptors, columns, names)
    tasks = _tasks(training_set)
    fronts = []
    with tqdm(total=math.ceil(time_limit), unit="s", disable=not progress, desc="formulas") as bar:
        for task, (rows, reached, legs) in enumerate(tasks):
            share = time_limit / len(tasks)
            clock = _Clock(bar, share, n_candidates, offset=task * share, whole_process=engine == "operon")
            rng = np.random.default_rng(None if seed is None else [seed, task])
            descriptors = training_set.descriptors[rows]
            shots = Shots(np.ascontiguousarray(descriptors.T[columns]), reached, legs, training_set.chains[rows])
            kept = _screened(shots, columns, model, descriptors, state=task + 1)
            shots = shots.inputs(kept)
            chosen = [columns[k] for k in kept]
            candidates, n_tried = _search(engine, shots, len(columns), rng, clock)
            front = make_front(candidates, shots, chosen, names, descriptors, pick, n_tried, clock.left(1.0))
            if model is not None:
                front = replace(front, network_loss_per_leg=_network_loss(model, descriptors, shots, state=task + 1))
            fronts.append(front)
    return fronts[0] if len(fronts) == 1 else StateFronts(tuple(fronts))


def _check(training_set, model, engine, pick, time_limit) -> None:
    if not isinstance(training_set, TrainingSet):
        raise ValueError(f"expected a TrainingSet, TrainingSet(descriptors, counts); got {type(training_set).__name__}")
    if model is not None:
        check_model(model, training_set)
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {ENGINES}; got {engine!r}")
    if engine == "operon":
        import_pyoperon()
    if pick not in PICKS:
        raise ValueError(f"pick must be one of {PICKS}; got {pick!r}")
    if not (isinstance(time_limit, Number) and time_limit > 0):
        raise ValueError(f"time_limit must be a positive number of seconds; got {time_limit!r}")
    reached = (training_set.counts * training_set.weights[:, None]).sum(axis=0)
    if (reached > 0).sum() < 2:
        raise ValueError(
            f"the {len(training_set)} shots reached {int((reached > 0).sum())} of {training_set.n_states} states, with "
            f"counts {reached.tolist()}: a formula for the committor needs outcomes in at least two; collect more shots"
        )


def _varying(descriptors: np.ndarray, columns: list[int], names: tuple[str, ...]) -> list[int]:
    """The columns that are not constant."""
    chosen = descriptors[:, columns]
    spread, size = np.ptp(chosen, axis=0), np.abs(chosen).max(axis=0)
    varying = [column for column, varies in zip(columns, spread > 1e-9 * size, strict=True) if varies]
    if not varying:
        raise ValueError(f"no input varies over the {len(chosen)} shots: {[names[c] for c in columns[:10]]} are constant")
    return varying


def _tasks(training_set: TrainingSet) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each state but the first: rows of shots that reached it or the first, legs that reached it, legs of both.

    Rows are in time, chain after chain.
    """
    order = in_time(training_set.chains, training_set.steps)
    counts = (training_set.counts * training_set.weights[:, None])[order]
    tasks = []
    for state in range(1, training_set.n_states):
        legs = counts[:, 0] + counts[:, state]
        rows = np.flatnonzero(legs > 0)
        pair = counts[np.ix_(rows, [0, state])]
        if not (pair.sum(axis=0) > 0).all():
            raise ValueError(
                f"no shot reached state {state if pair[:, 1].sum() == 0 else 0}, so its committor has no formula: leave "
                "this state out of the training set, or collect more shots"
            )
        tasks.append((order[rows], pair[:, 1], pair.sum(axis=1)))
    return tasks


class _Clock:
    """Says when to stop, and moves the progress bar."""

    def __init__(self, bar, seconds: float, n_candidates: int | None, offset: float, whole_process: bool):
        self.bar = bar
        self.seconds = seconds
        self.n_candidates = n_candidates
        self.offset = offset
        self.now = time.process_time if whole_process else time.thread_time
        self.start = self.now()

    def left(self, share: float) -> float:
        """Seconds left of a share of the time."""
        return share * self.seconds - (self.now() - self.start)

    def goes_on(self, share: float, n_tried: int, text: str = "") -> bool:
        done = self.offset + self.now() - self.start
        if int(done) > self.bar.n:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(min(int(done), self.bar.total) - self.bar.n)
        enough = self.n_candidates is not None and n_tried >= share * self.n_candidates
        return self.left(share) > 0 and not enough


def _screened(shots: Shots, columns: list[int], model, descriptors: np.ndarray, state: int) -> list[int]:
    """Positions of the inputs that the search begins with."""
    if len(columns) <= MOST_INPUTS:
        return list(range(len(columns)))
    kept = set(screen(shots))
    if model is not None:
        kept |= {columns.index(c) for c in _steepest(model, descriptors, state) if c in columns}
    return sorted(kept)


def _steepest(model: CommittorModel, descriptors: np.ndarray, state: int, n: int = 10) -> list[int]:
    """Descriptors that the model's log-odds of a state depend on most, in units of their standard deviation."""
    rows = descriptors[:: max(len(descriptors) // 2000, 1)]
    x = torch.tensor(rows, device=model.device, requires_grad=True)
    gradient = torch.autograd.grad(pair_log_odds(model.log_committor(x), (0, state)).sum(), x)[0]
    strength = gradient.abs().mean(dim=0).double().cpu().numpy() * InputScaling.of(rows).std
    return np.argsort(strength)[::-1][:n].tolist()


def _network_loss(model: CommittorModel, descriptors: np.ndarray, shots: Shots, state: int) -> float:
    """Loss per leg of the model, on the shots that the formulas of a state are fitted to."""
    q = pair_log_odds(model.log_committor(descriptors), (0, state))
    return float(binomial_derivatives(q, shots.reached, shots.legs)[0].sum() / shots.legs.sum())


def _search(engine: str, shots: Shots, n_inputs: int, rng, clock: _Clock) -> tuple[list[Node], int]:
    if n_inputs == 0:
        return [], 0
    n = len(shots)
    few, more = (shots if n <= m else shots.rows(np.linspace(0, n - 1, m).astype(int)) for m in SHOTS_IN_SEARCH)
    until = 1 - SHARE_OF_FRONT
    if engine == "dcgp":
        return dcgp_search(few, n_inputs, rng, partial(clock.goes_on, until))
    if engine == "operon":
        return operon_search(few, n_inputs, rng, partial(clock.goes_on, until), partial(clock.left, until))
    if engine != "score":
        raise NotImplementedError(f"the engine {engine!r} is in ENGINES, and has no branch in _search")
    search = ScoreSearch(few, n_inputs, rng)
    n_islands = int(np.clip(clock.seconds / SECONDS_PER_ISLAND, FEWEST_ISLANDS, MOST_ISLANDS))
    for island in range(n_islands):
        if island > 0:
            search.start_island()
        share = until * SHARE_OF_ISLANDS * (island + 1) / n_islands
        search.run(lambda n, share=share: clock.goes_on(share, n, search.summary()), AT_ROOT[island % 2], shapes=False)
    search.join_islands()
    if more is not few:
        search = ScoreSearch(more, n_inputs, rng, start_from=search)
    search.run(lambda n: clock.goes_on(until, n, search.summary()))
    return search.archive.candidates(), search.n_tried

"""Free runs: excursions against linear algebra, where a run may end, interruptions, what goes wrong."""

import numpy as np
import openpathsampling as paths
import pytest
from sampling_support import Chain, QuickChain

import ops_aimmd
from ops_aimmd.checkpoint import Checkpoint
from ops_aimmd.runs import FreeRuns, InThisProcess
from ops_aimmd.runs.cut_at_states import OUTSIDE, Stretch, cut, frames_to_keep
from ops_aimmd.systems import toy
from ops_aimmd.systems.markov_chain import MarkovChainEngine, reversible_transition_matrix


class Staying(Chain):
    """It stays in its states for a while, and rarely steps from one into the other."""

    def __init__(self):
        super().__init__()
        conductances = np.diag([1.0, 2, 3, 3, 2, 1], 1)
        conductances[0, 6] = 0.1
        conductances = conductances + conductances.T + np.diag([3, 0.5, 0.2, 0.8, 0.2, 0.5, 2])
        self.engine = MarkovChainEngine(reversible_transition_matrix(conductances), options={"n_frames_max": 5000})


KEEPS = paths.NoModification(as_copy=True)


def run(chain, n_frames=3000, sites=(0, 6), **options):
    options = {"modifier": KEEPS, "seed": 1, "progress": False, **options}
    learner = chain.learner(logits=np.linspace(-3, 3, 7))
    return ops_aimmd.free_runs(list(chain.path(sites)), chain.states, chain.engine, learner, n_frames, **options)


def same(one, other):
    names = ("run", "order", "ends", "length", "descriptors", "offsets", "internal_frames", "internal_owner", "n_frames")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


# ---- cutting ---------------------------------------------------------------------------------------------------------


def stretches_of(states, ends, stride, internal_stride=4):
    """A run in stretches, with the number of each frame as its descriptor."""
    found, outside = [], 0
    for part in np.split(np.arange(len(states)), ends):
        kept = frames_to_keep(states[part], outside, part[0], stride, internal_stride)
        found.append(Stretch(states[part], kept, part[kept, None].astype(np.float32)))
        inside = np.flatnonzero(states[: part[-1] + 1] != OUTSIDE)
        outside = part[-1] - (inside[-1] if len(inside) else -1)
    return found


def cut_by_hand(states, n_frames):
    """Ends, first and last frame + 1, and internal frames of each excursion."""
    entries = [i for i in range(1, len(states)) if states[i] != OUTSIDE and states[i - 1] != states[i]]
    stop = next((i for i in entries if i >= n_frames), np.inf)
    found = []
    for one, another in zip(entries, entries[1:], strict=False):
        if another > stop:
            break
        leaves = next(i for i in range(one, len(states)) if states[i] != states[one])
        found.append(((states[one], states[another]), leaves, another, leaves - one))
    return found, np.isfinite(stop)


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
def test_cut_wherever_segments_end(stride):
    rng = np.random.default_rng(stride)
    states = np.repeat(rng.integers(-1, 2, 300), rng.integers(1, 12, 300)).astype(np.int8)
    ends = np.sort(rng.choice(np.arange(1, len(states)), 20, replace=False))
    for n_frames in (1000, 10_000):
        expected, has_ended = cut_by_hand(states.tolist(), n_frames)
        found, ended = cut(stretches_of(states, ends, stride), n_frames, stride)
        assert ended == has_ended
        assert [(e.ends, e.length, e.internal_frames) for e in found] == [(s, b - a, i) for s, a, b, i in expected]
        for excursion, (_, first, last, _) in zip(found, expected, strict=True):
            kept = np.arange(first + stride // 2, last, stride)
            kept = kept if len(kept) else np.arange(first, last)[(last - first) // 2 :][:1]
            assert np.array_equal(excursion.descriptors[:, 0], kept)


# ---- against linear algebra ------------------------------------------------------------------------------------------


def exact(chain):
    """Excursions from each state per frame, their mean length, mean internal frames; fraction that cross."""
    matrix = chain.engine.transition_matrix
    values, vectors = np.linalg.eig(matrix.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    stationary /= stationary.sum()
    inside = np.isin(np.arange(7), [0, 6])
    steps_outside = np.linalg.inv(np.eye(5) - matrix[np.ix_(~inside, ~inside)])
    crossing = steps_outside @ matrix[~inside][:, 6]
    rows = {}
    for state, site in enumerate((0, 6)):
        leaving = matrix[site].copy()
        leaving[site] = 0
        leaves = leaving.sum()
        first = leaving[~inside] / leaves
        to_six = first @ crossing + leaving[6] / leaves * (site != 6)
        rows[state] = stationary[site] * leaves, first @ steps_outside.sum(axis=1), 1 / leaves, to_six
    return rows


def departures(runs, state):
    """Excursions from a state per frame, and its standard error over runs."""
    frames = np.bincount(runs.run, runs.length + runs.internal_frames, minlength=len(runs.n_frames))
    counts = np.bincount(runs.run, runs.ends[:, 0] == state, minlength=len(runs.n_frames))
    rate = counts.sum() / frames.sum()
    return rate, np.sqrt(np.sum((counts - rate * frames) ** 2)) / frames.sum()


def test_excursions_of_a_chain():
    chain = Staying()
    runs = run(chain, n_frames=1500, sites=[0, 6] * 10, stride=2)
    assert runs.finished.all() and not runs.failed.any()
    assert (runs.n_frames < 1500 + 2 * 500 + 500).all()
    for state, (rate, length, internal, to_six) in exact(chain).items():
        found, error = departures(runs, state)
        assert abs(found - rate) < 3.5 * error
        rows = runs.ends[:, 0] == state
        for values, truth in ((runs.length, length), (runs.internal_frames, internal), (runs.ends[:, 1] == 1, to_six)):
            assert abs(values[rows].mean() - truth) < 3.5 * values[rows].std() / np.sqrt(rows.sum())
    stored = np.diff(runs.offsets)
    assert ((stored > 0) == (runs.length > 0)).all() and (stored <= np.maximum(runs.length, 1)).all()


def test_a_run_that_ends_at_a_fixed_time_loses_long_excursions():
    """The control of the rule by which runs end: short runs, cut at their last entry instead."""
    rng = np.random.default_rng(2)
    matrix = Staying().engine.transition_matrix
    state_of = np.array([0, -1, -1, -1, -1, -1, 1], dtype=np.int8)
    sites = np.zeros((2000, 300), dtype=int)
    for step in range(1, sites.shape[1]):
        sites[:, step] = (rng.random(len(sites))[:, None] > np.cumsum(matrix, axis=1)[sites[:, step - 1]]).sum(axis=1)
    nothing = np.zeros(0, int), np.zeros((0, 1), np.float32)
    right, wrong = (
        [cut([Stretch(states, *nothing)], 40, 1)[0] for states in state_of[sites][:, :end]] for end in (300, 40)
    )
    truth = exact(Staying())[0]
    for found, is_right in ((right, True), (wrong, False)):
        sums = np.array([[sum(e.length for e in run if e.ends[0] == 0), sum(e.ends[0] == 0 for e in run)] for run in found])
        mean = sums[:, 0].sum() / sums[:, 1].sum()
        error = np.sqrt(np.sum((sums[:, 0] - mean * sums[:, 1]) ** 2)) / sums[:, 1].sum()
        assert (abs(mean - truth[1]) < 3.5 * error) == is_right, (mean, truth[1], error)


# ---- files and interruptions -----------------------------------------------------------------------------------------


def test_go_on_after_an_interruption(tmp_path, monkeypatch):
    chain, path = QuickChain(), tmp_path / "free.aimmd"
    whole = run(chain)
    record, calls = Checkpoint.record_step, []

    def stops(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return record(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "record_step", stops)
        with pytest.raises(KeyboardInterrupt):
            run(chain, checkpoint=path)
    partial = FreeRuns.load(path)
    assert not partial.finished.all() and "not come to their end" in str(partial)
    assert same(run(chain, checkpoint=path), whole)
    assert same(FreeRuns.load(path), whole)
    longer = run(chain, n_frames=5000, checkpoint=path)
    assert same(longer, run(chain, n_frames=5000)) and longer.n_frames.sum() > whole.n_frames.sum()


@pytest.mark.parametrize("executors", [[InThisProcess()], pytest.param([InThisProcess(), 2], marks=pytest.mark.slow)])
def test_on_executors(executors):
    system = toy.wolfe_quapp()
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=1)
    path = system.initial_trajectory(1)
    runs = [
        ops_aimmd.free_runs(
            [path[0], path[-1]], system.states, system.engine, learner, 700, executor, seed=3, progress=False
        )
        for executor in (None, *executors)
    ]
    assert all(same(runs[0], other) for other in runs[1:])
    assert runs[0].finished.all() and len(runs[0].length) > 5


def test_what_is_refused(tmp_path):
    chain, path = QuickChain(), tmp_path / "free.aimmd"
    first = run(chain, n_frames=400, checkpoint=path)
    with pytest.raises(ValueError, match="stride 1, this call 2"):
        run(chain, n_frames=400, checkpoint=path, stride=2)
    with pytest.raises(ValueError, match="snapshots"):
        run(chain, n_frames=400, checkpoint=path, sites=[6, 0])
    with pytest.raises(ValueError, match="no snapshots"):
        run(chain, sites=[])
    with pytest.raises(ValueError, match=r"learner\.states"):
        learner = chain.learner(logits=np.linspace(-3, 3, 7))
        ops_aimmd.free_runs(list(chain.path([0])), chain.states[::-1], chain.engine, learner, modifier=KEEPS)
    with Checkpoint.create(tmp_path / "other.aimmd", {}):
        pass
    with pytest.raises(ValueError, match="not free runs"):
        FreeRuns.load(tmp_path / "other.aimmd")
    assert same(run(chain, n_frames=400, checkpoint=path), first)

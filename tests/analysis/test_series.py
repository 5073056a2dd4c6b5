"""The table of the steps: one row per shot, what was expected and what came, for our moves and those of OPS."""

import os

import numpy as np
import openpathsampling as paths
import pandas as pd
import pytest
import torch
from sampling_support import QUICK

from ops_aimmd import CommittorLearner, CommittorModel, CommittorSelector, CommittorShootingScheme, TrainingHook
from ops_aimmd.analysis.series import StepRecorder, step_table
from ops_aimmd.systems.markov_chain import MarkovChainEngine, reversible_transition_matrix, site_indices

COLUMNS = "step accepted generated expected reached frames path_length model_version frozen replica".split()


class Case:
    """A short Markov chain between the states 0 and 5, sampled in one of several ways, with all steps kept."""

    def __init__(self, kind, n_steps, n_frames_max=5000, model=None):
        conductances = np.diag(np.ones(5), 1) + np.diag(np.ones(5), -1) + np.diag([0, 0.5, 0.5, 0.5, 0.5, 0])
        self.engine = MarkovChainEngine(reversible_transition_matrix(conductances), options={"n_frames_max": n_frames_max})
        site = paths.FunctionCV("site", lambda snapshot: snapshot.coordinates[0, 0])
        self.states = [paths.CVDefinedVolume(site, i - 0.5, i + 0.5).named(name) for i, name in ((0, "A"), (5, "B"))]
        self.learner = CommittorLearner(
            lambda path: site_indices(path)[:, None].astype(float), self.states, seed=1, model=model, fit_options=QUICK
        )
        if model is not None:
            self.learner.freeze()
        scheme = getattr(self, kind)(paths.TPSNetwork(*self.states), CommittorSelector(self.learner))
        conditions = scheme.initial_conditions_from_trajectories(self.engine.trajectory(range(6)))
        sampler = paths.PathSampling(None, scheme, conditions)
        sampler.output_stream = open(os.devnull, "w")
        self.steps = []
        sampler.attach_hook(TrainingHook(self.learner))
        recorder = StepRecorder(self.states)
        sampler.attach_hook(recorder)
        sampler.attach_hook(lambda results, **kwargs: self.steps.append(results), hook_for="after_step")
        sampler.run(n_steps)
        self.recorded = recorder.table
        self.table = step_table(self.steps, self.states)

    def two_way(self, network, selector):
        modifier = paths.NoModification(as_copy=True)
        return CommittorShootingScheme(network, self.learner, self.engine, modifier=modifier)

    def one_way(self, network, selector):
        return CommittorShootingScheme(network, self.learner, self.engine, "one-way")

    def stock_one_way(self, network, selector):
        return paths.OneWayShootingMoveScheme(network, selector, engine=self.engine)

    def stock_two_way(self, network, selector):
        modifier = paths.NoModification(as_copy=True)
        scheme = paths.MoveScheme(network)
        scheme.append(paths.strategies.TwoWayShootingStrategy(modifier, selector, engine=self.engine))
        scheme.append(paths.strategies.OrganizeByMoveGroupStrategy())
        return scheme

    def with_reversal(self, network, selector):
        scheme = self.two_way(paths.TPSNetwork.from_states_all_to_all(self.states), selector)
        scheme.append(paths.strategies.PathReversalStrategy())
        return scheme

    @property
    def trials(self):
        return [step.change.canonical.trials[0].trajectory for step in self.steps]

    def joins(self, trial):
        return {site_indices(trial)[0], site_indices(trial)[-1]} == {0, 5}


@pytest.fixture(scope="module", params=["two_way", "one_way", "stock_one_way", "stock_two_way"])
def case(request):
    return Case(request.param, 40)


def test_recorder_and_table_agree(case):
    pd.testing.assert_frame_equal(case.recorded, case.table)
    assert list(case.table.columns) == COLUMNS
    assert case.table["step"].tolist() == list(range(1, 41))


def test_generated_accepted_and_lengths_are_those_of_the_steps(case):
    assert case.table["generated"].tolist() == [case.joins(trial) for trial in case.trials]
    assert 0 < case.table["generated"].sum() < 40
    assert case.table["accepted"].tolist() == [step.change.canonical.accepted for step in case.steps]
    assert not (case.table["accepted"] & ~case.table["generated"]).any()
    assert case.table["path_length"].tolist() == [len(step.active[0].trajectory) for step in case.steps]


def test_frames_are_the_new_ones(case):
    for frames, step, trial in zip(case.table["frames"], case.steps, case.trials, strict=True):
        old = step.change.canonical.details.initial_trajectory
        known = {s.__uuid__ for s in old} | {s.__uuid__ for s in old.reversed}
        new = sum(snapshot.__uuid__ not in known for snapshot in trial)
        # two-way shooting points are copies with other velocities
        two_way = hasattr(step.change.canonical.mover, "modifier") and new == len(trial)
        assert frames == new - two_way


def test_expected_is_what_the_prediction_promises():
    table = (case := Case("two_way", 30)).table
    predicted = np.array([step.change.canonical.details.predicted_committor for step in case.steps])
    assert np.allclose(table["expected"], 2 * predicted[:, 0] * predicted[:, 1])

    table = (case := Case("one_way", 30)).table
    for expected, step in zip(table["expected"], case.steps, strict=True):
        details = step.change.canonical.details
        forward = details.leg_lengths[0] == 0
        assert np.isclose(expected, details.predicted_committor[1 if forward else 0])


@pytest.mark.parametrize("kind", ["stock_one_way", "stock_two_way"])
def test_where_nothing_was_predicted_nothing_is_expected(kind):
    table = Case(kind, 5).table
    assert table[["expected", "model_version", "frozen"]].isna().all().all()


class ExactLogOdds(torch.nn.Module):
    """The committor of the chain as a network: log-odds of site i of a birth-death chain of equal links, p_B = i / 5."""

    def forward(self, x):
        return torch.logit(x / 5.0)


def test_what_an_exact_committor_promises_comes_about():
    """A sum of independent trials, of known probabilities: within 4 standard deviations."""
    table = Case("two_way", 200, model=CommittorModel(ExactLogOdds(), n_descriptors=1)).table
    variance = (table["expected"] * (1 - table["expected"])).sum()
    assert abs(table["generated"].sum() - table["expected"].sum()) < 4 * np.sqrt(variance)
    assert (table["frozen"] == 1).all()


def test_trials_that_hit_the_length_limit_are_rows():
    for kind in ("two_way", "one_way", "stock_one_way", "stock_two_way"):
        case = Case(kind, 40, n_frames_max=8)
        cut = [getattr(s.change.canonical.details, "stopping_reason", "") == "max_length" for s in case.steps]
        assert 0 < sum(cut) and len(case.table) == 40
        assert not case.table["accepted"][cut].any()
        assert (case.table["frames"][cut] >= 1).all()
        if not kind.startswith("stock"):  # there the limit is that of a leg
            assert (case.table["path_length"] <= 8).all()


def test_moves_that_are_no_shots_are_no_rows():
    case = Case("with_reversal", 40)
    names = [type(step.change.canonical.mover).__name__ for step in case.steps]
    assert case.table["step"].tolist() == [i + 1 for i in range(40) if names[i] == "ShootingMover"]
    assert 0 < len(case.table) < 40


def test_an_empty_table_has_its_columns():
    assert list(step_table([], []).columns) == COLUMNS
    assert list(StepRecorder([]).table.columns) == COLUMNS

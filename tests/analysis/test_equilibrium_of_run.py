"""Rates and free energies of a run through OPS, where linear algebra knows them."""

import contextlib
import io
import os
from dataclasses import replace

import numpy as np
import openpathsampling as paths
import pytest
from exact_markov_chains import committor
from sampling_support import Chain
from scipy.special import logit

import ops_aimmd
from ops_aimmd.reweighting import reweight
from ops_aimmd.systems.markov_chain import MarkovChainEngine, reversible_transition_matrix


class NoVelocities(ops_aimmd.BoltzmannVelocities):
    """Fresh velocities for frames that have none."""

    def __init__(self):
        super(ops_aimmd.BoltzmannVelocities, self).__init__()

    def __call__(self, snapshot):
        return snapshot.copy()

    def to_dict(self):
        return {}

    @classmethod
    def from_dict(cls, dct):
        return cls()


class Hilly(Chain):
    """A barrier between states that are seldom left."""

    def __init__(self):
        super().__init__()
        conductances = np.diag([1.0, 0.3, 0.1, 0.15, 0.4, 2], 1)
        conductances = conductances + conductances.T + np.diag([30, 1, 0.3, 0.1, 0.2, 1, 80])
        self.engine = MarkovChainEngine(reversible_transition_matrix(conductances), options={"n_frames_max": 5000})
        self.committor = committor(self.engine.transition_matrix, [[0], [6]])[:, 1]

    def exact_rates(self):
        """From A to B and from B to A, per frame."""
        matrix, p = self.engine.transition_matrix, self.committor
        values, vectors = np.linalg.eig(matrix.T)
        stationary = np.real(vectors[:, np.argmax(np.real(values))])
        stationary /= stationary.sum()
        flux = stationary[0] * (matrix[0] @ p)
        return np.array([flux / (stationary @ (1 - p)), flux / (stationary @ p)])


def sampled(folder, n_steps, n_frames, seed, max_length=None):
    """A frozen run with the exact committor in an OPS file, its learner, its steps, and free runs."""
    chain = Hilly()
    learner = chain.learner(logits=logit(np.clip(chain.committor, 1e-4, 1 - 1e-4)), seed=seed)
    learner.freeze()
    modifier, path = NoVelocities(), folder / f"run_{seed}.nc"
    scheme = chain.scheme(learner, modifier=modifier, max_length=max_length)
    storage = paths.Storage(str(path), "w")
    with contextlib.redirect_stdout(io.StringIO()):
        start = scheme.initial_conditions_from_trajectories(chain.initial())
    sampler = paths.PathSampling(storage, scheme, start)
    sampler.attach_hook(ops_aimmd.TrainingHook(learner))
    with open(os.devnull, "w") as sampler.output_stream:
        sampler.run(n_steps)
    storage.close()
    runs = ops_aimmd.free_runs(
        list(chain.path([0, 6] * 6)),
        chain.states,
        chain.engine,
        learner,
        n_frames,
        seed=seed,
        progress=False,
        modifier=modifier,
    )
    return chain, learner, path, runs


def deviations(estimate, chain):
    return np.log(estimate.rates[[0, 1], [1, 0]] / chain.exact_rates())


def test_rates_from_a_file(tmp_path):
    chain, learner, path, runs = sampled(tmp_path, 90, 1200, seed=1, max_length=60)
    found = ops_aimmd.equilibrium(path, free_runs=runs, learner=learner, discard=20, progress=False, fewest=1)
    x, states = found.estimate.excursions, learner.states
    with contextlib.closing(paths.Storage(str(path), "r")) as storage:
        n_steps = len(storage.steps) - 21
        for row in range(0, n_steps, 5):
            step = storage.steps[row + 21]
            change = step.change.canonical
            trial, details = change.trials[0].trajectory, change.details
            sites = np.asarray(chain.site(trial)).ravel()
            assert x.log_selection_probability[row] == np.log(details.selection_probability_old)
            assert x.ends[row].tolist() == list(details.leg_outcomes) and x.step[row] == step.mccycle
            assert x.limit[row] == 58
            if min(details.leg_outcomes) >= 0:
                assert all(state_of(sites[end], states) >= 0 for end in (0, -1)) and x.length[row] == len(sites) - 2
                mine = slice(x.offsets[row], x.offsets[row + 1])
                assert np.allclose(np.exp(x.log_committor[mine, 1]), chain.committor[sites[1:-1].astype(int)], atol=2e-4)
    assert (x.kind[:n_steps] == "shot").all() and (x.kind[n_steps:] == "free").all()
    rates = found.rates
    assert rates["from"].tolist() == ["A", "B"] and (rates.low < rates.rate).all() and (rates.rate < rates.high).all()
    errors = (rates.error / rates.rate).to_numpy()
    assert (abs(deviations(found.estimate, chain)) < 4 * errors).all() and (errors < 1).all()
    assert "k(A -> B)" in str(found)
    energy = found.free_energy("q", bins=6)
    assert np.nanmin(energy.values) == 0


def state_of(site, states):
    return {0: 0, 6: 1}.get(int(site), -1)


@pytest.mark.slow
def test_rates_are_right_and_need_the_selection_probability(tmp_path):
    right, wrong, errors = [], [], []
    for seed in range(10):
        chain, learner, path, runs = sampled(tmp_path, 820, 1500, seed)
        found = ops_aimmd.equilibrium(path, free_runs=runs, learner=learner, discard=20, progress=False)
        right.append(deviations(found.estimate, chain))
        errors.append(found.estimate.log_error("rates")[[0, 1], [1, 0]])
        taken_for_equilibrium = replace(
            found.estimate.excursions,
            log_selection_probability=np.zeros(len(found.estimate.excursions.kind)),
        )
        wrong.append(deviations(reweight(taken_for_equilibrium, transitions=[(0, 1)]), chain))
    spread = np.std(right, axis=0, ddof=1)
    assert (abs(np.mean(right, axis=0)) < 2.5 * spread / np.sqrt(10)).all()
    assert (spread / np.mean(errors, axis=0) < 2).all() and (spread / np.mean(errors, axis=0) > 0.5).all()
    assert (abs(np.mean(wrong, axis=0)) > 2.5 * np.std(wrong, axis=0, ddof=1) / np.sqrt(10)).any(), "the control"


def test_what_is_refused(tmp_path):
    chain, learner, path, runs = sampled(tmp_path, 5, 300, seed=2)
    with pytest.raises(ValueError, match="free_runs"):
        ops_aimmd.equilibrium(path, learner=learner)
    with pytest.raises(ValueError, match="checkpoint"):
        ops_aimmd.equilibrium(path, free_runs=runs)
    with pytest.raises(ops_aimmd.reweighting.TooFewExcursions):
        ops_aimmd.equilibrium(path, free_runs=runs, learner=learner, progress=False)
    with pytest.raises(ValueError, match="no two-way shots"):
        ops_aimmd.equilibrium(path, free_runs=runs, learner=learner, discard=10, progress=False)
    other = replace(runs, state_names=("A", "C"))
    with pytest.raises(ValueError, match="free runs have states"):
        ops_aimmd.equilibrium(path, free_runs=other, learner=learner, progress=False)
    broken = replace(runs, failed=np.arange(len(runs.failed)) == 3)
    with pytest.raises(ValueError, match=r"\[3\] broke off"):
        ops_aimmd.equilibrium(path, free_runs=broken, learner=learner, progress=False)

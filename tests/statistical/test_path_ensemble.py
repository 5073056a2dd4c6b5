"""The path ensemble does not depend on the model: uniform, good, wrong and learning models sample the same paths.

A toy potential with inertia, whose paths have 10 to 60 frames. The integrator is exactly time-reversible whatever the time
step, so that the paths of any right sampler are those that unguided dynamics makes by itself. These are the reference, and
independent starts: many short chains that begin in the right ensemble must stay there, each an independent trial.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import openpathsampling as paths
import pytest
import torch
from exact_support import AGREES, DISAGREES, CommittorSelectorWithoutRatio, WithoutRatio, seed_everything
from openpathsampling.beta.hooks import PathSimulatorHook
from openpathsampling.engines import toy as ops_toy
from openpathsampling.engines.delayedinterrupt import EmptyContext

from ops_aimmd import (
    BoltzmannVelocities,
    CommittorLearner,
    CommittorModel,
    CommittorSelector,
    CommittorShootingScheme,
    TrainingHook,
)
from ops_aimmd.committor import CommittorDensity
from ops_aimmd.committor.model_version import ModelVersion
from ops_aimmd.sampling import ShootingMover
from ops_aimmd.systems import toy
from ops_aimmd.systems.potentials import HummerSzabo, PotentialSurface

KT, FRICTION, TIME_STEP = 1.0, 3.0, 0.15
RADIUS = 0.3

N_CHAINS = 40
QUICK, CONTROL, LONG = 40, 60, 300
"""Steps of each chain; integrated autocorrelation times are 4 to 14 steps."""


# ---- dynamics -------------------------------------------------------------------------------------------------------


def metropolized_langevin(potential, x, v, rng):
    r"""One step of Langevin dynamics for many copies, unit masses.

    Half a step of friction and noise, a velocity Verlet step that is accepted with probability min[1, exp(-dH/kT)] and
    otherwise reverses the velocity, and the other half. It obeys :math:`\rho(z) P(z \to z') = \rho(Rz') P(Rz' \to Rz)`
    with R the reversal of the velocities, exactly (Lelièvre, Rousset, Stoltz, Free Energy Computations, 2010, chapter 2,
    doi:10.1142/p579): the backward leg of a shot is as probable as if it had been run forward.

    Parameters
    ----------
    potential : Potential
    x, v : array, shape (n, 2)
    rng : numpy.random.Generator, or numpy.random for its global generator
    """
    keep = np.exp(-0.5 * FRICTION * TIME_STEP)
    noise = np.sqrt((1.0 - keep**2) * KT)
    v = keep * v + noise * rng.standard_normal(v.shape)
    half = v - 0.5 * TIME_STEP * potential.gradient(x)
    x_new = x + TIME_STEP * half
    v_new = half - 0.5 * TIME_STEP * potential.gradient(x_new)
    kinetic = 0.5 * (v_new**2).sum(axis=1) - 0.5 * (v**2).sum(axis=1)
    dH = potential.value(x_new) - potential.value(x) + kinetic
    accepted = (rng.random(len(x)) < np.exp(-np.maximum(dH, 0.0) / KT))[:, None]
    x, v = np.where(accepted, x_new, x), np.where(accepted, v_new, -v)
    return x, keep * v + noise * rng.standard_normal(v.shape)


class MetropolizedLangevinIntegrator(ops_toy.LeapfrogVerletIntegrator):
    """The same for OPS's toy engine on the potential of Hummer and Szabo, in plain numbers, a tenth of the time."""

    keep = math.exp(-0.5 * FRICTION * TIME_STEP)
    noise = math.sqrt((1.0 - keep**2) * KT)

    def __init__(self, dt):
        super().__init__(dt)
        self.temperature = KT

    def step(self, sys):
        x, y = sys.positions.tolist()
        u, v = sys.velocities.tolist()
        b = sys.pes.potential.b
        random_u, random_v = np.random.standard_normal(2).tolist()  # noqa: NPY002
        u, v = self.keep * u + self.noise * random_u, self.keep * v + self.noise * random_v
        well, coupling = x * x - 1.0, x - y
        energy = b * (well * well + coupling * coupling) + 0.5 * (u * u + v * v)
        half_u = u - 0.5 * TIME_STEP * b * (4.0 * x * well + 2.0 * coupling)
        half_v = v + 0.5 * TIME_STEP * b * 2.0 * coupling
        x_new, y_new = x + TIME_STEP * half_u, y + TIME_STEP * half_v
        well, coupling = x_new * x_new - 1.0, x_new - y_new
        u_new = half_u - 0.5 * TIME_STEP * b * (4.0 * x_new * well + 2.0 * coupling)
        v_new = half_v + 0.5 * TIME_STEP * b * 2.0 * coupling
        dH = b * (well * well + coupling * coupling) + 0.5 * (u_new * u_new + v_new * v_new) - energy
        if np.random.random() < math.exp(-max(dH, 0.0) / KT):  # noqa: NPY002
            x, y, u, v = x_new, y_new, u_new, v_new
        else:
            u, v = -u, -v
        random_u, random_v = np.random.standard_normal(2).tolist()  # noqa: NPY002
        sys.positions = np.array([x, y])
        sys.velocities = np.array([self.keep * u + self.noise * random_u, self.keep * v + self.noise * random_v])


class Wells:
    """OPS objects for two wells with a barrier of 3 kT, and transition paths of unguided dynamics."""

    def __init__(self):
        self.potential = HummerSzabo(3.0)
        topology = ops_toy.Topology(n_spatial=2, masses=[1.0, 1.0], pes=PotentialSurface(self.potential))
        options = {"integ": MetropolizedLangevinIntegrator(TIME_STEP), "n_frames_max": 1000, "n_steps_per_frame": 1}
        self.engine = ops_toy.Engine(options, topology)
        self.engine.interrupter = EmptyContext  # to delay an interrupt costs as much as a step
        self.states = [
            paths.CVDefinedVolume(toy.ToyDistance(f"distance to {name}", [c, c]), 0.0, RADIUS).named(f"{name} of wells")
            for name, c in (("A", -1.0), ("B", 1.0))
        ]
        self.descriptors = toy.ToyCoordinates("coordinates of wells")
        self.network = paths.TPSNetwork(*self.states)
        self.ensemble = self.network.sampling_ensembles[0]
        self.natural_paths = self._natural_paths(n_copies=400, n_frames=12_000)
        self.median_length = int(np.median([len(path) for path in self.natural_paths]))
        self.reference = np.array([self.observables(path) for path in self.natural_paths])

    def _natural_paths(self, n_copies, n_frames):
        """Transition paths, as arrays (n_frames, 2), of copies that started in A; B->A turned round."""
        rng = np.random.default_rng(1)
        x, v = np.full((n_copies, 2), -1.0), rng.standard_normal((n_copies, 2))
        frames = np.empty((n_frames, n_copies, 2), dtype=np.float32)
        for frame in frames:
            x, v = metropolized_langevin(self.potential, x, v, rng)
            frame[:] = x
        in_a, in_b = (((frames - c) ** 2).sum(axis=2) < RADIUS**2 for c in (-1.0, 1.0))
        found = []
        for copy in range(n_copies):
            inside = np.flatnonzero(in_a[:, copy] | in_b[:, copy])
            left = np.flatnonzero(in_a[inside[:-1], copy] != in_a[inside[1:], copy])
            for first, last in zip(inside[left], inside[left + 1], strict=True):
                path = frames[first : last + 1, copy]
                found.append(path if in_a[first, copy] else path[::-1])
        return found

    def observables(self, x):
        """Length and density of a path (n_frames, 2): frames, whether short, and frames in five regions."""
        along, across = x.sum(axis=1) / 2, np.abs(x[:, 0] - x[:, 1])
        regions = np.bincount(np.digitize(along, [-0.5, 0.0, 0.5]), minlength=4)
        return [len(x), len(x) <= self.median_length, *regions, (across > 0.5).sum()]

    def natural_trajectory(self, which):
        """A path of unguided dynamics for OPS, without its velocities, which two-way shooting does not use."""
        still = np.zeros((1, 2))
        snapshots = [
            ops_toy.Snapshot(coordinates=x[None].astype(float), velocities=still, engine=self.engine)
            for x in self.natural_paths[which]
        ]
        return paths.Trajectory(snapshots)

    def mover(self, selector):
        return ShootingMover(self.ensemble, selector, self.states, BoltzmannVelocities(self.engine), self.engine)


NAMES = ["length", "short", "near A", "before the barrier", "behind it", "near B", "off the line between the states"]


@pytest.fixture(scope="module")
def wells():
    return Wells()


def test_plain_numbers_are_the_same_dynamics(wells):
    """The engine and the many copies, with the same random numbers; among the steps some are rejected."""
    x, v = np.array([[-1.0, -0.5]]), np.array([[1.0, -0.5]])
    wells.engine.current_snapshot = ops_toy.Snapshot(coordinates=x, velocities=v, engine=wells.engine)
    n_rejected = 0
    for step in range(200):
        seed_everything(step)
        before = x
        x, v = metropolized_langevin(wells.potential, x, v, np.random)
        n_rejected += np.array_equal(x, before)
        seed_everything(step)
        frame = wells.engine.generate_next_frame()
        np.testing.assert_allclose(frame.coordinates, x, atol=1e-9)
        np.testing.assert_allclose(frame.velocities, v, atol=1e-9)
    assert 0 < n_rejected < 50


def coordinates(trajectory):
    return np.array([snapshot.coordinates[0] for snapshot in trajectory])


# ---- models ---------------------------------------------------------------------------------------------------------


class GoodLogOdds(torch.nn.Module):
    """Rises along the line between the states."""

    def forward(self, x):
        return 2.0 * x.sum(dim=1, keepdim=True)


class WrongLogOdds(torch.nn.Module):
    """Falls towards B, and its transition state lies close to A and sideways."""

    def forward(self, x):
        return -3.0 * x[:, :1] + 3.0 * x[:, 1:] - 2.5 - 2.0 * x.sum(dim=1, keepdim=True)


def fixed_learner(wells, network):
    """A learner with a model and the density of unguided paths under it, as it would be in a long run."""
    model = CommittorModel(network, n_descriptors=2, n_states=2)
    learner = CommittorLearner(wells.descriptors, wells.states, model=model)
    frames = np.concatenate([path[1:-1] for path in wells.natural_paths[:100]])
    density = CommittorDensity.from_frames(model.log_committor(frames), np.ones(len(frames)), uniform_weight=20.0)
    learner.publish(replace(learner.learned, version=ModelVersion(0, model.frozen_copy(), density)))
    learner.freeze()
    return learner


class UniformWithoutRatio(WithoutRatio, paths.UniformSelector):
    """Wrong on purpose."""


SELECTORS = {
    "uniform": lambda wells: paths.UniformSelector(),
    "good model": lambda wells: CommittorSelector(fixed_learner(wells, GoodLogOdds())),
    "wrong model": lambda wells: CommittorSelector(fixed_learner(wells, WrongLogOdds())),
}

SELECTORS_WITHOUT_RATIO = {
    "uniform": lambda wells: UniformWithoutRatio(),
    "good model": lambda wells: CommittorSelectorWithoutRatio(fixed_learner(wells, GoodLogOdds())),
    "wrong model": lambda wells: CommittorSelectorWithoutRatio(fixed_learner(wells, WrongLogOdds())),
}


# ---- sampling -------------------------------------------------------------------------------------------------------


def sample(wells, mover, n_steps, seed):
    """Observables of the path after each step of a mover, accepted or not: (N_CHAINS, n_steps, n_observables)."""
    seed_everything(seed)
    chains = []
    for chain in range(N_CHAINS):
        sample_set = paths.SampleSet([paths.Sample(0, wells.natural_trajectory(chain), wells.ensemble)])
        current, series = wells.observables(wells.natural_paths[chain]), []
        for _ in range(n_steps):
            change = mover.move(sample_set)
            sample_set = sample_set.apply_samples(change.results)
            if change.accepted:
                current = wells.observables(coordinates(sample_set[0].trajectory))
                sample_set[0].parent = None  # OPS's samples remember all their ancestors
            series.append(current)
        chains.append(series)
    return np.array(chains, dtype=float)


class Recorder(PathSimulatorHook):
    """Keeps the observables of the current path of each step."""

    implemented_for = ["after_step"]

    def __init__(self, wells):
        super().__init__()
        self.wells = wells
        self.series = []

    def after_step(self, sim, step_number, step_info, state, results, hook_state):
        (current,) = results.active
        self.series.append(self.wells.observables(coordinates(current.trajectory)))
        current.parent = None


def sample_while_learning(wells, n_steps, seed, directory, selector_class=CommittorSelector):
    """One long run as users make it, cut into N_CHAINS pieces.

    The trainings are short, for they are many and what they learn is not the claim.
    """
    options = {"max_epochs": 10, "auxiliary_weights": (0.0, 0.0), "relevance": None}
    learner = CommittorLearner(wells.descriptors, wells.states, seed=seed, fit_options=options)
    scheme = CommittorShootingScheme(wells.network, learner, wells.engine, selector=selector_class(learner))
    start = scheme.initial_conditions_from_trajectories(wells.natural_trajectory(0))
    sampler = paths.PathSampling(storage=None, move_scheme=scheme, sample_set=start)
    recorder = Recorder(wells)
    sampler.attach_hook(TrainingHook(learner))
    sampler.attach_hook(recorder)
    with open(directory / "progress", "w") as sampler.output_stream:
        sampler.run(N_CHAINS * n_steps)
    assert learner.version.number > 20
    return np.array(recorder.series[-N_CHAINS * n_steps :], dtype=float).reshape(N_CHAINS, n_steps, -1)


def deviations(wells, chains):
    """Standard errors between the means of a run and those of unguided dynamics, from independent chains."""
    means = chains.mean(axis=1)
    variance = means.var(axis=0, ddof=1) / N_CHAINS + wells.reference.var(axis=0, ddof=1) / len(wells.reference)
    z = (means.mean(axis=0) - wells.reference.mean(axis=0)) / np.sqrt(variance)
    return {name: round(float(value), 2) for name, value in zip(NAMES, z, strict=True)}


def assert_same_ensemble(wells, chains):
    z = deviations(wells, chains)
    assert max(map(abs, z.values())) < AGREES, f"not the path ensemble; standard errors: {z}"


def assert_another_ensemble(wells, chains):
    z = deviations(wells, chains)
    assert max(map(abs, z.values())) > DISAGREES, f"this mistake was not found out; standard errors: {z}"


@pytest.mark.parametrize("n_steps", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "model",
    [pytest.param("uniform", marks=pytest.mark.slow), pytest.param("good model", marks=pytest.mark.slow), "wrong model"],
)
def test_fixed_models(wells, model, n_steps):
    assert_same_ensemble(wells, sample(wells, wells.mover(SELECTORS[model](wells)), n_steps, seed=1))


@pytest.mark.parametrize("model", ["wrong model", pytest.param("uniform", marks=pytest.mark.slow)])
def test_control_without_the_acceptance_ratio(wells, model):
    mover = wells.mover(SELECTORS_WITHOUT_RATIO[model](wells))
    assert_another_ensemble(wells, sample(wells, mover, CONTROL, seed=1))


@pytest.mark.parametrize("n_steps", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)])
def test_a_model_being_trained(wells, n_steps, tmp_path):
    assert_same_ensemble(wells, sample_while_learning(wells, n_steps, 1, tmp_path))


@pytest.mark.slow
def test_control_a_model_being_trained_without_the_acceptance_ratio(wells, tmp_path):
    assert_another_ensemble(wells, sample_while_learning(wells, CONTROL, 1, tmp_path, CommittorSelectorWithoutRatio))

"""Frames of legs: targets, batches, why intervals must be fixed, and what they are worth with and without inertia."""

import numpy as np
import pytest
import torch

from ops_aimmd.committor.martingale import LAMBDA, batches_of_legs
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.optimisation import TrainingData
from ops_aimmd.committor.training import fit
from ops_aimmd.committor.training_set import LegFrames, ShootingResult, TrainingSet

STRIDE = 25  # about twelve frames of a leg


def walks(n, memory, rng, step=0.01):
    """Free motion on [-1, 1] from random points until an end is reached: starts, and (positions, outcome) per leg.

    memory 0: a random walk, whose committor is (x + 1) / 2. Else velocities that are forgotten in ``memory`` frames and
    two legs of opposite ones.
    """
    starts = rng.uniform(-1, 1, n)
    velocity = rng.normal(size=n) * step
    x, v = np.repeat(starts, 2), np.column_stack([velocity, -velocity]).ravel()
    outcomes, running = np.full(len(x), -1), np.arange(len(x))
    walkers, positions = [], []
    keep = np.exp(-1 / memory) if memory else 0.0
    while len(running):
        if memory:
            v[running] = keep * v[running] + np.sqrt(1 - keep**2) * step * rng.normal(size=len(running))
        else:
            v[running] = 4 * step * rng.normal(size=len(running))
        x[running] += v[running]
        walkers.append(running)
        positions.append(x[running])
        done = np.abs(x[running]) >= 1
        outcomes[running[done]] = x[running[done]] > 0
        running = running[~done]
    walkers, positions = np.concatenate(walkers), np.concatenate(positions)
    order = np.argsort(walkers, kind="stable")
    histories = np.split(positions[order], np.searchsorted(walkers[order], np.arange(1, len(x))))
    return starts, [(history, int(outcome)) for history, outcome in zip(histories, outcomes, strict=True)]


def training_set(starts, legs, at_fractions=False):
    shots = TrainingSet.empty(1, 2)
    for row, start in enumerate(starts):
        frames, before, outcomes, is_end = [], [], [], []
        for positions, outcome in legs[2 * row : 2 * row + 2]:
            leg = np.concatenate([[start], positions])
            last = len(leg) - 1
            chosen = [*range(STRIDE, last, STRIDE), last]
            if at_fractions:
                chosen = np.unique(np.linspace(1, last, 9).astype(int))
            frames += [leg[i] for i in chosen]
            before += [leg[i - 1] for i in chosen]
            outcomes += [outcome] * len(chosen)
            is_end += [i == last for i in chosen]
        frames = np.array(frames)[:, None]
        displacements = frames - np.array(before)[:, None]
        counts = np.bincount([legs[2 * row][1], legs[2 * row + 1][1]], minlength=2)
        leg_frames = LegFrames(frames, np.array(outcomes), np.array(is_end), displacements)
        shots.append(ShootingResult(np.array([start]), counts, leg_frames=leg_frames))
    return shots


def tensor(array):
    return torch.tensor(array, dtype=torch.float64)


def test_targets_look_at_the_frames_that_follow_and_at_the_end():
    legs = [(np.array([0.1, 0.2, 0.3, 1.1]), 1), (np.array([-1.2]), 0), (np.array([0.0, -1.1]), 0), (np.array([1.2]), 1)]
    shots = TrainingSet.empty(1, 2)
    for row in (0, 1):
        positions = np.concatenate([x for x, _ in legs[2 * row : 2 * row + 2]])[:, None]
        outcomes = np.concatenate([[o] * len(x) for x, o in legs[2 * row : 2 * row + 2]])
        is_end = np.concatenate([np.arange(len(x)) == len(x) - 1 for x, _ in legs[2 * row : 2 * row + 2]])
        frames = LegFrames(positions, outcomes, is_end, np.zeros_like(positions))
        shots.append(ShootingResult(np.zeros(1), [1, 1], leg_frames=frames))
    (batch,) = batches_of_legs(shots.auxiliary, 2, 100, np.random.default_rng(0), tensor)
    assert batch.descriptors[:, 0].tolist() == [0.1, 0.2, 0.3, 0.0] and batch.shot.tolist() == [0, 0, 0, 1]
    p = np.array([0.5, 0.6, 0.8, 0.4])
    y = batch.targets(tensor(np.column_stack([1 - p, p])[None]))[0]
    expected = [(1 - LAMBDA) * (0.6 + LAMBDA * 0.8) + LAMBDA**2, (1 - LAMBDA) * 0.8 + LAMBDA, 1.0, 0.0]
    assert np.allclose(y[:, 1], expected) and np.allclose(y.sum(dim=1), 1)


def test_batches_hold_whole_legs_once_and_are_of_nearly_the_same_size():
    rng = np.random.default_rng(1)
    shots = training_set(*walks(60, 0, rng))
    frames = shots.auxiliary
    n = (~frames.is_end).sum()
    batches = batches_of_legs(frames, 2, 200, np.random.default_rng(0), tensor)
    used = np.concatenate([batch.descriptors[:, 0] for batch in batches])
    assert np.array_equal(np.sort(used), np.sort(frames.descriptors[~frames.is_end][:, 0]))
    sizes = [len(batch) for batch in batches]
    longest = max(int(batch.place.max()) for batch in batches) + 1
    assert len(batches) == -(-n // 200) > 5 and np.ptp(sizes) <= 2 * longest
    for batch in batches:  # places count from 0 in each leg
        for leg in range(int(batch.leg.max()) + 1):
            assert batch.place[batch.leg == leg].tolist() == list(range(int((batch.leg == leg).sum())))


@pytest.mark.parametrize("max_frames", [10_000, 100])
def test_the_frames_of_a_leg_weigh_what_was_asked_for(max_frames):
    shots = training_set(*walks(30, 0, np.random.default_rng(0)))
    model = CommittorModel.for_descriptors(1, seed=1)
    data = TrainingData.of(model, shots, (0.3, 2.0), max_frames, np.random.default_rng(0))
    n_legs = 60
    # each fold is held out by one of five members
    assert data.train[:, 30:].sum().item() == pytest.approx(0.3 * n_legs * 4, rel=0.1)
    for legs, weights in data.legs:
        weights = weights * data.known[:, legs.shot]
        assert weights.sum().item() == pytest.approx(2.0 * n_legs * 4, rel=0.3)
        assert len(np.unique(weights[weights > 0].numpy())) == 1  # or it would tell how long the leg was
    assert len(data.legs) == 1 if max_frames > 1000 else len(data.legs) > 3


def test_frames_of_unknown_displacement_are_not_learned_from():
    shots = training_set(*walks(30, 0, np.random.default_rng(0)))
    blind = TrainingSet.empty(1, 2)
    for shot in shots:
        frames = shot.leg_frames
        legs = LegFrames(frames.descriptors, frames.outcomes, frames.is_end)
        blind.append(ShootingResult(shot.descriptors, shot.counts, leg_frames=legs))
    assert batches_of_legs(blind.auxiliary, 2, 100, np.random.default_rng(0), tensor) == []
    report = fit(CommittorModel.for_descriptors(1, seed=1), blind, seed=1)
    assert report.auxiliary_weights[1] == 0 and report.velocity_memory == 0


def test_only_frames_at_fixed_intervals_say_nothing_of_where_their_leg_goes():
    starts, legs = walks(1500, 0, np.random.default_rng(3))
    for at_fractions, unbiased in ((False, True), (True, False)):
        frames = training_set(starts, legs, at_fractions).auxiliary
        x = frames.descriptors[:, 0]
        near = ~frames.is_end & (x > 0.2) & (x < 0.8)
        excess = frames.outcomes[near] - (x[near] + 1) / 2
        per_shot = np.bincount(frames.shot[near], excess, minlength=len(starts))  # shots are independent
        z = per_shot.sum() / np.sqrt((per_shot**2).sum())
        assert abs(z) < 4 if unbiased else z > 6


def error(model, reference):
    x = np.linspace(-0.9, 0.9, 60)
    return np.sqrt(np.mean((model.committor(x[:, None]) - reference(x)) ** 2))


def test_without_inertia_no_memory_is_learned():
    with_frames, without = [], []
    for seed in range(4):
        shots = training_set(*walks(40, 0, np.random.default_rng(seed)))
        for errors, options in ((with_frames, {}), (without, {"auxiliary_weights": (0.15, 0.0)})):
            model = CommittorModel.for_descriptors(1, seed=seed)
            report = fit(model, shots, seed=seed, **options)
            errors.append(error(model, lambda x: (x + 1) / 2))
            assert report.velocity_memory < 1.0
    assert np.mean(with_frames) < np.mean(without)


def test_with_inertia_the_memory_of_the_velocities_is_learned():
    memory = 25.0
    rng = np.random.default_rng(7)
    # the committor is antisymmetric and nearly linear; its slope is less than 1/2 because walkers overshoot the ends
    starts, legs = walks(4000, memory, np.random.default_rng(11))
    outcomes = np.array([o for _, o in legs]).reshape(-1, 2).mean(axis=1)
    slope = (starts @ (outcomes - 0.5)) / (starts @ starts)
    learned, ignored, memories = [], [], []
    for seed in range(6):
        shots = training_set(*walks(60, memory, rng))
        model = CommittorModel.for_descriptors(1, seed=seed)
        memories.append(fit(model, shots, seed=seed).velocity_memory)
        learned.append(error(model, lambda x: 0.5 + slope * x))
        blind = CommittorModel.for_descriptors(1, seed=seed)
        still = TrainingSet.empty(1, 2)
        for shot in shots:
            frames = shot.leg_frames
            legs_of_shot = LegFrames(frames.descriptors, frames.outcomes, frames.is_end, 0 * frames.displacements)
            still.append(ShootingResult(shot.descriptors, shot.counts, leg_frames=legs_of_shot))
        fit(blind, still, seed=seed)
        ignored.append(error(blind, lambda x: 0.5 + slope * x))
    assert 0.6 * memory < np.mean(memories) < 1.4 * memory
    assert np.mean(learned) < 0.8 * np.mean(ignored)

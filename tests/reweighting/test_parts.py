"""Parts of the estimator on their own: normalisations, sums in log space, blocks of the bootstrap, checks, bad input."""

from dataclasses import replace
from time import process_time

import numpy as np
import pytest
from guided_walks import two_channels
from reweighting_exact import only, simulated

from ops_aimmd.reweighting import TooFewExcursions, channel_check, rates_of_parts, reweight
from ops_aimmd.reweighting.bootstrap import find_blocks
from ops_aimmd.reweighting.ensembles import segment_logsumexp, usable
from ops_aimmd.reweighting.excursions import Excursions
from ops_aimmd.reweighting.solver import normalisations, shares


@pytest.fixture(scope="module")
def excursions():
    return simulated(two_channels(height=4.0, n=17, hop=0.02), 4, 150, seed=1).excursions(0, 1, 2, 3)


def test_normalisations_are_self_consistent_and_found():
    """Samples of three normal distributions of known normalisation; the logarithms are 60 apart."""
    rng = np.random.default_rng(1)
    centres, log_z = np.array([0.0, 1.0, 2.0]), np.array([0.0, 30.0, -30.0])
    ensemble = np.repeat(np.arange(3), 2000)
    x = centres[ensemble] + rng.normal(size=6000)
    log_s = -0.5 * (x[:, None] - centres) ** 2 + log_z
    counts = np.ones(6000)
    f = normalisations(log_s, counts, ensemble)
    assert -f == pytest.approx(log_z, abs=4 * 0.03)
    log_d, share = shares(log_s, np.bincount(ensemble).astype(float), f)
    assert share.sum(axis=0) == pytest.approx(np.bincount(ensemble), rel=1e-6)
    again = normalisations(log_s, counts, ensemble, start=np.array([0.0, -20.0, 25.0]))
    assert again == pytest.approx(f, abs=1e-7)  # convex: one minimum


def test_ensembles_without_a_link_are_refused():
    log_s = np.where(np.arange(40)[:, None] // 20 == np.arange(2), 0.0, -np.inf)
    with pytest.raises(ValueError, match="free runs"):
        normalisations(log_s, np.ones(40), np.arange(40) // 20)
    log_s[0] = 0.0  # the control: one sample that both hold
    assert np.isfinite(normalisations(log_s, np.ones(40), np.arange(40) // 20)).all()


def test_sums_of_segments():
    values, offsets = np.array([700.0, 710.0, -np.inf, 1.0, -800.0]), np.array([0, 2, 2, 3, 5, 5])
    found = segment_logsumexp(values, offsets)
    assert found[[0, 3]] == pytest.approx([np.logaddexp(700, 710), 1.0])
    assert (found[[1, 2, 4]] == -np.inf).all()


def test_whole_free_runs_and_stretches_of_chains_are_drawn(excursions):
    x = excursions
    blocks = find_blocks(x, np.random.default_rng(1).normal(size=(len(x.kind), 1)))
    repeats = blocks.repeats(50, np.random.default_rng(2))
    free = x.kind == "free"
    for run in np.unique(x.chain[free])[:5]:
        assert (np.ptp(repeats[:, free & (x.chain == run)], axis=1) == 0).all()
    for stratum in np.unique(blocks.stratum):
        number = (blocks.stratum == stratum).sum()
        first = np.unique(blocks.block, return_index=True)[1][blocks.stratum == stratum]
        assert (repeats[:, first].sum(axis=1) == number).all()
    only_free = blocks.repeats(20, np.random.default_rng(3), only=1)
    assert (only_free[:, ~free] == 1).all() and (only_free[:, free] != 1).any()
    few = x.chosen(~free | (x.chain % 1000 < 3))  # three runs, all from one state: stretches of them
    assert len(np.unique(find_blocks(few, np.zeros((len(few.kind), 1))).stratum)) == 2
    assert (np.bincount(find_blocks(few, np.zeros((len(few.kind), 1))).stratum)[1]) > 3


def test_an_error_budget_names_what_to_extend(excursions):
    """With a tenth of the free runs of state 0, they are what limits the rates."""
    x = excursions
    scarce = x.chosen((x.kind != "free") | (x.ends[:, 0] != 0) | (x.chain % 10 == 0))
    budget = reweight(scarce, fewest=0).error_budget(60)
    before = reweight(x, fewest=0).error_budget(60)
    name = "free runs of state 0"
    assert set(budget) == {"shots", name, "free runs of state 1"}
    assert budget[name][0, 1] > 2 * before[name][0, 1]


def test_rates_of_parts_of_the_data(excursions):
    found = rates_of_parts(excursions, n_replicates=20)
    assert {"all", "shots alone", "exchange shots alone", "|q| < 2", "t in-sample", "first half", "chain 0"} <= set(found)
    best, error = found["all"]
    for rates, its_error in found.values():
        assert abs(np.log(rates / best)[0, 1]) < 5 * np.hypot(error, its_error)[0, 1]


def test_channels_of_chains(excursions):
    x = excursions
    steered = x.is_transition() & (x.kind != "free")
    both = channel_check(replace(x, channel=np.where(steered, x.step % 2, -1)))
    assert both.equilibrated and all(sum(of.values()) == pytest.approx(1) for of in both.shares.values())
    stuck = channel_check(replace(x, channel=np.where(steered, (x.chain // 1000) % 2, -1)))
    assert not stuck.equilibrated and "not equilibrated" in stuck.note
    with pytest.raises(ValueError, match="channel"):
        channel_check(x)


def test_what_is_left_out_is_counted(excursions):
    x = excursions
    shots = np.flatnonzero(x.kind == "shot")
    kind, ends, failed = x.kind.copy(), x.ends.copy(), np.zeros(len(x.kind), bool)
    kind[shots[:3]], ends[shots[3:5], 0], failed[shots[5]] = "other", -1, True
    version = np.where(x.kind == "exchange", x.step % 20 == 0, 0)  # a version with few exchange shots
    few = int(((x.kind == "exchange") & (version == 1)).sum())
    log_v = x.exchange_log_weights[0]
    used, left_out = usable(
        replace(x, kind=kind, ends=ends, failed=failed, version=version, exchange_log_weights={0: log_v, 1: log_v})
    )
    assert left_out == {
        "other kinds": 3, "broke off": 1, "model versions with few exchange shots": few, "over the length limit": 2,
    }  # fmt: skip
    assert (~used).sum() == 6 + few and 0 < few < 50


def without_free_runs_of_0(x):
    return x.chosen((x.kind != "free") | (x.ends[:, 0] != 0))


BAD = {
    "no free runs": (lambda x: x.chosen(x.kind != "free"), "no free runs"),
    "no free runs from state 0": (without_free_runs_of_0, "state 0"),
    "one-way shots only": (lambda x: replace(x, kind=np.where(x.kind == "free", "free", "one-way")), "no shots"),
    "constant model": (
        lambda x: replace(
            only(x, "shot"),
            log_committor=np.log(np.full(only(x, "shot").log_committor.shape, 0.5)),
            exchange_log_weights={},
        ),
        "constant",
    ),
    "free runs cut outside": (lambda x: replace(x, ends=np.where(x.ends == 1, -1, x.ends)), "ends"),
    "a state too many": (lambda x: replace(x, ends=np.where(x.ends == 1, 2, x.ends)), "ends"),
    "probabilities instead of logarithms": (lambda x: replace(x, log_committor=np.exp(x.log_committor)), "log_committor"),
    "NaN": (lambda x: replace(x, log_committor=x.log_committor * np.nan), "log_committor"),
    "selection probability": (
        lambda x: replace(x, log_selection_probability=np.exp(x.log_selection_probability)),
        "log_selection_probability",
    ),
    "too many frames": (lambda x: replace(x, length=x.length // 2), "stored"),
    "unknown version": (lambda x: replace(x, version=np.full(len(x.kind), 7)), "exchange_log_weights"),
    "shapes": (lambda x: replace(x, step=x.step[:-1]), "step"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(excursions, name):
    make, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        reweight(make(excursions))


def test_few_excursions_are_refused(excursions):
    x = excursions
    least = min(reweight(x).effective.values())
    with pytest.raises(TooFewExcursions, match="longer free runs") as caught:
        reweight(x, fewest=1.01 * least)
    assert min(caught.value.effective.values()) == least
    reweight(x, fewest=0.99 * least)  # the control
    with pytest.raises(ValueError, match="window"):
        reweight(x, window=0.0)


@pytest.mark.slow
def test_ten_thousand_excursions_take_ten_seconds():
    """10^4 excursions of 100 frames, 200 replicates included."""
    rng = np.random.default_rng(1)
    n, length = 10_000, 100
    kind = np.repeat(["shot", "free"], n // 2)
    ends = rng.integers(2, size=(n, 2))
    q = rng.normal(scale=3, size=(n, length))
    log_p = -np.logaddexp(0, np.stack([q, -q], axis=-1)).reshape(-1, 2)
    x = Excursions(
        kind=kind, chain=np.arange(n) // 250, step=np.arange(n), ends=ends, length=np.full(n, length),
        offsets=length * np.arange(n + 1), log_committor=log_p, point_log_committor=log_p[::length],
        log_selection_probability=np.where(kind == "shot", -np.log(length), np.nan),
        limit=np.where(kind == "shot", 1000.0, np.inf), internal_frames=np.where(kind == "free", 20, 0),
    )  # fmt: skip
    begin = process_time()
    reweight(x, fewest=0).log_error()
    assert process_time() - begin < 10

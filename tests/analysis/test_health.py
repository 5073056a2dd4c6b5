"""Health of a run: known autocorrelation, known switching, calibrated and other models; every warning has its control."""

import numpy as np
import pandas as pd
import pytest
import torch

from ops_aimmd import CommittorModel, TrainingSet, fit
from ops_aimmd.analysis.channels import count_switches, find_channels, telling_descriptors
from ops_aimmd.analysis.expected_paths import expected_paths
from ops_aimmd.analysis.health import assess
from ops_aimmd.analysis.measures import PATH_LENGTH, efficiency, mean_of, with_error
from ops_aimmd.analysis.run_data import RunData
from ops_aimmd.committor.autocorrelation import integrated_autocorrelation


def autoregressive(n, correlation, rng):
    """Stationary AR(1) of unit variance, whose autocorrelation at distance t is correlation**t."""
    x = np.empty(n)
    x[0] = rng.standard_normal()
    for i in range(1, n):
        x[i] = correlation * x[i - 1] + np.sqrt(1 - correlation**2) * rng.standard_normal()
    return x


def step_rows(lengths, generated=None, expected=np.nan, replica=0, legs=2, reached=2, version=1.0):
    """A step table in which nothing but what is given matters."""
    n = len(lengths)
    generated = np.arange(n) % 3 == 0 if generated is None else generated
    return pd.DataFrame(
        {
            "step": np.arange(1, n + 1),
            "accepted": np.arange(n) % 4 == 0,
            "generated": generated,
            "expected": expected,
            "reached": reached,
            "frames": 100,
            "path_length": lengths,
            "model_version": version,
            "frozen": 0.0,
            "replica": replica,
            "legs": legs,
        }
    )


def lengths_of(series):
    return np.round(np.exp(5 + 0.4 * np.asarray(series))).astype(int)


def titles(health):
    return {finding.title for finding in health.warnings}


# ---- independent paths -----------------------------------------------------------------------------------------------


def test_autocorrelation_time_of_a_known_process():
    """AR(1): tau = (1 + a) / (2 (1 - a)) in MC steps; n / (2 tau) independent values."""
    rng = np.random.default_rng(1)
    for correlation in (0.0, 0.8):
        exact = (1 + correlation) / (2 * (1 - correlation))
        found = integrated_autocorrelation(autoregressive(20_000, correlation, rng))
        assert abs(found.tau - exact) < 4 * found.tau_error
        assert found.tau_error < 0.2 * exact
        assert abs(found.n_effective - 20_000 / (2 * exact)) < 4 * found.n_effective_error


def test_chains_add_up_and_are_not_joined():
    rng = np.random.default_rng(2)
    one = autoregressive(5000, 0.8, rng)
    chains, both = np.repeat([0, 1], 5000), np.concatenate([one, one + 10])
    alone = integrated_autocorrelation(one)
    apart = integrated_autocorrelation(both, chains, common_mean=False)  # of ensembles of their own
    assert apart.tau == pytest.approx(alone.tau, rel=0.02)
    assert apart.n_effective == pytest.approx(2 * alone.n_effective, rel=0.02)
    # chains of one ensemble that disagree are worth little together
    assert integrated_autocorrelation(both, chains).n_effective < 0.1 * alone.n_effective


def test_any_order_of_rows_gives_the_same_autocorrelation():
    """Rows of four chains, interleaved and shuffled: time is the step within a chain, never the row."""
    rng = np.random.default_rng(23)
    series = np.array([autoregressive(400, 0.9, rng) for _ in range(4)])
    steps, chains = (index.ravel() for index in np.meshgrid(np.arange(400), np.arange(4)))
    found = integrated_autocorrelation(series.ravel(), chains, steps)
    for order in (np.argsort(steps, kind="stable"), rng.permutation(1600)):
        again = integrated_autocorrelation(series.ravel()[order], chains[order], steps[order])
        assert again.tau == pytest.approx(found.tau) and again.tau_interval() == pytest.approx(found.tau_interval())
    rows_for_time = integrated_autocorrelation(series.ravel()[order])
    assert rows_for_time.n_effective > 3 * found.n_effective  # the control


def test_a_path_that_never_changes_tells_nothing():
    found = integrated_autocorrelation(np.ones(100))
    assert found.too_short and np.isnan(found.tau) and np.isnan(found.mean_error())
    health = assess(RunData(step_rows(np.full(100, 50)), ["A", "B"]))
    assert "The paths do not change" in titles(health)
    assert "too short to tell" in str(health)


def test_too_short_to_tell_is_said_in_words():
    """A run of 3 correlation times: no interval, no verdict on the chains; the control is a run of 100 times."""
    rng = np.random.default_rng(24)

    def of_chains(n):
        tables = [step_rows(lengths_of(autoregressive(n, 0.98, rng)), replica=k) for k in range(2)]
        return assess(RunData(pd.concat(tables), ["A", "B"]))

    short, long = of_chains(150), of_chains(5000)
    found = short.mixing[PATH_LENGTH]
    assert found.too_short and np.isnan(found.tau_error) and found.tau_interval()[1] == np.inf
    assert found.n_effective_interval()[0] == 0
    caution = {caution.title: caution.seen for caution in short.cautions}["Too short to tell"]
    assert "whether the chains agree" in caution
    assert "fewer than" in str(short) and "more than" in caution and np.isnan(short.transition_time.error)
    assert "Too short to tell" not in {caution.title for caution in long.cautions}
    assert "too short to tell" not in str(long) and long.transition_time.error > 0


def test_error_of_the_mean_time_covers_the_truth():
    """The deviation of the mean from the truth, in its own errors, has variance 1; naive errors are 3 times too small."""
    rng = np.random.default_rng(3)
    expectation = np.exp(5 + 0.4**2 / 2) - 1
    scores, naive = [], []
    for _ in range(150):
        table = step_rows(np.exp(5 + 0.4 * autoregressive(1000, 0.8, rng)))
        times = table["path_length"] - 1
        found = mean_of(times, table["replica"], table["step"])
        deviation = found.value - expectation
        scores.append(deviation / found.error)
        naive.append(deviation / (table["path_length"].std() / np.sqrt(len(table))))
    assert 0.6 < np.std(scores) < 1.5
    assert np.std(naive) > 2


def test_too_few_independent_paths_are_said():
    rng = np.random.default_rng(4)
    slow = RunData(step_rows(lengths_of(autoregressive(300, 0.97, rng))), ["A", "B"])  # 300 / 66 = 5 paths
    quick = RunData(step_rows(lengths_of(autoregressive(300, 0.5, rng))), ["A", "B"])  # 300 / 3 = 100 paths
    assert "Too few independent paths" in titles(assess(slow))
    assert titles(assess(quick)) == set()


def test_time_units_and_drift():
    rng = np.random.default_rng(5)
    steady = autoregressive(400, 0.5, rng)
    run = RunData(step_rows(lengths_of(steady)), ["A", "B"], time_per_frame=0.02, time_unit="ps")
    health = assess(run)
    assert np.isclose(health.transition_time.value, 0.02 * (run.table["path_length"] - 1).mean())
    assert "ps" in str(health) and titles(health) == set()
    drifting = RunData(step_rows(lengths_of(steady + 2 * (np.arange(400) < 200))), ["A", "B"])
    assert "The transition-path time has drifted" in titles(assess(drifting))


def test_chains_that_disagree():
    rng = np.random.default_rng(6)
    same = [step_rows(lengths_of(autoregressive(400, 0.5, rng)), replica=k) for k in range(3)]
    other = step_rows(lengths_of(2 + autoregressive(400, 0.5, rng)), replica=3)
    assert "The chains disagree" not in titles(assess(RunData(pd.concat(same), ["A", "B"])))
    together = pd.concat([*same, other])
    assert "The chains disagree" in titles(assess(RunData(together, ["A", "B"])))
    # in ensembles of their own chains may differ
    assert "The chains disagree" not in titles(assess(RunData(together, ["A", "B"], same_ensemble=False)))


# ---- channels --------------------------------------------------------------------------------------------------------


def test_three_channels_and_the_descriptors_that_tell_them():
    rng = np.random.default_rng(9)
    truth = rng.integers(3, size=150)
    points = 0.1 * rng.standard_normal((150, 5))
    points[:, 3] += np.cos(2 * np.pi * truth / 3)
    points[:, 1] += np.sin(2 * np.pi * truth / 3)
    found = find_channels(points, np.arange(150), np.zeros(150))
    assert found.n_channels == 3
    assert set(telling_descriptors(found)[:2]) == {1, 3}


def switching_series(n, rates, rng):
    """Two-state Markov chain: probability per step of leaving state 0 and 1."""
    series = np.zeros(n, dtype=int)
    for i in range(1, n):
        series[i] = series[i - 1] ^ (rng.random() < rates[series[i - 1]])
    return series


def channel_run(series, rng, chains=None, model=None):
    """A run whose paths cross at x1 = -1 or 1, at x0 = 0 of a committor of x0 alone; every row has a new path."""
    paths = []
    for channel in series:
        frames = 0.1 * rng.standard_normal((9, 2))
        frames[:, 0] += np.linspace(-2, 2, 9)
        frames[:, 1] += 2 * channel - 1
        paths.append(frames)
    table = step_rows(lengths_of(autoregressive(len(series), 0.3, rng)))
    table["replica"] = 0 if chains is None else chains
    model = CommittorModel(FirstDescriptor(3.0), n_descriptors=2) if model is None else model
    return RunData(table, ["A", "B"], model=model, paths=paths, path_of_row=np.arange(len(series)))


class FirstDescriptor(torch.nn.Module):
    """Log-odds a + b x0."""

    def __init__(self, slope, shift=0.0):
        super().__init__()
        self.slope, self.shift = slope, shift

    def forward(self, x):
        return self.shift + self.slope * x[:, :1]


def test_switching_rate_and_populations_of_a_known_process():
    """Rates a, b: populations b/(a+b), a/(a+b), and 2ab/(a+b) switches per step, within 4 of their errors."""
    rng = np.random.default_rng(10)
    rates = (0.02, 0.04)
    channels = assess(channel_run(switching_series(2000, rates, rng), rng)).channels
    assert channels.n_channels == 2
    assert abs(channels.switching_rate - 2 * 0.02 * 0.04 / 0.06) < 4 * channels.switching_rate_error
    assert abs(channels.populations[0] - 2 / 3) < 4 * channels.population_errors[0]
    assert channels.population_errors[0] < 0.1
    assert channels.n_steps == 1999


def test_switches_are_counted_within_chains_and_known_rows():
    assert count_switches([0, 0, 1, 1, 0], np.zeros(5)) == (2, 4)
    assert count_switches([0, 0, 1, 1, 0], [1, 1, 2, 2, 2]) == (1, 3)
    assert count_switches([0, -1, 0, 1, -1, 1], np.zeros(6)) == (1, 3)


def test_rare_switching_is_a_warning_and_frequent_switching_is_not():
    rng = np.random.default_rng(11)
    rare = assess(channel_run(np.arange(300) < 120, rng))
    assert rare.channels.n_switches == 1
    assert "The paths stay in their channel" in titles(rare)
    often = assess(channel_run(switching_series(300, (0.1, 0.1), rng), rng))
    assert often.channels.n_switches > 10
    assert titles(often) == set() and not often.cautions


def test_one_channel_is_said_honestly():
    """One chain in one place can be all there is, or not: a caution. Chains that met there are not cautioned."""
    rng = np.random.default_rng(12)
    alone = assess(channel_run(np.zeros(300, dtype=int), rng))
    assert alone.healthy
    assert [caution.title for caution in alone.cautions] == ["One channel only"]
    assert "cannot tell" in alone.cautions[0].seen
    several = assess(channel_run(np.zeros(300, dtype=int), rng, chains=np.arange(300) % 2))
    assert several.healthy and not several.cautions
    apart = assess(channel_run(np.arange(300) % 2, rng, chains=np.arange(300) % 2))
    assert apart.channels.n_switches == 0
    assert "The paths stay in their channel" in titles(apart)


def test_a_path_of_unknown_frames_has_no_channel():
    rng = np.random.default_rng(13)
    run = channel_run(np.arange(100) % 2, rng)
    run.path_of_row[:10] = -1
    channels = assess(run).channels
    assert (channels.series[:10] == -1).all() and (channels.series[10:] >= 0).all()


# ---- the committor ---------------------------------------------------------------------------------------------------


def shots_of(p, rng, n_legs=2):
    reached = rng.binomial(n_legs, p)
    return np.stack([n_legs - reached, reached], axis=1)


def calibrated_run(rng, distort=lambda q: q, n=400, model=None, counts=None):
    """Shots whose predicted log-odds are a distortion of the true ones."""
    x = rng.standard_normal((n, 2))
    q = 1.5 * x[:, 0]
    p = 1 / (1 + np.exp(-q))
    counts = shots_of(p, rng) if counts is None else counts
    predicted = 1 / (1 + np.exp(-distort(q)))
    training_set = TrainingSet(
        x,
        counts,
        steps=np.arange(1, n + 1),
        velocity_origin=["boltzmann"] * n,
        predicted_committor=np.stack([1 - predicted, predicted], axis=1),
    )
    table = step_rows(
        lengths_of(autoregressive(n, 0.3, rng)), generated=counts.max(axis=1) == 1, expected=2 * predicted * (1 - predicted)
    )
    return RunData(table, ["A", "B"], training_set=training_set, model=model)


def test_a_calibrated_model_is_healthy():
    """Of 20 runs at most one is warned of: all margins are 3 standard errors."""
    fired = [titles(assess(calibrated_run(np.random.default_rng(seed)))) for seed in range(20)]
    assert sum(bool(f) for f in fired) <= 1


@pytest.mark.parametrize(
    "distort, title",
    [
        (lambda q: 10 * q, "The model is too sure"),
        (lambda q: 0.1 * q, "The model is mis-calibrated"),
        (lambda q: 10 * q, "Worse than a constant"),
        (lambda q: 0.3 * q, "The model is too careful"),
        (lambda q: q + 1.5, "The model is shifted"),
        (lambda q: 0 * q, "The model knows nothing"),
        (lambda q: np.random.default_rng(0).permutation(q), "The model knows nothing"),
        (lambda q: -q, "The model is wrong"),
        (lambda q: q + 1.5 * np.random.default_rng(0).choice([-1, 1], len(q)), "The legs of a shot agree too often"),
    ],
)
def test_what_is_wrong_with_a_model_is_said(distort, title):
    assert title in titles(assess(calibrated_run(np.random.default_rng(14), distort)))


def test_generated_against_expected():
    rng = np.random.default_rng(15)
    p = rng.uniform(0.2, 0.5, 500)
    binomial, errors = np.sqrt((p * (1 - p)).sum()), []
    for _ in range(40):
        found = efficiency(step_rows(np.full(500, 50), generated=rng.random(500) < p, expected=p), np.arange(500))
        assert np.isclose(found.of_independent_legs, p.sum()) and abs(found.deviation) < 4
        errors.append(found.error)
    # that shots are independent has to be found out from each run, so that one error scatters by 7 %, their median by 1 %
    assert np.median(errors) == pytest.approx(binomial, rel=0.07)
    wrong = efficiency(step_rows(np.full(500, 50), generated=rng.random(500) < p / 2, expected=p), np.arange(500))
    assert wrong.deviation < -4
    assert efficiency(step_rows(np.full(50, 50)), np.arange(50)) is None


def inertial_rows(rng, n=600, factor=1.7):
    """Shots of a true model whose legs part more often than independent ones: in the issue's run 410 paths for 240."""
    p = rng.uniform(0.2, 0.5, n)
    return step_rows(np.full(n, 50), generated=rng.random(n) < factor * p, expected=p)


def test_the_excess_of_earlier_shots_is_expected():
    """Generated minus expected of the last half is within its error in 95 % of runs, with an excess and without."""
    rng = np.random.default_rng(16)
    for factor in (1.0, 1.2, 1.7):
        tables = [inertial_rows(rng, factor=factor) for _ in range(300)]
        found = [efficiency(table, np.arange(300, 600)) for table in tables]
        covered = np.mean([abs(f.deviation) < 1.96 for f in found])
        assert 0.90 < covered < 0.98  # 95 % of 300 runs: +- 0.038 for three standard errors
        of_legs = np.mean([abs(f.generated - f.of_independent_legs) < 1.96 * f.error for f in found])
        assert of_legs < 0.5 or factor == 1.0  # the control: of independent legs


def test_the_excess_does_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(17)
    table = pd.concat([inertial_rows(rng, 200).assign(replica=k) for k in range(3)], ignore_index=True)
    mixed = rng.permutation(len(table))
    assert np.allclose(expected_paths(table.iloc[mixed]), expected_paths(table)[mixed])
    # no shot knows its own outcome, or that of one beside it
    other = table.assign(generated=np.where(table["step"] == 200, ~table["generated"].astype(bool), table["generated"]))
    assert np.array_equal(expected_paths(other), expected_paths(table))


def test_too_few_paths_are_a_fault_also_with_inertia():
    """The excess is no less than 1, and a model that becomes wrong is seen."""
    rng = np.random.default_rng(18)
    few = inertial_rows(rng, factor=0.6)
    assert "The model is mis-calibrated" in titles(assess(RunData(few, ["A", "B"])))
    worse = inertial_rows(rng)
    worse.loc[worse.index[300:], "expected"] = 0.5 * (1 + worse["expected"])  # more is expected, no more come
    assert "The model is mis-calibrated" in titles(assess(RunData(worse, ["A", "B"])))
    assert "The model is mis-calibrated" not in titles(assess(RunData(inertial_rows(rng), ["A", "B"])))


def noisy_shots(rng, n=60, n_descriptors=20):
    """One descriptor matters and many do not: easy to memorise."""
    x = rng.standard_normal((n, n_descriptors))
    return TrainingSet(x, shots_of(1 / (1 + np.exp(-x[:, 0])), rng), velocity_origin=["boltzmann"] * n)


def run_of_training(training_set, **options):
    model = CommittorModel.for_descriptors(training_set.n_descriptors, seed=1)
    report = fit(model, training_set, seed=1, **options)
    table = step_rows(lengths_of(autoregressive(len(training_set), 0.0, np.random.default_rng(1))))
    return RunData(table, ["A", "B"], training_set=training_set, model=model, reports=[report])


def test_memorising_is_said():
    """A network without regularisation, trained for long, against the default training on the same shots."""
    training_set = noisy_shots(np.random.default_rng(16))
    over_fitted = run_of_training(training_set, weight_decay=0.0, relevance=None, max_epochs=600)
    over_fit_titles = {"The model has memorised its shots", "The model is over-fitted"}
    assert titles(assess(over_fitted)) & over_fit_titles
    assert not titles(assess(run_of_training(training_set))) & over_fit_titles


def test_a_floor_that_independent_legs_would_have_is_no_alarm_where_they_are_not():
    """Legs that always part, as under inertia: p = 1/2 is right, and loses less than the floor before it saw any shot."""
    n = 200
    training_set_counts = np.ones((n, 2))
    model = CommittorModel(FirstDescriptor(0.0), n_descriptors=2)
    run = calibrated_run(np.random.default_rng(17), lambda q: 0.01 * q, n, model, training_set_counts)
    health = assess(run)
    trained = health.trained["B"]
    assert trained.loss_per_leg < 2 * np.log(2) - 0.5  # the floor of independent legs
    assert trained.leg_correlation == pytest.approx(-1, abs=0.01) and not trained.below_floor
    assert "The model has memorised its shots" not in titles(health)


def test_more_paths_than_expected_of_a_calibrated_model_are_no_fault():
    """Legs that part more often than chance has it, every leg with the right probability: inertia, not the model."""
    rng = np.random.default_rng(18)
    x = rng.standard_normal((400, 2))
    p = 1 / (1 + np.exp(-1.5 * x[:, 0]))
    u = rng.random(400)
    reached = (u < p).astype(int) + (1 - u < p)  # antithetic legs
    run = calibrated_run(np.random.default_rng(18), n=400)
    shots = TrainingSet(
        x,
        np.stack([2 - reached, reached], axis=1),
        steps=np.arange(400),
        predicted_committor=np.stack([1 - p, p], axis=1),
    )
    table = run.table.assign(generated=reached == 1, expected=2 * p * (1 - p))
    health = assess(RunData(table, ["A", "B"], training_set=shots))
    recent = health.recent_efficiency
    assert recent.generated - recent.of_independent_legs > 3 * recent.error and abs(recent.deviation) < 3
    assert titles(health) == set()


def test_three_states_are_judged_one_by_one():
    rng = np.random.default_rng(19)
    logits = rng.standard_normal((300, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    counts = np.array([rng.multinomial(2, row) for row in p])
    shots = TrainingSet(logits, counts, steps=np.arange(300), predicted_committor=p)
    model = CommittorModel(torch.nn.Identity(), n_descriptors=3, n_states=3)
    table = step_rows(lengths_of(autoregressive(300, 0.3, rng)))
    paths = [np.linspace([4.0, 0, 0], [0, 0, 4], 12) + 0.1 * rng.standard_normal((12, 3)) for _ in range(300)]
    health = assess(RunData(table, ["A", "B", "C"], shots, model, paths=paths, path_of_row=np.arange(300)))
    assert list(health.on_the_fly) == ["A", "B", "C"]
    assert all(abs(c.slope - 1) < 4 * c.slope_error for c in health.on_the_fly.values())
    # a path from A to C crosses where both are equally probable
    assert np.allclose(health.channels.points[:, 0], health.channels.points[:, 2], atol=1e-6)


# ---- legs and states -------------------------------------------------------------------------------------------------


def test_legs_without_an_outcome():
    rng = np.random.default_rng(20)
    lengths = lengths_of(autoregressive(300, 0.3, rng))
    lost = step_rows(lengths, reached=np.where(np.arange(300) % 5 == 0, 1, 2))
    health = assess(RunData(lost, ["A", "B"]))
    assert (health.n_legs, health.n_lost_legs) == (600, 60)
    assert "Legs without an outcome" in titles(health)
    assert assess(RunData(lost.drop(columns="legs"), ["A", "B"])).n_lost_legs == 60
    one_way = assess(RunData(step_rows(lengths, legs=1, reached=1).drop(columns="legs"), ["A", "B"]))
    assert one_way.n_lost_legs == 0 and titles(one_way) == set()


def state_run(committors):
    """Paths whose frames have given committors of B, under a model that knows them."""
    rng = np.random.default_rng(21)
    run = calibrated_run(rng, n=100, model=CommittorModel(FirstDescriptor(1.0), n_descriptors=2))
    p = np.asarray(committors)
    path = np.stack([np.log(p / (1 - p)), np.zeros(len(p))], axis=1)
    return RunData(run.table, run.states, run.training_set, run.model, paths=[path], path_of_row=np.zeros(100, dtype=int))


def test_states_that_miss_their_basin_or_reach_too_far():
    crossing = np.linspace(0.06, 0.94, 10)
    right = state_run([0.01] * 20 + [*crossing] + [0.99] * 20)
    state_titles = {"A state misses its basin", "A state is too large"}
    assert not titles(assess(right)) & state_titles
    waits = assess(state_run([0.01] * 20 + [*crossing] + [0.99] * 300))
    assert titles(waits) & state_titles == {"A state misses its basin"}
    assert "outside of B" in str(waits)
    cut = assess(state_run([0.3] + [*crossing[4:]] + [0.99] * 5))
    assert titles(cut) & state_titles == {"A state is too large"}
    assert "before A" in str(cut)


def test_paths_of_few_frames():
    rng = np.random.default_rng(22)
    run = calibrated_run(rng)
    short = RunData(run.table.assign(path_length=rng.integers(4, 9, 400)), run.states, run.training_set)
    assert titles(assess(short)) == {"Paths of few frames"}


def test_numbers_are_written_with_two_digits_of_their_error():
    assert with_error(0.12345, 0.0213) == "0.123 ± 0.021"
    assert with_error(604.3, 83.2) == "604 ± 83"
    assert with_error(3.0, np.nan) == "3"
    assert with_error(np.nan, 1.0) == "unknown"
    assert PATH_LENGTH in assess(RunData(step_rows(np.arange(20, 60)), ["A", "B"])).mixing


def test_a_run_that_has_learned_nothing_is_told_so():
    """OPS's restart, and its command line, attach no hook: the learner of such a run is never trained."""

    def rows(version, frozen=0.0, n=60):
        table = step_rows(np.full(n, 50), version=version)
        table["frozen"] = frozen
        return RunData(table, ["A", "B"])

    assert "Nothing was learned" in titles(assess(rows(0.0)))
    learned = np.repeat([0.0, 1.0], [20, 40])
    for control in (rows(learned), rows(0.0, frozen=1.0), rows(np.nan), rows(0.0, n=25)):
        assert "Nothing was learned" not in titles(assess(control))
    half = np.repeat([0.0, 1.0, 0.0], [20, 40, 60])  # stopped, and continued without the hook
    assert "Nothing was learned" in titles(assess(rows(half, n=120)))

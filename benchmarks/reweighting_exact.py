"""Rates from shots and free runs on guided walks, against linear algebra: bias, errors, coverage, and wrong estimators.

python benchmarks/reweighting_exact.py --runs 100            # all tables, in some 15 minutes
python benchmarks/reweighting_exact.py --table controls
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
from guided_walks import GuidedWalk, Simulation, barrier, line, star, two_channels

from ops_aimmd.reweighting import Excursions, reweight
from ops_aimmd.reweighting.rates import kinetics
from ops_aimmd.reweighting.solver import normalisations, shares

HOP = 0.05
HEIGHT, SITES = 5.0, 21
STEPS = 3000


def simulated(walk: GuidedWalk, n_runs: int, n_steps: int, seed: int, exchange_every: int = 2, **settings) -> Simulation:
    """Runs of shots, and free runs of as many frames, half from each state."""
    simulation = Simulation(walk, n_runs, seed, **settings)
    simulation.shots(n_steps, exchange_every=exchange_every)
    add_free_runs(simulation)
    return simulation


def add_free_runs(simulation: Simulation, n_walkers: int = 20, times: float = 1.0, **settings) -> None:
    """Free runs, from each state, of as many frames in all as the shots have, or more."""
    n_frames = times * np.mean([sum(row[4] for row in rows) for rows in simulation.rows])
    simulation.free_runs(n_walkers, int(n_frames / n_walkers / len(simulation.walk.states)), **settings)


def only(x: Excursions, *kinds: str) -> Excursions:
    return x.chosen(np.isin(x.kind, [*kinds, "free"]))


def independent(log_committor, features):
    """ln t of independent legs, 2p(1-p) for two states."""
    return np.log1p(-np.exp(2 * log_committor).sum(axis=1))


def exchange_as_shots(x: Excursions) -> Excursions:
    """Wrong: the selection probability of the frame given back is taken for that of the configuration."""
    weights = x.exchange_log_weights[0]
    return replace(
        x,
        kind=np.where(x.kind == "exchange", "shot", x.kind),
        log_selection_probability=np.where(
            x.kind == "exchange",
            -np.log(np.maximum(np.bincount(x.owner, np.exp(weights), len(x.kind)), 1)),
            x.log_selection_probability,
        ),
    )


def binned_rates(x: Excursions, log_a=0.0, n_bins: int = 12) -> np.ndarray:
    """Shooting points in each bin of the log-odds as an ensemble of their own, with the weights exp(log_a)."""
    x = only(x, "shot")
    edges = np.linspace(-6, 6, n_bins - 1)
    place = np.searchsorted(edges, np.diff(x.log_committor, axis=1)[:, 0])
    point = np.searchsorted(edges, np.diff(np.nan_to_num(x.point_log_committor), axis=1)[:, 0])
    visits = np.zeros((len(x.kind), n_bins))
    np.add.at(visits, (x.owner, place), 1.0)
    half = 0.5 * (x.ends[:, :, None] == np.arange(2)).sum(axis=1)
    ensemble = np.where(x.kind == "free", x.ends[:, 0], 2 + point)
    with np.errstate(divide="ignore"):
        log_s = np.log(np.concatenate([half, visits], axis=1))
    counts = np.where(x.kind == "free", 1.0, np.exp(log_a))
    f = normalisations(log_s, counts, ensemble)
    log_d, _ = shares(log_s, np.bincount(ensemble, counts, minlength=log_s.shape[1]), f)
    weights = counts * np.exp(log_d.min() - log_d)
    return kinetics(x, weights[None], np.ones((1, len(weights)))).rates[0]


def log_ratios(simulation: Simulation, estimate, n_runs=None, **settings) -> tuple[np.ndarray, np.ndarray]:
    """ln k / k_exact and its reported error (n_runs, rates) of each run."""
    walk = simulation.walk
    pairs = ~np.eye(len(walk.states), dtype=bool)
    values, errors = [], []
    for run in range(n_runs or simulation.n_runs):
        found = estimate(simulation.excursions(run, **settings))
        k, error = found if isinstance(found, tuple) else (found, np.full(found.shape, np.nan))
        values.append(np.log(k / walk.rates)[pairs])
        errors.append(error[pairs])
    return np.array(values), np.array(errors)


def with_errors(transform=lambda x: x, **settings):
    """An estimator: rates and errors."""

    def estimate(x):
        found = reweight(transform(x), fewest=0, **settings)
        return found.rates, found.log_error()

    return estimate


def without_errors(transform=lambda x: x, **settings):
    return lambda x: reweight(transform(x), fewest=0, **settings).rates


def coverage(values, errors) -> tuple[np.ndarray, np.ndarray]:
    """Share of the runs in which 1 and 1.96 errors hold the truth."""
    z = np.abs(values) / errors
    return (z < 1).mean(axis=0), (z < 1.96).mean(axis=0)


HEAD = "| estimator | ln k/k_exact, mean +- s.e. | sd | reported error | in 68 % | in 95 % |\n|---|---|---|---|---|---|"


def row(name, values, errors) -> str:
    """A line of a table."""
    mean, sd = values.mean(axis=0), values.std(axis=0, ddof=1)
    cells = [" ".join(f"{m:+.3f} +- {s / np.sqrt(len(values)):.3f}" for m, s in zip(mean, sd, strict=True)), _numbers(sd)]
    if np.isfinite(errors).all():
        cells += [_numbers(np.median(errors, axis=0)), *map(_numbers, coverage(values, errors))]
    else:
        cells += ["", "", ""]
    return f"| {name} | " + " | ".join(cells) + " |"


def _numbers(values) -> str:
    return " ".join(f"{value:.3f}" for value in np.atleast_1d(values))


def table_of_estimators(n_runs, seed):
    simulation = simulated(two_channels(HEIGHT, SITES, hop=HOP), n_runs, STEPS, seed)
    print(HEAD)
    print(row("all", *log_ratios(simulation, with_errors())), flush=True)
    print(row("shots", *log_ratios(simulation, with_errors(lambda x: only(x, "shot")))), flush=True)
    print(row("exchange shots", *log_ratios(simulation, with_errors(lambda x: only(x, "exchange")))), flush=True)


def table_of_controls(n_runs, seed):
    walk = two_channels(HEIGHT, SITES, hop=HOP)
    simulation = simulated(walk, n_runs, STEPS, seed)
    print(HEAD)
    right, _ = log_ratios(simulation, without_errors())
    print(row("right: all", right, np.full(right.shape, np.nan)), flush=True)
    for name, estimate in {
        "right: shots": without_errors(lambda x: only(x, "shot")),
        "right: window of 2": without_errors(lambda x: only(x, "shot"), window=2.0),
        "bins, a = 1": binned_rates,
        "t = 2p(1-p)": without_errors(lambda x: only(x, "shot"), log_t=independent),
        "exchange shots weighted as TPS shots": without_errors(exchange_as_shots),
    }.items():
        print(row(name, *log_ratios(simulation, estimate)), flush=True)
    print(
        row("t of the committor alone", *log_ratios(simulation, without_errors(lambda x: only(x, "shot")), channels=False))
    )
    low = low_barrier()
    for name, fixed in (("right: free runs to an entry, 3 kT", False), ("free runs cut at a fixed time", True)):
        runs = Simulation(low, n_runs, seed)
        runs.shots(2000)
        add_free_runs(runs, n_walkers=100, fixed_time=fixed)
        print(row(name, *log_ratios(runs, without_errors())), flush=True)
    limit, share = limit_that_cuts(low, 0.05)
    limited = simulated(low, n_runs, STEPS, seed, exchange_every=0, limit=limit)
    print(f"share of transitions over {limit} frames: ln of estimate / exact ({share:.4f})")
    for name, transform in (("right", lambda x: x), ("shots over the limit kept", without_limit)):
        found = [np.log(share_over(limited.excursions(run), limit, transform) / share) for run in range(n_runs)]
        print(row(name, np.array(found)[:, None], np.full((n_runs, 1), np.nan)), flush=True)


def low_barrier() -> GuidedWalk:
    return line(np.array([barrier(3.0, 15, 1.0)] * 2), friction=[0.5, 0.03], hop=HOP)


def limit_that_cuts(walk: GuidedWalk, share: float) -> tuple[int, float]:
    """Length limit beyond which at most `share` of the transitions are, and the exact share."""
    beyond = 1 - np.cumsum(walk.lengths_of_transitions(2000))
    limit = int(np.argmax(beyond <= share))
    return limit, beyond[limit]


def share_over(x: Excursions, limit: int, transform=lambda x: x) -> float:
    """Estimated share of transitions longer than the limit."""
    weights = reweight(transform(x), fewest=0).weights * x.is_transition()
    return weights[x.length > limit].sum() / weights.sum()


def without_limit(x: Excursions) -> Excursions:
    return replace(x, limit=np.full(len(x.kind), np.inf))


def table_of_slopes(n_runs, seed):
    print(HEAD)
    for slope in (0.5, 1.0, 2.0):
        simulation = simulated(two_channels(HEIGHT, SITES, hop=HOP), n_runs, STEPS, seed, slope=slope)
        for name, kinds in (("shots", ["shot"]), ("exchange shots", ["exchange"])):
            estimate = with_errors(lambda x, kinds=kinds: only(x, *kinds))
            print(row(f"log-odds x {slope}, {name}", *log_ratios(simulation, estimate)), flush=True)


def three_states(height=4.0, n=12) -> GuidedWalk:
    """Three arms with barriers and depths of their own."""
    x = np.linspace(0, 1, n)
    return star(
        [
            -(height + drop) * np.sin(np.pi * np.minimum(x * stretch, 1) / 2) ** 2
            for drop, stretch in ((0.0, 1.3), (0.7, 1.15), (1.3, 1.0))
        ]
    )


def table_of_three_states(n_runs, seed):
    simulation = simulated(three_states(), n_runs, STEPS, seed)
    print(HEAD)
    print(row("three states: all", *log_ratios(simulation, with_errors(), channels=False)), flush=True)


def table_of_speed(n_runs, seed):
    simulation = simulated(two_channels(7.0, 45, hop=HOP), 4, 1000, seed)
    x = simulation.excursions(0, 1, 2, 3)
    begin = time.process_time()
    found = reweight(x, fewest=0)
    found.log_error()
    used = time.process_time() - begin
    print(f"{len(x.kind)} excursions, {len(x.log_committor)} frames, 200 replicates: {used:.1f} s CPU")


TABLES = {
    "estimators": table_of_estimators,
    "controls": table_of_controls,
    "slopes": table_of_slopes,
    "three": table_of_three_states,
    "speed": table_of_speed,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", choices=TABLES, action="append")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for each in arguments.table or TABLES:
        print(f"\n{each}")
        TABLES[each](arguments.runs, arguments.seed)

"""Does the search for formulas find a known truth, and how soon? Six committors on synthetic shots.

Every data set has 3000 points of 20 inputs, most of them nuisance, and two legs a point. For each truth and engine
are printed the median over seeds of the gap (mean KL divergence of the true from the fitted outcomes on 20000 new points,
nats per leg), the fraction of seeds with exactly the right variables, and the fraction with these and a gap below the
target. The time is that of the processor, and the same for all engines. "operon" needs pyoperon, "gplearn" gplearn. The
log loss of gplearn is the likelihood too; the programs of its last generation go through the same back end as the others.

    python benchmarks/symbolic_truths.py [--truths sum nested] [--engines score operon gplearn] [--seeds 10] [--seconds 5]
    python benchmarks/symbolic_truths.py --shuffled 40 [--points 20]
    python benchmarks/symbolic_truths.py --timings
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from ops_aimmd.committor.likelihood import negative_log_likelihood
from ops_aimmd.committor.training_set import TrainingSet
from ops_aimmd.explain.formulas.constants import PRIOR_LOG_ODDS, Shots, refit
from ops_aimmd.explain.formulas.expressions import Node, constant, exp, log, with_constants, x
from ops_aimmd.explain.formulas.fit_expressions import ENGINES, SHARE_OF_FRONT, fit_expressions
from ops_aimmd.explain.formulas.front import Front, make_front

N_INPUTS, N_POINTS, LEGS = 20, 3000, 2


def _positive(rng: np.random.Generator, n: int, n_inputs: int) -> np.ndarray:
    """Positive inputs: independent, and every fifth one of the nuisances correlated with an earlier input."""
    values = rng.uniform(0.1, 2.0, (n, n_inputs))
    for j in range(9, n_inputs, 5):
        values[:, j] = 0.7 * values[:, j - 9] + 0.3 * values[:, j]
    return values


def _dihedrals(rng: np.random.Generator, n: int, n_inputs: int) -> np.ndarray:
    """sin and cos of eight angles, then distances."""
    angles = rng.uniform(-np.pi, np.pi, (n, 8))
    distances = rng.uniform(0.1, 2.0, (n, n_inputs - 16))
    return np.hstack([np.stack([np.sin(angles), np.cos(angles)], axis=2).reshape(n, 16), distances])


@dataclass(frozen=True)
class Truth:
    """A committor with known log-odds; ``seconds``, ``gap`` and ``success`` are the targets."""

    log_odds: Callable[[np.ndarray], np.ndarray]
    variables: tuple[int, ...]
    seconds: float
    gap: float
    success: float
    inputs: Callable = _positive

    def sample(self, n: int, seed: int, n_inputs: int = N_INPUTS) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (n, n_inputs) and counts (n, 2)."""
        rng = np.random.default_rng(seed)
        x = self.inputs(rng, n, n_inputs)
        reached = rng.binomial(LEGS, expit(self.log_odds(x.T)))
        return x, np.stack([LEGS - reached, reached], axis=1)

    def mean_divergence(self, committor: Callable, n_inputs: int = N_INPUTS) -> float:
        """Mean KL divergence on new points."""
        x = self.inputs(np.random.default_rng(987654321), 20000, n_inputs)
        true = expit(self.log_odds(x.T))
        p = np.clip(committor(x), 1e-12, 1 - 1e-12)
        return float(np.mean(true * np.log(true / p) + (1 - true) * np.log((1 - true) / (1 - p))))


TRUTHS = {
    "sum": Truth(lambda x: 2.3 * x[0] - 1.7 * x[1] * x[2] + 0.9 * np.log(x[3]) + 0.5, (0, 1, 2, 3), 5, 1.5e-3, 0.95),
    "dihedrals": Truth(
        lambda x: 2.2 * (x[1] * x[3] + x[0] * x[2]) - 1.5 * x[4] + 1.8 * x[16] - 2.4,
        (0, 1, 2, 3, 4, 16),
        5,
        1.5e-3,
        0.95,
        _dihedrals,
    ),
    "ratios": Truth(lambda x: 6 * (x[0] - x[1]) / (x[0] + x[1]) - 1.5 * x[2] / x[3] + 1.8, (0, 1, 2, 3), 5, 1.5e-3, 0.95),
    "exp+ratio": Truth(
        lambda x: 6 * x[0] - 3 * np.exp(-3.2 * x[1]) - 4 * x[2] / (x[3] + 0.35) + 1.2, (0, 1, 2, 3), 5, 2.5e-3, 0.90
    ),
    "nested": Truth(
        lambda x: 5 * (x[0] - x[1]) * x[2] / (1 + x[3] ** 2) + 1.2 * x[4] - 0.4, (0, 1, 2, 3, 4), 15, 1.5e-3, 0.90
    ),
    "bump": Truth(
        lambda x: 6 * np.exp(-2 * (x[0] - 1.3) ** 2) - 3.5 * np.sqrt(x[1] * x[2] + 0.3) + 1.5 * x[3] - 0.5,
        (0, 1, 2, 3),
        30,
        2.5e-3,
        0.80,
    ),
}


def measure(truth: Truth, engine: str, seed: int, seconds: float) -> tuple[float, bool, float, str]:
    """Gap, right variables, CPU seconds, and the formula."""
    training_set = TrainingSet(*truth.sample(N_POINTS, seed))
    start = time.process_time()
    if engine == "gplearn":
        front = by_gplearn(training_set, seconds, seed)
    else:
        front = fit_expressions(training_set, engine=engine, time_limit=seconds, seed=seed, progress=False)
    cpu = time.process_time() - start
    best = front.best
    return truth.mean_divergence(best.to_model().committor), best.inputs == truth.variables, cpu, str(best)


def by_gplearn(training_set: TrainingSet, seconds: float, seed: int, population: int = 1000) -> Front:
    """Front of the best programs of each length in the last generation that the time allows."""
    import gplearn.functions
    from gplearn.genetic import SymbolicClassifier

    start, points, counts = time.process_time(), training_set.descriptors, training_set.counts
    exponential = gplearn.functions.make_function(function=_protected_exp, name="exp", arity=1, wrap=False)
    outcomes = np.repeat([0, 1], len(points))
    search = SymbolicClassifier(
        population_size=population,
        generations=1,
        function_set=("add", "sub", "mul", "div", "log", "sqrt", exponential),
        parsimony_coefficient=1e-3,  # nats per leg and node
        warm_start=True,
        random_state=seed,
    )
    while time.process_time() - start < (1 - SHARE_OF_FRONT) * seconds:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            search.fit(np.vstack([points, points]), outcomes, sample_weight=counts.T.ravel())
        search.generations += 1
    best: dict[int, Any] = {}
    for program in search._programs[-1]:
        if program is not None and np.isfinite(program.raw_fitness_):
            length = len(program.program)
            if length not in best or program.raw_fitness_ < best[length].raw_fitness_:
                best[length] = program
    candidates = [constant(1.0) * _from_gplearn(iter(best[k].program)) + constant(0.0) for k in sorted(best)[:25]]
    names = tuple(f"x{i}" for i in range(points.shape[1]))
    shots = Shots(np.ascontiguousarray(points.T), counts[:, 1], counts.sum(axis=1), training_set.chains)
    left = seconds - (time.process_time() - start)
    n_tried = population * (search.generations - 1)
    return make_front(candidates, shots, range(len(names)), names, points, "description_length", n_tried, left)


def _protected_exp(a: np.ndarray) -> np.ndarray:
    return np.exp(np.clip(a, -50, 50))


def _from_gplearn(program) -> Node:
    """Our tree of a program in prefix order; what gplearn protects is undefined here."""
    part = next(program)
    if isinstance(part, int | np.integer):
        return x(int(part))
    if isinstance(part, float):
        return constant(part)
    return Node(part.name, tuple(_from_gplearn(program) for _ in range(part.arity)))


def truths(arguments) -> None:
    heads = f"{'truth':10} {'engine':8} {'limit/s':>8} {'CPU/s':>6} {'gap':>9}"
    print(f"{heads} {'variables':>10} {'success':>8} {'target':>7}  constant")
    for name in arguments.truths:
        truth = TRUTHS[name]
        mean = expit(truth.log_odds(truth.inputs(np.random.default_rng(0), 20000, N_INPUTS).T)).mean()
        for engine in arguments.engines:
            seconds = truth.seconds if arguments.seconds is None else arguments.seconds
            rows = []
            for seed in range(arguments.first, arguments.first + arguments.seeds):
                rows.append(measure(truth, engine, seed, seconds))
                if arguments.verbose:
                    gap, variables_right, cpu, formula = rows[-1]
                    verdict = "right" if variables_right else "WRONG"
                    print(f"    {seed:3} {gap:.1e} {verdict} {cpu:.1f} s  {formula}", flush=True)
            of_constant = truth.mean_divergence(lambda x, mean=mean: np.full(len(x), mean))
            gaps, right = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
            cpu = np.median([row[2] for row in rows])
            success = np.mean(right & (gaps <= truth.gap))
            print(
                f"{name:10} {engine:8} {seconds:8g} {cpu:6.1f} {np.median(gaps):9.1e} {np.mean(right):10.2f} "
                f"{success:8.2f} {truth.success:7.2f}  {of_constant:.2f}",
                flush=True,
            )


def shuffled(n_seeds: int, seconds: float, n_points: int, first: int) -> None:
    """Outcomes dealt to the points at random: the constant is the only right answer."""
    constant_picked = []
    for seed in range(first, first + n_seeds):
        points, counts = TRUTHS["sum"].sample(n_points, seed)
        counts = np.random.default_rng(seed).permutation(counts)
        front = fit_expressions(TrainingSet(points, counts), time_limit=seconds, seed=seed, progress=False)
        constant_picked.append(front.best.inputs == ())
    print(
        f"shuffled outcomes of {n_points} points: the constant was picked in {sum(constant_picked)} of {n_seeds} "
        f"({seconds:g} s each)"
    )


def timings() -> None:
    """One fit of six constants, next to L-BFGS of torch from the same start; then 200 inputs and 1e5 points end to end."""
    form = constant(1) * x(0) + constant(-1) * (x(1) * x(2))
    form = form + (constant(1) * log(x(3)) + constant(0.0))
    form = form + constant(-1) * exp(constant(-1) * x(1))
    for n in (3000, 100_000):
        rng = np.random.default_rng(0)
        columns = _positive(rng, n, 4).T.copy()
        truth = with_constants(form, [2.3, -1.7, 0.9, 0.5, -2.0, -1.5])
        q = _numpy_form(columns, [2.3, -1.7, 0.9, 0.5, -2.0, -1.5])
        reached = rng.binomial(LEGS, expit(q)).astype(float)
        shots = Shots(columns, reached, np.full(n, float(LEGS)), np.zeros(n, int))
        repeats = 20 if n < 1e4 else 5
        cold, fitted = _milliseconds(lambda: refit(form, shots, 1e-10), repeats)  # noqa: B023
        warm, _ = _milliseconds(lambda: refit(truth, shots, 1e-10), repeats)  # noqa: B023
        lbfgs, loss = _milliseconds(lambda: _lbfgs(columns, reached), 3)  # noqa: B023
        print(
            f"6 constants, {n} points: {warm:.2f} ms from the truth, {cold:.2f} ms from ones; torch L-BFGS "
            f"{lbfgs:.1f} ms from ones; loss less that of L-BFGS {fitted.loss - loss:.1e} nats"
        )
    truth, n_inputs = TRUTHS["sum"], 200
    points, counts = truth.sample(100_000, 0, n_inputs)
    start = time.process_time()
    front = fit_expressions(TrainingSet(points, counts), time_limit=15, seed=0, progress=False)
    seconds = time.process_time() - start
    gap = truth.mean_divergence(front.best.to_model().committor, n_inputs)
    print(f"200 inputs, 1e5 points: {seconds:.1f} s, gap {gap:.1e}, inputs {front.best.inputs}")


def _milliseconds(function: Callable, repeats: int):
    times = []
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        times.append(1e3 * (time.process_time() - start))
    return float(np.median(times)), result


def _numpy_form(columns, c):
    return (
        c[0] * columns[0]
        + c[1] * columns[1] * columns[2]
        + c[2] * np.log(columns[3])
        + c[3]
        + c[4] * np.exp(c[5] * columns[1])
    )


def _lbfgs(columns: np.ndarray, reached: np.ndarray) -> float:
    """Minimum of the same objective by torch."""
    x, counts = torch.tensor(columns), torch.tensor(np.stack([LEGS - reached, reached], axis=1))
    c = torch.tensor([1.0, -1.0, 1.0, 0.0, -1.0, -1.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [c], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        q = c[0] * x[0] + c[1] * x[1] * x[2] + c[2] * torch.log(x[3]) + c[3] + c[4] * torch.exp(c[5] * x[1])
        loss = negative_log_likelihood(q[:, None], counts).sum() + q.square().mean() / (2 * PRIOR_LOG_ODDS**2)
        loss.backward()
        return loss

    optimiser.step(closure)
    return closure().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--truths", nargs="+", default=list(TRUTHS), choices=list(TRUTHS))
    parser.add_argument("--engines", nargs="+", default=["score"], choices=[*ENGINES, "gplearn"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seconds", type=float, help="CPU seconds; those of the targets by default")
    parser.add_argument("--shuffled", type=int, metavar="SEEDS", help="shuffled outcomes instead")
    parser.add_argument("--points", type=int, default=N_POINTS, help="points with shuffled outcomes")
    parser.add_argument("--timings", action="store_true", help="timings instead")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    if arguments.timings:
        timings()
    elif arguments.shuffled:
        shuffled(arguments.shuffled, arguments.seconds or 3, arguments.points, arguments.first)
    else:
        truths(arguments)


if __name__ == "__main__":
    main()

r"""Does path sampling keep its ensemble while many chains train one model? The answer is known exactly.

Two-way shooting on a birth-death chain, whose mean transition-path length follows from linear algebra. Several chains share
a learner that is trained on the fly. A shot takes as long as its legs, so that short shots come back first and overtake
long ones. All chains begin with paths of the exact ensemble: what the mean path length is off by, the discipline did.

Prints for each discipline, right ones and wrong ones, the bias of the mean path length over all steps of all chains, its
standard error from many independent runs, and the fraction of accepted shots.

    python benchmarks/asynchronous_balance.py            # about five minutes on one core
    python benchmarks/asynchronous_balance.py --quick    # 20 seconds, with larger errors

Weights, density and schedule are those of the package; the committor of a site is the fraction of the outcomes seen there.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field

import numpy as np
from exact_markov_chains import MarkovChainPathEnsemble
from scipy.special import expit

from ops_aimmd.committor.schedule import DiminishingSchedule
from ops_aimmd.committor.selection import log_weight_function, selection_log_weights
from ops_aimmd.systems.markov_chain import reversible_transition_matrix

LINKS, STAYS = [1.7, 0.2, 0.2], [0.0, 12.0, 0.1, 0.0]
"""Conductances between neighbouring sites, A first and B last, and of staying. Paths linger at the first site between, so
that their lengths, and the times that shots take, differ much."""

LINKS_OF_ANOTHER, STAYS_OF_ANOTHER = [1.0, 1.0, 0.3, 0.6], [0.0, 1.0, 8.0, 0.2, 0.0]
"""Paths linger at the second site between: those that do have long shots."""

N_CHAINS = 4

SCALE = 0.5
"""Of the Lorentzian, in units of log-odds: narrower than the default, so that a change of the model changes the weights."""

DENSITY_PRIOR_PATHS = 5.0
"""Weight, in paths, of the uniform density; as in the learner."""

PSEUDO_OUTCOMES = 0.5
"""Added to the outcomes in each state of each site, Jeffreys' prior."""

MODELS_BY_CLOCK = [[0.1, 9.0], [1.3, 4.6]]
"""Selection weights of the two sites by two models that take turns."""

LEGS_AT_ONCE = 50_000
"""Legs of a site that are made in advance, all at once."""


class Chain:
    """A birth-death chain with A and B at its ends. Paths and legs are told by their visits to the sites between.

    Selection weights are functions of the site, so that the visits are all that shooting asks of a path.
    """

    def __init__(self, links, stays):
        matrix = reversible_transition_matrix(np.diag(links, 1) + np.diag(links, -1) + np.diag(stays))
        self.n_sites = len(matrix) - 2
        self.exact = MarkovChainPathEnsemble(matrix, [[0], [len(matrix) - 1]], [(0, 1)])
        self._left = np.array([matrix[i, i - 1] for i in range(1, self.n_sites + 1)])
        self._stay = np.array([matrix[i, i] for i in range(1, self.n_sites + 1)])

    def legs(self, site, n_legs, rng):
        """Legs from a site outwards; visits (n_legs, n_sites) without the first frame, and whether B was reached."""
        visits = np.zeros((n_legs, self.n_sites), dtype=np.int32)
        in_b = np.zeros(n_legs, dtype=bool)
        running, sites = np.arange(n_legs), np.full(n_legs, site)
        while len(running):
            draw = rng.random(len(running))
            left = self._left[sites]
            sites = sites - (draw < left) + (draw >= left + self._stay[sites])
            in_b[running[sites == self.n_sites]] = True
            inside = (sites >= 0) & (sites < self.n_sites)
            running, sites = running[inside], sites[inside]
            visits[running, sites] += 1
        return visits, in_b

    def transition_paths(self, n_paths, rng):
        """Visits of independent paths from A to B, (n_paths, n_sites)."""
        found, n_found = [], 0
        while n_found < n_paths:
            visits, in_b = self.legs(0, LEGS_AT_ONCE, rng)  # out of A there is one way only
            visits[:, 0] += 1
            found.append(visits[in_b])
            n_found += in_b.sum()
        return np.concatenate(found)[:n_paths]


class LegSupply:
    """Independent legs, made in advance and each used once."""

    def __init__(self, chain, rng):
        self._chain, self._rng = chain, rng
        self._stock = [(np.empty((0, chain.n_sites), np.int32), np.empty(0, bool))] * chain.n_sites

    def take(self, sites):
        """One leg from each site."""
        visits, in_b = np.empty((len(sites), self._chain.n_sites), np.int32), np.empty(len(sites), bool)
        for site in range(self._chain.n_sites):
            wanted = np.flatnonzero(sites == site)
            if len(self._stock[site][1]) < len(wanted):
                self._stock[site] = self._chain.legs(site, LEGS_AT_ONCE + len(wanted), self._rng)
            stock = self._stock[site]
            visits[wanted], in_b[wanted] = stock[0][: len(wanted)], stock[1][: len(wanted)]
            self._stock[site] = stock[0][len(wanted) :], stock[1][len(wanted) :]
        return visits, in_b


@dataclass(frozen=True)
class Discipline:
    """What many chains on one learner may do, right or wrong.

    Attributes
    ----------
    name : str
    schedule : DiminishingSchedule or None
        None: train every third shot, for ever.
    memory : int or None
        Train on so many last shots and paths only.
    weighs_with : {"pick", "acceptance", "old and new", "old path"}
        The model version that the acceptance weighs both paths with: that of the pick; the one that is there when the
        shot is back; the former for the old path and the latter for the new one. Or the density of the old path alone.
    frames_per_model : float or None
        Two models in turns, each for so many frames of wall-clock time, in the place of training.
    frozen_after : int
        Steps of each chain after which the model is frozen; only paths after that are read.
    lifetime : float or None
        Mean number of frames after which a worker dies.
    draws_again : bool
        A new shot in the place of one whose worker has died, not the same one again.
    stops_at_total : bool
        Stop at a total number of steps of all chains and drop the shots in flight.
    reads_all_chains : bool
        At each finished step read the current paths of all chains, not only that of the chain that made the step.
    """

    name: str
    schedule: DiminishingSchedule | None = field(default_factory=DiminishingSchedule)
    memory: int | None = None
    weighs_with: str = "pick"
    frames_per_model: float | None = None
    frozen_after: int = 0
    lifetime: float | None = None
    draws_again: bool = False
    stops_at_total: bool = False
    reads_all_chains: bool = False


@dataclass(frozen=True)
class Densities:
    """A `CommittorDensity` for each of many runs, all at once.

    Attributes
    ----------
    values : array, shape (n_runs, n_bins)
    """

    values: np.ndarray

    @classmethod
    def from_visits(cls, log_odds, visits, uniform_weight, n_bins=10):
        """Of frames at sites: log-odds and numbers of visits (n_runs, n_sites), weight of the uniform density (n_runs,)."""
        n_runs = len(visits)
        cells = np.arange(n_runs)[:, None] * n_bins + cls._bins(log_odds, n_bins)
        counts = np.bincount(cells.ravel(), visits.ravel(), minlength=n_runs * n_bins).reshape(n_runs, n_bins)
        total = visits.sum(axis=1) + uniform_weight
        share = n_bins / np.where(total > 0, total, 1.0)
        values = (counts + uniform_weight[:, None] / n_bins) * share[:, None]
        return cls(np.where(total[:, None] > 0, np.maximum(values, 1e-3), 1.0))

    def log_density(self, log_odds, pair):
        """As that of `CommittorDensity`, for the sites of all runs one after another."""
        bins = self._bins(log_odds.reshape(len(self.values), -1), self.values.shape[1])
        return np.log(np.take_along_axis(self.values, bins, axis=1)).ravel()

    @staticmethod
    def _bins(log_odds, n_bins):
        return np.minimum((expit(log_odds) * n_bins).astype(int), n_bins - 1)


class Learners:
    """One learner for each of many independent runs, in step: every run adds one shot at a time."""

    def __init__(self, n_runs, n_sites, discipline):
        self._discipline = discipline
        self._runs = np.arange(n_runs)
        self._outcomes = np.zeros((n_runs, n_sites, 2))
        self._visits = np.zeros((n_runs, n_sites))
        self._n_paths = np.zeros(n_runs)
        self._remembered = []
        self._n_shots, self._shots_at_last_fit = 0, 0
        self._frozen = False
        self._log_weights = np.zeros((n_runs, n_sites))  # the model before any training: all sites are alike
        self._weight = log_weight_function("lorentzian", SCALE)

    def log_weights(self, now):
        """Logarithms of the selection weights of the sites, (n_runs, n_sites), by the model version at a time (n_runs,)."""
        if self._discipline.frames_per_model is None:
            return self._log_weights
        turn = (now // self._discipline.frames_per_model).astype(int) % len(MODELS_BY_CLOCK)
        return np.log(MODELS_BY_CLOCK)[turn]

    def add(self, sites, n_in_b, visits, was_sampled):
        """A shot, and the path that is current after it, of each run; initial paths do not count."""
        row = (sites, n_in_b, visits * was_sampled[:, None], was_sampled)
        self._put(row, 1)
        self._n_shots += 1
        if self._discipline.memory is not None:
            self._remembered.append(row)
            if len(self._remembered) > self._discipline.memory:
                self._put(self._remembered.pop(0), -1)
        self._train_if_due()

    def _put(self, row, sign):
        sites, n_in_b, visits, was_sampled = row
        self._outcomes[self._runs, sites, 1] += sign * n_in_b
        self._outcomes[self._runs, sites, 0] += sign * (2 - n_in_b)
        self._visits += sign * visits
        self._n_paths += sign * was_sampled

    def _train_if_due(self):
        schedule = self._discipline.schedule
        due = self._n_shots % 3 == 0 if schedule is None else schedule.due(self._n_shots, self._shots_at_last_fit)
        if due and not self._frozen:
            self._shots_at_last_fit = self._n_shots
            frames_per_path = self._visits.sum(axis=1) / np.maximum(self._n_paths, 1)
            self._log_weights = self.log_weights_with(self._visits, DENSITY_PRIOR_PATHS * frames_per_path)

    def log_weights_with(self, visits, uniform_weight):
        """By the committor as the shots tell it and the density of given visits."""
        with_prior = self._outcomes + PSEUDO_OUTCOMES
        log_committor = np.log(with_prior / with_prior.sum(axis=2, keepdims=True))
        densities = Densities.from_visits(log_committor[..., 1] - log_committor[..., 0], visits, uniform_weight)
        return selection_log_weights(log_committor.reshape(-1, 2), self._weight, densities).reshape(visits.shape)

    def freeze(self):
        self._frozen = True


class Sampling:
    """Many independent runs at once, each of several chains on one learner, each with a clock of its own.

    Every run goes from one finished shot to the next, whichever of its chains has made it.

    Parameters
    ----------
    chain : Chain
    discipline : Discipline
    n_runs, n_chains : int
    seed : int
    """

    def __init__(self, chain, discipline, n_runs, n_chains, seed):
        self._discipline = discipline
        self._rng = np.random.default_rng(seed)
        self._legs = LegSupply(chain, self._rng)
        self.learners = Learners(n_runs, chain.n_sites, discipline)
        self._runs = np.arange(n_runs)
        self._n_chains = n_chains
        shape = (n_runs, n_chains)
        self._paths = chain.transition_paths(n_runs * n_chains, self._rng).reshape(*shape, -1)
        self._was_sampled = np.zeros(shape, bool)
        self._now = np.zeros(n_runs)
        # the shots in flight
        self._log_weights = np.zeros(self._paths.shape)
        self._site = np.zeros(shape, int)
        self._trial = np.zeros_like(self._paths)
        self._n_in_b = np.zeros(shape, int)
        self._ends = np.zeros(shape)

    def run(self, n_steps, stops_at_total=False):
        """Make the steps of all chains; returns the mean path length (n_runs,) and the fraction of accepted shots."""
        steps = np.zeros(self._ends.shape, int)
        length_sum, n_accepted = np.zeros(len(self._runs)), 0
        for which in range(self._n_chains):
            self._shoot(np.full(len(self._runs), which))
        for _ in range(self._n_chains * n_steps):
            which = self._ends.argmin(axis=1)
            self._now = self._ends[self._runs, which]
            n_accepted += self._finish(which).sum()
            lengths = self._paths.sum(axis=2) + 2
            length_sum += lengths.mean(axis=1) if self._discipline.reads_all_chains else lengths[self._runs, which]
            steps[self._runs, which] += 1
            self._shoot(which)
            if not stops_at_total:
                done = steps[self._runs, which] == n_steps
                self._ends[self._runs, which] = np.where(done, np.inf, self._ends[self._runs, which])
        return length_sum / (self._n_chains * n_steps), n_accepted / steps.sum()

    def _shoot(self, which):
        """Pick a shooting point from the path of a chain of each run, and make the legs."""
        current = self._paths[self._runs, which]
        if self._discipline.weighs_with == "old path":
            log_weights = self.learners.log_weights_with(current, np.zeros(len(current)))
        else:
            log_weights = self.learners.log_weights(self._now)
        point, visits, n_in_b, took = self._shots_from(current, log_weights)
        last_attempt = took.copy()
        died = self._dead_before(took)
        while len(died):
            if self._discipline.draws_again:
                again = self._shots_from(current[died], log_weights[died])
                point[died], visits[died], n_in_b[died], last_attempt[died] = again
            took[died] += last_attempt[died]
            died = died[self._dead_before(last_attempt[died])]
        at = self._runs, which
        self._log_weights[at], self._site[at], self._trial[at] = log_weights, point, visits
        self._n_in_b[at], self._ends[at] = n_in_b, self._now + took

    def _dead_before(self, frames):
        """Indices of the shots whose worker dies before it has made the frames."""
        if self._discipline.lifetime is None:
            return np.empty(0, int)
        return np.flatnonzero(self._rng.exponential(self._discipline.lifetime, len(frames)) < frames)

    def _shots_from(self, current, log_weights):
        """Shooting points, visits of the trials, legs that reached B, frames made."""
        cumulative = np.cumsum(current * np.exp(log_weights), axis=1)
        point = (self._rng.random((len(current), 1)) * cumulative[:, -1:] >= cumulative).sum(axis=1)
        (visits, first_in_b), (second, second_in_b) = self._legs.take(point), self._legs.take(point)
        visits += second
        took = visits.sum(axis=1) + 2.0
        visits[np.arange(len(point)), point] += 1
        return point, visits, first_in_b.astype(int) + second_in_b, took

    def _finish(self, which):
        """Accept or reject the shot of a chain of each run, and learn from it."""
        at = self._runs, which
        old, new, point, n_in_b = self._paths[at], self._trial[at], self._site[at], self._n_in_b[at]
        of_the_pick, latest = self._log_weights[at], self.learners.log_weights(self._now)
        for_old = latest if self._discipline.weighs_with == "acceptance" else of_the_pick
        for_new = latest if self._discipline.weighs_with in ("acceptance", "old and new") else of_the_pick
        ratio = self._selection_probability(point, new, for_new) / self._selection_probability(point, old, for_old)
        accepted = (n_in_b == 1) & (self._rng.random(len(ratio)) < ratio)
        self._paths[at] = np.where(accepted[:, None], new, old)
        self._was_sampled[at] |= accepted
        self.learners.add(point, n_in_b, self._paths[at], self._was_sampled[at])
        return accepted

    def _selection_probability(self, point, visits, log_weights):
        """Of a frame at a site, in a path that is told by its visits."""
        weights = np.exp(log_weights)
        return weights[self._runs, point] / (visits * weights).sum(axis=1)


@dataclass(frozen=True)
class Measured:
    """Bias of the mean path length in per cent, its standard error, and the fraction of accepted shots."""

    bias: float
    error: float
    accepted: float


def measure(chain, discipline, n_runs, n_steps=200, n_chains=N_CHAINS, seed=1):
    """Bias of a discipline; the error is that of the mean of independent runs."""
    sampling = Sampling(chain, discipline, n_runs, n_chains, seed)
    if discipline.frozen_after:
        sampling.run(discipline.frozen_after)
        sampling.learners.freeze()
    mean_lengths, accepted = sampling.run(n_steps, discipline.stops_at_total)
    bias = 100 * (mean_lengths / chain.exact.mean_length() - 1)
    return Measured(bias.mean(), bias.std(ddof=1) / np.sqrt(n_runs), accepted)


FIXED = DiminishingSchedule(every=10**9)
RESTLESS = {"schedule": None, "memory": 10}
BY_CLOCK = {"frames_per_model": 50.0}

RIGHT = [
    Discipline("fixed model", schedule=FIXED),
    Discipline("diminishing training, version of the pick"),
    Discipline("the same, workers die, the same shot again", lifetime=50.0),
    Discipline("production: the version is frozen", frozen_after=200),
]
WRONG = [
    Discipline("training for ever on the last 50 paths", schedule=None, memory=50),
    Discipline("training for ever on the last 10 paths", **RESTLESS),
    Discipline("  and the version changes before the acceptance", weighs_with="acceptance", **RESTLESS),
    Discipline("  and p_old from the old version, p_new from the new", weighs_with="old and new", **RESTLESS),
    Discipline("two models in turns by the clock", **BY_CLOCK),
    Discipline("  and the version changes before the acceptance", weighs_with="acceptance", **BY_CLOCK),
    Discipline("  and p_old from the old version, p_new from the new", weighs_with="old and new", **BY_CLOCK),
    Discipline("density of the current path for both paths", weighs_with="old path"),
    Discipline("workers die, another shot is drawn", lifetime=50.0, draws_again=True),
    Discipline("paths of all chains read at each step of any", reads_all_chains=True),
]
READING = [
    Discipline("production, each chain's own steps read", frozen_after=200),
    Discipline("paths of all chains read at each step of any", frozen_after=200, reads_all_chains=True),
]
SHORT = [
    Discipline("diminishing training, version of the pick"),
    Discipline("production: the version is frozen", frozen_after=50),
    Discipline("  and stopped at a total, shots in flight dropped", frozen_after=50, stops_at_total=True),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the runs")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    fewer = 16 if options.quick else 1
    chain, another = Chain(LINKS, STAYS), Chain(LINKS_OF_ANOTHER, STAYS_OF_ANOTHER)
    print(f"{N_CHAINS} chains on one learner; exact mean path length {chain.exact.mean_length():.3f} frames")
    print(f"{'':52} {'bias, %':>8}    {'error':>5}  accepted  seconds")
    for title, model, disciplines, n_runs, n_steps in [
        ("right, 200 steps per chain", chain, RIGHT, 16_000, 200),
        ("wrong, 200 steps per chain", chain, WRONG, 4_000, 200),
        (f"another chain, mean path length {another.exact.mean_length():.3f} frames", another, READING, 4_000, 200),
        ("short runs, 20 steps per chain", chain, SHORT, 40_000, 20),
    ]:
        print(title)
        for discipline in disciplines:
            start = time.perf_counter()
            measured = measure(model, discipline, n_runs // fewer, n_steps, seed=options.seed)
            seconds = time.perf_counter() - start
            print(
                f"  {discipline.name:50} {measured.bias:+8.2f} +- {measured.error:5.2f}  {measured.accepted:8.3f}"
                f"  {seconds:7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

r"""Guided walks: Markov chains with inertia, exact by linear algebra, and path sampling on them in numpy.

A guided walker has a site and a sign, its velocity (P. Gustafson, Stat. Comput. 8, 357 (1998),
doi:10.1023/A:1008880707168). It proposes the next site in the direction of its sign, accepts with min(1, pi(next) /
pi(site)), and turns round otherwise. Now and then its sign is flipped (friction). Such chains obey skew detailed balance,

    pi(x) P((x, s) -> (y, r)) = pi(y) P((y, -r) -> (x, -s)),

so that a path and its reverse have the same probability, as in Langevin dynamics. The legs of a shot are not independent:
the probability of a transition path from a site is not 2p(1-p).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.special import logsumexp

from ops_aimmd.reweighting import Excursions


@dataclass(frozen=True)
class GuidedWalk:
    """A guided walk on sites, and what linear algebra says about it. Microstate 2 i + (s > 0) is site i with sign s.

    Attributes
    ----------
    energies : array, shape (n_sites,)
        In kT.
    proposals : list of (int, int, int, int, float)
        Site, sign, next site, sign there, probability; its reverse, (next, -sign there, site, -sign), has the same one.
        With the rest of the probability the sign is flipped.
    states : list of lists of int
        Sites of each state.
    channel : int array, shape (n_sites,)
    """

    energies: np.ndarray
    proposals: list = field(repr=False)
    states: list
    channel: np.ndarray

    @property
    def n_sites(self) -> int:
        return len(self.energies)

    @cached_property
    def matrix(self) -> np.ndarray:
        """Transition probabilities of microstates."""
        found = np.zeros((2 * self.n_sites, 2 * self.n_sites))
        for site, sign, target, sign_there, probability in self.proposals:
            accepted = min(1.0, np.exp(self.energies[site] - self.energies[target]))
            start = 2 * site + (sign > 0)
            found[start, 2 * target + (sign_there > 0)] += probability * accepted
        found[np.arange(len(found)), np.arange(len(found)) ^ 1] += 1 - found.sum(axis=1)  # turned round
        return found

    @cached_property
    def stationary(self) -> np.ndarray:
        """Equilibrium probability of each microstate."""
        found = np.repeat(np.exp(-self.energies), 2)
        return found / found.sum()

    @cached_property
    def state_of(self) -> np.ndarray:
        """State of each microstate, -1 between them."""
        found = np.full(2 * self.n_sites, -1)
        for number, sites in enumerate(self.states):
            for site in sites:
                found[2 * site : 2 * site + 2] = number
        return found

    @cached_property
    def committors(self) -> np.ndarray:
        """Probability of each microstate to reach each state first, (2 n_sites, n_states)."""
        between = self.state_of < 0
        found = np.eye(len(self.states))[self.state_of]
        rest = np.eye(between.sum()) - self.matrix[np.ix_(between, between)]
        found[between] = np.linalg.solve(rest, self.matrix[np.ix_(between, ~between)] @ found[~between])
        return found

    @cached_property
    def log_committor(self) -> np.ndarray:
        """Mean over the signs of each site, (n_sites, n_states); -+inf within the states."""
        with np.errstate(divide="ignore"):
            return np.log(self.committors.reshape(self.n_sites, 2, -1).mean(axis=1))

    @cached_property
    def transition_probability(self) -> np.ndarray:
        """Probability that a fresh two-way shot from each site joins two different states."""
        up, down = self.committors[1::2], self.committors[::2]
        return 1 - (up * down).sum(axis=1)

    @cached_property
    def exact(self) -> tuple[np.ndarray, np.ndarray]:
        """Fluxes (n_states, n_states) of transitions, and the probability (n_states,) of each state to be the last one."""
        flux = np.zeros((len(self.states), len(self.states)))
        arrivals = self.matrix @ self.committors
        for number in range(len(self.states)):
            inside = self.state_of == number
            flux[number] = self.stationary[inside] @ arrivals[inside]
        flux[np.diag_indices(len(flux))] = 0
        swapped = np.arange(len(self.matrix)) ^ 1
        return flux, self.stationary @ self.committors[swapped]

    @property
    def rates(self) -> np.ndarray:
        """Exact rate constants (n_states, n_states), per frame."""
        flux, last = self.exact
        return flux / last[:, None]

    def lengths_of_transitions(self, longest: int) -> np.ndarray:
        """Probability (longest + 1,) of each number of interior frames of transitions from state 0 to state 1."""
        between = self.state_of < 0
        start, end = self.state_of == 0, self.state_of == 1
        now = (self.stationary[start] @ self.matrix[start])[between]
        arrive, among = self.matrix[np.ix_(between, end)].sum(axis=1), self.matrix[np.ix_(between, between)]
        found = np.zeros(longest + 1)
        for length in range(1, longest + 1):
            found[length], now = now @ arrive, now @ among
        return found / self.exact[0][0, 1]

    @cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Cumulative probabilities and targets of each microstate, most probable first."""
        width = (self.matrix > 0).sum(axis=1).max()
        targets = np.argsort(-self.matrix, axis=1, kind="stable")[:, :width]
        cumulative = np.cumsum(np.take_along_axis(self.matrix, targets, axis=1), axis=1)
        cumulative[:, -1] = 1.0
        return cumulative, targets

    def step(self, microstates, rng) -> np.ndarray:
        """One step of many walkers."""
        cumulative, targets = self._tables
        draws = rng.random(len(microstates))
        column = (draws[:, None] > cumulative[microstates, :-1]).sum(axis=1)
        return targets[microstates, column]

    def legs(self, microstates, rng, limit=10**9) -> tuple[np.ndarray, np.ndarray]:
        """Run walkers until they are in a state, or for `limit` steps.

        Returns the microstates (steps + 1, n), the first one those given, and the number of steps (n,) of each.
        """
        history = [np.asarray(microstates)]
        steps = np.zeros(len(microstates), dtype=int)
        running = np.flatnonzero(self.state_of[history[0]] < 0)
        while len(running) and len(history) <= limit:
            now = history[-1].copy()
            now[running] = self.step(now[running], rng)
            steps[running] += 1
            history.append(now)
            running = running[self.state_of[now[running]] < 0]
        return np.array(history), steps


def line(energies, friction, hop=0.0, state_width=3) -> GuidedWalk:
    """Two states, A and B at the ends of channels with `energies` (n_channels, n) and `friction` (n_channels,)."""
    energies = np.atleast_2d(energies)
    n_channels, n = energies.shape
    proposals = []
    for c in range(n_channels):
        move = (1 - friction[c]) * (1 - hop)
        for i in range(n):
            proposals += [(c * n + i, s, c * n + i + s, s, move) for s in (-1, 1) if 0 <= i + s < n]
            proposals += [
                (c * n + i, s, d * n + i, s, hop / (n_channels - 1)) for s in (-1, 1) for d in range(n_channels) if d != c
            ]
    sides = [
        [c * n + i for c in range(n_channels) for i in part] for part in (range(state_width), range(n - state_width, n))
    ]
    channel = np.repeat(np.arange(n_channels), n)
    return GuidedWalk(energies.ravel(), proposals, sides, channel)


def star(energies, friction=0.2, state_width=3) -> GuidedWalk:
    """One state at the end of each arm; `energies` (n_arms, n) outwards from the hub, where they are equal."""
    n_arms, n = np.shape(energies)
    proposals = []
    for arm in range(n_arms):
        for i in range(n):
            proposals += [(arm * n + i, s, arm * n + i + s, s, 1 - friction) for s in (-1, 1) if 0 <= i + s < n]
        proposals += [(arm * n, -1, other * n, 1, (1 - friction) / n_arms) for other in range(n_arms)]
    states = [[arm * n + i for i in range(n - state_width, n)] for arm in range(n_arms)]
    return GuidedWalk(np.ravel(energies), proposals, states, np.zeros(n_arms * n, int))


def barrier(height, n, drop=0.0, width=0.5) -> np.ndarray:
    """Energies (n,) of a barrier in the middle; the right side is lower by `drop`."""
    x = np.linspace(-1, 1, n)
    return height * np.exp(-((x / width) ** 2) / 2) - drop * (x + 1) / 2


def two_channels(height=7.0, n=25, drop=1.0, hop=0.01) -> GuidedWalk:
    """Two channels of different friction: t / 2p(1-p) at p = 1/2 is about 1 in one and 1.6 in the other."""
    energies = np.array([barrier(height, n, drop), barrier(height, n, drop)])
    return line(energies, friction=[0.5, 0.03], hop=hop)


@dataclass
class Simulation:
    """Path sampling on a guided walk, of many independent runs at once.

    Attributes
    ----------
    walk : GuidedWalk
    n_runs : int
        Independent runs, each with one chain and its free runs.
    seed : int
    slope : float
        Factor on the log-odds of the committor that guides (two states; for more, all logarithms, normalised again).
    limit : int
        Largest number of frames of a path between the states.
    all_legs : bool
        Run legs over the limit, too, until they are in a state.
    exponent : float
        v of the configurations is (4 sum_i<j p_i p_j)^exponent.
    """

    walk: GuidedWalk
    n_runs: int
    seed: int
    slope: float = 1.0
    limit: int = 10**9
    all_legs: bool = False
    exponent: float = 1.0

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        scaled = self.slope * self.walk.log_committor
        with np.errstate(invalid="ignore"):
            self.log_committor = scaled - logsumexp(scaled, axis=1, keepdims=True)
        p = np.exp(self.log_committor)
        variance = (1 - (p**2).sum(axis=1)) / 2
        with np.errstate(divide="ignore"):
            self.log_v = self.exponent * np.log(4 * variance)
            self.selection = 1 / (1 + np.log(4 * variance) ** 2)
        self.rows = [[] for _ in range(self.n_runs)]

    def paths(self, sites, rng) -> tuple:
        """Two-way shots from sites: interior sites of each path, ends (n, 2), lengths (n,)."""
        walk, n = self.walk, len(sites)
        start = 2 * sites + rng.integers(2, size=n)
        history, steps = walk.legs(np.concatenate([start, start ^ 1]), rng, 10**9 if self.all_legs else self.limit + 1)
        ends = walk.state_of[history[steps, np.arange(2 * n)]]
        trials = []
        for i in range(n):
            forward = history[: steps[i] + (ends[i] < 0), i] // 2
            backward = history[: steps[n + i] + (ends[n + i] < 0), n + i] // 2
            trials.append(np.concatenate([backward[:0:-1], forward]))
        return trials, np.stack([ends[n:], ends[:n]], axis=1), np.array([len(t) for t in trials])

    def first_paths(self):
        """A transition path of each run, from shots near the barrier, in one channel after the other."""
        variance = 1 - (np.exp(self.log_committor) ** 2).sum(axis=1)
        channels = np.unique(self.walk.channel)
        tops = [np.argmax(np.where(self.walk.channel == channel, variance, 0)) for channel in channels]
        start_sites = np.resize(tops, self.n_runs)
        paths = [None] * self.n_runs
        while any(path is None for path in paths):
            trials, ends, lengths = self.paths(start_sites, self.rng)
            for i, trial in enumerate(trials):
                if self._in_ensemble(ends[i], lengths[i]) and paths[i] is None:
                    paths[i] = trial
        return paths

    def _in_ensemble(self, ends, length) -> bool:
        return ends.min() >= 0 and ends[0] != ends[1] and length <= self.limit

    def shots(self, n_steps, burn_in=100, exchange_every=0, chain=0):
        """Guided TPS; every `exchange_every`-th step shoots from the configuration beside the path instead."""
        walk, rng = self.walk, self.rng
        paths = self.first_paths()
        between = np.flatnonzero(walk.state_of[::2] < 0)
        log_rho_v = self.log_v - walk.energies
        point = rng.choice(between, size=self.n_runs)
        for step in range(-burn_in, n_steps):
            exchange = exchange_every and step % exchange_every == 0
            for _ in range(5 if exchange_every else 0):  # Metropolis moves of the configurations
                proposed = rng.choice(between, size=self.n_runs)
                taken = np.log(rng.random(self.n_runs)) < log_rho_v[proposed] - log_rho_v[point]
                point = np.where(taken, proposed, point)
            weights = np.exp(self.log_v) if exchange else self.selection
            sums = np.array([weights[path].sum() for path in paths])
            picks = np.array(
                [np.searchsorted(np.cumsum(weights[path]), rng.random() * s) for path, s in zip(paths, sums, strict=True)]
            )
            picks = np.minimum(picks, [len(path) - 1 for path in paths])
            picked = np.array([path[i] for path, i in zip(paths, picks, strict=True)])
            sites = point if exchange else picked
            trials, ends, lengths = self.paths(sites, rng)
            accept = rng.random(self.n_runs)
            for run, trial in enumerate(trials):
                if step >= 0:
                    kind = "exchange" if exchange else "shot"
                    log_p = np.log(weights[picked[run]] / sums[run])
                    self.rows[run].append((kind, chain, step, ends[run], lengths[run], trial, sites[run], log_p, ()))
                if self._in_ensemble(ends[run], lengths[run]) and accept[run] < sums[run] / weights[trial].sum():
                    paths[run] = trial
                    if exchange:
                        point[run] = picked[run]

    def free_runs(self, n_walkers, n_frames, fixed_time=False, limit=10**7):
        """Free runs from each state, to the first entry after `n_frames`; the control cuts them there."""
        walk, rng = self.walk, self.rng
        n_states = len(walk.states)
        start = np.concatenate(
            [
                np.flatnonzero(walk.state_of == s)[
                    rng.choice(
                        len(walk.states[s]) * 2,
                        p=_normalised(walk.stationary[walk.state_of == s]),
                        size=self.n_runs * n_walkers,
                    )
                ]
                for s in range(n_states)
            ]
        )
        now, history, done = start, [start.astype(np.uint16)], np.full(len(start), -1)
        while (done < 0).any() and len(history) < limit:
            new = walk.step(now, rng)
            entered = (walk.state_of[new] >= 0) & (walk.state_of[now] < 0)
            now = new
            history.append(now.astype(np.uint16))
            ends = entered | fixed_time
            done[(done < 0) & ends & (len(history) > n_frames)] = len(history) - 1
        history = np.array(history)
        for number in range(len(start)):
            run, name = number % self.n_runs, number // self.n_runs
            self.rows[run] += self._cut(history[: done[number] + 1, number], name)

    def _cut(self, microstates, name) -> list:
        """Excursions of a free run after its first entry, with the internal frames before each."""
        states, sites = self.walk.state_of[microstates], microstates // 2
        change = np.flatnonzero((states[1:] < 0) != (states[:-1] < 0)) + 1
        entries = change[states[change] >= 0]
        rows = []
        for entry, next_entry in zip(entries[:-1], entries[1:], strict=True):
            leave = change[np.searchsorted(change, entry, side="right")]
            ends = np.array([states[entry], states[next_entry]])
            rows.append(
                ("free", name, int(entry), ends, next_entry - leave, sites[leave:next_entry], 0, np.nan, sites[entry:leave])
            )
        return rows

    def excursions(self, *runs, stride=1, channels=True) -> Excursions:
        """One run, or several as one, as the input of the estimator; of each excursion every `stride`-th frame.

        With `channels`, the first channel is a feature.
        """
        rows = [row for run in runs for row in self.rows[run]]
        of_run = np.repeat(runs, [len(self.rows[run]) for run in runs])
        kind, chain, step, ends, lengths, frames, points, log_p, internal = zip(*rows, strict=True)
        kind, points, chain = np.array(kind), np.array(points), np.array(chain) + 1000 * of_run
        if stride > 1:
            frames = [f[min(stride // 2, len(f) // 2) :: stride] for f in frames]
        sites = np.concatenate(frames)
        return Excursions(
            kind=kind,
            chain=chain,
            step=np.array(step),
            ends=np.array(ends),
            length=np.array(lengths),
            offsets=np.cumsum([0, *map(len, frames)]),
            log_committor=self.log_committor[sites],
            point_log_committor=np.where((kind == "free")[:, None], np.nan, self.log_committor[points]),
            log_selection_probability=np.where(kind == "shot", log_p, np.nan),
            limit=np.where(kind == "free", np.inf, self.limit),
            internal_frames=np.array([len(each) for each in internal]),
            features=(self.walk.channel[sites, None] == 0) * float(channels),
            point_features=(self.walk.channel[points, None] == 0) * float(channels),
            exchange_log_weights={0: self.log_v[sites]} if "exchange" in kind else {},
        )

    def internal(self, *runs) -> tuple[np.ndarray, np.ndarray]:
        """Sites of the frames within the states, and the excursion after each, of the same runs as `excursions`."""
        parts = [row[-1] for run in runs for row in self.rows[run]]
        return np.concatenate([*map(np.asarray, parts)]).astype(int), np.repeat(np.arange(len(parts)), [*map(len, parts)])


def _normalised(weights):
    return weights / weights.sum()

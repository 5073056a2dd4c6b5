"""OPS's two-way moves, where inertia correlates the legs of a shot: what is counted is unbiased in every ensemble.

OPS makes the second leg after some outcomes of the first one only, and after which ones depends on the ensemble.
"""

from itertools import product

import numpy as np
import openpathsampling as paths
import pytest
from exact_support import seed_everything, site_of

from ops_aimmd.sampling.joining_ensembles import allowed_ends
from ops_aimmd.sampling.movers import LEGS
from ops_aimmd.sampling.shooting_results import counted_legs, shots
from ops_aimmd.systems.markov_chain import MarkovChainEngine, reversible_transition_matrix

N_SHOTS = 600
UNBIASED, BIASED = 3.0, 4.0
"""Standard errors within which the counts must be, and beyond which those of the control must be."""

MEDIAN_SIZE = 0.6744897501960817
"""Half of all normally distributed numbers are smaller in size."""

PROBABILITIES = {2: [[0.02, 0.98], [0.9, 0.1]], 3: [[0.02, 0.68, 0.3], [0.9, 0.02, 0.08]]}
"""By the number of states: probabilities of the states for the two kinds of velocities."""


class Star(MarkovChainEngine):
    """One site between the states; the velocity of a shot decides with which probabilities it reaches each of them.

    Parameters
    ----------
    n_states : int
    together : bool
        Whether fast and slow velocities lead to different states, so that both legs of a shot tend to end in the same one.
        Otherwise velocities of either sign do, as inertia makes them: the legs tend to end in different states.
    """

    def __init__(self, n_states, together=False):
        self.n_states, self.together = n_states, together
        self.probabilities = np.array(PROBABILITIES[n_states])
        conductances = np.zeros((self.n_states + 1,) * 2)
        conductances[-1, :-1] = conductances[:-1, -1] = 1.0
        super().__init__(reversible_transition_matrix(conductances))
        self._kind = 0
        self.site = paths.FunctionCV("site", site_of)
        self.states = [self.volume(i).named("ABC"[i]) for i in range(self.n_states)]

    @property
    def committor(self):
        """Both kinds of velocities are equally probable."""
        return self.probabilities.mean(axis=0)

    def volume(self, site):
        return paths.CVDefinedVolume(self.site, site - 0.5, site + 0.5)

    @property
    def current_snapshot(self):
        return self._frame(self._site)

    @current_snapshot.setter
    def current_snapshot(self, snapshot):
        self._site = round(float(snapshot.coordinates[0, 0]))
        velocity = float(snapshot.velocities[0, 0])
        self._kind = int(abs(velocity) > MEDIAN_SIZE) if self.together else int(velocity > 0)

    def generate_next_frame(self):
        self._site = int(np.random.choice(self.n_states, p=self.probabilities[self._kind]))  # noqa: NPY002
        return self._frame(self._site)


def between(states):
    """Interface ensemble of the first state."""
    first = states[0]
    return paths.TISEnsemble(first, states[1:], paths.CVDefinedVolume(first.collectivevariable, -0.5, 0.5))


def outer(states):
    """Multiple state outer interface ensemble: from any state, to any."""
    return paths.join_ensembles([between([state, *(other for other in states if other is not state)]) for state in states])


def from_pairs(states):
    """Paths A to B pass through C, and paths B to C through A."""
    return paths.TPSNetwork.from_state_pairs([(states[0], states[1]), (states[1], states[2])]).sampling_ensembles[0]


def transitions(network_of):
    """The ensemble of transition path sampling."""
    return lambda states: network_of(states).sampling_ensembles[0]


ALL = paths.TPSNetwork.from_states_all_to_all
ENSEMBLES = {  # number of states; ensemble; ends of forward and of backward first legs after which a second one is made
    "A to B": (2, transitions(lambda states: paths.TPSNetwork(*states)), "B", "A"),
    "all to all": (2, transitions(ALL), "AB", "AB"),
    "interface": (2, between, "AB", "A"),
    "A to others": (3, transitions(lambda states: paths.TPSNetwork(states[0], states[1:])), "BC", "A"),
    "all of three": (3, transitions(ALL), "ABC", "ABC"),
    "interface of three": (3, between, "ABC", "A"),
    "outer interface": (3, outer, "ABC", "ABC"),
}
BOTH_UNBIASED = {"A to B", "all to all", "A to others", "all of three", "outer interface"}


def mover_of(mover_class, ensemble, engine):
    return mover_class(ensemble, paths.UniformSelector(), paths.RandomVelocities(beta=1.0), engine)


def shoot(mover, engine, n_shots):
    """Shots from the site between the states, always of the same path."""
    seed_everything(3)
    sample_set = paths.SampleSet([paths.Sample(0, engine.trajectory([0, engine.n_states, 1]), mover.ensemble)])
    return [shot for _ in range(n_shots) for shot in shots(mover.move(sample_set), engine.states)]


def standard_errors(counts, committor):
    """Deviation of the fraction of legs in each state from the committor; legs of one shot may be correlated."""
    legs = counts.sum(axis=1)
    fraction = counts.sum(axis=0) / legs.sum()
    errors = np.sqrt(((counts - fraction * legs[:, None]) ** 2).sum(axis=0)) / legs.sum()
    return np.abs((fraction - committor) / errors)


QUICK = [("A to B", False), ("A to others", False), ("interface", False), ("interface", True)]
FURTHER = [case for case in product(ENSEMBLES, [False, True]) if case not in QUICK]


@pytest.mark.parametrize("name, together", [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in FURTHER)])
def test_counts_are_unbiased_whatever_the_correlation_of_the_legs(name, together):
    n_states, ensemble_of, *_ = ENSEMBLES[name]
    engine = Star(n_states, together)
    mover = mover_of(paths.TwoWayShootingMover, ensemble_of(engine.states), engine)
    counted, made = np.zeros((2, N_SHOTS, n_states), dtype=int)
    for i, shot in enumerate(shoot(mover, engine, N_SHOTS)):
        for leg, outcome in shot.leg_outcomes.items():
            made[i, outcome] += 1
            counted[i, outcome] += leg in shot.unbiased_legs
    assert standard_errors(counted, engine.committor).max() < UNBIASED
    if name in BOTH_UNBIASED:
        assert np.array_equal(counted, made)
    else:
        assert np.all(counted.sum(axis=1) == 1)
        assert standard_errors(made, engine.committor).max() > BIASED  # control: all legs that OPS made


@pytest.mark.parametrize("name", ENSEMBLES)
def test_second_legs_are_made_where_the_derivation_says_so(name):
    n_states, ensemble_of, *expected = ENSEMBLES[name]
    engine = Star(n_states)
    ensemble = ensemble_of(engine.states)
    stops, begins, ends = allowed_ends(ensemble)
    assert (len(stops), len(ends), len(begins)) == (n_states, *map(len, expected))
    every = "ABC"[:n_states]
    orders = (paths.ForwardFirstTwoWayShootingMover, "forward"), (paths.BackwardFirstTwoWayShootingMover, "backward")
    for (mover_class, first), followed in zip(orders, expected, strict=True):
        mover = mover_of(mover_class, ensemble, engine)
        seen = {(every[shot.leg_outcomes[first]], len(shot.leg_outcomes)) for shot in shoot(mover, engine, 40)}
        assert seen == {(state, 2 if state in followed else 1) for state in every}
        assert counted_legs(mover, mixed_directions=True) == (LEGS["both"] if name in BOTH_UNBIASED else (first,))
        assert counted_legs(mover, mixed_directions=False) == (LEGS["both"] if followed == every else (first,))


def test_only_first_legs_count_where_the_stopping_rule_is_not_known():
    engine = Star(3)
    A, B, C = engine.states
    fixed = paths.FixedLengthTPSNetwork(A, B, length=7).sampling_ensembles[0]
    minus = paths.MinusInterfaceEnsemble(A, engine.volume(0))
    (a_to_b,) = paths.TPSNetwork(A, B).sampling_ensembles
    for ensemble in (
        fixed,
        minus,
        from_pairs(engine.states),
        paths.TPSNetwork([A, B], C).sampling_ensembles[0],
        between(engine.states[:2]) & paths.AllOutXEnsemble(C),
        a_to_b & paths.AllInXEnsemble(~C),
        paths.SequentialEnsemble([*a_to_b.ensembles[:2], paths.AllInXEnsemble(C) & paths.LengthEnsemble(1)]),
    ):
        mover = mover_of(paths.ForwardFirstTwoWayShootingMover, ensemble, engine)
        assert counted_legs(mover, mixed_directions=True) == ("forward",)
    assert counted_legs(mover_of(paths.ForwardFirstTwoWayShootingMover, a_to_b, engine), True) == LEGS["both"]

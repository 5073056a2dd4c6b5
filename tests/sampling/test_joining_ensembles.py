"""What legs say of a path is what OPS's ensembles say of it, wherever that is claimed."""

import openpathsampling as paths
import pytest
from sampling_support import Chain, seed_everything, simulation, site_of

from ops_aimmd.sampling import movers
from ops_aimmd.sampling.joining_ensembles import joined_states


def three_states():
    return Chain(with_middle_state=True)


NETWORKS = {
    "A to B": (Chain, lambda chain: chain.network(), {(0, 1)}),
    "A and B": (Chain, lambda chain: chain.network(all_to_all=True), {(0, 1), (1, 0)}),
    "three states": (
        three_states,
        lambda chain: chain.network(all_to_all=True),
        {(i, j) for i in range(3) for j in range(3) if i != j},
    ),
}


@pytest.mark.parametrize("shooting", ["two-way", "one-way"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_trial_has_the_verdict_of_the_ensemble(name, shooting, monkeypatch):
    make, network_of, expected = NETWORKS[name]
    chain = make()
    network = network_of(chain)
    (ensemble,) = network.sampling_ensembles
    assert joined_states(ensemble, chain.states) == expected
    verdicts = []
    orient = movers.ShootingMover._orient

    def compared(mover, trial, index, ends):
        known = orient(mover, trial, index, ends)
        monkeypatch.setattr(movers, "joined_states", lambda *arguments: None)
        asked = orient(mover, trial, index, ends)
        monkeypatch.setattr(movers, "joined_states", joined_states)
        assert [list(known[0]), *known[1:]] == [list(asked[0]), *asked[1:]]
        verdicts.append((ends, known[2]))
        return known

    monkeypatch.setattr(movers.ShootingMover, "_orient", compared)
    seed_everything(1)
    initial = chain.path(range(4)) if name == "three states" else chain.initial()
    sampler, _ = simulation(chain.scheme(chain.learner(), network, shooting=shooting), initial)
    sampler.run(60)
    assert len({n for _, n in verdicts}) == 2
    assert len({ends for ends, _ in verdicts}) >= (2 if shooting == "one-way" else 3)


def test_ensembles_that_ask_for_more_are_left_to_ops():
    chain = Chain()
    place = paths.FunctionCV("place", site_of)  # OPS remembers interfaces by the name of their collective variable
    interfaces = paths.VolumeInterfaceSet(place, float("-inf"), [0.5, 1.5, 2.5])
    network = paths.MISTISNetwork([(chain.states[0], interfaces, chain.states[1])])
    assert [joined_states(ensemble, chain.states) for ensemble in network.sampling_ensembles] == [None] * 3
    (ensemble,) = chain.network().sampling_ensembles
    assert joined_states(ensemble, chain.states) == {(0, 1)}
    first, between, last = ensemble.ensembles
    for changed in (
        paths.SequentialEnsemble([first, paths.AllInXEnsemble(chain.volume(3)), last]),
        paths.SequentialEnsemble([first, paths.AllOutXEnsemble(chain.volume(3)), last]),
        paths.SequentialEnsemble([first, between, last], max_overlap=1),
        paths.SequentialEnsemble([first & paths.LengthEnsemble(1), between, last]),
        paths.SequentialEnsemble([between, first, last]),
        paths.LengthEnsemble(5),
    ):
        assert joined_states(changed, chain.states) is None
    assert joined_states(ensemble, chain.states[::-1]) == {(1, 0)}
    assert joined_states(ensemble, chain.states[:1]) is None

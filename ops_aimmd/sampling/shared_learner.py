"""One learner for all selectors and movers of a simulation: a netCDF file of OPS gives back one for each."""

from __future__ import annotations

from collections.abc import Iterable

from openpathsampling.pathmover import EngineMover

from ops_aimmd.sampling.configuration_replicas import ConfigurationMover
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.movers import ShootingMover, submovers
from ops_aimmd.sampling.selectors import CommittorSelector


def movers_under(roots: Iterable) -> list:
    """All movers below some movers, and these, each once."""
    return list({id(mover): mover for root in roots for mover in submovers(root)}.values())


def selectors_of(movers: Iterable) -> list[CommittorSelector]:
    """The selectors that query a learner, each once."""
    found = [m.selector for m in movers if isinstance(m, EngineMover) and isinstance(m.selector, CommittorSelector)]
    return list({id(selector): selector for selector in found}.values())


def share_learner(movers: Iterable, learner: CommittorLearner) -> None:
    """Make selectors and movers query one learner, and stop at its states."""
    movers = list(movers)
    for selector in selectors_of(movers):
        selector.learner = learner
    by_uuid = {state.__uuid__: state for state in learner.states}
    for mover in movers:
        if isinstance(mover, ConfigurationMover):
            mover.learner = learner
        if isinstance(mover, ShootingMover):
            mover.states = [by_uuid.get(state.__uuid__, state) for state in mover.states]

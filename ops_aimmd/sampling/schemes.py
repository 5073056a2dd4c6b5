"""Move strategies and the move scheme of committor-guided path sampling."""

from __future__ import annotations

import warnings

import openpathsampling as paths
from openpathsampling.high_level.move_scheme import MoveScheme
from openpathsampling.high_level.move_strategy import (
    OrganizeByMoveGroupStrategy,
    SingleEnsembleMoveStrategy,
    levels,
)
from openpathsampling.high_level.network import FixedLengthTPSNetwork, TISNetwork, TransitionNetwork

from ops_aimmd.engines.base import IrreversibleDynamicsWarning
from ops_aimmd.engines.choose import adapter_of
from ops_aimmd.sampling.configuration_replicas import ConfigurationEnsemble, ConfigurationMover, check_rising
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.movers import OneWayShooting, ShootingMover, check_velocities, submovers
from ops_aimmd.sampling.ops_messages import ops_is_quiet
from ops_aimmd.sampling.selectors import CommittorSelector
from ops_aimmd.sampling.shared_learner import movers_under, share_learner
from ops_aimmd.sampling.shooting_point_exchange import ShootingPointExchangeMover
from ops_aimmd.sampling.velocities import BoltzmannVelocities
from ops_aimmd.shooting.states import state_index

SHOOTING = ("two-way", "one-way")


class CommittorShootingStrategy(SingleEnsembleMoveStrategy):
    """Strategy for shooting moves with legs that run to a state; the selector may be any OPS selector.

    Parameters
    ----------
    selector : openpathsampling.ShootingPointSelector
    states : sequence of openpathsampling.Volume
        Where legs stop, in the order of the outcomes.
    shooting : {"two-way", "one-way"}
    modifier : openpathsampling.SnapshotModifier, optional
        Two-way shooting: Boltzmann velocities at the temperature of the engine's integrator by default.
    engine : openpathsampling.engines.DynamicsEngine
    max_length : int, optional
        Limit on the frames of a whole path, the engine's `n_frames_max` by default.
    ensembles, group, replace
        As in the strategies of OPS.
    """

    _level = levels.MOVER

    def __init__(
        self,
        selector,
        states,
        shooting="two-way",
        modifier=None,
        engine=None,
        max_length=None,
        ensembles=None,
        group="shooting",
        replace=True,
    ):
        super().__init__(ensembles=ensembles, group=group, replace=replace)
        self.selector = selector
        self.states = states
        self.shooting = shooting
        self.modifier = modifier
        self.engine = engine
        self.max_length = max_length
        if shooting not in SHOOTING:
            raise ValueError(f"shooting must be one of {SHOOTING}; got {shooting!r}")
        if shooting == "one-way" and modifier is not None:
            raise ValueError("one-way shooting keeps the velocities of the path; leave out the modifier")

    def make_movers(self, scheme):
        """One mover per ensemble."""
        engine = paths.EngineMover.default_engine if self.engine is None else self.engine
        modifier = BoltzmannVelocities(engine) if self.modifier is None else self.modifier
        warn_about(engine)
        movers = []
        for (ensemble,) in self.get_parameters(scheme):
            if self.shooting == "one-way":
                mover = OneWayShooting(ensemble, self.selector, self.states, engine, self.max_length)
                mover.movers[0].check_engine()
                movers.append(mover.named(f"OneWayShooting {ensemble.name}"))
            else:
                mover = ShootingMover(ensemble, self.selector, self.states, modifier, engine, "both", self.max_length)
                mover.check_engine()
                movers.append(mover.named(f"TwoWayShooting {ensemble.name}"))
        return movers


def warn_about(engine) -> None:
    """Warn where an engine is not reversible in the way that shooting needs, or its parts have different temperatures."""
    adapter = adapter_of(engine)
    if adapter.irreversible_because is not None:
        warnings.warn(adapter.irreversible_because, IrreversibleDynamicsWarning, stacklevel=3)
    for conflict in adapter.temperature_conflicts:
        warnings.warn(conflict, stacklevel=3)


class ShootingPointExchangeStrategy(SingleEnsembleMoveStrategy):
    """Strategy for moves that exchange a frame of the path with a configuration beside it.

    Each move first moves all replicas of the configuration, then exchanges: see `ShootingPointExchangeMover`. The initial
    conditions need a sample for each replica, which `CommittorShootingScheme.initial_conditions_from_trajectories` makes.

    Parameters
    ----------
    learner : CommittorLearner
    temperatures : sequence of float
        Temperatures of the hotter replicas of the configuration, rising, all above that of the paths (kelvin; toy
        engines: kT).
    modifier, engine, max_length
        As for `CommittorShootingStrategy`.
    exponent, n_pieces, frames_per_piece, pairs
        As for `ConfigurationMover`.
    ensembles, group, replace
        As in the strategies of OPS; one ensemble only.
    """

    _level = levels.MOVER

    def __init__(
        self,
        learner,
        temperatures=(),
        modifier=None,
        engine=None,
        max_length=None,
        exponent=3.5,
        n_pieces=4,
        frames_per_piece=10,
        pairs=None,
        ensembles=None,
        group="shooting point exchange",
        replace=True,
    ):
        super().__init__(ensembles=ensembles, group=group, replace=replace)
        self.learner = learner
        self.temperatures = temperatures
        self.modifier = modifier
        self.engine = engine
        self.max_length = max_length
        self.exponent = exponent
        self.n_pieces = n_pieces
        self.frames_per_piece = frames_per_piece
        self.pairs = pairs

    def make_movers(self, scheme):
        """The move, for the ensemble of the scheme."""
        engine = paths.EngineMover.default_engine if self.engine is None else self.engine
        modifier = BoltzmannVelocities(engine) if self.modifier is None else self.modifier
        parameters = self.get_parameters(scheme)
        if len(parameters) != 1:
            raise ValueError(
                f"the exchange of shooting points is for networks with one ensemble of paths, not {len(parameters)}"
            )
        ((ensemble,),) = parameters
        check_rising(engine, self.temperatures)
        replicas = [ConfigurationEnsemble(self.learner.states, k) for k in range(1 + len(self.temperatures))]
        weight = {"exponent": self.exponent, "pairs": self.pairs}
        exchange = ShootingPointExchangeMover(
            ensemble, replicas[0], self.learner, modifier, engine, self.max_length, **weight
        )
        exchange.check_engine()
        configurations = ConfigurationMover(
            ensemble,
            replicas,
            self.learner,
            modifier,
            engine,
            self.temperatures,
            n_pieces=self.n_pieces,
            frames_per_piece=self.frames_per_piece,
            **weight,
        )
        both = [configurations.named("Configurations"), exchange.named(f"ShootingPointExchange {ensemble.name}")]
        return [paths.SequentialMover(both).named(f"Configurations and exchange {ensemble.name}")]


class CommittorShootingScheme(MoveScheme):
    """Path sampling with shooting points picked by a learned committor: the whole move scheme.

    Parameters
    ----------
    network : openpathsampling.TransitionNetwork
        A network of flexible path length; one-directional or all-to-all, two or more states, TPS or TIS. The scheme makes
        shooting moves only: a warning says which others a TIS network wants, and how to append them.
    learner : CommittorLearner, optional
        Its states must be those of the network, in the learner's order.
    engine : openpathsampling.engines.DynamicsEngine
    shooting : {"two-way", "one-way"}
    selector : openpathsampling.ShootingPointSelector, optional
        `CommittorSelector(learner)` by default, limited to the pairs of states that the network joins; without a
        learner, uniform selection.
    modifier : openpathsampling.SnapshotModifier, optional
        Boltzmann velocities at the temperature of the engine's integrator by default.
    max_length : int, optional
        Limit on the frames of a whole path, the engine's `n_frames_max` by default.
    exchange_temperatures : sequence of float, optional
        Every second move on average exchanges shooting points with configurations beside the path, which takes it from one
        reaction channel to another; the temperatures are those of their hotter replicas (kelvin; toy engines: kT), rising
        from above that of the paths: for instance ``[380, 480, 610, 780, 1000, 1300]`` if they are at 300 K. At the
        hottest, dynamics should go from channel to channel by itself, and neighbours be close enough to exchange. ``[]``
        for configurations at the temperature of the paths alone. Barostats, Andersen thermostats and custom forces with
        a parameter kT follow to these temperatures. See `ops_aimmd.sampling.shooting_point_exchange`.

    Raises
    ------
    ValueError
        If the path length is fixed (legs then pass through states), or if learner and network know other states. When
        the movers are made: if something in the system has a temperature that cannot be changed with certainty.

    Notes
    -----
    With a barostat the paths are sampled at constant pressure: its moves are reversible, and fresh velocities are drawn in
    the box of the shooting point. Its temperature has to be that of the integrator; a warning says where it is not.
    """

    def __init__(
        self,
        network,
        learner: CommittorLearner | None = None,
        engine=None,
        shooting="two-way",
        selector=None,
        modifier=None,
        max_length=None,
        exchange_temperatures=None,
    ):
        if not isinstance(network, TransitionNetwork) or not isinstance(learner, (CommittorLearner, type(None))):
            raise ValueError(
                "CommittorShootingScheme takes an OPS network and a CommittorLearner, in this order; got "
                f"{type(network).__name__} and {type(learner).__name__}"
            )
        super().__init__(network)
        if isinstance(network, FixedLengthTPSNetwork):
            raise ValueError(
                "committor shooting needs a network of flexible path length (paths.TPSNetwork): in a fixed-length "
                "network the legs pass through states, so a shot has no outcome"
            )
        self.learner = learner
        states = _ordered_states(network) if learner is None else list(learner.states)
        if set(states) != set(network.all_states):
            raise ValueError(
                f"the learner knows the states {[state.name for state in states]}, the network "
                f"{sorted(state.name for state in network.all_states)}: give both the same volume objects "
                "(load_learner needs them as states=[...])"
            )
        pairs = _joined_pairs(network, states)
        if selector is None:
            selector = paths.UniformSelector() if learner is None else CommittorSelector(learner, pairs=pairs)
        self.append(CommittorShootingStrategy(selector, states, shooting, modifier, engine, max_length))
        if exchange_temperatures is not None:
            if learner is None:
                raise ValueError("the exchange of shooting points weighs configurations by a committor: give a learner")
            self.append(
                ShootingPointExchangeStrategy(
                    learner, list(exchange_temperatures), modifier, engine, max_length, pairs=pairs
                )
            )
        self.append(OrganizeByMoveGroupStrategy())

    def initial_conditions_from_trajectories(self, trajectories, *args, **kwargs):
        """As in OPS, but raises a ValueError where the trajectories hold no path of the ensemble, or a path without
        velocities for one-way shooting.

        Configurations for the exchange of shooting points begin as the best frame of the path, where none are given.
        """
        with ops_is_quiet():
            conditions = super().initial_conditions_from_trajectories(trajectories, *args, **kwargs)
        given = trajectories if isinstance(trajectories, paths.SampleSet) else ()
        conditions = self._with_configurations(conditions, [sample.ensemble for sample in given])
        missing, _ = self.check_initial_conditions(conditions)
        if missing:
            raise ValueError(
                f"no path for {len(missing)} ensemble(s) in what was given ({self._describe(trajectories)}): a "
                "transition path starts in one state, ends in another and is in no state between; give a trajectory "
                "that contains one"
            )
        check_velocities(self.move_decision_tree(), conditions)
        return conditions

    def build_move_decision_tree(self):
        """As in OPS; warns where the moves are too few for a network of transition interface sampling."""
        super().build_move_decision_tree()
        missing = _missing_moves(self.network, self.root_mover)
        if missing:
            strategies = ", ".join(f"paths.strategies.{strategy}()" for strategy in missing.values())
            warnings.warn(
                f"CommittorShootingScheme makes shooting moves, and this {type(self.network).__name__} wants others beside "
                f"them: {', '.join(missing)}. Append their strategies, scheme.append([{strategies}]), or take "
                "paths.DefaultScheme and append a CommittorShootingStrategy to it",
                stacklevel=4,
            )

    def list_initial_ensembles(self, root=None) -> list:
        """As in OPS, and the ensembles of configurations beside the path."""
        movers = self._configuration_movers(root)
        return [*super().list_initial_ensembles(root), *(replica for mover in movers for replica in mover.replicas)]

    def _configuration_movers(self, root=None) -> list[ConfigurationMover]:
        root = self.move_decision_tree() if root is None else root
        return [mover for mover in submovers(root) if isinstance(mover, ConfigurationMover)]

    def _with_configurations(self, conditions: paths.SampleSet, given: list) -> paths.SampleSet:
        """The samples, with the best frame of the path for each configuration replica that was not given."""
        for mover in self._configuration_movers():
            of_path = [sample for sample in conditions if sample.ensemble == mover.ensemble]
            made_anew = [replica for replica in mover.replicas if replica not in given]
            samples = [sample for sample in conditions if sample.ensemble not in made_anew]
            for ensemble in made_anew if of_path else ():
                start = paths.Trajectory([mover.best_frame(of_path[0].trajectory)])
                replica = max(sample.replica for sample in samples) + 1
                samples.append(paths.Sample(replica=replica, trajectory=start, ensemble=ensemble))
            conditions = paths.SampleSet(samples)
        return conditions

    def _describe(self, trajectories) -> str:
        if isinstance(trajectories, paths.Trajectory):
            trajectories = [trajectories]
        elif isinstance(trajectories, (paths.Sample, paths.SampleSet)):
            return "samples"
        states = _ordered_states(self.network)
        parts = []
        for trajectory in list(trajectories)[:3]:
            visited = [state_index(snapshot, states) for snapshot in trajectory]
            names = [states[i].name for i in dict.fromkeys(visited) if i >= 0]
            parts.append(f"{len(trajectory)} frames, which visit {names or 'no state'}")
        return "; ".join(parts)

    def to_dict(self):
        return {**super().to_dict(), "learner": self.learner}

    @classmethod
    def from_dict(cls, dct):
        scheme = super().from_dict(dct)
        scheme.learner = dct["learner"]
        if scheme.learner is not None:
            share_learner(movers_under(mover for movers in scheme.movers.values() for mover in movers), scheme.learner)
        return scheme


def _missing_moves(network, root) -> dict[str, str]:
    """Kinds of moves that a network of several ensembles needs and a scheme has not, and the strategies that make them."""
    if not isinstance(network, TISNetwork):
        return {}
    needed = {
        "replica exchange": (paths.ReplicaExchangeMover, "NearestNeighborRepExStrategy"),
        "path reversal": (paths.PathReversalMover, "PathReversalStrategy"),
    }
    if network.special_ensembles.get("minus"):
        needed["minus moves (fluxes out of the states)"] = (paths.MinusMover, "MinusMoveStrategy")
    movers = list(submovers(root))
    return {name: strategy for name, (kind, strategy) in needed.items() if not any(isinstance(m, kind) for m in movers)}


def _ordered_states(network) -> list:
    """States of a network, initial before final ones, in the order in which they were given."""
    try:
        ordered = [*network.initial_states, *network.final_states]
    except AttributeError:  # networks that keep their states elsewhere
        ordered = sorted(network.all_states, key=lambda state: state.name)
    return list(dict.fromkeys(ordered))


def _joined_pairs(network, states) -> list[list[int]] | None:
    """Pairs of states that the network joins, None for all."""
    index = {state: i for i, state in enumerate(states)}  # by identity: OPS compares volumes by what they print
    pairs = {
        tuple(sorted((index[initial], index[final])))
        for initial, final in network.transitions
        if initial in index and final in index and initial is not final
    }
    n_states = len(states)
    if not pairs or len(pairs) == n_states * (n_states - 1) // 2:
        return None
    return [list(pair) for pair in sorted(pairs)]

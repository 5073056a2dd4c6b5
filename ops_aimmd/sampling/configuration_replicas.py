r"""Configurations beside the path, at several temperatures: where new shooting points come from.

Configurations change the reaction channel more easily than paths. Weighted by the learned committor, the basins are no
longer a trap, and what the weight leaves of the barriers is crossed by replicas at higher temperatures. Replica k holds a
configuration y distributed as

.. math::  \rho_{T_k}(y)\, v_k(y), \qquad v_k = 4 \sigma(s_k q)\, \sigma(-s_k q) \approx 4 e^{-s_k |q|}, \quad
           s_k = s \, T_0 / T_k,

with the Boltzmann distribution :math:`\rho_T`, the log-odds q, the logistic function :math:`\sigma` and the temperature
:math:`T_0` of the paths: up to a constant, the replicas temper the energy :math:`U + s k_B T_0 |q|`. Inside the states
v = 0.

A replica moves by a piece of unbiased dynamics at its temperature, with fresh velocities, accepted with
min[1, v(y') / v(y)]: these dynamics are reversible for :math:`\rho_T`. The length of a piece is random as well: a
configuration in a narrow place, which every long piece leaves for where v is small, gets out by short ones. Then replicas
exchange their configurations with

.. math::  \min\left[1, e^{(1/k_B T_k - 1/k_B T_l) (H_k - H_l)} \frac{v_k(y_l)\, v_l(y_k)}{v_k(y_k)\, v_l(y_l)}\right],

each two of them many times: this costs no dynamics, and a configuration hardly remembers the temperature that it had.
The energy H is the potential energy U at constant volume, and U + PV at constant pressure.

In OPS each replica is a sample of its own, a trajectory of one frame: it is stored, resumed and taken back with the paths.

Reference: Sugita and Okamoto, Chem. Phys. Lett. 314, 141 (1999), doi:10.1016/S0009-2614(99)01123-9; with a bias: Sugita,
Kitao, Okamoto, J. Chem. Phys. 113, 6042 (2000), doi:10.1063/1.1308516; many exchanges at once: Chodera and Shirts, J. Chem.
Phys. 135, 194110 (2011), doi:10.1063/1.3660669.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import openpathsampling as paths
from openpathsampling.pathmover import SampleMover

from ops_aimmd.committor.model_version import ModelVersion
from ops_aimmd.committor.selection import log_weight_function, selection_log_weights
from ops_aimmd.engines.base import EngineAdapter
from ops_aimmd.engines.choose import adapter_of
from ops_aimmd.engines.frames import moved
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.velocities import BoltzmannVelocities
from ops_aimmd.shooting.legs import make_legs
from ops_aimmd.shooting.states import state_index

EXCHANGES = 3
"""Exchanges are tried as often as there are replicas, to this power, after each piece of dynamics."""

LOST = math.log(1e-6)
"""Logarithm of the weight of a configuration, the best ones having 1, below which a model that is still learned has lost
it in a basin."""


class ConfigurationEnsemble(paths.Ensemble):
    """Trajectories of one frame outside of the states: one replica of a configuration.

    Parameters
    ----------
    states : sequence of openpathsampling.Volume
    number : int
        Number of the replica; 0 has the temperature of the paths.
    """

    def __init__(self, states: Sequence[paths.Volume], number: int):
        super().__init__()
        self.states = list(states)
        self.number = int(number)

    def __call__(self, trajectory, trusted=None, candidate=False) -> bool:
        """Whether this is one frame outside of the states."""
        return len(trajectory) == 1 and state_index(trajectory[0], self.states) < 0

    def can_append(self, trajectory, trusted=False) -> bool:
        """Only to nothing."""
        return len(trajectory) == 0

    def can_prepend(self, trajectory, trusted=False) -> bool:
        """Only to nothing."""
        return len(trajectory) == 0

    def _str(self) -> str:
        return f"replica {self.number} of a configuration outside of {[state.name for state in self.states]}"


@dataclass(frozen=True)
class _Configuration:
    """One configuration: its frame, logarithms of its committors (n_states,), and its energy in the ensemble of each
    replica (n_replicas,), 0 where there is one replica only."""

    frame: paths.BaseSnapshot
    log_committor: np.ndarray
    energies: np.ndarray


class ConfigurationMover(SampleMover):
    """Moves all replicas of a configuration: pieces of dynamics, and exchanges between them. See the module.

    The change is always accepted; the decisions are inside. While the learner is not frozen, a coldest configuration that
    is lost in a basin, by the current model, is replaced by a frame of the path.

    Parameters
    ----------
    ensemble : openpathsampling.Ensemble
        The path ensemble.
    replicas : sequence of ConfigurationEnsemble
        The first at the temperature of the paths.
    modifier : openpathsampling.SnapshotModifier
        Boltzmann velocities at the temperature of the engine.
    engine : openpathsampling.engines.DynamicsEngine
        Any kind with one replica; with several, its adapter must know `at_temperature`.
    temperatures : sequence of float
        Temperatures of the other replicas, rising from above that of the engine (kelvin; toy engines: kT).
    exponent : float
        s: how strongly configurations keep to the barrier.
    n_pieces, frames_per_piece : int
        Pieces of dynamics for each replica in a move, and largest number of frames in a piece; each is as likely.
    pairs : sequence of (int, int), optional
        Pairs of states between which transitions count; all by default.

    Notes
    -----
    The details of a move hold `configuration_frames`, new frames of dynamics of all replicas, `pieces_accepted` and
    `replicas_exchanged`, the fraction of the replicas that have another configuration after the exchanges than before, and
    `model_version`.
    """

    def __init__(
        self,
        ensemble,
        replicas: Sequence[ConfigurationEnsemble],
        learner: CommittorLearner,
        modifier,
        engine,
        temperatures: Sequence[float] = (),
        exponent: float = 3.5,
        n_pieces: int = 4,
        frames_per_piece: int = 10,
        pairs=None,
    ):
        super().__init__()
        check_exponent(exponent)
        for name, number in (("n_pieces", n_pieces), ("frames_per_piece", frames_per_piece)):
            if not (isinstance(number, Integral) and number >= 1):
                raise ValueError(f"{name} must be a positive integer; got {number!r}")
        if len(replicas) != 1 + len(temperatures):
            raise ValueError(f"{len(temperatures)} temperatures need {1 + len(temperatures)} replicas; got {len(replicas)}")
        self.ensemble = ensemble
        self.replicas = list(replicas)
        self.learner = learner
        self.modifier = modifier
        self.engine = engine
        self.temperatures = [float(temperature) for temperature in temperatures]
        self.exponent = float(exponent)
        self.n_pieces = int(n_pieces)
        self.frames_per_piece = int(frames_per_piece)
        self.pairs = pairs
        self._levels: list[Level] | None = None

    # ---- interface of OPS movers ------------------------------------------------------------------------------------

    def _called_ensembles(self):
        return [self.ensemble, *self.replicas]

    _get_in_ensembles = _get_out_ensembles = _called_ensembles

    def get_samples_from_sample_set(self, sample_set):
        """The current path and configurations.

        Raises
        ------
        ValueError
            If a configuration is missing.
        """
        there = {sample.ensemble for sample in sample_set}
        if any(all(replica != ensemble for ensemble in there) for replica in self.replicas):
            raise ValueError(
                f"the exchange of shooting points needs {len(self.replicas)} configurations beside the path, and there is "
                "no sample of a configuration for some: make the sample set by "
                "scheme.initial_conditions_from_trajectories(path or samples)"
            )
        return super().get_samples_from_sample_set(sample_set)

    def __call__(self, path, *samples):
        """The samples of all replicas after their moves, and the details."""
        learned = self.learner.learned_for_step
        version = learned.version
        found = [self._configuration(k, sample.trajectory[0], version) for k, sample in enumerate(samples)]
        if not learned.frozen and self._log_weight(0, found[0]) < LOST:
            found[0] = self._configuration(0, self.best_frame(path.trajectory), version)
        pieces, exchanges, n_frames = [], [], 0
        for _ in range(self.n_pieces):
            for k in range(len(found)):
                accepted, length = self._move(k, found, version)
                pieces.append(accepted)
                n_frames += length
            order = self._order_after_exchanges(found)
            found = [found[k] for k in order]
            exchanges += [k != number for number, k in enumerate(order)]
        trials = [
            paths.Sample(
                replica=sample.replica,
                # the same object where nothing has changed: it is stored once
                trajectory=sample.trajectory if new.frame is sample.trajectory[0] else paths.Trajectory([new.frame]),
                ensemble=sample.ensemble,
                parent=sample,
                mover=self,
                bias=1.0,
            )
            for sample, new in zip(samples, found, strict=True)
        ]
        return trials, {
            "configuration_frames": n_frames,
            "pieces_accepted": float(np.mean(pieces)),
            "replicas_exchanged": float(np.mean(exchanges)),
            "model_version": version.number,
        }

    def _accept(self, trials):
        return True, {}

    def to_dict(self):
        names = ("ensemble", "replicas", "learner", "modifier", "engine", "temperatures", "exponent", "n_pieces")
        return {name: getattr(self, name) for name in (*names, "frames_per_piece", "pairs")}

    # ---- replicas ---------------------------------------------------------------------------------------------------

    @property
    def levels(self) -> list[Level]:
        """What belongs to each temperature; the engines are made when they are needed first."""
        if self._levels is None:
            self._levels = self._make_levels()
        return self._levels

    @property
    def engines(self) -> list:
        """Engine of each replica, the coldest first."""
        return [level.adapter.engine for level in self.levels]

    def _make_levels(self) -> list[Level]:
        scale = 1.0 / self.exponent
        adapter = adapter_of(self.engine)
        if not self.temperatures:
            return [Level(adapter, self.modifier, 1.0, log_weight_function("p(1-p)", scale))]
        check_rising(self.engine, self.temperatures)
        levels = []
        coldest = adapter.temperature
        for temperature in (coldest, *self.temperatures):
            hotter = adapter.at_temperature(temperature)
            modifier = BoltzmannVelocities(hotter.engine) if levels else self.modifier
            weight = log_weight_function("p(1-p)", scale * temperature / coldest)
            levels.append(Level(hotter, modifier, hotter.inverse_temperature, weight))
        return levels

    def best_frame(self, trajectory):
        """The frame of a path that the replica at its temperature wants most."""
        frames = self.learner.path_frames(trajectory)
        rows = np.flatnonzero(frames.selectable)
        if len(rows) == 0:
            raise ValueError(f"a path of {len(trajectory)} frames has none outside of the states that could be shot from")
        log_committor = self.learner.learned_for_step.model.log_committor(frames.descriptors[rows])
        return trajectory[int(rows[np.argmax(self._log_weights(0, log_committor))])]

    def _log_weights(self, k: int, log_committor: np.ndarray) -> np.ndarray:
        """ln v_k of configurations outside of the states, by the logarithms of their committors (n, n_states)."""
        pairs = None if self.pairs is None else [tuple(pair) for pair in self.pairs]
        return selection_log_weights(log_committor, self.levels[k].log_weight, None, pairs)

    def _log_weight(self, k: int, configuration: _Configuration) -> float:
        return float(self._log_weights(k, configuration.log_committor[None])[0])

    def _move(self, k: int, found: list[_Configuration], version: ModelVersion) -> tuple[bool, int]:
        """A piece of dynamics of a replica: whether it is accepted, and its new frames."""
        old, level = found[k], self.levels[k]
        length = 1 + int(self._rng.integers(self.frames_per_piece))
        start = level.modifier(old.frame)
        leg = make_legs(level.adapter.engine, start, ("forward",), (), length + 1)["forward"]
        if leg.failure == "nan" or state_index(leg.trajectory[-1], self.learner.states) >= 0:
            return False, length
        # a frame like those of paths, whatever engine has moved it
        new = self._configuration(k, moved(old.frame, leg.trajectory[-1]), version)
        if not self._accepts(self._log_weight(k, new) - self._log_weight(k, old)):
            return False, length
        found[k] = new
        return True, length

    def _order_after_exchanges(self, found: list[_Configuration]) -> list[int]:
        """Which configuration each replica has after many exchanges of two replicas drawn at random."""
        order = list(range(len(found)))
        if len(found) == 1:
            return order
        log_density = self._log_densities(found).tolist()
        n_trials = len(found) ** EXCHANGES
        ones, steps = (self._rng.integers(n, size=n_trials).tolist() for n in (len(found), len(found) - 1))
        limits = np.log(1.0 - self._rng.random(n_trials)).tolist()
        for one, step, limit in zip(ones, steps, limits, strict=True):
            other = (one + 1 + step) % len(found)
            a, b = order[one], order[other]
            first, second = log_density[one], log_density[other]
            if limit < first[b] + second[a] - first[a] - second[b]:
                order[one], order[other] = b, a
        return order

    def _log_densities(self, found: list[_Configuration]) -> np.ndarray:
        """Logarithm of the density of every replica (rows) at every configuration (columns), up to a constant per row."""
        log_committor = np.array([configuration.log_committor for configuration in found])
        energies = np.array([configuration.energies for configuration in found])
        weights = [self._log_weights(k, log_committor) for k in range(len(found))]
        return np.array(weights) - np.array([[level.inverse_temperature] for level in self.levels]) * energies.T

    def _accepts(self, log_ratio: float) -> bool:
        return math.log(1.0 - self._rng.random()) < log_ratio

    def _configuration(self, k: int, frame, version: ModelVersion) -> _Configuration:
        descriptors = self.learner.evaluate_descriptors(paths.Trajectory([frame]))
        return _Configuration(frame, version.model.log_committor(descriptors)[0], self._energies(k, frame))

    def _energies(self, k: int, frame) -> np.ndarray:
        """(n_replicas,); they differ only where the potential energy function depends on the temperature."""
        if not self.temperatures:
            return np.zeros(1)
        adapters = [level.adapter for level in self.levels]
        if adapters[k].energy_depends_on_temperature:
            return np.array([adapter.ensemble_energy(frame) for adapter in adapters])
        return np.full(len(adapters), adapters[k].ensemble_energy(frame))


@dataclass(frozen=True)
class Level:
    """What belongs to the temperature of one replica: its engine, velocities, 1 / kT, ln v_k as a function of q."""

    adapter: EngineAdapter
    modifier: object
    inverse_temperature: float
    log_weight: object


def check_exponent(exponent) -> None:
    """Raises ValueError for what is no positive number."""
    if not (np.isfinite(exponent) and exponent > 0):
        raise ValueError(f"exponent must be a positive number; got {exponent!r}")


def check_rising(engine, temperatures) -> None:
    """Check the temperatures of replicas.

    Raises
    ------
    ValueError
        Unless they rise from that of the engine, and an engine at each of them has a known ensemble.
    """
    if not all(isinstance(temperature, Real) and not isinstance(temperature, bool) for temperature in temperatures):
        raise ValueError(f"temperatures of replicas must be numbers; got {list(temperatures)}")
    if len(temperatures) == 0:
        return
    adapter = adapter_of(engine)
    adapter.check_other_temperatures()
    everywhere = [adapter.temperature, *temperatures]
    if not all(low < high for low, high in zip(everywhere[:-1], everywhere[1:], strict=True)):
        raise ValueError(
            f"temperatures of the replicas must rise from that of the paths, {everywhere[0]:.6g}; got {list(temperatures)}"
        )

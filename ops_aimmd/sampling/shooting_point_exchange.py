r"""Exchange of shooting points: a move that takes a path from one reaction channel to another.

Shooting keeps the neighbourhood of the current path, and a chain stays in the channel of its first path for hundreds of
steps. So beside the path :math:`\Gamma` a *configuration* y is kept, distributed as :math:`\rho(y) v(y)` (see
`ops_aimmd.sampling.configuration_replicas`), which changes channels more easily.

The exchange picks a frame x of the path with probability :math:`v(x) / V(\Gamma)`, V the sum of v over the frames that may
be picked, and shoots from y. The trial is accepted, and x becomes the configuration, with

.. math::  \min\left[1, \frac{V(\Gamma)}{V(\Gamma')} \frac{m(\Gamma')}{m(\Gamma)}\right],

m the number of orientations as in `ShootingMover`. The stationary distribution is the product
:math:`\mathcal P[\Gamma]\, \rho(y) v(y)`: a trial :math:`\Gamma'` through y is made with
:math:`\mathcal P[\Gamma'] / \rho(y)`, so that the flux from :math:`(\Gamma, y)` to :math:`(\Gamma', x)`,

.. math::  \mathcal P[\Gamma]\, \rho(y) v(y) \, \frac{v(x)}{V(\Gamma)} \, \frac{\mathcal P[\Gamma']}{\rho(y)}
           = \frac{\mathcal P[\Gamma]\, \mathcal P[\Gamma']\, v(y)\, v(x)}{V(\Gamma)},

differs from that of the way back, on which y is picked from :math:`\Gamma'`, by V only. The new path shares no frame with
the old one, and its channel is that of the configuration.
"""

from __future__ import annotations

import math

import numpy as np
import openpathsampling as paths

from ops_aimmd.sampling.configuration_replicas import ConfigurationEnsemble, check_exponent
from ops_aimmd.sampling.movers import ShootingMover
from ops_aimmd.sampling.selectors import CommittorSelector


class ShootingPointExchangeMover(ShootingMover):
    """Shoots from a configuration kept beside the path, and puts a frame of the path in its place.

    See the module for the distribution and the acceptance. It is exact with a fixed model: after a new version the
    configurations first have to relax to its weight. So it relies, more than ordinary shooting, on changes that diminish;
    for a production run freeze the learner.

    Parameters
    ----------
    ensemble : openpathsampling.Ensemble
        Ensemble of the path.
    replica : ConfigurationEnsemble
        The one at the temperature of the paths.
    learner : CommittorLearner
        Its states are where legs stop.
    modifier : openpathsampling.SnapshotModifier
        Draws velocities from the Boltzmann distribution of the engine.
    engine, max_length
        As for `ShootingMover`.
    exponent : float, optional
        s, as in the `ConfigurationMover` that moves the configuration.
    pairs : sequence of (int, int), optional
        Pairs of states between which transitions count; all by default.

    Notes
    -----
    The details of each step are those of `ShootingMover` for a shot from a path of one frame, the configuration, with
    weights and probabilities those of the exchange, and `exchanged_index`, the frame of the current path that takes its
    place. The outcomes are unbiased trials of the committor.
    """

    def __init__(
        self,
        ensemble,
        replica: ConfigurationEnsemble,
        learner,
        modifier,
        engine=None,
        max_length=None,
        exponent: float = 3.5,
        pairs=None,
    ):
        check_exponent(exponent)
        selector = CommittorSelector(learner, "p(1-p)", scale=1.0 / exponent, density_adaptation=False, pairs=pairs)
        super().__init__(ensemble, selector, learner.states, modifier, engine, "both", max_length)
        self.replica = replica
        self.exponent = float(exponent)
        self.pairs = pairs

    def _called_ensembles(self):
        return [self.ensemble, self.replica]

    _get_in_ensembles = _get_out_ensembles = _called_ensembles

    def __call__(self, input_sample, configuration):
        """Make a trial; returns the samples of path and configuration, and the details of the step."""
        old = self._current_path(input_sample)
        pick = self.selector.choose(old)
        point = configuration.trajectory[0]
        details = {
            "initial_trajectory": configuration.trajectory,
            "shooting_snapshot": point,
            "shooting_index": 0,
            **self._selection_details(old, pick),
            "predicted_committor": self._predicted(configuration.trajectory, pick.version),
            "exchanged_index": pick.index,
        }
        trial, trial_index, orientations = self._make_trial(
            input_sample, configuration.trajectory, 0, self.modifier(point), details
        )
        bias = 0.0
        if orientations:
            new = self._selection_probability(trial, trial_index, pick)
            details["selection_probability_new"], details["weight_sum_new"] = new
            new_weights = self.selector.path_weights(trial, pick.version)
            bias = self._exchange_ratio(pick.weights, new_weights) * orientations / self._orientations(old)
            self._orientation_counts[trial.__uuid__] = orientations
        return [self._sample(input_sample, trial, bias), self._given_back(configuration, old[pick.index])], details

    def _exchange_ratio(self, old, new) -> float:
        """V of the old path over V of the new one."""
        return math.exp(old.log_sum - new.log_sum)

    def _given_back(self, configuration: paths.Sample, frame) -> paths.Sample:
        """A frame of the path, as the new configuration."""
        return paths.Sample(
            replica=configuration.replica,
            trajectory=paths.Trajectory([frame]),
            ensemble=self.replica,
            parent=configuration,
            mover=self,
            bias=1.0,
        )

    def _predicted(self, trajectory, version) -> list[float]:
        descriptors = self.selector.learner.evaluate_descriptors(trajectory)
        return np.exp(version.model.log_committor(descriptors)[0]).tolist()

    def _accept(self, trials):
        return super()._accept(trials[:1])

    def to_dict(self):
        dct = super().to_dict()
        for made_anew in ("states", "legs", "target_ensemble"):
            dct.pop(made_anew, None)
        selector = dct.pop("selector")
        return {**dct, "learner": selector.learner}

"""The learned committor: model, likelihood, training set, training, density and calibration. Knows no OPS.

- `CommittorModel`: a network with the scaling of its inputs; arrays or tensors of descriptors to committors.
- `FeedForward`: the default network: an ensemble of small feed-forward networks.
- `SelfNormalizing`: feed-forward network with SELU activations.
- `Residual`: network of residual blocks.
- `register_network`: make a class of your own known, so that checkpoints can rebuild it.
- `ShootingResult`: one shot: descriptors of the shooting point, legs that reached each state.
- `LegFrames`: frames of the legs of one shot: auxiliary data of the training.
- `TrainingSet`: all shooting results so far.
- `fit`: train a model on a training set.
- `FitReport`: what one training did.
- `DiminishingSchedule`: after which shots a learner trains.
- `Learned`: model version, training set and density at one time; `fit` gives the next.
- `Calibration`: predicted committors against outcomes; made by `ops_aimmd.calibration`.
- `CommittorDensity`: density of the committor on transition paths.
- `log_weight_function`: a selection weight as a function of log-odds.
- `selection_log_weights`: logarithms of the selection weights of frames.
- `integrated_autocorrelation`: autocorrelation time of a series of many chains, with its error.
"""

from typing import TYPE_CHECKING

from ops_aimmd.on_demand import names_on_demand

if TYPE_CHECKING:
    from ops_aimmd.committor.autocorrelation import integrated_autocorrelation
    from ops_aimmd.committor.calibration import Calibration
    from ops_aimmd.committor.density import CommittorDensity
    from ops_aimmd.committor.fit_report import FitReport
    from ops_aimmd.committor.learned import Learned
    from ops_aimmd.committor.model import CommittorModel
    from ops_aimmd.committor.networks import FeedForward, Residual, SelfNormalizing, register_network
    from ops_aimmd.committor.schedule import DiminishingSchedule
    from ops_aimmd.committor.selection import log_weight_function, selection_log_weights
    from ops_aimmd.committor.training import fit
    from ops_aimmd.committor.training_set import LegFrames, ShootingResult, TrainingSet

__getattr__ = names_on_demand(__name__, __file__)

__all__ = [
    "Calibration",
    "CommittorDensity",
    "CommittorModel",
    "DiminishingSchedule",
    "FeedForward",
    "FitReport",
    "Learned",
    "LegFrames",
    "Residual",
    "SelfNormalizing",
    "ShootingResult",
    "TrainingSet",
    "fit",
    "integrated_autocorrelation",
    "log_weight_function",
    "register_network",
    "selection_log_weights",
]

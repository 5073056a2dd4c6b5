"""Path sampling guided by a committor that is learned on the fly (AIMMD), for OpenPathSampling."""

from ops_aimmd import descriptors
from ops_aimmd.analysis.explanation import Explanation, explain_run
from ops_aimmd.analysis.health import Health
from ops_aimmd.analysis.report import report
from ops_aimmd.checkpoint import FileUnavailableError
from ops_aimmd.committor.calibration import Calibration, calibration
from ops_aimmd.committor.density import CommittorDensity
from ops_aimmd.committor.fit_report import FitReport
from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.committor.schedule import DiminishingSchedule
from ops_aimmd.committor.training import fit
from ops_aimmd.committor.training_set import LegFrames, ShootingResult, TrainingSet
from ops_aimmd.explain.formulas.fit_expressions import fit_expressions
from ops_aimmd.explain.inputs.atoms import atom_relevance
from ops_aimmd.explain.inputs.relevance import input_relevance
from ops_aimmd.runs.committor_outcomes import CommittorSimulation
from ops_aimmd.runs.committor_simulation import committor_simulation
from ops_aimmd.runs.configurations import spread_along_committor
from ops_aimmd.runs.initial_paths import InitialPaths, initial_path, initial_paths
from ops_aimmd.runs.parallel_path_sampling import ChainStoppedWarning, ParallelPathSampling
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.learner_checkpoint import load_learner
from ops_aimmd.sampling.movers import OneWayShooting, ShootingMover
from ops_aimmd.sampling.progress_bar import ProgressBar
from ops_aimmd.sampling.schemes import CommittorShootingScheme, CommittorShootingStrategy
from ops_aimmd.sampling.selectors import CommittorSelector
from ops_aimmd.sampling.transfer import transfer
from ops_aimmd.sampling.velocities import BoltzmannVelocities
from ops_aimmd.shooting.executors.choose import DaskExecutor, InThisProcess, SpawnedProcesses, local_cluster
from ops_aimmd.storage.existing_files import selection_table
from ops_aimmd.storage.logged_steps import current_paths
from ops_aimmd.storage.reopening import ResumeWarning
from ops_aimmd.storage.resume import resume
from ops_aimmd.storage.series_block import read_series
from ops_aimmd.storage.training_hook import TrainingHook
from ops_aimmd.systems import dihedrals, markov_chain, toy  # noqa: F401 - OPS reads back only classes that are imported
from ops_aimmd.systems.descriptor_cv import DescriptorCV
from ops_aimmd.version import __version__

__all__ = [
    "__version__",
    "BoltzmannVelocities",
    "Calibration",
    "ChainStoppedWarning",
    "CommittorDensity",
    "CommittorLearner",
    "CommittorModel",
    "CommittorSelector",
    "CommittorShootingScheme",
    "CommittorShootingStrategy",
    "CommittorSimulation",
    "DaskExecutor",
    "DescriptorCV",
    "DiminishingSchedule",
    "Explanation",
    "FileUnavailableError",
    "FitReport",
    "Health",
    "InThisProcess",
    "InitialPaths",
    "LegFrames",
    "OneWayShooting",
    "ParallelPathSampling",
    "ProgressBar",
    "ResumeWarning",
    "ShootingMover",
    "ShootingResult",
    "SpawnedProcesses",
    "TrainingHook",
    "TrainingSet",
    "atom_relevance",
    "calibration",
    "committor_simulation",
    "current_paths",
    "descriptors",
    "explain_run",
    "fit",
    "fit_expressions",
    "initial_path",
    "initial_paths",
    "input_relevance",
    "load_learner",
    "local_cluster",
    "read_series",
    "report",
    "resume",
    "selection_table",
    "spread_along_committor",
    "transfer",
]

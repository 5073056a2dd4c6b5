"""Path sampling guided by a committor that is learned on the fly (AIMMD), for OpenPathSampling.

This is what a script needs. `committor`, `descriptors`, `sampling`, `runs`, `analysis`, `explain`, `reweighting`,
`engines`, `systems` and `checkpoint` hold the rest of the public names; each says in its docstring what they are.
"""

import warnings
from typing import TYPE_CHECKING

# these modules define what OPS stores: it reads back only classes that are imported
import ops_aimmd.analysis.series
import ops_aimmd.sampling.configuration_replicas
import ops_aimmd.systems.dihedrals
import ops_aimmd.systems.markov_chain
import ops_aimmd.systems.toy  # noqa: F401
from ops_aimmd.committor import CommittorModel, TrainingSet, fit
from ops_aimmd.committor.calibration import calibration
from ops_aimmd.on_demand import names_on_demand
from ops_aimmd.runs import (
    DaskExecutor,
    ParallelPathSampling,
    SpawnedProcesses,
    TrainingHook,
    initial_path,
    resume,
)
from ops_aimmd.runs.committor_simulation import committor_simulation
from ops_aimmd.runs.free_runs import free_runs
from ops_aimmd.runs.initial_paths import initial_paths
from ops_aimmd.sampling import (
    BoltzmannVelocities,
    CommittorLearner,
    CommittorSelector,
    CommittorShootingScheme,
    ProgressBar,
    load_learner,
)
from ops_aimmd.sampling.transfer import transfer
from ops_aimmd.version import __version__

if TYPE_CHECKING:
    import ops_aimmd.explain as explain
    import ops_aimmd.reweighting as reweighting
    from ops_aimmd.analysis.equilibrium_of_run import equilibrium
    from ops_aimmd.analysis.explanation import explain_run
    from ops_aimmd.analysis.report import report
    from ops_aimmd.explain.formulas.fit_expressions import fit_expressions
    from ops_aimmd.explain.inputs.relevance import input_relevance

__all__ = [
    "__version__",
    # path sampling with OPS
    "CommittorLearner",
    "CommittorShootingScheme",
    "CommittorSelector",
    "BoltzmannVelocities",
    "TrainingHook",
    "ProgressBar",
    # runs
    "initial_path",
    "initial_paths",
    "ParallelPathSampling",
    "SpawnedProcesses",
    "DaskExecutor",
    "resume",
    "committor_simulation",
    "free_runs",
    # the committor, also without OPS
    "CommittorModel",
    "TrainingSet",
    "fit",
    "calibration",
    "load_learner",
    "transfer",
    # what was learned
    "equilibrium",
    "report",
    "explain_run",
    "input_relevance",
    "fit_expressions",
    # folders
    "analysis",
    "checkpoint",
    "committor",
    "descriptors",
    "engines",
    "explain",
    "reweighting",
    "runs",
    "sampling",
    "systems",
]

_MOVED = {
    "analysis": ["Explanation", "Health", "read_series", "selection_table"],
    "committor": ["Calibration", "CommittorDensity", "DiminishingSchedule", "FitReport", "LegFrames", "ShootingResult"],
    "explain": ["atom_relevance"],
    "runs": ["ChainStoppedWarning", "CommittorSimulation", "FileUnavailableError", "InThisProcess", "InitialPaths"]
    + ["ResumeWarning", "current_paths", "local_cluster", "spread_along_committor"],
    "sampling": ["CommittorShootingStrategy", "DescriptorCV", "OneWayShooting", "ShootingMover"],
}
"""Names that were at the top level in version 0.1.0, and the folder that has them."""

_find = names_on_demand(__name__, __file__)


def __getattr__(name):
    for folder, names in _MOVED.items():
        if name in names:
            text = f"ops_aimmd.{name} is now ops_aimmd.{folder}.{name}; the next version has it only there"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            return getattr(_find(folder) if folder == "explain" else globals()[folder], name)
    return _find(name)

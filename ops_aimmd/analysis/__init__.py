"""What a run has done: series of steps, diagnostics, plots. The report itself is `ops_aimmd.report`.

- `plots`: functions that draw on matplotlib axes.
- `step_table`: one row per step, from the steps of an OPS file.
- `StepRecorder`: hook of OPS: records the steps of a run that stores nothing.
- `read_series`: the series that a run keeps beside its paths, as a table.
- `selection_table`: selection weights of the paths of an OPS file under any model.
- `Health`: diagnostics of a run, made by `ops_aimmd.report`.
- `Explanation`: relevance and formulas of a run, made by `ops_aimmd.explain_run`.
- `find_channels`: transition channels among crossing points of paths.
"""

from typing import TYPE_CHECKING

from ops_aimmd.on_demand import names_on_demand

if TYPE_CHECKING:
    import ops_aimmd.analysis.plots as plots
    from ops_aimmd.analysis.channels import find_channels
    from ops_aimmd.analysis.explanation import Explanation
    from ops_aimmd.analysis.health import Health
    from ops_aimmd.analysis.series import StepRecorder, step_table
    from ops_aimmd.storage.existing_files import selection_table
    from ops_aimmd.storage.series_block import read_series

__getattr__ = names_on_demand(__name__, __file__)

__all__ = [
    "Explanation",
    "Health",
    "StepRecorder",
    "find_channels",
    "plots",
    "read_series",
    "selection_table",
    "step_table",
]

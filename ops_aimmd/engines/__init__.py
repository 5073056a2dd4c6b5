"""What the package knows of simulation engines: one adapter per kind of engine.

- `EngineAdapter`: base class: what the package asks of an engine.
- `IrreversibleDynamicsWarning`: the integrator does not run backwards as two-way shooting needs it.
- `adapter_of`: the adapter of an engine.
- `baoab_integrator`: Langevin integrator of OpenMM that reverses.
- `positions_of`: positions of snapshots, in nm for OpenMM.
- `boxes_of`: box vectors of snapshots.
"""

from typing import TYPE_CHECKING

from ops_aimmd.on_demand import names_on_demand

if TYPE_CHECKING:
    from ops_aimmd.engines.base import EngineAdapter, IrreversibleDynamicsWarning
    from ops_aimmd.engines.choose import adapter_of
    from ops_aimmd.engines.frames import boxes_of, positions_of
    from ops_aimmd.engines.integrators import baoab_integrator

__getattr__ = names_on_demand(__name__, __file__)

__all__ = ["EngineAdapter", "IrreversibleDynamicsWarning", "adapter_of", "baoab_integrator", "boxes_of", "positions_of"]

"""Ready-made systems with known answers: toy potentials with exact committors, and molecules.

- `toy`: toy potentials: `mueller_brown`, `wolfe_quapp`, `hummer_szabo`, `two_gaussian_wells`.
- `markov_chain`: an engine that walks on a finite Markov chain.
- `alanine_dipeptide`: alanine dipeptide in vacuum (needs OpenMM).
- `alanine_in_solvent`: alanine dipeptide in implicit or explicit water (needs OpenMM).
- `ions_in_water`: lithium chloride and sodium chloride in water (needs OpenMM).
- `langevin`: the integrator of the molecular systems (needs OpenMM).
"""

from typing import TYPE_CHECKING

from ops_aimmd.on_demand import names_on_demand

if TYPE_CHECKING:
    import ops_aimmd.systems.alanine_dipeptide as alanine_dipeptide
    import ops_aimmd.systems.alanine_in_solvent as alanine_in_solvent
    import ops_aimmd.systems.ions_in_water as ions_in_water
    import ops_aimmd.systems.markov_chain as markov_chain
    import ops_aimmd.systems.toy as toy
    from ops_aimmd.systems.molecular_system import langevin

__getattr__ = names_on_demand(__name__, __file__)

__all__ = ["alanine_dipeptide", "alanine_in_solvent", "ions_in_water", "langevin", "markov_chain", "toy"]

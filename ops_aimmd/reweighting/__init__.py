"""From shots and free runs to free energies and rates, with errors: arrays in, arrays out. Knows no OPS.

- `Excursions`: stretches of trajectories between states, and how each was sampled.
- `reweight`: equilibrium weights of excursions.
- `Equilibrium`: weights, rates, populations, free energies and their errors; made by `reweight`.
- `Kinetics`: fluxes, rates, mean first-passage times and populations.
- `FreeEnergy`: free energy on one or two functions of configurations.
- `TooFewExcursions`: the error if an estimate would rest on too few excursions.
- `transition_path_check`: observed against implied probability of transition paths.
- `rates_of_parts`: rates from parts of the data, and with other choices.
- `channel_check`: whether the chains agree on the reaction channels.
"""

from typing import TYPE_CHECKING

from ops_aimmd.on_demand import names_on_demand

if TYPE_CHECKING:
    from ops_aimmd.reweighting.checks import channel_check, rates_of_parts, transition_path_check
    from ops_aimmd.reweighting.equilibrium import Equilibrium, TooFewExcursions, reweight
    from ops_aimmd.reweighting.excursions import Excursions
    from ops_aimmd.reweighting.free_energy import FreeEnergy
    from ops_aimmd.reweighting.rates import Kinetics

__getattr__ = names_on_demand(__name__, __file__)

__all__ = [
    "Equilibrium",
    "Excursions",
    "FreeEnergy",
    "Kinetics",
    "TooFewExcursions",
    "channel_check",
    "rates_of_parts",
    "reweight",
    "transition_path_check",
]

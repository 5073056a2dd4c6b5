"""x"""
from ops_aimmd.reweighting.equilibrium import Equilibrium, TooFewExcursions, reweight
from ops_aimmd.reweighting.excursions import Excursions
from ops_aimmd.reweighting.free_energy import FreeEnergy
__all__ = ["Equilibrium", "Excursions", "FreeEnergy", "TooFewExcursions", "reweight"]

"""From molecular coordinates to descriptors: in torch, batched over frames, differentiable; without OPS."""

from ops_aimmd.descriptors.descriptor_set import Descriptors, JoinedDescriptors, StandardisedDescriptors
from ops_aimmd.descriptors.internal import InternalCoordinates
from ops_aimmd.descriptors.symmetry import SymmetryFunctions
from ops_aimmd.descriptors.topology import (
    backbone_dihedrals,
    bond_angles,
    bond_dihedrals,
    heavy_atom_distances,
    pair_distances,
    select,
)

__all__ = [
    "Descriptors",
    "InternalCoordinates",
    "JoinedDescriptors",
    "StandardisedDescriptors",
    "SymmetryFunctions",
    "backbone_dihedrals",
    "bond_angles",
    "bond_dihedrals",
    "heavy_atom_distances",
    "pair_distances",
    "select",
]

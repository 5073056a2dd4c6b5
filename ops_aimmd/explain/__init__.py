"""What has the committor learned: which descriptors matter, and which short formula says the same. Knows no OPS.

- `input_relevance`: loss of held-out shots when an input is replaced.
- `by_input`: each input is a group.
- `by_angle`: sine and cosine of an angle together.
- `by_central_bond`: dihedrals around the same bond together.
- `by_symmetry_function`: parts of a symmetry function together.
- `by_correlation`: correlated inputs together.
- `atom_relevance`: gradient of the reaction coordinate with respect to each atom.
- `mean_over_frames`: weighted mean of the relevance of atoms.
- `transition_state_weights`: weights of frames near committor 1/2.
- `write_relevance_pdb`: relevance of atoms as the B factor of a PDB file.
- `plot_relevance`: bars of a table of `input_relevance`.
- `plot_atom_relevance`: atoms coloured by relevance.
- `fit_expressions`: short formulas for the reaction coordinate: a front of loss against complexity.
- `Front`: the formulas that were found, the best one, tables and plots of them.
- `Formula`: one formula: as text, sympy, LaTeX, function, model.
"""

from ops_aimmd.explain.formulas.fit_expressions import fit_expressions
from ops_aimmd.explain.formulas.formula import Formula
from ops_aimmd.explain.formulas.front import Front
from ops_aimmd.explain.inputs.atoms import atom_relevance, mean_over_frames, transition_state_weights, write_relevance_pdb
from ops_aimmd.explain.inputs.grouping import by_angle, by_central_bond, by_correlation, by_input, by_symmetry_function
from ops_aimmd.explain.inputs.relevance import input_relevance
from ops_aimmd.explain.inputs.relevance_plots import plot_atom_relevance, plot_relevance

__all__ = [
    "Formula",
    "Front",
    "atom_relevance",
    "by_angle",
    "by_central_bond",
    "by_correlation",
    "by_input",
    "by_symmetry_function",
    "fit_expressions",
    "input_relevance",
    "mean_over_frames",
    "plot_atom_relevance",
    "plot_relevance",
    "transition_state_weights",
    "write_relevance_pdb",
]

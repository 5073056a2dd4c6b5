"""What descriptors cost per frame on one thread, next to MDTraj where it has the same.

batch        processor time per frame of a trajectory of `--frames` frames, in microseconds: torch in double and single
             precision, MDTraj (single precision, without the conversion from OPS)
gradient     the same with derivatives with respect to all positions, double precision
one frame    processor time of the collective variable on one OPS snapshot that it has not seen, as the stopping condition
             of a running leg asks for it; the same of OPS's MDTrajFunctionCV

    OMP_NUM_THREADS=1 python benchmarks/descriptor_cost.py           # about a minute
"""

import argparse
import time

import mdtraj
import numpy as np
import openpathsampling as paths
import pandas as pd
import torch
from openmm import unit
from openpathsampling.engines import openmm as ops_openmm

from ops_aimmd.descriptors.topology import backbone_dihedrals, bond_angles, bond_dihedrals, heavy_atom_distances
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide
from ops_aimmd.systems.descriptor_cv import DescriptorCV
from ops_aimmd.systems.ions_in_water import lithium_chloride


def microseconds(function, n_frames, repeats=5):
    """Least processor time per frame of several repeats."""
    function()
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        function()
        times.append(time.process_time() - begin)
    return min(times) / n_frames * 1e6


def frames_around(positions, n_frames, seed=1):
    """Positions with noise of 0.005 nm: the cost does not depend on the physics."""
    noise = np.random.default_rng(seed).normal(0.0, 0.005, size=(n_frames, *positions.shape))
    return positions + noise


def with_gradient(descriptors, positions, box):
    """Evaluate and differentiate the sum of all columns."""
    x = torch.tensor(positions, requires_grad=True)
    descriptors(x, box).sum().backward()


def measure(name, descriptors, engine, positions, box, function=None, **options):
    """One row of the table; the function of MDTraj takes a trajectory and the options."""
    n_frames = len(positions)
    tensors = {
        precision: (torch.tensor(positions, dtype=precision), None if box is None else torch.tensor(box, dtype=precision))
        for precision in (torch.float64, torch.float32)
    }
    topology = engine.topology.mdtraj
    trajectory = mdtraj.Trajectory(positions, topology)
    snapshot = ops_openmm.Snapshot.construct(
        coordinates=positions[0] * unit.nanometer,
        velocities=np.zeros_like(positions[0]) * unit.nanometer / unit.picosecond,
        # OpenMM gives a box to every system, also in vacuum
        box_vectors=(2.0 * np.eye(3) if box is None else box) * unit.nanometer,
        engine=engine,
    )
    if box is not None:
        trajectory.unitcell_vectors = np.tile(box, (n_frames, 1, 1)).astype(np.float32)
    cv = DescriptorCV(name, descriptors)
    one = 20
    with torch.no_grad():
        row = {
            "descriptors": name,
            "columns": len(descriptors.names),
            "batch float64": microseconds(lambda: descriptors(*tensors[torch.float64]), n_frames),
            "batch float32": microseconds(lambda: descriptors(*tensors[torch.float32]), n_frames),
            "batch MDTraj": np.nan if function is None else microseconds(lambda: function(trajectory, **options), n_frames),
        }
    row["gradient"] = microseconds(lambda: with_gradient(descriptors, positions, box), n_frames, repeats=2)
    row["one frame"] = microseconds(lambda: [cv._values([snapshot]) for _ in range(one)], one)
    if function is not None:
        theirs = paths.MDTrajFunctionCV(f"MDTraj {name}", function, engine.topology, **options)
        row["one frame MDTraj"] = microseconds(lambda: [theirs._eval([snapshot]) for _ in range(one)], one)
    return row


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=50)
    n_frames = parser.parse_args().frames
    torch.set_num_threads(1)

    alanine = alanine_dipeptide()
    topology = alanine.engine.topology.mdtraj
    positions = frames_around(alanine.positions, n_frames)
    phi_psi, dihedrals = backbone_dihedrals(topology), bond_dihedrals(topology)
    distances, angles = heavy_atom_distances(topology), bond_angles(topology)
    cases = {
        "phi and psi": (phi_psi, mdtraj.compute_dihedrals, {"indices": phi_psi.dihedrals}),
        "dihedrals of all bonds": (dihedrals, mdtraj.compute_dihedrals, {"indices": dihedrals.dihedrals}),
        "angles": (angles, mdtraj.compute_angles, {"angle_indices": angles.angles}),
        "heavy-atom distances": (distances, mdtraj.compute_distances, {"atom_pairs": distances.distances}),
    }
    rows = []
    for name, (descriptors, function, named) in cases.items():
        atoms = {key: list(value.values()) for key, value in named.items()}
        row = measure(f"alanine, {name}", descriptors, alanine.engine, positions, None, function, **atoms, periodic=False)
        rows.append(row)
    ions = lithium_chloride(platform="CPU")
    positions = frames_around(ions.positions, n_frames)
    rows += [
        measure(
            "LiCl in water, distance",
            ions.distance.descriptors,
            ions.engine,
            positions,
            ions.box,
            mdtraj.compute_distances,
            atom_pairs=[[0, 1]],
            periodic=True,
        ),
        measure("LiCl in water, all", ions.descriptors.descriptors, ions.engine, positions, ions.box),
    ]
    print(pd.DataFrame(rows).set_index("descriptors").to_string(float_format=lambda value: f"{value:.3g}"))


if __name__ == "__main__":
    main()

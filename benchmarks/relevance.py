"""Which inputs matter? The relevance of inputs where the answer is known.

Toy: two Gaussian wells, Langevin dynamics, with a bath of 20 oscillators. The committor depends on the first two
coordinates only; both must come first, and the loss increase of every bath coordinate must be zero within its errors.
Of values that are zero with normal errors, 4.6 % lie outside of two standard errors by chance: the table says how
many do. Every shot is judged by a member of the ensemble that was not trained on it (held out), or by all on new
shots. The control judges the training shots by members that were trained on them.

Alanine dipeptide, C7eq to C7ax: sines and cosines of nine dihedral angles, grouped by central bond. The bonds of phi
and theta are expected on top (Bolhuis, Dellago, Chandler, PNAS 97, 5877 (2000), doi:10.1073/pnas.100127697), in the
channel across phi = 0 that was studied there; which of the others need psi as well, the tables of single chains tell.

    python benchmarks/relevance.py toy [--seeds 1 2 3 4 5] [--shots 1000] [--on-the-fly]
    python benchmarks/relevance.py run run.aimmd        # inputs with symmetry functions, and formulas of them
    python benchmarks/relevance.py alanine [run.aimmd ...] [--steps 1000] [--figures DIRECTORY]

Shots of the toy start at random points of low potential energy; with --on-the-fly they are those of a guided run with
as many steps. Alanine takes the training sets of one or more checkpoints, one chain after another, or runs one chain
itself.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import openpathsampling as paths
from brute_force import brute_force_committor

import ops_aimmd
from ops_aimmd.analysis.explanation import relevant_inputs
from ops_aimmd.explain.inputs.atoms import atom_relevance, mean_over_frames, transition_state_weights, write_relevance_pdb
from ops_aimmd.explain.inputs.grouping import by_central_bond
from ops_aimmd.explain.inputs.relevance import input_relevance
from ops_aimmd.explain.inputs.relevance_plots import plot_atom_relevance, plot_relevance
from ops_aimmd.systems import toy

N_BATH = 20
TOY_NAMES = ["x", "y"] + [f"bath {i}" for i in range(1, N_BATH + 1)]
SHOWN = ["loss_increase", "standard_error", "repeats_error", "ensemble_error", "conditional_increase", "conditional_error"]
SHOWN += ["noise_increase", "noise_error", "gradient", "gradient_error", "correlated"]


def random_shots(system, n, rng):
    """Two-way shots from points of low potential energy."""
    points = system.evaluation_points(rng=rng)
    points = np.concatenate([points, *(system.evaluation_points(rng=rng) for _ in range(n // len(points)))])
    points = points[rng.permutation(len(points))[:n]]
    return ops_aimmd.TrainingSet(points, brute_force_committor(system, points, 2, rng))


def run(system, n_steps, seed):
    """A guided run of `n_steps` steps."""
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=seed)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=system.engine)
    with contextlib.redirect_stdout(io.StringIO()):  # what OPS says about the initial conditions
        start = scheme.initial_conditions_from_trajectories(system.initial_trajectory(seed))
    sampler = paths.PathSampling(storage=None, move_scheme=scheme, sample_set=start)
    sampler.attach_hook(ops_aimmd.TrainingHook(learner))
    with open(os.devnull, "w") as sampler.output_stream:
        sampler.run(n_steps)
    return learner.training_set


def fitted(training_set, seed):
    """A fresh model, fitted once to all shots."""
    model = ops_aimmd.CommittorModel.for_descriptors(training_set.n_descriptors, training_set.n_states, seed=seed)
    return model, ops_aimmd.fit(model, training_set, seed=seed)


def toy_benchmark(options):
    system = toy.two_gaussian_wells(n_bath=N_BATH)
    rows = {"held out": [], "new shots": [], "control: training shots": []}
    for seed in options.seeds:
        start = time.perf_counter()
        rng = np.random.default_rng([seed, 7])
        shots = run(system, options.shots, seed) if options.on_the_fly else random_shots(system, options.shots, rng)
        new = random_shots(system, options.shots, rng)
        model, report = fitted(shots, seed)
        judged = {"held out": None, "new shots": new, "control: training shots": shots}
        for name, held_out in judged.items():
            rows[name].append(input_relevance(model, shots, names=TOY_NAMES, seed=seed, held_out=held_out))
        if seed == options.seeds[0]:
            print(f"seed {seed}, held out: {rows['held out'][0].attrs}")
            print(rows["held out"][0][SHOWN].round(5).to_string(), "\n")
        print(f"seed {seed}: {report}; {time.perf_counter() - start:.0f} s", flush=True)
    print(f"\n{len(options.seeds)} seeds; bath: increase of the loss over its standard error, {N_BATH} values a seed")
    print(f"{'':24}  x and y first  smaller of x, y  largest of bath  bath: mean  rms   beyond 2  above 2  largest |.|")
    for name, tables in rows.items():
        bath = [table.loc[TOY_NAMES[2:]] for table in tables]
        ratio = np.concatenate(
            [part.loss_increase / part.standard_error.where(part.standard_error > 0, 1) for part in bath]
        )
        first = sum(set(table.index[:2]) == {"x", "y"} for table in tables)
        smaller = min(table.loss_increase[["x", "y"]].min() for table in tables)
        largest = max(part.loss_increase.max() for part in bath)
        print(
            f"{name:24}  {first:6d} of {len(tables):2d}  {smaller:15.4f}  {largest:15.4f}  {ratio.mean():10.2f}  "
            f"{np.sqrt((ratio**2).mean()):4.2f}  {(np.abs(ratio) > 2).mean():7.1%}  {(ratio > 2).mean():7.1%}  "
            f"{np.abs(ratio).max():10.2f}"
        )
    save_figure(plot_relevance(rows["held out"][0]).figure, options.figures, "relevance_toy.png")


def pooled(training_sets):
    """Shots of several runs, each a chain of its own."""
    columns = [
        np.concatenate([getattr(shots, name) for shots in training_sets])
        for name in ("descriptors", "counts", "weights", "steps")
    ]
    chains = np.repeat(np.arange(len(training_sets)), [len(shots) for shots in training_sets])
    return ops_aimmd.TrainingSet(*columns, chains=chains)


def alanine_benchmark(options):
    from ops_aimmd.systems.alanine_dipeptide import DIHEDRALS, alanine_dipeptide

    system = alanine_dipeptide()
    sets = [ops_aimmd.load_learner(file).training_set for file in options.checkpoints]
    alanine_tables(sets or [run(system, options.steps, options.seeds[0])], DIHEDRALS, system, options)


def alanine_tables(sets, dihedrals, system, options):
    """Relevance of bonds, angles and atoms in models fitted to shots with the sines and cosines of `dihedrals`.

    A chain often stays in one channel, so that each is looked at alone, and then all together.
    """
    names = [f"{name} {function}" for name in dihedrals for function in ("sin", "cos")]
    bonds = by_central_bond(names, dihedrals)
    for number, shots in enumerate(sets if len(sets) > 1 else []):
        model, report = fitted(shots, options.seeds[0])
        table = input_relevance(model, shots, groups=bonds, names=names, methods=["permutation", "conditional"])
        print(f"\nchain {number}: {report}")
        print_bonds(table)
    model, report = fitted(shots := pooled(sets), options.seeds[0])
    print(f"\nall: {report}")
    start = time.perf_counter()
    table = input_relevance(model, shots, groups=bonds, names=names)
    print(f"{time.perf_counter() - start:.1f} s, {table.attrs}\n{table[SHOWN].round(4).to_string()}")
    print_bonds(table)
    table = input_relevance(model, shots, names=names)
    print(f"\ndihedral angles\n{table[SHOWN].round(4).to_string()}")
    save_figure(plot_relevance(table).figure, options.figures, "relevance_alanine.png")
    atoms_of_transition_states(model, dihedrals, system, options)


def print_bonds(table):
    """The first three bonds by either permutation, with standard errors."""
    for title, word, error in (
        ("permutation", "loss", "standard_error"),
        ("conditional", "conditional", "conditional_error"),
    ):
        best = table.sort_values(f"{word}_increase", ascending=False)[:3]
        shown = ", ".join(f"{name} {row[f'{word}_increase']:.3f} +- {row[error]:.3f}" for name, row in best.T.items())
        print(f"  {title}: {shown.replace('theta, omega1', 'theta/omega1').replace('theta2, omega2', 'theta2/omega2')}")
        on_top = {"phi", "theta, omega1"} == set(best.index[:2])
        print(f"    the bonds of phi and theta on top: {'yes' if on_top else 'no'}")


def atoms_of_transition_states(model, dihedrals, system, options):
    """Which atoms move the reaction coordinate, in the frames of an initial path."""
    descriptors = ops_aimmd.descriptors.InternalCoordinates(dihedrals=dihedrals)
    path = system.initial_trajectory(seed=1)
    positions = np.array(path.xyz)
    weights = transition_state_weights(model.committor(descriptors(positions)))
    topology = system.engine.topology.mdtraj
    relevance = mean_over_frames(atom_relevance(model, descriptors, positions), weights)
    frame = positions[weights.argmax()]
    print(f"\natoms, {len(positions)} frames of a path weighted by the committor close to 1/2 (1/nm):")
    for atom in np.argsort(-relevance)[:8]:
        print(f"  {topology.atom(int(atom))!s:10} {relevance[atom]:6.1f}")
    if options.figures:
        write_relevance_pdb(Path(options.figures) / "relevance_alanine.pdb", topology, frame, relevance)
        save_figure(plot_atom_relevance(relevance, topology, frame), options.figures, "relevance_alanine_atoms.png")


def run_benchmark(options):
    """Inputs, and formulas of those that matter, of any checkpoint whose descriptors have names."""
    for file in options.checkpoints:
        learner = ops_aimmd.load_learner(file)
        model, shots, names = learner.model, learner.training_set, learner.descriptor_names
        by_centre, alone = (
            input_relevance(model, shots, groups=groups, names=names, seed=1) for groups in ("centres", "inputs")
        )
        loss, error = alone.attrs["held_out_loss"], alone.attrs["held_out_loss_error"]
        print(f"\n{file}: {len(shots)} shots, which lose {loss:.3f} +- {error:.3f} nats when held out")
        for table in (by_centre, alone):
            print(table[SHOWN].head(8).round(3).to_string())
        chosen = relevant_inputs(alone, names)
        front = ops_aimmd.fit_expressions(shots, model, chosen, time_limit=25, names=names, seed=1, progress=False)
        print(f"formulas of {len(chosen)} inputs:\n{front}")


def save_figure(figure, directory, name):
    if directory:
        Path(directory).mkdir(parents=True, exist_ok=True)
        figure.savefig(Path(directory) / name, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("system", choices=["toy", "alanine", "run"])
    parser.add_argument("checkpoints", nargs="*", help="alanine, run: checkpoints; descriptors of this package")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--shots", type=int, default=1000, help="toy: shots per seed")
    parser.add_argument("--steps", type=int, default=1000, help="alanine: steps of the run where there is no checkpoint")
    parser.add_argument("--on-the-fly", action="store_true", help="toy: shots of a guided run")
    parser.add_argument("--figures", help="directory for pictures")
    options = parser.parse_args()
    if options.figures:
        import matplotlib

        matplotlib.use("agg")
    {"toy": toy_benchmark, "alanine": alanine_benchmark, "run": run_benchmark}[options.system](options)


if __name__ == "__main__":
    main()

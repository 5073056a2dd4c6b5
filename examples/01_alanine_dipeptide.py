"""Guided path sampling of alanine dipeptide in vacuum, C7eq -> C7ax.

A hot trajectory gives the first transition path; then the committor is learned from the shots that path sampling makes,
and guides the next shots. At the end a picture compares it with plain two-way shooting.

Takes five to ten minutes on two cores (`--quick`: half a minute). Writes alanine_dipeptide.nc (a regular OPS file),
alanine_dipeptide.aimmd (what was learned), alanine_dipeptide.png, and the report alanine_dipeptide.html, which says in
words how far to trust the run.
Expected: 60-70 % of the shots give a transition path (with inertia the two legs of a shot tend to part).
"""

import argparse
import os

import matplotlib.pyplot as plt
import numpy as np
import openpathsampling as paths

import ops_aimmd
from ops_aimmd.analysis import StepRecorder, plots, step_table
from ops_aimmd.systems.alanine_dipeptide import CENTRES, RADIUS, alanine_dipeptide

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=600, help="MC steps of guided sampling")
parser.add_argument("--output", default="alanine_dipeptide", help="name of the files, without extension")
parser.add_argument("--quick", action="store_true", help="only 8 steps, from a first path that is soon found")
arguments = parser.parse_args()
n_steps = 8 if arguments.quick else arguments.steps
for extension in ("nc", "aimmd", "png", "html"):
    if os.path.exists(f"{arguments.output}.{extension}"):
        parser.error(f"{arguments.output}.{extension} exists; move it away or choose another name with --output")

system = alanine_dipeptide()
network = system.network()
print("looking for a first transition path in hot dynamics ...")
initial_trajectory = system.initial_trajectory(seed=4 if arguments.quick else 1)

# guided sampling
storage = paths.Storage(f"{arguments.output}.nc", "w")
learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=1)
scheme = ops_aimmd.CommittorShootingScheme(network, learner, engine=system.engine)
sampler = paths.PathSampling(
    storage=storage,
    move_scheme=scheme,
    sample_set=scheme.initial_conditions_from_trajectories(initial_trajectory),
)
sampler.attach_hook(ops_aimmd.TrainingHook(learner, checkpoint=f"{arguments.output}.aimmd"))
sampler.attach_hook(ops_aimmd.ProgressBar(learner))
sampler.run(n_steps)

# plain two-way shooting as OPS does it, for comparison
print("the same with plain two-way shooting ...")
plain = paths.MoveScheme(network)
modifier = ops_aimmd.BoltzmannVelocities(system.engine)
plain.append(paths.strategies.TwoWayShootingStrategy(modifier=modifier, engine=system.engine))
plain.append(paths.strategies.OrganizeByMoveGroupStrategy())
comparison = paths.PathSampling(None, plain, sampler.sample_set)  # its path is relaxed by now: a fair start
recorder = StepRecorder(system.states)
comparison.attach_hook(recorder)
comparison.output_stream = open(os.devnull, "w")
comparison.run(n_steps // 2)

# results
table = step_table(storage.steps, system.states)
print(table[["generated", "expected", "accepted", "path_length"]].astype(float).describe().loc[["mean", "std"]])
print("plain two-way shooting:", recorder.table[["generated", "accepted"]].mean().round(3).to_dict())
print("last training:", learner.last_report)

figure, axes = plt.subplots(2, 2, figsize=(11, 9), layout="constrained")
accepted = [step.active[0].trajectory for step in storage.steps if step.change.canonical.accepted][-60:]
degrees = [np.asarray(system.phi_psi(path)) for path in accepted]
committor = np.concatenate([learner.committor(path) for path in accepted])
hexagons = plots.plot_committor_map(axes[0, 0], *np.concatenate(degrees).T, committor)
for path in degrees[-4:]:
    plots.plot_periodic_path(axes[0, 0], path, color="black", linewidth=0.6, alpha=0.7)
for name, centre in CENTRES.items():
    plots.plot_disk(axes[0, 0], centre, RADIUS, name)
figure.colorbar(hexagons, ax=axes[0, 0], label="learned committor of C7ax")
axes[0, 0].set(xlabel="phi (degrees)", ylabel="psi (degrees)", xlim=(-180, 180), ylim=(-180, 180))
axes[0, 0].set_title("transition paths C7eq -> C7ax")
plots.plot_counts(axes[0, 1], table)
axes[0, 1].set_title("expected and generated transition paths")
plots.plot_loss(axes[1, 0], learner.reports)
axes[1, 0].set_title("learning")
plots.plot_acceptance(axes[1, 1], {"guided": table, "plain two-way": recorder.table})
axes[1, 1].set_title("efficiency of shooting")
figure.savefig(f"{arguments.output}.png", dpi=150)
storage.close()
print(ops_aimmd.report(f"{arguments.output}.nc", checkpoint=f"{arguments.output}.aimmd", output=f"{arguments.output}.html"))
print(f"wrote {arguments.output}.nc, {arguments.output}.aimmd, {arguments.output}.png and {arguments.output}.html")

"""Guided path sampling of LiCl in water: how does the ion pair come apart, and what does the water have to do with it?

The first path is found by shooting uphill from the bound pair. The committor is learned as a function of the distance of
the ions and 220 symmetry functions of the water around them.

Takes about two hours for 1000 steps on one core (`--quick`: one or two minutes). When the files of an earlier call are
there, the run goes on from them. Writes licl.nc (an OPS file with every 20th frame of each path), licl.aimmd (what was
learned, and all paths) and licl.png.
Expected: 35-45 % of the shots give a transition path; the paths take 1 to 2 ps.
"""

import argparse
import os

import matplotlib.pyplot as plt
import numpy as np
import openpathsampling as paths

import ops_aimmd
from ops_aimmd.analysis import plots, step_table
from ops_aimmd.systems.ions_in_water import lithium_chloride

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=1000, help="MC steps of the whole run, those of earlier calls included")
parser.add_argument("--quick", action="store_true", help="only 3 steps, from water that is not quite in equilibrium")
arguments = parser.parse_args()
n_steps = 3 if arguments.quick else arguments.steps

if os.path.exists("licl.aimmd"):
    sampler = ops_aimmd.resume("licl.nc", checkpoint="licl.aimmd")
else:
    system = lithium_chloride()
    start = system.start(seed=1, n_frames=100 if arguments.quick else 1000)
    print("looking for a first transition path ...")
    trajectory = ops_aimmd.initial_path(start, system.distance, system.states, seed=1)
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=1)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=system.engine)
    sampler = paths.PathSampling(
        storage=paths.Storage("licl.nc", "w"),
        move_scheme=scheme,
        sample_set=scheme.initial_conditions_from_trajectories(trajectory),
    )
    hook = ops_aimmd.TrainingHook(learner, checkpoint="licl.aimmd", rejected_trials="ends", path_stride=20)
    sampler.attach_hook(hook)
learner = sampler.move_scheme.learner
sampler.attach_hook(ops_aimmd.ProgressBar(learner))
sampler.run(max(0, n_steps - sampler.step))

# results
table = step_table(sampler.storage.steps, learner.states)
late = table[-300:]
print(f"generated {late.generated.mean():.2f}, accepted {late.accepted.mean():.2f} in the last {len(late)} steps")
print(f"mean transition-path time {0.02 * (late.path_length - 1).mean():.2f} ps")
print("last training:", learner.last_report)

shots = learner.training_set
names = learner.descriptors.names
distance = shots.descriptors[:, names.index("r")]
first_shell = shots.descriptors[:, names.index("Li O G2 r=0.25")]
figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
points = axes[0].scatter(distance, first_shell, c=learner.model.committor(shots.descriptors), s=12, vmin=0, vmax=1)
figure.colorbar(points, ax=axes[0], label="learned committor of the unbound state")
axes[0].set(xlabel="r(LiCl) (nm)", ylabel="oxygen atoms at 0.25 nm of Li (G2)", title="shooting points")
plots.plot_counts(axes[1], table)
axes[1].set_title("expected and generated transition paths")
axes[2].hist(0.02 * (np.asarray(table.path_length) - 1), bins=30)
axes[2].set(xlabel="transition-path time (ps)", ylabel="MC steps", title="how long the paths take")
figure.savefig("licl.png", dpi=150)
sampler.storage.close()
print("wrote licl.nc, licl.aimmd and licl.png")

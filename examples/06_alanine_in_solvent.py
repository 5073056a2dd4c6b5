"""Guided path sampling of alanine dipeptide in solvent, C7eq -> alpha_R: a first path made on the spot, then psi is found.

The way from nothing to a guided run, as for a user's own system: dynamics in the first state, a first path by shooting
uphill, guided sampling, and the report.

    python examples/06_alanine_in_solvent.py                    # implicit solvent: about ten minutes on one core
    python examples/06_alanine_in_solvent.py --solvent water    # 230 waters: best on a GPU, hours on a CPU

`--quick`: half a minute. Writes alanine_in_solvent.nc (an OPS file), .aimmd (what was learned), .html (the report), .png.
Expected: about 0.6 of the shots give a transition path (paths are short here, and most of their frames pay), and the
committor changes with psi.
"""

import argparse
import os

import matplotlib.pyplot as plt
import numpy as np
import openpathsampling as paths

import ops_aimmd
from ops_aimmd.analysis import plots, step_table
from ops_aimmd.systems.alanine_in_solvent import alanine_in_solvent

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--solvent", choices=["implicit", "water"], default="implicit")
parser.add_argument("--steps", type=int, default=600, help="MC steps")
parser.add_argument("--quick", action="store_true", help="only 10 steps")
arguments = parser.parse_args()
n_steps = 10 if arguments.quick else arguments.steps
name = "alanine_in_solvent"
if os.path.exists(f"{name}.aimmd"):
    parser.error(f"{name}.aimmd exists; move it away, or go on with ops_aimmd.resume('{name}.nc', '{name}.aimmd')")

system = alanine_in_solvent(arguments.solvent)
start = system.start(seed=1, n_frames=200 if arguments.quick else 1000)
trajectory = ops_aimmd.initial_path(start, system.progress, system.states, seed=1)
print(f"first transition path: {len(trajectory)} frames")

learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=1)
scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=system.engine)
sampler = paths.PathSampling(
    storage=paths.Storage(f"{name}.nc", "w"),
    move_scheme=scheme,
    sample_set=scheme.initial_conditions_from_trajectories(trajectory),
)
sampler.attach_hook(ops_aimmd.TrainingHook(learner, checkpoint=f"{name}.aimmd", rejected_trials="ends"))
sampler.attach_hook(ops_aimmd.ProgressBar(learner))
sampler.run(n_steps)

# results
table = step_table(sampler.storage.steps, system.states)
late = table[-300:]
print(f"generated {late.generated.mean():.2f}, accepted {late.accepted.mean():.2f} in the last {len(late)} steps")
print(f"mean transition-path time {0.02 * (late.path_length - 1).mean():.2f} ps")
print("last training:", learner.last_report)

accepted = [step.active[0].trajectory for step in sampler.storage.steps if step.change.canonical.accepted][-60:]
degrees = np.concatenate([np.asarray(system.phi_psi(path)) for path in accepted])
committor = np.concatenate([learner.committor(path) for path in accepted])
figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
hexagons = plots.plot_committor_map(axes, *degrees.T, committor)
figure.colorbar(hexagons, ax=axes, label="learned committor of alpha_R")
axes.set(xlabel="phi (degrees)", ylabel="psi (degrees)", xlim=(-180, 180), ylim=(-180, 180))
axes.set_title("transition paths C7eq -> alpha_R")
figure.savefig(f"{name}.png", dpi=150)
sampler.storage.close()
print(ops_aimmd.report(f"{name}.nc", checkpoint=f"{name}.aimmd", output=f"{name}.html"))
print(f"wrote {name}.nc, {name}.aimmd, {name}.png and {name}.html")

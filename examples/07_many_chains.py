"""Many chains that share one learner: alanine dipeptide in vacuum, C7eq -> C7ax, on two processes.

Transition paths cross at phi = 0 or at phi = 180 degrees, and a chain seldom changes from one way to the other. So it takes
several chains to see both; all learn one committor together. The first paths are made on the spot, by climbs in two
functions that differ on the way; then each chain samples, its shots run in whichever process is free.

Takes about fifteen minutes on two cores (`--quick`: a minute). When the files of an earlier call are there, the run goes on
from them, also after Ctrl-C or a kill. Writes many_chains.nc (a regular OPS file; each step is one of one chain),
many_chains.aimmd (what was learned, all paths, the shots under way), many_chains.png and the report many_chains.html.
Expected: both channels among the first paths, more than half of the shots give a transition path, and a report that
warns that chains stay in their channel.
"""

import argparse
import os

import matplotlib.pyplot as plt
import numpy as np
import openpathsampling as paths

import ops_aimmd
from ops_aimmd.analysis import plots, step_table
from ops_aimmd.systems.alanine_dipeptide import CENTRES, RADIUS, alanine_dipeptide

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--chains", type=int, default=8)
parser.add_argument("--steps", type=int, default=75, help="MC steps of each chain, those of earlier calls included")
parser.add_argument("--processes", type=int, default=2)
parser.add_argument("--quick", action="store_true", help="only 2 chains of 4 steps, from paths of hot dynamics")
arguments = parser.parse_args()
n_chains, n_steps = (2, 4) if arguments.quick else (arguments.chains, arguments.steps)

if os.path.exists("many_chains.nc"):
    sampler = ops_aimmd.resume("many_chains.nc", checkpoint="many_chains.aimmd")
    sampler.executor = arguments.processes
    learner = sampler.learner
    system = alanine_dipeptide()
else:
    system = alanine_dipeptide()

    def towards_c7ax(snapshot):
        """Phi on its way from -80 to 65 degrees, either way round."""
        return np.cos(np.radians(system.phi_psi(snapshot)[0] - 65.0))

    def across_180(snapshot):
        """The same, but as if the way across 180 degrees went uphill all along."""
        return np.cos(np.radians((system.phi_psi(snapshot)[0] - 65.0) % 360.0) / 2.0)

    if arguments.quick:
        first_paths = [system.initial_trajectory(seed=seed) for seed in (3, 4)]  # found in seconds
    else:
        first_paths = ops_aimmd.initial_paths(
            n_chains,
            system.start(seed=1),
            [towards_c7ax, across_180],
            system.states,
            seed=1,
            executor=arguments.processes,
            descriptors=system.descriptors,
        )
        print(first_paths)
    print("they cross at phi =", *(system.channel(path)[0] for path in first_paths))
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=1)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=system.engine)
    storage = paths.Storage("many_chains.nc", "w")
    sampler = ops_aimmd.ParallelPathSampling(
        storage, scheme, first_paths, executor=arguments.processes, checkpoint="many_chains.aimmd"
    )
sampler.run_until(n_steps)

steps = sampler.storage.steps
table = step_table(steps, learner.states)
print(table.groupby("replica")[["generated", "accepted", "path_length"]].mean().round(2))

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
colours = plt.colormaps["turbo"](np.linspace(0.05, 0.95, n_chains))
for sample in sampler.sample_set:
    degrees = np.asarray(system.phi_psi(sample.trajectory))
    plots.plot_periodic_path(left, degrees, color=colours[sample.replica], linewidth=0.8)
for name, centre in CENTRES.items():
    plots.plot_disk(left, centre, RADIUS, name)
left.set(xlabel="phi (degrees)", ylabel="psi (degrees)", xlim=(-180, 180), ylim=(-180, 180))
left.set_title("current path of each chain")
for replica, rows in table.groupby("replica"):
    right.plot(np.arange(1, len(rows) + 1), rows.path_length, color=colours[replica], linewidth=1)
right.set(xlabel="step of the chain", ylabel="path length (frames)", yscale="log")
right.set_title("current path of each chain, step by step")
figure.savefig("many_chains.png", dpi=150)
sampler.storage.close()
print(ops_aimmd.report("many_chains.nc", checkpoint="many_chains.aimmd", output="many_chains.html"))
print("wrote many_chains.nc, many_chains.aimmd, many_chains.png and many_chains.html")

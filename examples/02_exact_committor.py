"""The learned committor next to the exact one, on the two-channel potential of Wolfe and Quapp.

Overdamped dynamics have a committor that can be computed exactly. Guided path sampling learns it from its shots: the
script prints the error after the run and draws both.

Takes about a minute (`--quick`: ten seconds). Writes exact_committor.png.
Expected: 35-45 % of the shots give a transition path, and the root mean square error of the committor is below 0.05.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
import openpathsampling as paths

import ops_aimmd
from ops_aimmd.analysis import StepRecorder
from ops_aimmd.systems import toy

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--quick", action="store_true", help="only 30 steps")
n_steps = 30 if parser.parse_args().quick else 500

system = toy.wolfe_quapp()
learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, seed=1)
scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=system.engine)
sampler = paths.PathSampling(
    storage=None,
    move_scheme=scheme,
    sample_set=scheme.initial_conditions_from_trajectories(system.initial_trajectory(seed=1)),
)
recorder = StepRecorder(system.states)
for hook in (ops_aimmd.TrainingHook(learner), ops_aimmd.ProgressBar(learner), recorder):
    sampler.attach_hook(hook)
sampler.run(n_steps)
learner.fit()

points = system.evaluation_points()
exact, learned = system.committor(points), learner.model.committor(points)
second_half = recorder.table.iloc[n_steps // 2 :]
print(f"generated {second_half.generated.mean():.2f}, expected by the model {second_half.expected.mean():.2f}")
print(f"committor, root mean square error at {len(points)} points: {np.sqrt(np.mean((learned - exact) ** 2)):.3f}")
centre = np.zeros((1, 2))
print(f"at (0, 0): learned {learner.model.committor(centre)[0]:.3f}, exact {system.committor(centre)[0]:.3f}")

x, y = np.meshgrid(np.linspace(-2.5, 2.5, 120), np.linspace(-2.8, 2.8, 120))
grid = np.column_stack([x.ravel(), y.ravel()])
energy = system.potential.value(grid).reshape(x.shape)
hidden = energy > system.v_max
figure, axes = plt.subplots(1, 3, figsize=(14, 4.6), layout="constrained")
fields = {"exact committor": system.committor(grid), "learned committor": learner.model.committor(grid)}
for panel, (title, field) in zip(axes, fields.items(), strict=False):
    colours = panel.pcolormesh(x, y, np.ma.array(field.reshape(x.shape), mask=hidden), cmap="coolwarm", vmin=0, vmax=1)
    panel.contour(x, y, energy, levels=np.linspace(energy.min(), system.v_max, 8), colors="grey", linewidths=0.5)
    panel.set(title=title, xlabel="x", ylabel="y", aspect="equal")
shots = learner.training_set
axes[1].scatter(*shots.descriptors.T, s=5, color="black", linewidths=0, label="shooting points")
axes[1].legend(loc="upper right", fontsize=8)
figure.colorbar(colours, ax=axes[:2], label="probability of reaching B")
axes[2].plot([0, 1], [0, 1], color="black", linewidth=0.8)
axes[2].plot(exact, learned, ".", markersize=4)
axes[2].set(title="point by point", xlabel="exact", ylabel="learned", aspect="equal", xlim=(0, 1), ylim=(0, 1))
figure.savefig("exact_committor.png", dpi=150)

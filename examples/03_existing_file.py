"""Learning from an OPS file that was made without this package, and going on from it with guided path sampling.

A plain OPS run (two-way shooting, uniform selection) on the two-channel potential of Wolfe and Quapp is written to a
file. From the file alone come a training set and a trained committor, next to the exact one; then a guided run begins with
this model and the last path of the file. The run is ended once and resumed.

Takes about three minutes (`--quick`: half a minute). Writes plain.nc, guided.nc, guided.aimmd and existing_file.png.
Expected: the plain run generates a transition path in 5-10 % of its shots, the guided one in 35-45 %; the root mean square
error of the committor learned from the plain file is below 0.12, and smaller after the guided steps.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import openpathsampling as paths

import ops_aimmd
from ops_aimmd.analysis import step_table
from ops_aimmd.sampling import ops_is_quiet, seed_step
from ops_aimmd.systems import toy

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--quick", action="store_true", help="only 12 plain and 6 guided steps, and few frames")
quick = parser.parse_args().quick
n_plain, n_guided = (12, 6) if quick else (300, 150)
for name in ("plain.nc", "guided.nc", "guided.aimmd"):
    if Path(name).exists():
        raise SystemExit(f"{name} exists: remove it, or run this in another folder")

# someone's run, with nothing of this package in its move scheme
system = toy.wolfe_quapp(n_steps_per_frame=50 if quick else None)
network = system.network()
strategy = paths.strategies.TwoWayShootingStrategy(
    modifier=paths.RandomVelocities(beta=1 / system.temperature, engine=system.engine),
    selector=paths.UniformSelector(),
    engine=system.engine,
)
plain = paths.MoveScheme(network)
plain.append([strategy, paths.strategies.OrganizeByMoveGroupStrategy()])
seed_step(seed=1, step=0)
with paths.Storage("plain.nc", "w") as storage:
    with ops_is_quiet():
        conditions = plain.initial_conditions_from_trajectories(system.initial_trajectory(seed=1))
        paths.PathSampling(storage, plain, conditions).run(n_plain)

# what can be learned from its file
storage = paths.Storage("plain.nc", "r")
training_set = ops_aimmd.TrainingSet.from_storage(storage, system.descriptors, system.states)
learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states, training_set=training_set, seed=1)
report = learner.fit()
model = learner.model
before = step_table(storage.steps, system.states)

# a guided run that begins with it, ends, and is resumed
scheme = ops_aimmd.CommittorShootingScheme(network, learner, engine=system.engine)
sampler = paths.PathSampling(
    storage=paths.Storage("guided.nc", "w"),
    move_scheme=scheme,
    sample_set=scheme.initial_conditions_from_trajectories(storage.steps[-1].active[0].trajectory),
)
sampler.attach_hook(ops_aimmd.TrainingHook(learner, checkpoint="guided.aimmd"))
sampler.run(n_guided // 2)
sampler.storage.close()
sampler = ops_aimmd.resume("guided.nc", checkpoint="guided.aimmd")
sampler.run(n_guided - n_guided // 2)
after = step_table(sampler.storage.steps, system.states)
sampler.storage.close()
guided = sampler.move_scheme.learner

points = system.evaluation_points()
exact = system.committor(points)
learned = {
    f"{len(training_set)} shots of the plain file": model.committor(points),
    f"{n_guided} guided shots more": guided.model.committor(points),
}
print(f"\n{training_set}\n{report}")
print(f"generated: plain {before.generated.mean():.2f}, guided {after.generated.mean():.2f}")
figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
for panel, (title, values) in zip(axes, learned.items(), strict=True):
    error = np.sqrt(np.mean((values - exact) ** 2))
    print(f"committor after {title}: root mean square error {error:.3f} at {len(points)} points")
    panel.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    panel.plot(exact, values, ".", markersize=4)
    panel.set(title=f"{title}\nerror {error:.3f}", xlabel="exact committor", ylabel="learned", aspect="equal")
figure.savefig("existing_file.png", dpi=150)

"""The OpenPathSampling side: learner, selectors, movers, schemes and hooks.

- `CommittorLearner`: descriptors, states, seed, and what was learned so far.
- `CommittorSelector`: shooting-point selector of OPS, weighted by the committor.
- `CommittorShootingScheme`: move scheme: one shooting mover per ensemble.
- `CommittorShootingStrategy`: the shooting moves as a strategy for a scheme of your own.
- `ShootingPointExchangeStrategy`: exchange of shooting points between chains, as a strategy.
- `ShootingMover`: two-way shooting mover that carries its pick to the acceptance.
- `OneWayShooting`: one-way shooting mover.
- `BoltzmannVelocities`: snapshot modifier: fresh velocities at the temperature of the engine.
- `DescriptorCV`: descriptors as a collective variable that OPS files store.
- `ProgressBar`: hook: a progress bar for a run of OPS.
- `load_learner`: the learner of a checkpoint.
- `ops_is_quiet`: context in which OPS prints nothing.
- `seed_step`: seed the global generators for one step, as a run with a seed does.
"""

from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.learner_checkpoint import load_learner
from ops_aimmd.sampling.movers import OneWayShooting, ShootingMover
from ops_aimmd.sampling.ops_messages import ops_is_quiet
from ops_aimmd.sampling.progress_bar import ProgressBar
from ops_aimmd.sampling.schemes import CommittorShootingScheme, CommittorShootingStrategy, ShootingPointExchangeStrategy
from ops_aimmd.sampling.selectors import CommittorSelector
from ops_aimmd.sampling.velocities import BoltzmannVelocities
from ops_aimmd.shooting.streams import seed_step
from ops_aimmd.systems.descriptor_cv import DescriptorCV

__all__ = [
    "BoltzmannVelocities",
    "CommittorLearner",
    "CommittorSelector",
    "CommittorShootingScheme",
    "CommittorShootingStrategy",
    "DescriptorCV",
    "OneWayShooting",
    "ProgressBar",
    "ShootingMover",
    "ShootingPointExchangeStrategy",
    "load_learner",
    "ops_is_quiet",
    "seed_step",
]

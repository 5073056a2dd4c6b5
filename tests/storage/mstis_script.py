"""OPS's toy example of multiple-state TIS, guided by a learned committor; as a script, a run that can be killed.

usage: mstis_script.py OPS_FILE CHECKPOINT N_STEPS

Starts or resumes, whichever is possible, and goes on to step N_STEPS. Writes "step STEP" after each step.

Three Gaussian wells in two dimensions, three interfaces around each, and one outer interface that the states share:
the set-up of the notebooks ``toy_mstis_1_setup`` and ``toy_mstis_2_run`` in OPS's examples.
"""

import os
import sys
import warnings

import kill_script
import numpy as np
import openpathsampling as paths
from openpathsampling.beta.hooks import PathSimulatorHook
from openpathsampling.engines import toy

import ops_aimmd
from ops_aimmd.shooting.streams import seed_step

CENTERS = {"A": (-0.5, -0.5), "B": (0.5, -0.5), "C": (0.0, 0.4)}

QUICK = {"max_epochs": 5, "auxiliary_weights": (0.0, 0.0), "relevance": None}
"""Options of `ops_aimmd.fit`: a rough committor is a valid guide, and costs little."""

SAVE_FREQUENCY = 50
"""Steps after which OPS writes its file to disk, as in the notebook: a file of a killed run is behind the checkpoint."""


def distance(snapshot, center):
    x, y = snapshot.xyz[0]
    return ((x - center[0]) ** 2 + (y - center[1]) ** 2) ** 0.5


def distance_cv(name, center):
    return paths.CoordinateFunctionCV(name, distance, center=list(center))


class ThreeWells:
    """Engine, states A, B and C, their distances, and the network of OPS's example.

    Parameters
    ----------
    distance_cv : callable
        Makes the distance from a centre, from its name and centre: OPS's own way, or a faster one.
    """

    def __init__(self, distance_cv=distance_cv, n_steps_per_frame=1):
        surface = toy.OuterWalls([1.0, 1.0], [0.0, 0.0])
        for center in CENTERS.values():
            surface = surface + toy.Gaussian(-0.7, [12.0, 12.0], list(center))
        integrator = toy.LangevinBAOABIntegrator(dt=0.02, temperature=0.1, gamma=2.5)
        options = {"integ": integrator, "n_frames_max": 5000, "n_steps_per_frame": n_steps_per_frame}
        self.engine = toy.Engine(options, toy.Topology(n_spatial=2, masses=[1.0, 1.0], pes=surface)).named("engine")
        self.distances = [distance_cv(f"op{name}", center) for name, center in CENTERS.items()]
        self.states = [
            paths.CVDefinedVolume(cv, 0.0, 0.2).named(name) for cv, name in zip(self.distances, CENTERS, strict=True)
        ]
        paths.InterfaceSet._reset()  # OPS takes collective variables of one name, in one process, for the same
        interfaces = [paths.VolumeInterfaceSet(cv, 0.0, [0.2, 0.3, 0.4]) for cv in self.distances]
        self.outer = paths.MSOuterTISInterface.from_lambdas({each: 0.5 for each in interfaces})
        self.interfaces = interfaces
        self.network = paths.MSTISNetwork(list(zip(self.states, interfaces, strict=True)), ms_outers=self.outer)
        self.network.hist_args["max_lambda"] = {"bin_width": 0.05, "bin_range": (0.0, 0.5)}
        self.network.hist_args["pathlength"] = {"bin_width": 5, "bin_range": (0, 150)}

    def scheme(self, selector=None):
        """OPS's default scheme; with a selector, that of all shooting moves."""
        scheme = paths.DefaultScheme(self.network, self.engine)
        if selector is not None:
            shooting = paths.strategies.OneWayShootingStrategy
            scheme.append(shooting(selector, engine=self.engine))
            outer = self.network.ms_outers
            scheme.append(shooting(selector, outer, self.engine, group="ms_outer_shooting"))
        return scheme

    def snapshot(self, state, velocity):
        return toy.Snapshot(
            coordinates=np.array([CENTERS[state.name]]), velocities=np.array([velocity]), engine=self.engine
        )

    def initial_conditions(self, scheme, seed):
        """A path in each ensemble: those of the interfaces by OPS's bootstrapping, those of the minus moves from them."""
        seed_step(seed, 0)
        found = [self._bootstrap(state) for state in self.states]
        conditions = paths.SampleSet.relabel_replicas_per_ensemble(found)
        conditions = scheme.initial_conditions_from_trajectories(conditions)
        minus = [
            self._minus_sample(ensemble, conditions, replica=-number)
            for number, ensemble in enumerate(self.network.minus_ensembles, start=1)
        ]
        conditions = scheme.initial_conditions_from_trajectories(minus, sample_set=conditions)
        scheme.assert_initial_conditions(conditions)
        return conditions

    def _bootstrap(self, state):
        number = self.states.index(state)
        bootstrapping = paths.FullBootstrapping(
            self.network.from_state[state],
            self.snapshot(state, [(1.0, 0.0), (-1.0, 0.0), (0.0, -0.5)][number]),
            engine=self.engine,
            forbidden_states=[other for other in self.states if other is not state],
            extra_interfaces=[self.outer.volume_for_interface_set(self.interfaces[number])],
        )
        bootstrapping.output_stream = open(os.devnull, "w")
        return bootstrapping.run(n_steps_per_round=1)

    def _minus_sample(self, minus, conditions, replica):
        """Extend a path that returns to its state; one that does not is shot from until it does."""
        innermost = self.network.from_state[minus.state_vol].ensembles[0]
        returning = paths.TISEnsemble(minus.state_vol, minus.state_vol, innermost.interface)
        mover = paths.ForwardShootMover(innermost, paths.UniformSelector(), self.engine)
        sample = conditions[innermost]
        while not returning(sample.trajectory):
            (trial,) = mover.move_core([sample]).trials
            if returning(trial.trajectory):
                sample = trial
        return minus.extend_sample_from_trajectories(sample, engine=self.engine, replica=replica)


class MinusMoveFirst(PathSimulatorHook):
    """Lets the root mover choose nothing but minus moves in the first step."""

    implemented_for = ["before_step", "after_step"]

    def before_step(self, sim, step_number, step_info, state):
        if step_number == 1:
            root = sim.root_mover
            minus = sim.move_scheme.movers["minus"]
            self.weights, root.weights = root.weights, [float(chooser.movers == minus) for chooser in root.movers]

    def after_step(self, sim, step_number, **kwargs):
        if step_number == 1:
            sim.root_mover.weights = self.weights


class Announce(PathSimulatorHook):
    """Writes the number of each step that the checkpoint holds."""

    implemented_for = ["after_step"]

    def after_step(self, sim, step_number, **kwargs):
        print("step", step_number, file=sys.__stdout__, flush=True)


def start(storage, checkpoint):
    """A guided run from bootstrapped paths that begins with a minus move; it always makes the same steps."""
    wells = ThreeWells(n_steps_per_frame=4)
    learner = ops_aimmd.CommittorLearner(wells.distances, wells.states, seed=1, fit_options=QUICK)
    scheme = wells.scheme(ops_aimmd.CommittorSelector(learner))
    sampler = paths.PathSampling(storage, scheme, wells.initial_conditions(scheme, seed=1))
    sampler.save_frequency = SAVE_FREQUENCY
    sampler.attach_hook(ops_aimmd.TrainingHook(learner, checkpoint))
    sampler.attach_hook(MinusMoveFirst())
    return sampler


if __name__ == "__main__":
    file, checkpoint, n_steps = sys.argv[1:]
    warnings.simplefilter("always")
    sys.stdout = open(os.devnull, "w")
    sampler = kill_script.start_or_resume(file, checkpoint, start)
    sampler.output_stream = sys.stdout
    sampler.attach_hook(Announce())
    sampler.run(int(n_steps) - sampler.step)
    sampler.storage.close()

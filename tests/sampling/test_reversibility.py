"""Reversing the velocities of a frame reverses the dynamics, or the user is warned."""

import warnings

import numpy as np
import openmm
import openpathsampling as paths
import pytest
from openmm import unit
from openmmtools import integrators, testsystems
from openpathsampling.engines import openmm as ops_openmm

import ops_aimmd
from ops_aimmd.engines.base import IrreversibleDynamicsWarning
from ops_aimmd.engines.integrators import baoab_integrator
from ops_aimmd.sampling.schemes import warn_about
from ops_aimmd.systems.alanine_dipeptide import alanine_dipeptide

STEP = 2.0 * unit.femtosecond


def engine_with(integrator):
    testsystem = testsystems.AlanineDipeptideVacuum()
    template = ops_openmm.snapshot_from_testsystem(testsystem)
    engine = ops_openmm.Engine(template.topology, testsystem.system, integrator, options={"n_steps_per_frame": 1})
    engine.initialize("Reference")
    return engine, template


def distance_after_going_back(integrator, n_frames=20):
    """Root mean square distance in nm from the start, after some frames forth and as many back, without friction."""
    engine, template = engine_with(integrator)
    np.random.seed(1)  # noqa: NPY002 - the modifier draws from numpy's global generator
    velocities = ops_aimmd.BoltzmannVelocities(engine, temperature=300.0)

    def go(snapshot):
        return engine.generate(snapshot, running=[lambda trajectory, trusted=None: len(trajectory) <= n_frames])

    start = go(velocities(template))[-1]  # on the constraints, and in the middle of a trajectory
    back = go(go(start)[-1].reversed)[-1]
    return float(np.sqrt(((back.xyz - start.xyz) ** 2).sum(axis=1).mean()))


def test_baoab_goes_back_where_it_came_from_and_leaping_integrators_do_not():
    settings = 300.0 * unit.kelvin, 0.0 / unit.picosecond, STEP
    leaping = openmm.LangevinMiddleIntegrator(*settings)
    assert distance_after_going_back(baoab_integrator(*settings)) < 1e-5
    assert distance_after_going_back(integrators.BAOABIntegrator(*settings)) < 1e-5
    assert distance_after_going_back(leaping) > 1e-3


@pytest.mark.parametrize("shooting", ["two-way", "one-way"])
def test_leaping_integrators_give_a_warning(shooting):
    system = alanine_dipeptide()
    leaping, _ = engine_with(openmm.LangevinMiddleIntegrator(300.0 * unit.kelvin, 1.0 / unit.picosecond, STEP))
    learner = ops_aimmd.CommittorLearner(system.descriptors, states=system.states)
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=leaping, shooting=shooting)
    with pytest.warns(IrreversibleDynamicsWarning, match="BAOAB"):
        scheme.move_decision_tree()
    scheme = ops_aimmd.CommittorShootingScheme(system.network(), learner, engine=system.engine, shooting=shooting)
    with warnings.catch_warnings():
        warnings.simplefilter("error", IrreversibleDynamicsWarning)
        scheme.move_decision_tree()


def test_other_engines_are_left_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_about(paths.engines.toy.Engine({"integ": None}, _toy_topology()))


def _toy_topology():
    pes = paths.engines.toy.Gaussian(1.0, [1.0, 1.0], [0.0, 0.0])
    return paths.engines.toy.Topology(n_spatial=2, masses=[1.0, 1.0], pes=pes)

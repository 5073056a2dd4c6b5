"""One checker for the adapter of any engine: what the package relies on, measured on the engine itself."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from ops_aimmd.engines.base import EngineAdapter
from ops_aimmd.engines.running import generate
from ops_aimmd.shooting.streams import seed_generators


@dataclass(frozen=True)
class Case:
    """An engine with what the checker must know from elsewhere.

    Attributes
    ----------
    adapter : EngineAdapter
        Adapter of an engine with inertia and noise.
    frictionless : EngineAdapter
        Adapter of the same engine without friction and noise.
    frame : Snapshot
        A frame of the engine, on its constraints.
    kinetic_energy : callable
        Kinetic energy of a frame in the units of the adapter's energies.
    n_dof : int
        Number of degrees of freedom.
    stepper : object
        Its method `step` makes steps of dynamics in the middle of a frame.
    hot : float
        Another temperature.
    """

    adapter: EngineAdapter
    frictionless: EngineAdapter
    frame: object
    kinetic_energy: object
    n_dof: int
    stepper: object
    hot: float


def check_engine_adapter(case: Case) -> None:
    """All checks."""
    for check in CHECKS:
        check(case)


def check_reversibility(case: Case, n_frames=20) -> None:
    """Without friction, dynamics goes back where it came from, or the adapter says why not."""
    if case.frictionless.irreversible_because is not None:
        return
    start = _leg(case.frictionless, case.frame, 1, 2)[-1]  # in the middle of a trajectory
    there = _leg(case.frictionless, start, 1, n_frames + 1)[-1]
    back = _leg(case.frictionless, there.reversed, 1, n_frames + 1)[-1]
    assert np.abs(there.xyz - start.xyz).max() > 1e-2 * np.abs(start.xyz).max()
    np.testing.assert_allclose(back.xyz, start.xyz, atol=1e-4 * np.abs(start.xyz).max())


def check_kinetic_energy(case: Case, n_values=10_000) -> None:
    """Kinetic energies of fresh velocities have the chi-squared distribution of n_dof degrees of freedom."""
    np.random.seed(1)  # noqa: NPY002 - OPS draws from numpy's global generator
    beta = case.adapter.inverse_temperature
    drawn = (case.adapter.fresh_velocities(case.frame) for _ in range(n_values // case.n_dof))
    energies = [case.kinetic_energy(case.frame.copy_with_replacement(velocities=velocities)) for velocities in drawn]
    assert stats.kstest(2.0 * beta * np.array(energies), stats.chi2(case.n_dof).cdf).pvalue > 1e-3


def check_seeds(case: Case) -> None:
    """The same seed gives the same leg, another seed another one."""
    legs = [_leg(case.adapter, case.frame, seed, 4) for seed in (5, 5, 6)]
    first, again, other = (np.array([frame.xyz for frame in leg]) for leg in legs)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first[1:], other[1:], rtol=1e-6)


def check_round_trip(case: Case) -> None:
    """A frame is the same after it was taken apart, to the last digit."""
    frame = _leg(case.adapter, case.frame, 1, 3)[-1]
    parts = case.adapter.arrays_of(frame)
    with_units = not isinstance(frame.coordinates, np.ndarray)
    again = case.adapter.frame_of(parts, with_units)
    assert again.__class__ is frame.__class__ and again.engine is case.adapter.engine
    assert {"coordinates", "velocities"} <= set(parts)
    for name in parts:
        before, after = getattr(frame, name), getattr(again, name)
        if with_units:
            assert after.unit.is_compatible(before.unit)
            before, after = (value.value_in_unit(before.unit) for value in (before, after))
        np.testing.assert_array_equal(after, before)


def check_stop_in_the_middle(case: Case) -> None:
    """After an error in the middle of a frame, the next leg is the one that an engine without the error makes."""
    start = _leg(case.adapter, case.frame, 1, 3)[-1]
    expected = _leg(case.adapter, start, 2, 4)[-1]
    generate(case.adapter.engine, start, lambda trajectory, trusted=None: len(trajectory) < 2)
    step = type(case.stepper).step

    def failing(*arguments, **options):
        step(case.stepper, *arguments, **options)
        raise RuntimeError("in the middle")

    case.stepper.step = failing
    try:
        with pytest.raises(RuntimeError, match="in the middle"):
            _leg(case.adapter, start, 3, 4)
    finally:
        del case.stepper.step
    np.testing.assert_array_equal(_leg(case.adapter, start, 2, 4)[-1].xyz, expected.xyz)


def check_another_temperature(case: Case, n_frames=400, n_values=8000) -> None:
    """A copy at another temperature has it in dynamics; the engine itself stays as it is."""
    cold = case.adapter.temperature
    hot = case.adapter.at_temperature(case.hot)
    assert hot.temperature == pytest.approx(case.hot) and case.adapter.temperature == cold
    assert hot.inverse_temperature * case.hot == pytest.approx(case.adapter.inverse_temperature * cold)
    assert hot.potential_energy(case.frame) == pytest.approx(case.adapter.potential_energy(case.frame), rel=1e-6)
    blocks = []
    for adapter in (case.adapter, hot):
        np.random.seed(1)  # noqa: NPY002 - OPS draws from numpy's global generator
        start = case.frame.copy_with_replacement(velocities=adapter.fresh_velocities(case.frame))
        leg = _leg(adapter, start, 1, 100 + max(n_frames, n_values // case.n_dof))[100:]  # the positions get hot first
        scaled = np.array([case.kinetic_energy(frame) for frame in leg]) * 2.0 * adapter.inverse_temperature / case.n_dof
        blocks.append([block.mean() for block in np.array_split(scaled, 10)])
    # the error of a finite time step is the same at both temperatures; it may be 10 % of the kinetic energy
    (cold_mean, hot_mean), (cold_error, hot_error) = np.mean(blocks, axis=1), np.std(blocks, axis=1, ddof=1) / np.sqrt(10)
    error = np.hypot(cold_error, hot_error)
    assert abs(hot_mean - cold_mean) < 4.0 * error  # Student's t with at least 9 degrees of freedom: 0.3 %
    assert error < 0.1  # or nothing is tested
    assert cold_mean == pytest.approx(1.0, abs=0.25)


CHECKS = (
    check_reversibility,
    check_kinetic_energy,
    check_seeds,
    check_round_trip,
    check_stop_in_the_middle,
    check_another_temperature,
)


def _leg(adapter, start, seed: int, n_frames: int):
    """The frames of a leg, the first one included."""
    np.random.seed(seed)  # noqa: NPY002 - OPS draws from numpy's global generator
    seed_generators((seed,), ())
    adapter.forget_history(start, [seed])
    adapter.seed(seed)
    return generate(adapter.engine, start, lambda trajectory, trusted=None: len(trajectory) < n_frames)

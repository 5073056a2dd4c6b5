"""What the package asks of a simulation engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ops_aimmd.engines.frames import arrays_of, construct

USE_ANOTHER_MODIFIER = "pass modifier=openpathsampling.RandomVelocities(beta), or a modifier of your own"


class IrreversibleDynamicsWarning(UserWarning):
    """Reversing the velocities of a frame does not reverse the dynamics."""


class EngineAdapter:
    """Answers to everything that the package asks of an engine.

    This class serves engines of an unknown kind: it knows nothing beside what OPS promises of all engines. A subclass
    overrides what is known of one kind of engine, and `ops_aimmd.engines.choose` registers it.

    Temperatures are in kelvin, energies in kJ/mol; toy engines: kT and energies in the units of the potential.
    """

    has_inertia = False
    """Whether dynamics continues with the velocities of its first frame; False for overdamped dynamics, and if unknown."""

    platform: str | None = None
    """Name of the hardware platform, None where the engine has none or is not initialised."""

    irreversible_because: str | None = None
    """Why reversed velocities do not reverse the dynamics; None if they do, and if unknown."""

    temperature_conflicts: Sequence[str] = ()
    """What has another temperature than the integrator, in one sentence each."""

    energy_depends_on_temperature = False
    """Whether the potential energy function itself depends on the temperature."""

    gas_constant = 1.0
    """kT divided by the temperature."""

    def __init__(self, engine):
        self.engine = engine

    # ---- dynamics ---------------------------------------------------------------------------------------------------

    def initialise(self, platform: str | None = None) -> None:
        """Make the engine ready to run, or raise ValueError; an engine that is ready stays as it is."""

    def seed(self, seed: int) -> None:
        """Seed the engine's own random numbers, 0 < seed < 2**31, if it has any beside numpy's; nothing else changes."""

    def forget_history(self, start, seed: Sequence[int]) -> None:
        """Reset what the engine keeps from one leg to the next, so that a leg depends on its first frame and seed only.

        `seed` is entropy for generators that :meth:`seed` does not reach.
        """

    def forget_current_frame(self) -> None:
        """Make the engine load the first frame of its next leg, after dynamics that were stopped in the middle."""

    # ---- ensemble ---------------------------------------------------------------------------------------------------

    @property
    def temperature(self) -> float:
        """Temperature of the ensemble; ValueError if it is not known."""
        raise self._unknown("the temperature and its velocities", USE_ANOTHER_MODIFIER)

    @property
    def inverse_temperature(self) -> float:
        """1 / kT, in the inverse unit of energies."""
        return 1.0 / (self.gas_constant * self.temperature)

    def check_other_temperatures(self) -> None:
        """Raise ValueError if something depends on the temperature in a way that is not known."""
        raise self._unknown("replicas at other temperatures", "leave out the temperatures")

    def at_temperature(self, temperature: float) -> EngineAdapter:
        """Adapter of a new engine that differs in the temperature only; ValueError as `check_other_temperatures`."""
        self.check_other_temperatures()
        raise NotImplementedError

    def potential_energy(self, frame) -> float:
        """Potential energy of a frame."""
        raise self._unknown("potential energies", "give the engine an adapter (ops_aimmd.engines)")

    def ensemble_energy(self, frame) -> float:
        r"""Energy H in the sampled distribution :math:`e^{-\beta H}`: U at constant volume, U + PV at constant pressure."""
        return self.potential_energy(frame)

    def fresh_velocities(self, snapshot, temperature=None):
        """Velocities from the Maxwell-Boltzmann distribution, drawn from numpy's global generator.

        Parameters
        ----------
        snapshot : Snapshot
            Its positions matter where bonds are constrained.
        temperature : float or openmm.unit.Quantity, optional
            That of the engine by default.

        Returns
        -------
        array or openmm.unit.Quantity, shape (n_atoms, n_spatial)

        Raises
        ------
        ValueError
            If the distribution or the temperature is not known, the temperature is not positive, or the velocities are not
            finite.
        """
        temperature = self.temperature if temperature is None else temperature
        if not temperature > 0.0:
            raise ValueError(f"the temperature is {temperature!r}, expected a positive number")
        return self._draw_velocities(snapshot, temperature * self.gas_constant)

    def _draw_velocities(self, snapshot, kT: float):
        raise self._unknown("Boltzmann velocities", USE_ANOTHER_MODIFIER)

    def _unknown(self, what: str, advice: str) -> ValueError:
        kind = type(self.engine).__name__
        return ValueError(f"{what} are known for OpenMM and toy engines, not for {kind}: {advice}")

    # ---- content ----------------------------------------------------------------------------------------------------

    @property
    def time_per_frame(self) -> tuple[float, str] | None:
        """Time between two frames and its unit, None if the engine does not tell."""
        try:
            return float(self.engine.snapshot_timestep), "time units"
        except (AttributeError, KeyError, TypeError, NotImplementedError):  # engines need not know it
            return None

    def lasting_content(self, content: Mapping) -> Mapping:
        """`to_dict` of the engine without what changes while it runs."""
        return content

    def arrays_of(self, frame) -> dict:
        """What a frame consists of: see `ops_aimmd.engines.frames.arrays_of`."""
        return arrays_of(frame)

    def frame_of(self, parts: Mapping, with_units: bool):
        """A new frame from `arrays_of`; the arrays get units if `with_units`."""
        return construct(dict(self.engine.descriptor)["class"], self.engine, parts, with_units)


def no_temperature(integrator, unit: str) -> ValueError:
    """The error for an integrator without a temperature."""
    return ValueError(
        f"the integrator {type(integrator).__name__} has no temperature; "
        f"pass modifier=BoltzmannVelocities(engine, temperature=...), {unit}"
    )

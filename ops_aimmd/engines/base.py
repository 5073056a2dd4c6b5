"""What the package asks of a simulation engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .frames import arrays_of, construct


class IrreversibleDynamicsWarning(UserWarning):
    """Reversing the velocities of a frame does not reverse the dynamics."""


class EngineAdapter:
    """Answers to everything that the package asks of an engine.

    This class serves engines of an unknown kind: it knows nothing beside what OPS promises of all engines. A subclass
    overrides what is known of one kind of engine, and `ops_aimmd.engines.choose` registers it.

    Parameters
    ----------
    engine : openpathsampling.engines.DynamicsEngine
    """

    has_inertia = False
    """Whether dynamics continues with the velocities of its first frame; False for overdamped dynamics, and if unknown."""

    platform: str | None = None
    """Name of the hardware platform, None where the engine has none or is not initialised."""

    irreversible_because: str | None = None
    """Why reversed velocities do not reverse the dynamics; None if they do, and if unknown."""

    energy_depends_on_temperature = False
    """Whether the potential energy function itself depends on the temperature."""

    def __init__(self, engine):
        self.engine = engine

    # ---- dynamics ---------------------------------------------------------------------------------------------------

    def initialise(self, platform: str | None = None) -> None:
        """Make the engine ready to run; an engine that is ready stays as it is.

        Raises
        ------
        ValueError
            If it cannot be set up on this platform.
        """

    def seed(self, seed: int) -> None:
        """Seed the engine's own random numbers, 0 < seed < 2**31; positions, velocities, box and time do not change.

        An engine that draws from numpy's global generator has none of its own.
        """

    def forget_history(self, start, seed: Sequence[int]) -> None:
        """Reset everything that the engine keeps from one leg to the next, so that a leg follows from start and seed.

        Parameters
        ----------
        start : Snapshot
            First frame of the leg.
        seed : sequence of int
            Entropy for random number generators that `seed` does not reach.
        """

    def forget_current_frame(self) -> None:
        """Make the engine load the first frame of its next leg, after dynamics that were stopped in the middle."""

    # ---- ensemble ---------------------------------------------------------------------------------------------------

    @property
    def temperature(self) -> float:
        """Temperature in kelvin; toy engines: kT in the units of the potential.

        Raises
        ------
        ValueError
            If the engine does not tell.
        """
        raise ValueError(f"the temperature of a {type(self.engine).__name__} is not known")

    @property
    def inverse_temperature(self) -> float:
        """1 / kT in the inverse units of `potential_energy`."""
        raise ValueError(f"the temperature of a {type(self.engine).__name__} is not known")

    @property
    def temperature_conflicts(self) -> list[str]:
        """What has another temperature than the integrator, in one sentence each."""
        return []

    def check_other_temperatures(self) -> None:
        """Check that `at_temperature` makes an engine with the right ensemble.

        Raises
        ------
        ValueError
            If something depends on the temperature in a way that is not known.
        """
        raise ValueError(
            f"replicas at other temperatures are known for OpenMM and toy engines, not for {type(self.engine).__name__}: "
            "leave out the temperatures"
        )

    def at_temperature(self, temperature: float) -> EngineAdapter:
        """Adapter of a new engine that differs in the temperature only (kelvin; toy engines: kT).

        Raises
        ------
        ValueError
            As `check_other_temperatures`.
        """
        self.check_other_temperatures()
        raise NotImplementedError

    def potential_energy(self, frame) -> float:
        """Potential energy of a frame: kJ/mol for OpenMM, the units of the potential for toy engines."""
        raise ValueError(f"the potential energy of a {type(self.engine).__name__} is not known")

    def ensemble_energy(self, frame) -> float:
        r"""Energy H of a frame, as `potential_energy`, with which the engine samples :math:`e^{-\beta H}`.

        At constant volume this is the potential energy U, at constant pressure U + PV.
        """
        return self.potential_energy(frame)

    def fresh_velocities(self, snapshot, temperature=None):
        """Velocities of all atoms from the Maxwell-Boltzmann distribution, drawn from numpy's global generator.

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
        raise ValueError(
            f"Boltzmann velocities are known for OpenMM and toy engines, not for {self.engine!r}; "
            "pass modifier=openpathsampling.RandomVelocities(beta), or a modifier of your own"
        )

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
        """What a frame consists of: float64 arrays in nm and nm/ps, or in the engine's own units, and plain values."""
        return arrays_of(frame)

    def frame_of(self, parts: Mapping, with_units: bool):
        """A new frame from `arrays_of`; the arrays get units if `with_units`."""
        return construct(dict(self.engine.descriptor)["class"], self.engine, parts, with_units)


def check_positive(temperature) -> None:
    """Raise ValueError for a temperature that is not positive."""
    if not temperature > 0.0:
        raise ValueError(f"the temperature is {temperature!r}, expected a positive number")


def no_temperature(integrator, unit: str) -> ValueError:
    """The error for an integrator without a temperature."""
    return ValueError(
        f"the integrator {type(integrator).__name__} has no temperature; "
        f"pass modifier=BoltzmannVelocities(engine, temperature=...), {unit}"
    )

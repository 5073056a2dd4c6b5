"""Engines of OPS's toy models: one particle in a potential, random numbers from numpy's global generator."""

from __future__ import annotations

import numpy as np
from openpathsampling.engines import toy as ops_toy

from ops_aimmd.engines.base import EngineAdapter, no_temperature


class ToyAdapter(EngineAdapter):
    """Adapter of `openpathsampling.engines.toy.Engine`; its temperature is kT."""

    @property
    def integrator(self):
        """The integrator of the engine."""
        return self.engine.options["integ"]

    @property
    def has_inertia(self) -> bool:
        return isinstance(self.integrator, ops_toy.LeapfrogVerletIntegrator)  # base class of the Langevin integrator

    @property
    def temperature(self) -> float:
        temperature = getattr(self.integrator, "temperature", None)
        if temperature is None:
            raise no_temperature(self.integrator, "kT in the units of the engine")
        return float(temperature)

    def check_other_temperatures(self) -> None:
        """The temperature of a toy engine is that of its integrator."""

    def at_temperature(self, temperature: float) -> ToyAdapter:
        integrator = type(self.integrator).from_dict({**self.integrator.to_dict(), "temperature": temperature})
        return ToyAdapter(ops_toy.Engine({**self.engine.options, "integ": integrator}, self.engine.topology))

    def potential_energy(self, frame) -> float:
        self.engine.current_snapshot = frame
        return float(self.engine.pes.V(self.engine))

    def _draw_velocities(self, snapshot, kT: float):
        shape = np.shape(snapshot.velocities)
        # a toy engine has one particle; its mass may differ from axis to axis
        sigma = np.sqrt(kT / np.broadcast_to(self.engine.mass, shape[1:]))
        return sigma * np.random.normal(size=shape)  # noqa: NPY002 - OPS draws from numpy's global generator

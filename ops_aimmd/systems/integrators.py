"""Scripts import `baoab_integrator` from here."""

from ops_aimmd.engines.integrators import baoab_integrator  # noqa: F401

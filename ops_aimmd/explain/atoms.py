"""The name that the documentation of version 0.1.0 gives to `ops_aimmd.explain.inputs.atoms`."""

from ops_aimmd.explain.inputs.atoms import *  # noqa: F403

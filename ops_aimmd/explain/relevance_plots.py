"""The name that the documentation of version 0.1.0 gives to `ops_aimmd.explain.inputs.relevance_plots`."""

from ops_aimmd.explain.inputs.relevance_plots import *  # noqa: F403
